#include "pki/est.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs7.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "pki/der.h"

#define LINE 64
#define MAC_ADDRESS "1.3.6.1.1.1.1.22"

/* ---- certificates ---- */

/* Without content, CRLs and signers. Certificates are added to it. */
static PKCS7 *empty_pkcs7(void)
{
    PKCS7 *p7 = PKCS7_new();
    if (p7 && PKCS7_set_type(p7, NID_pkcs7_signed) == 1 &&
        PKCS7_content_new(p7, NID_pkcs7_data) == 1 && PKCS7_set_detached(p7, 1) == 1)
        return p7;
    PKCS7_free(p7);
    return NULL;
}

static int encode(struct buf *out, const PKCS7 *p7)
{
    unsigned char *der = NULL;
    int len = i2d_PKCS7(p7, &der);
    int rc = len > 0 ? buf_add(out, der, (size_t)len) : -1;
    OPENSSL_free(der);
    return rc;
}

/* Takes x, which may be NULL. */
static int add_certificate(PKCS7 *p7, X509 *x)
{
    int rc = x && PKCS7_add_certificate(p7, x) == 1 ? 0 : -1;
    X509_free(x);
    return rc;
}

int est_certificate(struct buf *out, struct bytes der)
{
    const unsigned char *at = der.data;
    PKCS7 *p7 = empty_pkcs7();
    int rc =
        p7 && !add_certificate(p7, d2i_X509(NULL, &at, (long)der.len)) && at == der.data + der.len
            ? encode(out, p7)
            : -1;
    PKCS7_free(p7);
    ERR_clear_error();
    return rc;
}

int est_chain(struct buf *out, struct bytes pem)
{
    PKCS7 *p7 = empty_pkcs7();
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *x;
    int count = 0, rc = -1;
    if (!p7 || !in)
        goto out;
    for (; (x = PEM_read_bio_X509(in, NULL, NULL, NULL)); count++)
        if (add_certificate(p7, x))
            goto out;
    rc = count ? encode(out, p7) : -1;
out:
    BIO_free(in);
    PKCS7_free(p7);
    ERR_clear_error(); /* the end of the PEM is an error in OpenSSL's view */
    return rc;
}

/* ---- what a CSR is to hold ---- */

/* Takes value. */
static int add_attribute(struct buf *out, int type, int value_type, void *value)
{
    X509_ATTRIBUTE *a = value ? X509_ATTRIBUTE_create(type, value_type, value) : NULL;
    int rc = a ? der_encode(out, a, ASN1_ITEM_rptr(X509_ATTRIBUTE)) : -1;
    X509_ATTRIBUTE_free(a);
    return rc;
}

static int add_rsa(struct buf *out, unsigned bits)
{
    ASN1_INTEGER *size = ASN1_INTEGER_new();
    if (size && ASN1_INTEGER_set(size, bits) == 1)
        return add_attribute(out, NID_rsaEncryption, V_ASN1_INTEGER, size);
    ASN1_INTEGER_free(size);
    return -1;
}

static int add_curve(struct buf *out, int curve)
{
    return add_attribute(out, NID_X9_62_id_ecPublicKey, V_ASN1_OBJECT, OBJ_nid2obj(curve));
}

/* RFC 7030's example has it as the value of an extensionRequest, where RFC 9908, which updates it,
 * has only extensions; by itself it is right by both. */
static int add_mac_address(struct buf *out)
{
    ASN1_OBJECT *oid = OBJ_txt2obj(MAC_ADDRESS, 1);
    int rc = oid ? der_encode(out, oid, ASN1_ITEM_rptr(ASN1_OBJECT)) : -1;
    ASN1_OBJECT_free(oid);
    return rc;
}

int est_csrattrs(struct buf *out, const struct key_policy *keys, int of_mac)
{
    struct buf all = {0};
    int rc = -1;
    if ((keys->rsa_max && add_rsa(&all, keys->rsa_min)) ||
        (keys->p256 && add_curve(&all, NID_X9_62_prime256v1)) ||
        (keys->p384 && add_curve(&all, NID_secp384r1)) || (of_mac && add_mac_address(&all)))
        goto out;
    rc = der_header(out, 1, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, all.len) ||
                 buf_add(out, all.data, all.len)
             ? -1
             : 0;
out:
    buf_free(&all);
    return rc;
}

/* ---- base64 ---- */

char *est_encode(struct bytes der, int lines)
{
    char *base64 = base64_encode(der), *out = NULL;
    size_t len = base64 ? strlen(base64) : 0, line = lines ? LINE : len, used = 0;
    if (base64)
        out = malloc(len + len / LINE + 2);
    for (size_t at = 0, n; out && at < len; at += n) {
        n = len - at < line ? len - at : line;
        memcpy(out + used, base64 + at, n);
        used += n;
        out[used++] = '\n';
    }
    if (out)
        out[used] = 0;
    free(base64);
    return out;
}

uint8_t *est_decode(struct bytes body, size_t *len)
{
    char *text = malloc(body.len + 1);
    size_t n = 0;
    if (!text)
        return NULL;
    for (size_t i = 0; i < body.len; i++)
        if (!body.data[i] || !strchr(" \t\r\n", body.data[i]))
            text[n++] = (char)body.data[i];
    uint8_t *out = base64_decode(text, n, len);
    free(text);
    return out;
}
