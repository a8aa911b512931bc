/* Where a CRL is found, as certificates and CRLs say it (RFC 5280 sections 4.2.1.13 and 5.2.5). */
#ifndef SIGNET_POINT_H
#define SIGNET_POINT_H

#include <openssl/x509v3.h>

/* fullName with these URLs, NULL-terminated; the caller's, DIST_POINT_NAME_free(). NULL: no
 * memory. */
DIST_POINT_NAME *point_name(const char *const *urls) __attribute__((warn_unused_result));

/* The CRL distribution point of one URL; NULL: no memory. */
X509_EXTENSION *point_extension(const char *url) __attribute__((warn_unused_result));

/* The shard that a certificate names: URL/crl/K in its distribution points, whatever the host. 0:
 * none. */
unsigned point_shard(const X509 *x);

#endif
