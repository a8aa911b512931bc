#include "server/authority/enrolment.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "pki/mac.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"

#define USER_MAX (64 - (sizeof ENROLMENT_OPERATOR - 1))
#define USES_MAX 1000000
#define LATEST 253402300799 /* 9999-12-31 */

static int store_failed(struct err *err)
{
    return err_set(err, ERR_storage_unavailable, NULL);
}

/* ---- who knows the password ---- */

int enrolment_find(struct store_tx *tx, const struct enrolment_claim *claim, int64_t now,
                   struct enrolment_row *row, struct operator_row *op, struct err *err)
{
    *row = (struct enrolment_row){0}; /* compared with all the same when there is none */
    int rc = tx_enrolment_by_user(tx, claim->user, row);
    if (rc < 0)
        return store_failed(err);
    int same = CRYPTO_memcmp(claim->password_sha256, row->password_sha256, 32) == 0;
    int known = tx_operator_by_id(tx, row->operator_id, op);
    if (known < 0)
        return store_failed(err);
    if (!(rc == 0 && known == 0) || !same || row->ended_at || op->revoked_at ||
        now >= row->not_after)
        return err_set(err, ERR_enrolment_refused, NULL);
    return 0;
}

/* ---- made, and ended ---- */

struct change {
    struct authority *a;
    struct question *q;
    struct enrolment_row row;
    int64_t lifetime; /* 0: row.not_after is given */
    struct err err;   /* set by the decision */
};

static const char *state_of(const struct enrolment_row *e, int64_t now)
{
    return e->ended_at              ? "ended"
           : e->uses >= e->uses_max ? "spent"
           : now >= e->not_after    ? "expired"
                                    : "open";
}

static struct msg_answer_enrolment answer_of(const struct enrolment_row *e, int64_t now)
{
    return (struct msg_answer_enrolment){.user = e->user,
                                         .profile = e->profile,
                                         .mac = e->mac,
                                         .state = state_of(e, now),
                                         .uses = (uint32_t)e->uses,
                                         .uses_max = (uint32_t)e->uses_max,
                                         .not_after = e->not_after};
}

static void after_change(int durable, void *arg)
{
    struct change *c = arg;
    if (durable) {
        struct msg_answer_enrolment m = answer_of(&c->row, clock_now(c->a->clock));
        projection_wanted(c->a->projection);
        question_answer(c->q, MSG_answer_enrolment, &m);
    } else {
        if (c->err.code == ERR_none)
            store_failed(&c->err);
        question_refuse(c->q, &c->err);
    }
    free(c);
}

static struct change *change_new(struct authority *a, struct question *q)
{
    struct change *c = calloc(1, sizeof *c);
    if (!c)
        fatal("no memory for an enrolment");
    c->a = a;
    c->q = q;
    return c;
}

static int is_user(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@-";
    size_t len = strlen(name);
    return len > 0 && len <= USER_MAX && strspn(name, allowed) == len;
}

static int check_profile(struct authority *a, const struct msg_admin_enrolment_add *m,
                         struct err *err)
{
    const struct profile *p = profiles_find(a->profiles, m->profile);
    if (!p)
        return err_set(err, ERR_profile_unknown, "there is no profile \"%s\"", m->profile);
    if (!profile_allows_operation(p, "req_client_cert"))
        return err_set(err, ERR_profile_refused,
                       "profile %s is not open to req_client_cert, and so to no enrolment",
                       m->profile);
    if (m->mac[0] && profile_name_kind(p) != NAME_MAC)
        return err_set(err, ERR_profile_refused, "profile %s is not of boards: it has no MAC",
                       m->profile);
    return 0;
}

static int check_add(struct authority *a, const struct msg_admin_enrolment_add *m, struct err *err)
{
    if (m->password_sha256.len != 32)
        return err_set(err, ERR_field_value, "the password's digest is not valid");
    if (!is_user(m->user))
        return err_set(err, ERR_field_value, "the user must be 1 to %d of letters, digits, . _ @ -",
                       (int)USER_MAX);
    if (m->count < 1 || m->count > USES_MAX || (m->mac[0] && m->count != 1))
        return err_set(err, ERR_field_value,
                       "an enrolment is for one MAC, or for 1 to %d certificates", USES_MAX);
    if ((m->not_after == 0) == (m->lifetime == 0) || m->lifetime < 0 || m->lifetime > LATEST ||
        m->not_after > LATEST)
        return err_set(err, ERR_field_value, "this is no end for an enrolment");
    return (m->mac[0] && mac_check(m->mac, err)) ? -1 : check_profile(a, m, err);
}

static int is_new(struct store_tx *tx, struct change *c)
{
    struct enrolment_row there;
    int rc = tx_enrolment_by_user(tx, c->row.user, &there);
    return rc == 1  ? 0
           : rc < 0 ? store_failed(&c->err)
                    : err_set(&c->err, ERR_already_exists,
                              "there was an enrolment %s; a name is not used again", c->row.user);
}

static int decide_add(struct store_tx *tx, void *arg)
{
    struct change *c = arg;
    struct enrolment_row *e = &c->row;
    struct operator_row op = {0};
    struct tm tm;
    char until[32];
    e->created_at = clock_now(c->a->clock);
    if (c->lifetime)
        e->not_after = e->created_at + c->lifetime;
    if (e->not_after <= e->created_at)
        return err_set(&c->err, ERR_field_value, "the end of the enrolment is over already");
    c->err = (struct err){0};
    if (is_new(tx, c))
        return -1;
    snprintf(op.name, sizeof op.name, ENROLMENT_OPERATOR "%s", e->user);
    if (tx_add_operator(tx, &op, e->created_at))
        return store_failed(&c->err);
    e->operator_id = op.id;
    strftime(until, sizeof until, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&(time_t){e->not_after}, &tm));
    return tx_add_enrolment(tx, e) ||
                   tx_event(tx, e->created_at, 0,
                            "enrolment-added user=%s profile=%s mac=%s uses=%lld until=%s", e->user,
                            e->profile, e->mac[0] ? e->mac : "-", (long long)e->uses_max, until)
               ? store_failed(&c->err)
               : 0;
}

void enrolment_add(struct authority *a, const struct msg_admin_enrolment_add *m, struct question *q)
{
    struct err err;
    if (check_add(a, m, &err)) {
        question_refuse(q, &err);
        return;
    }
    struct change *c = change_new(a, q);
    c->row = (struct enrolment_row){.uses_max = m->count, .not_after = m->not_after};
    c->lifetime = m->lifetime;
    snprintf(c->row.user, sizeof c->row.user, "%s", m->user);
    snprintf(c->row.profile, sizeof c->row.profile, "%s", m->profile);
    snprintf(c->row.mac, sizeof c->row.mac, "%s", m->mac);
    memcpy(c->row.password_sha256, m->password_sha256.data, 32);
    if (store_submit(a->store, decide_add, after_change, c))
        fatal("no memory for an enrolment");
}

/* One that is ended stays as it was. */
static int decide_end(struct store_tx *tx, void *arg)
{
    struct change *c = arg;
    char user[65];
    int64_t now = clock_now(c->a->clock);
    c->err = (struct err){0};
    snprintf(user, sizeof user, "%s", c->row.user);
    int rc = tx_enrolment_by_user(tx, user, &c->row);
    if (rc)
        return rc < 0 ? store_failed(&c->err)
                      : err_set(&c->err, ERR_enrolment_unknown, "there is no enrolment %s", user);
    if (c->row.ended_at)
        return 0;
    c->row.ended_at = now;
    return tx_end_enrolment(tx, c->row.id, now) ||
                   tx_event(tx, now, 0, "enrolment-ended user=%s", user)
               ? store_failed(&c->err)
               : 0;
}

void enrolment_end(struct authority *a, const char *user, struct question *q)
{
    struct change *c = change_new(a, q);
    snprintf(c->row.user, sizeof c->row.user, "%s", user);
    if (store_submit(a->store, decide_end, after_change, c))
        fatal("no memory for an enrolment");
}

/* ---- listed ---- */

#define PAGE 100

struct listing {
    struct peer *peer;
    uint64_t id;
    int64_t now;
    struct enrolment_row row;
    unsigned count;
    int more;
};

static int list_page(struct store_tx *tx, void *arg)
{
    struct listing *l = arg;
    int rc;
    while ((rc = tx_enrolment_after(tx, l->row.user, &l->row)) == 0) {
        if (l->count == PAGE) {
            l->more = 1;
            return 0;
        }
        struct msg_answer_enrolment m = answer_of(&l->row, l->now);
        if (channel_send(l->peer->channel, MSG_answer_enrolment, l->id, &m, -1))
            return -1;
        l->count++;
    }
    return rc < 0 ? -1 : 0;
}

void enrolment_list(struct authority *a, const char *after, struct question *q)
{
    struct listing l = {.peer = q->peer, .id = q->id, .now = clock_now(a->clock)};
    struct err err;
    snprintf(l.row.user, sizeof l.row.user, "%s", after);
    if (store_read(a->store, list_page, &l)) {
        store_failed(&err);
        question_refuse(q, &err);
        return;
    }
    struct msg_answer_end m = {.count = l.count, .more = (uint8_t)l.more};
    question_answer(q, MSG_answer_end, &m);
}
