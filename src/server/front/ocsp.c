#include "server/front/ocsp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include "pki/ocsp.h"
#include "server/front/ocsp_cache.h"

#define PATIENCE                                                                                   \
    3           /* seconds for the authority; then an older answer that is still valid must do     \
                 */
#define PAUSE 5 /* seconds after a vain question, before the next for an answer that is there */

static const char response_type[] = "application/ocsp-response";

struct waiter {
    LIST_ENTRY(waiter) next;
    struct exchange *x;
};

/* A question that is with the authority, and who waits for its answer. */
struct asked {
    LIST_ENTRY(asked) next;
    struct ocsp *ocsp;
    struct question *question;
    struct event *patience;
    LIST_HEAD(, waiter) waiters;
    struct buf certids; /* packed */
    int shared;         /* by all who ask the same: one CertID, no nonce */
    int spare;          /* one CertID and a nonce: without the latter it may be asked again */
};

struct ocsp {
    struct event_base *base;
    struct authority *authority;
    struct ocsp_cache *cache;
    LIST_HEAD(, asked) asked;
};

static void ask_for_all(struct ocsp *o, struct exchange *x, struct bytes certid);

/* ---- answers ---- */

static void send_once(struct exchange *x, struct bytes response)
{
    struct buf copy = {0};
    struct err err = {0};
    struct blob *body = NULL;
    if (!buf_add(&copy, response.data, response.len))
        body = blob_take((char *)copy.data, copy.len);
    if (!body) {
        err_set(&err, ERR_busy, NULL);
        exchange_refuse(x, &err, 0);
        return;
    }
    exchange_add_header(x, "Cache-Control", "no-store");
    exchange_blob(x, response_type, body);
    blob_unref(body);
}

static void send_error(struct exchange *x, enum ocsp_error e)
{
    send_once(x, ocsp_error_response(e));
}

/* RFC 5019 section 6.2. Other caches may keep it as long as this one does. */
static void send_entry(struct exchange *x, const struct ocsp_entry *e, int64_t now)
{
    char cache[80];
    snprintf(cache, sizeof cache, "max-age=%" PRId64 ", public, no-transform, must-revalidate",
             e->ask_at > now ? e->ask_at - now : 1);
    exchange_add_header(x, "Cache-Control", cache);
    exchange_add_header(x, "Expires", e->expires);
    exchange_add_header(x, "Last-Modified", e->modified_text);
    exchange_add_header(x, "ETag", e->answer.etag);
    if (exchange_method(x) != EVHTTP_REQ_POST &&
        document_not_modified(&e->answer, exchange_header(x, "If-None-Match"),
                              exchange_header(x, "If-Modified-Since")))
        exchange_empty(x, HTTP_NOTMODIFIED);
    else
        exchange_blob(x, response_type, e->answer.body);
}

/* ---- who waits ---- */

static void forget_waiter(void *arg)
{
    struct waiter *w = arg;
    LIST_REMOVE(w, next);
    free(w);
}

static struct exchange *next_waiting(struct asked *q)
{
    struct waiter *w = LIST_FIRST(&q->waiters);
    struct exchange *x = w ? w->x : NULL;
    if (w)
        forget_waiter(w);
    return x;
}

static int wait_for(struct asked *q, struct exchange *x)
{
    struct waiter *w = calloc(1, sizeof *w);
    if (!w)
        return -1;
    w->x = x;
    LIST_INSERT_HEAD(&q->waiters, w, next);
    exchange_wait(x, forget_waiter, w);
    return 0;
}

static void asked_free(struct asked *q)
{
    while (LIST_FIRST(&q->waiters))
        forget_waiter(LIST_FIRST(&q->waiters));
    LIST_REMOVE(q, next);
    if (q->patience)
        event_free(q->patience);
    buf_free(&q->certids);
    free(q);
}

/* ---- questions ---- */

static struct ocsp_entry *find_kept(struct ocsp *o, struct bytes certid)
{
    return authority_is_behind(o->authority) ? NULL : ocsp_cache_find(o->cache, certid);
}

static struct ocsp_entry *find_valid(struct ocsp *o, struct bytes certid, int64_t now)
{
    struct ocsp_entry *e = find_kept(o, certid);
    return e && ocsp_entry_valid(e, now) ? e : NULL;
}

/* Those who wait get the answer that is kept, if it is still valid: whether there was one. */
static int give_what_is_kept(struct asked *q)
{
    int64_t now = (int64_t)time(NULL);
    struct exchange *x;
    struct ocsp_entry *e = find_valid(q->ocsp, buf_view(&q->certids), now);
    if (!e)
        return 0;
    if (q->shared) /* what one asker alone does not get says nothing of the others */
        ocsp_entry_put_off(e, now + PAUSE);
    while ((x = next_waiting(q)))
        send_entry(x, e, now);
    return 1;
}

static void on_patience(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    give_what_is_kept(arg);
}

static void refuse(struct asked *q, enum err_code code)
{
    struct exchange *x;
    struct err err = {0};
    err_set(&err, ERR_not_found, NULL);
    while ((x = next_waiting(q)))
        if (code == ERR_not_found) /* there is no responder */
            exchange_refuse(x, &err, 0);
        else
            send_error(x, code == ERR_internal ? OCSP_INTERNAL_ERROR : OCSP_TRY_LATER);
}

/* What is signed for one asker alone has a budget; beyond it he gets what everybody gets, without
 * his nonce (RFC 5019 section 4 expects as much of clients). */
static void on_error(struct asked *q, enum err_code code)
{
    struct exchange *x;
    if (code != ERR_not_found && give_what_is_kept(q))
        return;
    if (q->spare && (code == ERR_busy || code == ERR_too_many) && (x = next_waiting(q)))
        ask_for_all(q->ocsp, x, buf_view(&q->certids));
    refuse(q, code);
}

static void give_response(struct asked *q, const struct msg_answer_ocsp *m)
{
    struct exchange *x;
    int64_t now = (int64_t)time(NULL);
    struct ocsp_entry *e = NULL;
    if (q->shared && m->next_update > m->this_update) {
        ocsp_cache_put(q->ocsp->cache, buf_view(&q->certids), m);
        e = find_valid(q->ocsp, buf_view(&q->certids), now);
    }
    while ((x = next_waiting(q)))
        if (e)
            send_entry(x, e, now);
        else
            send_once(x, m->response);
}

static void on_answered(enum msg_type type, const union answer *answer, void *arg)
{
    struct asked *q = arg;
    if (type == MSG_answer_ocsp)
        give_response(q, &answer->ocsp);
    else
        on_error(q, (enum err_code)answer->error.code);
    asked_free(q);
}

static struct asked *asked_new(struct ocsp *o, struct bytes certids)
{
    const struct timeval patience = {PATIENCE, 0};
    struct asked *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->ocsp = o;
    LIST_INIT(&q->waiters);
    LIST_INSERT_HEAD(&o->asked, q, next);
    q->patience = evtimer_new(o->base, on_patience, q);
    if (q->patience && !event_add(q->patience, &patience) &&
        !buf_add(&q->certids, certids.data, certids.len))
        return q;
    asked_free(q);
    return NULL;
}

/* NULL: it cannot be asked now. */
static struct asked *send_question(struct ocsp *o, const struct exchange *x, struct bytes certids,
                                   struct bytes nonce)
{
    struct err err;
    struct msg_ocsp m = {exchange_caller(x)->address, certids, nonce};
    struct asked *q = asked_new(o, certids);
    if (q && authority_ask(o->authority, MSG_ocsp, &m, 1, on_answered, q, &q->question, &err)) {
        asked_free(q);
        return NULL;
    }
    return q;
}

/* x waits for the answer to q, or gets what there is without. */
static void wait_or_do_without(struct ocsp *o, struct exchange *x, struct asked *q,
                               struct bytes certids)
{
    int64_t now = (int64_t)time(NULL);
    if (q && !wait_for(q, x))
        return;
    struct ocsp_entry *e = find_valid(o, certids, now);
    if (e)
        send_entry(x, e, now);
    else
        send_error(x, OCSP_TRY_LATER);
}

/* Whose answer will be as true as if it were asked now. */
static struct asked *find_asked(const struct ocsp *o, struct bytes certid)
{
    struct asked *q;
    if (authority_is_behind(o->authority)) /* it may be answered already */
        return NULL;
    LIST_FOREACH (q, &o->asked, next)
        if (q->shared && bytes_equal(buf_view(&q->certids), certid))
            return q;
    return NULL;
}

static void ask_for_all(struct ocsp *o, struct exchange *x, struct bytes certid)
{
    struct asked *q = find_asked(o, certid);
    if (!q && (q = send_question(o, x, certid, (struct bytes){0})))
        q->shared = 1;
    wait_or_do_without(o, x, q, certid);
}

static void ask_for_one(struct ocsp *o, struct exchange *x, struct bytes certids,
                        const struct ocsp_request *req)
{
    struct asked *q = send_question(o, x, certids, (struct bytes){req->nonce, req->nonce_len});
    if (q)
        q->spare = req->count == 1;
    wait_or_do_without(o, x, q, certids);
}

/* ---- requests ---- */

static struct ocsp_entry *find_fresh(struct ocsp *o, struct bytes certid, int64_t now)
{
    struct ocsp_entry *e = find_kept(o, certid);
    return e && ocsp_entry_fresh(e, now) ? e : NULL;
}

static struct ocsp_entry *find_fresh_by_request(struct ocsp *o, struct bytes der, int64_t now)
{
    struct ocsp_entry *e = NULL;
    if (!authority_is_behind(o->authority))
        e = ocsp_cache_find_request(o->cache, der);
    return e && ocsp_entry_fresh(e, now) ? e : NULL;
}

static void serve_parsed(struct ocsp *o, struct exchange *x, struct bytes der,
                         const struct ocsp_request *req, int64_t now)
{
    struct buf certids = {0};
    struct ocsp_entry *e = NULL;
    int shared = req->count == 1 && req->nonce_len == 0;
    if (ocsp_pack(&certids, req->certids, req->count))
        send_error(x, OCSP_TRY_LATER);
    else if (shared && (e = find_fresh(o, buf_view(&certids), now))) {
        ocsp_cache_add_request(o->cache, e, der);
        send_entry(x, e, now);
    } else if (shared)
        ask_for_all(o, x, buf_view(&certids));
    else
        ask_for_one(o, x, buf_view(&certids), req);
    buf_free(&certids);
}

static void serve(struct ocsp *o, struct exchange *x, struct bytes der)
{
    int64_t now = (int64_t)time(NULL);
    struct ocsp_request req;
    struct ocsp_entry *e;
    if (authority_catch_up(o->authority))
        send_error(x, OCSP_TRY_LATER);
    else if ((e = find_fresh_by_request(o, der, now)))
        send_entry(x, e, now);
    else if (ocsp_request_parse(&req, der))
        send_error(x, OCSP_MALFORMED_REQUEST);
    else
        serve_parsed(o, x, der, &req, now);
}

int ocsp_serve_post(struct ocsp *o, struct exchange *x, struct err *err)
{
    struct bytes body = exchange_body(x);
    if (body.len > OCSP_REQUEST_MAX)
        return err_set(err, ERR_body_too_large, "an OCSP request has at most %d bytes",
                       OCSP_REQUEST_MAX);
    serve(o, x, body);
    return 0;
}

/* RFC 6960 appendix A.1: the base64, of which +, / and = may be escaped. */
int ocsp_serve_get(struct ocsp *o, struct exchange *x, struct err *err)
{
    size_t text_len = 0, len = 0;
    char *text = evhttp_uridecode(exchange_path(x) + strlen("/ocsp/"), 0, &text_len);
    uint8_t *der = text ? base64_decode(text, text_len, &len) : NULL;
    (void)err;
    serve(o, x, (struct bytes){der, der ? len : 0});
    free(der);
    free(text);
    return 0;
}

/* ---- the whole ---- */

int ocsp_forget(struct ocsp *o, const struct msg_ocsp_forget *m)
{
    struct bytes rest = m->serials;
    if (!rest.len)
        ocsp_cache_forget(o->cache, rest);
    while (rest.len) {
        size_t len = rest.data[0];
        if (len == 0 || len >= rest.len)
            return -1;
        ocsp_cache_forget(o->cache, (struct bytes){rest.data + 1, len});
        rest.data += 1 + len;
        rest.len -= 1 + len;
    }
    return 0;
}

struct ocsp *ocsp_new(struct event_base *base, struct authority *a)
{
    struct ocsp *o = calloc(1, sizeof *o);
    if (!o || !(o->cache = ocsp_cache_new(OCSP_CACHE_BYTES, OCSP_CACHE_ENTRIES))) {
        free(o);
        return NULL;
    }
    o->base = base;
    o->authority = a;
    LIST_INIT(&o->asked);
    return o;
}

void ocsp_free(struct ocsp *o)
{
    struct asked *q;
    if (!o)
        return;
    while ((q = LIST_FIRST(&o->asked))) {
        question_forget(q->question);
        asked_free(q);
    }
    ocsp_cache_free(o->cache);
    free(o);
}
