/* The request parser: bytes of a body in, one checked operation with its fields out. Pure; fed with
 * hostile bytes. cJSON builds the tree; what it is lenient about is refused before or after it:
 * invalid UTF-8, NUL, raw control characters, lone surrogates, trailing bytes, duplicate names. */
#ifndef SIGNET_FRONT_JSON_H
#define SIGNET_FRONT_JSON_H

#include "common/bytes.h"
#include "common/err.h"
#include "server/front/operations.h"

#define REQUEST_MAX (64 * 1024)
#define JSON_DEPTH_MAX 4

struct request; /* opaque */

/* *op is set also on failure, as soon as the operation is known (OP_NONE until then).
 * Errors: body_… and field_… and operation_unknown of the table. */
int request_parse(struct request **out, enum operation *op, struct bytes body, struct err *err)
    __attribute__((warn_unused_result));

/* The value of a field of this operation, which has passed the check of its kind; NULL: not sent.
 * Belongs to the request. */
const char *request_text(const struct request *r, const char *name);

void request_free(struct request *r); /* NULL is fine */

#endif
