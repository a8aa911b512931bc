/* Asking for a certificate: the request sent, and what comes back verified before anybody uses it:
 * chain up to the pinned root, purpose, key, names, the announced serial. */
#ifndef SIGNET_CLIENT_OBTAIN_H
#define SIGNET_CLIENT_OBTAIN_H

#include <openssl/x509.h>
#include "client/session.h"

struct wanted {
    const char *operation;
    X509_REQ *csr;
    const char *profile; /* NULL: the server's default */
    const char *request_id;
    int replace, sign;
    /* what must be in the certificate, besides the CSR's key */
    const char *name;         /* the CN; NULL: not looked at */
    const X509_NAME *subject; /* of the certificate that is renewed; NULL: a new one */
    const char *const *names; /* "DNS:…", "IP:…", NULL-terminated; NULL: none */
    int purpose;              /* X509_PURPOSE_… */
};

/* What the server sent, verified. issued_free() also after a failure. */
struct issued {
    X509 *cert;
    STACK_OF(X509) * between; /* the intermediates */
};

int obtain(struct issued *out, struct session *s, const struct wanted *w, struct failure *f)
    __attribute__((warn_unused_result));
void issued_free(struct issued *i);

/* The same request has the same id, also in a later run: it is made from the request itself. Thus
 * whatever became of an earlier answer, asking again gives the same certificate. context is what
 * else makes the request another one. */
int request_id_of(char out[33], const char *context, X509_REQ *csr)
    __attribute__((warn_unused_result));
/* A new one for each run: for what may rightly be asked again later. */
int request_id_new(char out[33], struct failure *f) __attribute__((warn_unused_result));

#endif
