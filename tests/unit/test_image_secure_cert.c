#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/partition_table.h"
#include "image/secure_cert.h"

/* Worked out from the format's description with another language's CRC-32, SHA-256 and MD5. */

/* A key of 4 bytes ("KEY" and NUL) and a certificate of 16, subtype 1:
 *   12 bytes header: BA5EBA11, flags 0, 3 x 00, type, subtype, length
 *   data, zeros to a multiple of 16, CRC over all of that: 12 + 16 + 4 = 32 bytes each
 * and type 9: SHA-256 of those 64 bytes, 12 + 32 + 4 = 48. */
static const uint8_t tlvs[] = {
    0x11, 0xba, 0x5e, 0xba, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x04, 0x00, 0x4b, 0x45, 0x59, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf5, 0x32, 0xc7, 0xbe,
    0x11, 0xba, 0x5e, 0xba, 0x00, 0x00, 0x00, 0x00, 0x01, 0x01, 0x10, 0x00, 0x78, 0x78, 0x78, 0x78,
    0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x78, 0x4f, 0x0b, 0x90, 0xb0,
    0x11, 0xba, 0x5e, 0xba, 0x00, 0x00, 0x00, 0x00, 0x09, 0x00, 0x20, 0x00, 0x78, 0x42, 0x5e, 0x7f,
    0x0e, 0xcb, 0xe7, 0x50, 0xe2, 0xd7, 0x40, 0xc7, 0xf6, 0xe2, 0xf9, 0xc3, 0x3c, 0xed, 0xf8, 0x7a,
    0x18, 0x92, 0x97, 0x2a, 0x3e, 0x30, 0xc8, 0x9e, 0x0d, 0xf9, 0xa3, 0x15, 0xf6, 0xdd, 0x64, 0x3e,
};

/* Rows of 32: AA50, type, subtype, offset, size, name[16], flags. Then EBEB, 14 x FF, MD5 of the
 * rows. */
static const uint8_t table[] = {
    0xaa, 0x50, 0x01, 0x02, 0x00, 0x90, 0x00, 0x00, 0x00, 0x60, 0x00, 0x00, 0x6e, 0x76, 0x73, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xaa, 0x50, 0x01, 0x04, 0x00, 0xf0, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x6e, 0x76, 0x73, 0x5f,
    0x6b, 0x65, 0x79, 0x73, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    0xaa, 0x50, 0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x10, 0x00, 0x6f, 0x74, 0x61, 0x5f,
    0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xaa, 0x50, 0x3f, 0x06, 0x00, 0x00, 0x11, 0x00, 0x00, 0x20, 0x00, 0x00, 0x65, 0x73, 0x70, 0x5f,
    0x73, 0x65, 0x63, 0x75, 0x72, 0x65, 0x5f, 0x63, 0x65, 0x72, 0x74, 0x00, 0x01, 0x00, 0x00, 0x00,
    0xeb, 0xeb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xdd, 0x51, 0xa7, 0x10, 0xc1, 0x44, 0xce, 0xe3, 0x73, 0xaa, 0xc0, 0x3a, 0x86, 0xe2, 0x38, 0xf9,
};

#define SIZE 0x2000

static struct image_value value(const char *name, uint8_t type, uint8_t subtype, const void *data,
                                size_t len)
{
    struct image_value v = {.type = type, .subtype = subtype, .data = {data, len}};
    snprintf(v.name, sizeof v.name, "%s", name);
    return v;
}

static struct buf build(void)
{
    struct image_value v[] = {value("key", SECURE_CERT_KEY, 0, "KEY", 4),
                              value("cert", SECURE_CERT_CERT, 1, "xxxxxxxxxxxxxxxx", 16)};
    struct buf b = {0};
    struct err err = {0};
    if (secure_cert_build(&b, v, 2, SIZE, &err))
        fail_msg("%s", err.text);
    return b;
}

static struct image read_image(struct bytes in)
{
    struct image image;
    struct err err;
    assert_int_equal(image_read(&image, in, NULL, &err), 0);
    assert_int_equal(image.format, IMAGE_SECURE_CERT);
    return image;
}

static void writes_the_vector(void **state)
{
    struct buf b = build();
    (void)state;
    assert_int_equal(b.len, SIZE);
    assert_memory_equal(b.data, tlvs, sizeof tlvs);
    assert_true(is_blank(b.data + sizeof tlvs, SIZE - sizeof tlvs));
    buf_wipe(&b);
}

static void reads_the_vector(void **state)
{
    struct buf b = build();
    (void)state;
    struct image image = read_image(buf_view(&b));
    assert_int_equal(image.problem_count, 0);
    assert_int_equal(image.count, 3);
    assert_int_equal(image.used, sizeof tlvs);
    assert_string_equal(image.items[0].name, "private key");
    assert_memory_equal(image.items[0].data.data, "KEY", 4);
    assert_int_equal(image.items[1].subtype, 1);
    assert_int_equal(image.items[1].offset, 32);
    image_free(&image);
    buf_wipe(&b);
}

/* Short, with an end mark and without the hash, as Espressif's tools wrote it. */
static void reads_what_others_write(void **state)
{
    static const uint8_t end[] = {0xFF, 0xFF, 0, 0};
    uint8_t other[64 + 4];
    (void)state;
    memcpy(other, tlvs, 64);
    memcpy(other + 64, end, 4);
    struct image image = read_image((struct bytes){other, sizeof other});
    assert_int_equal(image.problem_count, 0);
    assert_int_equal(image.count, 2);
    image_free(&image);
}

static void says_what_is_damaged(void **state)
{
    static const struct {
        size_t at;
        uint8_t byte;
        const char *problem;
    } cases[] = {
        {14, 0, "entry at 0x0 (type 2, 4 bytes): its CRC is "},
        {20, 1, "entry at 0x0"}, /* the padding counts */
        {31, 0, "and 00c732f5 stands there"},
        {10, 0xFF, "entry at 0x0"},
        {11, 0xFF, "its length goes over the end of the image"},
        {32, 0, "at 0x20 behind the last entry something is written"},
        {sizeof tlvs, 0, "behind the last entry something is written"},
        {SIZE - 1, 0, "at 0x1fff behind the last entry"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = build();
        b.data[cases[i].at] = cases[i].byte;
        struct image image = read_image(buf_view(&b));
        if (image.problem_count == 0 || !strstr(image.problems[0].text, cases[i].problem))
            fail_msg("%zu: \"%s\"", i, image.problem_count ? image.problems[0].text : "");
        image_free(&image);
        buf_wipe(&b);
    }
}

static void assert_problem(const uint8_t *data, size_t len, const char *problem)
{
    struct image image = read_image((struct bytes){data, len});
    assert_int_equal(image.problem_count, 1);
    assert_non_null(strstr(image.problems[0].text, problem));
    image_free(&image);
}

static void says_what_is_wrong_with_the_whole(void **state)
{
    uint8_t data[256];
    (void)state;
    assert_problem(tlvs, 64, "nothing stands behind the last entry");
    memset(data, 0xFF, sizeof data);
    memcpy(data, tlvs, 32);
    memcpy(data + 32, tlvs, 32);
    assert_problem(data, sizeof data, "private key, subtype 0, is there twice");
    memcpy(data + 32, tlvs + 64, 48); /* the hash of two entries behind one */
    assert_problem(data, sizeof data, "the SHA-256 of the entries before it is another");
}

static void says_what_does_not_fit(void **state)
{
    static const uint8_t data[0x2000] = {0};
    /* 0x2000 - hash (48) - end (16) - header and CRC (16) = 8112, a multiple of 16 */
    struct image_value v = value("the chain", SECURE_CERT_CERT, 0, data, 8113);
    struct buf b = {0};
    struct err err = {0};
    (void)state;
    assert_int_equal(secure_cert_build(&b, &v, 1, SIZE, &err), -1);
    assert_null(b.data);
    assert_non_null(strstr(err.text, "the chain (8113 bytes) does not fit"));
    assert_non_null(strstr(err.text, "has room for 8112 behind"));
    v.data.len = 8112;
    assert_int_equal(secure_cert_build(&b, &v, 1, SIZE, &err), 0);
    assert_true(is_blank(b.data + SIZE - 16, 16));
    struct image image = read_image(buf_view(&b));
    assert_int_equal(image.problem_count, 0);
    image_free(&image);
    buf_wipe(&b);
    assert_int_equal(secure_cert_build(&b, &v, 1, 0x11000, &err), -1);
    assert_int_equal(err.code, ERR_field_value);
}

/* ---- the partition table ---- */

static struct partition_table parsed(const uint8_t *data, size_t len)
{
    struct partition_table t;
    struct err err = {0};
    if (partition_table_parse(&t, (struct bytes){data, len}, &err))
        fail_msg("%s", err.text);
    return t;
}

static void reads_the_table(void **state)
{
    uint8_t data[PARTITION_TABLE_SIZE];
    size_t matches;
    (void)state;
    memset(data, 0xFF, sizeof data);
    memcpy(data, table, sizeof table);
    struct partition_table t = parsed(data, sizeof data);
    assert_int_equal(t.count, 4);
    assert_int_equal(t.has_md5, 1);
    const struct partition *p =
        partition_find(&t, PARTITION_SECURE_CERT, PARTITION_ANY, "esp_secure_cert", &matches);
    assert_non_null(p);
    assert_int_equal(p->offset, 0x110000);
    assert_int_equal(p->size, 0x2000);
    assert_int_equal(p->flags, PARTITION_FLAG_ENCRYPTED);
    assert_non_null(partition_find(&t, PARTITION_DATA, PARTITION_DATA_NVS, NULL, &matches));
    assert_null(partition_find(&t, PARTITION_DATA, PARTITION_ANY, NULL, &matches));
    assert_int_equal(matches, 2);
    assert_null(partition_find(&t, PARTITION_DATA, PARTITION_ANY, "nvs2", &matches));
    assert_int_equal(matches, 0);
}

static void a_table_without_md5_ends_blank(void **state)
{
    uint8_t data[5 * 32];
    (void)state;
    memcpy(data, table, 4 * 32);
    memset(data + 4 * 32, 0xFF, 32);
    struct partition_table t = parsed(data, sizeof data);
    assert_int_equal(t.count, 4);
    assert_int_equal(t.has_md5, 0);
}

static void assert_refused(const uint8_t *data, size_t len, const char *text)
{
    struct partition_table t;
    struct err err = {0};
    assert_int_equal(partition_table_parse(&t, (struct bytes){data, len}, &err), -1);
    if (!strstr(err.text, text))
        fail_msg("\"%s\", not \"%s\"", err.text, text);
}

static void refuses_a_damaged_table(void **state)
{
    uint8_t data[sizeof table];
    (void)state;
    for (size_t i = 0; i < sizeof table; i++) {
        assert_refused(table, i, "");
        if (i / 32 == 4 && i % 32 >= 2 && i % 32 < 16)
            continue; /* FF that nothing reads */
        memcpy(data, table, sizeof data);
        data[i] ^= 0x10;
        assert_refused(data, sizeof data, "");
    }
    assert_refused(table, 64, "does not end: cut off after 2 rows");
    memset(data, 0xFF, sizeof data);
    assert_refused(data, sizeof data, "the first row is empty");
    memcpy(data, table, sizeof data);
    data[32] = 0;
    assert_refused(data, sizeof data, "row 1 (offset 0x20) is no partition: it begins with 0050");
    memcpy(data, table, sizeof data);
    data[3 * 32 + 4] = 1;
    assert_refused(data, sizeof data, "row 4 (offset 0x80): its MD5");
    memcpy(data + 32, table, 32);
    assert_refused(data, sizeof data, "row 1 (offset 0x20): the partition overlaps that of row 0");
    data[32 + 5] = 0xf0;
    assert_refused(data, sizeof data, "row 1 (offset 0x20): its name is that of row 0");
    memset(data + 8, 0xFF, 4);
    assert_refused(data, sizeof data, "row 0 (offset 0x0)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_the_vector),
        cmocka_unit_test(reads_the_vector),
        cmocka_unit_test(reads_what_others_write),
        cmocka_unit_test(says_what_is_damaged),
        cmocka_unit_test(says_what_is_wrong_with_the_whole),
        cmocka_unit_test(says_what_does_not_fit),
        cmocka_unit_test(reads_the_table),
        cmocka_unit_test(a_table_without_md5_ends_blank),
        cmocka_unit_test(refuses_a_damaged_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
