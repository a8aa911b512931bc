#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

/* A copy without a NUL or anything else behind it, so that reading on is seen by the sanitizer. */
static char *exactly(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    return copy;
}

static void buffer_grows_and_keeps_its_bytes(void **state)
{
    struct buf b = {0};
    (void)state;
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t two[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        assert_int_equal(buf_add(&b, two, i % 3), 0);
    }
    size_t at = 0;
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t two[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        assert_memory_equal(b.data + at, two, i % 3);
        at += i % 3;
    }
    assert_int_equal(b.len, at);
    buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.len, 0);
}

static void buffer_refuses_what_no_memory_holds_and_stays(void **state)
{
    struct buf b = {0};
    (void)state;
    assert_int_equal(buf_add(&b, "abc", 3), 0);
    assert_int_equal(buf_add(&b, "x", SIZE_MAX), -1);
    assert_int_equal(buf_add(&b, "x", SIZE_MAX / 2), -1);
    assert_int_equal(buf_add(&b, "x", SIZE_MAX - 2), -1);
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "abc", 3);
    buf_free(&b);
}

static void what_is_reserved_does_not_move(void **state)
{
    struct buf b = {0};
    (void)state;
    assert_int_equal(buf_reserve(&b, 10000), 0);
    const uint8_t *at = b.data;
    assert_int_equal(b.len, 0);
    for (int i = 0; i < 10000; i++)
        assert_int_equal(buf_add(&b, "x", 1), 0);
    assert_ptr_equal(b.data, at);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -1);
    assert_int_equal(b.len, 10000);
    buf_free(&b);
}

static void views_compare_by_length_and_content(void **state)
{
    struct bytes a = {(const uint8_t *)"ab", 2}, same = {(const uint8_t *)"ab", 2};
    struct bytes other = {(const uint8_t *)"ac", 2}, shorter = {(const uint8_t *)"ab", 1};
    struct bytes none = {NULL, 0}, empty = {(const uint8_t *)"", 0};
    (void)state;
    assert_true(bytes_equal(a, same));
    assert_false(bytes_equal(a, other));
    assert_false(bytes_equal(a, shorter));
    assert_true(bytes_equal(none, empty));
    assert_true(bytes_equal(none, none));
    assert_false(bytes_equal(none, a));
}

static void hex_round_trips(void **state)
{
    uint8_t all[256], back[256];
    char text[2 * sizeof all + 1];
    size_t len = 0;
    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (uint8_t)i;
    hex_encode(text, (struct bytes){all, sizeof all});
    assert_int_equal(strlen(text), 2 * sizeof all);
    assert_memory_equal(text, "000102", 6);
    assert_string_equal(text + 2 * 0xfd, "fdfeff");
    assert_int_equal(hex_decode(back, sizeof back, &len, text), 0);
    assert_int_equal(len, sizeof all);
    assert_memory_equal(back, all, sizeof all);
    hex_encode(text, (struct bytes){NULL, 0});
    assert_string_equal(text, "");
}

static void hex_takes_either_case_and_nothing_else(void **state)
{
    static const char *const bad[] = {"0",  "abc", "0g", "g0", " 00", "00 ", "0x",      "0x00",
                                      "-1", "+1",  "0:", "/0", "0@",  "`a",  "\xff\xff"};
    uint8_t out[2] = {0x55, 0x55};
    size_t len = 99;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hex_decode(out, sizeof out, &len, bad[i]), -1);
    assert_int_equal(len, 99);
    assert_int_equal(hex_decode(out, sizeof out, &len, "aBCd"), 0);
    assert_int_equal(out[0], 0xab);
    assert_int_equal(out[1], 0xcd);
    assert_int_equal(hex_decode(out, sizeof out, &len, ""), 0);
    assert_int_equal(len, 0);
}

static void hex_keeps_to_the_room(void **state)
{
    uint8_t out[3] = {0, 0, 0x77};
    size_t len;
    (void)state;
    assert_int_equal(hex_decode(out, 2, &len, "aabbcc"), -1);
    assert_int_equal(hex_decode(out, 2, &len, "aabb"), 0);
    assert_int_equal(out[2], 0x77);
    assert_int_equal(hex_decode(out, 0, &len, ""), 0);
    assert_int_equal(hex_decode(out, 0, &len, "00"), -1);
}

/* RFC 4648 section 10 */
static void base64_agrees_with_the_rfc(void **state)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"}};
    (void)state;
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        const char *plain = vectors[i][0], *coded = vectors[i][1];
        size_t len = 99;
        char *text = base64_encode((struct bytes){(const uint8_t *)plain, strlen(plain)});
        assert_string_equal(text, coded);
        char *exact = exactly(coded, strlen(coded));
        uint8_t *back = base64_decode(exact, strlen(coded), &len);
        assert_non_null(back);
        assert_int_equal(len, strlen(plain));
        assert_string_equal((char *)back, plain); /* with the NUL behind it */
        free(exact);
        free(text);
        free(back);
    }
}

static void base64_round_trips_at_every_length(void **state)
{
    uint8_t data[300];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 89 + 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        size_t len;
        char *text = base64_encode((struct bytes){data, n});
        assert_non_null(text);
        assert_int_equal(strlen(text), (n + 2) / 3 * 4);
        uint8_t *back = base64_decode(text, strlen(text), &len);
        assert_non_null(back);
        assert_int_equal(len, n);
        assert_memory_equal(back, data, n);
        free(text);
        free(back);
    }
}

static void base64_refuses_every_second_spelling(void **state)
{
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {
        {"Zh==", 4}, /* unused bits */
        {"Zm9=", 4},
        {"Zm9/Yh==", 8},
        {"Zg", 2}, /* padding is missing */
        {"Zg=", 3},
        {"Zm9vYg", 6},
        {"Zg===", 5}, /* too much */
        {"Zm9v====", 8},
        {"====", 4},
        {"=", 1},
        {"A===", 4}, /* nothing but padding */
        {"Zg==Zg==", 8},
        {"Zm8=Zm8=", 8},
        {"Z=g=", 4}, /* inside */
        {"=Zg=", 4},
        {" Zg==", 5},
        {"Zg== ", 5}, /* white space */
        {"Zm9v\n", 5},
        {"Zm9v\n   ", 8},
        {"   \nZm9v", 8},
        {"Zm\n9v", 6},
        {"Zm9vYm\nFy", 10},
        {"Zm9v\r\n\r\n", 8},
        {"    ", 4},
        {"\n\n\n\n", 4},
        {"   =", 4},
        {"  ==", 4},
        {"Zm-v", 4},
        {"Zm_v", 4},
        {"Zm9v-   ", 8}, /* other alphabets, EVP's end */
        {"Zm9v\0\0\0\0", 8},
        {"Zm9\0", 4},
        {"\0\0\0\0", 4},
        {"Zm9v....", 8},
        {"\xc3\xa9\xc3\xa9", 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t len = 0;
        char *exact = exactly(bad[i].text, bad[i].len);
        uint8_t *out = base64_decode(exact, bad[i].len, &len);
        if (out)
            fail_msg("row %zu was taken: \"%s\"", i, bad[i].text);
        free(exact);
    }
}

/* Of all texts of one quantum, exactly those are taken that encoding makes. */
static void base64_knows_one_text_for_each_value(void **state)
{
    static const char some[] = "Ag/+=\n -_\0B8"; /* of each kind of character */
    size_t taken = 0;
    (void)state;
    for (size_t n = 0; n < 12 * 12 * 12 * 12; n++) {
        char text[4] = {some[n % 12], some[n / 12 % 12], some[n / 144 % 12], some[n / 1728]};
        size_t len;
        uint8_t *out = base64_decode(text, sizeof text, &len);
        if (!out)
            continue;
        char *again = base64_encode((struct bytes){out, len});
        assert_memory_equal(again, text, sizeof text);
        free(again);
        free(out);
        taken++;
    }
    /* six values: A g / + B 8; two of them (A g) may stand before "==", three (A g 8) before "=" */
    assert_int_equal(taken, 6 * 6 * 6 * 6 + 6 * 6 * 3 + 6 * 2);
}

static void sha256_is_sha256(void **state)
{
    static const char abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    uint8_t out[32];
    char hex[65];
    (void)state;
    sha256(out, (struct bytes){(const uint8_t *)"abc", 3});
    hex_encode(hex, (struct bytes){out, 32});
    assert_string_equal(hex, abc);
    sha256(out, (struct bytes){NULL, 0});
    assert_int_equal(out[0], 0xe3);
    assert_int_equal(out[31], 0x55);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffer_grows_and_keeps_its_bytes),
        cmocka_unit_test(buffer_refuses_what_no_memory_holds_and_stays),
        cmocka_unit_test(what_is_reserved_does_not_move),
        cmocka_unit_test(views_compare_by_length_and_content),
        cmocka_unit_test(hex_round_trips),
        cmocka_unit_test(hex_takes_either_case_and_nothing_else),
        cmocka_unit_test(hex_keeps_to_the_room),
        cmocka_unit_test(base64_agrees_with_the_rfc),
        cmocka_unit_test(base64_round_trips_at_every_length),
        cmocka_unit_test(base64_refuses_every_second_spelling),
        cmocka_unit_test(base64_knows_one_text_for_each_value),
        cmocka_unit_test(sha256_is_sha256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
