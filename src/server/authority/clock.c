#include "server/authority/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "server/authority/projection.h"

#define BEHIND_MOST 300
#define JUMP_MOST 3600
#define REBASE_AFTER 86400 /* small corrections of a day must not add up to a jump */

struct clock_watch {
    struct authority *a;
    int64_t last_seen;  /* the latest time known: of an event, or seen here */
    int64_t wall, boot; /* where both stood when last compared and found good */
    struct event *timer;
    char problem[256];
};

static int64_t boot_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec;
}

static void take_as_good(struct clock_watch *c)
{
    c->wall = now_seconds();
    c->boot = boot_seconds();
}

static void suspect(struct clock_watch *c, const char *what, int64_t seconds)
{
    snprintf(c->problem, sizeof c->problem,
             "the clock is not trusted: %s by %lld s; set it right, then signetctl clock accept",
             what, (long long)seconds);
    log_error("%s; nothing is signed until then", c->problem);
}

static void look(struct clock_watch *c)
{
    int64_t now = now_seconds(), boot = boot_seconds();
    int64_t jump = (now - c->wall) - (boot - c->boot);
    if (c->problem[0])
        return;
    if (now < c->last_seen - BEHIND_MOST)
        suspect(c, "it is behind the last event", c->last_seen - now);
    else if (jump > JUMP_MOST || jump < -JUMP_MOST)
        suspect(c, "it jumped", jump);
    else if (boot - c->boot > REBASE_AFTER)
        take_as_good(c);
    if (!c->problem[0] && now > c->last_seen)
        c->last_seen = now;
}

int clock_usable(struct clock_watch *c, struct err *err)
{
    look(c);
    return c->problem[0] ? err_set(err, ERR_clock_suspect, "%s", c->problem) : 0;
}

const char *clock_problem(struct clock_watch *c)
{
    look(c);
    return c->problem[0] ? c->problem : NULL;
}

int64_t clock_now(struct clock_watch *c)
{
    look(c);
    return c->last_seen;
}

/* ---- accept ---- */

struct acceptance {
    struct clock_watch *c;
    struct question *q;
    int64_t before, now;
};

static int decide_accept(struct store_tx *tx, void *arg)
{
    struct acceptance *acc = arg;
    acc->now = now_seconds();
    return tx_event(tx, acc->now, 0, "clock-accepted last=%lld", (long long)acc->before);
}

static void after_accept(int durable, void *arg)
{
    struct acceptance *acc = arg;
    struct msg_answer_end done = {0};
    struct err err;
    if (durable) {
        take_as_good(acc->c);
        acc->c->last_seen = acc->now;
        acc->c->problem[0] = '\0';
        log_info("the clock was accepted as it is");
        projection_wanted(acc->c->a->projection);
        question_answer(acc->q, MSG_answer_end, &done);
    } else {
        err_set(&err, ERR_storage_unavailable, NULL);
        question_refuse(acc->q, &err);
    }
    free(acc);
}

void clock_accept(struct clock_watch *c, struct question *q)
{
    struct acceptance *acc = calloc(1, sizeof *acc);
    if (!acc)
        fatal("no memory");
    *acc = (struct acceptance){.c = c, .q = q, .before = c->last_seen};
    if (store_submit(c->a->store, decide_accept, after_accept, acc))
        fatal("no memory");
}

/* ---- start ---- */

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    look(arg);
}

static int read_last(struct store_tx *tx, void *arg)
{
    struct clock_watch *c = arg;
    return tx_last_event_time(tx, &c->last_seen) < 0 ? -1 : 0;
}

/* The CA's certificate is the first event of all. */
static void not_before_the_issuer(struct clock_watch *c)
{
    struct tm tm;
    const X509 *x = issuer_certificate(c->a->issuer);
    if (ASN1_TIME_to_tm(X509_get0_notBefore(x), &tm) == 1 && timegm(&tm) > c->last_seen)
        c->last_seen = timegm(&tm);
}

int clock_open(struct clock_watch **out, struct authority *a, struct err *err)
{
    struct clock_watch *c = calloc(1, sizeof *c);
    struct timeval second = {1, 0};
    if (!c || !(c->timer = event_new(a->base, -1, EV_PERSIST, on_timer, c)) ||
        event_add(c->timer, &second))
        fatal("no memory");
    c->a = a;
    take_as_good(c);
    if (store_read(a->store, read_last, c)) {
        clock_close(c);
        return err_set(err, ERR_storage_unavailable, "the store cannot be read");
    }
    not_before_the_issuer(c);
    look(c);
    *out = c;
    return 0;
}

void clock_close(struct clock_watch *c)
{
    if (!c)
        return;
    event_free(c->timer);
    free(c);
}
