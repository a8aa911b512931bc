#include "server/front/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <openssl/err.h>
#include "common/log.h"
#include "server/front/answer.h"
#include "server/front/arrival.h"
#include "server/front/error_page.h"
#include "server/front/protocol.h"
#include "server/request/request.h"

#define INPUT_MAX ((size_t)2 * REQUEST_MAX) /* of a connection, not yet looked at */
#define LOG_LINES 20                        /* refusals a second; more are counted */

struct http {
    struct event_base *base;
    struct evhttp *evhttp;
    const struct tls *tls; /* NULL: plain */
    struct arrivals *arrivals;
    struct evconnlistener *listener;
    struct event *tick, *drained;
    struct http_handlers handlers;
    void *arg;
    LIST_HEAD(, exchange) exchanges;
    unsigned in_flight;
    unsigned refused; /* in this second */
    int retiring, draining;
};

/* Its life is the request's: from on_request() until on_complete(), when the answer is written, or
 * on_close(), when the connection ends first. */
struct exchange {
    LIST_ENTRY(exchange) next;
    struct http *http;
    struct evhttp_request *req;
    enum operation op;
    const struct caller *caller;
    struct caller plain;     /* without TLS there is only an address */
    const struct blob *body; /* of the answer, when it is one that others share */
    int answered;            /* evhttp has it and frees the request */
    int errors_as_text;
    void (*forget)(void *arg);
    void *forget_arg;
};

/* ---- connections ---- */

static struct bufferevent *new_bufferevent(const struct http *h)
{
    if (!h->tls)
        return bufferevent_socket_new(h->base, -1, BEV_OPT_CLOSE_ON_FREE);
    SSL *ssl = tls_connection(h->tls);
    /* frees ssl if it fails */
    return ssl ? bufferevent_openssl_socket_new(h->base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                                BEV_OPT_CLOSE_ON_FREE)
               : NULL;
}

/* NULL makes evhttp take a plain connection, also where TLS is wanted: on_request() looks. */
static struct bufferevent *new_connection(struct event_base *base, void *arg)
{
    (void)base;
    struct http *h = arg;
    struct bufferevent *bev = new_bufferevent(h);
    struct arrival *arrival = NULL;
    if (!bev)
        return NULL;
    if ((h->tls &&
         !(arrival = arrival_watch(h->arrivals, bev, bufferevent_openssl_get_ssl(bev)))) ||
        error_page_watch(bufferevent_get_output(bev), arrival)) {
        bufferevent_free(bev);
        return NULL;
    }
    /* evhttp reads on while it writes an answer, to learn of the end; so there must be an end to
     * what a client can send that does not read. */
    bufferevent_setwatermark(bev, EV_READ, 0, INPUT_MAX);
    return bev;
}

static SSL *ssl_of(struct evhttp_connection *connection)
{
    return bufferevent_openssl_get_ssl(evhttp_connection_get_bufferevent(connection));
}

/* RFC 8446 section 6.1: say that the end is the end. bufferevent_openssl does not. */
static void say_goodbye(struct evhttp_connection *connection, void *arg)
{
    (void)arg;
    SSL *ssl = ssl_of(connection);
    if (ssl && !SSL_in_init(ssl))
        SSL_shutdown(ssl);
    ERR_clear_error();
}

/* ---- exchanges ---- */

static void exchange_end(struct exchange *x)
{
    struct http *h = x->http;
    LIST_REMOVE(x, next);
    free(x);
    h->in_flight--;
    if (h->draining && h->in_flight == 0)
        event_active(h->drained, 0, 0);
}

/* The answer is written. */
static void on_complete(struct evhttp_request *req, void *arg)
{
    struct exchange *x = arg;
    struct evhttp_connection *connection = evhttp_request_get_connection(req);
    evhttp_connection_set_closecb(connection, say_goodbye, NULL);
    arrival_next(x->http->arrivals, ssl_of(connection));
    exchange_end(x);
}

/* The connection ends before the answer is written. If the answer was not even given, evhttp has
 * left the request to us, which it shows by taking the connection out of it. */
static void on_close(struct evhttp_connection *connection, void *arg)
{
    struct exchange *x = arg;
    say_goodbye(connection, NULL);
    if (x->forget)
        x->forget(x->forget_arg);
    if (!x->answered && !evhttp_request_get_connection(x->req))
        evhttp_request_free(x->req);
    exchange_end(x);
}

static void take_address(char *out, size_t size, const struct evhttp_request *req)
{
    const char *host = req->remote_host ? req->remote_host : "";
    snprintf(out, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, req->remote_port);
}

static int take_caller(struct exchange *x)
{
    char address[sizeof x->plain.address];
    take_address(address, sizeof address, x->req);
    snprintf(x->plain.address, sizeof x->plain.address, "%s", address);
    x->caller = &x->plain;
    if (!x->http->tls)
        return 0;
    SSL *ssl = ssl_of(evhttp_request_get_connection(x->req));
    const struct caller *caller = ssl ? tls_caller(x->http->tls, ssl, address) : NULL;
    if (!caller)
        return -1;
    x->caller = caller;
    return 0;
}

static struct exchange *exchange_begin(struct http *h, struct evhttp_request *req)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->http = h;
    x->req = req;
    x->op = OP_NONE;
    LIST_INSERT_HEAD(&h->exchanges, x, next);
    h->in_flight++;
    evhttp_connection_set_closecb(evhttp_request_get_connection(req), on_close, x);
    evhttp_request_set_on_complete_cb(req, on_complete, x);
    return x;
}

static void refuse_and_close(struct exchange *x, const struct err *why)
{
    exchange_add_header(x, "Connection", "close");
    exchange_refuse(x, why, 0);
}

static void on_request(struct evhttp_request *req, void *arg)
{
    struct http *h = arg;
    struct err err = {0};
    struct exchange *x = exchange_begin(h, req);
    arrival_whole(h->arrivals, ssl_of(evhttp_request_get_connection(req)));
    if (!x) {
        evhttp_send_error(req, HTTP_SERVUNAVAIL, NULL);
        return;
    }
    if (take_caller(x)) {
        err_set(&err, ERR_internal, "out of memory");
        refuse_and_close(x, &err);
    } else if (protocol_check(req, &err)) {
        refuse_and_close(x, &err);
    } else if (h->draining) {
        err_set(&err, ERR_draining, NULL);
        refuse_and_close(x, &err);
    } else {
        h->handlers.on_request(x, h->arg);
    }
    ERR_clear_error(); /* an error left here would be taken for one of TLS */
}

/* ---- the listener ---- */

/* Out of descriptors, as a rule: pause, or the loop would spin. on_tick() goes on. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    (void)arg;
    log_warn("cannot accept connections: %s", evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
    evconnlistener_disable(listener);
}

static void on_tick(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct http *h = arg;
    if (h->refused > LOG_LINES)
        log_info("%u more refusals in this second", h->refused - LOG_LINES);
    h->refused = 0;
    arrivals_check(h->arrivals);
    if (h->listener && !h->retiring)
        evconnlistener_enable(h->listener);
}

static void on_drained(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct http *h = arg;
    h->handlers.on_drained(h->arg);
}

static void configure(struct http *h)
{
    evhttp_set_bevcb(h->evhttp, new_connection, h);
    evhttp_set_gencb(h->evhttp, on_request, h);
    evhttp_set_timeout(h->evhttp, HTTP_TIMEOUT);
    evhttp_set_max_headers_size(h->evhttp, HTTP_HEADERS_MAX);
    evhttp_set_max_body_size(h->evhttp, REQUEST_MAX);
    evhttp_set_default_content_type(h->evhttp, NULL);
    /* all of them, and those it does not know: the answer 405 is ours, in JSON */
    evhttp_set_allowed_methods(h->evhttp, 0xffff);
    /* a body that is too large is read to its end, so that the client comes to read the answer */
    evhttp_set_flags(h->evhttp, EVHTTP_SERVER_LINGERING_CLOSE);
}

struct http *http_new(struct event_base *base, const struct tls *tls,
                      const struct http_handlers *handlers, void *arg)
{
    const struct timeval second = {1, 0};
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->base = base;
    h->tls = tls;
    h->handlers = *handlers;
    h->arg = arg;
    h->evhttp = evhttp_new(base);
    h->tick = event_new(base, -1, EV_PERSIST, on_tick, h);
    h->drained = event_new(base, -1, 0, on_drained, h);
    h->arrivals = arrivals_new();
    if (!h->evhttp || !h->arrivals || !h->tick || !h->drained || event_add(h->tick, &second)) {
        http_free(h);
        return NULL;
    }
    configure(h);
    return h;
}

int http_accept(struct http *h, int socket, struct err *err)
{
    h->listener = evconnlistener_new(h->base, NULL, NULL,
                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, socket);
    /* from here the listener is evhttp's */
    if (!h->listener || !evhttp_bind_listener(h->evhttp, h->listener))
        return err_set(err, ERR_internal, "cannot listen: out of memory");
    evconnlistener_set_error_cb(h->listener, on_accept_error);
    return 0;
}

void http_retire(struct http *h)
{
    h->retiring = 1;
    if (h->listener)
        evconnlistener_disable(h->listener);
}

void http_end_readers(struct http *h, const struct blob *body)
{
    struct exchange *x = LIST_FIRST(&h->exchanges);
    while (x) {
        struct exchange *after = LIST_NEXT(x, next);
        if (x->body == body)
            evhttp_connection_free(evhttp_request_get_connection(x->req)); /* on_close() frees x */
        x = after;
    }
}

void http_drain(struct http *h)
{
    http_retire(h);
    h->draining = 1;
    if (h->in_flight == 0)
        event_active(h->drained, 0, 0);
}

unsigned http_in_flight(const struct http *h)
{
    return h->in_flight;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    h->draining = 0; /* nobody is to be told any more */
    if (h->evhttp)
        evhttp_free(h->evhttp);
    if (h->tick)
        event_free(h->tick);
    if (h->drained)
        event_free(h->drained);
    arrivals_free(h->arrivals);
    free(h);
}

/* ---- what an exchange is asked ---- */

int exchange_is_tls(const struct exchange *x)
{
    return x->http->tls != NULL;
}

enum evhttp_cmd_type exchange_method(const struct exchange *x)
{
    return evhttp_request_get_command(x->req);
}

const char *exchange_path(const struct exchange *x)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(x->req);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    return path && !evhttp_uri_get_query(uri) ? path : "";
}

unsigned exchange_header_count(const struct exchange *x, const char *name)
{
    return protocol_header_count(x->req, name);
}

const char *exchange_header(const struct exchange *x, const char *name)
{
    return exchange_header_count(x, name) == 1 ? evhttp_find_header(x->req->input_headers, name)
                                               : NULL;
}

void exchange_wipe_header(struct exchange *x, const char *name)
{
    struct evkeyval *header;
    for (header = x->req->input_headers->tqh_first; header; header = header->next.tqe_next)
        if (evutil_ascii_strcasecmp(header->key, name) == 0)
            OPENSSL_cleanse(header->value, strlen(header->value));
}

struct bytes exchange_body(struct exchange *x)
{
    struct evbuffer *in = evhttp_request_get_input_buffer(x->req);
    return (struct bytes){evbuffer_pullup(in, -1), evbuffer_get_length(in)};
}

const struct caller *exchange_caller(const struct exchange *x)
{
    return x->caller;
}

void exchange_set_operation(struct exchange *x, enum operation op)
{
    x->op = op;
}

enum operation exchange_operation(const struct exchange *x)
{
    return x->op;
}

void exchange_errors_as_text(struct exchange *x)
{
    x->errors_as_text = 1;
}

void exchange_wait(struct exchange *x, void (*forget)(void *arg), void *arg)
{
    x->forget = forget;
    x->forget_arg = arg;
}

/* ---- answers ---- */

void exchange_add_header(struct exchange *x, const char *name, const char *value)
{
    evhttp_remove_header(x->req->output_headers, name);
    evhttp_add_header(x->req->output_headers, name, value);
}

/* Header and body in one TLS record and one packet, where they fit: each piece of the buffer would
 * be written for itself. */
static void join(struct evbuffer *out)
{
    if (evbuffer_get_length(out) <= SSL3_RT_MAX_PLAIN_LENGTH)
        evbuffer_pullup(out, -1);
}

/* x may be gone when this returns. */
static void send_answer(struct exchange *x, int status, struct evbuffer *body)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(x->req);
    struct bufferevent *bev = connection ? evhttp_connection_get_bufferevent(connection) : NULL;
    x->answered = 1;
    x->forget = NULL;
    if (x->http->retiring)
        exchange_add_header(x, "Connection", "close");
    if (x->req->type == EVHTTP_REQ_CONNECT) /* evhttp would keep it open for a tunnel */
        x->req->type = EVHTTP_REQ_TRACE;
    if (!x->http->tls || !bev) {
        evhttp_send_reply(x->req, status, http_phrase(status), body);
        return;
    }
    bufferevent_incref(bev);
    evhttp_send_reply(x->req, status, http_phrase(status), body);
    join(bufferevent_get_output(bev));
    bufferevent_decref(bev);
}

static void free_text(const void *data, size_t len, void *arg)
{
    (void)data, (void)len;
    free(arg);
}

static void release_blob(const void *data, size_t len, void *arg)
{
    (void)data, (void)len;
    blob_unref(arg);
}

/* Without its body for HEAD (RFC 9110 section 9.3.2). Takes body, by cleanup(arg). */
static void send_body(struct exchange *x, int status, const char *content_type, struct bytes body,
                      evbuffer_ref_cleanup_cb cleanup, void *arg)
{
    char length[24];
    struct evbuffer *out = evbuffer_new();
    snprintf(length, sizeof length, "%zu", body.len);
    exchange_add_header(x, "Content-Type", content_type);
    exchange_add_header(x, "Content-Length", length);
    if (!out || exchange_method(x) == EVHTTP_REQ_HEAD ||
        evbuffer_add_reference(out, body.data, body.len, cleanup, arg))
        cleanup(body.data, body.len, arg);
    send_answer(x, status, out);
    if (out)
        evbuffer_free(out);
}

void exchange_text(struct exchange *x, int status, const char *content_type, char *text)
{
    if (!text) {
        exchange_empty(x, err_http_status(ERR_internal));
        return;
    }
    send_body(x, status, content_type, (struct bytes){(uint8_t *)text, strlen(text)}, free_text,
              text);
}

void exchange_json(struct exchange *x, int status, char *json)
{
    static const char no_memory[] = "{\"status\":\"ERROR\",\"operation\":\"\",\"error\":{\"code\":"
                                    "\"internal\",\"message\":\"out of memory\"}}\n";
    if (!json) {
        status = err_http_status(ERR_internal);
        json = strdup(no_memory);
    }
    exchange_text(x, status, "application/json", json);
}

void exchange_blob(struct exchange *x, const char *content_type, struct blob *body)
{
    x->body = body;
    send_body(x, HTTP_OK, content_type, blob_view(body), release_blob, blob_ref(body));
}

void exchange_empty(struct exchange *x, int status)
{
    send_answer(x, status, NULL);
}

/* Anyone can have requests refused; nobody may fill the disk with it. */
static void log_refusal(const struct exchange *x, const struct err *why)
{
    if (++x->http->refused <= LOG_LINES)
        log_info("%s: %s: %s: %s", x->caller->address,
                 x->op == OP_NONE ? "request" : operation_name(x->op), err_name(why->code),
                 why->text);
}

/* RFC 9110 section 15.5.2: a 401 says how to log in. */
static void refuse_as_text(struct exchange *x, int status, const struct err *why)
{
    char *text;
    if (asprintf(&text, "%s: %s\n", err_name(why->code), why->text) < 0)
        text = NULL;
    if (status == 401)
        exchange_add_header(x, "WWW-Authenticate", "Basic realm=\"signet\"");
    exchange_text(x, status, "text/plain; charset=utf-8", text);
}

void exchange_refuse(struct exchange *x, const struct err *why, unsigned retry_after)
{
    int status = err_http_status(why->code);
    char seconds[16];
    if (status == HTTP_SERVUNAVAIL || why->code == ERR_too_many) {
        snprintf(seconds, sizeof seconds, "%u", retry_after ? retry_after : 1);
        exchange_add_header(x, "Retry-After", seconds);
    }
    log_refusal(x, why);
    if (x->errors_as_text)
        refuse_as_text(x, status, why);
    else
        exchange_json(x, status, answer_error(x->op, why->code, why->text));
}
