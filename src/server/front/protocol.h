/* What evhttp lets through of HTTP and should not (RFC 9112). */
#ifndef SIGNET_FRONT_PROTOCOL_H
#define SIGNET_FRONT_PROTOCOL_H

#include <event2/http.h>
#include "common/err.h"

/* Version, Host, the names of the headers, and that the body's end is told once. Error:
 * http_malformed, after which the connection is to be closed. */
int protocol_check(const struct evhttp_request *req, struct err *err)
    __attribute__((warn_unused_result));

unsigned protocol_header_count(const struct evhttp_request *req, const char *name);

#endif
