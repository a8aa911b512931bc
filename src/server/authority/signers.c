#include "server/authority/signers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/log.h"
#include "hsm/token.h"
#include "server/authority/violation.h"

struct job {
    TAILQ_ENTRY(job) next;
    uint64_t id;
    uint8_t digest[DIGEST_MAX];
    size_t digest_len;
    enum token_key key;
    enum sign_priority priority;
    int tries;
    int64_t asked_at; /* monotonic, ms */
    signed_fn done;
    void *arg;
};
TAILQ_HEAD(jobs, job);

struct signer {
    LIST_ENTRY(signer) next;
    struct signers *all;
    unsigned number;
    struct channel *channel;
    struct jobs jobs; /* in the order sent: the first is the one it works on */
    size_t count;
    int64_t began_at; /* when it began the first */
    int ready, ended;
    int has_responder; /* the key that all->responder is */
};

struct signers {
    struct authority *a;
    LIST_HEAD(, signer) list;
    struct jobs waiting[SIGN_PRIORITIES];
    size_t waiting_count;
    struct event *watch;
    void (*on_ready)(void *arg);
    void *on_ready_arg;
    uint64_t next_id;
    unsigned last_answered; /* the signer whose signature is being looked at */
    char custody[512], token[256];
    unsigned custody_missing;
    struct buf responder; /* SubjectPublicKeyInfo of its key; empty: none */
    enum sign_alg responder_alg;
    unsigned responder_missing;
};

/* A digest at which so many signers died or gave up is not tried with the next one; nor one that
 * was asked for so many deadlines ago: who waits for it has other things to do. */
#define MAX_TRIES 3
#define MAX_DEADLINES 2

static int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void job_end(struct job *j, struct bytes signature, const struct err *err)
{
    j->done(j->arg, signature, err);
    free(j);
}

static void job_fail(struct job *j, const char *why)
{
    struct err err;
    err_set(&err, ERR_token_unavailable, "%s", why);
    job_end(j, (struct bytes){0}, &err);
}

static int send_job(struct signer *s, struct job *j)
{
    enum sign_alg alg =
        j->key == TOKEN_KEY_CA ? issuer_alg(s->all->a->issuer) : s->all->responder_alg;
    struct msg_sign m = {
        .key = (uint8_t)j->key, .alg = (uint8_t)alg, .digest = {j->digest, j->digest_len}};
    if (channel_send(s->channel, MSG_sign, j->id, &m, -1))
        return -1;
    if (s->count++ == 0)
        s->began_at = monotonic_ms();
    TAILQ_INSERT_TAIL(&s->jobs, j, next);
    return 0;
}

static struct signer *least_busy(struct signers *all, const struct job *j)
{
    struct signer *s, *best = NULL;
    size_t depth = j->priority == SIGN_FOR_OCSP ? SIGNER_DEPTH_OCSP : SIGNER_DEPTH;
    LIST_FOREACH (s, &all->list, next)
        if (s->ready && !s->ended && s->count < depth &&
            (j->key == TOKEN_KEY_CA || s->has_responder) && (!best || s->count < best->count))
            best = s;
    return best;
}

/* Keys are not mixed in one priority: a job that no signer has the key for keeps no other back. */
static struct job *next_job(struct signers *all, struct signer **s)
{
    for (int p = 0; p < SIGN_PRIORITIES; p++) {
        struct job *j = TAILQ_FIRST(&all->waiting[p]);
        if (j && (*s = least_busy(all, j)))
            return j;
    }
    return NULL;
}

static void dispatch(struct signers *all)
{
    struct signer *s;
    struct job *j;
    while ((j = next_job(all, &s))) {
        TAILQ_REMOVE(&all->waiting[j->priority], j, next);
        all->waiting_count--;
        if (send_job(s, j)) { /* its end is on the way; the job waits for another */
            s->ended = 1;
            TAILQ_INSERT_HEAD(&all->waiting[j->priority], j, next);
            all->waiting_count++;
        }
    }
}

static void put_back(struct signers *all, struct job *j)
{
    TAILQ_INSERT_HEAD(&all->waiting[j->priority], j, next);
    all->waiting_count++;
}

static int is_late(const struct signers *all, const struct job *j, int64_t deadlines)
{
    return monotonic_ms() - j->asked_at > deadlines * (int64_t)all->a->config->sign_deadline_ms;
}

static void retry_or_fail(struct signers *all, struct job *j, const char *why)
{
    if (++j->tries >= MAX_TRIES || is_late(all, j, MAX_DEADLINES))
        job_fail(j, why);
    else
        put_back(all, j);
}

/* In their order; only the one that it worked on had a try. */
static void give_back(struct signer *s, const char *why)
{
    struct job *j;
    while ((j = TAILQ_LAST(&s->jobs, jobs))) {
        TAILQ_REMOVE(&s->jobs, j, next);
        if (--s->count == 0)
            retry_or_fail(s->all, j, why);
        else
            put_back(s->all, j);
    }
}

/* Of a signer that was killed, or ended just after its answer, the supervisor knows no detail. */
void signers_token_state(struct signers *all, uint8_t fault, const char *detail)
{
    struct authority *a = all->a;
    int is_blocked = a->token_fault == TOKEN_PIN_REFUSED || a->token_fault == TOKEN_PIN_LAST;
    if (fault == TOKEN_LOST && (is_blocked || (!detail[0] && a->token_detail[0])))
        return;
    a->token_fault = fault;
    snprintf(a->token_detail, sizeof a->token_detail, "%s",
             fault == TOKEN_LOST && !detail[0] ? "the signer process ended" : detail);
}

/* Has the supervisor kill it; what it still says is not listened to. */
static void end_signer(struct signer *s, const char *why)
{
    struct msg_peer_end m = {.role = PROC_SIGNER, .number = s->number, .why = why};
    if (s->ended)
        return;
    s->ended = 1;
    log_warn("signer %u is ended: %s", s->number, why);
    signers_token_state(s->all, TOKEN_LOST, why);
    channel_send(s->all->a->supervisor, MSG_peer_end, 0, &m, -1);
    give_back(s, why);
    dispatch(s->all);
}

/* Another key than before: signers that still have the old one get no more jobs for it. */
static int take_responder(struct signer *s, const struct msg_signer_hello *m)
{
    struct signers *all = s->all;
    struct signer *other;
    enum sign_alg alg = all->responder_alg;
    if (m->responder_spki.len && sign_alg_of(&alg, m->responder_spki, NULL))
        return -1;
    if (!bytes_equal(m->responder_spki, buf_view(&all->responder))) {
        LIST_FOREACH (other, &all->list, next)
            other->has_responder = 0;
        all->responder.len = 0;
        if (buf_add(&all->responder, m->responder_spki.data, m->responder_spki.len))
            return -1;
    }
    s->has_responder = m->responder_spki.len > 0;
    all->responder_alg = alg;
    all->responder_missing = s->has_responder ? CUSTODY_ALL & ~m->responder_custody : 0;
    return 0;
}

static int on_hello(struct signer *s, const struct msg_signer_hello *m)
{
    struct signers *all = s->all;
    if (s->ready || take_responder(s, m))
        return -1;
    s->ready = 1;
    snprintf(all->token, sizeof all->token, "%s", m->token);
    unsigned missing = CUSTODY_ALL & ~m->custody;
    all->custody_missing = missing;
    if (missing)
        snprintf(all->custody, sizeof all->custody, "exception in force (missing bits %#x): %s",
                 missing, all->a->config->custody_exception);
    else
        snprintf(all->custody, sizeof all->custody, "complete, as the module claims");
    size_t used = strlen(all->custody);
    if (all->responder_missing)
        snprintf(all->custody + used, sizeof all->custody - used,
                 "; OCSP responder's key: exception in force (missing bits %#x): %s",
                 all->responder_missing, all->a->config->ocsp_custody_exception);
    log_info("signer %u is ready: %s", s->number, m->token);
    dispatch(all);
    if (all->on_ready)
        all->on_ready(all->on_ready_arg);
    return 0;
}

static struct job *take_job(struct signer *s, uint64_t id)
{
    struct job *j = TAILQ_FIRST(&s->jobs);
    if (!j || j->id != id)
        return NULL; /* signers answer in order; anything else is a broken one */
    TAILQ_REMOVE(&s->jobs, j, next);
    s->count--;
    s->began_at = monotonic_ms();
    return j;
}

static int on_signed(struct signer *s, uint64_t id, const struct msg_signed *m)
{
    /* none would be taken for a failure, and that has a reason with it */
    struct job *j = m->signature.len ? take_job(s, id) : NULL;
    if (!j)
        return -1;
    struct signers *all = s->all;
    all->last_answered = s->number;
    job_end(j, m->signature, NULL);
    dispatch(all);
    return 0;
}

static int on_failed(struct signer *s, uint64_t id, const struct msg_sign_failed *m)
{
    struct job *j = take_job(s, id);
    if (!j)
        return -1;
    if (m->fault == TOKEN_TRANSIENT)
        log_warn("signer %u: %s", s->number, m->detail);
    else
        end_signer(s, m->detail);
    if (m->fault == TOKEN_ABSENT)
        signers_token_state(s->all, m->fault, m->detail);
    retry_or_fail(s->all, j, m->detail);
    dispatch(s->all);
    return 0;
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct signer *s = arg;
    union {
        struct msg_signer_hello hello;
        struct msg_signed signature;
        struct msg_sign_failed failed;
    } body;
    if (s->ended)
        return 0;
    if (m->fd >= 0 || msg_decode(&body, m->type, m->fields))
        return -1;
    switch (m->type) {
    case MSG_signer_hello:
        return on_hello(s, &body.hello);
    case MSG_signed:
        return on_signed(s, m->id, &body.signature);
    case MSG_sign_failed:
        return on_failed(s, m->id, &body.failed);
    default:
        return -1;
    }
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct signer *s = arg;
    struct signers *all = s->all;
    if (why && !s->ended)
        violation_journal(all->a, PROC_SIGNER, s->number, why);
    if (why)
        end_signer(s, why);
    LIST_REMOVE(s, next);
    give_back(s, "the signer process ended");
    channel_free(c);
    free(s);
    dispatch(all);
}

void signers_add(struct signers *all, unsigned number, int socket)
{
    static const struct channel_handlers handlers = {on_message, on_end};
    struct signer *s = calloc(1, sizeof *s);
    if (!s)
        fatal("no memory for a signer");
    s->all = all;
    s->number = number;
    TAILQ_INIT(&s->jobs);
    s->channel = channel_new(all->a->base, socket, PROC_AUTHORITY, PROC_SIGNER, &handlers, s);
    if (!s->channel)
        fatal("no memory for a signer's channel");
    LIST_INSERT_HEAD(&all->list, s, next);
}

static void fail_late(struct signers *all, int64_t deadlines, const char *why)
{
    struct job *j;
    for (int p = 0; p < SIGN_PRIORITIES; p++)
        while ((j = TAILQ_FIRST(&all->waiting[p])) && is_late(all, j, deadlines)) {
            TAILQ_REMOVE(&all->waiting[p], j, next);
            all->waiting_count--;
            job_fail(j, why);
        }
}

static int any_jobs(const struct signers *all)
{
    const struct signer *s;
    size_t n = all->waiting_count;
    LIST_FOREACH (s, &all->list, next)
        n += s->count;
    return n > 0;
}

/* Twice a second while there are jobs: calls past their deadline, and jobs that nobody could take
 * for as long. */
static void on_watch(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct signers *all = arg;
    int64_t now = monotonic_ms(), deadline = all->a->config->sign_deadline_ms;
    struct signer *s, *next;
    for (s = LIST_FIRST(&all->list); s; s = next) {
        next = LIST_NEXT(s, next);
        if (!s->ended && s->count && now - s->began_at > deadline)
            end_signer(s, "a signature took longer than sign_deadline");
    }
    if (signers_ready(all))
        fail_late(all, MAX_DEADLINES, "the token is too slow for all that is asked of it");
    else
        fail_late(all, 1, "no signer is ready; the token is not available");
    if (!any_jobs(all))
        event_del(all->watch);
}

struct signers *signers_new(struct authority *a)
{
    struct signers *all = calloc(1, sizeof *all);
    if (!all)
        fatal("no memory");
    all->a = a;
    LIST_INIT(&all->list);
    for (int p = 0; p < SIGN_PRIORITIES; p++)
        TAILQ_INIT(&all->waiting[p]);
    all->watch = event_new(a->base, -1, EV_PERSIST, on_watch, all);
    if (!all->watch)
        fatal("no memory");
    return all;
}

void signers_free(struct signers *all)
{
    struct signer *s;
    struct job *j;
    if (!all)
        return;
    while ((s = LIST_FIRST(&all->list))) {
        LIST_REMOVE(s, next);
        give_back(s, "signetd is stopping");
        channel_free(s->channel);
        free(s);
    }
    for (int p = 0; p < SIGN_PRIORITIES; p++)
        while ((j = TAILQ_FIRST(&all->waiting[p]))) {
            TAILQ_REMOVE(&all->waiting[p], j, next);
            free(j);
        }
    event_free(all->watch);
    buf_free(&all->responder);
    free(all);
}

void signers_on_ready(struct signers *all, void (*ready)(void *arg), void *arg)
{
    all->on_ready = ready;
    all->on_ready_arg = arg;
}

unsigned signers_ready(const struct signers *all)
{
    unsigned n = 0;
    const struct signer *s;
    LIST_FOREACH (s, &all->list, next)
        n += s->ready && !s->ended;
    return n;
}

size_t signers_waiting(const struct signers *all)
{
    size_t n = all->waiting_count;
    const struct signer *s;
    LIST_FOREACH (s, &all->list, next)
        n += s->count;
    return n;
}

const char *signers_custody(const struct signers *all)
{
    return all->custody;
}

unsigned signers_custody_missing(const struct signers *all)
{
    return all->custody_missing;
}

const char *signers_token(const struct signers *all)
{
    return all->token;
}

struct bytes signers_responder_spki(const struct signers *all)
{
    return buf_view(&all->responder);
}

unsigned signers_responder_missing(const struct signers *all)
{
    return all->responder_missing;
}

int signers_usable(const struct signers *all, struct err *err)
{
    if (signers_ready(all))
        return 0;
    return err_set(err, ERR_token_unavailable, "the signing token is not available%s%s; try again",
                   all->a->token_detail[0] ? ": " : "", all->a->token_detail);
}

int signers_sign(struct signers *all, enum token_key key, enum sign_priority priority,
                 struct bytes digest, signed_fn done, void *arg)
{
    static const struct timeval half_second = {0, 500000};
    struct job *j = calloc(1, sizeof *j);
    if (!j || digest.len > sizeof j->digest) {
        free(j);
        return -1;
    }
    memcpy(j->digest, digest.data, digest.len);
    j->digest_len = digest.len;
    j->id = ++all->next_id;
    j->key = key;
    j->priority = priority;
    j->asked_at = monotonic_ms();
    j->done = done;
    j->arg = arg;
    TAILQ_INSERT_TAIL(&all->waiting[priority], j, next);
    all->waiting_count++;
    if (!event_pending(all->watch, EV_TIMEOUT, NULL) && event_add(all->watch, &half_second))
        fatal("no memory");
    dispatch(all);
    return 0;
}

void signers_distrust(struct signers *all, const char *why)
{
    struct signer *s;
    LIST_FOREACH (s, &all->list, next)
        if (s->number == all->last_answered && !s->ended) {
            violation_journal(all->a, PROC_SIGNER, s->number, why);
            end_signer(s, why);
            return;
        }
}
