/* STATE/journal.log and STATE/certs: written from committed rows, for people and for audit; the
 * store is the truth. Completed at start, synced within a second of the commit. */
#ifndef SIGNET_PROJECTION_H
#define SIGNET_PROJECTION_H

#include "server/authority/authority.h"

struct projection; /* opaque */

/* Opens the journal and checks its last line against the store: a journal that was cut or edited
 * refuses, and is not made anew. Then completes journal and files. */
int projection_open(struct projection **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));

/* Something was committed: write it within a quarter of a second. */
void projection_wanted(struct projection *p);
/* Write and sync now, for the end. */
int projection_flush(struct projection *p, struct err *err) __attribute__((warn_unused_result));
/* NULL while all is well. */
const char *projection_problem(const struct projection *p);
void projection_close(struct projection *p);

#endif
