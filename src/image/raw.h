/* Credentials as a C header, for firmware that has them compiled in. */
#ifndef SIGNET_IMAGE_RAW_H
#define SIGNET_IMAGE_RAW_H

#include "image/credentials.h"

/* "client_key", "client_cert", "client_chain0", "ca_cert". */
void raw_name(char out[32], const struct credential_item *item);

/* "static const unsigned char client_key[] = {…};" and its length, for each item. In PEM the NUL is
 * there and is counted. *out starts {0} and holds the key: buf_wipe(). */
int raw_c_header(struct buf *out, const struct credential_items *items, struct err *err)
    __attribute__((warn_unused_result));

#endif
