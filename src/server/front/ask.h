/* A question to the authority on an exchange's behalf: what it answers is what the client gets. */
#ifndef SIGNET_FRONT_ASK_H
#define SIGNET_FRONT_ASK_H

#include "server/front/routes.h"

/* Fills M_CALLER of a message. */
#define SET_CALLER(m, c)                                                                           \
    do {                                                                                           \
        const struct caller *caller_ = (c);                                                        \
        (m)->caller_address = caller_->address;                                                    \
        if (caller_->kind != CALLER_CERTIFICATE)                                                   \
            break;                                                                                 \
        (m)->caller_issuer = (struct bytes){caller_->issuer, sizeof caller_->issuer};              \
        (m)->caller_serial = (struct bytes){caller_->serial, caller_->serial_len};                 \
        (m)->caller_digest = (struct bytes){caller_->digest, sizeof caller_->digest};              \
    } while (0)

/* Answers x when the authority has, or at once when it cannot be asked. body: of the type, borrowed
 * for the call. probe: GET /readyz, for which the answer's status alone counts. */
void ask(struct service *s, struct exchange *x, enum msg_type type, const void *body, int probe);
void ask_status(struct service *s, struct exchange *x, int probe);

/* Answers a probe: 200, or 503. */
void answer_probe_with(struct exchange *x, int ready);

#endif
