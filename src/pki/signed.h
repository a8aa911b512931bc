/* SIGNED{…} (RFC 5280 section 4.1, 5.1): what stands around the bytes that were signed. */
#ifndef SIGNET_SIGNED_H
#define SIGNET_SIGNED_H

#include <openssl/evp.h>
#include "pki/issuer.h"

const EVP_MD *signed_digest(enum sign_alg alg);

/* Appends the header that goes before tbs_len bytes, and what comes behind them. */
int signed_head(struct buf *out, enum sign_alg alg, size_t tbs_len, size_t signature_len)
    __attribute__((warn_unused_result));
int signed_tail(struct buf *out, enum sign_alg alg, struct bytes signature)
    __attribute__((warn_unused_result));

/* Appends all three. */
int signed_wrap(struct buf *out, enum sign_alg alg, struct bytes tbs, struct bytes signature)
    __attribute__((warn_unused_result));

#endif
