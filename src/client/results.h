/* The results of a batch: CSV, a line a board, on the disk before the next board's; also what is
 * known from earlier runs of the same batch.
 *
 * A file from before is gone on with: the boards that have their certificate stay, those that
 * failed are taken out, since they are tried again, and so is a line that was cut off. One process
 * at a time. */
#ifndef SIGNET_CLIENT_RESULTS_H
#define SIGNET_CLIENT_RESULTS_H

#include "client/device_list.h"
#include "client/provision.h"

struct results; /* opaque */

/* The list is borrowed. profile: of the boards whose line says none. */
int results_open(struct results **out, const char *path, const struct device_list *list,
                 const char *profile, struct failure *f) __attribute__((warn_unused_result));
void results_close(struct results *r); /* NULL is fine */

/* Does it say that this board has its certificate? */
int results_is_done(const struct results *r, size_t index);

/* One board's line, on the disk on return: its certificate, or why it has none (p NULL). */
int results_add(struct results *r, size_t index, const struct provisioned *p,
                const struct failure *why, struct failure *f) __attribute__((warn_unused_result));

#endif
