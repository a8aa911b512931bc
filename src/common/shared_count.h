/* A number that one process raises and others see at once, with no message on its way: in a page of
 * memory that they have read-only. */
#ifndef SIGNET_SHARED_COUNT_H
#define SIGNET_SHARED_COUNT_H

#include <stdint.h>

struct shared_count; /* opaque */

/* Begins at 0. NULL: no memory, or a kernel without F_SEAL_FUTURE_WRITE (before Linux 5.1). */
struct shared_count *shared_count_new(void) __attribute__((warn_unused_result));
/* Another process's, by the descriptor of it; takes fd. NULL: it is none. */
struct shared_count *shared_count_open(int fd) __attribute__((warn_unused_result));
void shared_count_free(struct shared_count *c); /* NULL is fine */

int shared_count_fd(const struct shared_count *c); /* of one's own, to be handed on */
void shared_count_raise(struct shared_count *c);   /* one's own */
uint64_t shared_count_get(const struct shared_count *c);

#endif
