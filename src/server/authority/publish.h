/* CRLs, from the authority's side: when one is made, under which number, and when it counts.
 *
 * The number is taken and committed first (it only rises, also over a crash), then a publisher
 * process builds, has the digest signed here, verifies and renames; then the row says published
 * and the fronts get the new descriptor. Revocations meanwhile set off one more. */
#ifndef SIGNET_PUBLISH_H
#define SIGNET_PUBLISH_H

#include "server/authority/authority.h"

struct publishing; /* opaque */

/* Reads the last CRL's row and file; a missing or outlived one is made at once. */
int publishing_open(struct publishing **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));
void publishing_close(struct publishing *p);

/* Something was revoked. */
void publish_wanted(struct publishing *p);

/* A CRL with a number above this one knows all that is committed by now; one that is being built
 * may not. */
uint64_t publish_older(const struct publishing *p);

/* The publisher process that was asked for; the socket is taken. */
void publish_add(struct publishing *p, int socket);

/* The published CRL; number 0: none yet. */
const struct crl_row *publish_current(const struct publishing *p);

/* Why a CRL that should be there is not; NULL while all is well. */
const char *publish_problem(const struct publishing *p);

/* Its read-only descriptor, borrowed; -1: none yet. */
int publish_file(const struct publishing *p);

#endif
