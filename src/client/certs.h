/* Certificates and CRLs as the client sees them: read, verified up to the pinned root, described.
 * Nothing is trusted but that root: no system store, no partial chain. */
#ifndef SIGNET_CLIENT_CERTS_H
#define SIGNET_CLIENT_CERTS_H

#include <openssl/x509.h>
#include "client/failure.h"
#include "common/bytes.h"

#define SERIAL_TEXT_SIZE 41 /* 20 bytes in hex (RFC 5280 section 4.1.2.2), and the NUL */
#define TIME_TEXT_SIZE 32   /* "2026-11-23T12:00:00Z" */

/* All certificates of a PEM text, at least one, nothing but certificates; certs_free(). what names
 * the text in the error, which is of kind exit_code. */
int certs_parse(STACK_OF(X509) * *out, struct bytes pem, const char *what, int exit_code,
                struct failure *f) __attribute__((warn_unused_result));
int certs_load(STACK_OF(X509) * *out, const char *path, struct failure *f)
    __attribute__((warn_unused_result));
void certs_free(STACK_OF(X509) * certs); /* NULL is fine */

/* The first certificate of a file; X509_free(). */
int cert_load(X509 **out, const char *path, struct failure *f) __attribute__((warn_unused_result));

/* The first self-signed CA certificate of a file: the pinned root; X509_free(). */
int root_load(X509 **out, const char *path, struct failure *f) __attribute__((warn_unused_result));
/* Is it a CA certificate that its own key signed? */
int cert_is_root(X509 *cert);

/* PEM, added to *out. */
int cert_pem(struct buf *out, X509 *cert, struct failure *f) __attribute__((warn_unused_result));
/* Those into a new file, PEM, in this order: one (NULL: none), then many (NULL: none). */
int certs_save(const char *path, X509 *one, STACK_OF(X509) * many, struct failure *f)
    __attribute__((warn_unused_result));

struct cert_check {
    X509 *root;
    STACK_OF(X509) * chain; /* candidates between; may be NULL */
    int purpose;            /* X509_PURPOSE_…; 0: any */
    X509_CRL *crl;          /* the leaf's issuer's; NULL: revocation is not checked */
};

/* Verifies by RFC 5280 (strict, 112 bits of security at least). EXIT_VERIFY with what (the thing
 * verified) and the cause. *between, when not NULL, gets what stood between leaf and root. */
int cert_verify(X509 *cert, const struct cert_check *check, STACK_OF(X509) * *between,
                const char *what, struct failure *f) __attribute__((warn_unused_result));

/* Lower-case hex; empty when negative or longer than 20 bytes. */
void serial_text(char out[SERIAL_TEXT_SIZE], const ASN1_INTEGER *serial);
/* What people paste: colons, either case. To lower-case hex, two digits a byte. EXIT_USAGE. */
int serial_from_text(char out[SERIAL_TEXT_SIZE], const char *text, struct failure *f)
    __attribute__((warn_unused_result));
void time_text(char out[TIME_TEXT_SIZE], const ASN1_TIME *t);

/* SHA-256 over the DER: the fingerprint. */
int cert_fingerprint(uint8_t out[32], X509 *cert);

/* A CRL, PEM or DER; X509_CRL_free(). */
int crl_parse(X509_CRL **out, struct bytes text, const char *what, int exit_code, struct failure *f)
    __attribute__((warn_unused_result));
/* PEM, added to *out, and a NUL that is not counted. */
int crl_pem(struct buf *out, X509_CRL *crl, struct failure *f) __attribute__((warn_unused_result));
/* Signed by issuer, of issuer, and current. EXIT_VERIFY. */
int crl_verify(X509_CRL *crl, X509 *issuer, const char *what, struct failure *f)
    __attribute__((warn_unused_result));
/* Its number (RFC 5280 section 5.2.3) as decimal text; OPENSSL_free(). NULL: it has none. */
char *crl_number_text(X509_CRL *crl) __attribute__((warn_unused_result));
/* -1, 0, 1 as the number of a is less than, equal to, more than b's; no number counts as lowest. */
int crl_number_compare(X509_CRL *a, X509_CRL *b);

#endif
