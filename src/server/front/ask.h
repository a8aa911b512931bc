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

/* Makes the answer to x of what the authority said; it is of the question's kind, or an error. */
typedef void (*answer_fn)(struct service *s, struct exchange *x, enum msg_type type,
                          const union answer *answer);

/* Answers x when the authority has, or at once when it cannot be asked. body: of the type, borrowed
 * for the call. answer NULL: the JSON of POST /v1. */
void ask(struct service *s, struct exchange *x, enum msg_type type, const void *body,
         answer_fn answer);
void ask_status(struct service *s, struct exchange *x, answer_fn answer);

/* The refusal that an answer_error is. */
void answer_refusal(struct exchange *x, const struct msg_answer_error *m);

#endif
