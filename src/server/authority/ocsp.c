#include "server/authority/ocsp.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "common/log.h"
#include "pki/ocsp.h"
#include "server/authority/clock.h"
#include "server/authority/signers.h"

#define SIGNATURE_TRIES 2
#define BUILD_TRIES 4      /* how often the state may change while the token signs */
#define FOR_ONE_MOST 16    /* at once, so that the fronts' credits are left to others */
#define LIFE_OF_UNKNOWN 60 /* seconds: what is not there may be there soon */

struct asker {
    STAILQ_ENTRY(asker) next;
    struct question *q;
};

/* One answer on its way. */
struct answering {
    TAILQ_ENTRY(answering) next;
    struct responding *all;
    STAILQ_HEAD(, asker) askers;
    struct ocsp_single singles[OCSP_CERTIDS_MAX];
    size_t count;
    uint8_t nonce[OCSP_NONCE_MAX];
    size_t nonce_len;
    const struct responder *responder; /* that tbs was built for */
    int64_t this_update, next_update;
    struct buf tbs;
    int tries, builds, is_budgeted;
};

struct responding {
    struct authority *a;
    TAILQ_HEAD(, answering) list;
    struct ocsp_certid own[2]; /* of this CA, by SHA-1 and by SHA-256; without serial */
    unsigned for_one;          /* on their way, out of the budget */
    int64_t level, filled_at;  /* of the budget: thousandths of a signature; monotonic, ms */
};

/* ---- what is asked for ---- */

static int hash_own(struct ocsp_certid *own, const X509 *x, const EVP_MD *md)
{
    unsigned len = 0, key_len = 0;
    int ok = X509_NAME_digest(X509_get_subject_name(x), md, own->issuer_name_hash, &len) &&
             X509_pubkey_digest(x, md, own->issuer_key_hash, &key_len) && len == key_len;
    own->hash_len = len;
    return ok ? 0 : -1;
}

static int is_own(const struct responding *r, const struct ocsp_certid *c)
{
    for (size_t i = 0; i < 2; i++) {
        const struct ocsp_certid *own = &r->own[i];
        if (c->hash_len == own->hash_len &&
            memcmp(c->issuer_name_hash, own->issuer_name_hash, own->hash_len) == 0 &&
            memcmp(c->issuer_key_hash, own->issuer_key_hash, own->hash_len) == 0)
            return 1;
    }
    return 0;
}

static int is_same(const struct ocsp_certid *a, const struct ocsp_certid *b)
{
    return a->hash_len == b->hash_len && a->serial_len == b->serial_len &&
           memcmp(a->serial, b->serial, a->serial_len) == 0; /* of this CA both are */
}

/* The CRL's words (tx_each_revoked): held and orphan are on it, what is still open is not. */
static int look_up(struct store_tx *tx, int64_t issuer, struct ocsp_single *s)
{
    struct certificate_row row;
    struct bytes serial = {s->certid.serial, s->certid.serial_len};
    int rc = tx_certificate_by_serial(tx, issuer, serial, &row);
    s->status = OCSP_STATUS_UNKNOWN;
    s->revoked_at = 0;
    s->reason = 0;
    if (rc || row.state == STATE_INTENT)
        return rc < 0 ? -1 : 0;
    s->status = row.state == STATE_ISSUED ? OCSP_STATUS_GOOD : OCSP_STATUS_REVOKED;
    if (s->status == OCSP_STATUS_REVOKED) {
        s->revoked_at = row.revoked_at;
        s->reason = row.reason;
    }
    return 0;
}

static int read_states(struct store_tx *tx, void *arg)
{
    struct answering *s = arg;
    for (size_t i = 0; i < s->count; i++)
        if (look_up(tx, s->all->a->issuer_id, &s->singles[i]))
            return -1;
    return 0;
}

/* All of them in one snapshot. 1: they are not what they were; -1: the store cannot be read. */
static int look_again(struct answering *s)
{
    struct ocsp_single before[OCSP_CERTIDS_MAX];
    int changed = 0;
    memcpy(before, s->singles, sizeof before);
    if (store_read(s->all->a->store, read_states, s))
        return -1;
    for (size_t i = 0; i < s->count; i++)
        changed |= before[i].status != s->singles[i].status ||
                   before[i].revoked_at != s->singles[i].revoked_at ||
                   before[i].reason != s->singles[i].reason;
    return changed;
}

static int has_unknown(const struct answering *s)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->singles[i].status == OCSP_STATUS_UNKNOWN)
            return 1;
    return 0;
}

/* The same words would be of use to others who ask. */
static int is_for_all(const struct answering *s)
{
    return s->count == 1 && s->nonce_len == 0 && !has_unknown(s);
}

/* ---- the budget ---- */

static int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A second's worth of it can be saved up. */
static int take_from_budget(struct responding *r)
{
    int64_t rate = r->a->config->ocsp_budget, now = monotonic_ms(), past = now - r->filled_at;
    r->level += past < 1000 ? past * rate : 1000 * rate;
    if (r->level > 1000 * rate)
        r->level = 1000 * rate;
    r->filled_at = now;
    if (r->level < 1000 || r->for_one >= FOR_ONE_MOST)
        return -1;
    r->level -= 1000;
    r->for_one++;
    return 0;
}

/* ---- who waits ---- */

static struct answering *answering_new(struct responding *r, const struct ocsp_certid *certids,
                                       size_t count, struct bytes nonce)
{
    struct answering *s = calloc(1, sizeof *s);
    if (!s)
        fatal("no memory for an OCSP answer"); /* bounded by the credits of the fronts */
    s->all = r;
    s->count = count;
    for (size_t i = 0; i < count; i++)
        s->singles[i].certid = certids[i];
    if (nonce.len)
        memcpy(s->nonce, nonce.data, nonce.len);
    s->nonce_len = nonce.len;
    STAILQ_INIT(&s->askers);
    TAILQ_INSERT_TAIL(&r->list, s, next);
    return s;
}

static void answering_free(struct answering *s)
{
    TAILQ_REMOVE(&s->all->list, s, next);
    s->all->for_one -= (unsigned)s->is_budgeted;
    buf_free(&s->tbs);
    free(s);
}

static void wait_for(struct answering *s, struct question *q)
{
    struct asker *asker = calloc(1, sizeof *asker);
    if (!asker)
        fatal("no memory for an OCSP answer");
    asker->q = q;
    STAILQ_INSERT_TAIL(&s->askers, asker, next);
}

/* Gives all who wait this message, or (NULL) the error; and that was it. */
static void end(struct answering *s, const struct msg_answer_ocsp *m, const struct err *err)
{
    struct asker *asker;
    while ((asker = STAILQ_FIRST(&s->askers))) {
        STAILQ_REMOVE_HEAD(&s->askers, next);
        if (m)
            question_answer(asker->q, MSG_answer_ocsp, m);
        else
            question_refuse(asker->q, err);
        free(asker);
    }
    answering_free(s);
}

static void refuse(struct question *q, enum err_code code, const char *why)
{
    struct err err;
    err_set(&err, code, "%s", why);
    question_refuse(q, &err);
}

static void give_up(struct answering *s, enum err_code code, const char *why)
{
    struct err err;
    err_set(&err, code, "%s", why);
    end(s, NULL, &err);
}

/* ---- the answer ---- */

static void set_times(struct answering *s)
{
    const struct authority *a = s->all->a;
    int64_t ends[] = {responder_not_after(s->responder), issuer_not_after(a->issuer)};
    s->this_update = clock_now(a->clock);
    s->next_update = s->this_update + (has_unknown(s) ? LIFE_OF_UNKNOWN : a->config->ocsp_life);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (s->next_update > ends[i])
            s->next_update = ends[i];
}

static int build(struct answering *s, struct err *err)
{
    s->responder = s->all->a->ocsp_responder;
    if (!s->responder)
        return err_set(err, ERR_token_unavailable, "the OCSP responder has no certificate yet");
    set_times(s);
    if (s->next_update <= s->this_update)
        return err_set(err, ERR_token_unavailable, "the OCSP responder's certificate has expired");
    struct ocsp_answer answer = {
        .responder = s->responder,
        .singles = s->singles,
        .count = s->count,
        .nonce = {s->nonce, s->nonce_len},
        .produced_at = s->this_update,
        .this_update = s->this_update,
        .next_update = s->next_update,
    };
    s->tbs.len = 0;
    return ocsp_build(&s->tbs, &answer, err);
}

static void on_signature(void *arg, struct bytes signature, const struct err *err);

static void ask_for_signature(struct answering *s)
{
    uint8_t digest[DIGEST_MAX];
    size_t len = sign_digest(responder_alg(s->responder), buf_view(&s->tbs), digest);
    if (signers_sign(s->all->a->signers, TOKEN_KEY_RESPONDER, SIGN_FOR_OCSP,
                     (struct bytes){digest, len}, on_signature, s))
        give_up(s, ERR_internal, "no memory");
}

static void build_and_sign(struct answering *s)
{
    struct err err;
    if (build(s, &err))
        end(s, NULL, &err);
    else
        ask_for_signature(s);
}

static void finish(struct answering *s, struct bytes signature)
{
    struct buf der = {0};
    struct err err;
    if (ocsp_assemble(&der, s->responder, buf_view(&s->tbs), signature, &err) == 0) {
        struct msg_answer_ocsp m = {.response = buf_view(&der),
                                    .this_update = s->this_update,
                                    .next_update = is_for_all(s) ? s->next_update : 0};
        end(s, &m, NULL);
    } else {
        signers_distrust(s->all->a->signers, err.text);
        if (++s->tries < SIGNATURE_TRIES)
            ask_for_signature(s);
        else
            give_up(s, ERR_token_unavailable, "the token's signature did not verify");
    }
    buf_free(&der);
}

static void on_signature(void *arg, struct bytes signature, const struct err *err)
{
    struct answering *s = arg;
    if (signature.len == 0) {
        end(s, NULL, err);
        return;
    }
    int changed = look_again(s);
    if (changed < 0)
        give_up(s, ERR_storage_unavailable, "the store cannot be read");
    else if (!changed && s->responder == s->all->a->ocsp_responder)
        finish(s, signature);
    else if (++s->builds < BUILD_TRIES)
        build_and_sign(s);
    else
        give_up(s, ERR_busy, "the certificate's state changes again and again");
}

/* ---- the question ---- */

static struct answering *find_same(const struct responding *r, const struct ocsp_certid *certid)
{
    struct answering *s;
    TAILQ_FOREACH (s, &r->list, next)
        if (s->count == 1 && s->nonce_len == 0 && is_same(&s->singles[0].certid, certid))
            return s;
    return NULL;
}

static void begin(struct answering *s)
{
    struct err err;
    struct authority *a = s->all->a;
    if (clock_usable(a->clock, &err) || signers_usable(a->signers, &err)) {
        end(s, NULL, &err);
    } else if (look_again(s) < 0) {
        give_up(s, ERR_storage_unavailable, "the store cannot be read");
    } else if (!is_for_all(s) && take_from_budget(s->all)) {
        give_up(s, ERR_busy, "OCSP answers for one asker alone are beyond ocsp_budget");
    } else {
        s->is_budgeted = !is_for_all(s);
        build_and_sign(s);
    }
}

/* RFC 5019 section 2.2.3: of other CAs it can say nothing. */
static void answer_unauthorized(struct question *q)
{
    struct msg_answer_ocsp m = {.response = ocsp_error_response(OCSP_UNAUTHORIZED)};
    question_answer(q, MSG_answer_ocsp, &m);
}

int ocsp_question(struct authority *a, const struct msg_ocsp *m, struct peer *peer, uint64_t id)
{
    struct responding *r = a->responding;
    struct ocsp_certid certids[OCSP_CERTIDS_MAX];
    size_t count;
    if (ocsp_unpack(certids, &count, m->certids) || m->nonce.len > OCSP_NONCE_MAX)
        return -1;
    struct question *q = question_new(peer, id);
    if (!config_has_ocsp(a->config)) {
        refuse(q, ERR_not_found, "this CA has no key for OCSP");
        return 0;
    }
    for (size_t i = 0; i < count; i++)
        if (!is_own(r, &certids[i])) {
            answer_unauthorized(q);
            return 0;
        }
    struct answering *s = count == 1 && m->nonce.len == 0 ? find_same(r, certids) : NULL;
    int is_first = s == NULL;
    if (is_first)
        s = answering_new(r, certids, count, m->nonce);
    wait_for(s, q);
    if (is_first)
        begin(s);
    return 0;
}

/* ---- start and end ---- */

struct responding *responding_new(struct authority *a)
{
    struct responding *r = calloc(1, sizeof *r);
    const X509 *x = issuer_certificate(a->issuer);
    if (!r || hash_own(&r->own[0], x, EVP_sha1()) || hash_own(&r->own[1], x, EVP_sha256()))
        fatal("no memory");
    r->a = a;
    r->filled_at = monotonic_ms() - 1000;
    TAILQ_INIT(&r->list);
    return r;
}

void responding_free(struct responding *r)
{
    struct answering *s;
    while (r && (s = TAILQ_FIRST(&r->list)))
        give_up(s, ERR_draining, "the server is stopping");
    free(r);
}
