/* /.well-known/est/, over TLS alone: enrolment over secure transport (RFC 7030, RFC 8951). Another
 * door to what POST /v1 has as req_client_cert and renew_client_cert. */
#ifndef SIGNET_FRONT_EST_H
#define SIGNET_FRONT_EST_H

#include "server/front/routes.h"

#define EST_PATH "/.well-known/est/"

/* What is given without asking the authority: the CAs' certificates, and of each profile that can
 * be enrolled by what its CSRs are to hold. */
struct est *est_new(void) __attribute__((warn_unused_result)); /* NULL: no memory */
void est_free(struct est *e);                                  /* NULL is fine */

/* Each replaces what was there. -1: no memory, or not certificates. */
int est_set_chain(struct est *e, struct bytes pem) __attribute__((warn_unused_result));
int est_set_label(struct est *e, const struct msg_est_label *m) __attribute__((warn_unused_result));

/* 0: answered, now or when the authority has; -1 with err: refused. */
int est_serve(struct service *s, struct exchange *x, struct err *err)
    __attribute__((warn_unused_result));

#endif
