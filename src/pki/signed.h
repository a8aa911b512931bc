/* SIGNED{…} (RFC 5280 section 4.1, 5.1): what stands around the bytes that were signed. */
#ifndef SIGNET_SIGNED_H
#define SIGNET_SIGNED_H

#include <openssl/evp.h>
#include "pki/issuer.h"

const EVP_MD *signed_digest(enum sign_alg alg);

/* 0 when sig is that key's over this digest; -1 otherwise. */
int signed_verify(EVP_PKEY *key, enum sign_alg alg, struct bytes digest, struct bytes sig)
    __attribute__((warn_unused_result));

/* The same, with what can be kept for the next; NULL: no memory. The caller's, EVP_PKEY_CTX_free().
 */
EVP_PKEY_CTX *signed_verifier(EVP_PKEY *key, enum sign_alg alg) __attribute__((warn_unused_result));
int signed_verify_with(EVP_PKEY_CTX *verifier, struct bytes digest, struct bytes sig)
    __attribute__((warn_unused_result));

/* Appends the header that goes before tbs_len bytes, and what comes behind them. */
int signed_head(struct buf *out, enum sign_alg alg, size_t tbs_len, size_t signature_len)
    __attribute__((warn_unused_result));
int signed_tail(struct buf *out, enum sign_alg alg, struct bytes signature)
    __attribute__((warn_unused_result));

/* Appends all three. */
int signed_wrap(struct buf *out, enum sign_alg alg, struct bytes tbs, struct bytes signature)
    __attribute__((warn_unused_result));

#endif
