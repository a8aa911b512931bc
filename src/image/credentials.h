/* What a board needs to log in, and its two encodings as firmware reads them (mbedTLS):
 *
 *   PEM   text with its trailing NUL counted: mbedTLS knows PEM by it. Certificates stand behind
 *         one another in one text: the leaf, then the intermediates.
 *   DER   one object, no NUL. mbedTLS reads one certificate of a DER buffer, so each of a chain is
 *         an item of its own.
 *
 * The key is PKCS#8 in both; mbedTLS reads PKCS#8 as well as the traditional forms. */
#ifndef SIGNET_IMAGE_CREDENTIALS_H
#define SIGNET_IMAGE_CREDENTIALS_H

#include <openssl/x509.h>
#include "common/bytes.h"
#include "common/err.h"

enum encoding { ENCODING_PEM, ENCODING_DER };

/* Borrowed: whoever fills it in frees. */
struct credentials {
    EVP_PKEY *key;
    X509 *cert;             /* the leaf */
    STACK_OF(X509) * chain; /* intermediates, in any order; NULL: none */
    X509 *ca;               /* the root */
};

/* One thing for the firmware: the key, a certificate (of a chain, by PEM), the CA. */
enum credential {
    CREDENTIAL_KEY,
    CREDENTIAL_CERT,  /* PEM: the whole chain, leaf first; DER: the leaf */
    CREDENTIAL_CHAIN, /* DER alone: one intermediate */
    CREDENTIAL_CA,
};

#define CREDENTIAL_ITEMS_MAX 16

struct credential_item {
    enum credential what;
    unsigned number; /* of the intermediates, from 0: the leaf's issuer */
    struct buf data;
};

/* The items in the order key, certificate, (intermediates,) CA. */
struct credential_items {
    struct credential_item item[CREDENTIAL_ITEMS_MAX];
    size_t count;
};

/* Checks that key and certificate are one pair and that the chain leads from the certificate to
 * the CA, each signed by the next, and encodes them, intermediates in that order.
 * credential_items_free() also after a failure. */
int credential_items_make(struct credential_items *out, const struct credentials *c,
                          enum encoding encoding, struct err *err)
    __attribute__((warn_unused_result));
/* Wipes and frees. */
void credential_items_free(struct credential_items *items);

/* Did issuer sign cert, by name and signature? */
int cert_is_issued_by(X509 *cert, X509 *issuer);

/* For buffers that hold a key: what is freed is wiped before. NULL data is fine. */
void buf_wipe(struct buf *b);

#endif
