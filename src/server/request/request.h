/* The request parser: bytes of a body in, one checked operation with its fields out. Pure; fed with
 * hostile bytes. cJSON builds the tree; what it is lenient about is refused before or after it:
 * invalid UTF-8, NUL, raw control characters, lone surrogates, trailing bytes, duplicate names. */
#ifndef SIGNET_REQUEST_H
#define SIGNET_REQUEST_H

#include "common/bytes.h"
#include "common/err.h"
#include "server/request/operations.h"

#define REQUEST_MAX (64 * 1024)
#define JSON_DEPTH_MAX 4

struct request; /* opaque */

/* *op is set also on failure, as soon as the operation is known (OP_NONE until then).
 * Errors: body_… and field_… and operation_unknown of the table. */
int request_parse(struct request **out, enum operation *op, struct bytes body, struct err *err)
    __attribute__((warn_unused_result));

/* The values of fields of this operation, which have passed the check of their kind. Strings belong
 * to the request. */
int request_has(const struct request *r, const char *name);
const char *request_text(const struct request *r, const char *name); /* NULL: not sent */
int request_bool(const struct request *r, const char *name);         /* 0: not sent */
unsigned request_number(const struct request *r, const char *name, unsigned otherwise);
/* Seconds since 1970. */
int64_t request_time(const struct request *r, const char *name, int64_t otherwise);
size_t request_count(const struct request *r, const char *name); /* elements of an array */
const char *request_element(const struct request *r, const char *name, size_t i);

void request_free(struct request *r); /* NULL is fine */

#endif
