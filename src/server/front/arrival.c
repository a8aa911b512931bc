#include "server/front/arrival.h"

#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <event2/buffer.h>
#include <openssl/err.h>
#include "server/front/error_page.h"
#include "server/front/http.h"

struct arrival {
    LIST_ENTRY(arrival) next;
    struct bufferevent *bev;
    SSL *ssl;
    int64_t since;     /* of the first byte, monotonic; 0: nothing is coming in */
    int is_whole;      /* and not yet answered */
    size_t taken;      /* bytes of it that evhttp has taken out of the buffer */
    size_t header_end; /* counted from its first byte; 0: not seen yet */
};

struct arrivals {
    LIST_HEAD(, arrival) list;
    int index; /* of the arrival in an SSL's ex_data */
};

static int64_t monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec;
}

static void free_arrival(void *parent, void *arrival, CRYPTO_EX_DATA *data, int index, long l,
                         void *p)
{
    (void)parent, (void)data, (void)index, (void)l, (void)p;
    struct arrival *a = arrival;
    if (!a)
        return;
    LIST_REMOVE(a, next);
    free(a);
}

struct arrivals *arrivals_new(void)
{
    struct arrivals *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    LIST_INIT(&all->list);
    all->index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_arrival);
    if (all->index < 0) {
        free(all);
        return NULL;
    }
    return all;
}

static struct arrival *find(const struct arrivals *all, SSL *ssl)
{
    return ssl ? SSL_get_ex_data(ssl, all->index) : NULL;
}

/* ---- what comes in ---- */

/* evhttp takes whole lines, so the buffer begins with a line: of the header, or the empty one. */
static size_t find_header_end(const struct arrival *a, struct evbuffer *in)
{
    static const char *const ends[] = {"\n\r\n", "\n\n"};
    char start[2] = "";
    evbuffer_copyout(in, start, sizeof start);
    if (a->taken && (start[0] == '\n' || (start[0] == '\r' && start[1] == '\n')))
        return a->taken + 2;
    for (size_t i = 0; i < 2; i++) {
        size_t len = i ? 2 : 3;
        struct evbuffer_ptr at = evbuffer_search(in, ends[i], len, NULL);
        if (at.pos >= 0)
            return a->taken + (size_t)at.pos + len;
    }
    return 0;
}

static void look(struct arrival *a, struct evbuffer *in)
{
    if (!a->since)
        a->since = monotonic_seconds();
    if (!a->header_end)
        a->header_end = find_header_end(a, in);
}

static void on_input(struct evbuffer *in, const struct evbuffer_cb_info *info, void *arg)
{
    struct arrival *a = arg;
    if (a->is_whole)
        return;
    a->taken += info->n_deleted;
    if (info->n_added)
        look(a, in);
}

struct arrival *arrival_watch(struct arrivals *all, struct bufferevent *bev, SSL *ssl)
{
    struct arrival *a = calloc(1, sizeof *a);
    if (!a || !evbuffer_add_cb(bufferevent_get_input(bev), on_input, a)) {
        free(a);
        return NULL;
    }
    *a = (struct arrival){.bev = bev, .ssl = ssl};
    LIST_INSERT_HEAD(&all->list, a, next);
    if (SSL_set_ex_data(ssl, all->index, a))
        return a;
    evbuffer_remove_cb(bufferevent_get_input(bev), on_input, a);
    free_arrival(NULL, a, NULL, 0, 0, NULL);
    return NULL;
}

/* Connections that libevent has not quite ended live on. */
void arrivals_free(struct arrivals *all)
{
    struct arrival *a;
    while (all && (a = LIST_FIRST(&all->list))) {
        SSL_set_ex_data(a->ssl, all->index, NULL);
        evbuffer_remove_cb(bufferevent_get_input(a->bev), on_input, a);
        LIST_REMOVE(a, next);
        free(a);
    }
    free(all);
}

void arrival_whole(const struct arrivals *all, SSL *ssl)
{
    struct arrival *a = find(all, ssl);
    if (!a)
        return;
    a->is_whole = 1;
    a->since = 0;
}

void arrival_next(const struct arrivals *all, SSL *ssl)
{
    struct arrival *a = find(all, ssl);
    if (!a)
        return;
    a->is_whole = 0;
    a->taken = a->header_end = 0;
    struct evbuffer *in = bufferevent_get_input(a->bev);
    if (evbuffer_get_length(in) > 0)
        look(a, in);
}

int arrival_header_too_large(const struct arrival *a)
{
    size_t left = evbuffer_get_length(bufferevent_get_input(a->bev));
    return (a->header_end ? a->header_end : a->taken + left) > HTTP_HEADERS_MAX;
}

/* ---- what takes too long ---- */

/* Past evhttp, which has no answer to give while it reads, and whose way of giving one is for a
 * request that is there. What it sees is the end of the connection. */
static void refuse(struct arrival *a)
{
    size_t len;
    char *page = error_page(ERR_request_timeout, &len);
    if (page && evbuffer_get_length(bufferevent_get_output(a->bev)) == 0)
        SSL_write(a->ssl, page, (int)len);
    SSL_shutdown(a->ssl);
    ERR_clear_error();
    free(page);
    bufferevent_trigger_event(a->bev, BEV_EVENT_READING | BEV_EVENT_EOF, BEV_TRIG_DEFER_CALLBACKS);
}

/* bufferevent_free() takes the callbacks away, and ends it a little later. */
static int is_being_freed(const struct arrival *a)
{
    bufferevent_event_cb on_event;
    bufferevent_getcb(a->bev, NULL, NULL, &on_event, NULL);
    return !on_event;
}

void arrivals_check(struct arrivals *all)
{
    struct arrival *a;
    int64_t now = monotonic_seconds();
    LIST_FOREACH (a, &all->list, next)
        if (a->since && now - a->since >= ARRIVAL_SECONDS && !is_being_freed(a)) {
            a->since = 0;
            refuse(a);
        }
}
