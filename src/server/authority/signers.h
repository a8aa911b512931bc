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
#define SIGNER_DEPTH_OCSP                                                                          \
    2 /* what is asked for after them does not wait behind a queue of these                        \
       */

enum sign_priority { SIGN_FOR_CRL, SIGN_FOR_CERTIFICATE, SIGN_FOR_OCSP, SIGN_PRIORITIES };

struct signers; /* opaque */

struct signers *signers_new(struct authority *a);
void signers_free(struct signers *s);

/* A new signer process; the socket is taken. */
void signers_add(struct signers *s, unsigned number, int socket);

unsigned signers_ready(const struct signers *s);
/* Told each time that one begins to take jobs. */
void signers_on_ready(struct signers *s, void (*ready)(void *arg), void *arg);
size_t signers_waiting(const struct signers *s);
const char *signers_custody(const struct signers *s);      /* "" while none has said hello */
unsigned signers_custody_missing(const struct signers *s); /* enum custody_bit, waived */
const char *signers_token(const struct signers *s);

/* The SubjectPublicKeyInfo of the OCSP responder's key, as the last signer to say hello has it; a
 * view, empty while there is none. Jobs for that key go to signers that have this very one. */
struct bytes signers_responder_spki(const struct signers *s);
unsigned signers_responder_missing(const struct signers *s); /* as signers_custody_missing() */

/* Whether a signature may be asked for now; otherwise err says what is missing. */
int signers_usable(const struct signers *s, struct err *err);

/* signature.len 0: it could not be had, err says why. Called from the loop, never from within. */
typedef void (*signed_fn)(void *arg, struct bytes signature, const struct err *err);
/* digest: as the key's algorithm wants it (issuer_alg(), responder_alg()). -1: no memory. */
int signers_sign(struct signers *s, enum token_key key, enum sign_priority priority,
                 struct bytes digest, signed_fn done, void *arg)
    __attribute__((warn_unused_result));

/* What is known of the token (enum token_fault), for status and for whoever is answered 503. A
 * refused PIN stays until a login succeeds: nothing else is tried before. */
void signers_token_state(struct signers *s, uint8_t fault, const char *detail);

/* The signature that came back is not that key's over what was asked: end whoever made it. */
void signers_distrust(struct signers *s, const char *why);

#endif
