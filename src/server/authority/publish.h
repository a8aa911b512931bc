/* CRLs, from the authority's side: when one is made, under which number, and when it counts.
 *
 * There is the full one, scope 0, and with [ca] crl_shards as many more, each of what was issued
 * with it as its distribution point. One is made at a time. The number is taken and committed first
 * (it only rises, in each scope, also over a crash), then a publisher process builds, has the
 * digest signed here, verifies and renames; then the row says published and the fronts get the new
 * descriptor. Revocations meanwhile set off one more; but not at once when the last took long: the
 * publisher has a fifth of a core. */
#ifndef SIGNET_PUBLISH_H
#define SIGNET_PUBLISH_H

#include "server/authority/authority.h"

struct publishing; /* opaque */

/* Reads the last CRLs' rows and files; a missing or outlived one is made at once. */
int publishing_open(struct publishing **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));
void publishing_close(struct publishing *p);

/* Something was revoked; it was issued for these shards (shard_bit()). */
void publish_wanted(struct publishing *p, uint64_t shards);
static inline uint64_t shard_bit(int shard)
{
    return shard < 0 ? ~(uint64_t)0 : shard ? (uint64_t)1 << (shard - 1) : 0;
}
/* All of them, now. */
void publish_rebuild(struct publishing *p);
/* What it waits for may be there, or due: once a second, and when a signer is ready. */
void publish_look(struct publishing *p);

/* The shard that a certificate of this serial is given; 0: none. */
unsigned publish_shard_of(const struct publishing *p, struct bytes serial);
/* The configuration may be another. */
void publish_configure(struct publishing *p);
/* In a decision: there is a certificate of this shard, so it is published from now on; and what the
 * authority does when that is durable. */
int publish_keep_shards(struct store_tx *tx, unsigned shards);
void publish_know_shard(struct publishing *p, unsigned shard);

/* A full CRL with a number above this one knows all that is committed by now; one that is being
 * built may not. */
uint64_t publish_older(const struct publishing *p);

/* The publisher process that was asked for; the socket is taken. */
void publish_add(struct publishing *p, int socket);

/* How many there are beside the full one. */
unsigned publish_shards(const struct publishing *p);
/* The published CRL of a scope; number 0: none yet. */
const struct crl_row *publish_current(const struct publishing *p, unsigned scope);

/* Why a CRL that should be there is not; NULL while all is well. */
const char *publish_problem(const struct publishing *p);

/* Its read-only descriptor, borrowed; -1: none yet. */
int publish_file(const struct publishing *p, unsigned scope);

#endif
