#include "image/content.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

static int no_password(char *out, int size, int writing, void *context)
{
    (void)out, (void)size, (void)writing, (void)context;
    return -1;
}

/* ---- PEM ---- */

static int has(struct bytes text, const char *what)
{
    return memmem(text.data, text.len, what, strlen(what)) != NULL;
}

static void pem_certs(struct content *c, BIO *bio)
{
    X509 *cert;
    STACK_OF(X509) *certs = sk_X509_new_null();
    while (certs && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        if (sk_X509_push(certs, cert) <= 0) {
            X509_free(cert);
            break;
        }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        c->fault = "a certificate in it is malformed";
    if (certs && sk_X509_num(certs) > 0) {
        c->kind = CONTENT_CERTS;
        c->certs = certs;
        return;
    }
    sk_X509_free(certs);
    c->fault = "the certificate is malformed";
}

static void pem_key(struct content *c, struct bytes text, BIO *bio)
{
    c->key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    c->kind = c->key ? CONTENT_KEY : CONTENT_OTHER;
    c->form = has(text, "-----BEGIN PRIVATE KEY-----") ? "PKCS#8" : "traditional";
    if (!c->key)
        c->fault = has(text, "ENCRYPTED") ? "the private key is encrypted"
                                          : "the private key is malformed";
}

/* mbedTLS knows PEM by the NUL that its length counts. */
static const char *pem_end(struct bytes data)
{
    const uint8_t *nul = memchr(data.data, 0, data.len);
    if (!nul)
        return "PEM without its trailing NUL (which the length counts): mbedTLS refuses it";
    return nul == data.data + data.len - 1 ? NULL : "bytes follow the NUL of the PEM";
}

static void parse_pem(struct content *c, struct bytes data)
{
    size_t len = strnlen((const char *)data.data, data.len);
    BIO *bio = BIO_new_mem_buf(data.data, (int)len);
    struct bytes text = {data.data, len};
    if (!bio)
        return;
    c->encoding = ENCODING_PEM;
    if (has(text, "-----BEGIN CERTIFICATE-----"))
        pem_certs(c, bio);
    else if (has(text, "PRIVATE KEY-----"))
        pem_key(c, text, bio);
    if (!c->fault && c->kind != CONTENT_OTHER)
        c->fault = pem_end(data);
    BIO_free(bio);
}

/* ---- DER ---- */

/* The length of the DER value that data begins with; 0: it begins with none that ends in it. */
static size_t der_length(struct bytes data)
{
    const unsigned char *p = data.data;
    long len;
    int tag, class;
    int flags = ASN1_get_object(&p, &len, &tag, &class, (long)data.len);
    if (flags & 0x80 || tag != V_ASN1_SEQUENCE)
        return 0;
    return (size_t)(p - data.data) + (size_t)len;
}

static int is_pkcs8(const unsigned char *p, long len)
{
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, len);
    PKCS8_PRIV_KEY_INFO_free(info);
    return info != NULL;
}

static void der_cert(struct content *c, X509 *cert)
{
    c->certs = sk_X509_new_null();
    if (c->certs && sk_X509_push(c->certs, cert) > 0) {
        c->kind = CONTENT_CERTS;
        return;
    }
    sk_X509_free(c->certs);
    c->certs = NULL;
    X509_free(cert);
}

static void parse_der(struct content *c, struct bytes data)
{
    size_t len = der_length(data);
    const unsigned char *p = data.data;
    X509 *cert = len ? d2i_X509(NULL, &p, (long)len) : NULL;
    p = data.data;
    c->encoding = ENCODING_DER;
    if (cert) {
        der_cert(c, cert);
    } else if (len && (c->key = d2i_AutoPrivateKey(NULL, &p, (long)len))) {
        c->kind = CONTENT_KEY;
        c->form = is_pkcs8(data.data, (long)len) ? "PKCS#8" : "traditional";
    }
    if (c->kind != CONTENT_OTHER && len < data.len)
        c->fault = "bytes follow the DER: mbedTLS reads the first value alone";
}

void content_parse(struct content *out, struct bytes data)
{
    *out = (struct content){0};
    if (data.len == 0 || data.len > INT32_MAX)
        return;
    ERR_set_mark();
    if (data.data[0] == 0x30)
        parse_der(out, data);
    else if (has(data, "-----BEGIN "))
        parse_pem(out, data);
    ERR_pop_to_mark();
}

void content_free(struct content *c)
{
    EVP_PKEY_free(c->key);
    sk_X509_pop_free(c->certs, X509_free);
    *c = (struct content){0};
}
