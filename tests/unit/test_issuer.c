#include "pki_fixture.h"

static void digests_and_algorithms_follow_the_key(void **state)
{
    static const struct {
        const char *type;
        enum sign_alg alg;
        size_t digest;
        int nid;
    } cas[] = {{"rsa:2048", SIGN_RSA_SHA256, 32, NID_sha256WithRSAEncryption},
               {"P-256", SIGN_ECDSA_SHA256, 32, NID_ecdsa_with_SHA256},
               {"P-384", SIGN_ECDSA_SHA384, 48, NID_ecdsa_with_SHA384}};
    (void)state;
    for (size_t i = 0; i < sizeof cas / sizeof *cas; i++) {
        struct ca ca = ca_make(cas[i].type, 30);
        uint8_t digest[DIGEST_MAX], signature[SIGNATURE_MAX];
        unsigned char *der = NULL;
        assert_int_equal(issuer_alg(ca.issuer), cas[i].alg);
        size_t len = sign_digest(cas[i].alg, text_bytes("data"), digest);
        assert_int_equal(len, cas[i].digest);

        /* as OpenSSL would write the AlgorithmIdentifier */
        X509_ALGOR *alg = X509_ALGOR_new();
        X509_ALGOR_set0(alg, OBJ_nid2obj(cas[i].nid), i ? V_ASN1_UNDEF : V_ASN1_NULL, NULL);
        int der_len = i2d_X509_ALGOR(alg, &der);
        assert_true(bytes_equal(sign_alg_der(cas[i].alg), (struct bytes){der, (size_t)der_len}));
        X509_ALGOR_free(alg);
        OPENSSL_free(der);

        struct bytes view = {digest, len}, made = ca_sign(&ca, view, signature);
        assert_int_equal(issuer_verify(ca.issuer, view, made), 0);
        digest[0] ^= 1;
        assert_int_equal(issuer_verify(ca.issuer, view, made), -1);
        digest[0] ^= 1;
        assert_int_equal(issuer_verify(ca.issuer, (struct bytes){digest, len - 1}, made), -1);
        assert_int_equal(issuer_verify(ca.issuer, view, (struct bytes){signature, 0}), -1);
        signature[made.len - 1] ^= 1;
        assert_int_equal(issuer_verify(ca.issuer, view, made), -1);
        signature[made.len - 1] ^= 1; /* what was refused is forgotten */
        assert_int_equal(issuer_verify(ca.issuer, view, made), 0);
        ca_free(&ca);
    }
}

static void gives_what_the_certificate_says(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct buf spki = make_spki(ca.key);
    uint8_t digest[32];
    unsigned char *der = NULL;
    (void)state;
    int len = i2d_X509(ca.certificate, &der);
    assert_true(bytes_equal(issuer_certificate_der(ca.issuer), (struct bytes){der, (size_t)len}));
    OPENSSL_free(der);
    der = NULL;
    len = i2d_X509_NAME(X509_get_subject_name(ca.certificate), &der);
    assert_true(bytes_equal(issuer_name_der(ca.issuer), (struct bytes){der, (size_t)len}));
    OPENSSL_free(der);
    assert_true(bytes_equal(issuer_spki(ca.issuer), buf_view(&spki)));
    sha256(digest, buf_view(&spki));
    assert_memory_equal(issuer_spki_sha256(ca.issuer), digest, 32);
    assert_int_equal(issuer_key_id(ca.issuer).len, 20);
    int64_t left = issuer_not_after(ca.issuer) - time(NULL);
    assert_in_range(left, 30 * DAY - 120, 30 * DAY);
    buf_free(&spki);
    ca_free(&ca);
}

static void refuses(X509 *x, EVP_PKEY *key, const char *word)
{
    struct issuer *issuer = NULL;
    struct err err = {0};
    assert_true(X509_sign(x, key, EVP_sha256()));
    char *pem = to_pem(x);
    assert_int_equal(issuer_from_pem(&issuer, text_bytes(pem), &err), -1);
    if (!strstr(err.text, word))
        fail_msg("no \"%s\" in: %s", word, err.text);
    free(pem);
    X509_free(x);
}

static void refuses_what_is_no_ca(void **state)
{
    EVP_PKEY *key = make_key("P-256"), *weak = make_key("rsa:1024");
    (void)state;
    X509 *x = make_certificate(key, 30);
    add_extension(x, NID_subject_key_identifier, "hash");
    refuses(x, key, "CA:TRUE");

    x = make_certificate(key, 30);
    add_extension(x, NID_basic_constraints, "critical,CA:FALSE");
    refuses(x, key, "CA:TRUE");

    x = make_certificate(key, 30);
    add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(x, NID_subject_key_identifier, "hash");
    refuses(x, key, "keyUsage");

    x = make_certificate(key, 30);
    add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(x, NID_key_usage, "critical,keyCertSign");
    add_extension(x, NID_subject_key_identifier, "hash");
    refuses(x, key, "cRLSign");

    x = make_certificate(key, 30);
    add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(x, NID_key_usage, "critical,keyCertSign,cRLSign");
    refuses(x, key, "subjectKeyIdentifier");

    x = make_certificate(weak, 30);
    add_extension(x, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(x, NID_key_usage, "critical,keyCertSign,cRLSign");
    add_extension(x, NID_subject_key_identifier, "hash");
    refuses(x, weak, "1024 bits");
    EVP_PKEY_free(key);
    EVP_PKEY_free(weak);
}

static void refuses_what_is_no_pem(void **state)
{
    struct issuer *issuer;
    struct err err;
    (void)state;
    assert_int_equal(issuer_from_pem(&issuer, text_bytes(""), &err), -1);
    assert_int_equal(issuer_from_pem(&issuer, text_bytes("hello\n"), &err), -1);
    assert_int_equal(issuer_from_pem(&issuer,
                                     text_bytes("-----BEGIN CERTIFICATE-----\nMAA=\n"
                                                "-----END CERTIFICATE-----\n"),
                                     &err),
                     -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_and_algorithms_follow_the_key),
        cmocka_unit_test(gives_what_the_certificate_says),
        cmocka_unit_test(refuses_what_is_no_ca),
        cmocka_unit_test(refuses_what_is_no_pem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
