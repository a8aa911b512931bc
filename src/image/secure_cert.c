#include "image/secure_cert.h"

#include <stdio.h>
#include <string.h>

static size_t padded(size_t len)
{
    return (len + 15) & ~(size_t)15;
}

static size_t entry_size(size_t len)
{
    return SECURE_CERT_HEADER + padded(len) + 4;
}

/* ---- writing ---- */

static void put_entry(uint8_t *at, const struct image_value *v)
{
    size_t end = SECURE_CERT_HEADER + padded(v->data.len);
    memset(at, 0, end);
    put32(at, SECURE_CERT_MAGIC);
    at[8] = v->type;
    at[9] = v->subtype;
    put16(at + 10, (uint16_t)v->data.len);
    memcpy(at + SECURE_CERT_HEADER, v->data.data, v->data.len);
    put32(at + end, rom_crc(at, end));
}

static int check_size(size_t size, struct err *err)
{
    if (size >= NVS_SECTOR && size <= SECURE_CERT_SIZE_MAX)
        return 0;
    return err_set(err, ERR_field_value,
                   "an esp_secure_cert partition has 0x%x to 0x%x bytes (mostly 0x%x), not 0x%zx",
                   NVS_SECTOR, SECURE_CERT_SIZE_MAX, SECURE_CERT_SIZE_DEFAULT, size);
}

static int check_fit(const struct image_value *values, size_t count, size_t size, struct err *err)
{
    size_t tail = entry_size(32) + 16, at = tail; /* the hash, and something that is no magic */
    const struct image_value *over = NULL;
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        size_t before = at;
        at += entry_size(values[i].data.len);
        if (!over && at > size) {
            over = &values[i];
            left = before + entry_size(0) < size ? size - before - entry_size(0) : 0;
        }
    }
    if (!over)
        return 0;
    return err_set(err, ERR_internal,
                   "%s (%zu bytes) does not fit: the partition of 0x%zx bytes has room for %zu "
                   "behind the items before it; all needs %zu bytes",
                   over->name, over->data.len, size, left, at);
}

int secure_cert_build(struct buf *out, const struct image_value *values, size_t count, size_t size,
                      struct err *err)
{
    uint8_t hash[32];
    if (check_size(size, err) || check_fit(values, count, size, err) || blank_image(out, size, err))
        return -1;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        put_entry(out->data + at, &values[i]);
        at += entry_size(values[i].data.len);
    }
    sha256(hash, (struct bytes){out->data, at});
    struct image_value sum = {.type = SECURE_CERT_HASH, .data = {hash, sizeof hash}};
    put_entry(out->data + at, &sum);
    return 0;
}

/* ---- reading ---- */

static void set_name(struct image_item *item)
{
    static const char *const names[] = {
        [SECURE_CERT_CA] = "CA certificate",     [SECURE_CERT_CERT] = "device certificate",
        [SECURE_CERT_KEY] = "private key",       [SECURE_CERT_DS_DATA] = "DS data",
        [SECURE_CERT_DS_CONTEXT] = "DS context", [SECURE_CERT_HASH] = "SHA-256",
    };
    const char *name = item->type < sizeof names / sizeof names[0] ? names[item->type] : NULL;
    if (!name)
        snprintf(item->name, sizeof item->name, "type %u", item->type);
    else
        snprintf(item->name, sizeof item->name, "%s", name);
}

static void check_hash(struct image *image, const struct image_item *item, struct bytes in)
{
    uint8_t hash[32];
    if (item->type != SECURE_CERT_HASH)
        return;
    sha256(hash, (struct bytes){in.data, item->offset});
    if (item->data.len != sizeof hash || memcmp(item->data.data, hash, sizeof hash) != 0)
        image_add_problem(image, item->offset, "the SHA-256 of the entries before it is another");
}

static void check_double(struct image *image, const struct image_item *item)
{
    for (const struct image_item *other = image->items; other < item; other++)
        if (other->type == item->type && other->subtype == item->subtype) {
            image_add_problem(image, item->offset,
                              "%s, subtype %u, is there twice: the firmware takes that at 0x%zx",
                              item->name, item->subtype, other->offset);
            return;
        }
}

static int take_entry(struct image *image, struct bytes in, size_t offset, struct err *err)
{
    const uint8_t *at = in.data + offset;
    size_t len = get16(at + 10), end = SECURE_CERT_HEADER + padded(len);
    uint32_t crc = rom_crc(at, end), found = get32(at + end);
    if (crc != found) {
        image_add_problem(image, offset,
                          "entry at 0x%zx (type %u, %zu bytes): its CRC is %08x, and %08x stands "
                          "there",
                          offset, at[8], len, crc, found);
        return 0;
    }
    struct image_item *item = image_add_item(image);
    if (!item || buf_copy(&item->data, (struct bytes){at + SECURE_CERT_HEADER, len}))
        return err_set(err, ERR_internal, "out of memory");
    item->flags = at[4];
    item->type = at[8];
    item->subtype = at[9];
    item->offset = offset;
    set_name(item);
    check_hash(image, item, in);
    check_double(image, item);
    return 0;
}

/* What is left behind the last entry: FF, by some tools an end mark first. */
static void check_tail(struct image *image, struct bytes in, size_t offset)
{
    if (in.len - offset < 4) {
        image_add_problem(image, offset,
                          "nothing stands behind the last entry: cut off, or the firmware reads on "
                          "into what comes next in the flash");
        return;
    }
    if (get32(in.data + offset) == SECURE_CERT_END)
        offset += 4;
    while (offset < in.len && in.data[offset] == 0xFF)
        offset++;
    if (offset < in.len)
        image_add_problem(
            image, offset,
            "at 0x%zx behind the last entry something is written: a damaged entry, or "
            "the rest of an older image",
            offset);
}

int secure_cert_read(struct image *out, struct bytes in, struct err *err)
{
    size_t at = 0, size;
    out->format = IMAGE_SECURE_CERT;
    if (in.len > SECURE_CERT_SIZE_MAX)
        return err_set(err, ERR_internal,
                       "an esp_secure_cert partition of 0x%zx bytes; the firmware reads 0x%x",
                       in.len, SECURE_CERT_SIZE_MAX);
    for (; in.len - at >= 4 && get32(in.data + at) == SECURE_CERT_MAGIC; at += size) {
        size = in.len - at < SECURE_CERT_HEADER ? SIZE_MAX : entry_size(get16(in.data + at + 10));
        if (size > in.len - at) {
            image_add_problem(out, at,
                              "entry at 0x%zx: its length goes over the end of the image (0x%zx): "
                              "damaged, or cut off",
                              at, in.len);
            out->used = at;
            return 0;
        }
        if (take_entry(out, in, at, err))
            return -1;
    }
    out->used = at;
    check_tail(out, in, at);
    return 0;
}
