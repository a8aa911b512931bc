/* evhttp answers what it cannot parse by itself, in HTML, and libevent 2.1 has no hook for that.
 * But its page comes into the connection's output buffer in one piece, behind its header, before
 * anything of it is sent: there it is replaced by the JSON that all other errors have. */
#ifndef SIGNET_FRONT_ERROR_PAGE_H
#define SIGNET_FRONT_ERROR_PAGE_H

#include <event2/buffer.h>
#include "common/err.h"
#include "server/front/arrival.h"

/* Watches the output buffer of a new connection, for as long as it lives. arrival tells a header
 * that is too large from one that is malformed; NULL: nothing does. 0, or -1: no memory. */
int error_page_watch(struct evbuffer *output, const struct arrival *arrival)
    __attribute__((warn_unused_result));

/* A whole answer, header and all, after which the connection is closed. free(); NULL: no memory. */
char *error_page(enum err_code code, size_t *len) __attribute__((warn_unused_result));

/* The reason phrase of a status that libevent names wrongly or not at all; NULL: it knows it. */
const char *http_phrase(int status);

#endif
