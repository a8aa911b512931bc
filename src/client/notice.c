#include "client/notice.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int off;

int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void notice_begin(struct notice *n)
{
    *n = (struct notice){.since = now_ms()};
}

void notice_tick(struct notice *n, const char *fmt, ...)
{
    int64_t seconds = (now_ms() - n->since) / 1000;
    if (off || seconds == n->shown || !isatty(STDERR_FILENO))
        return;
    n->shown = seconds;
    va_list ap;
    va_start(ap, fmt);
    fputs("\rsignet: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, " … %lld s\033[K", (long long)seconds);
    fflush(stderr);
}

void notice_end(struct notice *n)
{
    if (n->shown)
        fputs("\r\033[K", stderr);
    n->shown = 0;
}

void notice_off(void)
{
    off = 1;
}
