#include "server/authority/clock.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/file.h"
#include "common/log.h"
#include "server/authority/projection.h"

#define BEHIND_MOST 300
#define JUMP_MOST 3600
#define REBASE_AFTER 86400 /* small corrections of a day must not add up to a jump */

/* What outlives the process, in the store: nobody gets around the rule by a restart. */
struct basis {
    int64_t boot_id;    /* the kernel's count begins anew with each boot */
    int64_t wall, boot; /* where both stood when last compared and found good */
    int64_t is_suspect;
};

static const struct {
    const char *name;
    size_t at;
} kept[] = {{"clock_boot_id", offsetof(struct basis, boot_id)},
            {"clock_wall", offsetof(struct basis, wall)},
            {"clock_boot", offsetof(struct basis, boot)},
            {"clock_suspect", offsetof(struct basis, is_suspect)}};
#define KEPT (sizeof kept / sizeof *kept)

struct clock_watch {
    struct authority *a;
    int64_t last_seen; /* the latest time known: of an event, or seen here */
    struct basis basis;
    enum { SAVED, UNSAVED, SAVING } saved;
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
    c->basis.wall = now_seconds();
    c->basis.boot = boot_seconds();
    c->basis.is_suspect = 0;
    c->saved = UNSAVED;
}

__attribute__((format(printf, 2, 3))) static void suspect(struct clock_watch *c, const char *fmt,
                                                          ...)
{
    char what[96];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    snprintf(c->problem, sizeof c->problem,
             "the clock is not trusted: %s; set it right, then signetctl clock accept: until then "
             "no certificate and no CRL is signed",
             what);
    log_error("%s", c->problem);
    if (!c->basis.is_suspect)
        c->saved = UNSAVED;
    c->basis.is_suspect = 1;
}

/* How far the clock went more than the kernel's own count. */
static int64_t jump_of(const struct clock_watch *c, int64_t now, int64_t boot)
{
    return (now - c->basis.wall) - (boot - c->basis.boot);
}

static void look(struct clock_watch *c)
{
    int64_t now = now_seconds(), boot = boot_seconds(), jump = jump_of(c, now, boot);
    if (c->problem[0])
        return;
    if (now < c->last_seen - BEHIND_MOST)
        suspect(c, "it is behind the last event by %lld s", (long long)(c->last_seen - now));
    else if (jump > JUMP_MOST || jump < -JUMP_MOST)
        suspect(c, "it jumped by %lld s", (long long)jump);
    else if (c->basis.is_suspect)
        suspect(c, "it was found wrong before signetd was restarted");
    else if (boot - c->basis.boot > REBASE_AFTER)
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

/* ---- what is kept ---- */

static int save_basis(struct store_tx *tx, const struct basis *b)
{
    for (size_t i = 0; i < KEPT; i++)
        if (tx_set_meta(tx, kept[i].name, *(const int64_t *)((const char *)b + kept[i].at)))
            return -1;
    return 0;
}

static int decide_save(struct store_tx *tx, void *arg)
{
    const struct clock_watch *c = arg;
    return save_basis(tx, &c->basis);
}

static void after_save(int durable, void *arg)
{
    struct clock_watch *c = arg;
    if (c->saved == SAVING)
        c->saved = durable ? SAVED : UNSAVED;
}

static void save(struct clock_watch *c)
{
    if (c->saved == UNSAVED && store_submit(c->a->store, decide_save, after_save, c) == 0)
        c->saved = SAVING;
}

/* 0 when the kernel does not say: then nothing is known of the time before. */
static int64_t read_boot_id(void)
{
    struct buf text;
    struct err err;
    uint8_t digest[32];
    int64_t id = 0;
    if (file_read(&text, "/proc/sys/kernel/random/boot_id", 64, &err))
        return 0;
    sha256(digest, buf_view(&text));
    buf_free(&text);
    memcpy(&id, digest, sizeof id);
    return id;
}

static int read_kept(struct store_tx *tx, void *arg)
{
    struct clock_watch *c = arg;
    struct basis b = {0};
    int rc = tx_last_event_time(tx, &c->last_seen) < 0 ? -1 : 0;
    for (size_t i = 0; i < KEPT && rc == 0; i++)
        rc = tx_meta(tx, kept[i].name, (int64_t *)((char *)&b + kept[i].at)) < 0 ? -1 : 0;
    if (rc)
        return -1;
    c->basis.is_suspect = b.is_suspect;
    if (b.boot_id && b.boot_id == c->basis.boot_id)
        c->basis = b;
    return 0;
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
    struct basis b = {acc->c->basis.boot_id, now_seconds(), boot_seconds(), 0};
    acc->now = b.wall;
    return tx_event(tx, acc->now, 0, "clock-accepted last=%lld", (long long)acc->before) ||
                   save_basis(tx, &b)
               ? -1
               : 0;
}

static void after_accept(int durable, void *arg)
{
    struct acceptance *acc = arg;
    struct msg_answer_end done = {0};
    struct err err;
    if (durable) {
        acc->c->a->started_at += jump_of(acc->c, acc->now, boot_seconds());
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
    save(arg);
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
    c->basis.boot_id = read_boot_id();
    if (store_read(a->store, read_kept, c)) {
        clock_close(c);
        return err_set(err, ERR_storage_unavailable, "the store cannot be read");
    }
    not_before_the_issuer(c);
    look(c);
    save(c);
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
