/* The token: one PKCS#11 module, one session, one login, and in it the private keys that sign
 * digests: the CA's, and the OCSP responder's where there is one.
 *
 * Two files stand behind this header. pkcs11.c speaks raw PKCS#11 (v2.40) to the module: probe,
 * login, key, custody. token_engine.c is the one file that knows OpenSSL's ENGINE; when it goes
 * (OpenSSL 4), token_provider.c takes its place.
 *
 * One process opens one token once. There is no recovery in place: on an error that is not
 * TOKEN_TRANSIENT the process ends and a new one starts (libp11 0.4.12 cannot heal a session).
 */
#ifndef SIGNET_TOKEN_H
#define SIGNET_TOKEN_H

#include "common/bytes.h"
#include "common/err.h"
#include "common/secret.h"
#include "pki/issuer.h"

/* By which names a key is found. Exactly one private key must answer to them. */
struct token_key_names {
    const char *label;             /* CKA_LABEL; may be NULL when id is given */
    struct bytes id;               /* CKA_ID; may be empty when label is given */
    const char *custody_exception; /* "<SPKI sha256 hex>, <reason>"; may be NULL */
};

struct token_config {
    const char *module;               /* path of the PKCS#11 module; required */
    const char *init_args;            /* for C_Initialize's pReserved; may be NULL */
    const char *label;                /* the token's label; required, and only one token has it */
    struct token_key_names ca;        /* required */
    struct token_key_names responder; /* neither label nor id: there is none */
    unsigned trial_limit;             /* seconds for a trial signature, then SIGALRM; 0: no limit */
};

/* Why a token cannot be used. The numbers go over the wire. */
enum token_fault {
    TOKEN_OK = 0,
    TOKEN_ABSENT = 1,      /* no such token now; it may come back */
    TOKEN_MODULE = 2,      /* the module does not load or initialize */
    TOKEN_PIN_REFUSED = 3, /* CKR_PIN_INCORRECT or CKR_PIN_LOCKED: never try again by itself */
    TOKEN_PIN_LAST = 4,    /* the token says the next wrong PIN locks it: not tried */
    TOKEN_KEY_MISSING = 5,
    TOKEN_KEY_DOUBLED = 6,  /* two keys, or two tokens, answer to the names given */
    TOKEN_CUSTODY = 7,      /* the key's attributes break custody and no exception covers them */
    TOKEN_TRANSIENT = 8,    /* DEVICE_ERROR once: the same session may go on */
    TOKEN_LOST = 9,         /* anything else: end this process */
    TOKEN_KEY_MISMATCH = 10 /* the key is not the CA certificate's, or of no use for its purpose */
};

const char *token_fault_name(enum token_fault f);

/* Attributes as the module claims them (PKCS#11 v2.40 section 4.9); its claims, not ours. */
enum custody_bit {
    CUSTODY_SENSITIVE = 1,
    CUSTODY_PRIVATE = 2,
    CUSTODY_SIGN = 4,
    CUSTODY_ALWAYS_SENSITIVE = 8,
    CUSTODY_NEVER_EXTRACTABLE = 16,
    CUSTODY_LOCAL = 32,
    CUSTODY_NOT_EXTRACTABLE = 64,
    CUSTODY_ALL = 127,
    CUSTODY_ABSOLUTE = 7, /* SENSITIVE, PRIVATE, SIGN cannot be waived */
    /* not custody, but worth a warning: */
    CUSTODY_WARN_DECRYPT = 256,
    CUSTODY_WARN_UNWRAP = 512,
    CUSTODY_WARN_DERIVE = 1024
};

struct token; /* opaque */

/* Opens module, token and keys, with one login by pin. Returns 0, or the fault with err->text that
 * names module, token, key, cause and next step. Each key makes a trial signature before anything
 * else is signed: the CA's is verified with ca_spki (empty: with the token's own public half), the
 * responder's with the token's public half of it. The two must be different keys. */
enum token_fault token_open(struct token **out, const struct token_config *config,
                            const struct secret *pin, struct bytes ca_spki, struct err *err)
    __attribute__((warn_unused_result));

/* "SENSITIVE, PRIVATE, …": the names of these bits, comma-separated; out holds at least 160. */
void custody_text(char *out, size_t size, unsigned bits);

/* `custody_exception = <SPKI sha256 hex>, <reason>` (NULL: none) against the key with this hash.
 * -1: malformed, or for another key. setting: what it is called, for the message. */
int custody_check_exception(const char *setting, const char *exception,
                            const uint8_t spki_sha256[32], struct err *err)
    __attribute__((warn_unused_result));

/* Bits of enum custody_bit. */
unsigned token_custody(const struct token *t, enum token_key key);
/* The SubjectPublicKeyInfo of the responder's key; a view, empty when there is none. */
struct bytes token_responder_spki(const struct token *t);
/* "SoftHSM v2, serial 1234abcd": what the token says it is. */
const char *token_description(const struct token *t);

/* The CA's private key behind the token, for the ceremony tool, which has OpenSSL sign whole
 * objects with it (X509_REQ_sign and the like) and verifies them afterwards. Borrowed. */
EVP_PKEY *token_private_key(const struct token *t);

/* Signs a digest: RSA PKCS#1 v1.5 (CKM_RSA_PKCS), or ECDSA as DER (RFC 3279 section 2.2.3).
 * sig holds SIGNATURE_MAX. Blocks as long as the token does. The signature is not verified here:
 * the authority does that with the key's public half. A fault is one of the session, and so of both
 * keys. */
enum token_fault token_sign(struct token *t, enum token_key key, enum sign_alg alg,
                            struct bytes digest, uint8_t *sig, size_t *sig_len, struct err *err)
    __attribute__((warn_unused_result));

/* Logs out and ends the sessions, so that the token need not wait to notice. For a process about
 * to end: no token can be opened after it. NULL is fine. */
void token_close(struct token *t);

#endif
