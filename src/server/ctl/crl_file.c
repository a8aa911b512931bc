#include "server/ctl/crl_file.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "common/file.h"

#define CRL_MAX (512 * 1024 * 1024)

/* The journal's sequence (u64) and hash, in an OCTET STRING. */
#define ANCHOR_LEN 40

static int64_t seconds(const ASN1_TIME *t)
{
    struct tm tm;
    return t && ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static X509_CRL *parse(struct bytes text)
{
    const unsigned char *p = text.data;
    X509_CRL *list = d2i_X509_CRL(NULL, &p, (long)text.len);
    if (list && p != text.data + text.len) {
        X509_CRL_free(list);
        list = NULL;
    }
    if (!list) {
        BIO *in = BIO_new_mem_buf(text.data, (int)text.len);
        list = in ? PEM_read_bio_X509_CRL(in, NULL, NULL, NULL) : NULL;
        BIO_free(in);
    }
    ERR_clear_error();
    return list;
}

static int read_number(struct crl_file *f)
{
    ASN1_INTEGER *n = X509_CRL_get_ext_d2i(f->list, NID_crl_number, NULL, NULL);
    int ok = n && ASN1_INTEGER_get_uint64(&f->number, n) == 1;
    ASN1_INTEGER_free(n);
    return ok ? 0 : -1;
}

static void read_anchor(struct crl_file *f)
{
    ASN1_OBJECT *oid = OBJ_txt2obj(CRL_ANCHOR_OID, 1);
    int at = oid ? X509_CRL_get_ext_by_OBJ(f->list, oid, -1) : -1;
    ASN1_OBJECT_free(oid);
    if (at < 0)
        return;
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(X509_CRL_get_ext(f->list, at));
    const unsigned char *p = ASN1_STRING_get0_data(value);
    ASN1_OCTET_STRING *inner = d2i_ASN1_OCTET_STRING(NULL, &p, ASN1_STRING_length(value));
    if (inner && ASN1_STRING_length(inner) == ANCHOR_LEN) {
        const unsigned char *b = ASN1_STRING_get0_data(inner);
        for (int i = 0; i < 8; i++)
            f->journal_seq = f->journal_seq << 8 | b[i];
        memcpy(f->journal_hash, b + 8, 32);
        f->has_anchor = 1;
    }
    ASN1_OCTET_STRING_free(inner);
}

static int take_digest(struct crl_file *f)
{
    unsigned char *der = NULL;
    int n = i2d_X509_CRL(f->list, &der);
    if (n > 0)
        sha256(f->sha256, (struct bytes){der, (size_t)n});
    OPENSSL_free(der);
    return n > 0 ? 0 : -1;
}

static int check(struct crl_file *f, const char *path, const struct issuer *issuer, struct err *err)
{
    X509 *ca = issuer_certificate(issuer);
    int ok = X509_NAME_cmp(X509_CRL_get_issuer(f->list), X509_get_subject_name(ca)) == 0 &&
             X509_CRL_verify(f->list, X509_get0_pubkey(ca)) == 1;
    ERR_clear_error();
    if (!ok)
        return err_set(err, ERR_signature_invalid, "%s: this CA's key did not sign it", path);
    if (read_number(f) || take_digest(f))
        return err_set(err, ERR_field_value, "%s: it has no CRL number", path);
    read_anchor(f);
    f->this_update = seconds(X509_CRL_get0_lastUpdate(f->list));
    f->next_update = seconds(X509_CRL_get0_nextUpdate(f->list));
    return 0;
}

int crl_file_read(struct crl_file *out, const char *path, const struct issuer *issuer,
                  struct err *err)
{
    struct buf text;
    *out = (struct crl_file){0};
    if (file_read(&text, path, CRL_MAX, err))
        return -1;
    out->list = parse(buf_view(&text));
    buf_free(&text);
    if (!out->list)
        return err_set(err, ERR_field_value, "%s: it is not a CRL, neither DER nor PEM", path);
    if (check(out, path, issuer, err) == 0)
        return 0;
    crl_file_free(out);
    return -1;
}

void crl_file_free(struct crl_file *f)
{
    X509_CRL_free(f->list);
    f->list = NULL;
}

size_t crl_file_count(const struct crl_file *f)
{
    int n = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(f->list));
    return n > 0 ? (size_t)n : 0;
}

static int reason_of(const X509_REVOKED *r)
{
    ASN1_ENUMERATED *e = X509_REVOKED_get_ext_d2i(r, NID_crl_reason, NULL, NULL);
    long value = e ? ASN1_ENUMERATED_get(e) : REASON_UNSPECIFIED;
    ASN1_ENUMERATED_free(e);
    return (int)value;
}

int crl_file_each(const struct crl_file *f, int (*each)(const struct crl_entry *entry, void *arg),
                  void *arg)
{
    STACK_OF(X509_REVOKED) *all = X509_CRL_get_REVOKED(f->list);
    for (int i = 0; i < sk_X509_REVOKED_num(all); i++) {
        const X509_REVOKED *r = sk_X509_REVOKED_value(all, i);
        const ASN1_INTEGER *n = X509_REVOKED_get0_serialNumber(r);
        int len = ASN1_STRING_length(n);
        struct crl_entry e = {.serial = {ASN1_STRING_get0_data(n), len > 0 ? (size_t)len : 0},
                              .revoked_at = seconds(X509_REVOKED_get0_revocationDate(r)),
                              .reason = reason_of(r)};
        if (ASN1_STRING_type(n) != V_ASN1_INTEGER || len < 1 || len > 20 ||
            !crl_reason_name(e.reason) || each(&e, arg))
            return -1;
    }
    return 0;
}
