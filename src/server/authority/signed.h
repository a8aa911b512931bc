/* Requests of high consequence: server certificates, and revocations of several certificates. The
 * operator signs the body itself (CMS, detached, RFC 5652), and here, behind the border, signature
 * and body are looked at: a front in other hands cannot put words into an operator's mouth. */
#ifndef SIGNET_SIGNED_H
#define SIGNET_SIGNED_H

#include "server/authority/authority.h"

/* Verifies that the body is signed by the key of the caller's own certificate, reads it as the
 * wire's JSON, and does what it says; answers q. Errors: signature_required, signature_invalid,
 * request_id_required, and those of the operation. */
void signed_request(struct authority *a, const struct msg_signed_request *m, struct question *q);

#endif
