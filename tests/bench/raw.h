/* One session with the token and its key, by PKCS#11 alone. */
#ifndef SIGNET_BENCH_RAW_H
#define SIGNET_BENCH_RAW_H

#include "hsm/pkcs11.h"
#include "token_settings.h"

struct raw {
    struct p11 token;
    struct p11_key key;
    CK_MECHANISM how;
    struct bytes prefix; /* before the digest: RSA's DigestInfo */
};

/* Ends the program on failure, as raw_sign() does. */
void raw_open(struct raw *r, const struct token_settings *s);
/* C_SignInit and C_Sign of a digest that n makes. */
void raw_sign(struct raw *r, unsigned n);

#endif
