#include "stats.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void stats_init(struct stats *s, size_t room)
{
    *s = (struct stats){.seconds = calloc(room + 1, sizeof(double)), .room = room};
    if (!s->seconds)
        abort();
}

void stats_add(struct stats *s, double seconds)
{
    if (s->count < s->room)
        s->seconds[s->count++] = seconds;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest that so many percent do not exceed. */
static double percentile(const struct stats *s, size_t percent)
{
    return s->count ? s->seconds[(s->count * percent + 99) / 100 - 1] * 1e6 : 0;
}

void stats_print(struct stats *s)
{
    qsort(s->seconds, s->count, sizeof *s->seconds, compare);
    printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f", percentile(s, 50), percentile(s, 99),
           percentile(s, 100));
}

void stats_free(struct stats *s)
{
    free(s->seconds);
}

double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
