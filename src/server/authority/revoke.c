#include "server/authority/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/crl.h"
#include "server/authority/caps.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"

struct revocation {
    struct authority *a;
    struct question *q;
    struct revoke_request req;

    /* set by the decision */
    struct err err;
    int64_t now;
    struct operator_row op;
    struct msg_answer_revoked answer;
    struct revoke_serial one; /* what answer.serial points to */
    unsigned changed;         /* certificates whose state is another now */
    uint64_t changed_of;      /* their shards, shard_bit() */
    int left;                 /* how many more are no longer issued than before */
};

static int store_failed(struct revocation *r)
{
    return err_set(&r->err, ERR_storage_unavailable, NULL);
}

/* ---- one certificate ---- */

static int change(struct store_tx *tx, struct revocation *r, const struct certificate_row *row,
                  enum certificate_state to)
{
    static const char *const events[] = {
        [STATE_ISSUED] = "unheld", [STATE_REVOKED] = "revoked", [STATE_HELD] = "held"};
    const char *by = r->req.selector == REVOKE_OPERATOR ? "signetctl" : r->op.name;
    char serial[41];
    hex_encode(serial, (struct bytes){row->serial, row->serial_len});
    int rc = to == STATE_ISSUED ? tx_set_unheld(tx, row->id)
                                : tx_set_revoked(tx, row->id, to, r->now, r->req.reason);
    if (rc || tx_event(tx, r->now, 0, "%s serial=%s name=%s reason=%s operator=%s", events[to],
                       serial, row->name, crl_reason_name(r->req.reason), by))
        return store_failed(r);
    r->changed++;
    r->changed_of |= shard_bit(row->shard);
    r->left += (row->state == STATE_ISSUED) - (to == STATE_ISSUED);
    r->answer.revoked_at = r->now;
    return 0;
}

/* It is revoked: the same once more is the same answer. */
static int revoked_already(struct revocation *r, const struct certificate_row *row)
{
    r->answer.revoked_at = row->revoked_at;
    if (row->reason == r->req.reason)
        return 0;
    return err_set(&r->err, ERR_already_revoked, "it was revoked already, as %s",
                   crl_reason_name(row->reason));
}

/* By what it is, and what is asked for. */
static int apply(struct store_tx *tx, struct revocation *r, const struct certificate_row *row)
{
    int hold = r->req.reason == REASON_HOLD, lift = r->req.reason == REASON_REMOVE_FROM_CRL;
    switch (row->state) {
    case STATE_INTENT:
        return err_set(&r->err, ERR_busy, "this certificate is being issued; try again");
    case STATE_REVOKED:
    case STATE_ORPHAN:
        return revoked_already(r, row);
    case STATE_ISSUED:
        if (lift)
            return err_set(&r->err, ERR_not_on_hold, NULL);
        return change(tx, r, row, hold ? STATE_HELD : STATE_REVOKED);
    case STATE_HELD:
        if (hold)
            return revoked_already(r, row);
        return change(tx, r, row, lift ? STATE_ISSUED : STATE_REVOKED);
    }
    return err_set(&r->err, ERR_internal, NULL);
}

/* ---- which ones ---- */

static int by_serials(struct store_tx *tx, struct revocation *r)
{
    struct certificate_row row;
    for (size_t i = 0; i < r->req.serial_count; i++) {
        struct bytes serial = {r->req.serials[i].bytes, r->req.serials[i].len};
        char text[41];
        hex_encode(text, serial);
        int rc = tx_certificate_by_serial(tx, r->a->issuer_id, serial, &row);
        if (rc)
            return rc < 0 ? store_failed(r)
                          : err_set(&r->err, ERR_serial_unknown,
                                    "no certificate of this CA has the serial %s", text);
        if (row.operator_id == 0)
            return err_set(&r->err, ERR_role_refused,
                           "%s is an operator's or the server's own certificate; on the server, "
                           "use signetctl operator revoke",
                           text);
        if (apply(tx, r, &row))
            return r->req.serial_count > 1 ? err_prefix(&r->err, "%s", text) : -1;
    }
    return 0;
}

static int by_name(struct store_tx *tx, struct revocation *r)
{
    struct certificate_row row = {0};
    unsigned found = 0;
    int rc;
    /* expired ones too: they may still be renewed */
    while ((rc = tx_live_of_name(tx, r->req.name, 0, row.id, &row)) == 0) {
        if (++found > 1 && !r->req.is_signed)
            return err_set(&r->err, ERR_signature_required,
                           "%s has several live certificates; sign the request, or name a serial",
                           r->req.name);
        memcpy(r->one.bytes, row.serial, row.serial_len);
        r->one.len = row.serial_len;
        if (apply(tx, r, &row))
            return -1;
    }
    if (rc < 0)
        return store_failed(r);
    if (found > 1)
        r->one.len = 0; /* of several the answer names none, however many are changed */
    return found ? 0
                 : err_set(&r->err, ERR_serial_unknown, "%s has no live certificate", r->req.name);
}

static int find_operator(struct store_tx *tx, struct revocation *r, struct operator_row *who)
{
    int rc = tx_operator_by_name(tx, r->req.name, who);
    if (rc)
        return rc < 0 ? store_failed(r)
                      : err_set(&r->err, ERR_operator_unknown, "there is no operator \"%s\"",
                                r->req.name);
    return 0;
}

/* On hold already when that is asked for, or not on hold when that is to be lifted. */
static int is_as_asked(const struct revocation *r, const struct certificate_row *row)
{
    return (r->req.reason == REASON_HOLD && row->state == STATE_HELD) ||
           (r->req.reason == REASON_REMOVE_FROM_CRL && row->state == STATE_ISSUED);
}

/* What is on hold or issued; the rest is dealt with already. */
static int by_issuing_operator(struct store_tx *tx, struct revocation *r)
{
    struct certificate_row row = {0};
    struct operator_row who;
    int rc;
    if (find_operator(tx, r, &who))
        return -1;
    while ((rc = tx_issued_by_operator(tx, who.id, r->req.from, r->req.to, row.id, &row)) == 0)
        if (!is_as_asked(r, &row) && apply(tx, r, &row))
            return -1;
    return rc < 0 ? store_failed(r) : 0;
}

static int by_operator(struct store_tx *tx, struct revocation *r)
{
    struct certificate_row row = {.id = INT64_MAX};
    struct operator_row who;
    int rc;
    if (find_operator(tx, r, &who))
        return -1;
    while ((rc = tx_operator_certificate(tx, who.id, row.id, r->now, &row)) == 0)
        if (row.state != STATE_INTENT && apply(tx, r, &row))
            return -1;
    if (rc < 0)
        return store_failed(r);
    if (who.revoked_at)
        return 0;
    who.revoked_at = r->now;
    return tx_set_operator(tx, &who) ||
                   tx_event(tx, r->now, 0, "operator-revoked name=%s", who.name)
               ? store_failed(r)
               : 0;
}

/* ---- exactly once, by request_id ---- */

static void request_key(const struct revocation *r, uint8_t key[32])
{
    char text[160];
    int n = snprintf(text, sizeof text, "%lld|revoke_cert|id|%s|", (long long)r->op.id,
                     r->req.request_id);
    sha256(key, (struct bytes){(const uint8_t *)text, (size_t)n});
}

/* 1: done before, the answer is there; 0: new; -1 refused. */
static int find_repeated(struct store_tx *tx, struct revocation *r)
{
    uint8_t key[32];
    struct request_row before;
    if (!r->req.request_id[0])
        return 0;
    request_key(r, key);
    int rc = tx_request(tx, key, &before);
    if (rc)
        return rc < 0 ? store_failed(r) : 0;
    if (memcmp(before.body_sha256, r->req.body_digest, 32) != 0)
        return err_set(&r->err, ERR_request_id_reused, NULL);
    struct certificate_row row;
    if (before.certificate && tx_certificate_by_id(tx, before.certificate, &row))
        return store_failed(r);
    if (before.certificate) {
        memcpy(r->one.bytes, row.serial, row.serial_len);
        r->one.len = row.serial_len;
        r->answer.revoked_at = before.result;
        r->answer.count = 1;
    } else {
        r->answer.count = (uint32_t)before.result;
    }
    return 1;
}

static int remember(struct store_tx *tx, struct revocation *r, int64_t certificate)
{
    uint8_t key[32];
    struct request_row row = {.certificate = certificate,
                              .result = certificate ? r->answer.revoked_at : r->changed};
    if (!r->req.request_id[0])
        return 0;
    request_key(r, key);
    memcpy(row.body_sha256, r->req.body_digest, 32);
    return tx_add_request(tx, key, &row, r->now) ? store_failed(r) : 0;
}

/* ---- the decision ---- */

static int select_and_apply(struct store_tx *tx, struct revocation *r)
{
    switch (r->req.selector) {
    case REVOKE_SERIALS:
        return by_serials(tx, r);
    case REVOKE_NAME:
        return by_name(tx, r);
    case REVOKE_ISSUED_BY:
        return by_issuing_operator(tx, r);
    case REVOKE_OPERATOR:
        return by_operator(tx, r);
    }
    return err_set(&r->err, ERR_internal, NULL);
}

/* The one certificate that the answer names; 0 when it is of several. */
static int find_one(struct store_tx *tx, struct revocation *r, int64_t *id)
{
    struct certificate_row row;
    *id = 0;
    if (r->req.selector == REVOKE_SERIALS && r->req.serial_count == 1)
        r->one = r->req.serials[0];
    if (r->one.len == 0 || r->changed > 1) {
        r->one.len = 0;
        r->answer.count = r->changed;
        return 0;
    }
    struct bytes serial = {r->one.bytes, r->one.len};
    if (tx_certificate_by_serial(tx, r->a->issuer_id, serial, &row))
        return store_failed(r);
    r->answer.count = 1;
    *id = row.id;
    return 0;
}

static int decide(struct store_tx *tx, void *arg)
{
    struct revocation *r = arg;
    int64_t id;
    int for_caller = r->req.selector != REVOKE_OPERATOR;
    r->err = (struct err){0};
    r->now = clock_now(r->a->clock);
    r->answer = (struct msg_answer_revoked){.reason = (uint8_t)r->req.reason};
    r->one.len = 0;
    r->changed = 0;
    r->changed_of = 0;
    r->left = 0;
    if (for_caller && caller_with_role(tx, &r->req.caller, r->now, ROLE_REVOKER, &r->op, &r->err))
        return -1;
    int rc = for_caller ? find_repeated(tx, r) : 0;
    if (rc)
        return rc < 0 ? -1 : 0;
    if (select_and_apply(tx, r) || find_one(tx, r, &id))
        return -1;
    if (!for_caller)
        return 0;
    if (r->changed && caps_take(tx, r->a->config, &r->op, 0, r->changed, r->now, &r->err))
        return -1;
    return remember(tx, r, id);
}

static void spread(struct revocation *r)
{
    r->a->counts.issued -= (uint64_t)(int64_t)r->left;
    r->a->counts.revoked += (uint64_t)(int64_t)r->left;
    projection_wanted(r->a->projection);
    if (r->changed)
        publish_wanted(r->a->publishing, r->changed_of);
}

static void after(int durable, void *arg)
{
    struct revocation *r = arg;
    struct msg_answer_end end = {.count = r->changed};
    if (!durable) {
        if (r->err.code == ERR_none)
            err_set(&r->err, ERR_storage_unavailable, NULL);
        question_refuse(r->q, &r->err);
    } else {
        spread(r);
        r->answer.serial = (struct bytes){r->one.bytes, r->one.len};
        if (r->req.selector == REVOKE_OPERATOR)
            question_answer(r->q, MSG_answer_end, &end);
        else
            question_answer(r->q, MSG_answer_revoked, &r->answer);
    }
    free(r->req.serials);
    free(r);
}

void revoke_certificates(struct authority *a, const struct revoke_request *req, struct question *q)
{
    struct revocation *r = calloc(1, sizeof *r);
    if (!r)
        fatal("no memory for a revocation");
    r->a = a;
    r->q = q;
    r->req = *req;
    if (store_submit(a->store, decide, after, r))
        fatal("no memory for a revocation");
}
