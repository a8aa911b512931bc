/* The authority, as a front sees it: it sends what is to be served, and answers questions, each
 * once. At most so many questions are with it as it gave credits (it ends a front that asks more);
 * each has a deadline, after which nobody waits for its answer. */
#ifndef SIGNET_FRONT_AUTHORITY_H
#define SIGNET_FRONT_AUTHORITY_H

#include <event2/event.h>
#include "common/err.h"
#include "common/msg.h"

#define QUESTION_DEADLINE 30 /* seconds */

struct authority; /* opaque */
struct question;  /* opaque: asked and not yet answered; gone with its answer */

union answer {
    struct msg_answer_error error;
    struct msg_answer_certificate certificate;
    struct msg_answer_revoked revoked;
    struct msg_answer_status status;
    struct msg_answer_row row;
    struct msg_answer_page page;
    struct msg_answer_reported reported;
    struct msg_answer_ocsp ocsp;
};

struct authority_handlers {
    /* Each returns 0, or -1 when it cannot be used: the authority is then ended. */
    int (*on_listener)(const struct msg_listener *m, void *arg);
    int (*on_chain)(const struct msg_chain *m, void *arg);
    int (*on_est_label)(const struct msg_est_label *m, void *arg);
    int (*on_document)(const struct msg_document *m, int fd, void *arg); /* takes fd */
    int (*on_ocsp_forget)(const struct msg_ocsp_forget *m, void *arg);
    void (*on_end)(const char *why, void *arg);
};

struct authority *authority_new(struct event_base *base, int socket,
                                const struct authority_handlers *handlers, void *arg)
    __attribute__((warn_unused_result));
void authority_free(struct authority *a); /* NULL is fine; no question is answered */

/* Asks. answered() is called once, from the loop: with the answer that belongs to the question, or
 * with answer_error; at the deadline with busy. A list's is called for each answer_row before that.
 * It is not called after question_forget().
 * anonymous: from nobody known; such questions get at most half of the credits, and those that wait
 * for the token three quarters, so that lookups go on when it hangs.
 * -1: error busy. */
int authority_ask(struct authority *a, enum msg_type type, const void *body, int anonymous,
                  void (*answered)(enum msg_type type, const union answer *answer, void *arg),
                  void *arg, struct question **out, struct err *err)
    __attribute__((warn_unused_result));

/* Takes what the authority has sent so far: afterwards, unless authority_is_behind(), everything is
 * known that was acknowledged to anyone before this call. answered() and the handlers are called
 * meanwhile. -1: it cannot be. */
int authority_catch_up(struct authority *a) __attribute__((warn_unused_result));

/* An ocsp_forget is still on its way: the socket was full, and it waits at the authority. */
int authority_is_behind(const struct authority *a);

/* Nobody waits any more. Not after answered() was called. */
void question_forget(struct question *q);

#endif
