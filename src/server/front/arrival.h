/* How a request comes in on a TLS connection. evhttp tells of a request when it is whole, and ends
 * a connection on which nothing moves; this knows how large a header is that evhttp refuses, and
 * ends what comes too slowly, however busily it drips. (On the plain port
 * HTTP_TIMEOUT alone ends one.) */
#ifndef SIGNET_FRONT_ARRIVAL_H
#define SIGNET_FRONT_ARRIVAL_H

#include <event2/bufferevent.h>
#include <openssl/ssl.h>

#define ARRIVAL_SECONDS 30 /* from a request's first byte to its last */

struct arrivals; /* opaque: those of all connections of a listener */
struct arrival;  /* opaque: of one */

struct arrivals *arrivals_new(void);
/* After the last connection; NULL is fine. */
void arrivals_free(struct arrivals *all);

/* Watches the new connection bev until ssl, which is in it, is freed. NULL: no memory. */
struct arrival *arrival_watch(struct arrivals *all, struct bufferevent *bev, SSL *ssl)
    __attribute__((warn_unused_result));

/* The request is whole: its answer may take its own time. */
void arrival_whole(const struct arrivals *all, SSL *ssl);
/* It is answered: what comes now is the next one. */
void arrival_next(const struct arrivals *all, SSL *ssl);

/* Whether what evhttp has just refused is a header of more than HTTP_HEADERS_MAX. */
int arrival_header_too_large(const struct arrival *a);

/* Answers 408 to what is overdue, and ends its connection. To be called each second. */
void arrivals_check(struct arrivals *all);

#endif
