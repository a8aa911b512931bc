/* POST /v1: who may come in at all, the request's JSON, and what each operation asks of the
 * authority. */
#ifndef SIGNET_FRONT_V1_H
#define SIGNET_FRONT_V1_H

#include "server/front/routes.h"

/* 0: answered, now or when the authority has; -1 with err: refused. */
int v1_serve(struct service *s, struct exchange *x, struct err *err)
    __attribute__((warn_unused_result));

#endif
