/* Connections to a server, many in one thread: non-blocking, edge-triggered epoll, TLS or plain,
 * HTTP/1.1 kept alive. Light, since it shares the cores with the server that it measures. */
#ifndef SIGNET_BENCH_WIRE_H
#define SIGNET_BENCH_WIRE_H

#include <openssl/ssl.h>

#include "common/bytes.h"

struct wire; /* all of them; opaque */

enum link_state { LINK_CLOSED, LINK_CONNECTING, LINK_OPEN, LINK_WAITING, LINK_CLOSING };

struct link {
    struct wire *wire;
    enum link_state state;
    int fd;
    SSL *ssl;
    struct bytes out; /* not yet sent; the caller's, until the answer */
    char *in;         /* the answer so far, as much as is kept of it */
    size_t in_len, head_len;
    long body_left; /* -1: the head is not complete */
    int status;
    size_t number; /* of the caller */
    double begun;
};

/* What a mode does when something has happened. lost: the connection failed or was closed by the
 * server; closed: it ended as it was asked to. All may open and ask again. */
struct wire_events {
    void (*open)(struct link *l);
    void (*answer)(struct link *l, struct bytes body);
    void (*closed)(struct link *l);
    void (*lost)(struct link *l);
};

/* ctx NULL: plain TCP. Ends the program on failure, as all here does. */
struct wire *wire_new(const char *address, SSL_CTX *ctx, size_t links,
                      const struct wire_events *events, void *arg);
void wire_free(struct wire *w);
void *wire_arg(const struct wire *w);

struct link *wire_link(struct wire *w, size_t i);
void link_open(struct link *l);
/* Sends request, whose answer then comes. */
void link_ask(struct link *l, struct bytes request);
/* Says goodbye and waits until the server has closed: then it has done all of its handshake. */
void link_close(struct link *l);

/* Until wire_stop(); events go on as they come. until (now_seconds()): at the latest; 0: none. */
void wire_run(struct wire *w, double until);
void wire_stop(struct wire *w);

/* A client context: mutual TLS, no resumption. key, cert NULL: no client certificate. */
SSL_CTX *wire_context(const char *ca, const char *cert, const char *key);

double now_seconds(void); /* monotonic */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
