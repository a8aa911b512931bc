/* The results of a batch: CSV, a line a board, on the disk before the next board's; also what is
 * known from earlier runs of the same batch.
 *
 * A file from before is gone on with: the boards that are done stay, those that
 * failed are taken out, since they are tried again, and so is a line that was cut off. One process
 * at a time. */
#ifndef SIGNET_CLIENT_RESULTS_H
#define SIGNET_CLIENT_RESULTS_H

#include "client/device_list.h"
#include "client/provision.h"

struct results; /* opaque */

/* How it went with one board. */
struct result {
    const char *mac;                  /* "": not known */
    const struct provisioned *device; /* its certificate; NULL: none */
    const char *board;                /* issued, flashed, verified; "": nothing is known of it */
    const struct failure *why;        /* NULL: it is done */
};

/* The list is borrowed; it learns the MACs of boards that were done at a port. profile: of the
 * boards whose line says none. flash: boards at a port are done when they are verified. */
int results_open(struct results **out, const char *path, struct device_list *list,
                 const char *profile, int flash, struct failure *f)
    __attribute__((warn_unused_result));
void results_close(struct results *r); /* NULL is fine */

/* Does it say that this board is done? */
int results_is_done(const struct results *r, size_t index);

/* One board's line, on the disk on return. */
int results_add(struct results *r, size_t index, const struct result *result, struct failure *f)
    __attribute__((warn_unused_result));

#endif
