/* What an item's bytes are: a private key, certificates, or something else. */
#ifndef SIGNET_IMAGE_CONTENT_H
#define SIGNET_IMAGE_CONTENT_H

#include <openssl/x509.h>
#include "common/bytes.h"
#include "image/credentials.h"

enum content_kind { CONTENT_OTHER, CONTENT_KEY, CONTENT_CERTS };

struct content {
    enum content_kind kind;
    enum encoding encoding;
    const char *form; /* of a key: "PKCS#8" or "traditional" */
    EVP_PKEY *key;
    STACK_OF(X509) * certs; /* at least one, in their order */
    const char *fault;      /* why mbedTLS would not take it, or not all of it; NULL: nothing */
};

/* What is neither becomes CONTENT_OTHER, with a fault when it begins as if it were one. Nobody is
 * asked for a password. content_free() always. */
void content_parse(struct content *out, struct bytes data);
void content_free(struct content *c);

#endif
