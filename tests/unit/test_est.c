#include "pki_fixture.h"

#include <openssl/cms.h>

#include "pki/csr.h"
#include "pki/est.h"

static CMS_ContentInfo *cms_of(const struct buf *der)
{
    const unsigned char *at = der->data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &at, (long)der->len);
    assert_non_null(cms);
    assert_ptr_equal(at, der->data + der->len);
    return cms;
}

/* OpenSSL's other reader of the format, CMS (RFC 5652): these certificates, in this order, no CRL,
 * no signer, no content. */
static void holds(const struct buf *der, X509 *const *certificates, int count)
{
    CMS_ContentInfo *cms = cms_of(der);
    STACK_OF(X509) *got = CMS_get1_certs(cms);
    assert_int_equal(OBJ_obj2nid(CMS_get0_type(cms)), NID_pkcs7_signed);
    assert_int_equal(OBJ_obj2nid(CMS_get0_eContentType(cms)), NID_pkcs7_data);
    assert_int_equal(sk_X509_num(got), count);
    for (int i = 0; i < count; i++)
        assert_int_equal(X509_cmp(sk_X509_value(got, i), certificates[i]), 0);
    assert_null(CMS_get1_crls(cms));
    assert_int_equal(sk_CMS_SignerInfo_num(CMS_get0_SignerInfos(cms)), 0);
    ASN1_OCTET_STRING **content = CMS_get0_content(cms);
    assert_true(!content || !*content);
    sk_X509_pop_free(got, X509_free);
    CMS_ContentInfo_free(cms);
}

static void one_certificate(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct buf out = {0};
    unsigned char *der = NULL;
    int len = i2d_X509(ca.certificate, &der);
    (void)state;
    assert_int_equal(est_certificate(&out, (struct bytes){der, (size_t)len}), 0);
    holds(&out, &ca.certificate, 1);
    for (size_t cut = 0; cut < (size_t)len; cut++) { /* under ASan: no length is believed */
        uint8_t *exact = malloc(cut + 1);
        memcpy(exact, der, cut);
        assert_int_equal(est_certificate(&out, (struct bytes){exact, cut}), -1);
        free(exact);
    }
    der = OPENSSL_realloc(der, (size_t)len + 1);
    der[len] = 0;
    assert_int_equal(est_certificate(&out, (struct bytes){der, (size_t)len + 1}), -1);
    assert_int_equal(ERR_peek_error(), 0);
    OPENSSL_free(der);
    buf_free(&out);
    ca_free(&ca);
}

static void a_chain_in_its_order(void **state)
{
    struct ca a = ca_make("P-256", 30), b = ca_make("rsa:2048", 30);
    X509 *const both[] = {a.certificate, b.certificate}, *const turned[] = {b.certificate,
                                                                            a.certificate};
    struct buf out = {0};
    char *pem = NULL;
    (void)state;
    assert_true(asprintf(&pem, "%s%s", a.pem, b.pem) > 0);
    assert_int_equal(est_chain(&out, text_bytes(pem)), 0);
    holds(&out, both, 2);
    free(pem);
    out.len = 0;
    assert_true(asprintf(&pem, "%s%s", b.pem, a.pem) > 0);
    assert_int_equal(est_chain(&out, text_bytes(pem)), 0);
    holds(&out, turned, 2);
    assert_int_equal(est_chain(&out, text_bytes("nothing")), -1);
    assert_int_equal(est_chain(&out, text_bytes("")), -1);
    assert_int_equal(ERR_peek_error(), 0);
    free(pem);
    buf_free(&out);
    ca_free(&a), ca_free(&b);
}

static void attributes_are(const char *keys, int of_mac, const char *hex)
{
    struct key_policy policy;
    struct err err;
    struct buf out = {0};
    char got[512];
    assert_int_equal(key_policy_parse(&policy, keys, &err), 0);
    assert_int_equal(est_csrattrs(&out, &policy, of_mac), 0);
    assert_true(out.len < sizeof got / 2);
    hex_encode(got, buf_view(&out));
    assert_string_equal(got, hex);
    buf_free(&out);
}

/* The bytes, by hand after RFC 7030 section 4.5.2 and RFC 3279 section 2.3. */
#define RSA_2048 "301106092a864886f70d010101310402020800"
#define RSA_3072 "301106092a864886f70d010101310402020c00"
#define P256 "301506072a8648ce3d0201310a06082a8648ce3d030107"
#define P384                                                                                       \
    "301206072a8648ce3d020131070605"                                                               \
    "2b81040022"
#define MAC                                                                                        \
    "06072b06010101"                                                                               \
    "0116"

static void attributes_of_profiles(void **state)
{
    (void)state;
    attributes_are("rsa:2048-4096, ec:p256, ec:p384", 1, "3047" RSA_2048 P256 P384 MAC);
    attributes_are("rsa:3072-4096", 0, "3013" RSA_3072);
    attributes_are("ec:p256", 0, "3017" P256);
    attributes_are("ec:p384", 1, "301d" P384 MAC);
}

static void decodes_to(const char *text, size_t text_len, const char *plain, size_t plain_len)
{
    size_t len;
    uint8_t *got = est_decode((struct bytes){(const uint8_t *)text, text_len}, &len);
    if (!plain) {
        assert_null(got);
        return;
    }
    assert_non_null(got);
    assert_int_equal(len, plain_len);
    assert_memory_equal(got, plain, len);
    free(got);
}

static void base64_of_any_layout(void **state)
{
    (void)state;
#define DECODES(text, plain) decodes_to(text, sizeof text - 1, plain, sizeof plain - 1)
#define REFUSED(text) decodes_to(text, sizeof text - 1, NULL, 0)
    DECODES("Zm9vYmFy", "foobar");
    DECODES("Zm9v\nYmFy\n", "foobar");
    DECODES("Zm9v\r\nYmFy\r\n", "foobar");
    DECODES(" Z\tm9v YmE = \n", "fooba");
    DECODES("\n", "");
    REFUSED("Zm9vYm");    /* no padding */
    REFUSED("Zm9vYmF=");  /* bits that say nothing are set */
    REFUSED("Zm9vYg==x"); /* goes on */
    REFUSED("Zm9v-_Zm");  /* base64url */
    REFUSED("Zm9v\0YmFy");
    REFUSED("Zm9v\vYmFy");
    REFUSED("-----BEGIN CERTIFICATE REQUEST-----\nZm9v\n-----END CERTIFICATE REQUEST-----\n");
}

/* Each line but the last of 64, and nothing lost. */
static void base64_in_lines(void **state)
{
    uint8_t plain[200];
    (void)state;
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 7);
    for (size_t len = 1; len < sizeof plain; len++)
        for (int lines = 0; lines < 2; lines++) {
            size_t back_len, total = (len + 2) / 3 * 4;
            char *text = est_encode((struct bytes){plain, len}, lines);
            assert_non_null(text);
            size_t breaks = lines ? (total + 63) / 64 : 1;
            assert_int_equal(strlen(text), total + breaks);
            for (size_t i = 1; lines && i < breaks; i++)
                assert_int_equal(text[i * 65 - 1], '\n');
            assert_int_equal(text[strlen(text) - 1], '\n');
            uint8_t *back = est_decode(text_bytes(text), &back_len);
            assert_non_null(back);
            assert_int_equal(back_len, len);
            assert_memory_equal(back, plain, len);
            free(back), free(text);
        }
}

static void holds_to_name(struct bytes in, const char *name, const char *code)
{
    struct err err = {.code = ERR_csr_base64};
    struct csr *csr = NULL;
    size_t len;
    uint8_t *der = est_decode(in, &len);
    int rc = der ? csr_parse(&csr, (struct bytes){der, len}, &err) : -1;
    const char *got = rc ? err_name(err.code) : "ok";
    if (strcmp(got, code) != 0)
        fail_msg("%s gives %s", name, got);
    csr_free(csr);
    free(der);
}

static void each_body_has_its_code(void **state)
{
    (void)state;
    assert_int_equal(each_file(CORPUS "/est", holds_to_name), 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_certificate),        cmocka_unit_test(a_chain_in_its_order),
        cmocka_unit_test(attributes_of_profiles), cmocka_unit_test(base64_of_any_layout),
        cmocka_unit_test(base64_in_lines),        cmocka_unit_test(each_body_has_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
