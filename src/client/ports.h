/* Serial ports as boards are plugged in and taken off, by looking again and again: what /dev holds
 * is the same over ssh, in a container and without udev.
 *
 * A port is known by its path, the one in /dev/serial/by-id before the one of the device itself.
 * One that was there at the start is not touched until it has been away. One that goes away for
 * less than PORTS_GONE_MS was not taken off: a board with USB of its own does that at each reset.
 */
#ifndef SIGNET_CLIENT_PORTS_H
#define SIGNET_CLIENT_PORTS_H

#include <stddef.h>
#include "client/failure.h"

#define PORTS_GONE_MS 1500

struct ports; /* opaque */

/* pattern: as a shell's, or a folder; NULL: all USB serial ports. What is there now is old. */
int ports_open(struct ports **out, const char *pattern, struct failure *f)
    __attribute__((warn_unused_result));
void ports_close(struct ports *p); /* NULL is fine */

/* Looks anew. The paths below stay until the next look. */
int ports_look(struct ports *p, struct failure *f) __attribute__((warn_unused_result));

/* The new port that has been there longest, once its name, its mode and the plug's contacts have
 * settled; from then on it is in use. NULL: none. */
const char *ports_take(struct ports *p);
/* The work at the port in use is over: it counts again when it has been away. */
void ports_leave(struct ports *p);
/* Has the board at the port that was in use been taken off? */
int ports_is_free(const struct ports *p);

/* How many new ones wait. */
size_t ports_waiting(const struct ports *p);
/* The index-th that was there at the start and still is; NULL: no more. */
const char *ports_old(const struct ports *p, size_t index);

#endif
