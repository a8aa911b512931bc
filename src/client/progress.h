/* How far a long piece of work has come, on stderr: a bar that is drawn anew, with rate and time
 * left, on a terminal; elsewhere a line now and then. NO_COLOR is honoured. */
#ifndef SIGNET_CLIENT_PROGRESS_H
#define SIGNET_CLIENT_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

struct progress {
    size_t total, done, failed; /* done: with those that failed */
    size_t before;              /* done before this run */
    int64_t since, shown;       /* ms */
    size_t told;                /* plain lines: done at the last of them */
    int bar, colour, drawn;
};

void progress_begin(struct progress *p, size_t total, size_t before);
/* One more. */
void progress_step(struct progress *p, int failed);
/* Called often: shows what is new. */
void progress_show(struct progress *p);
/* Takes the bar away, before other lines and at the end. */
void progress_clear(struct progress *p);

#endif
