/* The OCSP responder's certificate: the intermediate delegates its answers to the second key in the
 * token (RFC 6960 section 4.2.2.2), for seven days at a time (profile ocsp), renewed at half of
 * them. It is taken from the store at the start: no file, no key outside of the token. Older ones
 * stay valid until they end, as answers signed under them do. */
#ifndef SIGNET_AUTHORITY_RESPONDER_H
#define SIGNET_AUTHORITY_RESPONDER_H

#include "pki/ocsp.h"
#include "server/authority/authority.h"

struct delegation; /* opaque */

/* Sets a->ocsp_responder: a certificate that is valid now, for the key that signers_sign() signs
 * with as TOKEN_KEY_RESPONDER; or NULL. What it points to stands until the loop goes on. */
struct delegation *delegation_new(struct authority *a);
void delegation_free(struct delegation *d);
/* What it waits for may be there, or due: once a second, and when a signer is ready. */
void delegation_look(struct delegation *d);

/* Why there is none, or why the next one is not to be had; NULL: all is well, or no key is
 * configured. */
const char *responder_problem(const struct authority *a);

#endif
