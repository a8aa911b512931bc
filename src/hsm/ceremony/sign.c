/* csr, root-certificate, sign-intermediate, check: what the token's key signs as certificates.
 *
 * OpenSSL builds the objects and has the token sign them; each signature is verified in software
 * before a file is written, since a module can answer rubbish without an error. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/file.h"
#include "hsm/ceremony/ceremony.h"
#include "hsm/ceremony/index.h"
#include "pki/certificate.h"
#include "pki/csr.h"
#include "pki/key.h"

#define BACKDATE (5 * 60) /* for clocks that are a little behind */

static int failed(struct err *err, const char *what)
{
    return err_set(err, ERR_internal, "cannot %s: %s", what, err_openssl());
}

static int write_request(const char *path, X509_REQ *req, struct err *err)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *data = NULL;
    long len = out && PEM_write_bio_X509_REQ(out, req) == 1 ? BIO_get_mem_data(out, &data) : 0;
    int rc = len > 0 ? file_write(path, (struct bytes){(uint8_t *)data, (size_t)len}, 0644, 0, err)
                     : failed(err, "encode the request");
    BIO_free(out);
    return rc;
}

static int make_request(X509_REQ *req, const X509_NAME *subject, const struct signing *s,
                        struct err *err)
{
    if (X509_REQ_set_version(req, 0) != 1 || X509_REQ_set_subject_name(req, subject) != 1 ||
        X509_REQ_set_pubkey(req, s->public) != 1)
        return failed(err, "build the request");
    if (X509_REQ_sign(req, s->private, s->md) <= 0 || X509_REQ_verify(req, s->public) != 1)
        return failed(err, "sign the request in the token");
    return 0;
}

int command_csr(const struct options *o, struct err *err)
{
    struct signing s = {0};
    X509_NAME *subject = NULL;
    X509_REQ *req = X509_REQ_new();
    int rc = -1;
    if (!req) {
        failed(err, "get memory");
        goto out;
    }
    if (refuse_existing(o->out, err) || !(subject = name_parse(o->subject, err)) ||
        signing_open(&s, o, (struct bytes){0}, err) || make_request(req, subject, &s, err) ||
        write_request(o->out, req, err))
        goto out;
    printf("certification request for \"%s\" written to %s\n", o->subject, o->out);
    rc = 0;
out:
    X509_REQ_free(req);
    X509_NAME_free(subject);
    signing_close(&s);
    return rc;
}

static int add_extension(X509 *x, X509V3_CTX *ctx, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
    int ok = e && X509_add_ext(x, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok ? 0 : -1;
}

/* Where verifiers fetch what concerns the root (RFC 5280 sections 4.2.1.13 and 4.2.2.1). */
static int add_addresses(X509 *x, X509V3_CTX *ctx, const char *public_url)
{
    char crl[600], issuer[600];
    if (!public_url)
        return 0;
    int len = (int)strlen(public_url);
    if (len && public_url[len - 1] == '/')
        len--;
    snprintf(crl, sizeof crl, "URI:%.*s/root-crl", len, public_url);
    snprintf(issuer, sizeof issuer, "caIssuers;URI:%.*s/root.cer", len, public_url);
    return add_extension(x, ctx, NID_crl_distribution_points, crl) ||
                   add_extension(x, ctx, NID_info_access, issuer)
               ? -1
               : 0;
}

struct ca {
    X509 *issuer; /* NULL: self-signed */
    const X509_NAME *subject;
    EVP_PKEY *key;
    int64_t not_before, not_after;
    const char *public_url;
    char serial[2 * SERIAL_LEN + 1];
};

static int set_extensions(X509 *x, const struct ca *ca)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, ca->issuer ? ca->issuer : x, x, NULL, NULL, 0);
    if (add_extension(x, &ctx, NID_basic_constraints,
                      ca->issuer ? "critical,CA:TRUE,pathlen:0" : "critical,CA:TRUE") ||
        add_extension(x, &ctx, NID_key_usage, "critical,keyCertSign,cRLSign") ||
        add_extension(x, &ctx, NID_subject_key_identifier, "hash"))
        return -1;
    if (!ca->issuer) /* RFC 5280 section 4.2.1.1: a self-signed one may leave it out */
        return 0;
    return add_extension(x, &ctx, NID_authority_key_identifier, "keyid:always") ||
                   add_addresses(x, &ctx, ca->public_url)
               ? -1
               : 0;
}

static int set_serial(X509 *x, struct ca *ca, struct err *err)
{
    uint8_t serial[SERIAL_LEN];
    if (serial_make(serial, err))
        return -1;
    hex_encode(ca->serial, (struct bytes){serial, sizeof serial});
    BIGNUM *n = BN_bin2bn(serial, sizeof serial, NULL);
    ASN1_INTEGER *i = n ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    int ok = i && X509_set_serialNumber(x, i) == 1;
    ASN1_INTEGER_free(i);
    BN_free(n);
    return ok ? 0 : failed(err, "set the serial");
}

/* Everything but the signature. */
static int build(X509 *x, struct ca *ca, struct err *err)
{
    const X509_NAME *issuer = ca->issuer ? X509_get_subject_name(ca->issuer) : ca->subject;
    if (set_serial(x, ca, err))
        return -1;
    if (X509_set_version(x, X509_VERSION_3) != 1 || X509_set_subject_name(x, ca->subject) != 1 ||
        X509_set_issuer_name(x, issuer) != 1 || X509_set_pubkey(x, ca->key) != 1 ||
        !ASN1_TIME_set(X509_getm_notBefore(x), (time_t)ca->not_before) ||
        !ASN1_TIME_set(X509_getm_notAfter(x), (time_t)ca->not_after) || set_extensions(x, ca))
        return failed(err, "build the certificate");
    return 0;
}

static int sign_and_verify(X509 *x, const struct signing *s, struct err *err)
{
    if (X509_sign(x, s->private, s->md) <= 0 || X509_verify(x, s->public) != 1)
        return failed(err, "sign the certificate in the token");
    return 0;
}

/* The same day of the year. */
static void set_times(struct ca *ca, long years)
{
    struct tm tm;
    time_t now = time(NULL);
    gmtime_r(&now, &tm);
    tm.tm_year += (int)years;
    ca->not_before = now - BACKDATE;
    ca->not_after = timegm(&tm);
}

int command_root_certificate(const struct options *o, struct err *err)
{
    struct signing s = {0};
    struct ca ca = {0};
    X509_NAME *subject = NULL;
    X509 *x = X509_new();
    char until[32];
    int rc = -1;
    set_times(&ca, o->years ? o->years : 20);
    if (!x) {
        failed(err, "get memory");
        goto out;
    }
    if (refuse_existing(o->out, err) || !(subject = name_parse(o->subject, err)) ||
        signing_open(&s, o, (struct bytes){0}, err))
        goto out;
    ca.subject = subject;
    ca.key = s.public;
    if (build(x, &ca, err) || sign_and_verify(x, &s, err) || write_certificate(o->out, x, err))
        goto out;
    time_text(until, ca.not_after);
    printf("root certificate \"%s\" written to %s; valid until %s\n", o->subject, o->out, until);
    rc = 0;
out:
    X509_free(x);
    X509_NAME_free(subject);
    signing_close(&s);
    return rc;
}

/* The request's proof of possession and its key, by the same code that checks devices'. */
static int check_request(struct csr **csr, const char *path, struct err *err)
{
    static const struct key_policy any = {.rsa_min = 2048, .rsa_max = 4096, .p256 = 1, .p384 = 1};
    struct buf file;
    struct key_info info;
    if (file_read(&file, path, CSR_SIZE_MAX, err))
        return -1;
    int rc = csr_parse(csr, buf_view(&file), err);
    buf_free(&file);
    if (rc == 0 && (rc = key_check(csr_spki(*csr), &any, &info, err)) == 0)
        rc = csr_verify(*csr, err);
    return rc ? err_prefix(err, "%s", path) : 0;
}

static X509_REQ *decode_request(const struct csr *csr, struct err *err)
{
    struct bytes der = csr_der(csr);
    const unsigned char *p = der.data;
    X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)der.len);
    if (!req)
        failed(err, "decode the request");
    return req;
}

static int check_against_root(const struct ca *ca, const struct issuer *root, const struct csr *csr,
                              struct err *err)
{
    char until[32];
    if (X509_NAME_cmp(ca->subject, X509_get_subject_name(ca->issuer)) == 0 ||
        bytes_equal(csr_spki(csr), issuer_spki(root)))
        return err_set(err, ERR_field_value,
                       "the request has the root's own name or key; an intermediate needs others");
    time_text(until, issuer_not_after(root));
    if (ca->not_after > issuer_not_after(root))
        return err_set(err, ERR_field_value,
                       "the root ends on %s, before the intermediate would; give fewer --years",
                       until);
    if (ca->public_url && (strncmp(ca->public_url, "http://", 7) != 0 ||
                           strlen(ca->public_url) > 500 || strpbrk(ca->public_url, " ,;\"\n")))
        return err_set(err, ERR_field_value,
                       "--public-url must be like http://ca.example.org:8080");
    return 0;
}

/* Recorded first, signed then: a crash between the two leaves a serial that nobody has, never a
 * certificate that nobody knows of. */
static int record(const char *root_path, const struct ca *ca, struct err *err)
{
    struct index *index = NULL;
    char *subject = subject_text(ca->subject);
    int rc = subject ? index_open(&index, root_path, err) : failed(err, "print the subject");
    if (rc == 0)
        rc = index_issued(index, ca->serial, ca->not_before, ca->not_after, subject, err);
    index_free(index);
    OPENSSL_free(subject);
    return rc;
}

int command_sign_intermediate(const struct options *o, struct err *err)
{
    struct signing s = {0};
    struct issuer *root = NULL;
    struct csr *csr = NULL;
    X509_REQ *req = NULL;
    X509 *x = X509_new();
    struct ca ca = {.public_url = o->public_url};
    int rc = -1;
    set_times(&ca, o->years ? o->years : 10);
    if (!x) {
        failed(err, "get memory");
        goto out;
    }
    if (refuse_existing(o->out, err) || check_request(&csr, o->csr, err) ||
        !(req = decode_request(csr, err)) || open_root(&s, &root, o, err))
        goto out;
    ca.issuer = issuer_certificate(root);
    ca.subject = X509_REQ_get_subject_name(req);
    ca.key = X509_REQ_get0_pubkey(req);
    if (check_against_root(&ca, root, csr, err) || build(x, &ca, err) ||
        record(o->root_certificate, &ca, err) || sign_and_verify(x, &s, err) ||
        write_certificate(o->out, x, err))
        goto out;
    printf("intermediate certificate of \"%s\" written to %s, serial %s; recorded in %s.index\n",
           csr_cn(csr), o->out, ca.serial, o->root_certificate);
    rc = 0;
out:
    X509_free(x);
    X509_REQ_free(req);
    csr_free(csr);
    issuer_free(root);
    signing_close(&s);
    return rc;
}

/* Opens the token as a signer does, trial signature and all. */
int command_check(const struct options *o, struct err *err)
{
    struct signing s = {0};
    struct issuer *issuer = NULL;
    struct options with = *o;
    char custody[160], hash[65], type[16];
    int rc = -1;
    with.root_certificate = o->certificate;
    if (o->certificate ? open_root(&s, &issuer, &with, err)
                       : signing_open(&s, o, (struct bytes){0}, err))
        goto out;
    if (spki_hash(hash, s.public)) {
        failed(err, "encode the public key");
        goto out;
    }
    custody_text(custody, sizeof custody, token_custody(s.token, TOKEN_KEY_CA) & CUSTODY_ALL);
    key_type_text(type, s.public);
    printf("%s\nkey: %s, SubjectPublicKeyInfo SHA-256 %s\nthe token claims: %s\n%s",
           token_description(s.token), type, hash, custody,
           o->certificate ? "the key is the certificate's\n" : "");
    rc = 0;
out:
    issuer_free(issuer);
    signing_close(&s);
    return rc;
}
