/* Revocation: durable, then acknowledged, then on the next CRL, which is asked for at once.
 * One certificate or many: one decision, one transaction, one new CRL. */
#ifndef SIGNET_REVOKE_H
#define SIGNET_REVOKE_H

#include "server/authority/authority.h"
#include "server/authority/caller.h"

enum revoke_selector {
    REVOKE_SERIALS,   /* these; an unknown one refuses all */
    REVOKE_NAME,      /* the live ones of a MAC */
    REVOKE_ISSUED_BY, /* what an operator had issued within [from, to] and is still live */
    REVOKE_OPERATOR   /* signetctl: an operator, with its own certificates */
};

struct revoke_serial {
    uint8_t bytes[20];
    size_t len;
};

/* What is asked for; copied, but serials is taken over (free()). */
struct revoke_request {
    enum revoke_selector selector;
    struct caller caller;          /* not for REVOKE_OPERATOR */
    int is_signed;                 /* more than one certificate needs it */
    char request_id[65], name[65]; /* name: MAC, or the operator's */
    uint8_t body_digest[32];
    struct revoke_serial *serials;
    size_t serial_count;
    int64_t from, to;
    int reason; /* enum crl_reason; REASON_HOLD puts on hold, REASON_REMOVE_FROM_CRL lifts it */
};

/* Answers q with answer_revoked (answer_end for REVOKE_OPERATOR) or answer_error. Again with the
 * same reason: the same answer; with another: already_revoked. */
void revoke_certificates(struct authority *a, const struct revoke_request *req, struct question *q);

#endif
