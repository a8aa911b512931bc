/* The issuing CA as the rest needs it: its certificate, and what is derived from it once. */
#ifndef SIGNET_ISSUER_H
#define SIGNET_ISSUER_H

#include <openssl/x509.h>
#include "common/bytes.h"
#include "common/err.h"

/* What the signer is asked to do with a digest. The number goes over the wire. */
enum sign_alg { SIGN_RSA_SHA256 = 1, SIGN_ECDSA_SHA256 = 2, SIGN_ECDSA_SHA384 = 3 };

/* Which key in the token. The number goes over the wire. */
enum token_key { TOKEN_KEY_CA = 1, TOKEN_KEY_RESPONDER = 2 };

#define SIGNATURE_MAX 512 /* RSA-4096 */
#define DIGEST_MAX 48

struct issuer; /* opaque */

/* From PEM: the CA certificate (the first one in it; CA:TRUE, keyCertSign and cRLSign). RSA signs
 * with SHA-256, P-256 with SHA-256, P-384 with SHA-384. */
int issuer_from_pem(struct issuer **out, struct bytes pem, struct err *err)
    __attribute__((warn_unused_result));
void issuer_free(struct issuer *i);

X509 *issuer_certificate(const struct issuer *i); /* borrowed */
struct bytes issuer_certificate_der(const struct issuer *i);
struct bytes issuer_name_der(const struct issuer *i);      /* its subject, DER */
struct bytes issuer_spki(const struct issuer *i);          /* SubjectPublicKeyInfo DER */
const uint8_t *issuer_spki_sha256(const struct issuer *i); /* 32 bytes */
struct bytes issuer_key_id(const struct issuer *i); /* its SKI, for the AKI of what it issues */
int64_t issuer_not_after(const struct issuer *i);   /* seconds since 1970 */
enum sign_alg issuer_alg(const struct issuer *i);

/* The algorithm of a key that signs for this CA, from its SubjectPublicKeyInfo: RSA and P-256 with
 * SHA-256, P-384 with SHA-384. Errors as key_check(). */
int sign_alg_of(enum sign_alg *out, struct bytes spki, struct err *err)
    __attribute__((warn_unused_result));

/* The digest of data for this algorithm; returns its length (32 or 48). */
size_t sign_digest(enum sign_alg alg, struct bytes data, uint8_t out[DIGEST_MAX]);

/* The AlgorithmIdentifier, DER, static (RFC 4055 section 5, RFC 5758 section 3.2). */
struct bytes sign_alg_der(enum sign_alg alg);

/* 0 when sig is the issuer's over this digest; -1 otherwise. */
int issuer_verify(const struct issuer *i, struct bytes digest, struct bytes sig)
    __attribute__((warn_unused_result));

#endif
