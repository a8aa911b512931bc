/* The bodies of EST, enrolment over secure transport (RFC 7030, RFC 8951): what comes in is a CSR
 * in base64, what goes out certificates as PKCS#7 or what a CSR is to hold. Pure; est_decode() is
 * fed with hostile bytes. */
#ifndef SIGNET_EST_H
#define SIGNET_EST_H

#include "common/bytes.h"
#include "pki/key.h"

/* Append a certs-only PKCS#7 (RFC 5652 section 5: SignedData that nobody signs) of one certificate,
 * or of all those in a PEM, in their order. -1: not certificates, or no memory. */
int est_certificate(struct buf *out, struct bytes der) __attribute__((warn_unused_result));
int est_chain(struct buf *out, struct bytes pem) __attribute__((warn_unused_result));

/* Appends the CsrAttrs (RFC 7030 section 4.5.2) of a profile: each type of key that it takes (RSA
 * with the least size), and macAddress (RFC 2307 section 2.2) when a board's MAC is what it
 * certifies. -1: no memory. */
int est_csrattrs(struct buf *out, const struct key_policy *keys, int of_mac)
    __attribute__((warn_unused_result));

/* Base64 and a newline: one line, or lines of 64. The caller's, free(). NULL: no memory. */
char *est_encode(struct bytes der, int lines) __attribute__((warn_unused_result));

/* What is in base64, with or without line breaks and other white space (RFC 8951 section 3.1); else
 * canonical, as base64_decode(). The caller's, free(). NULL: not base64, or no memory. */
uint8_t *est_decode(struct bytes body, size_t *len) __attribute__((warn_unused_result));

#endif
