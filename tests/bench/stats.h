/* Times that were taken, and what they come to. */
#ifndef SIGNET_BENCH_STATS_H
#define SIGNET_BENCH_STATS_H

#include <stddef.h>

struct stats {
    double *seconds;
    size_t count, room;
};

void stats_init(struct stats *s, size_t room);
void stats_add(struct stats *s, double seconds); /* those beyond the room are dropped */
/* "p50_us":…,"p99_us":…,"max_us":…; sorts. */
void stats_print(struct stats *s);
void stats_free(struct stats *s);

double cpu_seconds(void); /* of this process, user and system */

#endif
