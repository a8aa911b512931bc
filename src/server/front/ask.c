#include "server/front/ask.h"

#include <stdlib.h>
#include "common/log.h"
#include "server/front/answer.h"

struct pending {
    struct service *service;
    struct exchange *exchange;
    struct question *question;
    answer_fn answer;         /* NULL: JSON */
    struct answer_list *list; /* of list_certs, as it comes */
};

static void forget(void *arg)
{
    struct pending *p = arg;
    question_forget(p->question);
    answer_list_free(p->list);
    free(p);
}

void answer_refusal(struct exchange *x, const struct msg_answer_error *m)
{
    struct err err;
    int known = m->code > ERR_none && m->code < ERR_COUNT;
    err_set(&err, known ? (enum err_code)m->code : ERR_internal, m->detail[0] ? "%s" : NULL,
            m->detail);
    exchange_refuse(x, &err, m->retry_after);
}

static void answer_with_list(struct pending *p, const struct msg_answer_page *m)
{
    struct answer_list *list = p->list ? p->list : answer_list_new();
    p->list = NULL;
    exchange_json(p->exchange, HTTP_OK, list ? answer_list_finish(list, m) : NULL);
}

static void add_to_list(struct pending *p, const struct msg_answer_row *m)
{
    if (!p->list)
        p->list = answer_list_new();
    if (!p->list || answer_list_add(p->list, m))
        fatal("no memory for a list"); /* a front is started again; its clients retry */
}

static void answer_with(struct pending *p, enum msg_type type, const union answer *answer)
{
    struct exchange *x = p->exchange;
    switch (type) {
    case MSG_answer_certificate:
        exchange_json(
            x, HTTP_OK,
            answer_issued(exchange_operation(x), &answer->certificate, p->service->chain_base64));
        return;
    case MSG_answer_revoked:
        exchange_json(x, HTTP_OK, answer_revoked(&answer->revoked));
        return;
    case MSG_answer_reported:
        exchange_json(x, HTTP_OK, answer_reported(&answer->reported));
        return;
    case MSG_answer_status:
        exchange_json(x, HTTP_OK, answer_status(&answer->status));
        return;
    case MSG_answer_row:
        exchange_json(x, HTTP_OK, answer_found(&answer->row));
        return;
    case MSG_answer_page:
        answer_with_list(p, &answer->page);
        return;
    default:
        answer_refusal(x, &answer->error);
    }
}

static void on_answered(enum msg_type type, const union answer *answer, void *arg)
{
    struct pending *p = arg;
    if (type == MSG_answer_row && exchange_operation(p->exchange) == OP_LIST_CERTS) {
        add_to_list(p, &answer->row);
        return;
    }
    if (p->answer)
        p->answer(p->service, p->exchange, type, answer);
    else
        answer_with(p, type, answer);
    answer_list_free(p->list);
    free(p);
}

void ask(struct service *s, struct exchange *x, enum msg_type type, const void *body,
         answer_fn answer)
{
    struct err err = {0};
    struct pending *p = calloc(1, sizeof *p);
    /* whose password it is only the authority knows */
    int anonymous = exchange_caller(x)->kind != CALLER_CERTIFICATE || type == MSG_enrol;
    if (!p) {
        err_set(&err, ERR_busy, NULL);
        exchange_refuse(x, &err, 0);
        return;
    }
    *p = (struct pending){s, x, NULL, answer, NULL};
    if (authority_ask(s->authority, type, body, anonymous, on_answered, p, &p->question, &err)) {
        free(p);
        exchange_refuse(x, &err, 0);
        return;
    }
    exchange_wait(x, forget, p);
}

void ask_status(struct service *s, struct exchange *x, answer_fn answer)
{
    struct msg_status m = {0};
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_status, &m, answer);
}
