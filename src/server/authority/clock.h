/* The clock rule (design, section 5.9): dates in certificates and CRLs are promises, so a clock
 * that is more than five minutes behind the last event, or that jumped by more than an hour against
 * the kernel's own count (CLOCK_BOOTTIME), signs nothing until `signetctl clock accept`. What is
 * compared, and that the clock was found wrong, is in the store: a restart changes nothing. */
#ifndef SIGNET_CLOCK_H
#define SIGNET_CLOCK_H

#include "server/authority/authority.h"

struct clock_watch; /* opaque */

int clock_open(struct clock_watch **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));
void clock_close(struct clock_watch *c);

/* Whether dates may be signed now; else clock_suspect, with what was seen. */
int clock_usable(struct clock_watch *c, struct err *err) __attribute__((warn_unused_result));
/* NULL while it is trusted. */
const char *clock_problem(struct clock_watch *c);

/* The time for events and dates: now, but never before the last event, and frozen while the clock
 * is suspect, so that a wrong clock leaves no wrong time behind. */
int64_t clock_now(struct clock_watch *c);

/* The operator looked at it: what it shows now is right. An event is written; answers q. */
void clock_accept(struct clock_watch *c, struct question *q);

#endif
