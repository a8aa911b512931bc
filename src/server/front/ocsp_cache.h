/* OCSP answers that a front keeps for whoever asks: those without a nonce, for one CertID. Bounded;
 * what was used longest ago goes first. An answer is given until half of its life is over; then the
 * authority is asked anew, and the old one is there until its end, should there be no new one. */
#ifndef SIGNET_FRONT_OCSP_CACHE_H
#define SIGNET_FRONT_OCSP_CACHE_H

#include "server/front/documents.h"

#define OCSP_CACHE_BYTES ((size_t)16 * 1024 * 1024)
#define OCSP_CACHE_ENTRIES 16384

struct ocsp_cache; /* opaque */

/* One answer. Good until the next ocsp_cache_put() or ocsp_cache_forget(). */
struct ocsp_entry {
    struct document answer;              /* modified: thisUpdate; expires: nextUpdate */
    char modified_text[32], expires[32]; /* as HTTP has them */
    int64_t ask_at;                      /* from then on the authority is to be asked anew */
};

struct ocsp_cache *ocsp_cache_new(size_t bytes, size_t entries) __attribute__((warn_unused_result));
void ocsp_cache_free(struct ocsp_cache *c); /* NULL is fine */

/* By a CertID as ocsp_pack() has it. NULL: not there. */
struct ocsp_entry *ocsp_cache_find(struct ocsp_cache *c, struct bytes certid);
/* By the exact bytes of a request that was added to its entry; any bytes may be asked for. */
struct ocsp_entry *ocsp_cache_find_request(struct ocsp_cache *c, struct bytes request);

int ocsp_entry_valid(const struct ocsp_entry *e, int64_t now); /* not beyond nextUpdate */
int ocsp_entry_fresh(const struct ocsp_entry *e, int64_t now); /* and need not be asked for */

/* Until then, or its end, it counts as fresh. */
void ocsp_entry_put_off(struct ocsp_entry *e, int64_t until);

/* In place of what is there for this CertID. Without memory nothing is kept. */
void ocsp_cache_put(struct ocsp_cache *c, struct bytes certid, const struct msg_answer_ocsp *m);

/* These bytes ask for e too, and need not be taken apart again. Of a few each; e stays good. */
void ocsp_cache_add_request(struct ocsp_cache *c, struct ocsp_entry *e, struct bytes request);

/* All entries on the serial; serial empty: all that there are. */
void ocsp_cache_forget(struct ocsp_cache *c, struct bytes serial);

#endif
