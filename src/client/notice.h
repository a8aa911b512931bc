/* One line on the terminal while something takes more than a second; nothing when stderr is no
 * terminal. It is taken away before anything else is written. */
#ifndef SIGNET_CLIENT_NOTICE_H
#define SIGNET_CLIENT_NOTICE_H

#include <stdint.h>

struct notice {
    int64_t since; /* ms */
    int64_t shown; /* the second that stands there; 0: nothing */
};

void notice_begin(struct notice *n);
/* Called often: "signet: WHAT … 3 s". */
void notice_tick(struct notice *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void notice_end(struct notice *n);
/* In this process, nothing from now on: another one has the terminal. */
void notice_off(void);

/* CLOCK_MONOTONIC in ms. */
int64_t now_ms(void);

#endif
