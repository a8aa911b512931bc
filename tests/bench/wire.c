#include "wire.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KEPT (32 * 1024) /* of an answer; what is longer is counted and dropped */
#define EVENTS 64

struct wire {
    struct sockaddr_storage to;
    socklen_t to_len;
    SSL_CTX *ctx;
    int epoll;
    int stopped;
    const struct wire_events *on;
    void *arg;
    size_t count;
    struct link links[];
};

void die(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, ap);
    fputs("\n", stderr);
    va_end(ap);
    exit(1);
}

double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

SSL_CTX *wire_context(const char *ca, const char *cert, const char *key)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx || SSL_CTX_load_verify_file(ctx, ca) != 1)
        die("%s: not a CA certificate", ca);
    if (cert && (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
                 SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1))
        die("%s, %s: no certificate with its key", cert, key);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static void resolve(struct wire *w, const char *address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
    if (!colon || colon == address || (size_t)(colon - address) >= sizeof host)
        die("%s: not an address:port", address);
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    if (getaddrinfo(host, colon + 1, &hints, &found))
        die("%s: not an address:port", address);
    memcpy(&w->to, found->ai_addr, found->ai_addrlen);
    w->to_len = found->ai_addrlen;
    freeaddrinfo(found);
}

struct wire *wire_new(const char *address, SSL_CTX *ctx, size_t links,
                      const struct wire_events *events, void *arg)
{
    struct wire *w = calloc(1, sizeof *w + links * sizeof *w->links);
    if (!w || (w->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        die("no memory");
    resolve(w, address);
    w->ctx = ctx;
    w->on = events;
    w->arg = arg;
    w->count = links;
    for (size_t i = 0; i < links; i++)
        w->links[i] = (struct link){.wire = w, .fd = -1};
    return w;
}

static void drop(struct link *l)
{
    SSL_free(l->ssl);
    free(l->in);
    if (l->fd >= 0)
        close(l->fd);
    *l = (struct link){.wire = l->wire, .fd = -1, .number = l->number, .begun = l->begun};
}

void wire_free(struct wire *w)
{
    for (size_t i = 0; i < w->count; i++)
        drop(&w->links[i]);
    close(w->epoll);
    free(w);
}

void *wire_arg(const struct wire *w)
{
    return w->arg;
}

struct link *wire_link(struct wire *w, size_t i)
{
    return &w->links[i];
}

void wire_stop(struct wire *w)
{
    w->stopped = 1;
}

static void lose(struct link *l)
{
    ERR_clear_error();
    drop(l);
    l->wire->on->lost(l);
}

void link_open(struct link *l)
{
    struct wire *w = l->wire;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = l};
    int on = 1;
    l->begun = now_seconds();
    l->fd = socket(w->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
        (connect(l->fd, (struct sockaddr *)&w->to, w->to_len) && errno != EINPROGRESS) ||
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, l->fd, &e))
        die("no connection: %s", strerror(errno));
    if (w->ctx && (!(l->ssl = SSL_new(w->ctx)) || SSL_set_fd(l->ssl, l->fd) != 1))
        die("no memory");
    l->state = LINK_CONNECTING;
}

/* ---- bytes ---- */

/* So many bytes; 0: not now; -1: the end, or broken. */
static ssize_t settled(struct link *l, ssize_t n)
{
    if (n > 0)
        return n;
    if (l->ssl) {
        int why = SSL_get_error(l->ssl, (int)n);
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
    }
    return n < 0 && errno == EAGAIN ? 0 : -1;
}

static ssize_t put(struct link *l, struct bytes b)
{
    return settled(l, l->ssl ? SSL_write(l->ssl, b.data, (int)b.len) : write(l->fd, b.data, b.len));
}

static ssize_t get(struct link *l, char *to, size_t size)
{
    return settled(l, l->ssl ? SSL_read(l->ssl, to, (int)size) : read(l->fd, to, size));
}

/* ---- an answer ---- */

/* The head, once it is complete. -1: this is no answer. */
static int read_head(struct link *l)
{
    l->in[l->in_len] = '\0';
    char *end = strstr(l->in, "\r\n\r\n"), *length;
    if (!end)
        return l->in_len < KEPT - 1 ? 0 : -1;
    *end = '\0';
    length = strcasestr(l->in, "\r\nContent-Length:");
    if (sscanf(l->in, "HTTP/1.1 %d", &l->status) != 1 || !length)
        return -1;
    l->head_len = (size_t)(end - l->in) + 4;
    l->body_left =
        strtol(length + strlen("\r\nContent-Length:"), NULL, 10) - (long)(l->in_len - l->head_len);
    return 0;
}

/* Nothing of a long answer's rest is kept. */
static int take(struct link *l, size_t n)
{
    l->in_len += n;
    if (l->body_left >= 0)
        l->body_left -= (long)n;
    else if (read_head(l))
        return -1;
    if (l->in_len == KEPT - 1 && l->body_left > 0)
        l->in_len = l->head_len;
    return 0;
}

static void answered(struct link *l)
{
    struct bytes body = {(uint8_t *)l->in + l->head_len, l->in_len - l->head_len};
    l->state = LINK_OPEN;
    l->wire->on->answer(l, body);
}

static void receive(struct link *l)
{
    while (l->state == LINK_WAITING) {
        ssize_t n = get(l, l->in + l->in_len, KEPT - 1 - l->in_len);
        if (n < 0 || (n > 0 && take(l, (size_t)n))) {
            lose(l);
            return;
        }
        if (l->body_left == 0 && l->out.len == 0)
            answered(l);
        else if (n == 0)
            return;
    }
}

static void send_out(struct link *l)
{
    while (l->out.len) {
        ssize_t n = put(l, l->out);
        if (n == 0)
            return;
        if (n < 0) {
            lose(l);
            return;
        }
        l->out.data += n;
        l->out.len -= (size_t)n;
    }
}

void link_ask(struct link *l, struct bytes request)
{
    if (!l->in && !(l->in = malloc(KEPT)))
        die("no memory");
    l->state = LINK_WAITING;
    l->in_len = l->head_len = 0;
    l->body_left = -1;
    l->out = request;
    l->begun = now_seconds();
    send_out(l);
}

/* ---- beginning and end ---- */

static void shake(struct link *l)
{
    int rc = l->ssl ? SSL_connect(l->ssl) : 1;
    if (rc == 1) {
        l->state = LINK_OPEN;
        l->wire->on->open(l);
    } else if (settled(l, rc) < 0) {
        lose(l);
    }
}

/* Whether the connection ended by a goodbye or a plain end, and not by an alert: the server was
 * perhaps still in the handshake when our goodbye came. */
static int ended_well(const struct link *l)
{
    unsigned long why = ERR_peek_error();
    char byte;
    if (why)
        return ERR_GET_REASON(why) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
    return l->ssl ? (SSL_get_shutdown(l->ssl) & SSL_RECEIVED_SHUTDOWN) != 0
                  : recv(l->fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void finish(struct link *l)
{
    char rest[1024];
    ssize_t n;
    while ((n = get(l, rest, sizeof rest)) > 0)
        ;
    if (n == 0)
        return;
    int well = ended_well(l);
    ERR_clear_error();
    drop(l);
    if (well)
        l->wire->on->closed(l);
    else
        l->wire->on->lost(l);
}

void link_close(struct link *l)
{
    l->state = LINK_CLOSING;
    if (l->ssl)
        SSL_shutdown(l->ssl);
    shutdown(l->fd, SHUT_WR);
    finish(l);
}

static void drive(struct link *l)
{
    if (l->state == LINK_CONNECTING)
        shake(l);
    if (l->state == LINK_WAITING)
        send_out(l);
    if (l->state == LINK_WAITING)
        receive(l);
    else if (l->state == LINK_CLOSING)
        finish(l);
    else if (l->state == LINK_OPEN) {
        char byte; /* nothing is expected: only an end, or a ticket */
        if (get(l, &byte, 1) < 0)
            lose(l);
    }
}

void wire_run(struct wire *w, double until)
{
    struct epoll_event events[EVENTS];
    w->stopped = 0;
    while (!w->stopped) {
        double left = until > 0 ? until - now_seconds() : 60;
        if (left <= 0)
            return;
        int n = epoll_wait(w->epoll, events, EVENTS, (int)(left * 1000) + 1);
        if (n < 0 && errno != EINTR)
            die("epoll: %s", strerror(errno));
        if (n == 0 && until <= 0)
            die("nothing has come for a minute");
        for (int i = 0; i < n; i++)
            drive(events[i].data.ptr);
    }
}
