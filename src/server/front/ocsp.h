/* OCSP over HTTP (RFC 6960 appendix A.1, RFC 5019 sections 5 and 6): POST /ocsp, GET /ocsp/BASE64.
 *
 * What is kept is given after the channel was read empty, so that whatever was acknowledged before
 * is known here. Messages come in the order in which the authority's state changed, and an answer
 * is put in when it comes: an ocsp_forget takes away what was true before, never what is true now.
 * When the socket was too full for it, we are behind, and see so by a count: then nothing that is
 * kept counts, and the authority is asked.
 */
#ifndef SIGNET_FRONT_OCSP_H
#define SIGNET_FRONT_OCSP_H

#include "server/front/authority.h"
#include "server/front/http.h"

struct ocsp; /* opaque: the answers that are kept, and who waits for one */

struct ocsp *ocsp_new(struct event_base *base, struct authority *a)
    __attribute__((warn_unused_result));
void ocsp_free(struct ocsp *o); /* after the exchanges; NULL is fine */

/* Of the authority. -1: malformed. */
int ocsp_forget(struct ocsp *o, const struct msg_ocsp_forget *m)
    __attribute__((warn_unused_result));

/* Answer x, now or when the authority has. -1 with err: refused by HTTP's means. The body of a POST
 * is of the right type. */
int ocsp_serve_post(struct ocsp *o, struct exchange *x, struct err *err)
    __attribute__((warn_unused_result));
int ocsp_serve_get(struct ocsp *o, struct exchange *x, struct err *err)
    __attribute__((warn_unused_result));

#endif
