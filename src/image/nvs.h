/* ESP-IDF's key-value partition, version 2, for image.c and the tests.
 *
 * A page of 4096 bytes is a header, a bitmap with the state of each entry, and 126 entries of 32
 * bytes. A string is one entry and its text in the entries behind it, never across pages; a blob is
 * such chunks, one a page, and an index entry at the end. The last page stays blank: the firmware
 * needs it to move things. Encrypted: each written entry by AES-256-XTS with its offset as tweak;
 * header and bitmap stay plain. */
#ifndef SIGNET_IMAGE_NVS_H
#define SIGNET_IMAGE_NVS_H

#include <openssl/evp.h>
#include "image/parts.h"

#define NVS_ENTRY 32
#define NVS_ENTRIES 126 /* a page */
#define NVS_BITMAP 32   /* its offset in a page */
#define NVS_FIRST 64    /* of the first entry */
#define NVS_SIZE_MIN (3 * NVS_SECTOR)
#define NVS_STRING_MAX 4000 /* with its NUL */
#define NVS_BLOB_MAX (127 * NVS_STRING_MAX)
#define NVS_CHUNK_ANY 0xFF

enum nvs_type {
    NVS_U8 = 0x01,
    NVS_STRING = 0x21,
    NVS_BLOB_V1 = 0x41, /* version 1, laid out as a string */
    NVS_BLOB_DATA = 0x42,
    NVS_BLOB_INDEX = 0x48,
};

enum nvs_page_state {
    NVS_PAGE_BLANK = 0xFFFFFFFF,
    NVS_PAGE_ACTIVE = 0xFFFFFFFE,
    NVS_PAGE_FULL = 0xFFFFFFFC,
    NVS_PAGE_FREEING = 0xFFFFFFF8,
};

#define NVS_VERSION_1 0xFF
#define NVS_VERSION_2 0xFE

/* The values (NVS_STRING, or NVS_BLOB_DATA for a blob) in a namespace, in this order. Names were
 * checked. */
int nvs_build(struct buf *out, const char *space, const struct image_value *values, size_t count,
              size_t size, const uint8_t *keys, struct err *err)
    __attribute__((warn_unused_result));

/* For image_read(). */
int nvs_read(struct image *out, struct bytes in, const uint8_t *keys, struct err *err)
    __attribute__((warn_unused_result));

/* ---- what writing and reading share ---- */

uint32_t nvs_entry_crc(const uint8_t entry[NVS_ENTRY]);
uint32_t nvs_header_crc(const uint8_t *page);

/* EVP_CIPHER_CTX_free() wipes it. NULL: no memory, or both halves of the keys are the same. */
EVP_CIPHER_CTX *nvs_cipher(const uint8_t keys[NVS_KEYS_SIZE], int encrypt)
    __attribute__((warn_unused_result));
/* One entry in place; offset is its own in the partition. */
int nvs_crypt(EVP_CIPHER_CTX *ctx, uint8_t entry[NVS_ENTRY], size_t offset)
    __attribute__((warn_unused_result));

#endif
