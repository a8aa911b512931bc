#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/content.h"
#include "image/image.h"
#include "image/nvs.h"
#include "image/raw.h"
#include "image/secure_cert.h"

/* A root, two intermediates and a device: a chain of three below the root. */
struct pki {
    EVP_PKEY *keys[4];
    X509 *certs[4];
    struct credentials c;
};

static X509 *issue(const char *cn, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *x = X509_new();
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 7);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                               (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer : x));
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, issuer_key, EVP_sha256()) > 0);
    return x;
}

static int make_pki(void **state)
{
    static const char *const names[] = {"Root", "Intermediate A", "Intermediate B",
                                        "24:0a:c4:12:34:56"};
    static struct pki p;
    for (int i = 0; i < 4; i++) {
        p.keys[i] = i < 3 ? EVP_EC_gen("P-256") : EVP_RSA_gen(2048);
        p.certs[i] = issue(names[i], p.keys[i], i ? p.certs[i - 1] : NULL, p.keys[i ? i - 1 : 0]);
    }
    p.c = (struct credentials){p.keys[3], p.certs[3], sk_X509_new_null(), p.certs[0]};
    sk_X509_push(p.c.chain, p.certs[1]); /* in the wrong order: the upper one first */
    sk_X509_push(p.c.chain, p.certs[2]);
    *state = &p;
    return 0;
}

static int free_pki(void **state)
{
    struct pki *p = *state;
    for (int i = 0; i < 4; i++) {
        EVP_PKEY_free(p->keys[i]);
        X509_free(p->certs[i]);
    }
    sk_X509_free(p->c.chain);
    return 0;
}

static const uint8_t *some_keys(void)
{
    static uint8_t keys[NVS_KEYS_SIZE];
    for (size_t i = 0; i < sizeof keys; i++)
        keys[i] = (uint8_t)(i * 5);
    return keys;
}

static struct buf build(const struct pki *p, const struct image_options *o)
{
    struct buf b = {0};
    struct err err = {0};
    if (image_build(&b, &p->c, o, &err))
        fail_msg("%s", err.text);
    return b;
}

static const struct image_item *find(const struct image *image, const char *name, unsigned subtype)
{
    for (size_t i = 0; i < image->count; i++)
        if (strcmp(image->items[i].name, name) == 0 && image->items[i].subtype == subtype)
            return &image->items[i];
    fail_msg("%s is not there", name);
    return NULL;
}

/* Each format and encoding, plain and encrypted. */
static const struct image_options *all_options(size_t i)
{
    static struct image_options all[6] = {
        {.format = IMAGE_NVS, .encoding = ENCODING_PEM, .size = 0x4000},
        {.format = IMAGE_NVS, .encoding = ENCODING_DER, .size = 0x4000},
        {.format = IMAGE_NVS, .encoding = ENCODING_PEM, .size = 0x6000},
        {.format = IMAGE_NVS, .encoding = ENCODING_DER, .size = 0x6000},
        {.format = IMAGE_SECURE_CERT, .encoding = ENCODING_PEM, .size = 0x2000},
        {.format = IMAGE_SECURE_CERT, .encoding = ENCODING_DER, .size = 0x2000},
    };
    all[2].nvs_keys = all[3].nvs_keys = some_keys();
    return i < 6 ? &all[i] : NULL;
}

static void what_is_built_is_read(void **state)
{
    const struct pki *p = *state;
    const struct image_options *o;
    for (size_t i = 0; (o = all_options(i)); i++) {
        struct buf b = build(p, o);
        struct image image;
        struct image_credentials c;
        struct err err;
        assert_int_equal(b.len, o->size);
        assert_int_equal(image_verify(buf_view(&b), &p->c, o, &err), 0);
        assert_int_equal(image_read(&image, buf_view(&b), o->nvs_keys, &err), 0);
        assert_int_equal(image.problem_count, 0);
        assert_int_equal(image_credentials(&c, &image, &err), 0);
        assert_int_equal(EVP_PKEY_eq(c.key, p->keys[3]), 1);
        assert_int_equal(X509_cmp(c.cert, p->certs[3]), 0);
        assert_int_equal(sk_X509_num(c.chain), 2);
        assert_int_equal(X509_cmp(sk_X509_value(c.chain, 0), p->certs[2]), 0);
        assert_int_equal(X509_cmp(sk_X509_value(c.chain, 1), p->certs[1]), 0);
        assert_int_equal(sk_X509_num(c.roots), 1);
        image_credentials_free(&c);
        image_free(&image);
        buf_wipe(&b);
    }
}

/* "-----BEGIN CERTIFICATE-----" three times, the leaf's first, and one NUL that is counted. */
static void pem_holds_the_whole_chain(void **state)
{
    const struct pki *p = *state;
    const struct image_options *o = all_options(4);
    struct buf b = build(p, o);
    struct image image;
    struct err err;
    assert_int_equal(image_read(&image, buf_view(&b), NULL, &err), 0);
    const struct buf *text = &find(&image, "device certificate", 0)->data;
    assert_int_equal(strlen((const char *)text->data) + 1, text->len);
    struct content c;
    content_parse(&c, buf_view(text));
    assert_null(c.fault);
    assert_int_equal(sk_X509_num(c.certs), 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(X509_cmp(sk_X509_value(c.certs, i), p->certs[3 - i]), 0);
    content_free(&c);
    const struct buf *key = &find(&image, "private key", 0)->data;
    assert_memory_equal(key->data, "-----BEGIN PRIVATE KEY-----", 27);
    assert_int_equal(strlen((const char *)key->data) + 1, key->len);
    image_free(&image);
    buf_wipe(&b);
}

static void der_has_an_item_for_each(void **state)
{
    const struct pki *p = *state;
    struct buf b = build(p, all_options(5));
    struct image image;
    struct err err;
    assert_int_equal(image_read(&image, buf_view(&b), NULL, &err), 0);
    for (unsigned i = 0; i < 3; i++) {
        unsigned char *der = NULL;
        int len = i2d_X509(p->certs[3 - i], &der);
        const struct buf *found = &find(&image, "device certificate", i)->data;
        assert_int_equal(found->len, len);
        assert_memory_equal(found->data, der, (size_t)len);
        OPENSSL_free(der);
    }
    image_free(&image);
    buf_wipe(&b);
}

static void names_can_be_set(void **state)
{
    const struct pki *p = *state;
    struct image_options o = *all_options(1);
    struct image image;
    struct err err;
    o.names =
        (struct nvs_names){"a_namespace_123", "fifteen_letters", "cert", "fourteen_chars", "ca"};
    struct buf b = build(p, &o);
    assert_int_equal(image_read(&image, buf_view(&b), NULL, &err), 0);
    assert_string_equal(find(&image, "fifteen_letters", 0)->space, "a_namespace_123");
    find(&image, "fourteen_chars0", 0);
    find(&image, "fourteen_chars1", 0);
    image_free(&image);
    buf_wipe(&b);
}

static void refuses_wrong_options(void **state)
{
    const struct pki *p = *state;
    const struct {
        struct image_options o;
        const char *text;
    } cases[] = {
        {{.format = IMAGE_NVS, .size = 0x4001}, "not a multiple of 0x1000"},
        {{.format = IMAGE_NVS, .size = 0}, "a partition of 0x0 bytes"},
        {{.format = IMAGE_NVS, .size = 0x200000}, "not a multiple"},
        {{.format = IMAGE_NVS, .size = 0x2000}, "three pages"},
        {{.format = IMAGE_NVS, .size = 0x4000, .names.key = "sixteen_letters_"},
         "the key name \"sixteen_letters_\" has 16 characters, not 1 to 15"},
        {{.format = IMAGE_NVS, .size = 0x4000, .names.space = "sixteen_letters_"}, "the namespace"},
        {{.format = IMAGE_NVS, .size = 0x4000, .names.ca = ""}, "has 0 characters"},
        {{.format = IMAGE_NVS, .size = 0x4000, .names.ca = "a b"}, "not printable"},
        {{.format = IMAGE_NVS, .size = 0x4000, .names.ca = "x", .names.cert = "x"}, "two items"},
        {{.format = IMAGE_NVS,
          .encoding = ENCODING_DER,
          .size = 0x4000,
          .names.chain = "fifteen_letters"},
         "has 15 characters, not 1 to 14"},
        {{.format = IMAGE_SECURE_CERT, .size = 0x2000, .nvs_keys = some_keys()}, "only nvs"},
        {{.format = IMAGE_SECURE_CERT, .size = 0x11000}, "has 0x1000 to 0x10000 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b = {0};
        struct err err = {0};
        assert_int_equal(image_build(&b, &p->c, &cases[i].o, &err), -1);
        assert_int_equal(err.code, ERR_field_value);
        assert_null(b.data);
        if (!strstr(err.text, cases[i].text))
            fail_msg("\"%s\", not \"%s\"", err.text, cases[i].text);
    }
}

static void assert_refused(const struct credentials *c, const char *text)
{
    struct buf b = {0};
    struct err err = {0};
    assert_int_equal(image_build(&b, c, all_options(0), &err), -1);
    assert_null(b.data);
    if (!strstr(err.text, text))
        fail_msg("\"%s\", not \"%s\"", err.text, text);
}

static void refuses_what_does_not_belong_together(void **state)
{
    const struct pki *p = *state;
    struct credentials c = p->c;
    c.key = p->keys[2];
    assert_refused(&c, "the certificate is for another key");
    c = p->c;
    c.ca = p->certs[3];
    assert_refused(&c, "does not lead from the certificate to the CA: 2 of its");
    c = p->c;
    c.chain = NULL;
    assert_refused(&c, "does not lead");
    c.cert = p->certs[1];
    c.key = p->keys[1];
    c.chain = p->c.chain;
    assert_refused(&c, "holds 2 certificate(s) more");
}

/* A certificate right below the root has no chain; and a P-256 key is smaller. */
static void a_chain_may_be_empty(void **state)
{
    const struct pki *p = *state;
    struct pki one = {.c = {p->keys[1], p->certs[1], NULL, p->certs[0]}};
    struct err err;
    struct image_options o = {.format = IMAGE_NVS, .encoding = ENCODING_DER, .size = 0x3000};
    struct buf b = build(&one, &o);
    assert_int_equal(image_verify(buf_view(&b), &one.c, &o, &err), 0);
    buf_wipe(&b);
}

/* PEM that is longer than a string may be becomes a blob, with its NUL. */
static void a_long_chain_becomes_a_blob(void **state)
{
    const struct pki *p = *state;
    struct credentials c = {p->keys[3], NULL, sk_X509_new_null(), p->certs[0]};
    X509 *certs[10] = {p->certs[0]};
    struct err err = {0};
    struct image image;
    struct image_options o = {.format = IMAGE_NVS, .size = 0x6000};
    for (int i = 1; i < 10; i++) {
        char name[64];
        snprintf(name, sizeof name, "Another Intermediate Certificate Authority %d", i);
        certs[i] = issue(name, p->keys[i < 9 ? 1 : 3], certs[i - 1], p->keys[i > 1 ? 1 : 0]);
        if (i < 9)
            sk_X509_push(c.chain, certs[i]);
    }
    c.cert = certs[9];
    struct pki long_pki = {.c = c};
    struct buf b = build(&long_pki, &o);
    assert_int_equal(image_verify(buf_view(&b), &c, &o, &err), 0);
    assert_int_equal(image_read(&image, buf_view(&b), NULL, &err), 0);
    const struct image_item *item = find(&image, "client_cert", 0);
    assert_int_equal(item->type, NVS_BLOB_DATA);
    assert_true(item->data.len > NVS_STRING_MAX);
    assert_int_equal(strlen((const char *)item->data.data) + 1, item->data.len);
    image_free(&image);
    buf_wipe(&b);
    for (int i = 1; i < 10; i++)
        X509_free(certs[i]);
    sk_X509_free(c.chain);
}

static void another_device_is_told_apart(void **state)
{
    const struct pki *p = *state;
    const struct image_options *o;
    struct credentials other = p->c;
    struct err err = {0};
    other.key = p->keys[1];
    other.cert = issue("other", p->keys[1], p->certs[2], p->keys[2]);
    for (size_t i = 0; (o = all_options(i)); i++) {
        struct buf b = build(p, o);
        assert_int_equal(image_verify(buf_view(&b), &other, o, &err), -1);
        assert_non_null(strstr(err.text, "is another"));
        buf_wipe(&b);
    }
    X509_free(other.cert);
}

/* ---- damage ---- */

static int is_same(const struct image *a, const struct image *b)
{
    if (a->count != b->count)
        return 0;
    for (size_t i = 0; i < a->count; i++) {
        const struct image_item *x = &a->items[i], *y = &b->items[i];
        if (strcmp(x->space, y->space) != 0 || strcmp(x->name, y->name) != 0 ||
            x->type != y->type || x->subtype != y->subtype || x->flags != y->flags ||
            !bytes_equal(buf_view(&x->data), buf_view(&y->data)))
            return 0;
    }
    return 1;
}

/* In memory of exactly that size, so that a sanitizer sees a byte too many. */
static void assert_same_or_reported(const struct image *whole, const uint8_t *data, size_t len,
                                    const uint8_t *keys, size_t at)
{
    struct image image;
    struct err err;
    uint8_t *exact = malloc(len ? len : 1);
    assert_non_null(exact);
    memcpy(exact, data, len);
    if (image_read(&image, (struct bytes){exact, len}, keys, &err) == 0 &&
        image.problem_count == 0 && !is_same(whole, &image))
        fail_msg("damage at 0x%zx of %zu bytes is not reported", at, len);
    image_free(&image);
    free(exact);
}

static void no_damage_is_silent(void **state)
{
    const struct pki *p = *state;
    struct pki small = {.c = {p->keys[1], p->certs[1], NULL, p->certs[0]}};
    struct image_options all[] = {
        {.format = IMAGE_NVS, .size = 0x3000},
        {.format = IMAGE_NVS, .size = 0x3000, .encoding = ENCODING_DER, .nvs_keys = some_keys()},
        {.format = IMAGE_SECURE_CERT, .size = 0x1000},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct buf b = build(&small, &all[i]);
        struct image whole;
        struct err err;
        assert_int_equal(image_read(&whole, buf_view(&b), all[i].nvs_keys, &err), 0);
        for (size_t at = 0; at < b.len; at++) {
            assert_same_or_reported(&whole, b.data, at, all[i].nvs_keys, at);
            b.data[at] ^= (uint8_t)(1 << at % 8);
            assert_same_or_reported(&whole, b.data, b.len, all[i].nvs_keys, at);
            b.data[at] ^= (uint8_t)(1 << at % 8 ^ 0xFF);
            assert_same_or_reported(&whole, b.data, b.len, all[i].nvs_keys, at);
            b.data[at] ^= 0xFF;
        }
        image_free(&whole);
        buf_wipe(&b);
    }
}

static void says_that_it_is_no_image(void **state)
{
    uint8_t data[0x1000];
    struct image image;
    struct err err = {0};
    (void)state;
    memset(data, 0xFF, sizeof data);
    assert_int_equal(image_read(&image, (struct bytes){data, sizeof data}, NULL, &err), -1);
    assert_non_null(strstr(err.text, "all bytes are FF"));
    memset(data, 0, sizeof data);
    assert_int_equal(image_read(&image, (struct bytes){data, sizeof data}, NULL, &err), -1);
    assert_non_null(strstr(err.text, "neither"));
    assert_int_equal(image_read(&image, (struct bytes){NULL, 0}, NULL, &err), -1);
    assert_int_equal(image_read(&image, (struct bytes){data, IMAGE_SIZE_MAX + 1}, NULL, &err), -1);
    assert_non_null(strstr(err.text, "larger"));
}

/* ---- content ---- */

static struct buf key_in(EVP_PKEY *key, int pem, int traditional, int nul)
{
    BIO *bio = BIO_new(BIO_s_mem());
    struct buf out = {0};
    char *text;
    if (pem && traditional)
        PEM_write_bio_PrivateKey_traditional(bio, key, NULL, NULL, 0, NULL, NULL);
    else if (pem)
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    else if (traditional)
        i2d_PrivateKey_bio(bio, key);
    else
        i2d_PKCS8PrivateKey_bio(bio, key, NULL, NULL, 0, NULL, NULL);
    if (nul)
        BIO_write(bio, "", 1);
    long len = BIO_get_mem_data(bio, &text);
    assert_int_equal(buf_add(&out, text, (size_t)len), 0);
    BIO_free(bio);
    return out;
}

static void tells_what_a_key_is(void **state)
{
    const struct pki *p = *state;
    for (int i = 0; i < 16; i++) {
        int rsa = i & 1, pem = i >> 1 & 1, traditional = i >> 2 & 1, nul = i >> 3;
        struct buf b = key_in(p->keys[rsa ? 3 : 1], pem, traditional, nul);
        struct content c;
        content_parse(&c, buf_view(&b));
        assert_int_equal(c.kind, CONTENT_KEY);
        assert_int_equal(c.encoding, pem ? ENCODING_PEM : ENCODING_DER);
        assert_string_equal(c.form, traditional ? "traditional" : "PKCS#8");
        assert_int_equal(EVP_PKEY_eq(c.key, p->keys[rsa ? 3 : 1]), 1);
        assert_int_equal(c.fault == NULL, pem == nul); /* the NUL belongs to PEM alone */
        content_free(&c);
        buf_wipe(&b);
    }
}

static void tells_what_is_wrong_with_content(void **state)
{
    static const char *const cases[][2] = {
        {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "malformed"},
        {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "malformed"},
        {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
         "encrypted"},
    };
    struct content c;
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        content_parse(&c, (struct bytes){(const uint8_t *)cases[i][0], strlen(cases[i][0]) + 1});
        assert_int_equal(c.kind, CONTENT_OTHER);
        assert_non_null(strstr(c.fault, cases[i][1]));
        content_free(&c);
    }
    content_parse(&c, (struct bytes){(const uint8_t *)"my wifi", 8});
    assert_int_equal(c.kind, CONTENT_OTHER);
    assert_null(c.fault);
    content_parse(&c, (struct bytes){NULL, 0});
    assert_int_equal(c.kind, CONTENT_OTHER);
}

/* ---- raw ---- */

static void a_c_header_holds_all(void **state)
{
    const struct pki *p = *state;
    struct credential_items items;
    struct buf b = {0};
    struct err err;
    assert_int_equal(credential_items_make(&items, &p->c, ENCODING_DER, &err), 0);
    assert_int_equal(raw_c_header(&b, &items, &err), 0);
    assert_int_equal(buf_add(&b, "", 1), 0);
    const char *text = (const char *)b.data;
    char expected[100];
    snprintf(expected, sizeof expected, "client_key[%zu] = {\n    0x30, 0x%02x,",
             items.item[0].data.len, items.item[0].data.data[1]);
    assert_non_null(strstr(text, expected));
    snprintf(expected, sizeof expected, "ca_cert_len = %zu;", items.item[4].data.len);
    assert_non_null(strstr(text, expected));
    assert_non_null(strstr(text, "client_chain1["));
    credential_items_free(&items);
    buf_wipe(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_built_is_read),
        cmocka_unit_test(pem_holds_the_whole_chain),
        cmocka_unit_test(der_has_an_item_for_each),
        cmocka_unit_test(names_can_be_set),
        cmocka_unit_test(refuses_wrong_options),
        cmocka_unit_test(refuses_what_does_not_belong_together),
        cmocka_unit_test(a_chain_may_be_empty),
        cmocka_unit_test(a_long_chain_becomes_a_blob),
        cmocka_unit_test(another_device_is_told_apart),
        cmocka_unit_test(no_damage_is_silent),
        cmocka_unit_test(says_that_it_is_no_image),
        cmocka_unit_test(tells_what_a_key_is),
        cmocka_unit_test(tells_what_is_wrong_with_content),
        cmocka_unit_test(a_c_header_holds_all),
    };
    return cmocka_run_group_tests(tests, make_pki, free_pki);
}
