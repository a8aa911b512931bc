/* Ctrl-C and SIGTERM: noted, and looked at where the client waits, so that it ends in an orderly
 * state. (A flag for the whole process: a signal handler has no argument.) */
#ifndef SIGNET_CLIENT_INTERRUPT_H
#define SIGNET_CLIENT_INTERRUPT_H

#include "client/failure.h"

void interrupt_catch(void);
int interrupted(void);                   /* the signal's number, or 0 */
int fail_interrupted(struct failure *f); /* returns -1 */
int interrupt_sleep(long ms);            /* 0, or -1: interrupted */

/* From now on the first signal is only answered with these words on stderr; the second interrupts.
 * NULL: as ever again. */
void interrupt_hold(const char *words);
int interrupt_asked(void); /* has there been that first one? */

#endif
