/* What is served: POST /v1 (v1.h), EST (est.h), OCSP (ocsp.h), documents, probes. */
#ifndef SIGNET_FRONT_ROUTES_H
#define SIGNET_FRONT_ROUTES_H

#include "server/front/authority.h"
#include "server/front/documents.h"
#include "server/front/http.h"
#include "server/front/ocsp.h"

/* What the routes work with; borrowed, all but the chain. */
struct service {
    struct authority *authority;
    struct documents *documents;
    struct est *est;
    struct ocsp *ocsp;
    int has_ocsp; /* there is a responder */
    struct buf issuer_der;
    char *chain_base64; /* of the PEM */
};

int service_set_chain(struct service *s, const struct msg_chain *m)
    __attribute__((warn_unused_result));
void service_clear(struct service *s);

/* Answers x, now or when the authority has. */
void service_request(struct service *s, struct exchange *x);

/* For routes: the method is one of these (enum evhttp_cmd_type, ored), or method_not_allowed. */
int route_check_method(struct exchange *x, unsigned methods, const char *allow, struct err *err)
    __attribute__((warn_unused_result));
/* What is posted is of this media type, as it is, and not from a web page. */
int route_check_body(const struct exchange *x, const char *type, struct err *err)
    __attribute__((warn_unused_result));

#endif
