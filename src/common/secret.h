/* A secret has one path: source, struct secret, use, wipe. It lives in locked memory and has no
 * printed form but "[****]". */
#ifndef SIGNET_SECRET_H
#define SIGNET_SECRET_H

#include <stddef.h>
#include "common/err.h"

#define SECRET_MAX 255

struct secret; /* opaque; mlock()ed, not in core dumps, not in forked children */

/* A copy of len bytes (at most SECRET_MAX; one trailing LF or CRLF is dropped; empty, or a NUL
 * inside, is refused). The caller wipes its own. 0 or -1. */
int secret_from_bytes(struct secret **out, const char *bytes, size_t len, struct err *err)
    __attribute__((warn_unused_result));

/* From a file of mode 0600 or stricter (no access for others; group read is refused too) owned by
 * this user or root. "-" is standard input. */
int secret_from_file(struct secret **out, const char *path, struct err *err)
    __attribute__((warn_unused_result));

/* From a descriptor, to its end (a pipe from the supervisor); fd stays open. */
int secret_from_fd(struct secret **out, int fd, struct err *err)
    __attribute__((warn_unused_result));

/* Asks on the controlling terminal without echo; fails where there is none. */
int secret_from_prompt(struct secret **out, const char *prompt, struct err *err)
    __attribute__((warn_unused_result));

/* NUL-terminated, valid until secret_free(). */
const char *secret_bytes(const struct secret *s, size_t *len);

/* Wipes and frees; NULL is fine. */
void secret_free(struct secret *s);

#endif
