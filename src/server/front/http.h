/* HTTP/1.0 and 1.1 on one listening socket, by evhttp: with TLS, or plain. A request that passed
 * the checks of the protocol comes to the handler as an exchange, which must be answered exactly
 * once, now or later. */
#ifndef SIGNET_FRONT_HTTP_H
#define SIGNET_FRONT_HTTP_H

#include <event2/event.h>
#include <event2/http.h>
#include "common/bytes.h"
#include "common/err.h"
#include "server/front/documents.h"
#include "server/request/operations.h"
#include "server/front/tls.h"

#define HTTP_HEADERS_MAX 8192
#define HTTP_TIMEOUT 35 /* seconds without progress; later than ARRIVAL_SECONDS, which answers */

struct http;     /* opaque */
struct exchange; /* opaque: one request and its answer */

struct http_handlers {
    void (*on_request)(struct exchange *x, void *arg);
    /* Draining, and nothing is in flight any more. */
    void (*on_drained)(void *arg);
};

/* tls NULL: plain; it is borrowed. */
struct http *http_new(struct event_base *base, const struct tls *tls,
                      const struct http_handlers *handlers, void *arg)
    __attribute__((warn_unused_result));
/* Takes the listening socket and accepts from now on. */
int http_accept(struct http *h, int socket, struct err *err) __attribute__((warn_unused_result));
/* No new connections; what comes on the old ones is answered, and closes them. */
void http_retire(struct http *h);
/* Ends the connections that are being sent this body. */
void http_end_readers(struct http *h, const struct blob *body);
/* The same, but new requests are answered 503 draining; on_drained comes from the loop. */
void http_drain(struct http *h);
unsigned http_in_flight(const struct http *h);
void http_free(struct http *h); /* NULL is fine */

int exchange_is_tls(const struct exchange *x);
enum evhttp_cmd_type exchange_method(const struct exchange *x);
const char *exchange_path(const struct exchange *x); /* "" when there is a query */
/* The value of the only header of this name; NULL: there is none, or more than one. */
const char *exchange_header(const struct exchange *x, const char *name);
unsigned exchange_header_count(const struct exchange *x, const char *name);
struct bytes exchange_body(struct exchange *x);
void exchange_wipe_header(struct exchange *x, const char *name); /* its value, if it is there */
const struct caller *exchange_caller(const struct exchange *x);

/* What errors, and answers that come later, belong to. */
void exchange_set_operation(struct exchange *x, enum operation op);
enum operation exchange_operation(const struct exchange *x);

/* What errors look like from here: "code: message" as text/plain (RFC 7030 section 4.2.3), not
 * JSON; and with 401 comes the challenge to log in by HTTP Basic. */
void exchange_errors_as_text(struct exchange *x);

/* Until it is answered: forget(arg) is called when the client goes first. The exchange is then
 * gone. */
void exchange_wait(struct exchange *x, void (*forget)(void *arg), void *arg);

/* Answers. Each ends the exchange: x is not used afterwards. */
void exchange_add_header(struct exchange *x, const char *name, const char *value);
void exchange_json(struct exchange *x, int status, char *json); /* takes json; NULL: no memory */
void exchange_text(struct exchange *x, int status, const char *content_type, char *text); /* too */
void exchange_blob(struct exchange *x, const char *content_type, struct blob *body);
void exchange_empty(struct exchange *x, int status);
/* retry_after counts with 503 and 429 alone; 0 is then 1. */
void exchange_refuse(struct exchange *x, const struct err *why, unsigned retry_after);

#endif
