/* Which CRL is made, and when. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/authority/clock.h"
#include "server/authority/fronts.h"
#include "server/authority/projection.h"
#include "server/authority/publish_parts.h"
#include "server/authority/signers.h"

/* After a build the publisher rests so many times as long as it took: a fifth of a core. With
 * shards the full CRL and they have half of that each, so that a shard, which is quick to make,
 * does not wait for what the full one took. */
#define REST 4
#define REST_OF_HALF 9
#define REST_LEAST 1000 /* what comes within a second is gathered */

int64_t publish_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *publish_title(char out[CRL_TITLE_MAX], unsigned scope, uint64_t number)
{
    int n = snprintf(out, CRL_TITLE_MAX, "CRL");
    if (number)
        n += snprintf(out + n, CRL_TITLE_MAX - (size_t)n, " %llu", (unsigned long long)number);
    if (scope)
        snprintf(out + n, CRL_TITLE_MAX - (size_t)n, " of shard %u", scope);
    return out;
}

static void want(struct publishing *p, unsigned scope, enum urgency urgency)
{
    struct scope *s = &p->scopes[scope];
    if (s->wanted == NOT_WANTED)
        s->wanted_since = publish_clock();
    if (s->wanted < urgency)
        s->wanted = urgency;
}

/* ---- when one is done ---- */

void publish_done(struct publishing *p)
{
    struct scope *s = &p->scopes[p->building];
    int64_t now = publish_clock();
    int64_t rest = (now - p->begun) * (p->shards ? REST_OF_HALF : REST);
    p->rest_until[p->building > 0] = now + (rest > REST_LEAST ? rest : REST_LEAST);
    p->failures = 0;
    if (p->problem_of < 0 || p->problem_of == (int)p->building)
        p->problem[0] = '\0';
    s->current = p->next;
    s->current.published = 1;
    if (s->file >= 0)
        close(s->file);
    s->file = p->next_file;
    p->next_file = -1;
    projection_wanted(p->a->projection);
    fronts_send_crl(p->a->fronts, p->building);
}

/* Behind the others: what cannot be made keeps none of them waiting. */
void publish_failed(struct publishing *p, const char *why)
{
    char title[CRL_TITLE_MAX];
    p->scopes[p->building].wanted = AT_ONCE;
    p->scopes[p->building].wanted_since = publish_clock();
    p->failures++;
    p->not_before = publish_clock() + 1000 * (p->failures < 6 ? 1 << p->failures : 60);
    p->problem_of = (int)p->building;
    snprintf(p->problem, sizeof p->problem, "the %s could not be made: %s",
             publish_title(title, p->building, 0), why);
    log_error("%s; it is tried again", p->problem);
}

/* ---- which, and when ---- */

/* Half of its life is over; or it is of a time to come, from a clock that was ahead. */
static int is_due(const struct publishing *p, const struct scope *s)
{
    const struct crl_row *c = &s->current;
    int64_t now = clock_now(p->a->clock);
    return c->number == 0 || now < c->this_update ||
           now >= c->this_update + (c->next_update - c->this_update) / 2;
}

/* The one that has waited longest of those that need wait no longer; -1: none. */
static int choose(struct publishing *p)
{
    int64_t now = publish_clock();
    int chosen = -1;
    for (unsigned i = 0; i <= p->shards; i++) {
        struct scope *s = &p->scopes[i];
        if (is_due(p, s))
            want(p, i, AT_ONCE);
        if (s->wanted == NOT_WANTED || (s->wanted == SOON && now < p->rest_until[i > 0]))
            continue;
        if (chosen < 0 || s->wanted_since < p->scopes[chosen].wanted_since)
            chosen = (int)i;
    }
    return chosen;
}

/* Told once: what is revoked meanwhile is acknowledged, but verifiers do not see it yet. */
static void wait_for(struct publishing *p, unsigned scope, const char *what)
{
    char problem[sizeof p->problem], title[CRL_TITLE_MAX];
    snprintf(problem, sizeof problem,
             "the %s waits for the %s: what was revoked since CRL %llu is not on it yet",
             publish_title(title, scope, 0), what,
             (unsigned long long)p->scopes[scope].current.number);
    if (strcmp(problem, p->problem) != 0)
        log_warn("%s", problem);
    memcpy(p->problem, problem, sizeof problem);
    p->problem_of = -1;
}

/* After a start nothing is wrong with a token of which nothing was heard yet. */
static int is_first_login(const struct publishing *p)
{
    return !p->a->token_detail[0] && !signers_token(p->a->signers)[0];
}

static void begin(struct publishing *p)
{
    struct err err;
    int scope = choose(p);
    if (scope < 0 || publish_clock() < p->not_before)
        return;
    if (clock_usable(p->a->clock, &err))
        wait_for(p, (unsigned)scope, "clock");
    else if (signers_usable(p->a->signers, &err) == 0)
        build_begin(p, (unsigned)scope);
    else if (!is_first_login(p))
        wait_for(p, (unsigned)scope, "token");
}

static unsigned configured(const struct publishing *p)
{
    return p->a->config->crl_shards > 1 ? p->a->config->crl_shards : 0;
}

/* Often while one is made or wanted; each second there is publish_look(). */
static void look_again(struct publishing *p)
{
    struct timeval often = {0, 200000};
    int busy = p->phase != IDLE || p->issue_for != configured(p);
    for (unsigned i = 0; i <= p->shards && !busy; i++)
        busy = p->scopes[i].wanted != NOT_WANTED;
    if (busy && evtimer_add(p->timer, &often))
        fatal("no memory");
}

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct publishing *p = arg;
    if (p->a->stopping)
        return;
    if (p->issue_for != configured(p) && !p->configuring)
        publish_configure(p);
    if (p->phase == IDLE)
        begin(p);
    else
        build_check(p);
    look_again(p);
}

/* So that who looks after a revocation sees it, as far as the rest allows. */
void publish_look(struct publishing *p)
{
    if (p->phase == IDLE)
        event_active(p->timer, EV_TIMEOUT, 0);
}

void publish_wanted(struct publishing *p, uint64_t shards)
{
    want(p, 0, SOON);
    for (unsigned i = 1; i <= p->shards; i++)
        if (shards & shard_bit((int)i))
            want(p, i, SOON);
    publish_look(p);
}

void publish_rebuild(struct publishing *p)
{
    for (unsigned i = 0; i <= p->shards; i++)
        want(p, i, AT_ONCE);
    publish_look(p);
}

/* ---- shards ---- */

unsigned publish_shard_of(const struct publishing *p, struct bytes serial)
{
    return crl_shard_of(serial, p->issue_for);
}

int publish_keep_shards(struct store_tx *tx, unsigned shards)
{
    int64_t known = 0;
    if (tx_meta(tx, "crl_shards", &known) < 0)
        return -1;
    return shards > known ? tx_set_meta(tx, "crl_shards", shards) : 0;
}

void publish_know_shard(struct publishing *p, unsigned shard)
{
    if (shard > p->shards && shard <= CRL_SHARDS_MAX)
        p->shards = shard;
}

/* Before a certificate names a shard it is known, over a crash too, that it is to be published, and
 * under which URL. */
static int decide_shards(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    int rc = configured(p) ? tx_add_crl_url(tx, p->a->config->public_url) : 1;
    p->new_url = rc == 0;
    return rc < 0 ? -1 : publish_keep_shards(tx, configured(p));
}

static void after_shards(int durable, void *arg)
{
    struct publishing *p = arg;
    p->configuring = 0;
    if (!durable)
        return; /* tried again; until then certificates are given shards as before */
    publish_know_shard(p, configured(p));
    p->issue_for = configured(p);
    for (unsigned i = 1; p->new_url && i < SCOPES; i++)
        want(p, i, AT_ONCE);
    publish_look(p);
}

void publish_configure(struct publishing *p)
{
    if (store_submit(p->a->store, decide_shards, after_shards, p) == 0)
        p->configuring = 1;
}

/* ---- what others want to know ---- */

uint64_t publish_older(const struct publishing *p)
{
    int is_under_way = p->building == 0 && (p->phase == BUILDING || p->phase == RECORDING);
    return is_under_way ? p->next.number : p->scopes[0].current.number;
}

unsigned publish_shards(const struct publishing *p)
{
    return p->shards;
}

const struct crl_row *publish_current(const struct publishing *p, unsigned scope)
{
    return &p->scopes[scope].current;
}

int publish_file(const struct publishing *p, unsigned scope)
{
    return p->scopes[scope].file;
}

const char *publish_problem(const struct publishing *p)
{
    static char late[96];
    char title[CRL_TITLE_MAX];
    int64_t now = clock_now(p->a->clock);
    for (unsigned i = 0; i <= p->shards; i++) {
        const struct crl_row *c = &p->scopes[i].current;
        if (c->number == 0 || now < c->next_update)
            continue;
        snprintf(late, sizeof late, "the %s is past its nextUpdate; no new one could be made",
                 publish_title(title, i, 0));
        return late;
    }
    return p->problem[0] ? p->problem : NULL;
}

/* ---- start and end ---- */

int publishing_open(struct publishing **out, struct authority *a, struct err *err)
{
    struct publishing *p = calloc(1, sizeof *p);
    if (!p || !(p->timer = evtimer_new(a->base, on_timer, p)))
        fatal("no memory");
    p->a = a;
    p->next_file = -1;
    p->problem_of = -1;
    for (unsigned i = 0; i < SCOPES; i++)
        p->scopes[i].file = -1;
    publish_configure(p);
    store_commit(a->store);
    if (publish_load(p, err)) {
        publishing_close(p);
        return -1;
    }
    *out = p;
    return 0;
}

void publishing_close(struct publishing *p)
{
    if (!p)
        return;
    channel_free(p->publisher);
    event_free(p->timer);
    build_drop_file(p);
    for (unsigned i = 0; i < SCOPES; i++)
        if (p->scopes[i].file >= 0)
            close(p->scopes[i].file);
    free(p);
}
