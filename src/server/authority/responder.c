#include "server/authority/responder.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/authority/clock.h"
#include "server/authority/issue.h"
#include "server/authority/signers.h"

#define LIFE (7 * 86400)
#define NAME "OCSP-responder"
#define LIST_MOST 100000 /* certificates of this name: a thousand years of them */

struct delegation {
    struct authority *a;
    struct responder *current; /* NULL: none */
    int64_t id, not_before, not_after;
    struct buf spki;                     /* of the key that all this is for */
    int64_t look_again_at, ask_again_at; /* in seconds of a clock that nobody sets */
    int busy;
    struct event *timer;
    char problem[512];
};

static int64_t monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec;
}

static void use(struct delegation *d, struct responder *r, int64_t id)
{
    responder_free(d->current);
    d->current = r;
    d->id = id;
    d->a->ocsp_responder = r;
}

static void drop(struct delegation *d)
{
    use(d, NULL, 0);
}

/* Said once. */
__attribute__((format(printf, 2, 3))) static void set_problem(struct delegation *d, const char *fmt,
                                                              ...)
{
    char text[sizeof d->problem];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (strcmp(text, d->problem) != 0 && *text)
        log_error("%s", text);
    memcpy(d->problem, text, sizeof text);
}

/* ---- what is in the store ---- */

/* The best of those on this key: in force, and with the latest end. */
struct search {
    struct delegation *d;
    uint8_t spki_sha256[32];
    int64_t now, id, not_after;
    struct responder *found;
    int64_t not_before;
};

static int look_at(const struct certificate_row *row, void *arg)
{
    struct search *s = arg;
    if (strcmp(row->profile, PROFILE_OCSP) != 0 || row->issuer != s->d->a->issuer_id ||
        memcmp(row->spki_sha256, s->spki_sha256, 32) != 0)
        return 0;
    if (row->state == STATE_ISSUED && s->now >= row->not_before && row->not_after > s->now &&
        row->not_after > s->not_after) {
        s->id = row->id;
        s->not_after = row->not_after;
    }
    return 0;
}

static int find(struct store_tx *tx, void *arg)
{
    struct search *s = arg;
    struct list_filter filter = {.name = NAME, .state = -1, .limit = LIST_MOST};
    struct certificate_row row;
    struct err err;
    if (tx_list(tx, &filter, look_at, s))
        return -1;
    if (!s->id)
        return 0;
    if (tx_certificate_by_id(tx, s->id, &row))
        return -1;
    s->not_before = row.not_before;
    if (s->id != s->d->id && responder_new(&s->found, row.der, &err))
        log_warn("a certificate of the OCSP responder is of no use: %s", err.text);
    return 0;
}

/* Takes the one that is there; what is in use and still the best stays as it is. */
static void look(struct delegation *d)
{
    struct search s = {.d = d, .now = clock_now(d->a->clock)};
    sha256(s.spki_sha256, buf_view(&d->spki));
    if (store_read(d->a->store, find, &s))
        return; /* the store's own problem is told; what is in use stays */
    if (s.id != d->id)
        drop(d);
    if (s.found) {
        use(d, s.found, s.id);
        d->not_before = s.not_before;
        d->not_after = s.not_after;
    }
}

/* ---- a new one ---- */

static void on_issued(void *arg, struct bytes serial, struct bytes der, const struct err *why)
{
    struct delegation *d = arg;
    (void)serial, (void)der;
    d->busy = 0;
    if (why->code) {
        set_problem(d, "the OCSP responder's certificate: %s; it is tried again", why->text);
        return;
    }
    set_problem(d, "%s", "");
    d->look_again_at = 0;
}

static void ask(struct delegation *d)
{
    struct issue_request req = {
        .origin = ISSUE_FOR_RESPONDER,
        .operation = "responder",
        .profile = PROFILE_OCSP,
        .name = NAME,
        .spki = buf_view(&d->spki),
        .lifetime = LIFE,
    };
    d->ask_again_at = monotonic_seconds() + 5;
    d->busy = 1;
    issue(d->a, &req, on_issued, d);
}

/* ---- when ---- */

/* 1: there is a key to have a certificate for. Another key than before begins anew. */
static int take_key(struct delegation *d)
{
    struct bytes spki = signers_responder_spki(d->a->signers);
    if (bytes_equal(spki, buf_view(&d->spki)))
        return spki.len > 0;
    drop(d);
    set_problem(d, "%s", "");
    d->look_again_at = d->ask_again_at = 0;
    d->spki.len = 0;
    if (buf_add(&d->spki, spki.data, spki.len))
        fatal("no memory");
    return spki.len > 0;
}

static int is_valid(const struct delegation *d, int64_t now)
{
    return d->current && now >= d->not_before && now < d->not_after;
}

/* At half of its life; but what ends with the CA is not bettered by another. */
static int is_due(const struct delegation *d, int64_t now)
{
    if (!is_valid(d, now))
        return 1;
    return now >= d->not_before + (d->not_after - d->not_before) / 2 &&
           d->not_after < issuer_not_after(d->a->issuer);
}

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct delegation *d = arg;
    int64_t now = clock_now(d->a->clock);
    if (d->a->stopping || !take_key(d) || clock_problem(d->a->clock))
        return;
    if (d->current && !is_valid(d, now)) {
        log_warn("the OCSP responder's certificate is not valid now; another is needed");
        drop(d);
    }
    if (!is_due(d, now) || d->busy || monotonic_seconds() < d->look_again_at)
        return;
    d->look_again_at = monotonic_seconds() + 1;
    look(d);
    if (is_due(d, now) && monotonic_seconds() >= d->ask_again_at &&
        signers_usable(d->a->signers, NULL) == 0)
        ask(d);
}

struct delegation *delegation_new(struct authority *a)
{
    struct delegation *d = calloc(1, sizeof *d);
    if (!d || !(d->timer = evtimer_new(a->base, on_timer, d)))
        fatal("no memory");
    d->a = a;
    return d;
}

void delegation_look(struct delegation *d)
{
    event_active(d->timer, EV_TIMEOUT, 0);
}

void delegation_free(struct delegation *d)
{
    if (!d)
        return;
    event_free(d->timer);
    drop(d);
    buf_free(&d->spki);
    free(d);
}

const char *responder_problem(const struct authority *a)
{
    const struct delegation *d = a->delegation;
    return d && d->problem[0] ? d->problem : NULL;
}
