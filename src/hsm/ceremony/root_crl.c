/* root-crl: the root's revocation list (RFC 5280 section 5). Its number only rises, and what is
 * revoked stays so: both come from the root's index, and from the list that is being replaced. */
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "hsm/ceremony/ceremony.h"
#include "hsm/ceremony/index.h"
#include "pki/crl.h"

#define CRL_FILE_MAX (1024 * 1024)

static int failed(struct err *err, const char *what)
{
    return err_set(err, ERR_internal, "cannot %s: %s", what, err_openssl());
}

static int64_t seconds(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? timegm(&tm) : 0;
}

static int serial_hex(char out[INDEX_SERIAL], const ASN1_INTEGER *serial)
{
    uint8_t bytes[20];
    BIGNUM *n = ASN1_INTEGER_to_BN(serial, NULL);
    int len = n && BN_num_bytes(n) <= (int)sizeof bytes ? BN_bn2bin(n, bytes) : 0;
    if (len)
        hex_encode(out, (struct bytes){bytes, (size_t)len});
    BN_free(n);
    return len ? 0 : -1;
}

static ASN1_INTEGER *serial_from_hex(const char *hex)
{
    BIGNUM *n = NULL;
    ASN1_INTEGER *i = BN_hex2bn(&n, hex) ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    BN_free(n);
    return i;
}

static int entry_reason(const X509_REVOKED *entry)
{
    ASN1_ENUMERATED *e = X509_REVOKED_get_ext_d2i(entry, NID_crl_reason, NULL, NULL);
    long reason = e ? ASN1_ENUMERATED_get(e) : REASON_UNSPECIFIED;
    ASN1_ENUMERATED_free(e);
    ERR_clear_error();
    return (int)reason;
}

/* What the old list revokes and the index does not know (it was lost, say) goes into the index. */
static int keep_old_entries(struct index *index, X509_CRL *old, struct err *err)
{
    STACK_OF(X509_REVOKED) *entries = X509_CRL_get_REVOKED(old);
    for (int i = 0; i < sk_X509_REVOKED_num(entries); i++) {
        const X509_REVOKED *e = sk_X509_REVOKED_value(entries, i);
        struct revocation r = {.when = seconds(X509_REVOKED_get0_revocationDate(e)),
                               .reason = entry_reason(e)};
        if (serial_hex(r.serial, X509_REVOKED_get0_serialNumber(e)) || !crl_reason_name(r.reason))
            return err_set(err, ERR_internal, "the old CRL has an entry that is not understood");
        if (!index_is_revoked(index, r.serial) && index_revoked(index, &r, err))
            return -1;
    }
    return 0;
}

static X509_CRL *read_crl(const char *path, struct err *err)
{
    struct buf der;
    if (file_read(&der, path, CRL_FILE_MAX, err))
        return NULL;
    const unsigned char *p = der.data;
    X509_CRL *crl = d2i_X509_CRL(NULL, &p, (long)der.len);
    buf_free(&der);
    if (!crl)
        err_set(err, ERR_internal, "%s is there and is no CRL in DER: %s", path, err_openssl());
    return crl;
}

/* The list that is about to be replaced, if there is one: it must be this root's. */
static int take_old(struct index *index, const char *path, EVP_PKEY *root_key, uint64_t *number,
                    struct err *err)
{
    *number = index_crl_number(index);
    if (access(path, F_OK))
        return 0;
    X509_CRL *old = read_crl(path, err);
    if (!old)
        return -1;
    int rc = -1;
    uint64_t own = 0;
    ASN1_INTEGER *n = X509_CRL_get_ext_d2i(old, NID_crl_number, NULL, NULL);
    if (X509_CRL_verify(old, root_key) != 1)
        err_set(err, ERR_internal, "%s was not signed by this root; it is not overwritten", path);
    else if (!n || ASN1_INTEGER_get_uint64(&own, n) != 1)
        err_set(err, ERR_internal, "%s has no usable CRL number", path);
    else
        rc = keep_old_entries(index, old, err);
    *number = own > *number ? own : *number;
    ASN1_INTEGER_free(n);
    X509_CRL_free(old);
    ERR_clear_error();
    return rc;
}

static int revoke_one(struct index *index, const struct options *o, X509 *root, EVP_PKEY *root_key,
                      struct err *err)
{
    struct revocation r = {.when = time(NULL), .reason = REASON_UNSPECIFIED};
    if (o->reason && ((r.reason = crl_reason_from_name(o->reason)) < 0 || r.reason == REASON_HOLD))
        return err_set(err, ERR_field_value,
                       "\"%s\" is no reason here; use keyCompromise, cACompromise, superseded, "
                       "cessationOfOperation or leave it out",
                       o->reason);
    X509 *x = read_certificate(o->revoke, err);
    if (!x)
        return -1;
    int rc = 0;
    if (X509_NAME_cmp(X509_get_issuer_name(x), X509_get_subject_name(root)) != 0 ||
        X509_verify(x, root_key) != 1 || serial_hex(r.serial, X509_get0_serialNumber(x)))
        rc = err_set(err, ERR_serial_unknown, "%s was not issued by this root", o->revoke);
    else if (index_is_revoked(index, r.serial))
        printf("%s (serial %s) is revoked already; the earlier revocation stands\n", o->revoke,
               r.serial);
    else if ((rc = index_revoked(index, &r, err)) == 0)
        printf("%s (serial %s) revoked: %s\n", o->revoke, r.serial, crl_reason_name(r.reason));
    X509_free(x);
    ERR_clear_error();
    return rc;
}

static int add_entry(X509_CRL *crl, const struct revocation *r)
{
    X509_REVOKED *entry = X509_REVOKED_new();
    ASN1_INTEGER *serial = serial_from_hex(r->serial);
    ASN1_TIME *when = ASN1_TIME_set(NULL, (time_t)r->when);
    ASN1_ENUMERATED *reason = ASN1_ENUMERATED_new();
    int ok = entry && serial && when && reason &&
             X509_REVOKED_set_serialNumber(entry, serial) == 1 &&
             X509_REVOKED_set_revocationDate(entry, when) == 1 &&
             ASN1_ENUMERATED_set(reason, r->reason) == 1;
    if (ok && r->reason != REASON_UNSPECIFIED) /* RFC 5280 section 5.3.1: leave it out */
        ok = X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason, reason, 0, 0) == 1;
    if (ok && X509_CRL_add0_revoked(crl, entry) == 1)
        entry = NULL; /* the list's now */
    else
        ok = 0;
    ASN1_ENUMERATED_free(reason);
    ASN1_TIME_free(when);
    ASN1_INTEGER_free(serial);
    X509_REVOKED_free(entry);
    return ok ? 0 : -1;
}

static int add_crl_extensions(X509_CRL *crl, X509 *root, uint64_t number)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, root, NULL, NULL, crl, 0);
    ASN1_INTEGER *n = ASN1_INTEGER_new();
    X509_EXTENSION *aki =
        X509V3_EXT_conf_nid(NULL, &ctx, NID_authority_key_identifier, "keyid:always");
    int ok = n && aki && ASN1_INTEGER_set_uint64(n, number) == 1 &&
             X509_CRL_add_ext(crl, aki, -1) == 1 &&
             X509_CRL_add1_ext_i2d(crl, NID_crl_number, n, 0, 0) == 1;
    X509_EXTENSION_free(aki);
    ASN1_INTEGER_free(n);
    return ok ? 0 : -1;
}

struct times {
    int64_t this_update, next_update;
};

static int set_head(X509_CRL *crl, X509 *root, const struct times *t)
{
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)t->this_update);
    ASN1_TIME *to = ASN1_TIME_set(NULL, (time_t)t->next_update);
    int ok = from && to && X509_CRL_set_version(crl, X509_CRL_VERSION_2) == 1 &&
             X509_CRL_set_issuer_name(crl, X509_get_subject_name(root)) == 1 &&
             X509_CRL_set1_lastUpdate(crl, from) == 1 && X509_CRL_set1_nextUpdate(crl, to) == 1;
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return ok ? 0 : -1;
}

static int build(X509_CRL *crl, const struct index *index, X509 *root, const struct times *t,
                 uint64_t number, struct err *err)
{
    size_t count;
    const struct revocation *revoked = index_revocations(index, &count);
    if (set_head(crl, root, t) || add_crl_extensions(crl, root, number))
        return failed(err, "build the CRL");
    for (size_t i = 0; i < count; i++)
        if (add_entry(crl, &revoked[i]))
            return failed(err, "build the CRL");
    X509_CRL_sort(crl);
    return 0;
}

static int sign_and_write(X509_CRL *crl, const struct signing *s, const char *path, struct err *err)
{
    unsigned char *der = NULL;
    int len;
    if (X509_CRL_sign(crl, s->private, s->md) <= 0 || X509_CRL_verify(crl, s->public) != 1)
        return failed(err, "sign the CRL in the token");
    if ((len = i2d_X509_CRL(crl, &der)) <= 0)
        return failed(err, "encode the CRL");
    int rc = file_write(path, (struct bytes){der, (size_t)len}, 0644, 1, err);
    OPENSSL_free(der);
    return rc;
}

/* A CRL must not outlive its signer. */
static struct times life(long months, const struct issuer *root)
{
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    tm.tm_mon += (int)months;
    struct times t = {now, timegm(&tm)};
    if (t.next_update > issuer_not_after(root))
        t.next_update = issuer_not_after(root);
    return t;
}

static int make_crl(const struct options *o, const struct issuer *root, const struct signing *s,
                    struct index *index, struct err *err)
{
    X509 *x = issuer_certificate(root);
    struct times t = life(o->months ? o->months : 12, root);
    uint64_t number;
    char until[32];
    size_t count;
    X509_CRL *crl = X509_CRL_new();
    int rc = crl ? 0 : failed(err, "get memory");
    if (rc == 0)
        rc = take_old(index, o->out, s->public, &number, err);
    if (rc == 0 && o->revoke)
        rc = revoke_one(index, o, x, s->public, err);
    if (rc == 0)
        rc = build(crl, index, x, &t, ++number, err);
    if (rc == 0) /* first the number, then the signature: none is ever used twice */
        rc = index_crl(index, number, t.this_update, t.next_update, err);
    if (rc == 0)
        rc = sign_and_write(crl, s, o->out, err);
    X509_CRL_free(crl);
    if (rc)
        return rc;
    index_revocations(index, &count);
    time_text(until, t.next_update);
    printf("root CRL number %llu with %zu revoked written to %s; make the next before %s\n",
           (unsigned long long)number, count, o->out, until);
    return 0;
}

int command_root_crl(const struct options *o, struct err *err)
{
    struct signing s = {0};
    struct issuer *root = NULL;
    struct index *index = NULL;
    int rc = -1;
    if (o->reason && !o->revoke)
        return err_set(err, ERR_field_value, "--reason goes with --revoke");
    if (open_root(&s, &root, o, err) == 0 && index_open(&index, o->root_certificate, err) == 0)
        rc = make_crl(o, root, &s, index, err);
    index_free(index);
    issuer_free(root);
    signing_close(&s);
    return rc;
}
