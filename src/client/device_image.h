/* What an image is made of, from a device's folder, and the options that say how. */
#ifndef SIGNET_CLIENT_DEVICE_IMAGE_H
#define SIGNET_CLIENT_DEVICE_IMAGE_H

#include "client/options.h"
#include "image/image.h"

/* device.key, device.crt, chain.pem and ca.pem of a folder; device_credentials_free() always. */
int device_credentials_load(struct credentials *out, const char *folder, struct failure *f)
    __attribute__((warn_unused_result));
void device_credentials_free(struct credentials *c);

/* A number of bytes of flash: 0x6000, 24576, 24K or 1M. EXIT_USAGE. */
int flash_number(size_t *out, const char *text, const char *option, struct failure *f)
    __attribute__((warn_unused_result));

/* --encoding, pem when it is not given. EXIT_USAGE. */
int encoding_take(enum encoding *out, const struct options *o, struct failure *f)
    __attribute__((warn_unused_result));

/* --format (nvs or secure-cert), --encoding, --size (0: not given) and the names. The strings are
 * those of o. EXIT_USAGE. */
int image_options_take(struct image_options *out, const struct options *o, struct failure *f)
    __attribute__((warn_unused_result));

/* What a function of image/ said: EXIT_USAGE for an option, EXIT_LOCAL otherwise. Returns -1. */
int fail_image(struct failure *f, const struct err *err);

#endif
