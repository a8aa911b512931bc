/* What a command starts from: the settings, the pinned root, and the way to the server; and the
 * two questions that anyone may ask it. */
#ifndef SIGNET_CLIENT_SESSION_H
#define SIGNET_CLIENT_SESSION_H

#include "client/certs.h"
#include "client/http.h"
#include "client/settings.h"

struct session {
    struct settings settings;
    X509 *root;
    struct http *http; /* NULL until session_connect() */
};

/* Settings and root. Start with {0}; session_close() also after a failure. */
int session_open(struct session *s, const struct options *o, struct failure *f)
    __attribute__((warn_unused_result));

/* Gets ready to talk to the server; nothing is sent yet. who ("operator", "device"; NULL: nobody):
 * with the certificate and key of the settings, which are looked at first (readable, of one pair).
 */
int session_connect(struct session *s, const char *who, struct failure *f)
    __attribute__((warn_unused_result));
void session_close(struct session *s);

/* get_ca_chain: the intermediate and what stands above it, the intermediate first, verified up to
 * the pinned root; certs_free(). */
int session_chain(struct session *s, STACK_OF(X509) * *out, struct failure *f)
    __attribute__((warn_unused_result));

/* get_ca_chain's chain as it came, not verified. */
int fetch_chain(struct http *h, STACK_OF(X509) * *out, struct failure *f)
    __attribute__((warn_unused_result));

/* get_crl: verified as the intermediate's, and current; X509_CRL_free(). */
int session_crl(struct session *s, X509 *intermediate, X509_CRL **out, struct failure *f)
    __attribute__((warn_unused_result));

#endif
