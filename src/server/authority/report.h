/* Reports of what became of a board: its certificate was flashed to it, then read back from it.
 *
 * Whose word counts: the operator's who had that very certificate issued, as only they have had its
 * key. Anyone else's could but mislead: a false "verified" takes from its owner the right to
 * replace it, and from the list a board that was never flashed. (What signetctl import took up is
 * nobody's.)
 *
 * A report speaks of one certificate, so one that a device renewed begins anew; until that board is
 * revoked, the older one stands beside it and counts for `replace` as well. The state only rises:
 * else a report of less would be the way round the revoker. "verified" says "flashed" too. */
#ifndef SIGNET_REPORT_H
#define SIGNET_REPORT_H

#include "server/authority/authority.h"

/* Durable, then answered: q gets answer_reported with the state that stands now, which may be a
 * higher one than reported; the same again changes nothing. Or answer_error: serial_unknown,
 * role_refused, name_not_allowed (no device's), result_dead (it is not in force). */
void report_device(struct authority *a, const struct msg_report *m, struct question *q);

#endif
