#include "client/certs.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "common/file.h"

#define CERTS_MAX (256 * 1024)

void certs_free(STACK_OF(X509) * certs)
{
    sk_X509_pop_free(certs, X509_free);
}

/* 1: another one was added; 0: the end of the text; -1: something else is there. */
static int next_cert(STACK_OF(X509) * certs, BIO *bio)
{
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (!cert) {
        int end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
        ERR_clear_error();
        return end ? 0 : -1;
    }
    if (sk_X509_push(certs, cert) > 0)
        return 1;
    X509_free(cert);
    return -1;
}

int certs_parse(STACK_OF(X509) * *out, struct bytes pem, const char *what, int exit_code,
                struct failure *f)
{
    BIO *bio = pem.len <= CERTS_MAX ? BIO_new_mem_buf(pem.data, (int)pem.len) : NULL;
    STACK_OF(X509) *certs = sk_X509_new_null();
    int more = bio && certs ? 1 : -1;
    while (more > 0)
        more = next_cert(certs, bio);
    BIO_free(bio);
    if (more == 0 && sk_X509_num(certs) > 0) {
        *out = certs;
        return 0;
    }
    certs_free(certs);
    return fail(f, exit_code, exit_code == EXIT_LOCAL ? "local_file" : "certificate_malformed",
                "%s is not a certificate in PEM", what);
}

int certs_load(STACK_OF(X509) * *out, const char *path, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    if (file_read(&text, path, CERTS_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int rc = certs_parse(out, buf_view(&text), path, EXIT_LOCAL, f);
    buf_free(&text);
    return rc;
}

int cert_load(X509 **out, const char *path, struct failure *f)
{
    STACK_OF(X509) *certs = NULL;
    if (certs_load(&certs, path, f))
        return -1;
    *out = sk_X509_shift(certs);
    certs_free(certs);
    return 0;
}

int cert_is_root(X509 *cert)
{
    return X509_self_signed(cert, 1) == 1 && X509_check_ca(cert) == 1;
}

int root_load(X509 **out, const char *path, struct failure *f)
{
    STACK_OF(X509) *certs = NULL;
    if (certs_load(&certs, path, f))
        return -1;
    X509 *root = NULL;
    for (int i = 0; i < sk_X509_num(certs) && !root; i++)
        if (cert_is_root(sk_X509_value(certs, i)))
            root = sk_X509_delete(certs, i);
    certs_free(certs);
    *out = root;
    return root ? 0
                : fail(f, EXIT_LOCAL, "local_file",
                       "%s holds no root (a self-signed CA certificate); give the root with --ca",
                       path);
}

static int take_text(struct buf *out, BIO *bio, int written, struct failure *f)
{
    char *text = NULL;
    long len = written ? BIO_get_mem_data(bio, &text) : 0;
    int rc = !written || buf_add(out, text, (size_t)len) || buf_add(out, "", 1);
    if (rc == 0)
        out->len--;
    BIO_free(bio);
    return rc ? fail_memory(f) : 0;
}

int cert_pem(struct buf *out, X509 *cert, struct failure *f)
{
    BIO *bio = BIO_new(BIO_s_mem());
    return take_text(out, bio, bio && PEM_write_bio_X509(bio, cert) == 1, f);
}

int crl_pem(struct buf *out, X509_CRL *crl, struct failure *f)
{
    BIO *bio = BIO_new(BIO_s_mem());
    return take_text(out, bio, bio && PEM_write_bio_X509_CRL(bio, crl) == 1, f);
}

static int prepare(X509_STORE_CTX *ctx, X509_STORE *store, X509 *cert,
                   const struct cert_check *check)
{
    if (X509_STORE_add_cert(store, check->root) != 1 ||
        (check->crl && X509_STORE_add_crl(store, check->crl) != 1) ||
        X509_STORE_CTX_init(ctx, store, cert, check->chain) != 1)
        return -1;
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_flags(param,
                                X509_V_FLAG_X509_STRICT | (check->crl ? X509_V_FLAG_CRL_CHECK : 0));
    X509_VERIFY_PARAM_set_auth_level(param, 2);
    return check->purpose == 0 || X509_VERIFY_PARAM_set_purpose(param, check->purpose) == 1 ? 0
                                                                                            : -1;
}

/* What OpenSSL says, with the certificate of the chain that it says it of. */
static int refuse(X509_STORE_CTX *ctx, const char *what, struct failure *f)
{
    int error = X509_STORE_CTX_get_error(ctx);
    if (error == X509_V_ERR_CERT_REVOKED)
        return fail(f, EXIT_VERIFY, "revoked", "%s is revoked", what);
    return fail(f, EXIT_VERIFY, "chain_invalid",
                "%s does not verify up to the pinned root: %s (certificate %d of the chain)", what,
                X509_verify_cert_error_string(error), X509_STORE_CTX_get_error_depth(ctx));
}

static int take_between(STACK_OF(X509) * *out, X509_STORE_CTX *ctx, struct failure *f)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get1_chain(ctx);
    if (!chain)
        return fail_memory(f);
    if (sk_X509_num(chain) > 1)
        X509_free(sk_X509_pop(chain)); /* the root */
    X509_free(sk_X509_shift(chain));   /* the leaf */
    *out = chain;
    return 0;
}

int cert_verify(X509 *cert, const struct cert_check *check, STACK_OF(X509) * *between,
                const char *what, struct failure *f)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int rc = -1;
    if (!store || !ctx || prepare(ctx, store, cert, check))
        fail_memory(f);
    else if (X509_verify_cert(ctx) != 1)
        refuse(ctx, what, f);
    else
        rc = between ? take_between(between, ctx, f) : 0;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return rc;
}

void serial_text(char out[SERIAL_TEXT_SIZE], const ASN1_INTEGER *serial)
{
    *out = '\0';
    if (ASN1_STRING_type(serial) == V_ASN1_INTEGER && ASN1_STRING_length(serial) <= 20)
        hex_encode(
            out, (struct bytes){ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial)});
}

int serial_from_text(char out[SERIAL_TEXT_SIZE], const char *text, struct failure *f)
{
    char digits[SERIAL_TEXT_SIZE];
    uint8_t bytes[20];
    size_t n = 0, len = 0;
    const char *p = text;
    for (; *p && n + 1 < sizeof digits; p++)
        if (*p != ':')
            digits[n++] = *p;
    digits[n] = '\0';
    if (*p || hex_decode(bytes, sizeof bytes, &len, digits) || len == 0)
        return fail(f, EXIT_USAGE, "usage",
                    "serial \"%s\" is not 1 to 20 bytes in hex, such as openssl x509 -serial shows",
                    text);
    hex_encode(out, (struct bytes){bytes, len});
    return 0;
}

void time_text(char out[TIME_TEXT_SIZE], const ASN1_TIME *t)
{
    struct tm tm;
    if (!t || ASN1_TIME_to_tm(t, &tm) != 1 ||
        strftime(out, TIME_TEXT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        *out = '\0';
}

int cert_fingerprint(uint8_t out[32], X509 *cert)
{
    return X509_digest(cert, EVP_sha256(), out, NULL) == 1 ? 0 : -1;
}

int crl_parse(X509_CRL **out, struct bytes text, const char *what, int exit_code, struct failure *f)
{
    const unsigned char *der = text.data;
    X509_CRL *crl = NULL;
    if (text.len && text.data[0] == 0x30) {
        crl = d2i_X509_CRL(NULL, &der, (long)text.len);
    } else if (text.len <= INT32_MAX) {
        BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
        crl = bio ? PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL) : NULL;
        BIO_free(bio);
    }
    ERR_clear_error();
    *out = crl;
    return crl ? 0
               : fail(f, exit_code, exit_code == EXIT_LOCAL ? "local_file" : "crl_malformed",
                      "%s is not a CRL", what);
}

int crl_verify(X509_CRL *crl, X509 *issuer, const char *what, struct failure *f)
{
    const char *cause = NULL;
    if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(issuer)) != 0)
        cause = "it is of another CA";
    else if (X509_CRL_verify(crl, X509_get0_pubkey(issuer)) != 1)
        cause = "its signature is not this CA's";
    else if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) > 0)
        cause = "it is from the future; check this machine's clock";
    else if (X509_CRL_get0_nextUpdate(crl) &&
             X509_cmp_current_time(X509_CRL_get0_nextUpdate(crl)) < 0)
        cause = "it has expired; check the server, and this machine's clock";
    ERR_clear_error();
    return cause ? fail(f, EXIT_VERIFY, "crl_invalid", "%s does not verify: %s", what, cause) : 0;
}

static ASN1_INTEGER *number_of(X509_CRL *crl)
{
    return X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
}

char *crl_number_text(X509_CRL *crl)
{
    ASN1_INTEGER *number = number_of(crl);
    char *text = number ? i2s_ASN1_INTEGER(NULL, number) : NULL; /* decimal while it is short */
    ASN1_INTEGER_free(number);
    return text;
}

int crl_number_compare(X509_CRL *a, X509_CRL *b)
{
    ASN1_INTEGER *x = number_of(a), *y = number_of(b);
    int order = x && y ? ASN1_INTEGER_cmp(x, y) : (x != NULL) - (y != NULL);
    ASN1_INTEGER_free(x);
    ASN1_INTEGER_free(y);
    return order < 0 ? -1 : order > 0;
}

int certs_save(const char *path, X509 *one, STACK_OF(X509) * many, struct failure *f)
{
    struct buf pem = {0};
    struct err err;
    int rc = one ? cert_pem(&pem, one, f) : 0;
    for (int i = 0; rc == 0 && many && i < sk_X509_num(many); i++)
        rc = cert_pem(&pem, sk_X509_value(many, i), f);
    if (rc == 0 && file_write(path, buf_view(&pem), 0644, 1, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    buf_free(&pem);
    return rc;
}
