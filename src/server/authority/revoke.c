#include "server/authority/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/crl.h"
#include "server/authority/caller.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"

struct revocation {
    struct authority *a;
    struct question *q;
    struct caller caller;
    char request_id[65], name[65]; /* name: of the operator, for revoke_operator() */
    uint8_t body_digest[32], serial[20];
    size_t serial_len;
    int reason;

    /* set by the decision */
    struct err err;
    int64_t revoked_at;
    unsigned changed; /* certificates revoked by this request */
};

static struct revocation *revocation_new(struct authority *a, struct question *q, int reason)
{
    struct revocation *r = calloc(1, sizeof *r);
    if (!r)
        fatal("no memory for a revocation");
    r->a = a;
    r->q = q;
    r->reason = reason;
    return r;
}

static int store_failed(struct revocation *r)
{
    return err_set(&r->err, ERR_storage_unavailable, NULL);
}

static struct bytes serial_of(const struct revocation *r)
{
    return (struct bytes){r->serial, r->serial_len};
}

/* A request_id used before must have come with this very body. */
static int check_request_id(struct store_tx *tx, struct revocation *r, int64_t operator_id,
                            int64_t certificate, int64_t now)
{
    char text[128];
    uint8_t key[32], body[32];
    int64_t id;
    if (!r->request_id[0])
        return 0;
    int n = snprintf(text, sizeof text, "%lld|revoke_cert|id|%s|", (long long)operator_id,
                     r->request_id);
    sha256(key, (struct bytes){(const uint8_t *)text, (size_t)n});
    int rc = tx_request(tx, key, body, &id);
    if (rc < 0)
        return store_failed(r);
    if (rc == 0)
        return memcmp(body, r->body_digest, 32) == 0
                   ? 0
                   : err_set(&r->err, ERR_request_id_reused, NULL);
    return tx_add_request(tx, key, r->body_digest, certificate, now) ? store_failed(r) : 0;
}

static int set_revoked(struct store_tx *tx, struct revocation *r, const struct certificate_row *row,
                       const char *by, int64_t now)
{
    char serial[41];
    hex_encode(serial, (struct bytes){row->serial, row->serial_len});
    if (tx_set_revoked(tx, row->id, STATE_REVOKED, now, r->reason) ||
        tx_event(tx, now, 0, "revoked serial=%s name=%s reason=%s operator=%s", serial, row->name,
                 crl_reason_name(r->reason), by))
        return store_failed(r);
    r->changed++;
    return 0;
}

/* By what the certificate is now. */
static int revoke_row(struct store_tx *tx, struct revocation *r, const struct certificate_row *row,
                      const char *by, int64_t now)
{
    switch (row->state) {
    case STATE_INTENT:
        return err_set(&r->err, ERR_busy, "this certificate is being issued; try again");
    case STATE_REVOKED:
    case STATE_ORPHAN:
        r->revoked_at = row->revoked_at;
        return row->reason == r->reason
                   ? 0
                   : err_set(&r->err, ERR_already_revoked, "it was revoked already, as %s",
                             crl_reason_name(row->reason));
    case STATE_ISSUED:
    case STATE_HELD:
        r->revoked_at = now;
        return set_revoked(tx, r, row, by, now);
    }
    return err_set(&r->err, ERR_internal, NULL);
}

static int decide_revoke(struct store_tx *tx, void *arg)
{
    struct revocation *r = arg;
    struct operator_row op;
    struct certificate_row row;
    int64_t now = now_seconds();
    r->err = (struct err){0};
    r->changed = 0;
    if (caller_with_role(tx, &r->caller, now, ROLE_REVOKER, &op, &r->err))
        return -1;
    int rc = tx_certificate_by_serial(tx, r->a->issuer_id, serial_of(r), &row);
    if (rc)
        return rc < 0 ? store_failed(r) : err_set(&r->err, ERR_serial_unknown, NULL);
    if (row.operator_id == 0)
        return err_set(&r->err, ERR_role_refused,
                       "this is an operator's or the server's own certificate; on the server, use "
                       "signetctl operator revoke");
    return check_request_id(tx, r, op.id, row.id, now) || revoke_row(tx, r, &row, op.name, now) ? -1
                                                                                                : 0;
}

/* What every durable change sets off. */
static void spread(struct revocation *r)
{
    if (!r->changed)
        return;
    r->a->counts.issued -= r->changed;
    r->a->counts.revoked += r->changed;
    projection_wanted(r->a->projection);
    publish_wanted(r->a->publishing);
}

static void refuse(struct revocation *r)
{
    if (r->err.code == ERR_none)
        err_set(&r->err, ERR_storage_unavailable, NULL);
    question_refuse(r->q, &r->err);
}

static void after_revoke(int durable, void *arg)
{
    struct revocation *r = arg;
    if (durable) {
        struct msg_answer_revoked m = {
            .serial = serial_of(r), .revoked_at = r->revoked_at, .reason = (uint8_t)r->reason};
        spread(r);
        question_answer(r->q, MSG_answer_revoked, &m);
    } else {
        refuse(r);
    }
    free(r);
}

void revoke_certificate(struct authority *a, const struct msg_revoke *m, struct question *q)
{
    struct revocation *r = revocation_new(a, q, m->reason);
    struct err err;
    caller_copy(&r->caller, m->caller_issuer, m->caller_serial, m->caller_digest,
                m->caller_address);
    snprintf(r->request_id, sizeof r->request_id, "%s", m->request_id);
    if (m->serial.len == 0 || m->body_digest.len != 32 || !crl_reason_name(m->reason) ||
        m->reason == REASON_HOLD) {
        err_set(&err, ERR_field_value, NULL);
        question_refuse(q, &err);
        free(r);
        return;
    }
    memcpy(r->serial, m->serial.data, m->serial.len);
    r->serial_len = m->serial.len;
    memcpy(r->body_digest, m->body_digest.data, 32);
    if (store_submit(a->store, decide_revoke, after_revoke, r))
        fatal("no memory for a revocation");
}

static int decide_operator(struct store_tx *tx, void *arg)
{
    struct revocation *r = arg;
    struct operator_row op;
    struct certificate_row row = {.id = INT64_MAX};
    int64_t now = now_seconds();
    r->err = (struct err){0};
    r->changed = 0;
    int rc = tx_operator_by_name(tx, r->name, &op);
    if (rc)
        return rc < 0
                   ? store_failed(r)
                   : err_set(&r->err, ERR_operator_unknown, "there is no operator \"%s\"", r->name);
    while ((rc = tx_operator_certificate(tx, op.id, row.id, now, &row)) == 0)
        if (row.state != STATE_INTENT && set_revoked(tx, r, &row, "signetctl", now))
            return -1;
    if (rc < 0)
        return store_failed(r);
    if (op.revoked_at)
        return 0;
    op.revoked_at = now;
    if (tx_set_operator(tx, &op) || tx_event(tx, now, 0, "operator-revoked name=%s", op.name))
        return store_failed(r);
    return 0;
}

static void after_operator(int durable, void *arg)
{
    struct revocation *r = arg;
    if (durable) {
        struct msg_answer_end m = {.count = r->changed};
        spread(r);
        projection_wanted(r->a->projection);
        question_answer(r->q, MSG_answer_end, &m);
    } else {
        refuse(r);
    }
    free(r);
}

void revoke_operator(struct authority *a, const char *name, int reason, struct question *q)
{
    struct revocation *r = revocation_new(a, q, reason);
    snprintf(r->name, sizeof r->name, "%s", name);
    if (store_submit(a->store, decide_operator, after_operator, r))
        fatal("no memory for a revocation");
}
