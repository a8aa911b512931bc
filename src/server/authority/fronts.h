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

/* Gives every front the CRL, or the listener's certificate, as it is now. */
void fronts_send_crl(struct fronts *f);
void fronts_send_listener(struct fronts *f);

#endif
