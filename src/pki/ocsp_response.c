#include "pki/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#include "pki/crl.h"
#include "pki/der.h"
#include "pki/key.h"
#include "pki/signed.h"

/* clang-format off */

/* RFC 6960 section 4.2.1; version is v1, so left out; responderID is byKey */
typedef struct {
    ASN1_OCTET_STRING *key_hash;
    ASN1_GENERALIZEDTIME *produced_at;
    STACK_OF(OCSP_SINGLERESP) *responses;
    STACK_OF(X509_EXTENSION) *extensions;
} RESPONSE_DATA;

ASN1_SEQUENCE(RESPONSE_DATA) = {
    ASN1_EXP(RESPONSE_DATA, key_hash, ASN1_OCTET_STRING, 2),
    ASN1_SIMPLE(RESPONSE_DATA, produced_at, ASN1_GENERALIZEDTIME),
    ASN1_SEQUENCE_OF(RESPONSE_DATA, responses, OCSP_SINGLERESP),
    ASN1_EXP_SEQUENCE_OF_OPT(RESPONSE_DATA, extensions, X509_EXTENSION, 1)
} static_ASN1_SEQUENCE_END(RESPONSE_DATA);

/* clang-format on */

struct responder {
    X509 *certificate;
    struct buf certs; /* [0] of BasicOCSPResponse, DER */
    uint8_t key_hash[20];
    int64_t not_after;
    enum sign_alg alg;
};

struct bytes ocsp_error_response(enum ocsp_error e)
{
    static const uint8_t der[][5] = {[OCSP_MALFORMED_REQUEST] = {0x30, 3, 0x0a, 1, 1},
                                     [OCSP_INTERNAL_ERROR] = {0x30, 3, 0x0a, 1, 2},
                                     [OCSP_TRY_LATER] = {0x30, 3, 0x0a, 1, 3},
                                     [OCSP_UNAUTHORIZED] = {0x30, 3, 0x0a, 1, 6}};
    return (struct bytes){der[e], sizeof der[e]};
}

/* ---- the responder ---- */

static int add_value(struct buf *out, int tag, const uint8_t *data, size_t len)
{
    if (der_header(out, tag == V_ASN1_SEQUENCE, tag, V_ASN1_UNIVERSAL, len))
        return -1;
    return buf_add(out, data, len);
}

static int check_usage(X509 *x, struct err *err)
{
    if (X509_check_ca(x) || X509_get_extended_key_usage(x) != XKU_OCSP_SIGN)
        return err_set(err, ERR_field_value,
                       "the responder's certificate is not one: extendedKeyUsage is not "
                       "OCSPSigning alone");
    return 0;
}

static int take_key(struct responder *r, struct err *err)
{
    static const struct key_policy any = {2048, 4096, 1, 1};
    static const enum sign_alg alg[] = {[KEY_RSA] = SIGN_RSA_SHA256,
                                        [KEY_P256] = SIGN_ECDSA_SHA256,
                                        [KEY_P384] = SIGN_ECDSA_SHA384};
    struct key_info info;
    struct buf spki = {0};
    int rc = -1;
    if (der_encode(&spki, X509_get_X509_PUBKEY(r->certificate), ASN1_ITEM_rptr(X509_PUBKEY)))
        err_set(err, ERR_internal, "no memory");
    else if (key_check(buf_view(&spki), &any, &info, err))
        err_prefix(err, "the responder's key");
    else {
        r->alg = alg[info.kind];
        rc = 0;
    }
    buf_free(&spki);
    return rc;
}

static int add_certs(struct buf *out, struct bytes der)
{
    struct buf list = {0};
    int rc = add_value(&list, V_ASN1_SEQUENCE, der.data, der.len);
    if (!rc)
        rc = der_header(out, 1, 0, V_ASN1_CONTEXT_SPECIFIC, list.len);
    if (!rc)
        rc = buf_add(out, list.data, list.len);
    buf_free(&list);
    return rc;
}

static int derive(struct responder *r, struct bytes der, struct err *err)
{
    struct tm tm;
    unsigned len = sizeof r->key_hash;
    if (X509_pubkey_digest(r->certificate, EVP_sha1(), r->key_hash, &len) != 1 ||
        ASN1_TIME_to_tm(X509_get0_notAfter(r->certificate), &tm) != 1 || add_certs(&r->certs, der))
        return err_set(err, ERR_internal, "the responder's certificate: %s", err_openssl());
    r->not_after = timegm(&tm);
    return 0;
}

int responder_new(struct responder **out, struct bytes der, struct err *err)
{
    struct responder *r = calloc(1, sizeof *r);
    if (!r)
        return err_set(err, ERR_internal, "no memory");
    r->certificate = der_decode(der, ASN1_ITEM_rptr(X509));
    if (!r->certificate)
        err_set(err, ERR_field_value, "the responder's certificate is not one");
    else if (!check_usage(r->certificate, err) && !take_key(r, err) && !derive(r, der, err)) {
        *out = r;
        return 0;
    }
    responder_free(r);
    return -1;
}

void responder_free(struct responder *r)
{
    if (!r)
        return;
    X509_free(r->certificate);
    buf_free(&r->certs);
    free(r);
}

enum sign_alg responder_alg(const struct responder *r)
{
    return r->alg;
}

int64_t responder_not_after(const struct responder *r)
{
    return r->not_after;
}

/* ---- ResponseData ---- */

/* The hashes cannot be put into OpenSSL's CertID: it makes them itself. So by its bytes. */
static OCSP_CERTID *make_certid(const struct ocsp_certid *id)
{
    static const uint8_t sha1[] = {0x30, 9, 6, 5, 0x2b, 14, 3, 2, 26, 5, 0};
    static const uint8_t sha256[] = {0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0};
    const uint8_t *alg = id->hash_len == 20 ? sha1 : sha256;
    size_t alg_len = id->hash_len == 20 ? sizeof sha1 : sizeof sha256;
    int sign = id->serial[0] > 0x7f; /* a zero goes before it */
    struct buf in = {0}, der = {0};
    OCSP_CERTID *out = NULL;
    if (!buf_add(&in, alg, alg_len) &&
        !add_value(&in, V_ASN1_OCTET_STRING, id->issuer_name_hash, id->hash_len) &&
        !add_value(&in, V_ASN1_OCTET_STRING, id->issuer_key_hash, id->hash_len) &&
        !der_header(&in, 0, V_ASN1_INTEGER, V_ASN1_UNIVERSAL, id->serial_len + (size_t)sign) &&
        !buf_add(&in, "", (size_t)sign) && !buf_add(&in, id->serial, id->serial_len) &&
        !add_value(&der, V_ASN1_SEQUENCE, in.data, in.len))
        out = der_decode(buf_view(&der), ASN1_ITEM_rptr(OCSP_CERTID));
    buf_free(&in);
    buf_free(&der);
    return out;
}

static int ossl_status(enum ocsp_status status)
{
    static const int table[] = {[OCSP_STATUS_GOOD] = V_OCSP_CERTSTATUS_GOOD,
                                [OCSP_STATUS_REVOKED] = V_OCSP_CERTSTATUS_REVOKED,
                                [OCSP_STATUS_UNKNOWN] = V_OCSP_CERTSTATUS_UNKNOWN};
    return table[status];
}

static int add_single(OCSP_BASICRESP *to, const struct ocsp_single *s, ASN1_TIME *this_update,
                      ASN1_TIME *next_update)
{
    int revoked = s->status == OCSP_STATUS_REVOKED;
    int reason =
        revoked && s->reason != REASON_UNSPECIFIED ? s->reason : OCSP_REVOKED_STATUS_NOSTATUS;
    OCSP_CERTID *id = make_certid(&s->certid);
    ASN1_TIME *at = revoked ? ASN1_TIME_set(NULL, s->revoked_at) : NULL;
    int ok = id && (at || !revoked) &&
             OCSP_basic_add1_status(to, id, ossl_status(s->status), reason, at, this_update,
                                    next_update);
    ASN1_TIME_free(at);
    OCSP_CERTID_free(id);
    return ok ? 0 : -1;
}

/* The list in d is made of what scratch owns. */
static int fill_singles(RESPONSE_DATA *d, OCSP_BASICRESP *scratch, const struct ocsp_answer *a)
{
    ASN1_TIME *from = ASN1_TIME_set(NULL, a->this_update);
    ASN1_TIME *to = ASN1_TIME_set(NULL, a->next_update);
    int rc = from && to ? 0 : -1;
    for (size_t i = 0; !rc && i < a->count; i++)
        if (add_single(scratch, &a->singles[i], from, to) ||
            !sk_OCSP_SINGLERESP_push(d->responses, OCSP_resp_get0(scratch, (int)i)))
            rc = -1;
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return rc;
}

static int fill_nonce(RESPONSE_DATA *d, struct bytes nonce)
{
    if (!nonce.len)
        return 0;
    X509_EXTENSION *ext = NULL;
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    if (value && ASN1_OCTET_STRING_set(value, nonce.data, (int)nonce.len))
        ext = X509_EXTENSION_create_by_NID(NULL, NID_id_pkix_OCSP_Nonce, 0, value);
    ASN1_OCTET_STRING_free(value);
    d->extensions = ext ? sk_X509_EXTENSION_new_null() : NULL;
    if (d->extensions && sk_X509_EXTENSION_push(d->extensions, ext))
        return 0;
    X509_EXTENSION_free(ext);
    return -1;
}

static int check_answer(const struct ocsp_answer *a, struct err *err)
{
    if (a->count < 1 || a->count > OCSP_CERTIDS_MAX || a->nonce.len > OCSP_NONCE_MAX)
        return err_set(err, ERR_internal, "OCSP: no CertID, too many, or a nonce too long");
    if (a->next_update <= a->this_update || a->produced_at < a->this_update)
        return err_set(err, ERR_internal, "OCSP: the times are not valid");
    for (size_t i = 0; i < a->count; i++) {
        const struct ocsp_single *s = &a->singles[i];
        size_t h = s->certid.hash_len, n = s->certid.serial_len;
        if ((h != 20 && h != 32) || n < 1 || n > sizeof s->certid.serial)
            return err_set(err, ERR_internal, "OCSP: a CertID is not valid");
        if (s->status > OCSP_STATUS_UNKNOWN ||
            (s->status == OCSP_STATUS_REVOKED && !crl_reason_name(s->reason)))
            return err_set(err, ERR_internal, "OCSP: a status or reason is not valid");
    }
    return 0;
}

int ocsp_build(struct buf *tbs, const struct ocsp_answer *answer, struct err *err)
{
    RESPONSE_DATA d = {0};
    if (check_answer(answer, err))
        return -1;
    OCSP_BASICRESP *scratch = OCSP_BASICRESP_new();
    d.key_hash = ASN1_OCTET_STRING_new();
    d.produced_at = ASN1_GENERALIZEDTIME_set(NULL, answer->produced_at);
    d.responses = sk_OCSP_SINGLERESP_new_null();
    int rc = 0;
    if (!scratch || !d.key_hash || !d.produced_at || !d.responses ||
        !ASN1_OCTET_STRING_set(d.key_hash, answer->responder->key_hash, 20) ||
        fill_singles(&d, scratch, answer) || fill_nonce(&d, answer->nonce) ||
        der_encode(tbs, &d, ASN1_ITEM_rptr(RESPONSE_DATA)))
        rc = err_set(err, ERR_internal, "OCSP: the response cannot be made: %s", err_openssl());
    sk_OCSP_SINGLERESP_free(d.responses);
    sk_X509_EXTENSION_pop_free(d.extensions, X509_EXTENSION_free);
    ASN1_GENERALIZEDTIME_free(d.produced_at);
    ASN1_OCTET_STRING_free(d.key_hash);
    OCSP_BASICRESP_free(scratch);
    return rc;
}

/* ---- OCSPResponse ---- */

static int add_basic(struct buf *out, const struct responder *r, struct bytes tbs,
                     struct bytes signature)
{
    struct buf in = {0};
    int rc = buf_add(&in, tbs.data, tbs.len);
    if (!rc)
        rc = signed_tail(&in, r->alg, signature);
    if (!rc)
        rc = buf_add(&in, r->certs.data, r->certs.len);
    if (!rc)
        rc = add_value(out, V_ASN1_SEQUENCE, in.data, in.len);
    buf_free(&in);
    return rc;
}

int ocsp_assemble(struct buf *der, const struct responder *r, struct bytes tbs,
                  struct bytes signature, struct err *err)
{
    uint8_t digest[DIGEST_MAX];
    struct buf bytes = {0};
    OCSP_BASICRESP *basic = NULL;
    OCSP_RESPONSE *response = NULL;
    size_t len = sign_digest(r->alg, tbs, digest);
    if (signed_verify(X509_get0_pubkey(r->certificate), r->alg, (struct bytes){digest, len},
                      signature))
        return err_set(err, ERR_internal,
                       "the token's signature of an OCSP response does not "
                       "verify with the responder's certificate");
    int rc = 0;
    if (add_basic(&bytes, r, tbs, signature) ||
        !(basic = der_decode(buf_view(&bytes), ASN1_ITEM_rptr(OCSP_BASICRESP))) ||
        !(response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic)) ||
        der_encode(der, response, ASN1_ITEM_rptr(OCSP_RESPONSE)))
        rc = err_set(err, ERR_internal, "OCSP: the response cannot be made: %s", err_openssl());
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    buf_free(&bytes);
    return rc;
}
