#include "pki_fixture.h"

#include <ctype.h>
#include <openssl/conf.h>
#include <openssl/rand.h>
#include <sys/random.h>
#include <sys/syscall.h>

#include "pki/certificate.h"

#define MAC "24:0a:c4:12:34:56"

static struct bytes serial(void)
{
    static uint8_t made[SERIAL_LEN];
    struct err err;
    assert_int_equal(serial_make(made, &err), 0);
    return (struct bytes){made, sizeof made};
}

static struct profiles *load(const struct ca *ca, const char *text)
{
    struct profiles *all;
    struct err err;
    CONF *conf = NCONF_new(NULL);
    BIO *bio = BIO_new_mem_buf(text, -1);
    assert_int_equal(NCONF_load_bio(conf, bio, NULL), 1);
    if (profiles_load(&all, conf, ca->issuer, "http://ca.example:8080/", 0, &err))
        fail_msg("%s", err.text);
    BIO_free(bio);
    NCONF_free(conf);
    return all;
}

/* A finished certificate of the request. */
static struct buf issue(const struct ca *ca, const struct certificate_request *req)
{
    struct buf tbs = {0}, der = {0};
    uint8_t signature[SIGNATURE_MAX];
    struct err err;
    if (certificate_build(&tbs, req, NULL, NULL, &err))
        fail_msg("%s", err.text);
    struct bytes made = ca_sign_data(ca, buf_view(&tbs), signature);
    if (certificate_assemble(&der, ca->issuer, buf_view(&tbs), made, &err))
        fail_msg("%s", err.text);
    buf_free(&tbs);
    return der;
}

static struct certificate_request request_for(const struct ca *ca, const struct profiles *all,
                                              const char *profile, const char *name,
                                              const struct buf *spki)
{
    const struct profile *p = profiles_find(all, profile);
    assert_non_null(p);
    return (struct certificate_request){.issuer = ca->issuer,
                                        .profile = p,
                                        .serial = serial(),
                                        .spki = buf_view(spki),
                                        .name = name,
                                        .now = time(NULL)};
}

/* In place of OpenSSL's and the kernel's, for the tests of broken ones: fill with these bytes,
 * NULL: really random. */
static const uint8_t *random_pattern, *source_pattern;
static int random_result = 1, source_result = SERIAL_LEN;

int RAND_bytes(unsigned char *out, int len)
{
    if (!random_pattern)
        return RAND_bytes_ex(NULL, out, (size_t)len, 0);
    memcpy(out, random_pattern, (size_t)len);
    return random_result;
}

ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    if (!source_pattern || len != SERIAL_LEN)
        return syscall(SYS_getrandom, out, len, flags);
    memcpy(out, source_pattern, len);
    return source_result;
}

static const uint8_t zeros[SERIAL_LEN], stuck[SERIAL_LEN] = {1, 2, 3, 4},
                                        never_positive[SERIAL_LEN] = {0x80, 1};

static void no_serial(const char *why)
{
    uint8_t out[SERIAL_LEN];
    struct err err = {0};
    assert_int_equal(serial_make(out, &err), -1);
    assert_int_equal(err.code, ERR_random_broken);
    if (!strstr(err.text, why))
        fail_msg("%s: %s", why, err.text);
}

static void a_serial(void)
{
    uint8_t out[SERIAL_LEN];
    struct err err;
    random_result = 1;
    source_result = SERIAL_LEN;
    random_pattern = source_pattern = NULL;
    assert_int_equal(serial_make(out, &err), 0);
}

static void a_broken_generator_gives_no_serial(void **state)
{
    uint8_t ones[SERIAL_LEN], out[SERIAL_LEN];
    struct err err = {0};
    (void)state;
    memset(ones, 0xff, sizeof ones);
    random_pattern = zeros;
    no_serial("the random generator gives one byte again and again");
    random_pattern = ones;
    no_serial("the random generator gives one byte again and again");
    random_pattern = never_positive;
    no_serial("the random generator repeats itself");
    random_pattern = stuck;
    assert_int_equal(serial_make(out, &err), 0);
    no_serial("the random generator repeats itself");
    random_result = 0;
    random_pattern = (const uint8_t *)"an error, and bytes";
    no_serial("the random generator fails");
    a_serial();
}

/* OpenSSL's generator would make of this what looks random, and is the same on each machine. */
static void a_broken_source_gives_no_serial(void **state)
{
    uint8_t ones[SERIAL_LEN], out[SERIAL_LEN];
    struct err err = {0};
    (void)state;
    memset(ones, 0xff, sizeof ones);
    source_pattern = zeros;
    no_serial("the kernel's random generator gives one byte again and again");
    source_pattern = ones;
    no_serial("the kernel's random generator gives one byte again and again");
    source_pattern = stuck;
    assert_int_equal(serial_make(out, &err), 0);
    no_serial("the kernel's random generator repeats itself");
    source_pattern = (const uint8_t *)"half of the bytes";
    source_result = SERIAL_LEN / 2;
    no_serial("the kernel's random generator fails");
    source_result = -1;
    no_serial("the kernel's random generator fails");
    a_serial();
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, SERIAL_LEN);
}

/* Half of them, within 6 standard deviations (one wrong alarm in 4 million runs); but the first
 * byte is never 0, which leaves 64 ones in 127. */
static int is_fair(int ones, int bit, int n)
{
    double p = bit < 8 ? 64.0 / 127 : 0.5, off = ones - p * n;
    return off * off <= 36 * n * p * (1 - p);
}

static void serials_are_random_and_positive(void **state)
{
    enum { N = 100000 };
    static uint8_t all[N][SERIAL_LEN];
    int ones[8 * SERIAL_LEN] = {0};
    struct err err;
    (void)state;
    for (int i = 0; i < N; i++) {
        assert_int_equal(serial_make(all[i], &err), 0);
        assert_in_range(all[i][0], 0x01, 0x7f);
        for (int bit = 0; bit < 8 * SERIAL_LEN; bit++)
            ones[bit] += all[i][bit / 8] >> (7 - bit % 8) & 1;
    }
    assert_int_equal(ones[0], 0); /* the sign */
    for (int bit = 1; bit < 8 * SERIAL_LEN; bit++)
        if (!is_fair(ones[bit], bit, N))
            fail_msg("bit %d is 1 in %d of %d serials", bit, ones[bit], N);
    qsort(all, N, SERIAL_LEN, by_bytes);
    for (int i = 1; i < N; i++)
        assert_memory_not_equal(all[i - 1], all[i], SERIAL_LEN);
}

static void openssl_and_gnutls_agree(void **state)
{
    static const char *const cas[] = {"rsa:2048", "P-256", "P-384"};
    static const char *const keys[] = {"rsa:2048", "P-256", "P-384"};
    (void)state;
    for (size_t i = 0; i < 9; i++) {
        struct ca ca = ca_make(cas[i / 3], 30);
        struct profiles *all = load(&ca, "");
        EVP_PKEY *key = make_key(keys[i % 3]);
        struct buf spki = make_spki(key);
        struct certificate_request req = request_for(&ca, all, "device", MAC, &spki);
        struct buf der = issue(&ca, &req);
        char *pem = certificate_pem(buf_view(&der)), *folder = make_folder();
        put_file(folder, "ca.pem", text_bytes(ca.pem));
        put_file(folder, "device.pem", text_bytes(pem));
        put_file(folder, "chain.pem", text_bytes(pem));
        check_run(folder,
                  "openssl verify -x509_strict -purpose sslclient -CAfile ca.pem device.pem",
                  "device.pem: OK");
        check_run(folder, "certtool --verify --load-ca-certificate ca.pem --infile chain.pem",
                  "Chain verification output: Verified");
        remove_folder(folder);
        free(pem);
        buf_free(&der);
        buf_free(&spki);
        EVP_PKEY_free(key);
        profiles_free(all);
        ca_free(&ca);
    }
}

static void holds_what_the_profile_says(void **state)
{
    static const char *const sans[] = {"DNS:broker.example", "IP:192.0.2.1", "IP:2001:db8::1",
                                       NULL};
    struct ca ca = ca_make("P-256", 3000);
    struct profiles *all = load(&ca, "");
    struct buf spki = make_spki(ca.key);
    struct certificate_request device = request_for(&ca, all, "device", MAC, &spki);
    struct buf der = issue(&ca, &device);
    char hex[2 * SERIAL_LEN + 1], line[128];
    char *folder = make_folder();
    (void)state;
    put_file(folder, "c.der", buf_view(&der));
    hex_encode(hex, device.serial);
    for (char *c = hex; *c; c++)
        *c = (char)toupper(*c);
    snprintf(line, sizeof line, "serial=%s\n", hex);
    check_run(folder, "openssl x509 -in c.der -noout -serial", line);
    check_run(folder, "openssl x509 -in c.der -noout -subject", "subject=CN = " MAC "\n");
    check_run(folder, "openssl x509 -in c.der -noout -issuer", "issuer=O = Test, CN = Test CA\n");
    check_run(folder, "openssl x509 -in c.der -noout -text", "Version: 3 (0x2)");
    check_run(folder, "openssl x509 -in c.der -noout -text",
              "X509v3 Basic Constraints: critical\n                CA:FALSE");
    check_run(folder, "openssl x509 -in c.der -noout -text",
              "X509v3 Key Usage: critical\n                Digital Signature\n");
    check_run(folder, "openssl x509 -in c.der -noout -text",
              "X509v3 Extended Key Usage: \n                TLS Web Client Authentication\n");
    check_run(folder, "openssl x509 -in c.der -noout -ext crlDistributionPoints",
              "URI:http://ca.example:8080/crl\n");
    check_run(folder, "openssl x509 -in c.der -noout -ext authorityInfoAccess",
              "CA Issuers - URI:http://ca.example:8080/ca.cer\n");
    buf_free(&der);

    struct certificate_request server = request_for(&ca, all, "server", "broker.example", &spki);
    server.sans = sans;
    der = issue(&ca, &server);
    put_file(folder, "c.der", buf_view(&der));
    check_run(folder, "openssl x509 -in c.der -noout -ext subjectAltName",
              "DNS:broker.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1\n");
    check_run(folder, "openssl x509 -in c.der -noout -text", "TLS Web Server Authentication\n");
    buf_free(&der);
    remove_folder(folder);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
}

/* RFC 7093 section 2, method 1; the AKI is the issuer's SKI. */
static void key_ids_link_the_chain(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct profiles *all = load(&ca, "");
    EVP_PKEY *key = make_key("P-256");
    struct buf spki = make_spki(key);
    struct certificate_request req = request_for(&ca, all, "device", MAC, &spki);
    struct buf der = issue(&ca, &req);
    const unsigned char *at = der.data;
    uint8_t digest[32];
    (void)state;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    sha256(digest, (struct bytes){spki.data + spki.len - 65, 65});
    const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(x);
    assert_int_equal(ASN1_STRING_length(ski), 20);
    assert_memory_equal(ASN1_STRING_get0_data(ski), digest, 20);
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(x);
    struct bytes id = issuer_key_id(ca.issuer);
    assert_int_equal((size_t)ASN1_STRING_length(aki), id.len);
    assert_memory_equal(ASN1_STRING_get0_data(aki), id.data, id.len);
    X509_free(x);
    buf_free(&der);
    buf_free(&spki);
    EVP_PKEY_free(key);
    profiles_free(all);
    ca_free(&ca);
}

#define VALID(nb, na)                                                                              \
    "[profile timed]\nkeys = ec:p256\nname = mac\nsubject = CN={name}\n"                           \
    "basicConstraints = CA:FALSE\nnot_before = " nb "\nnot_after = " na "\n"

/* What certificate_build() says, checked against what stands in the bytes. */
static void times(const char *text, int64_t now, int64_t lifetime, int64_t from, int64_t to,
                  int from_type, int to_type)
{
    struct ca ca = ca_make("P-256", 3000);
    struct profiles *all = load(&ca, text);
    struct buf spki = make_spki(ca.key), tbs = {0}, der = {0};
    struct certificate_request req = request_for(&ca, all, "timed", MAC, &spki);
    uint8_t signature[SIGNATURE_MAX];
    int64_t not_before, not_after;
    struct err err;
    struct tm tm;
    req.now = now;
    req.lifetime = lifetime;
    if (to < 0)
        to = issuer_not_after(ca.issuer);
    if (certificate_build(&tbs, &req, &not_before, &not_after, &err))
        fail_msg("%s", err.text);
    assert_int_equal(not_before, from);
    assert_int_equal(not_after, to);
    struct bytes made = ca_sign_data(&ca, buf_view(&tbs), signature);
    assert_int_equal(certificate_assemble(&der, ca.issuer, buf_view(&tbs), made, &err), 0);
    const unsigned char *at = der.data;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    assert_int_equal(ASN1_TIME_to_tm(X509_get0_notBefore(x), &tm), 1);
    assert_int_equal(timegm(&tm), from);
    assert_int_equal(ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm), 1);
    assert_int_equal(timegm(&tm), to);
    assert_int_equal(ASN1_STRING_type(X509_get0_notBefore(x)), from_type);
    assert_int_equal(ASN1_STRING_type(X509_get0_notAfter(x)), to_type);
    X509_free(x);
    buf_free(&der);
    buf_free(&tbs);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
}

static void validity_follows_the_profile(void **state)
{
    const int utc = V_ASN1_UTCTIME, general = V_ASN1_GENERALIZEDTIME;
    int64_t now = time(NULL);
    (void)state;
    times(VALID("-5m", "+825d"), now, 0, now - 300, now + 825 * DAY, utc, utc);
    times(VALID("-5m", "+825d"), now, 7 * DAY, now - 300, now + 7 * DAY, utc, utc);
    times(VALID("-5m", "+5d"), now, 7 * DAY, now - 300, now + 5 * DAY, utc, utc);
    times(VALID("-5m", "+90y"), now, 0, now - 300, -1, utc, utc); /* cut to the issuer's */
    times(VALID("19700101000000Z", "+1d"), now, 0, 0, now + DAY, utc, utc);
    times(VALID("19700101000000Z", "99991231235959Z") "beyond_issuer = yes\n", now, 0, 0,
          253402300799, utc, general);
    times(VALID("-5m", "20491231235959Z") "beyond_issuer = yes\n", now, 0, now - 300, 2524607999,
          utc, utc);
    times(VALID("-5m", "20500101000000Z") "beyond_issuer = yes\n", now, 0, now - 300, 2524608000,
          utc, general);
}

static void an_ended_issuer_issues_nothing(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct profiles *all = load(&ca, VALID("-1d", "+60d") "beyond_issuer = yes\n");
    struct buf spki = make_spki(ca.key), tbs = {0};
    struct certificate_request req = request_for(&ca, all, "timed", MAC, &spki);
    struct err err = {0};
    (void)state;
    req.now = issuer_not_after(ca.issuer);
    assert_int_equal(certificate_build(&tbs, &req, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_too_old);
    assert_int_equal(tbs.len, 0);
    req.now--;
    assert_int_equal(certificate_build(&tbs, &req, NULL, NULL, &err), 0);
    buf_free(&tbs);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
}

static void refused(const struct certificate_request *req, enum err_code code)
{
    struct buf tbs = {0};
    struct err err = {0};
    assert_int_equal(certificate_build(&tbs, req, NULL, NULL, &err), -1);
    assert_string_equal(err_name(err.code), err_name(code));
    assert_true(err.text[0]);
    buf_free(&tbs);
}

static void bad_requests_build_nothing(void **state)
{
    static const char *const bad_sans[] = {"DNS:*.example", "DNS:",         "IP:1.2.3",
                                           "URI:urn:x",     "broker",       "DNS:a b",
                                           "email:a@b.c",   "IP:1.2.3.4/8", "DNS:1.2.3.4",
                                           "IP: 1.2.3.4",   "IP:+1.2.3.4",  "IP:01.2.3.4"};
    static const uint8_t high[SERIAL_LEN] = {0x80}, low[SERIAL_LEN] = {0, 0x80};
    struct ca ca = ca_make("P-256", 30);
    struct profiles *all = load(&ca, "");
    struct buf spki = make_spki(ca.key);
    struct certificate_request req = request_for(&ca, all, "server", "broker.example", &spki);
    (void)state;
    refused(&req, ERR_field_missing);
    req.sans = (const char *[]){NULL};
    refused(&req, ERR_field_missing);
    for (size_t i = 0; i < sizeof bad_sans / sizeof *bad_sans; i++) {
        req.sans = (const char *[]){"DNS:good.example", bad_sans[i], NULL};
        refused(&req, ERR_field_value);
    }
    req = request_for(&ca, all, "device", MAC, &spki);
    req.sans = (const char *[]){"DNS:good.example", NULL};
    refused(&req, ERR_internal);
    req.sans = NULL;
    req.name = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    refused(&req, ERR_csr_cn_invalid);
    req.name = MAC;
    req.serial = (struct bytes){high, sizeof high};
    refused(&req, ERR_internal);
    req.serial = (struct bytes){low, sizeof low};
    refused(&req, ERR_internal);
    req.serial = (struct bytes){low + 1, 8};
    refused(&req, ERR_internal);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
}

/* Nothing comes out that the CA's key did not sign, byte for byte. */
static void only_what_was_approved_comes_out(void **state)
{
    struct ca ca = ca_make("P-256", 30), other = ca_make("P-256", 30);
    struct ca wide = ca_make("P-384", 30);
    struct profiles *all = load(&ca, "");
    struct buf spki = make_spki(ca.key), tbs = {0}, der = {0};
    struct certificate_request req = request_for(&ca, all, "device", MAC, &spki);
    uint8_t signature[SIGNATURE_MAX], wrong[SIGNATURE_MAX];
    struct err err = {0};
    (void)state;
    assert_int_equal(certificate_build(&tbs, &req, NULL, NULL, &err), 0);
    struct bytes made = ca_sign_data(&ca, buf_view(&tbs), signature);
    struct bytes bad = ca_sign_data(&other, buf_view(&tbs), wrong);
    assert_int_equal(certificate_assemble(&der, ca.issuer, buf_view(&tbs), bad, &err), -1);
    assert_int_equal(der.len, 0);
    for (size_t i = 0; i < tbs.len; i++) {
        tbs.data[i] ^= 1;
        assert_int_equal(certificate_assemble(&der, ca.issuer, buf_view(&tbs), made, &err), -1);
        tbs.data[i] ^= 1;
    }
    assert_int_equal(der.len, 0);
    assert_int_equal(certificate_assemble(&der, ca.issuer, buf_view(&tbs), made, &err), 0);
    assert_non_null(memmem(der.data, der.len, tbs.data, tbs.len));
    assert_non_null(memmem(der.data, der.len, spki.data, spki.len));
    buf_free(&der);
    buf_free(&tbs);
    req.issuer = wide.issuer; /* the TBS then names another algorithm than its signature has */
    assert_int_equal(certificate_build(&tbs, &req, NULL, NULL, &err), 0);
    made = ca_sign_data(&ca, buf_view(&tbs), signature);
    assert_int_equal(certificate_assemble(&der, ca.issuer, buf_view(&tbs), made, &err), -1);
    assert_memory_equal(err.text, "rfc5280-4.1.1.2", 15);
    assert_int_equal(der.len, 0);
    buf_free(&tbs);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
    ca_free(&other);
    ca_free(&wide);
}

static void prints_what_it_costs(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct profiles *all = load(&ca, "");
    struct buf spki = make_spki(ca.key);
    struct certificate_request req = request_for(&ca, all, "device", MAC, &spki);
    struct err err;
    clock_t start = clock();
    (void)state;
    for (int i = 0; i < 2000; i++) {
        struct buf tbs = {0};
        assert_int_equal(certificate_build(&tbs, &req, NULL, NULL, &err), 0);
        buf_free(&tbs);
    }
    print_message("certificate_build %.1f us\n",
                  (double)(clock() - start) * 1e6 / CLOCKS_PER_SEC / 2000);
    buf_free(&spki);
    profiles_free(all);
    ca_free(&ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_generator_gives_no_serial),
        cmocka_unit_test(a_broken_source_gives_no_serial),
        cmocka_unit_test(serials_are_random_and_positive),
        cmocka_unit_test(openssl_and_gnutls_agree),
        cmocka_unit_test(holds_what_the_profile_says),
        cmocka_unit_test(key_ids_link_the_chain),
        cmocka_unit_test(validity_follows_the_profile),
        cmocka_unit_test(an_ended_issuer_issues_nothing),
        cmocka_unit_test(bad_requests_build_nothing),
        cmocka_unit_test(only_what_was_approved_comes_out),
        cmocka_unit_test(prints_what_it_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
