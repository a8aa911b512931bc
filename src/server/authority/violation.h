/* A peer that broke the protocol, or answered with a wrong signature: in the journal stands who it
 * was and what it did. At most one event a minute, so that no peer can fill the disk; the next one
 * says how many there were in between (each is in the log). */
#ifndef SIGNET_VIOLATION_H
#define SIGNET_VIOLATION_H

#include "server/authority/authority.h"

/* why: a few plain words; copied. */
void violation_journal(struct authority *a, enum role_name role, unsigned number, const char *why);

#endif
