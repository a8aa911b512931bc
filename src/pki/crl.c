#include "pki/crl.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pki/der.h"
#include "pki/point.h"
#include "pki/signed.h"

#define CHUNK (64 * 1024)

const char CRL_ANCHOR_OID[] =
    "1.2.840.113556.1.8000.2554.54693.671.13568.20450.35417.6933421.5119703";

enum stage { COUNTING, WRITING, DIGESTED, FINISHED };

struct crl {
    struct crl_head head;
    int fd;
    enum stage stage;
    uint64_t entries, bytes; /* of the first walk; the second takes away again */
    struct buf entry;        /* one, encoded */
    struct buf tail;         /* of the TBS: its extensions */
    struct buf out;          /* not yet written */
    size_t tbs_len;
    uint8_t written[DIGEST_MAX]; /* digest of the TBS */
    ASN1_TIME *time;
    EVP_MD_CTX *digest;
};

static const struct {
    int reason;
    const char *name;
} reasons[] = {
    {REASON_UNSPECIFIED, "unspecified"},      {REASON_KEY_COMPROMISE, "keyCompromise"},
    {REASON_CA_COMPROMISE, "CACompromise"},   {REASON_AFFILIATION_CHANGED, "affiliationChanged"},
    {REASON_SUPERSEDED, "superseded"},        {REASON_CESSATION, "cessationOfOperation"},
    {REASON_HOLD, "certificateHold"},         {REASON_PRIVILEGE_WITHDRAWN, "privilegeWithdrawn"},
    {REASON_REMOVE_FROM_CRL, "removeFromCRL"}};

int crl_reason_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (!strcmp(name, reasons[i].name))
            return reasons[i].reason;
    return -1;
}

const char *crl_reason_name(int reason)
{
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].reason == reason)
            return reasons[i].name;
    return NULL;
}

/* From its end, which is as random as the rest. */
unsigned crl_shard_of(struct bytes serial, unsigned shards)
{
    uint32_t n = 0;
    for (size_t i = serial.len > 4 ? serial.len - 4 : 0; i < serial.len; i++)
        n = n << 8 | serial.data[i];
    return shards ? 1 + n % shards : 0;
}

const char *crl_file_name(char out[CRL_NAME_MAX], unsigned scope)
{
    snprintf(out, CRL_NAME_MAX, scope ? "crl-%u.der" : "crl.der", scope);
    return out;
}

const char *crl_url_path(char out[CRL_NAME_MAX], unsigned scope)
{
    snprintf(out, CRL_NAME_MAX, scope ? "/crl/%u" : "/crl", scope);
    return out;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_internal, "CRL: no memory: %s", err_openssl());
}

static int out_of_order(struct err *err)
{
    return err_set(err, ERR_internal, "CRL: the calls are out of order");
}

int crl_new(struct crl **out, const struct crl_head *head, int fd, struct err *err)
{
    struct crl *c = calloc(1, sizeof *c);
    if (!c)
        return no_memory(err);
    c->head = *head;
    c->fd = fd;
    c->time = ASN1_TIME_new();
    c->digest = EVP_MD_CTX_new();
    if (c->head.next_update > issuer_not_after(head->issuer))
        c->head.next_update = issuer_not_after(head->issuer);
    if (!c->time || !c->digest ||
        EVP_DigestInit_ex(c->digest, signed_digest(issuer_alg(head->issuer)), NULL) != 1)
        no_memory(err);
    else if (c->head.next_update <= head->this_update || head->number == 0)
        err_set(err, ERR_internal, "CRL: its nextUpdate or its number is not valid");
    else {
        *out = c;
        return 0;
    }
    crl_free(c);
    return -1;
}

void crl_free(struct crl *c)
{
    if (!c)
        return;
    buf_free(&c->entry);
    buf_free(&c->tail);
    buf_free(&c->out);
    ASN1_TIME_free(c->time);
    EVP_MD_CTX_free(c->digest);
    free(c);
}

/* UTCTime through 2049, GeneralizedTime after (RFC 5280 section 5.1.2.4 to 5.1.2.6). */
static int add_time(struct buf *out, ASN1_TIME *scratch, int64_t t)
{
    if (!ASN1_TIME_set(scratch, t))
        return -1;
    struct bytes text = der_string(scratch);
    if (der_header(out, 0, ASN1_STRING_type(scratch), V_ASN1_UNIVERSAL, text.len))
        return -1;
    return buf_add(out, text.data, text.len);
}

/* crlEntryExtensions with reasonCode (RFC 5280 section 5.3.1) alone, an ENUMERATED. */
static int add_reason(struct buf *out, int reason)
{
    const uint8_t der[] = {0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55,
                           0x1d, 0x15, 0x04, 0x03, 0x0a, 0x01, (uint8_t)reason};
    return buf_add(out, der, sizeof der);
}

static int check_entry(const struct crl_entry *e, struct err *err)
{
    struct bytes s = e->serial;
    if (s.len == 0 || s.len > 20 || s.data[0] == 0 || s.data[0] > 0x7f)
        return err_set(err, ERR_internal, "CRL: a serial is not a positive number of 20 bytes");
    if (!crl_reason_name(e->reason) || e->reason == REASON_REMOVE_FROM_CRL)
        return err_set(err, ERR_internal, "CRL: there is no reason %d", e->reason);
    return 0;
}

/* RFC 5280 section 5.1.2.6, into c->entry. X509_REVOKED would take ten times as long. */
static int encode_entry(struct crl *c, const struct crl_entry *e, struct err *err)
{
    uint8_t content[64];
    struct buf in = {content, 0, sizeof content}; /* holds any entry: never grows */
    if (check_entry(e, err))
        return -1;
    c->entry.len = 0;
    if (der_header(&in, 0, V_ASN1_INTEGER, V_ASN1_UNIVERSAL, e->serial.len) ||
        buf_add(&in, e->serial.data, e->serial.len) || add_time(&in, c->time, e->revoked_at) ||
        (e->reason != REASON_UNSPECIFIED && add_reason(&in, e->reason)) ||
        der_header(&c->entry, 1, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, in.len) ||
        buf_add(&c->entry, in.data, in.len))
        return no_memory(err);
    return 0;
}

int crl_count(struct crl *c, const struct crl_entry *e, struct err *err)
{
    if (c->stage != COUNTING)
        return out_of_order(err);
    if (encode_entry(c, e, err))
        return -1;
    c->entries++;
    c->bytes += c->entry.len;
    return 0;
}

static int write_all(int fd, const uint8_t *data, size_t len, struct err *err)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_storage_unavailable, "CRL: cannot write: %s", strerror(errno));
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int flush(struct crl *c, struct err *err)
{
    if (EVP_DigestUpdate(c->digest, c->out.data, c->out.len) != 1)
        return no_memory(err);
    if (write_all(c->fd, c->out.data, c->out.len, err))
        return -1;
    c->out.len = 0;
    return 0;
}

static int push(STACK_OF(X509_EXTENSION) * all, X509_EXTENSION *ext)
{
    if (ext && sk_X509_EXTENSION_push(all, ext))
        return 0;
    X509_EXTENSION_free(ext);
    return -1;
}

static X509_EXTENSION *make_key_id(const struct issuer *issuer)
{
    struct bytes id = issuer_key_id(issuer);
    X509_EXTENSION *ext = NULL;
    AUTHORITY_KEYID *akid = AUTHORITY_KEYID_new();
    if (akid && (akid->keyid = ASN1_OCTET_STRING_new()) &&
        ASN1_OCTET_STRING_set(akid->keyid, id.data, (int)id.len))
        ext = X509V3_EXT_i2d(NID_authority_key_identifier, 0, akid);
    AUTHORITY_KEYID_free(akid);
    return ext;
}

static X509_EXTENSION *make_number(uint64_t number)
{
    X509_EXTENSION *ext = NULL;
    ASN1_INTEGER *n = ASN1_INTEGER_new();
    if (n && ASN1_INTEGER_set_uint64(n, number))
        ext = X509V3_EXT_i2d(NID_crl_number, 0, n);
    ASN1_INTEGER_free(n);
    return ext;
}

/* The value of an extension is DER in an OCTET STRING (RFC 5280 section 4.1); this DER is an
 * OCTET STRING too. */
static X509_EXTENSION *make_anchor(const struct crl_head *head)
{
    uint8_t content[2 + 8 + 32] = {V_ASN1_OCTET_STRING, 8 + 32};
    for (int i = 0; i < 8; i++)
        content[2 + i] = (uint8_t)(head->journal_seq >> (56 - 8 * i));
    memcpy(content + 10, head->journal_hash, 32);
    X509_EXTENSION *ext = NULL;
    ASN1_OBJECT *oid = OBJ_txt2obj(CRL_ANCHOR_OID, 1);
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    if (oid && value && ASN1_OCTET_STRING_set(value, content, sizeof content))
        ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, value);
    ASN1_OCTET_STRING_free(value);
    ASN1_OBJECT_free(oid);
    return ext;
}

static X509_EXTENSION *make_point(const char *const *urls)
{
    X509_EXTENSION *ext = NULL;
    ISSUING_DIST_POINT *point = ISSUING_DIST_POINT_new();
    if (point && (point->distpoint = point_name(urls)))
        ext = X509V3_EXT_i2d(NID_issuing_distribution_point, 1, point);
    ISSUING_DIST_POINT_free(point);
    return ext;
}

/* crlExtensions [0], into c->tail */
static int make_tail(struct crl *c)
{
    struct buf list = {0};
    STACK_OF(X509_EXTENSION) *all = sk_X509_EXTENSION_new_null();
    int rc = -1;
    if (!all || push(all, make_key_id(c->head.issuer)) || push(all, make_number(c->head.number)) ||
        (c->head.points && push(all, make_point(c->head.points))) ||
        push(all, make_anchor(&c->head)) || der_encode(&list, all, ASN1_ITEM_rptr(X509_EXTENSIONS)))
        goto out;
    if (der_header(&c->tail, 1, 0, V_ASN1_CONTEXT_SPECIFIC, list.len) == 0)
        rc = buf_add(&c->tail, list.data, list.len);
out:
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    buf_free(&list);
    return rc;
}

/* TBSCertList up to the entries, without its own header. */
static int make_start(struct crl *c, struct buf *out)
{
    static const uint8_t version_2[] = {V_ASN1_INTEGER, 1, 1};
    struct bytes alg = sign_alg_der(issuer_alg(c->head.issuer));
    struct bytes name = issuer_name_der(c->head.issuer);
    if (buf_add(out, version_2, sizeof version_2) || buf_add(out, alg.data, alg.len) ||
        buf_add(out, name.data, name.len) || add_time(out, c->time, c->head.this_update) ||
        add_time(out, c->time, c->head.next_update))
        return -1;
    if (c->entries == 0) /* RFC 5280 section 5.1.2.6: then there must be no list */
        return 0;
    return der_header(out, 1, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, c->bytes);
}

int crl_begin(struct crl *c, struct err *err)
{
    struct buf start = {0};
    int rc = -1;
    if (c->stage != COUNTING)
        return out_of_order(err);
    if (c->bytes > INT_MAX / 2)
        return err_set(err, ERR_internal, "CRL: too many entries");
    if (make_start(c, &start) || make_tail(c) ||
        der_header(&c->out, 1, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL,
                   start.len + c->bytes + c->tail.len) ||
        buf_add(&c->out, start.data, start.len)) {
        no_memory(err);
        goto out;
    }
    c->tbs_len = c->out.len + c->bytes + c->tail.len;
    c->stage = WRITING;
    rc = 0;
out:
    buf_free(&start);
    return rc;
}

int crl_add(struct crl *c, const struct crl_entry *e, struct err *err)
{
    if (c->stage != WRITING)
        return out_of_order(err);
    if (encode_entry(c, e, err))
        return -1;
    if (c->entries == 0 || c->bytes < c->entry.len)
        return err_set(err, ERR_internal, "CRL: more entries in the second walk");
    c->entries--;
    c->bytes -= c->entry.len;
    if (buf_add(&c->out, c->entry.data, c->entry.len))
        return no_memory(err);
    return c->out.len < CHUNK ? 0 : flush(c, err);
}

int crl_digest(struct crl *c, uint8_t digest[DIGEST_MAX], size_t *len, struct err *err)
{
    unsigned n = 0;
    if (c->stage != WRITING)
        return out_of_order(err);
    if (c->entries || c->bytes)
        return err_set(err, ERR_internal, "CRL: fewer entries in the second walk");
    if (buf_add(&c->out, c->tail.data, c->tail.len))
        return no_memory(err);
    if (flush(c, err))
        return -1;
    if (EVP_DigestFinal_ex(c->digest, digest, &n) != 1)
        return no_memory(err);
    *len = n;
    memcpy(c->written, digest, n);
    c->stage = DIGESTED;
    return 0;
}

/* The TBS, read back, to out_fd; its digest on the way. */
static int copy_back(struct crl *c, int out_fd, uint8_t digest[DIGEST_MAX], unsigned *len,
                     struct err *err)
{
    uint8_t chunk[CHUNK];
    size_t done = 0;
    if (EVP_DigestInit_ex(c->digest, signed_digest(issuer_alg(c->head.issuer)), NULL) != 1)
        return no_memory(err);
    for (;;) {
        ssize_t n = pread(c->fd, chunk, sizeof chunk, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(err, ERR_storage_unavailable, "CRL: cannot read: %s", strerror(errno));
        if (n == 0)
            break;
        if (EVP_DigestUpdate(c->digest, chunk, (size_t)n) != 1)
            return no_memory(err);
        if (write_all(out_fd, chunk, (size_t)n, err))
            return -1;
        done += (size_t)n;
    }
    if (EVP_DigestFinal_ex(c->digest, digest, len) != 1)
        return no_memory(err);
    if (memcmp(digest, c->written, *len) != 0)
        return err_set(err, ERR_storage_unavailable, "CRL: the disk gives back other bytes");
    return 0;
}

static int write_signed(struct crl *c, struct bytes signature, int out_fd, struct err *err)
{
    enum sign_alg alg = issuer_alg(c->head.issuer);
    uint8_t digest[DIGEST_MAX];
    unsigned len;
    struct buf head = {0}, tail = {0};
    int rc = -1;
    if (signed_head(&head, alg, c->tbs_len, signature.len) || signed_tail(&tail, alg, signature)) {
        no_memory(err);
        goto out;
    }
    if (write_all(out_fd, head.data, head.len, err) || copy_back(c, out_fd, digest, &len, err))
        goto out;
    if (issuer_verify(c->head.issuer, (struct bytes){digest, len}, signature)) {
        err_set(err, ERR_internal, "CRL: the token's signature does not verify");
        goto out;
    }
    rc = write_all(out_fd, tail.data, tail.len, err);
out:
    buf_free(&head);
    buf_free(&tail);
    return rc;
}

int crl_finish(struct crl *c, struct bytes signature, int out_fd, struct err *err)
{
    if (c->stage != DIGESTED)
        return out_of_order(err);
    c->stage = FINISHED;
    if (!write_signed(c, signature, out_fd, err))
        return 0;
    /* what does not verify must not be found, whatever the caller does with its file */
    if (ftruncate(out_fd, 0) != 0)
        err_prefix(err, "CRL: an invalid one is left");
    return -1;
}

/* ---- one that was written before ---- */

struct element {
    struct bytes whole, content;
    int tag, class;
};

/* The first of what is left; *rest is what comes behind it. */
static int next_element(struct element *e, struct bytes *rest)
{
    const unsigned char *p = rest->data;
    long len;
    int flags = ASN1_get_object(&p, &len, &e->tag, &e->class, (long)rest->len);
    if (flags & 0x81) /* malformed, or of no length */
        return -1;
    e->content = (struct bytes){p, (size_t)len};
    e->whole = (struct bytes){rest->data, (size_t)(p - rest->data) + (size_t)len};
    rest->data += e->whole.len;
    rest->len -= e->whole.len;
    return 0;
}

static int next_of_tag(struct element *e, struct bytes *rest, int tag)
{
    return next_element(e, rest) || e->tag != tag || e->class != V_ASN1_UNIVERSAL ? -1 : 0;
}

/* CertificateList (RFC 5280 section 5.1), the signature verified. */
static int open_list(struct element *tbs, struct bytes der, const struct issuer *issuer)
{
    struct element list, alg, sig;
    uint8_t digest[DIGEST_MAX];
    if (next_of_tag(&list, &der, V_ASN1_SEQUENCE) || der.len ||
        next_of_tag(tbs, &list.content, V_ASN1_SEQUENCE) ||
        next_of_tag(&alg, &list.content, V_ASN1_SEQUENCE) ||
        next_of_tag(&sig, &list.content, V_ASN1_BIT_STRING) || list.content.len ||
        sig.content.len < 1 || sig.content.data[0] != 0)
        return -1;
    struct bytes signature = {sig.content.data + 1, sig.content.len - 1};
    size_t len = sign_digest(issuer_alg(issuer), tbs->whole, digest);
    return issuer_verify(issuer, (struct bytes){digest, len}, signature);
}

static uint64_t number_in(struct bytes extensions)
{
    uint64_t number = 0;
    X509_EXTENSIONS *all = der_decode(extensions, ASN1_ITEM_rptr(X509_EXTENSIONS));
    ASN1_INTEGER *n = all ? X509V3_get_d2i(all, NID_crl_number, NULL, NULL) : NULL;
    if (!n || ASN1_INTEGER_get_uint64(&number, n) != 1)
        number = 0;
    ASN1_INTEGER_free(n);
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    return number;
}

uint64_t crl_number(struct bytes der, const struct issuer *issuer)
{
    struct element tbs, field;
    uint64_t number = 0;
    if (der.len <= LONG_MAX && open_list(&tbs, der, issuer) == 0)
        while (tbs.content.len && next_element(&field, &tbs.content) == 0)
            if (field.class == V_ASN1_CONTEXT_SPECIFIC && field.tag == 0)
                number = number_in(field.content);
    ERR_clear_error();
    return number;
}
