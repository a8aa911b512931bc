/* Revocation: durable, then acknowledged, then on the next CRL, which is asked for at once. */
#ifndef SIGNET_REVOKE_H
#define SIGNET_REVOKE_H

#include "server/authority/authority.h"

/* revoke_cert from a front; answers q with answer_revoked or answer_error. Again with the same
 * reason: the same answer; with another: already_revoked. */
void revoke_certificate(struct authority *a, const struct msg_revoke *m, struct question *q);

/* signetctl operator revoke: the operator and all its live certificates, in one transaction. */
void revoke_operator(struct authority *a, const char *name, int reason, struct question *q);

#endif
