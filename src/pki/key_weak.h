/* RSA moduli that look well and are not. */
#ifndef SIGNET_KEY_WEAK_H
#define SIGNET_KEY_WEAK_H

#include <openssl/bn.h>

/* What is wrong with an odd modulus of 2048 to 4096 bits, in words; NULL: nothing that is known.
 * An error within is a reason too: what was not checked is not certified. */
const char *key_weakness(const BIGNUM *n);

#endif
