/* Processes that make keys, beside the one that talks to the server: as many as keys are to be made
 * at once. Each is a fork of this process, from before it connected; it gets numbers of boards and
 * tells when the key of one is on the disk. It ends when this process ends, however that comes.
 *
 * A maker that ends by itself is replaced, and what it was at is done again. */
#ifndef SIGNET_CLIENT_MAKERS_H
#define SIGNET_CLIENT_MAKERS_H

#include <stddef.h>
#include <stdint.h>
#include "client/failure.h"

#define MAKERS_MAX 256

struct made {
    uint32_t index;
    int rc;                 /* 0, or -1: failure says why */
    int resumed;            /* the key was there already */
    struct failure failure; /* complete only when rc is -1 */
};

/* Runs in a maker; fills in rc, resumed and failure. */
typedef void make_fn(void *arg, struct made *m);

struct makers; /* opaque */

int makers_open(struct makers **out, unsigned count, make_fn *make, void *arg, struct failure *f)
    __attribute__((warn_unused_result));
/* Stops them; what they were at is left as after a kill -9. NULL is fine. */
void makers_close(struct makers *m);

/* 1: the board is given to one of them; 0: all have enough to do. */
int makers_give(struct makers *m, uint32_t index);

/* The next board that is done. 1: *out is filled in; 0: none yet (after ms, or a signal); -1. */
int makers_wait(struct makers *m, int ms, struct made *out, struct failure *f)
    __attribute__((warn_unused_result));

/* How many processors this process may use: a good count. */
unsigned makers_default(void);

#endif
