/* Certificates (RFC 5280), in the two steps that a key in a token asks for: the TBS bytes, which
 * are approved, recorded and digested, and later the signature around exactly those bytes.
 * The SubjectPublicKeyInfo is copied as it came (after key_check()); nothing decodes it here. */
#ifndef SIGNET_CERTIFICATE_H
#define SIGNET_CERTIFICATE_H

#include "pki/issuer.h"
#include "pki/profile.h"

#define SERIAL_LEN 16

/* 128 bits from the CSPRNG, positive: the first byte is 01 to 7f, so that the serial is always 16
 * bytes and 32 hex digits (RFC 5280 section 4.1.2.2). Fails (random_broken) when the generator, or
 * the kernel's, which seeds it, fails, gives all the same bytes, or what it gave the call before.
 */
int serial_make(uint8_t out[SERIAL_LEN], struct err *err) __attribute__((warn_unused_result));

struct certificate_request {
    const struct issuer *issuer;
    const struct profile *profile;
    struct bytes serial;     /* as serial_make() gives it */
    struct bytes spki;       /* passed key_check() with the profile's policy */
    const char *name;        /* passed profile_check_name() */
    const char *const *sans; /* "DNS:host", "IP:10.0.0.1", NULL-terminated; needed when
                              * profile_takes_names(), else NULL */
    unsigned shard;          /* of the CRL, where profile_takes_shard(); 0: the full CRL's URL */
    int64_t now;             /* seconds since 1970 */
    int64_t lifetime; /* seconds from now, when shorter than the profile's; 0: the profile's */
};

/* TBSCertificate DER into *tbs (starts {0}; the caller's, buf_free()). not_before and not_after
 * are what went in, seconds since 1970 (99991231235959Z as is); may be NULL. Error: too_old when
 * the issuer has ended or nothing is left of the validity; csr_cn_invalid, field_missing (no
 * name for subjectAltName), field_value (a bad one), key_invalid, internal. */
int certificate_build(struct buf *tbs, const struct certificate_request *req, int64_t *not_before,
                      int64_t *not_after, struct err *err) __attribute__((warn_unused_result));

/* Certificate DER from TBS and the raw signature, after the signature was verified with the
 * issuer's key over these TBS bytes: what comes out is what was approved, or nothing does. Errors:
 * internal, lint_refused. */
int certificate_assemble(struct buf *der, const struct issuer *issuer, struct bytes tbs,
                         struct bytes signature, struct err *err)
    __attribute__((warn_unused_result));

/* DER to PEM (RFC 7468), NUL-terminated; the caller's, free(). NULL: no memory. */
char *certificate_pem(struct bytes der) __attribute__((warn_unused_result));

#endif
