/* A certification request (PKCS#10, RFC 2986). Of a request only its key, its CN and the fields
 * that a profile lists are ever used. Pure; fed with hostile bytes. */
#ifndef SIGNET_CSR_H
#define SIGNET_CSR_H

#include "common/bytes.h"
#include "common/err.h"

#define CSR_CN_SIZE 65 /* ub-common-name is 64 (RFC 5280 appendix A.1) */
#define CSR_SIZE_MAX (32 * 1024)

struct csr; /* opaque */

/* PEM ("CERTIFICATE REQUEST", one block and white space around it) or DER, at most CSR_SIZE_MAX.
 * Version 1, no trailing bytes, exactly one CN in the subject (UTF8, printable, IA5; printable
 * ASCII only, no NUL), every extension of an extensionRequest attribute parses (an empty SEQUENCE
 * does not). The key is not decoded. Error: csr_malformed, csr_cn_invalid. */
int csr_parse(struct csr **out, struct bytes in, struct err *err)
    __attribute__((warn_unused_result));

/* Proof of possession (RFC 2986 section 4.2): the signature, by SHA-256, 384 or 512, with the
 * request's own key. Call key_check() on csr_spki() first. Error: csr_signature_invalid. */
int csr_verify(const struct csr *csr, struct err *err) __attribute__((warn_unused_result));

/* Views into the request, valid until csr_free(). The DER is what csr_parse() found inside PEM. */
struct bytes csr_spki(const struct csr *csr);
struct bytes csr_der(const struct csr *csr);
const char *csr_cn(const struct csr *csr);

/* The requested subjectAltName as {"DNS:host", "IP:192.0.2.1", …, NULL}: at most CSR_NAMES_MAX,
 * dNSName and iPAddress only. One allocation, the caller's, free(). Errors: names_missing,
 * name_not_allowed. */
#define CSR_NAMES_MAX 32
int csr_names(const struct csr *csr, char ***out, struct err *err)
    __attribute__((warn_unused_result));

void csr_free(struct csr *csr); /* NULL is fine */

#endif
