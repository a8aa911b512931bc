#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/nvs.h"

/* The bytes here were worked out from the format's description with another language's CRC-32 and
 * AES-XTS. CRC(b) is zlib's crc32 of b begun with FFFFFFFF. */

#define SIZE 0x3000

/* Namespace "ns" with the string k = "hi", three entries of 32 bytes:
 *   header   state FFFFFFFE (active), sequence 0, version FE, 19 x FF, CRC(bytes 4 to 27) b9ba2d84
 *   bitmap   entries 0, 1, 2 written (10), the others empty (11): 11101010 = EA, then FF
 *   entry 0  namespace 0, type 01, span 1, chunk FF, CRC(0 to 3, 8 to 31), "ns", index 1
 *   entry 1  namespace 1, type 21, span 1 + ceil(3 / 32) = 2, "k", length 3, FFFF, CRC("hi\0")
 * 0d04b589 entry 2  "hi\0", FF to its end */
static const uint8_t plain[] = {
    0xfe, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x84, 0x2d, 0xba, 0xb9,
    0xea, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x00, 0x01, 0x01, 0xff, 0x3b, 0x28, 0x0e, 0x0e, 0x6e, 0x73, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x01, 0x21, 0x02, 0xff, 0x88, 0x2e, 0x2f, 0x9e, 0x6b, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0xff, 0xff, 0x89, 0xb5, 0x04, 0x0d,
    0x68, 0x69, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};

/* The same entries under the keys 00 01 … 3f: AES-256-XTS, the entry's offset (64, 96, 128) as 16
 * bytes, least significant first. CRC(the 64 bytes) is 9a7c5245. */
static const uint8_t secret[] = {
    0x86, 0x6e, 0x60, 0xb9, 0xbf, 0xfe, 0x5d, 0xe7, 0xad, 0xbc, 0x19, 0xdc, 0x1a, 0x00, 0x74, 0xf2,
    0x52, 0xf8, 0x86, 0xea, 0xbd, 0x5d, 0x12, 0xa2, 0xf4, 0xf4, 0x53, 0xaa, 0x92, 0x6c, 0x86, 0xe4,
    0x4e, 0x7c, 0x3f, 0xa2, 0x7e, 0xea, 0x39, 0xe0, 0x0f, 0xd6, 0x35, 0xc8, 0x60, 0xef, 0x1f, 0xcb,
    0x1d, 0x18, 0xe0, 0x8e, 0xcb, 0xc7, 0xf9, 0xec, 0x50, 0x43, 0xd1, 0x80, 0xdf, 0x0d, 0xcd, 0x63,
    0xf3, 0x58, 0x3c, 0x73, 0x23, 0xe1, 0xb9, 0xea, 0x27, 0xeb, 0xf4, 0xdb, 0x4b, 0x6c, 0x84, 0xfa,
    0xc8, 0x42, 0x54, 0xb1, 0xd7, 0xb2, 0x86, 0x3a, 0x87, 0xa1, 0x36, 0xcf, 0x54, 0x29, 0x4b, 0x76,
};

/* A blob of 4000 bytes, byte i = 7 * i mod 256, behind a namespace. Page 0 has 126 - 1 entries
 * left: one for the header and 124 * 32 = 3968 bytes, so its span is 125 (7d), its length 3968
 * (0f80). Page 1 takes the other 32 bytes (span 2) and the index: 4000 (0fa0) bytes, 2 chunks from
 * 0. */
static const uint8_t chunk_0[] = {
    0x01, 0x42, 0x7d, 0x00, 0x80, 0xd6, 0x6e, 0x74, 0x62, 0x6c, 0x6f, 0x62, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x0f, 0xff, 0xff, 0xdc, 0x8e, 0x8b, 0xee,
};

static const uint8_t chunk_1[] = {
    0x01, 0x42, 0x02, 0x01, 0x9b, 0xab, 0x09, 0xf9, 0x62, 0x6c, 0x6f, 0x62, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0xff, 0xff, 0x88, 0x70, 0xc6, 0x4b,
};

static const uint8_t blob_index[] = {
    0x01, 0x48, 0x01, 0xff, 0xd1, 0xc7, 0x64, 0x32, 0x62, 0x6c, 0x6f, 0x62, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x0f, 0x00, 0x00, 0x02, 0x00, 0xff, 0xff,
};

/* Pages 0 and 1 then: FFFFFFFC (full), FFFFFFFE (active); the CRC is not over the state. */
static const uint8_t page_0_full[] = {
    0xfc, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x84, 0x2d, 0xba, 0xb9,
};

static const uint8_t page_1[] = {
    0xfe, 0xff, 0xff, 0xff, 0x01, 0x00, 0x00, 0x00, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xa3, 0x48, 0x9f, 0x38,
};

/* The longest string, 3999 "a" and a NUL: 1 + 4000 / 32 = 126 (7e) entries, a whole page. */
static const uint8_t long_string[] = {
    0x01, 0x21, 0x7e, 0xff, 0xc7, 0x21, 0x13, 0xc9, 0x66, 0x69, 0x66, 0x74, 0x65, 0x65, 0x6e, 0x5f,
    0x6c, 0x65, 0x74, 0x74, 0x65, 0x72, 0x73, 0x00, 0xa0, 0x0f, 0xff, 0xff, 0x64, 0x83, 0x44, 0x87,
};

static const uint8_t keys[NVS_KEYS_SIZE] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

static struct image_value value(const char *name, uint8_t type, const void *data, size_t len)
{
    struct image_value v = {.type = type, .data = {data, len}};
    snprintf(v.name, sizeof v.name, "%s", name);
    return v;
}

static struct buf build(const struct image_value *values, size_t count, size_t size,
                        const uint8_t *with)
{
    struct buf out = {0};
    struct err err = {0};
    if (nvs_build(&out, "ns", values, count, size, with, &err))
        fail_msg("%s", err.text);
    assert_int_equal(out.len, size);
    return out;
}

static void assert_blank(const struct buf *b, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        assert_int_equal(b->data[i], 0xFF);
}

static struct image read_image(const struct buf *b, const uint8_t *with)
{
    struct image image;
    struct err err;
    assert_int_equal(image_read(&image, buf_view(b), with, &err), 0);
    assert_int_equal(image.format, IMAGE_NVS);
    return image;
}

static void writes_the_vector(void **state)
{
    struct image_value v = value("k", NVS_STRING, "hi", 3);
    struct buf b = build(&v, 1, SIZE, NULL);
    (void)state;
    assert_memory_equal(b.data, plain, sizeof plain);
    assert_blank(&b, sizeof plain, SIZE);
    buf_wipe(&b);
}

static void writes_the_encrypted_vector(void **state)
{
    struct image_value v = value("k", NVS_STRING, "hi", 3);
    struct buf b = build(&v, 1, SIZE, keys);
    (void)state;
    assert_memory_equal(b.data, plain, NVS_FIRST); /* header and bitmap are not encrypted */
    assert_memory_equal(b.data + NVS_FIRST, secret, sizeof secret);
    assert_blank(&b, sizeof plain, SIZE);
    buf_wipe(&b);
}

static void writes_the_keys_partition(void **state)
{
    static const uint8_t crc[] = {0x45, 0x52, 0x7c, 0x9a};
    struct buf b = {0};
    struct err err;
    uint8_t read[NVS_KEYS_SIZE];
    (void)state;
    assert_int_equal(nvs_keys_build(&b, keys, &err), 0);
    assert_int_equal(b.len, 4096);
    assert_memory_equal(b.data, keys, sizeof keys);
    assert_memory_equal(b.data + 64, crc, 4);
    assert_blank(&b, 68, 4096);
    assert_int_equal(nvs_keys_read(read, buf_view(&b), &err), 0);
    assert_memory_equal(read, keys, sizeof keys);
    for (size_t i = 0; i < 68; i++) {
        b.data[i] ^= 1;
        assert_int_equal(nvs_keys_read(read, buf_view(&b), &err), -1);
        b.data[i] ^= 1;
        assert_int_equal(nvs_keys_read(read, (struct bytes){b.data, i}, &err), -1);
    }
    buf_wipe(&b);
}

static void refuses_keys_that_are_one(void **state)
{
    uint8_t same[NVS_KEYS_SIZE] = {0}, read[NVS_KEYS_SIZE];
    struct image_value v = value("k", NVS_STRING, "hi", 3);
    struct buf b = {0}, image = {0};
    struct err err = {0};
    (void)state;
    assert_int_equal(nvs_keys_build(&b, same, &err), 0);
    assert_int_equal(nvs_keys_read(read, buf_view(&b), &err), -1);
    assert_non_null(strstr(err.text, "the same"));
    assert_int_equal(nvs_build(&image, "ns", &v, 1, SIZE, same, &err), -1);
    buf_wipe(&b);
}

static void makes_other_keys_each_time(void **state)
{
    uint8_t one[NVS_KEYS_SIZE] = {0}, two[NVS_KEYS_SIZE] = {0};
    struct err err;
    (void)state;
    assert_int_equal(nvs_keys_make(one, &err), 0);
    assert_int_equal(nvs_keys_make(two, &err), 0);
    assert_memory_not_equal(one, two, sizeof one);
    assert_memory_not_equal(one, one + 32, 32);
}

static void a_blob_goes_over_pages(void **state)
{
    uint8_t data[4000];
    struct buf b;
    struct image image;
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(7 * i);
    struct image_value v = value("blob", NVS_BLOB_DATA, data, sizeof data);
    b = build(&v, 1, SIZE, NULL);
    assert_memory_equal(b.data, page_0_full, sizeof page_0_full);
    for (size_t i = 32; i < 63; i++)
        assert_int_equal(b.data[i], 0xAA); /* entries 0 to 123 written */
    assert_int_equal(b.data[63], 0xFA);    /* 124 and 125; there is no 126 */
    assert_memory_equal(b.data + 96, chunk_0, sizeof chunk_0);
    assert_memory_equal(b.data + 128, data, 3968);
    assert_memory_equal(b.data + 4096, page_1, sizeof page_1);
    assert_memory_equal(b.data + 4096 + 64, chunk_1, sizeof chunk_1);
    assert_memory_equal(b.data + 4096 + 96, data + 3968, 32);
    assert_memory_equal(b.data + 4096 + 128, blob_index, sizeof blob_index);
    assert_blank(&b, 4096 + 160, SIZE);
    image = read_image(&b, NULL);
    assert_int_equal(image.problem_count, 0);
    assert_int_equal(image.count, 1);
    assert_int_equal(image.items[0].data.len, sizeof data);
    assert_memory_equal(image.items[0].data.data, data, sizeof data);
    image_free(&image);
    buf_wipe(&b);
}

static void a_string_never_goes_over_pages(void **state)
{
    char text[4000];
    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct image_value v = value("fifteen_letters", NVS_STRING, text, sizeof text);
    struct buf b = build(&v, 1, SIZE, NULL);
    assert_memory_equal(b.data, page_0_full, sizeof page_0_full);
    assert_blank(&b, 96, 4096); /* page 0 holds the namespace alone */
    assert_memory_equal(b.data + 4096 + 64, long_string, sizeof long_string);
    assert_memory_equal(b.data + 4096 + 96, text, sizeof text);
    assert_blank(&b, 0x2000, SIZE); /* the last page */
    struct image image = read_image(&b, NULL);
    assert_int_equal(image.problem_count, 0);
    assert_string_equal(image.items[0].name, "fifteen_letters");
    assert_string_equal(image.items[0].space, "ns");
    assert_int_equal(image.items[0].data.len, sizeof text);
    image_free(&image);
    buf_wipe(&b);
}

/* As Espressif's generator lays them out: a string that would fill the page to its last entry goes
 * to the next one. The namespace takes one entry, so 1 + (1 + n) reaches 126 with n = 124. */
static void a_page_keeps_one_entry(void **state)
{
    static const char text[124 * 32] = {0};
    (void)state;
    struct image_value v = value("s", NVS_STRING, text, 123 * 32);
    struct buf b = build(&v, 1, SIZE, NULL);
    assert_blank(&b, 4096, SIZE);
    buf_wipe(&b);
    v.data.len++;
    b = build(&v, 1, SIZE, NULL);
    assert_int_equal(b.data[4096], 0xFE);
    buf_wipe(&b);
}

static void says_what_does_not_fit(void **state)
{
    static const char text[4001] = {0};
    struct image_value v[] = {value("one", NVS_STRING, text, 3000),
                              value("two", NVS_STRING, text, 3000),
                              value("three", NVS_STRING, text, 1000)};
    struct buf b = {0};
    struct err err = {0};
    (void)state;
    assert_int_equal(nvs_build(&b, "ns", v, 3, SIZE, NULL, &err), -1);
    assert_null(b.data);
    assert_non_null(strstr(err.text, "three (1000 bytes) does not fit"));
    assert_non_null(strstr(err.text, "0x3000 bytes has room for 928 bytes"));
    assert_non_null(strstr(err.text, "all needs 0x4000 bytes"));
    v[2].data.len = 928; /* used 95, and 1 + 29: 125 */
    b = build(v, 3, SIZE, NULL);
    buf_wipe(&b);
    v[2].data.len = 929;
    assert_int_equal(nvs_build(&b, "ns", v, 3, SIZE, NULL, &err), -1);
    b = build(v, 3, 0x4000, NULL);
    buf_wipe(&b);
    v[0].data.len = 4001;
    assert_int_equal(nvs_build(&b, "ns", v, 1, SIZE, NULL, &err), -1);
    assert_non_null(strstr(err.text, "one (4001 bytes) is too long"));
    assert_int_equal(nvs_build(&b, "ns", v, 0, 0x2000, NULL, &err), -1);
    assert_int_equal(err.code, ERR_field_value);
}

/* ---- reading ---- */

static struct buf vector(void)
{
    struct buf b = {malloc(SIZE), SIZE, SIZE};
    assert_non_null(b.data);
    memset(b.data, 0xFF, SIZE);
    memcpy(b.data, plain, sizeof plain);
    return b;
}

static void seal(uint8_t *entry)
{
    put32(entry + 4, nvs_entry_crc(entry));
}

static void assert_problem(const struct buf *b, const uint8_t *with, const char *text)
{
    struct image image = read_image(b, with);
    if (image.problem_count == 0 || !strstr(image.problems[0].text, text))
        fail_msg("\"%s\", not \"%s\"", image.problem_count ? image.problems[0].text : "", text);
    image_free(&image);
}

static void reads_the_vectors(void **state)
{
    struct buf b = vector();
    (void)state;
    for (int encrypted = 0; encrypted < 2; encrypted++) {
        if (encrypted)
            memcpy(b.data + NVS_FIRST, secret, sizeof secret);
        struct image image = read_image(&b, encrypted ? keys : NULL);
        assert_int_equal(image.problem_count, 0);
        assert_int_equal(image.count, 1);
        assert_string_equal(image.items[0].space, "ns");
        assert_string_equal(image.items[0].name, "k");
        assert_int_equal(image.items[0].type, NVS_STRING);
        assert_int_equal(image.items[0].offset, 96);
        assert_int_equal(image.items[0].data.len, 3);
        assert_memory_equal(image.items[0].data.data, "hi", 3);
        image_free(&image);
    }
    buf_wipe(&b);
}

/* As a board leaves it: numbers, an erased entry, a page state of its own. */
static void reads_what_others_write(void **state)
{
    struct buf b = vector();
    uint8_t *page = b.data, *entry = page + NVS_FIRST + 3 * NVS_ENTRY;
    (void)state;
    memcpy(entry, page + NVS_FIRST, NVS_ENTRY);
    entry[0] = 1, entry[1] = 0x14; /* i32 */
    put32(entry + 24, (uint32_t)-2);
    seal(entry);
    memset(entry + NVS_ENTRY, 0x5A, NVS_ENTRY); /* entry 4: erased */
    page[NVS_BITMAP] = 0xAA;                    /* 0 to 3 written */
    page[NVS_BITMAP + 1] = 0xFC;                /* 4 erased */
    struct image image = read_image(&b, NULL);
    assert_int_equal(image.problem_count, 0);
    assert_int_equal(image.count, 2);
    assert_int_equal(image.items[1].data.len, 4);
    assert_int_equal(get32(image.items[1].data.data), (uint32_t)-2);
    image_free(&image);
    buf_wipe(&b);
}

static void says_what_is_damaged(void **state)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *problem;
    } cases[] = {
        {0, 0xFD, "page 0: its state fffffffd is none"},
        {4, 1, "page 0: the CRC of its header is "},
        {8, 0xFD, "page 0: the CRC of its header"},
        {28, 0, "and b9ba2d00 stands there"},
        {32, 0xFA, "page 0, entry 1: k spans 2 entries, and entry 2 is not marked written"},
        {32, 0xDA, "entry 2: its state in the bitmap, 01, is none"},
        {64 + 8, 'm', "page 0, entry 0: its CRC is not that of its bytes"},
        {96 + 2, 3, "page 0, entry 1: its CRC"},
        {128, 'H', "page 0, entry 1: the CRC of k's data (3 bytes) is "},
        {160, 0, "page 0, entry 3: marked empty, and something is written there"},
        {0x1000 + 200, 0, "page 1: its state ffffffff is none"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = vector();
        b.data[cases[i].at] = cases[i].byte;
        struct image image = read_image(&b, NULL);
        assert_true(image.problem_count > 0);
        int found = 0;
        for (size_t p = 0; p < image.problem_count; p++)
            found = found || strstr(image.problems[p].text, cases[i].problem);
        if (!found)
            fail_msg("%zu: \"%s\", not \"%s\"", i, image.problems[0].text, cases[i].problem);
        image_free(&image);
        buf_wipe(&b);
    }
}

/* Entries whose CRC is right and which no firmware makes. */
static void says_what_is_impossible(void **state)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *problem;
    } cases[] = {
        {64 + 1, 0x21, "page 0, entry 0: ns spans 1 entries, and its length of "},
        {64 + 24, 0, "ns is no namespace"},
        {96 + 0, 2, "k is in namespace 2, which has no name"},
        {96 + 1, 0x77, "its type 77 is none"},
        {96 + 1, 0x48, "k spans 2 entries"},
        {96 + 2, 0, "k spans 0 entries"},
        {96 + 2, 127, "k spans 127 entries"},
        {96 + 24, 33, "its length of 33 bytes takes 3"},
        {96 + 8, 0, "its key is empty or does not end"},
        {96 + 1, 0x42, "chunk 255 of the blob k belongs to no whole blob"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = vector();
        b.data[cases[i].at] = cases[i].byte;
        seal(b.data + cases[i].at / NVS_ENTRY * NVS_ENTRY);
        assert_problem(&b, NULL, cases[i].problem);
        buf_wipe(&b);
    }
}

static void a_blob_wants_all_its_chunks(void **state)
{
    static const uint8_t data[4000] = {0};
    static const struct {
        size_t at;
        uint32_t word;
    } cases[] = {{4096 + 128 + 24, 3999},       {4096 + 128 + 24, 4001},
                 {4096 + 128 + 24, 0xFFFFFFFF}, {4096 + 128 + 28, 0xFFFF0001},
                 {4096 + 128 + 28, 0xFFFF0003}, {4096 + 128 + 28, 0xFFFF8002},
                 {4096 + 64, 0x02024201}};
    struct image_value v = value("blob", NVS_BLOB_DATA, data, sizeof data);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = build(&v, 1, SIZE, NULL);
        put32(b.data + cases[i].at, cases[i].word);
        seal(b.data + cases[i].at / NVS_ENTRY * NVS_ENTRY);
        struct image image = read_image(&b, NULL);
        assert_int_equal(image.count, 0);
        assert_non_null(strstr(image.problems[0].text, "the blob blob has not its"));
        image_free(&image);
        buf_wipe(&b);
    }
}

static void says_which_keys_are_missing(void **state)
{
    uint8_t other[NVS_KEYS_SIZE];
    struct buf b = vector();
    (void)state;
    memcpy(other, keys, sizeof other);
    other[5] ^= 1;
    assert_problem(&b, keys, "other keys, or the partition is not encrypted");
    memcpy(b.data + NVS_FIRST, secret, sizeof secret);
    assert_problem(&b, NULL, "the partition is encrypted");
    assert_problem(&b, other, "other keys");
    buf_wipe(&b);
}

/* Cut off between pages: three are left, and each is in use. */
static void says_that_no_page_is_blank(void **state)
{
    static const char text[3 * 3000] = {0};
    struct image_value v = value("k", NVS_BLOB_DATA, text, sizeof text);
    struct buf b = build(&v, 1, 0x4000, NULL);
    (void)state;
    b.len = 0x3000;
    assert_problem(&b, NULL, "no page is blank");
    buf_wipe(&b);
}

static void says_that_an_item_is_double(void **state)
{
    struct image_value v[] = {value("k", NVS_STRING, "hi", 3), value("k", NVS_STRING, "ho", 3)};
    struct buf b = build(v, 2, SIZE, NULL);
    (void)state;
    assert_problem(&b, NULL, "ns/k is there twice, first at 0x60");
    buf_wipe(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_vector),
        cmocka_unit_test(writes_the_encrypted_vector),
        cmocka_unit_test(writes_the_keys_partition),
        cmocka_unit_test(refuses_keys_that_are_one),
        cmocka_unit_test(makes_other_keys_each_time),
        cmocka_unit_test(a_blob_goes_over_pages),
        cmocka_unit_test(a_string_never_goes_over_pages),
        cmocka_unit_test(a_page_keeps_one_entry),
        cmocka_unit_test(says_what_does_not_fit),
        cmocka_unit_test(reads_the_vectors),
        cmocka_unit_test(reads_what_others_write),
        cmocka_unit_test(says_what_is_damaged),
        cmocka_unit_test(says_what_is_impossible),
        cmocka_unit_test(a_blob_wants_all_its_chunks),
        cmocka_unit_test(says_which_keys_are_missing),
        cmocka_unit_test(says_that_no_page_is_blank),
        cmocka_unit_test(says_that_an_item_is_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
