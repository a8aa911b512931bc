/* The JSON of answers: one object and a newline. Pure. What they return is malloc()ed and the
 * caller's; NULL: no memory. */
#ifndef SIGNET_FRONT_ANSWER_H
#define SIGNET_FRONT_ANSWER_H

#include "common/err.h"
#include "common/msg.h"
#include "server/request/operations.h"

char *answer_error(enum operation op, enum err_code code, const char *text);
char *answer_issued(enum operation op, const struct msg_answer_certificate *m,
                    const char *chain_base64);
char *answer_revoked(const struct msg_answer_revoked *m);
char *answer_reported(const struct msg_answer_reported *m);
char *answer_chain(struct bytes issuer_der, const char *chain_base64);
char *answer_status(const struct msg_answer_status *m);
char *answer_found(const struct msg_answer_row *m);

/* A list comes row by row. */
struct answer_list; /* opaque */
struct answer_list *answer_list_new(void);
int answer_list_add(struct answer_list *list, const struct msg_answer_row *m);
char *answer_list_finish(struct answer_list *list, const struct msg_answer_page *m); /* frees it */
void answer_list_free(struct answer_list *list); /* NULL is fine */

char *answer_probe(int ready); /* GET /healthz, GET /readyz */

#endif
