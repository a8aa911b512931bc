#include "pki_fixture.h"

#include "pki/csr.h"
#include "pki/key.h"

static const struct key_policy any = {2048, 4096, 1, 1};

/* The three steps in the order in which the front takes them. */
static int judge(struct bytes in, struct err *err)
{
    struct csr *csr = NULL;
    struct key_info info;
    if (csr_parse(&csr, in, err))
        return -1;
    int rc = key_check(csr_spki(csr), &any, &info, err) || csr_verify(csr, err) ? -1 : 0;
    if (!rc)
        assert_string_equal(csr_cn(csr), "24:0a:c4:12:34:56");
    csr_free(csr);
    return rc;
}

static void holds_to_name(struct bytes in, const char *name, const char *code)
{
    struct err err = {0};
    int rc = judge(in, &err);
    const char *got = rc ? err_name(err.code) : "ok";
    if (strcmp(got, code) != 0)
        fail_msg("%s gives %s: %s", name, got, err.text);
    if (ERR_peek_error() != 0) /* the next TLS call would take it for its own */
        fail_msg("%s leaves an error in OpenSSL's queue", name);
}

static void each_hostile_request_has_its_code(void **state)
{
    (void)state;
    assert_int_equal(each_file(CORPUS "/csr", holds_to_name), 144);
}

static struct buf read_corpus(const char *name)
{
    struct buf data = {0};
    struct err err;
    char path[512];
    snprintf(path, sizeof path, CORPUS "/csr/%s", name);
    assert_int_equal(file_read(&data, path, CSR_SIZE_MAX, &err), 0);
    return data;
}

/* Under ASan this also shows that no length is believed. */
static void every_cut_is_refused(void **state)
{
    struct buf der = read_corpus("ok--challenge-and-extensions.der");
    struct err err;
    (void)state;
    for (size_t len = 0; len < der.len; len++) {
        uint8_t *exact = malloc(len + 1);
        memcpy(exact, der.data, len);
        assert_int_equal(judge((struct bytes){exact, len}, &err), -1);
        free(exact);
    }
    buf_free(&der);
}

static void every_flipped_bit_is_refused(void **state)
{
    struct buf der = read_corpus("ok--challenge-and-extensions.der");
    struct err err;
    (void)state;
    for (size_t bit = 0; bit < 8 * der.len; bit++) {
        der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (judge(buf_view(&der), &err) == 0)
            fail_msg("bit %zu of byte %zu makes no difference", bit % 8, bit / 8);
        der.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(judge(buf_view(&der), &err), 0);
    buf_free(&der);
}

static void pem_and_der_are_one_request(void **state)
{
    struct buf der = read_corpus("ok--p256.der"), pem = read_corpus("ok--pem.pem");
    struct csr *a, *b;
    struct err err;
    (void)state;
    assert_int_equal(csr_parse(&a, buf_view(&der), &err), 0);
    assert_int_equal(csr_parse(&b, buf_view(&pem), &err), 0);
    assert_true(bytes_equal(csr_der(a), buf_view(&der)));
    assert_true(bytes_equal(csr_der(a), csr_der(b)));
    assert_true(bytes_equal(csr_spki(a), csr_spki(b)));
    csr_free(a);
    csr_free(b);
    buf_free(&der);
    buf_free(&pem);
}

static void the_key_comes_out_as_it_went_in(void **state)
{
    EVP_PKEY *key = make_key("rsa:2048");
    struct buf spki = make_spki(key);
    X509_REQ *req = X509_REQ_new();
    unsigned char *der = NULL;
    struct csr *csr;
    struct err err;
    (void)state;
    assert_true(X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_UTF8,
                                           (const unsigned char *)"board", -1, -1, 0));
    assert_true(X509_REQ_set_pubkey(req, key) && X509_REQ_sign(req, key, EVP_sha256()));
    int len = i2d_X509_REQ(req, &der);
    assert_int_equal(csr_parse(&csr, (struct bytes){der, (size_t)len}, &err), 0);
    assert_true(bytes_equal(csr_spki(csr), buf_view(&spki)));
    assert_string_equal(csr_cn(csr), "board");
    assert_int_equal(csr_verify(csr, &err), 0);
    csr_free(csr);
    OPENSSL_free(der);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    buf_free(&spki);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_hostile_request_has_its_code),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(pem_and_der_are_one_request),
        cmocka_unit_test(the_key_comes_out_as_it_went_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
