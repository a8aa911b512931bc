/* What the formats share; for the files of this folder. All numbers in flash are little-endian. */
#ifndef SIGNET_IMAGE_PARTS_H
#define SIGNET_IMAGE_PARTS_H

#include "image/image.h"

/* One thing to be written; data is borrowed. */
struct image_value {
    char name[24];
    uint8_t type, subtype;
    struct bytes data;
};

uint16_t get16(const uint8_t *p);
uint32_t get32(const uint8_t *p);
void put16(uint8_t *p, uint16_t v);
void put32(uint8_t *p, uint32_t v);

/* The ROM's CRC: crc32() of zlib, begun with all ones instead of 0. More: over bytes that follow.
 */
uint32_t rom_crc(const uint8_t *data, size_t len);
uint32_t rom_crc_more(uint32_t crc, const uint8_t *data, size_t len);

/* Are all of these FF, as erased flash is? */
int is_blank(const uint8_t *data, size_t len);

/* size bytes of FF, in memory of exactly that size. */
int blank_image(struct buf *out, size_t size, struct err *err) __attribute__((warn_unused_result));

/* A place for another item, all zero; NULL: no memory. */
struct image_item *image_add_item(struct image *image) __attribute__((warn_unused_result));
/* A copy in memory of exactly that size; buf_wipe(). */
int buf_copy(struct buf *out, struct bytes data) __attribute__((warn_unused_result));

void image_add_problem(struct image *image, size_t offset, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
