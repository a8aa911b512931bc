/* Times as people type them and as the wire has them: RFC 3339, UTC, whole seconds. */
#ifndef SIGNET_CLIENT_WHEN_H
#define SIGNET_CLIENT_WHEN_H

#include <stdint.h>
#include "client/failure.h"

#define WHEN_SIZE 32

/* "2026-11-23T12:00:00Z", or a date: its first second, or its last one (end). option is for the
 * error (EXIT_USAGE). */
int when_from_text(char out[WHEN_SIZE], const char *option, const char *text, int end,
                   struct failure *f) __attribute__((warn_unused_result));

void when_now(char out[WHEN_SIZE]);

/* Seconds since the epoch of "2026-11-23T12:00:00Z"; -1: it is not that. */
int64_t when_seconds(const char *text);

#endif
