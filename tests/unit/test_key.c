#include "pki_fixture.h"

#include "pki/key.h"
#include "pki/key_weak.h"

static const struct key_policy any = {2048, 4096, 1, 1};

static void holds_to_name(struct bytes spki, const char *name, const char *code)
{
    struct key_info info;
    struct err err = {0};
    int rc = key_check(spki, &any, &info, &err);
    const char *got = rc ? err_name(err.code) : "ok";
    if (strcmp(got, code) != 0)
        fail_msg("%s gives %s: %s", name, got, err.text);
    assert_int_equal(ERR_peek_error(), 0);
}

static void each_hostile_key_has_its_code(void **state)
{
    (void)state;
    assert_int_equal(each_file(CORPUS "/key", holds_to_name), 46);
}

static void takes_what_openssl_makes(void **state)
{
    static const struct {
        const char *type;
        enum key_kind kind;
        unsigned bits;
    } made[] = {{"rsa:2048", KEY_RSA, 2048},
                {"rsa:3072", KEY_RSA, 3072},
                {"P-256", KEY_P256, 256},
                {"P-384", KEY_P384, 384}};
    (void)state;
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) {
        EVP_PKEY *key = make_key(made[i].type);
        struct buf spki = make_spki(key);
        struct key_info info = {0};
        struct err err;
        assert_int_equal(key_check(buf_view(&spki), &any, &info, &err), 0);
        assert_int_equal(info.kind, made[i].kind);
        assert_int_equal(info.bits, made[i].bits);
        EVP_PKEY *back = key_from_spki(buf_view(&spki));
        assert_non_null(back);
        assert_int_equal(EVP_PKEY_eq(key, back), 1);
        EVP_PKEY_free(back);
        EVP_PKEY_free(key);
        buf_free(&spki);
    }
}

static void every_cut_is_refused(void **state)
{
    EVP_PKEY *key = make_key("P-256");
    struct buf spki = make_spki(key);
    struct key_info info;
    struct err err;
    (void)state;
    for (size_t len = 0; len < spki.len; len++) {
        assert_int_equal(key_check((struct bytes){spki.data, len}, &any, &info, &err), -1);
        assert_null(key_from_spki((struct bytes){spki.data, len}));
    }
    buf_free(&spki);
    EVP_PKEY_free(key);
}

static void refused_by(const char *policy_text, const struct buf *spki)
{
    struct key_policy policy;
    struct key_info info;
    struct err err = {0};
    assert_int_equal(key_policy_parse(&policy, policy_text, &err), 0);
    assert_int_equal(key_check(buf_view(spki), &policy, &info, &err), -1);
    assert_int_equal(err.code, ERR_key_type_refused);
}

static void the_policy_decides(void **state)
{
    EVP_PKEY *rsa = make_key("rsa:2048"), *p256 = make_key("P-256"), *p384 = make_key("P-384");
    struct buf rsa_spki = make_spki(rsa), p256_spki = make_spki(p256), p384_spki = make_spki(p384);
    (void)state;
    refused_by("ec:p256, ec:p384", &rsa_spki);
    refused_by("rsa:3072-4096", &rsa_spki);
    refused_by("rsa:2048-4096, ec:p384", &p256_spki);
    refused_by("rsa:2048-4096, ec:p256", &p384_spki);
    buf_free(&rsa_spki);
    buf_free(&p256_spki);
    buf_free(&p384_spki);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(p256);
    EVP_PKEY_free(p384);
}

/* Whatever a policy says: the arithmetic is bounded, and 1024 bits are broken. */
static void no_policy_widens_the_limits(void **state)
{
    static const struct key_policy wide = {512, 16384, 1, 1};
    static const char *const files[] = {"key_type_refused--rsa-1024.der",
                                        "key_type_refused--rsa-8192.der"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct buf spki = {0};
        struct key_info info;
        struct err err = {0};
        char path[512];
        snprintf(path, sizeof path, CORPUS "/key/%s", files[i]);
        assert_int_equal(file_read(&spki, path, 4096, &err), 0);
        assert_int_equal(key_check(buf_view(&spki), &wide, &info, &err), -1);
        assert_int_equal(err.code, ERR_key_type_refused);
        buf_free(&spki);
    }
}

static void policy_texts(void **state)
{
    static const char *const bad[] = {"",
                                      "rsa",
                                      "rsa:2048",
                                      "rsa:1024-4096",
                                      "rsa:2048-8192",
                                      "rsa:4096-2048",
                                      "rsa:2048-4096x",
                                      "ec:p521",
                                      "ec:p256,",
                                      "ec:P256",
                                      "ec:p256 ec:p384"};
    struct key_policy p;
    struct err err;
    (void)state;
    assert_int_equal(key_policy_parse(&p, "rsa:2048-3072,\tec:p256 , ec:p384", &err), 0);
    assert_true(p.rsa_min == 2048 && p.rsa_max == 3072 && p.p256 && p.p384);
    assert_int_equal(key_policy_parse(&p, "ec:p256", &err), 0);
    assert_true(p.rsa_max == 0 && p.p256 && !p.p384);
    for (size_t i = 0; i < sizeof bad / sizeof *bad - 1; i++) {
        err = (struct err){0};
        assert_int_equal(key_policy_parse(&p, bad[i], &err), -1);
        assert_int_equal(err.code, ERR_field_value);
    }
}

/* The fast trial division against BN_mod_word(): each prime below 2^16, at both lengths. */
static void every_small_factor_is_found(void **state)
{
    BIGNUM *n = BN_new(), *rest = BN_new();
    (void)state;
    for (unsigned p = 3; p < 1 << 16; p += 2) {
        unsigned d = 3;
        while (d * d <= p && p % d)
            d += 2;
        if (d * d <= p)
            continue;
        int bits = p % 4 == 1 ? 2048 : 4096;
        assert_true(BN_rand(rest, bits - BN_num_bits_word(p), BN_RAND_TOP_TWO, BN_RAND_BOTTOM_ODD));
        assert_true(BN_copy(n, rest) && BN_mul_word(n, p));
        const char *why = key_weakness(n);
        if (!why || !strstr(why, "factor below"))
            fail_msg("the factor %u is not found", p);
    }
    BN_free(rest);
    BN_free(n);
}

static void no_small_factor_is_invented(void **state)
{
    BIGNUM *n = BN_new();
    int with = 0, without = 0;
    (void)state;
    for (int round = 0; round < 400; round++) {
        int has = 0;
        assert_true(BN_rand(n, 2048 + round % 3 * 777, BN_RAND_TOP_TWO, BN_RAND_BOTTOM_ODD));
        for (unsigned p = 3; p < 1 << 16 && !has; p += 2)
            has = BN_mod_word(n, p) == 0;
        const char *why = key_weakness(n);
        assert_int_equal(has, why != NULL && strstr(why, "factor below") != NULL);
        *(has ? &with : &without) += 1;
    }
    assert_true(with > 0 && without > 0);
    BN_free(n);
}

/* n = p * q with q the next prime behind p + 2^bits: found up to about half of p's bits. */
static const char *weakness_at_distance(int distance_bits)
{
    BIGNUM *p = BN_new(), *q = BN_new(), *n = BN_new();
    BN_CTX *ctx = BN_CTX_new();
    assert_true(BN_generate_prime_ex(p, 1024, 0, NULL, NULL, NULL));
    assert_true(BN_set_word(q, 0) && BN_set_bit(q, distance_bits) && BN_add(q, q, p));
    while (BN_check_prime(q, ctx, NULL) != 1)
        assert_true(BN_add_word(q, 2));
    assert_true(BN_mul(n, p, q, ctx));
    const char *why = key_weakness(n);
    BN_CTX_free(ctx);
    BN_free(p);
    BN_free(q);
    BN_free(n);
    return why;
}

static void close_primes_are_found(void **state)
{
    (void)state;
    assert_non_null(weakness_at_distance(1));
    assert_non_null(weakness_at_distance(400));
    assert_non_null(weakness_at_distance(512));
    assert_null(weakness_at_distance(700)); /* FIPS 186-5 wants more than 2^924: by chance always */
}

/* For a person, not asserted: a time on a busy machine proves nothing. */
static void prints_what_it_costs(void **state)
{
    static const char *const types[] = {"rsa:2048", "P-256", "P-384"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        EVP_PKEY *key = make_key(types[i]);
        struct buf spki = make_spki(key);
        struct key_info info;
        struct err err;
        clock_t start = clock();
        for (int n = 0; n < 200; n++)
            assert_int_equal(key_check(buf_view(&spki), &any, &info, &err), 0);
        clock_t checked = clock();
        for (int n = 0; n < 200; n++)
            EVP_PKEY_free(key_from_spki(buf_view(&spki)));
        print_message("%s: key_check %.0f us, key_from_spki %.0f us\n", types[i],
                      (double)(checked - start) * 1e6 / CLOCKS_PER_SEC / 200,
                      (double)(clock() - checked) * 1e6 / CLOCKS_PER_SEC / 200);
        buf_free(&spki);
        EVP_PKEY_free(key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_hostile_key_has_its_code),
        cmocka_unit_test(takes_what_openssl_makes),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(the_policy_decides),
        cmocka_unit_test(no_policy_widens_the_limits),
        cmocka_unit_test(policy_texts),
        cmocka_unit_test(every_small_factor_is_found),
        cmocka_unit_test(no_small_factor_is_invented),
        cmocka_unit_test(close_primes_are_found),
        cmocka_unit_test(prints_what_it_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
