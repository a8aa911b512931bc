/* The operator's signature over a request of high consequence: a detached CMS signature (RFC 5652)
 * over the exact bytes of the body, in the header Signet-Signature. docs/signed-requests.md shows
 * the same with openssl cms. */
#ifndef SIGNET_CLIENT_SIGNATURE_H
#define SIGNET_CLIENT_SIGNATURE_H

#include "client/failure.h"
#include "common/bytes.h"

/* "Signet-Signature: …", by the key in key_path, whose certificate is in cert_path. *out is the
 * caller's, free(). */
int signature_header(char **out, struct bytes body, const char *cert_path, const char *key_path,
                     struct failure *f) __attribute__((warn_unused_result));

#endif
