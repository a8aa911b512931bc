/* DER in and out by OpenSSL's templates (openssl/asn1t.h): for the files of this folder. */
#ifndef SIGNET_DER_H
#define SIGNET_DER_H

#include <openssl/asn1t.h>
#include "common/bytes.h"

/* The value of exactly these bytes; NULL when they are malformed, more than one value, or not what
 * encoding the value again gives (X.690 section 10: DER has one form). ASN1_item_free(). */
void *der_decode(struct bytes in, const ASN1_ITEM *item) __attribute__((warn_unused_result));

/* Appends the encoding of value. */
int der_encode(struct buf *out, const void *value, const ASN1_ITEM *item)
    __attribute__((warn_unused_result));

/* Appends a tag and length; the content follows. */
int der_header(struct buf *out, int constructed, int tag, int class, size_t len)
    __attribute__((warn_unused_result));

/* A SEQUENCE that a template leaves opaque: an ASN1_ANY field. What it holds, header included
 * ({NULL, 0}: something else), and one made of such bytes (NULL: no memory). */
struct bytes der_opaque(const ASN1_TYPE *any);
ASN1_TYPE *der_opaque_new(struct bytes sequence) __attribute__((warn_unused_result));

struct bytes der_string(const ASN1_STRING *s);

/* Reading without decoding. One value off the front of *in: one byte of tag, the shortest definite
 * length (X.690 section 10.1), all of the content there. -1: something else, and *in stays. */
struct der_value {
    uint8_t tag; /* with class and the bit of what is constructed */
    struct bytes content, whole;
};
int der_next(struct bytes *in, struct der_value *out) __attribute__((warn_unused_result));

/* The same, and it has this tag. */
int der_expect(struct bytes *in, uint8_t tag, struct bytes *content)
    __attribute__((warn_unused_result));

#endif
