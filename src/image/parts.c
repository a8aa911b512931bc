#include "image/parts.h"

#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

uint32_t rom_crc_more(uint32_t crc, const uint8_t *data, size_t len)
{
    return (uint32_t)crc32_z(crc, data, len);
}

uint32_t rom_crc(const uint8_t *data, size_t len)
{
    return len ? rom_crc_more(0xFFFFFFFF, data, len) : 0xFFFFFFFF; /* zlib takes NULL as a reset */
}

int is_blank(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (data[i] != 0xFF)
            return 0;
    return 1;
}

int blank_image(struct buf *out, size_t size, struct err *err)
{
    out->data = malloc(size);
    if (!out->data)
        return err_set(err, ERR_internal, "no memory for an image of %zu bytes", size);
    out->len = out->cap = size;
    memset(out->data, 0xFF, size);
    return 0;
}

void buf_wipe(struct buf *b)
{
    if (b->data)
        OPENSSL_cleanse(b->data, b->cap);
    buf_free(b);
}

int buf_copy(struct buf *out, struct bytes data)
{
    *out = (struct buf){malloc(data.len ? data.len : 1), data.len, data.len};
    if (!out->data)
        return -1;
    if (data.len)
        memcpy(out->data, data.data, data.len);
    return 0;
}

struct image_item *image_add_item(struct image *image)
{
    struct image_item *grown = reallocarray(image->items, image->count + 1, sizeof *image->items);
    if (!grown)
        return NULL;
    image->items = grown;
    grown += image->count++;
    *grown = (struct image_item){0};
    return grown;
}

void image_add_problem(struct image *image, size_t offset, const char *fmt, ...)
{
    if (image->problem_count++ >= IMAGE_PROBLEMS_MAX)
        return;
    struct image_problem *p = &image->problems[image->problem_count - 1];
    p->offset = offset;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->text, sizeof p->text, fmt, ap);
    va_end(ap);
}
