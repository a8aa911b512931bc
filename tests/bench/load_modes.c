/* load handshakes, idle, get. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "load.h"
#include "stats.h"

#define TIMES_MAX 2000000
#define AT_ONCE 32 /* connections in the making */

struct run {
    const struct options *o;
    struct buf request;
    size_t open, done, errors, begun;
    struct stats times;
};

static void on_lost(struct link *l)
{
    struct run *r = wire_arg(l->wire);
    if (++r->errors > 100)
        die("a hundred connections were lost");
    link_open(l);
}

static void on_no_answer(struct link *l, struct bytes body)
{
    (void)l, (void)body;
}

/* What ran for --seconds. */
static void report(struct run *r, double took, double cpu)
{
    printf("{\"count\":%zu,\"errors\":%zu,\"seconds\":%.6f,\"rate\":%.2f,\"load_cpu_us\":%.2f,",
           r->done, r->errors, took, (double)r->done / took,
           r->done ? cpu / (double)r->done * 1e6 : 0);
    stats_print(&r->times);
    puts("}");
}

static void timed_run(struct run *r, struct wire *w)
{
    double begun = now_seconds(), cpu = cpu_seconds();
    wire_run(w, begun + r->o->seconds);
    double took = now_seconds() - begun;
    cpu = cpu_seconds() - cpu;
    tell("stopped");
    report(r, took, cpu);
}

/* ---- handshakes ---- */

static void shake_on(struct link *l)
{
    struct run *r = wire_arg(l->wire);
    r->done++;
    stats_add(&r->times, now_seconds() - l->begun);
    link_open(l);
}

void mode_handshakes(const struct options *o)
{
    static const struct wire_events events = {link_close, on_no_answer, shake_on, on_lost};
    struct run r = {.o = o};
    SSL_CTX *ctx = options_context(o);
    /* or this side would be the slower one: the server's chain is looked at in every other mode */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    struct wire *w = wire_new(o->server, ctx, o->connections, &events, &r);
    stats_init(&r.times, TIMES_MAX);
    sync_point("ready");
    for (size_t i = 0; i < o->connections; i++)
        link_open(wire_link(w, i));
    timed_run(&r, w);
    wire_free(w);
    SSL_CTX_free(ctx);
    stats_free(&r.times);
}

/* ---- idle ---- */

static void open_another(struct link *l)
{
    struct run *r = wire_arg(l->wire);
    if (r->begun < r->o->connections)
        link_open(wire_link(l->wire, r->begun++));
    else if (r->open == r->o->connections)
        wire_stop(l->wire);
}

static void on_idle_open(struct link *l)
{
    struct run *r = wire_arg(l->wire);
    if (r->request.len) {
        link_ask(l, buf_view(&r->request));
        return;
    }
    r->open++;
    open_another(l);
}

static void on_idle_answer(struct link *l, struct bytes body)
{
    struct run *r = wire_arg(l->wire);
    (void)body;
    r->open++;
    open_another(l);
}

static void on_idle_lost(struct link *l)
{
    (void)l;
    die("an idle connection was lost");
}

static void add_request(struct run *r);

/* With --path each connection has asked once and had its answer, as one that is kept has. */
void mode_idle(const struct options *o)
{
    static const struct wire_events events = {on_idle_open, on_idle_answer, on_idle_lost,
                                              on_idle_lost};
    struct run r = {.o = o};
    SSL_CTX *ctx = options_context(o);
    if (o->path)
        add_request(&r);
    struct wire *w = wire_new(o->server, ctx, o->connections, &events, &r);
    for (; r.begun < o->connections && r.begun < AT_ONCE; r.begun++)
        link_open(wire_link(w, r.begun));
    wire_run(w, 0);
    sync_point("ready");
    tell("stopped");
    printf("{\"connections\":%zu}\n", r.open);
    wire_free(w);
    SSL_CTX_free(ctx);
    buf_free(&r.request);
}

/* ---- get ---- */

static void add_request(struct run *r)
{
    struct buf body = {0};
    struct err err;
    char head[512];
    if (r->o->body && file_read(&body, r->o->body, 1 << 20, &err))
        die("%s", err.text);
    int len = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: %s\r\n",
                       r->o->body ? "POST" : "GET", r->o->path, r->o->server);
    if (r->o->body)
        len += snprintf(head + len, sizeof head - (size_t)len,
                        "Content-Type: %s\r\nContent-Length: %zu\r\n", r->o->type, body.len);
    if (buf_add(&r->request, head, (size_t)len) || buf_add(&r->request, "\r\n", 2) ||
        buf_add(&r->request, body.data, body.len))
        die("no memory");
    buf_free(&body);
}

static void on_get_open(struct link *l)
{
    struct run *r = wire_arg(l->wire);
    if (++r->open == r->o->connections)
        wire_stop(l->wire);
}

static void on_get_answer(struct link *l, struct bytes body)
{
    struct run *r = wire_arg(l->wire);
    (void)body;
    r->errors += l->status != 200;
    r->done++;
    stats_add(&r->times, now_seconds() - l->begun);
    link_ask(l, buf_view(&r->request));
}

/* nginx is to be told to keep them (keepalive_requests). */
static void on_get_lost(struct link *l)
{
    die("%s: a connection was lost", ((struct run *)wire_arg(l->wire))->o->server);
}

void mode_get(const struct options *o)
{
    static const struct wire_events events = {on_get_open, on_get_answer, on_get_lost, on_get_lost};
    struct run r = {.o = o};
    add_request(&r);
    SSL_CTX *ctx = options_context(o);
    struct wire *w = wire_new(o->server, ctx, o->connections, &events, &r);
    stats_init(&r.times, TIMES_MAX);
    for (size_t i = 0; i < o->connections; i++)
        link_open(wire_link(w, i));
    wire_run(w, 0);
    sync_point("ready");
    for (size_t i = 0; i < o->connections; i++)
        link_ask(wire_link(w, i), buf_view(&r.request));
    timed_run(&r, w);
    wire_free(w);
    SSL_CTX_free(ctx);
    stats_free(&r.times);
    buf_free(&r.request);
}
