/* What is served as it is: CRLs and CA certificates, each with its validators (RFC 9110 section
 * 8.8). The authority sends a read-only descriptor; it is mapped, and answers refer to the map. */
#ifndef SIGNET_FRONT_DOCUMENTS_H
#define SIGNET_FRONT_DOCUMENTS_H

#include <stdint.h>
#include "common/err.h"
#include "common/msg.h"

#define DOCUMENTS_MAX 80                        /* a CRL may have 64 shards */
#define RETIRED_MAX ((size_t)256 * 1024 * 1024) /* replaced, and still being read */
#define CRL_ANSWER_MAX (4 * 1024 * 1024)        /* DER; a larger CRL is not put into JSON */

/* Bytes that answers under way share; the last one frees them. */
struct blob;
struct blob *blob_take(char *data, size_t len); /* malloc()ed; NULL (data freed): no memory */
struct bytes blob_view(const struct blob *b);
struct blob *blob_ref(struct blob *b);
void blob_unref(struct blob *b); /* NULL is fine */

struct document {
    char path[65], content_type[65];
    char etag[40];             /* with its quotes */
    int64_t modified, expires; /* expires 0: never */
    int date_tells;            /* it from the one before: they are not of the same second */
    struct blob *body;
};

struct documents; /* opaque */

struct documents *documents_new(void) __attribute__((warn_unused_result));
void documents_free(struct documents *d);

/* What is called when replaced documents that are still being read exceed RETIRED_MAX: answers with
 * this body, the oldest, are to be ended. The last one that was replaced is never among them. */
void documents_on_late(struct documents *d, void (*give_up)(struct blob *body, void *arg),
                       void *arg);

/* Takes fd, also on failure. The same path again replaces the document. */
int documents_put(struct documents *d, const struct msg_document *m, int fd, struct err *err)
    __attribute__((warn_unused_result));

const struct document *documents_find(const struct documents *d, const char *path); /* or NULL */

/* The JSON answer of get_crl, made once for each CRL; borrowed. NULL: error crl_too_large, busy
 * (none is published yet) or internal. */
struct blob *documents_crl_answer(struct documents *d, struct err *err);

/* Whether a conditional request is answered 304 (RFC 9110 section 13.2.2). Either may be NULL. A
 * date must be the very one: after a clock that was ahead, the newer document has the older date;
 * and it must tell (RFC 9110 section 8.8.2.2), which that of an OCSP answer never does. */
int document_not_modified(const struct document *doc, const char *if_none_match,
                          const char *if_modified_since);

/* Seconds for which a cache may keep it: until it expires, and not longer than its whole life,
 * whatever the clock; a day when it never does. */
int64_t document_max_age(const struct document *doc, int64_t now);

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7); out holds 32. */
void http_date(char out[32], int64_t when);

#endif
