/* A word in letters that are read across a room, in colour, on any terminal that knows plain ANSI:
 * no cursor is moved. */
#ifndef SIGNET_CLIENT_VERDICT_H
#define SIGNET_CLIENT_VERDICT_H

#include <stdio.h>

#include "client/station_log.h"

/* How a stream is to be written to: NO_COLOR and TERM=dumb are honoured. */
struct look {
    FILE *to;
    int large;  /* a terminal that takes more than plain lines */
    int colour; /* only when large */
};

void look_at(struct look *l, FILE *to);
/* PASS, FAIL or SKIP, as large as the terminal is wide; nothing where there is none. */
void verdict_show(const struct look *l, enum outcome outcome);

#endif
