#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/nvs.h"

/* A written entry whose CRCs are right; with what its span holds. */
struct entry {
    size_t offset;
    uint8_t head[NVS_ENTRY];
    struct buf data; /* of a string or chunk */
    int is_used;     /* a chunk that an index names */
};

struct reader {
    struct image *image;
    struct bytes in;
    EVP_CIPHER_CTX *xts; /* NULL: plain */
    struct entry *entries;
    size_t count;
    char spaces[256][NVS_NAME_MAX + 1];
    size_t damaged;         /* entries whose own CRC is wrong */
    size_t run, run_offset; /* of them: how many stand in a row here, and where the first is */
    struct err *err;
};

static int no_memory(const struct reader *r)
{
    return err_set(r->err, ERR_internal, "out of memory");
}

static size_t page_of(size_t offset)
{
    return offset / NVS_SECTOR;
}

static size_t index_of(size_t offset)
{
    return (offset % NVS_SECTOR - NVS_FIRST) / NVS_ENTRY;
}

/* "page 0, entry 3: …"; returns -1. */
static int __attribute__((format(printf, 3, 4)))
problem(const struct reader *r, size_t offset, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    image_add_problem(r->image, offset, "page %zu, entry %zu: %s", page_of(offset),
                      index_of(offset), text);
    return -1;
}

/* ---- entries ---- */

enum entry_state { ENTRY_ERASED = 0, ENTRY_INVALID = 1, ENTRY_WRITTEN = 2, ENTRY_EMPTY = 3 };

static enum entry_state state_of(const uint8_t *page, size_t entry)
{
    return page[NVS_BITMAP + entry / 4] >> entry % 4 * 2 & 3;
}

static int load(const struct reader *r, uint8_t out[NVS_ENTRY], size_t offset)
{
    memcpy(out, r->in.data + offset, NVS_ENTRY);
    if (r->xts && nvs_crypt(r->xts, out, offset))
        return err_set(r->err, ERR_internal, "cannot decrypt: %s", err_openssl());
    return 0;
}

static int is_number(uint8_t type)
{
    uint8_t size = type & 15;
    return (type >> 4) <= 1 && (size == 1 || size == 2 || size == 4 || size == 8) &&
           type != NVS_BLOB_INDEX;
}

static int has_data(uint8_t type)
{
    return type == NVS_STRING || type == NVS_BLOB_V1 || type == NVS_BLOB_DATA;
}

static size_t span_of(const uint8_t *head)
{
    return has_data(head[1]) ? 1 + (get16(head + 24) + (size_t)NVS_ENTRY - 1) / NVS_ENTRY : 1;
}

/* What the CRC does not say: is an entry with these fields one that the firmware makes? */
static int check_head(struct reader *r, const uint8_t *head, size_t offset)
{
    const uint8_t *page = r->in.data + page_of(offset) * NVS_SECTOR;
    size_t entry = index_of(offset), span = head[2];
    if (!is_number(head[1]) && !has_data(head[1]) && head[1] != NVS_BLOB_INDEX)
        return problem(r, offset, "its type %02x is none", head[1]);
    if (memchr(head + 8, 0, NVS_NAME_MAX + 1) == NULL || head[8] == 0)
        return problem(r, offset, "its key is empty or does not end");
    if (span != span_of(head) || entry + span > NVS_ENTRIES)
        return problem(r, offset, "%s spans %zu entries, and its length of %d bytes takes %zu",
                       (const char *)head + 8, span, has_data(head[1]) ? get16(head + 24) : 0,
                       span_of(head));
    for (size_t i = 1; i < span; i++)
        if (state_of(page, entry + i) != ENTRY_WRITTEN)
            return problem(r, offset, "%s spans %zu entries, and entry %zu is not marked written",
                           (const char *)head + 8, span, entry + i);
    return 0;
}

static int load_data(const struct reader *r, struct entry *e)
{
    size_t len = get16(e->head + 24);
    uint8_t part[NVS_ENTRY];
    e->data = (struct buf){calloc(1, len + 1), len, len + 1};
    if (!e->data.data)
        return no_memory(r);
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < len; at += NVS_ENTRY) {
        rc = load(r, part, e->offset + NVS_ENTRY + at);
        memcpy(e->data.data + at, part, len - at < NVS_ENTRY ? len - at : NVS_ENTRY);
    }
    OPENSSL_cleanse(part, sizeof part);
    return rc;
}

static struct entry *add_entry(struct reader *r, const uint8_t *head, size_t offset)
{
    struct entry *grown = reallocarray(r->entries, r->count + 1, sizeof *grown);
    if (!grown) {
        no_memory(r);
        return NULL;
    }
    r->entries = grown;
    grown += r->count++;
    *grown = (struct entry){.offset = offset};
    memcpy(grown->head, head, NVS_ENTRY);
    return grown;
}

/* An entry whose own CRC is right. */
static int take_entry(struct reader *r, const uint8_t *head, size_t offset)
{
    struct entry *e = add_entry(r, head, offset);
    if (!e)
        return -1;
    if (!has_data(head[1]))
        return 0;
    if (load_data(r, e))
        return -1;
    uint32_t crc = rom_crc(e->data.data, e->data.len), found = get32(head + 28);
    if (crc == found)
        return 0;
    problem(r, offset, "the CRC of %s's data (%zu bytes) is %08x, and %08x stands there",
            (const char *)head + 8, e->data.len, crc, found);
    buf_wipe(&e->data);
    r->count--;
    return 0;
}

/* Behind a damaged entry the firmware takes its data for entries too: one problem for all. */
static void end_run(struct reader *r)
{
    if (r->run == 0)
        return;
    image_add_problem(
        r->image, r->run_offset, "page %zu, entry %zu: its CRC is not that of its bytes%s",
        page_of(r->run_offset), index_of(r->run_offset),
        r->run > 1 ? ", nor is it for those behind it (its data, or damage too)" : "");
    r->run = 0;
}

/* *span: how many entries to go on. */
static int judge_entry(struct reader *r, const uint8_t *head, size_t offset, size_t *span)
{
    *span = 1;
    if (nvs_entry_crc(head) != get32(head + 4)) {
        r->damaged++;
        if (r->run++ == 0)
            r->run_offset = offset;
        return 0;
    }
    end_run(r);
    if (check_head(r, head, offset))
        return 0;
    *span = head[2];
    return take_entry(r, head, offset);
}

static int read_written(struct reader *r, size_t offset, size_t *span)
{
    uint8_t head[NVS_ENTRY]; /* behind a damaged entry it may be a part of the key */
    int rc = load(r, head, offset) || judge_entry(r, head, offset, span) ? -1 : 0;
    OPENSSL_cleanse(head, sizeof head);
    return rc;
}

static int read_entries(struct reader *r, size_t page_offset)
{
    const uint8_t *page = r->in.data + page_offset;
    size_t stray = 0, stray_offset = 0, span;
    for (size_t i = 0; i < NVS_ENTRIES; i += span) {
        size_t offset = page_offset + NVS_FIRST + i * NVS_ENTRY;
        enum entry_state state = state_of(page, i);
        span = 1;
        if (state == ENTRY_WRITTEN && read_written(r, offset, &span))
            return -1;
        if (state == ENTRY_INVALID)
            problem(r, offset, "its state in the bitmap, 01, is none");
        if (state == ENTRY_EMPTY && !is_blank(r->in.data + offset, NVS_ENTRY) && stray++ == 0)
            stray_offset = offset;
    }
    end_run(r);
    if (stray)
        problem(r, stray_offset, "marked empty, and something is written there (%zu such entries)",
                stray);
    return 0;
}

/* ---- pages ---- */

static int is_state(uint32_t state)
{
    return state == NVS_PAGE_ACTIVE || state == NVS_PAGE_FULL || state == NVS_PAGE_FREEING;
}

/* Is there something to read in this page? */
static int check_page(struct reader *r, size_t offset)
{
    const uint8_t *page = r->in.data + offset;
    uint32_t state = get32(page), crc = nvs_header_crc(page), found = get32(page + 28);
    if (state == NVS_PAGE_BLANK && is_blank(page, NVS_SECTOR))
        return 0;
    if (!is_state(state))
        image_add_problem(r->image, offset, "page %zu: its state %08x is none", page_of(offset),
                          state);
    else if (crc != found)
        image_add_problem(r->image, offset + 28,
                          "page %zu: the CRC of its header is %08x, and %08x stands there",
                          page_of(offset), crc, found);
    else if (page[8] != NVS_VERSION_2 && page[8] != NVS_VERSION_1)
        image_add_problem(r->image, offset + 8, "page %zu: its version %02x is not known",
                          page_of(offset), page[8]);
    else
        return 1;
    return 0;
}

static int read_pages(struct reader *r)
{
    size_t blank = 0, pages = r->in.len / NVS_SECTOR;
    for (size_t i = 0; i < pages; i++) {
        size_t offset = i * NVS_SECTOR;
        blank += (size_t)is_blank(r->in.data + offset, NVS_SECTOR);
        if (!check_page(r, offset))
            continue;
        r->image->used += NVS_SECTOR;
        if (read_entries(r, offset))
            return -1;
    }
    if (r->in.len % NVS_SECTOR)
        image_add_problem(r->image, pages * NVS_SECTOR,
                          "%zu bytes are not a whole number of pages (of %d): cut off?", r->in.len,
                          NVS_SECTOR);
    else if (r->in.len < NVS_SIZE_MIN)
        image_add_problem(r->image, r->in.len, "%zu pages; NVS needs three: cut off?", pages);
    else if (blank == 0)
        image_add_problem(r->image, r->in.len, "no page is blank; NVS needs one: cut off?");
    return 0;
}

/* ---- from entries to items ---- */

static void take_namespaces(struct reader *r)
{
    for (size_t i = 0; i < r->count; i++) {
        const struct entry *e = &r->entries[i];
        if (e->head[0] != 0)
            continue;
        const char *name = (const char *)e->head + 8;
        char *space = r->spaces[e->head[24]];
        if (e->head[1] != NVS_U8 || e->head[24] == 0 || e->head[24] == 255)
            problem(r, e->offset, "%s is no namespace: one is a u8 from 1 to 254", name);
        else if (*space)
            problem(r, e->offset, "namespace %u is %s already, and %s here", e->head[24], space,
                    name);
        else
            memcpy(space, name, NVS_NAME_MAX + 1);
    }
}

static struct image_item *add_item(struct reader *r, const struct entry *e)
{
    struct image_item *item = image_add_item(r->image);
    if (!item) {
        no_memory(r);
        return NULL;
    }
    memcpy(item->space, r->spaces[e->head[0]], sizeof item->space);
    memcpy(item->name, e->head + 8, NVS_NAME_MAX + 1);
    item->type = e->head[1];
    item->offset = e->offset;
    return item;
}

static struct entry *find_chunk(const struct reader *r, const struct entry *index, unsigned number)
{
    for (size_t i = 0; i < r->count; i++) {
        struct entry *e = &r->entries[i];
        if (e->head[1] == NVS_BLOB_DATA && e->head[0] == index->head[0] && e->head[3] == number &&
            memcmp(e->head + 8, index->head + 8, NVS_NAME_MAX + 1) == 0)
            return e;
    }
    return NULL;
}

/* The chunks of an index, one behind the other, into memory of the announced size. */
static int join(const struct reader *r, const struct entry *index, struct buf *out)
{
    unsigned count = index->head[28], start = index->head[29];
    for (unsigned i = 0; i < count; i++) {
        struct entry *e = find_chunk(r, index, start + i);
        if (!e || e->data.len > out->cap - out->len)
            return -1;
        memcpy(out->data + out->len, e->data.data, e->data.len);
        out->len += e->data.len;
        e->is_used = 1;
    }
    return out->len == out->cap ? 0 : -1;
}

static int take_blob(struct reader *r, const struct entry *index)
{
    size_t len = get32(index->head + 24);
    struct buf data = {0};
    if (len <= r->in.len && !(data.data = malloc(len ? len : 1)))
        return no_memory(r);
    data.cap = data.data ? len : 0;
    if (!data.data || join(r, index, &data)) {
        problem(r, index->offset,
                "the blob %s has not its %zu bytes in %u chunks: one is missing, damaged or of "
                "another length",
                (const char *)index->head + 8, len, index->head[28]);
        buf_wipe(&data);
        return 0;
    }
    struct image_item *item = add_item(r, index);
    if (!item) {
        buf_wipe(&data);
        return -1;
    }
    item->type = NVS_BLOB_DATA;
    item->data = data;
    return 0;
}

static int take_item(struct reader *r, struct entry *e)
{
    uint8_t type = e->head[1];
    if (e->head[0] == 0 || type == NVS_BLOB_DATA)
        return 0;
    if (!*r->spaces[e->head[0]]) {
        problem(r, e->offset, "%s is in namespace %u, which has no name", (const char *)e->head + 8,
                e->head[0]);
        return 0;
    }
    if (type == NVS_BLOB_INDEX)
        return take_blob(r, e);
    struct image_item *item = add_item(r, e);
    if (!item)
        return -1;
    if (has_data(type)) {
        item->data = e->data;
        e->data = (struct buf){0};
        return 0;
    }
    return buf_copy(&item->data, (struct bytes){e->head + 24, type & 15}) ? no_memory(r) : 0;
}

static void find_orphans(struct reader *r)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->entries[i].head[1] == NVS_BLOB_DATA && !r->entries[i].is_used)
            problem(r, r->entries[i].offset, "chunk %u of the blob %s belongs to no whole blob",
                    r->entries[i].head[3], (const char *)r->entries[i].head + 8);
}

static void find_doubles(struct reader *r)
{
    const struct image *image = r->image;
    for (size_t i = 0; i < image->count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(image->items[i].name, image->items[j].name) == 0 &&
                strcmp(image->items[i].space, image->items[j].space) == 0)
                problem(r, image->items[i].offset, "%s/%s is there twice, first at 0x%zx",
                        image->items[i].space, image->items[i].name, image->items[j].offset);
}

static int take_items(struct reader *r)
{
    take_namespaces(r);
    for (size_t i = 0; i < r->count; i++)
        if (take_item(r, &r->entries[i]))
            return -1;
    find_orphans(r);
    find_doubles(r);
    return 0;
}

/* Nothing but damage is a matter of keys. */
static void explain(struct reader *r)
{
    if (r->count || r->damaged == 0)
        return;
    r->image->problem_count = 0;
    image_add_problem(r->image, 0,
                      r->xts ? "no entry can be read: other keys, or the partition is not encrypted"
                             : "no entry can be read: the partition is encrypted, and its keys are "
                               "not given");
}

int nvs_read(struct image *out, struct bytes in, const uint8_t *keys, struct err *err)
{
    struct reader r = {.image = out, .in = in, .err = err};
    out->format = IMAGE_NVS;
    if (keys && !(r.xts = nvs_cipher(keys, 0)))
        return err_set(err, ERR_internal, "cannot decrypt: %s", err_openssl());
    int rc = read_pages(&r) || take_items(&r) ? -1 : 0;
    explain(&r);
    for (size_t i = 0; i < r.count; i++) {
        buf_wipe(&r.entries[i].data);
        OPENSSL_cleanse(r.entries[i].head, NVS_ENTRY);
    }
    free(r.entries);
    EVP_CIPHER_CTX_free(r.xts);
    return rc;
}
