#include "image/credentials.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "image/parts.h"

/* ---- the order of the chain ---- */

int cert_is_issued_by(X509 *cert, X509 *issuer)
{
    return X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(issuer)) == 0 &&
           X509_verify(cert, X509_get0_pubkey(issuer)) == 1;
}

/* The one of rest that issued cert, taken out; NULL: none did. */
static X509 *take_issuer(STACK_OF(X509) * rest, X509 *cert)
{
    for (int i = 0; i < sk_X509_num(rest); i++)
        if (cert_is_issued_by(cert, sk_X509_value(rest, i)))
            return sk_X509_delete(rest, i);
    return NULL;
}

/* Moves what leads from cert to ca from rest to out, the leaf's issuer first. */
static int put_in_order(STACK_OF(X509) * out, STACK_OF(X509) * rest, X509 *cert, X509 *ca,
                        struct err *err)
{
    X509 *at = cert;
    while (!cert_is_issued_by(at, ca)) {
        X509 *issuer = take_issuer(rest, at);
        if (!issuer)
            return err_set(err, ERR_internal,
                           "the chain does not lead from the certificate to the CA: %d of its "
                           "certificates fit, and the next issuer is missing",
                           sk_X509_num(out));
        if (sk_X509_push(out, issuer) <= 0)
            return err_set(err, ERR_internal, "out of memory");
        at = issuer;
    }
    if (sk_X509_num(rest) == 0)
        return 0;
    return err_set(err, ERR_internal,
                   "the chain holds %d certificate(s) more than lead from the device's to the CA",
                   sk_X509_num(rest));
}

/* A stack of its own, borrowed certificates; sk_X509_free(). */
static STACK_OF(X509) * ordered(const struct credentials *c, struct err *err)
{
    STACK_OF(X509) *out = sk_X509_new_null();
    STACK_OF(X509) *rest = c->chain ? sk_X509_dup(c->chain) : sk_X509_new_null();
    int rc = out && rest ? put_in_order(out, rest, c->cert, c->ca, err)
                         : err_set(err, ERR_internal, "out of memory");
    sk_X509_free(rest);
    if (rc == 0)
        return out;
    sk_X509_free(out);
    return NULL;
}

/* ---- encoding ---- */

/* A memory BIO's content, in PEM with its NUL. BIO_s_mem() wipes what it frees. */
static int take_bio(struct buf *out, BIO *bio, enum encoding encoding, struct err *err)
{
    char *text = NULL;
    if (encoding == ENCODING_PEM && BIO_write(bio, "", 1) != 1)
        return err_set(err, ERR_internal, "out of memory");
    long len = BIO_get_mem_data(bio, &text);
    if (len > 0 && buf_copy(out, (struct bytes){(const uint8_t *)text, (size_t)len}) == 0)
        return 0;
    return err_set(err, ERR_internal, "out of memory");
}

static int write_key(BIO *bio, const void *key, enum encoding encoding)
{
    return encoding == ENCODING_PEM
               ? PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL)
               : i2d_PKCS8PrivateKey_bio(bio, key, NULL, NULL, 0, NULL, NULL);
}

static int write_cert(BIO *bio, const void *cert, enum encoding encoding)
{
    return encoding == ENCODING_PEM ? PEM_write_bio_X509(bio, cert)
                                    : i2d_X509_bio(bio, (X509 *)cert);
}

static int write_chain(BIO *bio, const void *chain, enum encoding encoding)
{
    const STACK_OF(X509) *certs = chain;
    for (int i = 0; i < sk_X509_num(certs); i++)
        if (write_cert(bio, sk_X509_value(certs, i), encoding) != 1)
            return 0;
    return 1;
}

static int add(struct credential_items *items, enum credential what, enum encoding encoding,
               int (*write)(BIO *, const void *, enum encoding), const void *object,
               struct err *err)
{
    if (items->count == CREDENTIAL_ITEMS_MAX)
        return err_set(err, ERR_internal, "the chain is longer than %d certificates",
                       CREDENTIAL_ITEMS_MAX - 3);
    struct credential_item *item = &items->item[items->count++];
    *item = (struct credential_item){.what = what};
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = bio && write(bio, object, encoding) == 1
                 ? take_bio(&item->data, bio, encoding, err)
                 : err_set(err, ERR_internal, "cannot encode: %s", err_openssl());
    BIO_free(bio);
    return rc;
}

static int add_der_chain(struct credential_items *items, STACK_OF(X509) * chain, struct err *err)
{
    for (int i = 0; i < sk_X509_num(chain); i++) {
        if (add(items, CREDENTIAL_CHAIN, ENCODING_DER, write_cert, sk_X509_value(chain, i), err))
            return -1;
        items->item[items->count - 1].number = (unsigned)i;
    }
    return 0;
}

static int add_certs(struct credential_items *items, const struct credentials *c,
                     STACK_OF(X509) * chain, enum encoding encoding, struct err *err)
{
    if (encoding == ENCODING_DER)
        return add(items, CREDENTIAL_CERT, encoding, write_cert, c->cert, err)
                   ? -1
                   : add_der_chain(items, chain, err);
    if (sk_X509_unshift(chain, c->cert) <= 0)
        return err_set(err, ERR_internal, "out of memory");
    return add(items, CREDENTIAL_CERT, encoding, write_chain, chain, err);
}

int credential_items_make(struct credential_items *out, const struct credentials *c,
                          enum encoding encoding, struct err *err)
{
    out->count = 0;
    if (X509_check_private_key(c->cert, c->key) != 1) {
        ERR_clear_error();
        return err_set(err, ERR_internal, "the certificate is for another key");
    }
    STACK_OF(X509) *chain = ordered(c, err);
    if (!chain)
        return -1;
    int rc = add(out, CREDENTIAL_KEY, encoding, write_key, c->key, err) ||
                     add_certs(out, c, chain, encoding, err) ||
                     add(out, CREDENTIAL_CA, encoding, write_cert, c->ca, err)
                 ? -1
                 : 0;
    sk_X509_free(chain);
    return rc;
}

void credential_items_free(struct credential_items *items)
{
    for (size_t i = 0; i < items->count; i++)
        buf_wipe(&items->item[i].data);
    items->count = 0;
}
