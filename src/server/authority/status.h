/* How things stand, for get_status and signetctl. */
#ifndef SIGNET_STATUS_H
#define SIGNET_STATUS_H

#include "server/authority/authority.h"

/* Fills *m with views that live until the next event. detailed 0: readiness alone. */
void status_fill(struct authority *a, struct msg_answer_status *m, int detailed);

/* get_status: detail for an operator, liveness for anyone else. */
void status_answer(struct authority *a, const struct msg_status *m, struct question *q);

#endif
