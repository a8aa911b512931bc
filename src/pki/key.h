/* Public keys, as SubjectPublicKeyInfo DER (RFC 5280 section 4.1.2.7): which are good enough. */
#ifndef SIGNET_KEY_H
#define SIGNET_KEY_H

#include <openssl/evp.h>
#include "common/bytes.h"
#include "common/err.h"

enum key_kind { KEY_RSA = 1, KEY_P256, KEY_P384 };

struct key_info {
    enum key_kind kind;
    unsigned bits; /* of the RSA modulus; 256 or 384 */
};

/* Which keys a profile takes: "rsa:2048-4096, ec:p256, ec:p384". rsa_max 0: no RSA. */
struct key_policy {
    unsigned rsa_min, rsa_max;
    int p256, p384;
};

int key_policy_parse(struct key_policy *out, const char *text, struct err *err)
    __attribute__((warn_unused_result));

/* Checks the bytes, from the algorithm identifier down, before anything decodes them as a key:
 * exact DER without trailing bytes; RSA: parameters NULL, 2048 to 4096 bits and within the policy,
 * e = 65537, odd modulus, no factor below 2^16, no ROCA fingerprint (CVE-2017-15361), no close
 * primes (Fermat, 100 rounds); EC: P-256 or P-384 by name, uncompressed point, on the curve.
 * Errors: key_invalid, key_type_refused, key_exponent, key_weak, key_curve. */
int key_check(struct bytes spki, const struct key_policy *policy, struct key_info *info,
              struct err *err) __attribute__((warn_unused_result));

/* The key for verifying; the caller's, EVP_PKEY_free(). NULL: not a key (see key_check). */
EVP_PKEY *key_from_spki(struct bytes spki) __attribute__((warn_unused_result));

/* SHA-256 of the key itself, without its algorithm (for RFC 7093 section 2). -1: not a key. */
int key_sha256(uint8_t out[32], struct bytes spki) __attribute__((warn_unused_result));

#endif
