#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "server/front/ocsp_cache.h"

#define NOW ((int64_t)1800000000)

/* A packed CertID of this number, by SHA-1 or SHA-256; its serial are the last four bytes. */
static struct bytes certid(unsigned n, unsigned hash_len)
{
    static uint8_t data[2 + 2 * 32 + 4];
    memset(data, 0x55, sizeof data);
    data[0] = (uint8_t)hash_len;
    data[1] = 4;
    for (unsigned i = 0; i < 4; i++)
        data[2 + 2 * hash_len + i] = (uint8_t)(n >> (24 - 8 * i));
    return (struct bytes){data, 2 + 2 * hash_len + 4};
}

static struct bytes serial(unsigned n)
{
    struct bytes id = certid(n, 20);
    return (struct bytes){id.data + id.len - 4, 4};
}

static void put(struct ocsp_cache *c, struct bytes id, const char *text, int64_t from, int64_t to)
{
    const struct msg_answer_ocsp m = {{(const uint8_t *)text, strlen(text)}, from, to};
    ocsp_cache_put(c, id, &m);
}

static const char *text_of(const struct ocsp_entry *e)
{
    static char text[64];
    if (!e)
        return "";
    struct bytes b = blob_view(e->answer.body);
    snprintf(text, sizeof text, "%.*s", (int)b.len, (const char *)b.data);
    return text;
}

static void put_found_and_replaced(void **state)
{
    (void)state;
    struct ocsp_cache *c = ocsp_cache_new(100000, 10);
    assert_null(ocsp_cache_find(c, certid(1, 20)));
    put(c, certid(1, 20), "one", NOW, NOW + 100);
    put(c, certid(1, 32), "one, SHA-256", NOW, NOW + 100);
    assert_string_equal(text_of(ocsp_cache_find(c, certid(1, 20))), "one");
    assert_string_equal(text_of(ocsp_cache_find(c, certid(1, 32))), "one, SHA-256");
    put(c, certid(1, 20), "another", NOW + 1, NOW + 101);
    assert_string_equal(text_of(ocsp_cache_find(c, certid(1, 20))), "another");
    assert_null(ocsp_cache_find(c, (struct bytes){0}));
    ocsp_cache_free(c);
}

static void fresh_until_half_of_its_life(void **state)
{
    (void)state;
    struct ocsp_cache *c = ocsp_cache_new(100000, 10);
    put(c, certid(1, 20), "one", NOW, NOW + 100);
    struct ocsp_entry *e = ocsp_cache_find(c, certid(1, 20));
    assert_true(ocsp_entry_fresh(e, NOW) && ocsp_entry_fresh(e, NOW + 49));
    assert_true(!ocsp_entry_fresh(e, NOW + 50) && ocsp_entry_valid(e, NOW + 50));
    assert_true(ocsp_entry_valid(e, NOW + 99) && !ocsp_entry_valid(e, NOW + 100));
    ocsp_entry_put_off(e, NOW + 55);
    assert_true(ocsp_entry_fresh(e, NOW + 54) && !ocsp_entry_fresh(e, NOW + 55));
    ocsp_entry_put_off(e, NOW + 200); /* never beyond its end */
    assert_true(ocsp_entry_fresh(e, NOW + 99) && !ocsp_entry_fresh(e, NOW + 100));
    /* a clock that went back */
    assert_true(!ocsp_entry_valid(e, NOW - 100) && !ocsp_entry_fresh(e, NOW - 100));
    ocsp_cache_free(c);
}

static void forgotten_by_serial(void **state)
{
    (void)state;
    struct ocsp_cache *c = ocsp_cache_new(100000, 10);
    for (unsigned n = 0; n < 4; n++) {
        put(c, certid(n, 20), "", NOW, NOW + 100);
        put(c, certid(n, 32), "", NOW, NOW + 100);
    }
    struct ocsp_entry *e = ocsp_cache_find(c, certid(2, 20));
    ocsp_cache_add_request(c, e, certid(7, 32));
    assert_non_null(ocsp_cache_find(c, certid(7, 32)));
    ocsp_cache_forget(c, serial(2));
    assert_null(ocsp_cache_find(c, certid(2, 20)));
    assert_null(ocsp_cache_find(c, certid(2, 32)));
    assert_null(ocsp_cache_find(c, certid(7, 32)));
    assert_non_null(ocsp_cache_find(c, certid(1, 20)));
    ocsp_cache_forget(c, serial(99));
    ocsp_cache_forget(c, (struct bytes){0});
    for (unsigned n = 0; n < 4; n++)
        assert_null(ocsp_cache_find(c, certid(n, n % 2 ? 20 : 32)));
    ocsp_cache_free(c);
}

static void longest_unused_goes_first(void **state)
{
    (void)state;
    struct ocsp_cache *c = ocsp_cache_new(1000000, 3);
    for (unsigned n = 0; n < 3; n++)
        put(c, certid(n, 20), "", NOW, NOW + 100);
    ocsp_cache_find(c, certid(0, 20));
    put(c, certid(3, 20), "", NOW, NOW + 100);
    assert_null(ocsp_cache_find(c, certid(1, 20)));
    assert_non_null(ocsp_cache_find(c, certid(0, 20)));
    ocsp_cache_free(c);
}

static size_t still_there(struct ocsp_cache *c, unsigned of)
{
    size_t n = 0;
    for (unsigned i = 0; i < of; i++)
        n += ocsp_cache_find(c, certid(i, 20)) != NULL;
    return n;
}

static void bounded_in_bytes(void **state)
{
    (void)state;
    static char text[1000];
    memset(text, 'x', sizeof text - 1);
    struct ocsp_cache *c = ocsp_cache_new(100000, 100000);
    for (unsigned n = 0; n < 5000; n++)
        put(c, certid(n, 20), text, NOW, NOW + 100);
    size_t n = still_there(c, 5000);
    assert_true(n > 40 && n < 100);
    put(c, certid(1, 20), "", NOW, NOW + 100);
    /* requests count too, and there are few of each entry */
    struct ocsp_entry *e = ocsp_cache_find(c, certid(1, 20));
    for (unsigned i = 0; i < 5000; i++)
        ocsp_cache_add_request(c, e, certid(i, 32));
    size_t known = 0;
    for (unsigned i = 0; i < 5000; i++)
        known += ocsp_cache_find(c, certid(i, 32)) != NULL;
    assert_in_range(known, 1, 8);
    ocsp_cache_free(c);
    c = ocsp_cache_new(500, 10); /* what is larger than all of it is not kept */
    put(c, certid(1, 20), text, NOW, NOW + 100);
    assert_null(ocsp_cache_find(c, certid(1, 20)));
    ocsp_cache_free(c);
}

/* Against a plain list, by chance. */
static void as_a_list_would(void **state)
{
    (void)state;
    struct ocsp_cache *c = ocsp_cache_new(1000000, 1000);
    int there[64][2] = {{0}};
    srand(7);
    for (int i = 0; i < 20000; i++) {
        unsigned n = (unsigned)rand() % 64, h = (unsigned)rand() % 2;
        switch (rand() % 8) {
        case 0:
            ocsp_cache_forget(c, serial(n));
            there[n][0] = there[n][1] = 0;
            break;
        case 1:
        case 2:
            put(c, certid(n, h ? 32 : 20), "x", NOW, NOW + 100);
            there[n][h] = 1;
            break;
        default:
            assert_int_equal(ocsp_cache_find(c, certid(n, h ? 32 : 20)) != NULL, there[n][h]);
        }
    }
    ocsp_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_found_and_replaced), cmocka_unit_test(fresh_until_half_of_its_life),
        cmocka_unit_test(forgotten_by_serial),    cmocka_unit_test(longest_unused_goes_first),
        cmocka_unit_test(bounded_in_bytes),       cmocka_unit_test(as_a_list_would),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
