#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "image/nvs.h"

struct writer {
    uint8_t *at;         /* the image; NULL: only count the pages */
    size_t page, used;   /* the page being written, its entries in use */
    EVP_CIPHER_CTX *xts; /* NULL: plain */
};

uint32_t nvs_entry_crc(const uint8_t entry[NVS_ENTRY])
{
    return rom_crc_more(rom_crc(entry, 4), entry + 8, NVS_ENTRY - 8);
}

uint32_t nvs_header_crc(const uint8_t *page)
{
    return rom_crc(page + 4, 24);
}

static void begin_page(const struct writer *w)
{
    if (!w->at)
        return;
    uint8_t *page = w->at + w->page * NVS_SECTOR;
    put32(page, NVS_PAGE_ACTIVE);
    put32(page + 4, (uint32_t)w->page);
    page[8] = NVS_VERSION_2;
    put32(page + 28, nvs_header_crc(page));
}

static void next_page(struct writer *w)
{
    if (w->at)
        put32(w->at + w->page * NVS_SECTOR, NVS_PAGE_FULL);
    w->page++;
    w->used = 0;
    begin_page(w);
}

static size_t entries_of(size_t len)
{
    return (len + NVS_ENTRY - 1) / NVS_ENTRY;
}

/* Two bits an entry: 11 empty, 10 written. */
static void mark_written(uint8_t *page, size_t entry)
{
    page[NVS_BITMAP + entry / 4] &= (uint8_t) ~(1u << entry % 4 * 2);
}

static int put_entry(const struct writer *w, const uint8_t *data, size_t len)
{
    uint8_t *page = w->at + w->page * NVS_SECTOR, *entry = page + NVS_FIRST + w->used * NVS_ENTRY;
    memcpy(entry, data, len);
    mark_written(page, w->used);
    return w->xts ? nvs_crypt(w->xts, entry, (size_t)(entry - w->at)) : 0;
}

/* Bytes into the next entries of the page; behind them the last entry stays FF. */
static int put(struct writer *w, const uint8_t *data, size_t len)
{
    for (size_t at = 0; at < len; at += NVS_ENTRY, w->used++) {
        size_t n = len - at < NVS_ENTRY ? len - at : NVS_ENTRY;
        if (w->at && put_entry(w, data + at, n))
            return -1;
    }
    return 0;
}

static void set_header(uint8_t entry[NVS_ENTRY], unsigned space, uint8_t type, size_t span,
                       uint8_t chunk, const char *key)
{
    memset(entry, 0xFF, NVS_ENTRY);
    entry[0] = (uint8_t)space;
    entry[1] = type;
    entry[2] = (uint8_t)span;
    entry[3] = chunk;
    memset(entry + 8, 0, NVS_NAME_MAX + 1);
    memcpy(entry + 8, key, strnlen(key, NVS_NAME_MAX));
}

static int put_header(struct writer *w, uint8_t entry[NVS_ENTRY])
{
    put32(entry + 4, nvs_entry_crc(entry));
    return put(w, entry, NVS_ENTRY);
}

static int put_namespace(struct writer *w, const char *space)
{
    uint8_t entry[NVS_ENTRY];
    set_header(entry, 0, NVS_U8, 1, NVS_CHUNK_ANY, space);
    entry[24] = 1;
    return put_header(w, entry);
}

/* Of a string, or of one chunk of a blob: header, then the bytes. They fit into the page. */
static int put_data(struct writer *w, const struct image_value *v, uint8_t chunk, struct bytes data)
{
    uint8_t entry[NVS_ENTRY];
    set_header(entry, 1, v->type, 1 + entries_of(data.len), chunk, v->name);
    put16(entry + 24, (uint16_t)data.len);
    put32(entry + 28, rom_crc(data.data, data.len));
    return put_header(w, entry) || put(w, data.data, data.len) ? -1 : 0;
}

static int put_string(struct writer *w, const struct image_value *v)
{
    if (w->used && w->used + 1 + entries_of(v->data.len) >= NVS_ENTRIES)
        next_page(w);
    return put_data(w, v, NVS_CHUNK_ANY, v->data);
}

/* How many bytes a chunk that begins now may have. */
static size_t room(const struct writer *w)
{
    return w->used + 1 < NVS_ENTRIES ? (NVS_ENTRIES - w->used - 1) * NVS_ENTRY : 0;
}

static int put_blob(struct writer *w, const struct image_value *v)
{
    uint8_t entry[NVS_ENTRY], chunks = 0;
    for (struct bytes rest = v->data; rest.len || chunks == 0;) {
        if (room(w) == 0)
            next_page(w);
        struct bytes part = {rest.data, rest.len < room(w) ? rest.len : room(w)};
        if (put_data(w, v, chunks++, part))
            return -1;
        rest = (struct bytes){rest.data + part.len, rest.len - part.len};
    }
    if (w->used == NVS_ENTRIES)
        next_page(w);
    set_header(entry, 1, NVS_BLOB_INDEX, 1, NVS_CHUNK_ANY, v->name);
    put32(entry + 24, (uint32_t)v->data.len);
    entry[28] = chunks;
    entry[29] = 0;
    return put_header(w, entry);
}

static int put_value(struct writer *w, const struct image_value *v)
{
    return v->type == NVS_STRING ? put_string(w, v) : put_blob(w, v);
}

/* Counts before anything is written. What does not fit is named, with what would do. */
static int check_fit(const struct image_value *values, size_t count, size_t size, struct err *err)
{
    struct writer w = {.used = 1};                  /* the namespace's entry */
    size_t pages = size / NVS_SECTOR - 1, left = 0; /* pages for data; bytes left there */
    const struct image_value *over = NULL;
    for (size_t i = 0; i < count; i++) {
        size_t free_bytes = (pages - 1 - w.page) * NVS_STRING_MAX + room(&w);
        if (put_value(&w, &values[i]))
            return err_set(err, ERR_internal, "the NVS partition cannot be laid out");
        if (!over && w.page >= pages) {
            over = &values[i];
            left = free_bytes > NVS_ENTRY ? free_bytes - NVS_ENTRY : 0; /* one entry stays free */
        }
    }
    if (!over)
        return 0;
    return err_set(err, ERR_internal,
                   "%s (%zu bytes) does not fit: the NVS partition of 0x%zx bytes has room for %zu "
                   "bytes behind the items before it (its last page stays blank); all needs 0x%zx "
                   "bytes",
                   over->name, over->data.len, size, left, (w.page + 2) * NVS_SECTOR);
}

static int check_values(const struct image_value *values, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        int is_string = values[i].type == NVS_STRING;
        size_t max = is_string ? NVS_STRING_MAX : NVS_BLOB_MAX;
        if (values[i].data.len > max)
            return err_set(err, ERR_internal,
                           "%s (%zu bytes) is too long: an NVS %s has %zu at most", values[i].name,
                           values[i].data.len, is_string ? "string" : "blob", max);
    }
    return 0;
}

static int write_all(struct writer *w, const char *space, const struct image_value *values,
                     size_t count)
{
    begin_page(w);
    if (put_namespace(w, space))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (put_value(w, &values[i]))
            return -1;
    return 0;
}

int nvs_build(struct buf *out, const char *space, const struct image_value *values, size_t count,
              size_t size, const uint8_t *keys, struct err *err)
{
    struct writer w = {0};
    if (size < NVS_SIZE_MIN)
        return err_set(err, ERR_field_value,
                       "an NVS partition has at least 0x%x bytes, three pages; 0x%zx are too few",
                       NVS_SIZE_MIN, size);
    if (check_values(values, count, err) || check_fit(values, count, size, err))
        return -1;
    if (keys && !(w.xts = nvs_cipher(keys, 1)))
        return err_set(err, ERR_internal, "cannot encrypt: %s", err_openssl());
    int rc = blank_image(out, size, err);
    w.at = out->data;
    if (rc == 0 && write_all(&w, space, values, count))
        rc = err_set(err, ERR_internal, "cannot encrypt: %s", err_openssl());
    EVP_CIPHER_CTX_free(w.xts);
    return rc;
}
