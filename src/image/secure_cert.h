/* The esp_secure_cert partition, for image.c and the tests: entries (TLVs) one behind the other,
 * each a multiple of 16 bytes: magic, flags, type, subtype, length; data; zeros to 16; CRC over all
 * of these. The firmware looks for type and subtype until the magic is missing, so something that
 * is no magic must stand behind the last entry. */
#ifndef SIGNET_IMAGE_SECURE_CERT_H
#define SIGNET_IMAGE_SECURE_CERT_H

#include "image/parts.h"

#define SECURE_CERT_MAGIC 0xBA5EBA11
#define SECURE_CERT_HEADER 12
#define SECURE_CERT_END 0x0000FFFF   /* what Espressif's tool puts behind the last entry */
#define SECURE_CERT_SIZE_MAX 0x10000 /* the firmware counts offsets in 16 bits */

enum secure_cert_type {
    SECURE_CERT_CA = 0,
    SECURE_CERT_CERT = 1,
    SECURE_CERT_KEY = 2,
    SECURE_CERT_DS_DATA = 3,
    SECURE_CERT_DS_CONTEXT = 4,
    SECURE_CERT_HASH = 9, /* SHA-256 of all before it */
};

/* The values in this order, then their hash. */
int secure_cert_build(struct buf *out, const struct image_value *values, size_t count, size_t size,
                      struct err *err) __attribute__((warn_unused_result));

/* For image_read(). */
int secure_cert_read(struct image *out, struct bytes in, struct err *err)
    __attribute__((warn_unused_result));

#endif
