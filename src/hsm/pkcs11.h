/* Raw PKCS#11 (v2.40) to one module: what token.h is built on, and the ceremony tool.
 *
 * Private to src/hsm. A process loads one module once. Where the engine shares it, only the engine
 * finalizes it.
 */
#ifndef SIGNET_PKCS11_H
#define SIGNET_PKCS11_H

#include <p11-kit/pkcs11.h>
#include "hsm/token.h"

/* err_set() for a fault; the code only says "token", the text says what and what to do. */
#define FAULT(fault, err, ...) (err_set(err, ERR_token_unavailable, __VA_ARGS__), (fault))

struct p11 {
    void *library;
    CK_FUNCTION_LIST *f;
    int initialized;           /* by us */
    CK_SLOT_ID slot;           /* from p11_find_token() on */
    CK_TOKEN_INFO info;        /* likewise, as it was before the login */
    CK_SESSION_HANDLE session; /* from p11_session() on */
    char description[160];
};

#define P11_NAME_SIZE 256

/* A private key in the token, as found. */
struct p11_key {
    CK_OBJECT_HANDLE handle;
    char label[P11_NAME_SIZE];
    uint8_t id[255];
    size_t id_len;
};

/* Loads and initializes the module. The library stays loaded until the process ends. */
enum token_fault p11_load(struct p11 *p, const char *module, const char *init_args, struct err *err)
    __attribute__((warn_unused_result));

/* Finds the one token of this label: slot, info, description. */
enum token_fault p11_find_token(struct p11 *p, const char *label, struct err *err)
    __attribute__((warn_unused_result));

/* Opens the session (write: a read/write one). */
enum token_fault p11_session(struct p11 *p, int write, struct err *err)
    __attribute__((warn_unused_result));

/* One C_Login, or none when the token says that the PIN is locked or that a wrong one would lock
 * it. user: CKU_USER or CKU_SO. */
enum token_fault p11_login(struct p11 *p, CK_USER_TYPE user, const struct secret *pin,
                           struct err *err) __attribute__((warn_unused_result));

/* Finds the one private key of this label and id (either may be absent). */
enum token_fault p11_find_key(struct p11 *p, const char *label, struct bytes id,
                              struct p11_key *out, struct err *err)
    __attribute__((warn_unused_result));

/* Closes the session, which logs out. p11_end: and finalizes the module, which some need to let go
 * of the device; only where no engine shares it. */
void p11_close(struct p11 *p);
void p11_end(struct p11 *p);

/* Objects that match, at most max of them; the count, or -1 (the CKR code in *rv). */
int p11_find(struct p11 *p, CK_ATTRIBUTE *match, CK_ULONG match_count, CK_OBJECT_HANDLE *out,
             int max, CK_RV *rv);

/* Attributes of an object. p11_flag: 1 true, 0 false, -1 not to be read.
 * p11_ulong and p11_bytes: 0, or -1 when absent, malformed or over max. */
int p11_flag(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type);
int p11_ulong(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_ULONG *out)
    __attribute__((warn_unused_result));
int p11_bytes(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, uint8_t *out,
              size_t max, size_t *len) __attribute__((warn_unused_result));

/* Slots that hold a token; *out is the caller's, free(). The count, or -1. */
int p11_slots(struct p11 *p, CK_SLOT_ID **out, struct err *err) __attribute__((warn_unused_result));

/* A blank-padded field of a PKCS#11 info structure as text; out holds len + 1. */
void p11_text(char *out, const unsigned char *padded, size_t len);

/* What a CKR code means for us, and its name ("CKR_PIN_INCORRECT", "CKR 0x80000001"). */
enum token_fault p11_fault(CK_RV rv);
const char *p11_rv_name(CK_RV rv);

/* The custody bits of a private key, as the module claims them. */
unsigned p11_custody(struct p11 *p, const struct p11_key *key);

/* TOKEN_CUSTODY when bits are missing that the waiver does not cover. */
enum token_fault p11_check_custody(struct p11 *p, const struct p11_key *key, unsigned waiver,
                                   unsigned *bits, struct err *err)
    __attribute__((warn_unused_result));

#endif
