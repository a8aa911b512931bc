/* What is served: POST /v1 (v1.h), documents, probes. */
#ifndef SIGNET_FRONT_ROUTES_H
#define SIGNET_FRONT_ROUTES_H

#include "server/front/authority.h"
#include "server/front/documents.h"
#include "server/front/http.h"

/* What the routes work with; borrowed, all but the chain. */
struct service {
    struct authority *authority;
    struct documents *documents;
    struct buf issuer_der;
    char *chain_base64; /* of the PEM */
};

int service_set_chain(struct service *s, const struct msg_chain *m)
    __attribute__((warn_unused_result));
void service_clear(struct service *s);

/* Answers x, now or when the authority has. */
void service_request(struct service *s, struct exchange *x);

#endif
