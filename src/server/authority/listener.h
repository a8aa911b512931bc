/* The TLS listener's own certificate: issued by the intermediate like any other (profile server,
 * seven days, the configured names), renewed at half its life, kept in STATE with its key. */
#ifndef SIGNET_LISTENER_H
#define SIGNET_LISTENER_H

#include "server/authority/authority.h"

struct listener; /* opaque */

/* Loads STATE/listener.pem and listener-key.pem; what is missing, does not match, is past half
 * its life or has a key that others can read is made anew as soon as a signer is ready. */
struct listener *listener_new(struct authority *a);
void listener_free(struct listener *l);

/* PEM views; empty while there is none that is valid. The certificate has the chain behind it. */
struct bytes listener_certificate(const struct listener *l);
struct bytes listener_key(const struct listener *l);

/* Of the certificate in use; 0: none. */
int64_t listener_not_after(const struct listener *l);
/* It is in use, but could not be written: a restart would make another. NULL: all is well. */
const char *listener_problem(const struct listener *l);
/* The configuration's names are others now: a certificate without them is renewed. */
void listener_check_names(struct listener *l);
/* What it waits for may be there, or due: once a second, and when a signer is ready. */
void listener_look(struct listener *l);

#endif
