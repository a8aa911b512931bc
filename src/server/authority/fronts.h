/* The fronts: what they are given, what they may ask, and how many questions at once. */
#ifndef SIGNET_FRONTS_H
#define SIGNET_FRONTS_H

#include "server/authority/authority.h"

struct fronts; /* opaque */

struct fronts *fronts_new(struct authority *a);
void fronts_free(struct fronts *f);
int fronts_any(const struct fronts *f);

/* A new front process; the socket is taken. */
void fronts_add(struct fronts *f, unsigned number, int socket);

/* Gives every front the CRL of a scope, or the listener's certificate, as it is now. */
void fronts_send_crl(struct fronts *f, unsigned scope);
void fronts_send_listener(struct fronts *f);

/* The state of these is another now (list NULL: of any): no front gives an OCSP answer from before
 * to who asks after this. Before it is acknowledged to anybody. */
void fronts_forget(struct fronts *f, const struct state_change *list, size_t count);

#endif
