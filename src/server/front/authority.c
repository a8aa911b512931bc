#include "server/front/authority.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>
#include "common/channel.h"
#include "common/log.h"
#include "common/shared_count.h"

struct question {
    LIST_ENTRY(question) next;
    struct authority *authority;
    uint64_t id;
    enum msg_type type;
    int anonymous;
    struct event *deadline;
    void (*answered)(enum msg_type type, const union answer *answer,
                     void *arg); /* NULL: forgotten */
    void *arg;
};

struct authority {
    struct event_base *base;
    struct channel *channel;
    struct authority_handlers handlers;
    void *arg;
    uint32_t credits, used, used_anonymous, used_signing;
    uint64_t last_id;
    struct shared_count *told; /* of ocsp_forget; NULL: not known yet */
    uint64_t heard;
    LIST_HEAD(, question) questions;
};

/* ---- questions ---- */

static unsigned waits_for_token(enum msg_type type)
{
    return type == MSG_issue || type == MSG_renew || type == MSG_enrol || type == MSG_ocsp;
}

static void question_free(struct question *q)
{
    struct authority *a = q->authority;
    LIST_REMOVE(q, next);
    a->used--;
    a->used_anonymous -= q->anonymous != 0;
    a->used_signing -= waits_for_token(q->type);
    event_free(q->deadline);
    free(q);
}

/* Whoever waits is told; the question stays until it is answered: it still costs a credit. */
static void tell(struct question *q, enum msg_type type, const union answer *answer)
{
    void (*answered)(enum msg_type, const union answer *, void *) = q->answered;
    q->answered = NULL;
    if (answered)
        answered(type, answer, q->arg);
}

static void on_deadline(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    const union answer late = {.error = {ERR_busy, 0, ""}};
    struct question *q = arg;
    log_warn("no answer to %s within %d s", msg_name(q->type), QUESTION_DEADLINE);
    tell(q, MSG_answer_error, &late);
}

static struct question *question_new(struct authority *a, enum msg_type type, int anonymous)
{
    const struct timeval deadline = {QUESTION_DEADLINE, 0};
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->authority = a;
    q->type = type;
    q->anonymous = anonymous != 0;
    q->id = ++a->last_id;
    q->deadline = evtimer_new(a->base, on_deadline, q);
    if (!q->deadline || evtimer_add(q->deadline, &deadline)) {
        if (q->deadline)
            event_free(q->deadline);
        free(q);
        return NULL;
    }
    LIST_INSERT_HEAD(&a->questions, q, next);
    a->used++;
    a->used_anonymous += q->anonymous != 0;
    a->used_signing += waits_for_token(type);
    return q;
}

int authority_ask(struct authority *a, enum msg_type type, const void *body, int anonymous,
                  void (*answered)(enum msg_type type, const union answer *answer, void *arg),
                  void *arg, struct question **out, struct err *err)
{
    if (a->used >= a->credits || (anonymous && a->used_anonymous >= (a->credits + 1) / 2) ||
        (waits_for_token(type) && a->used_signing >= (a->credits * 3 + 3) / 4))
        return err_set(err, ERR_busy, NULL);
    struct question *q = question_new(a, type, anonymous);
    if (!q)
        return err_set(err, ERR_busy, NULL);
    if (channel_send(a->channel, type, q->id, body, -1)) {
        question_free(q);
        return err_set(err, ERR_busy, NULL);
    }
    q->answered = answered;
    q->arg = arg;
    *out = q;
    return 0;
}

int authority_catch_up(struct authority *a)
{
    return channel_catch_up(a->channel);
}

int authority_is_behind(const struct authority *a)
{
    return !a->told || a->heard != shared_count_get(a->told);
}

void question_forget(struct question *q)
{
    q->answered = NULL;
}

/* ---- what comes in ---- */

static struct question *find(const struct authority *a, uint64_t id)
{
    struct question *q;
    LIST_FOREACH (q, &a->questions, next)
        if (q->id == id)
            return q;
    return NULL;
}

/* Which answer, besides an error, ends a question. */
static enum msg_type answer_to(enum msg_type question, enum msg_type answer)
{
    switch (question) {
    case MSG_issue:
    case MSG_renew:
    case MSG_enrol:
        return MSG_answer_certificate;
    case MSG_revoke:
        return MSG_answer_revoked;
    case MSG_report:
        return MSG_answer_reported;
    case MSG_get:
        return MSG_answer_row;
    case MSG_list:
        return MSG_answer_page;
    case MSG_ocsp:
        return MSG_answer_ocsp;
    case MSG_signed_request: /* what it asks for the authority has read */
        return answer == MSG_answer_revoked ? MSG_answer_revoked : MSG_answer_certificate;
    default:
        return MSG_answer_status;
    }
}

static int on_answer(struct authority *a, const struct msg *m)
{
    union answer answer;
    struct question *q = find(a, m->id);
    if (m->type < MSG_answer_error || m->type > MSG_answer_ocsp ||
        msg_decode(&answer, m->type, m->fields))
        return -1;
    if (q && q->type == MSG_list && m->type == MSG_answer_row) {
        if (q->answered)
            q->answered(m->type, &answer, q->arg);
        return 0;
    }
    if (!q || (m->type != MSG_answer_error && m->type != answer_to(q->type, m->type)))
        return -1;
    tell(q, m->type, &answer);
    question_free(q);
    return 0;
}

static int on_listener(struct authority *a, const struct msg *m)
{
    struct msg_listener body;
    if (msg_decode(&body, m->type, m->fields) || body.credits == 0)
        return -1;
    a->credits = body.credits;
    return a->handlers.on_listener(&body, a->arg);
}

static int on_chain(struct authority *a, const struct msg *m)
{
    struct msg_chain body;
    return msg_decode(&body, m->type, m->fields) ? -1 : a->handlers.on_chain(&body, a->arg);
}

static int on_est_label(struct authority *a, const struct msg *m)
{
    struct msg_est_label body;
    return msg_decode(&body, m->type, m->fields) ? -1 : a->handlers.on_est_label(&body, a->arg);
}

static int on_document(struct authority *a, const struct msg *m)
{
    struct msg_document body;
    if (msg_decode(&body, m->type, m->fields)) {
        if (m->fd >= 0)
            close(m->fd);
        return -1;
    }
    return a->handlers.on_document(&body, m->fd, a->arg);
}

static int on_ocsp_forget(struct authority *a, const struct msg *m)
{
    struct msg_ocsp_forget body;
    a->heard++;
    return msg_decode(&body, m->type, m->fields) ? -1 : a->handlers.on_ocsp_forget(&body, a->arg);
}

static int on_ocsp_told(struct authority *a, const struct msg *m)
{
    struct msg_ocsp_told body;
    if (m->fd < 0)
        return -1;
    if (a->told || msg_decode(&body, m->type, m->fields)) {
        close(m->fd);
        return -1;
    }
    a->told = shared_count_open(m->fd);
    a->heard = body.count;
    return a->told ? 0 : -1;
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct authority *a = arg;
    if (m->type == MSG_document)
        return on_document(a, m);
    if (m->type == MSG_ocsp_told)
        return on_ocsp_told(a, m);
    if (m->fd >= 0) {
        close(m->fd);
        return -1;
    }
    if (m->type == MSG_listener)
        return on_listener(a, m);
    if (m->type == MSG_chain)
        return on_chain(a, m);
    if (m->type == MSG_est_label)
        return on_est_label(a, m);
    if (m->type == MSG_ocsp_forget)
        return on_ocsp_forget(a, m);
    return on_answer(a, m);
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    (void)c;
    struct authority *a = arg;
    a->handlers.on_end(why, a->arg);
}

struct authority *authority_new(struct event_base *base, int socket,
                                const struct authority_handlers *handlers, void *arg)
{
    static const struct channel_handlers channel_handlers = {on_message, on_end};
    struct authority *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->base = base;
    a->handlers = *handlers;
    a->arg = arg;
    LIST_INIT(&a->questions);
    a->channel = channel_new(base, socket, PROC_FRONT, PROC_AUTHORITY, &channel_handlers, a);
    if (!a->channel) {
        free(a);
        return NULL;
    }
    return a;
}

void authority_free(struct authority *a)
{
    struct question *q;
    if (!a)
        return;
    while ((q = LIST_FIRST(&a->questions)))
        question_free(q);
    shared_count_free(a->told);
    channel_free(a->channel);
    free(a);
}
