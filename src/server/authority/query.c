#include "server/authority/query.h"

#include "pki/mac.h"
#include "server/authority/caller.h"
#include "server/authority/clock.h"

struct lookup {
    struct authority *a;
    struct question *q;
    struct caller caller;
    const struct msg_get *get;
    const struct msg_list *list;
    struct store_tx *tx;
    struct err err;
    unsigned count;
    uint64_t last, next; /* ids */
};

static int store_failed(struct lookup *l)
{
    return err_set(&l->err, ERR_storage_unavailable, NULL);
}

/* Sends one row; with_der only for a single one. */
static int send_row(struct lookup *l, const struct certificate_row *c, const char *operator_name,
                    int with_der)
{
    int is_device = mac_check(c->name, NULL) == 0;
    struct msg_answer_row m = {
        .id = (uint64_t)c->id,
        .serial = {c->serial, c->serial_len},
        .state = certificate_state_name(c->state),
        .board = is_device ? board_state_name(c->board) : "",
        .profile = c->profile,
        .name = c->name,
        .operator_name = operator_name,
        .not_before = c->not_before,
        .not_after = c->not_after,
        .issued_at = c->issued_at,
        .revoked_at = c->revoked_at,
        .reason = (uint8_t)c->reason,
    };
    if (with_der)
        m.der = c->der;
    return l->q->peer->channel ? channel_send(l->q->peer->channel, MSG_answer_row, l->q->id, &m, -1)
                               : -1;
}

static int check_caller(struct store_tx *tx, struct lookup *l)
{
    struct operator_row op;
    return caller_operator(tx, &l->caller, clock_now(l->a->clock), &op, &l->err);
}

static int operator_name(struct store_tx *tx, int64_t id, struct operator_row *op)
{
    *op = (struct operator_row){0};
    return id ? tx_operator_by_id(tx, id, op) : 0;
}

/* ---- get ---- */

static int read_one(struct store_tx *tx, void *arg)
{
    struct lookup *l = arg;
    struct certificate_row row;
    struct operator_row op;
    if (check_caller(tx, l))
        return -1;
    int rc = tx_certificate_by_serial(tx, l->a->issuer_id, l->get->serial, &row);
    if (rc || row.state == STATE_INTENT)
        return rc < 0 ? store_failed(l) : err_set(&l->err, ERR_serial_unknown, NULL);
    int64_t id = row.id;
    if (operator_name(tx, row.operator_id, &op) || tx_certificate_by_id(tx, id, &row))
        return store_failed(l);
    /* its exact bytes are what makes a caller: those of operators and of the server stay here */
    return send_row(l, &row, op.name, row.operator_id != 0) ? store_failed(l) : 0;
}

void query_get(struct authority *a, const struct msg_get *m, struct question *q)
{
    struct lookup l = {.a = a, .q = q, .get = m};
    caller_copy(&l.caller, m->caller_issuer, m->caller_serial, m->caller_digest, m->caller_address);
    err_set(&l.err, ERR_storage_unavailable, NULL);
    if (store_read(a->store, read_one, &l))
        question_refuse(q, &l.err);
    else
        question_end(q);
}

/* ---- list ---- */

static int send_listed(const struct certificate_row *row, void *arg)
{
    struct lookup *l = arg;
    struct operator_row op;
    if (operator_name(l->tx, row->operator_id, &op))
        return store_failed(l);
    l->count++;
    l->last = (uint64_t)row->id;
    return send_row(l, row, op.name, 0);
}

/* No index knows the state of the board. What has to be looked at one by one is bounded, so that
 * nobody waits for it; a page may then be short, or empty, and yet not the last. */
static int bound(struct store_tx *tx, struct list_filter *f)
{
    int64_t newest = 0;
    if (!f->board || *f->name)
        return 0;
    if (tx_newest_certificate(tx, &newest))
        return -1;
    f->last = newest - f->after > LIST_SCAN_MAX ? f->after + LIST_SCAN_MAX : 0;
    return 0;
}

static int read_page(struct store_tx *tx, void *arg)
{
    struct lookup *l = arg;
    const struct msg_list *m = l->list;
    struct operator_row op = {0};
    l->tx = tx;
    if (check_caller(tx, l))
        return -1;
    if (m->operator_name[0]) {
        int rc = tx_operator_by_name(tx, m->operator_name, &op);
        if (rc)
            return rc < 0 ? store_failed(l)
                          : err_set(&l->err, ERR_operator_unknown, "there is no operator \"%s\"",
                                    m->operator_name);
    }
    struct list_filter f = {.name = m->name,
                            .operator_id = op.id,
                            .state = (int)m->state - 1,
                            .board = m->board,
                            .from = m->from,
                            .to = m->to,
                            .after = (int64_t)m->after,
                            .limit = m->limit};
    if (bound(tx, &f) || tx_list(tx, &f, send_listed, l))
        return store_failed(l);
    l->next = l->count == m->limit ? l->last : (uint64_t)f.last;
    return 0;
}

void query_list(struct authority *a, const struct msg_list *m, struct question *q)
{
    struct lookup l = {.a = a, .q = q, .list = m};
    caller_copy(&l.caller, m->caller_issuer, m->caller_serial, m->caller_digest, m->caller_address);
    err_set(&l.err, ERR_storage_unavailable, NULL);
    if (m->limit == 0 || m->limit > LIST_LIMIT_MAX || m->state > STATE_ORPHAN + 1 ||
        m->board > BOARD_VERIFIED + 1 || m->after > INT64_MAX) {
        err_set(&l.err, ERR_field_value, NULL);
        question_refuse(q, &l.err);
        return;
    }
    if (store_read(a->store, read_page, &l)) {
        question_refuse(q, &l.err);
        return;
    }
    struct msg_answer_page page = {.count = l.count, .next = l.next};
    question_answer(q, MSG_answer_page, &page);
}
