#include "server/authority/report.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/mac.h"
#include "pki/profile.h"
#include "server/authority/caller.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"

struct report {
    struct authority *a;
    struct question *q;
    struct caller caller;
    uint8_t serial[20];
    size_t serial_len;
    enum board_state reported;

    /* set by the decision */
    struct err err;
    enum board_state stands;
};

static struct bytes serial_of(const struct report *r)
{
    return (struct bytes){r->serial, r->serial_len};
}

static int store_failed(struct report *r)
{
    return err_set(&r->err, ERR_storage_unavailable, NULL);
}

/* An open intent was handed to nobody. */
static int find(struct store_tx *tx, struct report *r, struct certificate_row *row)
{
    int rc = tx_certificate_by_serial(tx, r->a->issuer_id, serial_of(r), row);
    if (rc || row->state == STATE_INTENT)
        return rc < 0 ? store_failed(r) : err_set(&r->err, ERR_serial_unknown, NULL);
    return 0;
}

static int check(struct report *r, const struct certificate_row *row, const struct operator_row *op,
                 int64_t now)
{
    if (row->operator_id != op->id)
        return err_set(&r->err, ERR_role_refused,
                       "this certificate of %s was not issued for operator %s, so it is not for "
                       "them to report",
                       row->name, op->name);
    if (mac_check(row->name, NULL))
        return err_set(&r->err, ERR_name_not_allowed,
                       "this certificate is %s's, which is no board; only boards are reported",
                       row->name);
    if (row->state != STATE_ISSUED || now >= row->not_after)
        return err_set(&r->err, ERR_result_dead,
                       "this certificate of %s is not in force any more: %s; a board with it is of "
                       "no use",
                       row->name,
                       row->state == STATE_ISSUED ? "expired" : certificate_state_name(row->state));
    return 0;
}

static int record(struct store_tx *tx, struct report *r, const struct certificate_row *row,
                  const struct operator_row *op, int64_t now)
{
    char serial[41];
    hex_encode(serial, serial_of(r));
    return tx_set_board(tx, row->id, r->reported) ||
                   tx_event(tx, now, 0, "%s serial=%s name=%s operator=%s",
                            board_state_name(r->reported), serial, row->name, op->name)
               ? store_failed(r)
               : 0;
}

static int decide(struct store_tx *tx, void *arg)
{
    struct report *r = arg;
    struct certificate_row row;
    struct operator_row op;
    int64_t now = clock_now(r->a->clock);
    r->err = (struct err){0};
    if (caller_with_role(tx, &r->caller, now, ROLE_PROVISIONER, &op, &r->err) ||
        find(tx, r, &row) || check(r, &row, &op, now))
        return -1;
    r->stands = row.board > r->reported ? row.board : r->reported;
    return r->stands == row.board ? 0 : record(tx, r, &row, &op, now);
}

static void after(int durable, void *arg)
{
    struct report *r = arg;
    if (durable) {
        struct msg_answer_reported m = {.serial = serial_of(r),
                                        .board = board_state_name(r->stands)};
        projection_wanted(r->a->projection);
        question_answer(r->q, MSG_answer_reported, &m);
    } else {
        if (r->err.code == ERR_none)
            err_set(&r->err, ERR_storage_unavailable, NULL);
        question_refuse(r->q, &r->err);
    }
    free(r);
}

void report_device(struct authority *a, const struct msg_report *m, struct question *q)
{
    struct report *r = calloc(1, sizeof *r);
    if (!r)
        fatal("no memory for a report");
    r->a = a;
    r->q = q;
    r->reported = (enum board_state)m->board;
    r->serial_len = m->serial.len;
    memcpy(r->serial, m->serial.data, m->serial.len);
    caller_copy(&r->caller, m->caller_issuer, m->caller_serial, m->caller_digest,
                m->caller_address);
    if (store_submit(a->store, decide, after, r))
        fatal("no memory for a report");
}
