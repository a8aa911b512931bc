/* STATE/journal.log and STATE/certs: written from committed rows, for people and for audit; the
 * store is the truth. The journal is completed at start, and synced within a second of the commit;
 * so are the files, unless [server] certificate_files is off. Where many files are missing (the
 * folder is new, or they were off) they follow while requests go on, in turn with new events. */
#ifndef SIGNET_PROJECTION_H
#define SIGNET_PROJECTION_H

#include "server/authority/authority.h"

struct projection; /* opaque */

/* Opens the journal and checks its last line against the store: a journal that was cut or edited
 * refuses, and is not made anew. Then completes the journal, and the files as far as one batch. */
int projection_open(struct projection **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));

/* Something was committed, or the configuration is another: it is looked at a quarter of a second
 * later, and a child of this process writes and syncs, so that requests wait for no file. */
void projection_wanted(struct projection *p);
/* Write and sync now, for the end. */
int projection_flush(struct projection *p, struct err *err) __attribute__((warn_unused_result));
/* NULL while all is well. */
const char *projection_problem(const struct projection *p);
void projection_close(struct projection *p);

#endif
