#include "server/authority/issue_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/certificate.h"
#include "pki/crl.h"
#include "pki/lint.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"
#include "server/authority/signers.h"

struct issuing {
    struct authority *a;
    TAILQ_HEAD(, issuance) list; /* with an open intent */
    size_t count;
    TAILQ_HEAD(, issuance) unresolved; /* failed, and the orphan not yet written */
    struct event *again;
    char problem[512];   /* why the last one got no serial, or was not to be signed */
    char journaled[512]; /* of these, what the journal has */
};

#define SIGNATURE_TRIES 2

/* ---- what an issuance is made of, and its end ---- */

static char **copy_names(const char *const *names)
{
    size_t n = 0;
    while (names && names[n])
        n++;
    char **copy = n ? calloc(n + 1, sizeof *copy) : NULL;
    for (size_t i = 0; copy && i < n; i++)
        if (!(copy[i] = strdup(names[i])))
            fatal("no memory for an issuance");
    return copy;
}

static struct issuance *issuance_new(struct authority *a, const struct issue_request *req,
                                     issue_done done, void *arg)
{
    struct issuance *s = calloc(1, sizeof *s);
    if (!s || buf_add(&s->spki, req->spki.data, req->spki.len))
        fatal("no memory for an issuance"); /* bounded by the credits of the fronts */
    if (strlen(req->name) >= sizeof s->name)
        fatal("a name longer than 64 characters came as far as here");
    s->a = a;
    s->req = *req;
    snprintf(s->operation, sizeof s->operation, "%s", req->operation);
    snprintf(s->profile, sizeof s->profile, "%s", req->profile);
    snprintf(s->request_id, sizeof s->request_id, "%s", req->request_id ? req->request_id : "");
    snprintf(s->name, sizeof s->name, "%s", req->name);
    if (req->body_digest)
        memcpy(s->body_digest, req->body_digest, 32);
    if (req->csr_digest)
        memcpy(s->csr_digest, req->csr_digest, 32);
    s->sans = copy_names(req->sans);
    if (req->sans && !s->sans)
        fatal("no memory for an issuance");
    s->done = done;
    s->arg = arg;
    TAILQ_INIT(&s->followers);
    return s;
}

static void issuance_free(struct issuance *s)
{
    for (size_t i = 0; s->sans && s->sans[i]; i++)
        free(s->sans[i]);
    free(s->sans);
    buf_free(&s->spki);
    buf_free(&s->tbs);
    buf_free(&s->der);
    free(s);
}

static void answer(struct issuance *s, const struct issuance *result)
{
    s->done(s->arg, (struct bytes){result->row.serial, result->row.serial_len},
            buf_view(&result->der), &result->err);
}

/* Answers everyone who waits for this one. */
static void answer_all(struct issuance *s)
{
    struct issuance *f;
    answer(s, s);
    while ((f = TAILQ_FIRST(&s->followers))) {
        TAILQ_REMOVE(&s->followers, f, next);
        answer(f, s);
        issuance_free(f);
    }
}

/* ---- the intent: serial, TBS ---- */

static int build(struct issuance *s, const struct profile *p, int64_t now)
{
    if (serial_make(s->row.serial, &s->err))
        return -1;
    s->row.serial_len = SERIAL_LEN;
    struct bytes serial = {s->row.serial, SERIAL_LEN};
    unsigned shard = profile_takes_shard(p) ? publish_shard_of(s->a->publishing, serial) : 0;
    s->row.shard = (int)shard;
    struct certificate_request cr = {
        .issuer = s->a->issuer,
        .profile = p,
        .serial = serial,
        .shard = shard,
        .spki = buf_view(&s->spki),
        .name = s->name,
        .sans = (const char *const *)s->sans,
        .lifetime = s->req.lifetime,
        .now = now,
    };
    s->tbs.len = 0;
    if (certificate_build(&s->tbs, &cr, &s->row.not_before, &s->row.not_after, &s->err) ||
        certificate_lint(buf_view(&s->tbs), &cr, &s->err))
        return -1;
    sha256(s->row.tbs_sha256, buf_view(&s->tbs));
    return 0;
}

static void say_what_is_renewed(char *out, size_t size, const struct certificate_row *current)
{
    char serial[41];
    issuance_serial_text(serial, current);
    snprintf(out, size, " renews=%s", serial);
}

static int record_intent(struct store_tx *tx, struct issuance *s, const struct asker *who,
                         int64_t now)
{
    const struct operator_row *op = &who->op;
    char serial[41], tbs[65], renews[56] = "";
    struct request_row request = {0};
    s->row.issuer = s->a->issuer_id;
    s->row.operator_id = op->id;
    s->row.created_at = now;
    memcpy(request.body_sha256, s->body_digest, 32);
    snprintf(s->row.profile, sizeof s->row.profile, "%s", s->profile);
    snprintf(s->row.name, sizeof s->row.name, "%s", s->name);
    issuance_serial_text(serial, &s->row);
    hex_encode(tbs, (struct bytes){s->row.tbs_sha256, 32});
    if (s->req.origin == ISSUE_FOR_DEVICE)
        say_what_is_renewed(renews, sizeof renews, &who->current);
    int rc = tx_add_intent(tx, &s->row);
    if (rc > 0)
        return err_set(&s->err, ERR_random_broken,
                       "the random generator repeats itself: serial %s exists already", serial);
    if (rc || (who->enrolment.id && tx_spend_enrolment(tx, who->enrolment.id, s->row.id)))
        return rule_store_failed(s);
    request.certificate = s->row.id;
    if ((s->req.csr_digest && tx_add_request(tx, s->key, &request, now)) ||
        tx_event(tx, now, 0, "intent serial=%s profile=%s name=%s operator=%s%s tbs=%s", serial,
                 s->profile, s->name, op->name[0] ? op->name : "-", renews, tbs))
        return rule_store_failed(s);
    return 0;
}

static void forget_decision(struct issuance *s)
{
    s->err = (struct err){0};
    s->row = (struct certificate_row){0};
    s->repeated = 0;
    s->superseded = 0;
    s->superseded_of = 0;
    sha256(s->row.spki_sha256, buf_view(&s->spki));
}

/* New, by every rule: the intent is recorded. */
static int begin(struct store_tx *tx, struct issuance *s, const struct profile *p,
                 const struct asker *who, int64_t now)
{
    const struct operator_row *op = &who->op;
    if (rule_check_uses(s, &who->enrolment) || rule_check_bytes(s, p) ||
        rule_check_conflicts(tx, s, op, now) || rule_settle_operator(tx, s, now) ||
        clock_usable(s->a->clock, &s->err) || signers_usable(s->a->signers, &s->err) ||
        rule_take_from_caps(tx, s, op, now) || build(s, p, now))
        return -1;
    s->err = (struct err){0};
    return record_intent(tx, s, who, now);
}

/* The decision: may be run again, so it starts from nothing each time. */
static int decide_intent(struct store_tx *tx, void *arg)
{
    struct issuance *s = arg;
    struct asker who = {0};
    const struct profile *p = NULL;
    int64_t now = clock_now(s->a->clock);
    forget_decision(s);
    if (rule_authorise(tx, s, &who, &p, now))
        return -1;
    if (s->req.csr_digest) {
        struct certificate_row fresh = s->row;
        int rc = rule_request_key(s, &who) ? -1 : rule_find_repeated(tx, s, now);
        if (rc)
            return rc < 0 ? -1 : 0;
        s->row = fresh;
    }
    return begin(tx, s, p, &who, now);
}

/* ---- refused by the lint, or without a serial: a fault of this machine's ---- */

static int decide_refused(struct store_tx *tx, void *arg)
{
    const struct issuance *s = arg;
    return tx_event(tx, clock_now(s->a->clock), 0, "refused profile=%s name=%s rule=%.*s",
                    s->profile, s->name, (int)strcspn(s->err.text, ":"), s->err.text);
}

static void after_refused(int durable, void *arg)
{
    struct issuance *s = arg;
    if (durable)
        projection_wanted(s->a->projection);
    answer(s, s);
    issuance_free(s);
}

static int is_fault(enum err_code code)
{
    return code == ERR_lint_refused || code == ERR_random_broken;
}

/* Who runs this CA is told by status and log, and the journal has it once: signetd itself asks
 * again every few seconds. */
static void refuse(struct issuance *s)
{
    struct issuing *i = s->a->issuing;
    char what[sizeof i->journaled];
    if (is_fault(s->err.code)) {
        log_error("no certificate for %s: %s", s->name, s->err.text);
        snprintf(i->problem, sizeof i->problem, "%s", s->err.text);
    }
    snprintf(what, sizeof what, "%s %s", s->profile, s->err.text);
    int known = strcmp(what, i->journaled) == 0;
    if (s->err.code == ERR_lint_refused && !known &&
        store_submit(s->a->store, decide_refused, after_refused, s) == 0) {
        snprintf(i->journaled, sizeof i->journaled, "%s", what);
        return;
    }
    answer(s, s);
    issuance_free(s);
}

/* ---- the end of a failed one: an orphan ---- */

static int decide_orphan(struct store_tx *tx, void *arg)
{
    struct issuance *s = arg;
    char serial[41];
    int64_t now = clock_now(s->a->clock);
    issuance_serial_text(serial, &s->row);
    return tx_set_orphan(tx, s->row.id, now) ||
                   tx_event(tx, now, 0, "orphan serial=%s name=%s", serial, s->name)
               ? -1
               : 0;
}

static void after_orphan(int durable, void *arg)
{
    struct issuance *s = arg;
    struct issuing *i = s->a->issuing;
    if (!durable) {
        TAILQ_INSERT_TAIL(&i->unresolved, s, next);
        return;
    }
    i->count--;
    s->a->counts.open--;
    s->a->counts.orphans++;
    projection_wanted(s->a->projection);
    publish_wanted(s->a->publishing, shard_bit(s->row.shard));
    issuance_free(s);
}

/* Answers all with s->err; the intent is resolved as soon as the store takes it. */
static void fail(struct issuance *s)
{
    struct issuing *i = s->a->issuing;
    log_warn("certificate for %s: %s", s->name, s->err.text);
    answer_all(s);
    TAILQ_REMOVE(&i->list, s, next);
    if (store_submit(s->a->store, decide_orphan, after_orphan, s))
        TAILQ_INSERT_TAIL(&i->unresolved, s, next);
}

static void on_again(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct issuing *i = arg;
    struct issuance *s;
    while ((s = TAILQ_FIRST(&i->unresolved))) {
        if (store_submit(i->a->store, decide_orphan, after_orphan, s))
            return;
        TAILQ_REMOVE(&i->unresolved, s, next);
    }
}

/* ---- the signature, and the certificate ---- */

/* What the new one replaces, in the same transaction. */
static int supersede(struct store_tx *tx, struct issuance *s, int64_t now)
{
    struct certificate_row old = {0};
    char serial[41];
    int rc;
    while ((rc = tx_live_of_name(tx, s->name, 0, old.id, &old)) == 0) {
        if (old.id == s->row.id || strcmp(old.profile, s->profile) != 0)
            continue;
        issuance_serial_text(serial, &old);
        if (tx_set_revoked(tx, old.id, STATE_REVOKED, now, REASON_SUPERSEDED) ||
            tx_set_replaces(tx, s->row.id, old.id) ||
            tx_event(tx, now, 0, "revoked serial=%s name=%s reason=superseded", serial, s->name))
            return -1;
        s->superseded += old.state == STATE_ISSUED;
        s->superseded_of |= shard_bit(old.shard);
    }
    return rc < 0 ? -1 : 0;
}

/* Who asked may have been revoked, or ended, while the token signed: then nothing comes of it. */
static int still_in_force(struct store_tx *tx, struct issuance *s, int64_t now)
{
    struct certificate_row current;
    struct enrolment_row enrolment;
    struct operator_row op;
    if (s->req.origin == ISSUE_FOR_CALLER)
        return caller_operator(tx, &s->req.caller, now, &op, &s->err);
    if (s->req.origin == ISSUE_FOR_ENROLMENT)
        return enrolment_find(tx, &s->req.enrolment, now, &enrolment, &op, &s->err);
    if (s->req.origin != ISSUE_FOR_DEVICE)
        return 0;
    if (caller_certificate(tx, &s->req.caller, &current, &s->err))
        return -1;
    return current.state == STATE_ISSUED ? 0 : err_set(&s->err, ERR_certificate_revoked, NULL);
}

static int decide_issued(struct store_tx *tx, void *arg)
{
    struct issuance *s = arg;
    char serial[41], hex[65];
    uint8_t digest[32];
    int64_t now = clock_now(s->a->clock);
    s->superseded = 0;
    s->superseded_of = 0;
    s->err = (struct err){0};
    if (still_in_force(tx, s, now))
        return -1;
    sha256(digest, buf_view(&s->der));
    issuance_serial_text(serial, &s->row);
    hex_encode(hex, (struct bytes){digest, 32});
    if (tx_set_issued(tx, s->row.id, buf_view(&s->der), digest, now) ||
        tx_event(tx, now, s->row.id, "issued serial=%s profile=%s name=%s sha256=%s", serial,
                 s->profile, s->name, hex))
        return -1;
    return s->req.replace ? supersede(tx, s, now) : 0;
}

static void after_issued(int durable, void *arg)
{
    struct issuance *s = arg;
    struct issuing *i = s->a->issuing;
    if (!durable) {
        if (s->err.code == ERR_none)
            err_set(&s->err, ERR_storage_unavailable, NULL);
        fail(s);
        return;
    }
    TAILQ_REMOVE(&i->list, s, next);
    i->count--;
    s->a->counts.open--;
    s->a->counts.issued += 1 - (uint64_t)s->superseded;
    s->a->counts.revoked += s->superseded;
    projection_wanted(s->a->projection);
    if (s->req.replace)
        publish_wanted(s->a->publishing, s->superseded_of);
    answer_all(s);
    issuance_free(s);
}

static void ask_for_signature(struct issuance *s);

static void on_signature(void *arg, struct bytes signature, const struct err *err)
{
    struct issuance *s = arg;
    if (signature.len == 0) {
        s->err = *err;
        fail(s);
        return;
    }
    if (certificate_assemble(&s->der, s->a->issuer, buf_view(&s->tbs), signature, &s->err)) {
        signers_distrust(s->a->signers, s->err.text);
        s->der.len = 0;
        if (++s->tries < SIGNATURE_TRIES) {
            ask_for_signature(s);
            return;
        }
        err_set(&s->err, ERR_token_unavailable, "the token's signature did not verify");
        fail(s);
        return;
    }
    s->err = (struct err){0};
    if (store_submit(s->a->store, decide_issued, after_issued, s)) {
        err_set(&s->err, ERR_internal, "no memory");
        fail(s);
    }
}

static void ask_for_signature(struct issuance *s)
{
    uint8_t digest[DIGEST_MAX];
    size_t len = sign_digest(issuer_alg(s->a->issuer), buf_view(&s->tbs), digest);
    if (signers_sign(s->a->signers, TOKEN_KEY_CA, SIGN_FOR_CERTIFICATE, (struct bytes){digest, len},
                     on_signature, s)) {
        err_set(&s->err, ERR_internal, "no memory");
        fail(s);
    }
}

/* The same request came again: its answer is there, or it waits with the first. */
static void follow(struct issuance *s)
{
    struct issuance *first;
    if (s->row.state == STATE_ISSUED) {
        answer(s, s);
        issuance_free(s);
        return;
    }
    TAILQ_FOREACH (first, &s->a->issuing->list, next)
        if (first->row.id == s->row.id) {
            TAILQ_INSERT_TAIL(&first->followers, s, next);
            return;
        }
    /* its intent is being made an orphan; the next try gets a new serial */
    err_set(&s->err, ERR_busy, NULL);
    answer(s, s);
    issuance_free(s);
}

static void after_intent(int durable, void *arg)
{
    struct issuance *s = arg;
    if (!durable) {
        if (s->err.code == ERR_none)
            err_set(&s->err, ERR_storage_unavailable, NULL);
        refuse(s);
        return;
    }
    if (s->repeated) {
        follow(s);
        return;
    }
    s->a->issuing->problem[0] = '\0';
    TAILQ_INSERT_TAIL(&s->a->issuing->list, s, next);
    s->a->issuing->count++;
    s->a->counts.open++;
    ask_for_signature(s);
}

void issue(struct authority *a, const struct issue_request *req, issue_done done, void *arg)
{
    struct issuance *s = issuance_new(a, req, done, arg);
    if (store_submit(a->store, decide_intent, after_intent, s))
        fatal("no memory for an issuance");
}

void issue_answer(void *question, struct bytes serial, struct bytes der, const struct err *err)
{
    struct msg_answer_certificate m = {.serial = serial, .der = der};
    if (err->code)
        question_refuse(question, err);
    else
        question_answer(question, MSG_answer_certificate, &m);
}

/* ---- start and end ---- */

struct issuing *issuing_new(struct authority *a)
{
    struct issuing *i = calloc(1, sizeof *i);
    struct timeval second = {1, 0};
    if (!i || !(i->again = event_new(a->base, -1, EV_PERSIST, on_again, i)) ||
        event_add(i->again, &second))
        fatal("no memory");
    i->a = a;
    TAILQ_INIT(&i->list);
    TAILQ_INIT(&i->unresolved);
    return i;
}

const char *issuing_problem(const struct issuing *i)
{
    return i->problem[0] ? i->problem : NULL;
}

size_t issuing_open(const struct issuing *i)
{
    return i->count;
}

void issuing_free(struct issuing *i)
{
    if (!i)
        return;
    event_free(i->again);
    free(i);
}

struct resolving {
    struct authority *a;
    int count;
};

static int decide_resolve(struct store_tx *tx, void *arg)
{
    struct resolving *r = arg;
    struct certificate_row row;
    int rc;
    r->count = 0;
    while ((rc = tx_open_intent(tx, &row)) == 0) {
        char serial[41];
        issuance_serial_text(serial, &row);
        int64_t now = clock_now(r->a->clock);
        if (tx_set_orphan(tx, row.id, now) ||
            tx_event(tx, now, 0, "orphan serial=%s name=%s", serial, row.name))
            return -1;
        r->count++;
    }
    return rc < 0 ? -1 : 0;
}

static void after_resolve(int durable, void *arg)
{
    struct resolving *r = arg;
    if (!durable)
        r->count = -1;
}

int issue_resolve_open(struct authority *a, struct err *err)
{
    struct resolving r = {a, 0};
    if (store_submit(a->store, decide_resolve, after_resolve, &r))
        return err_set(err, ERR_internal, "no memory");
    store_commit(a->store);
    if (r.count < 0)
        return err_set(err, ERR_storage_unavailable, "cannot resolve open intents: %s",
                       store_problem(a->store) ? store_problem(a->store) : "refused");
    return r.count;
}
