#include "pki/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <string.h>

#include "pki/der.h"

/* clang-format off */

/* RFC 6960 section 4.1.1. What is not looked at stays closed: the requestor's name and signature. */
typedef struct {
    ASN1_INTEGER *version;
    ASN1_TYPE *requestor;
    STACK_OF(OCSP_ONEREQ) *list;
    STACK_OF(X509_EXTENSION) *extensions;
} TBS_REQUEST;

ASN1_SEQUENCE(TBS_REQUEST) = {
    ASN1_EXP_OPT(TBS_REQUEST, version, ASN1_INTEGER, 0),
    ASN1_EXP_OPT(TBS_REQUEST, requestor, ASN1_ANY, 1),
    ASN1_SEQUENCE_OF(TBS_REQUEST, list, OCSP_ONEREQ),
    ASN1_EXP_SEQUENCE_OF_OPT(TBS_REQUEST, extensions, X509_EXTENSION, 2)
} static_ASN1_SEQUENCE_END(TBS_REQUEST);

typedef struct {
    TBS_REQUEST *tbs;
    ASN1_TYPE *signature;
} REQUEST;

ASN1_SEQUENCE(REQUEST) = {
    ASN1_SIMPLE(REQUEST, tbs, TBS_REQUEST),
    ASN1_EXP_OPT(REQUEST, signature, ASN1_ANY, 0)
} static_ASN1_SEQUENCE_END(REQUEST);

/* clang-format on */

/* ---- requests ---- */

static int take(uint8_t *out, size_t min, size_t max, struct bytes in)
{
    if (in.len < min || in.len > max)
        return -1;
    memcpy(out, in.data, in.len);
    return 0;
}

static size_t hash_length(const ASN1_OBJECT *algorithm)
{
    switch (OBJ_obj2nid(algorithm)) {
    case NID_sha1:
        return 20;
    case NID_sha256:
        return 32;
    default:
        return 0;
    }
}

static int take_certid(struct ocsp_certid *out, OCSP_CERTID *id)
{
    ASN1_OCTET_STRING *name, *key;
    ASN1_OBJECT *algorithm;
    ASN1_INTEGER *serial;
    *out = (struct ocsp_certid){0};
    if (OCSP_id_get0_info(&name, &algorithm, &key, &serial, id) != 1 ||
        ASN1_STRING_type(serial) != V_ASN1_INTEGER) /* which a negative one is not */
        return -1;
    size_t n = out->hash_len = hash_length(algorithm);
    out->serial_len = der_string(serial).len;
    if (n == 0 || take(out->issuer_name_hash, n, n, der_string(name)) ||
        take(out->issuer_key_hash, n, n, der_string(key)))
        return -1;
    return take(out->serial, 1, sizeof out->serial, der_string(serial));
}

/* How long is the nonce in an extension's value? */
static size_t nonce_length(struct bytes value)
{
    ASN1_OCTET_STRING *inner = der_decode(value, ASN1_ITEM_rptr(ASN1_OCTET_STRING));
    size_t len = inner ? der_string(inner).len : value.len;
    ASN1_OCTET_STRING_free(inner);
    return len;
}

/* RFC 9654 section 2.1 */
static int take_nonce(struct ocsp_request *out, X509_EXTENSION *ext)
{
    struct bytes value = der_string(X509_EXTENSION_get_data(ext));
    size_t len = nonce_length(value);
    if (out->nonce_len || len < 1 || len > 128 || take(out->nonce, 1, sizeof out->nonce, value))
        return -1;
    out->nonce_len = value.len;
    return 0;
}

static int take_extensions(struct ocsp_request *out, const STACK_OF(X509_EXTENSION) * all)
{
    for (int i = 0; i < sk_X509_EXTENSION_num(all); i++) {
        X509_EXTENSION *ext = sk_X509_EXTENSION_value(all, i);
        int nonce = OBJ_obj2nid(X509_EXTENSION_get_object(ext)) == NID_id_pkix_OCSP_Nonce;
        if (nonce ? take_nonce(out, ext) : X509_EXTENSION_get_critical(ext))
            return -1;
    }
    return 0;
}

static int take_one(struct ocsp_certid *out, OCSP_ONEREQ *one)
{
    for (int i = 0; i < OCSP_ONEREQ_get_ext_count(one); i++)
        if (X509_EXTENSION_get_critical(OCSP_ONEREQ_get_ext(one, i)))
            return -1;
    return take_certid(out, OCSP_onereq_get0_id(one));
}

static int take_request(struct ocsp_request *out, const TBS_REQUEST *tbs)
{
    int count = sk_OCSP_ONEREQ_num(tbs->list);
    if (tbs->version && ASN1_INTEGER_get(tbs->version) != 0) /* v1 */
        return -1;
    if (count < 1 || count > OCSP_CERTIDS_MAX)
        return -1;
    for (int i = 0; i < count; i++)
        if (take_one(&out->certids[out->count++], sk_OCSP_ONEREQ_value(tbs->list, i)))
            return -1;
    return take_extensions(out, tbs->extensions);
}

int ocsp_request_parse(struct ocsp_request *out, struct bytes der)
{
    *out = (struct ocsp_request){0};
    if (der.len > OCSP_REQUEST_MAX)
        return -1;
    REQUEST *req = der_decode(der, ASN1_ITEM_rptr(REQUEST));
    int rc = req ? take_request(out, req->tbs) : -1;
    ASN1_item_free((ASN1_VALUE *)req, ASN1_ITEM_rptr(REQUEST));
    if (rc)
        ERR_clear_error();
    return rc;
}

/* ---- CertIDs on the wire ---- */

static int lengths_hold(size_t hash_len, size_t serial_len)
{
    return (hash_len == 20 || hash_len == 32) && serial_len >= 1 && serial_len <= 20;
}

static int pack_one(struct buf *out, const struct ocsp_certid *id)
{
    const uint8_t lengths[] = {(uint8_t)id->hash_len, (uint8_t)id->serial_len};
    if (!lengths_hold(id->hash_len, id->serial_len) || buf_add(out, lengths, sizeof lengths) ||
        buf_add(out, id->issuer_name_hash, id->hash_len) ||
        buf_add(out, id->issuer_key_hash, id->hash_len))
        return -1;
    return buf_add(out, id->serial, id->serial_len);
}

int ocsp_pack(struct buf *out, const struct ocsp_certid *certids, size_t count)
{
    if (count < 1 || count > OCSP_CERTIDS_MAX)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (pack_one(out, &certids[i]))
            return -1;
    return 0;
}

static struct bytes first(struct bytes *rest, size_t n)
{
    struct bytes b = {rest->data, n};
    rest->data += n;
    rest->len -= n;
    return b;
}

static int unpack_one(struct ocsp_certid *out, struct bytes *rest)
{
    if (rest->len < 2)
        return -1;
    struct bytes lengths = first(rest, 2);
    size_t h = lengths.data[0], s = lengths.data[1];
    if (!lengths_hold(h, s) || rest->len < 2 * h + s)
        return -1;
    *out = (struct ocsp_certid){.hash_len = h, .serial_len = s};
    memcpy(out->issuer_name_hash, first(rest, h).data, h);
    memcpy(out->issuer_key_hash, first(rest, h).data, h);
    memcpy(out->serial, first(rest, s).data, s);
    return 0;
}

int ocsp_unpack(struct ocsp_certid out[OCSP_CERTIDS_MAX], size_t *count, struct bytes packed)
{
    *count = 0;
    while (packed.len) {
        if (*count == OCSP_CERTIDS_MAX || unpack_one(&out[*count], &packed))
            return -1;
        ++*count;
    }
    return *count ? 0 : -1;
}
