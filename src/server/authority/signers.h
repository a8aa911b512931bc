/* The signer processes, as the authority sees them: digests in, signatures out.
 *
 * Jobs wait here by priority and go to the signer with the fewest of them, at most SIGNER_DEPTH
 * each. A call that outlives its deadline, counted from when the signer began it, or a fault that
 * is not transient, ends that signer (the supervisor kills it and starts another); its jobs go to
 * others, once. */
#ifndef SIGNET_SIGNERS_H
#define SIGNET_SIGNERS_H

#include "server/authority/authority.h"

#define SIGNER_DEPTH 32

enum sign_priority { SIGN_FOR_CRL, SIGN_FOR_CERTIFICATE, SIGN_FOR_OCSP, SIGN_PRIORITIES };

struct signers; /* opaque */

struct signers *signers_new(struct authority *a);
void signers_free(struct signers *s);

/* A new signer process; the socket is taken. */
void signers_add(struct signers *s, unsigned number, int socket);

unsigned signers_ready(const struct signers *s);
size_t signers_waiting(const struct signers *s);
const char *signers_custody(const struct signers *s);      /* "" while none has said hello */
unsigned signers_custody_missing(const struct signers *s); /* enum custody_bit, waived */
const char *signers_token(const struct signers *s);

/* Whether a signature may be asked for now; otherwise err says what is missing. */
int signers_usable(const struct signers *s, struct err *err);

/* signature.len 0: it could not be had, err says why. Called from the loop, never from within. */
typedef void (*signed_fn)(void *arg, struct bytes signature, const struct err *err);
/* -1: no memory. */
int signers_sign(struct signers *s, enum sign_priority priority, struct bytes digest,
                 signed_fn done, void *arg) __attribute__((warn_unused_result));

/* What is known of the token (enum token_fault), for status and for whoever is answered 503. A
 * refused PIN stays until a login succeeds: nothing else is tried before. */
void signers_token_state(struct signers *s, uint8_t fault, const char *detail);

/* The signature that came back is not the CA's over what was asked: end whoever made it. */
void signers_distrust(struct signers *s, const char *why);

#endif
