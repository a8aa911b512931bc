/* Looking things up: get_cert and list_certs, for any operator. */
#ifndef SIGNET_QUERY_H
#define SIGNET_QUERY_H

#include "server/authority/authority.h"

#define LIST_LIMIT_MAX 500
#define LIST_SCAN_MAX 5000 /* rows that a page by board looks at */

/* Answers q with answer_row (its der filled), or answer_error. */
void query_get(struct authority *a, const struct msg_get *m, struct question *q);
/* Answers q with answer_row (no der) for each, then answer_page; or answer_error alone. */
void query_list(struct authority *a, const struct msg_list *m, struct question *q);

#endif
