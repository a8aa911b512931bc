/* OCSP answers (RFC 6960): what the store says of a certificate, signed by the responder's key.
 *
 * Without a nonce, on one certificate of this CA, an answer is good for everybody: fronts keep it
 * until its state changes, and who asks meanwhile waits for the same signature. Any other is of use
 * to its asker alone, so it comes out of a budget; beyond it: busy, and the front gives what it has
 * kept or asks again without the nonce. When the signature is there the state is looked at again:
 * an answer never says what was true before the token began. */
#ifndef SIGNET_AUTHORITY_OCSP_H
#define SIGNET_AUTHORITY_OCSP_H

#include "server/authority/authority.h"

struct responding; /* opaque */

struct responding *responding_new(struct authority *a);
void responding_free(struct responding *r);

/* 0: answered, now or later; -1: malformed in a way that no honest front sends. */
int ocsp_question(struct authority *a, const struct msg_ocsp *m, struct peer *peer, uint64_t id)
    __attribute__((warn_unused_result));

#endif
