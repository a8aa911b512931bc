/* Each rule of the lint, by a certificate that breaks it alone, which OpenSSL makes. */
#include "pki_fixture.h"

#include <openssl/conf.h>

#include "pki/lint.h"
#include "pki/profile_parts.h"
#include "pki/signed.h"

#define MAC "24:0a:c4:12:34:56"
#define URL "http://ca.example:8080"
#define LENGTH(a) (sizeof(a) / sizeof *(a))

static const char profiles_text[] =
    "[profile plain]\nkeys = ec:p256\nname = mac\nsubject = O=Test, CN={name}\n"
    "not_before = -5m\nnot_after = +825d\nbasicConstraints = critical, CA:FALSE\n"
    "keyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n"
    "[profile rsa]\nkeys = rsa:2048-3072, ec:p384\nname = mac\nsubject = O=Test, CN={name}\n"
    "not_before = -5m\nnot_after = +825d\nbasicConstraints = critical, CA:FALSE\n"
    "keyUsage = critical, digitalSignature\nextendedKeyUsage = clientAuth\n"
    "[profile host]\nkeys = ec:p256\nname = hostname\nsubject = CN={name}\n"
    "not_before = -5m\nnot_after = +397d\nsubjectAltName = critical, {names}\n"
    "allowed_names = .example\n"
    "[profile late]\nkeys = ec:p256\nname = mac\nsubject = CN={name}\n"
    "not_before = -5m\nnot_after = 99991231235959Z\nbeyond_issuer = yes\n";

static const char *const sans[] = {"DNS:broker.example", "IP:192.0.2.1", "IP:2001:db8::1", NULL};

static struct world {
    struct ca ca;
    struct profiles *profiles;
    EVP_PKEY *key;
    struct buf spki;
    uint8_t serial[SERIAL_LEN];
} world;

static int set_up(void **state)
{
    struct err err;
    CONF *conf = NCONF_new(NULL);
    BIO *bio = BIO_new_mem_buf(profiles_text, -1);
    (void)state;
    world.ca = ca_make("P-256", 3000);
    world.key = make_key("P-256");
    world.spki = make_spki(world.key);
    assert_int_equal(serial_make(world.serial, &err), 0);
    assert_int_equal(NCONF_load_bio(conf, bio, NULL), 1);
    if (profiles_load(&world.profiles, conf, world.ca.issuer, URL "/", 1, &err))
        fail_msg("%s", err.text);
    BIO_free(bio);
    NCONF_free(conf);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    profiles_free(world.profiles);
    buf_free(&world.spki);
    EVP_PKEY_free(world.key);
    ca_free(&world.ca);
    return 0;
}

static struct certificate_request request_for(const char *profile)
{
    int host = strcmp(profile, "host") == 0;
    return (struct certificate_request){.issuer = world.ca.issuer,
                                        .profile = profiles_find(world.profiles, profile),
                                        .serial = {world.serial, SERIAL_LEN},
                                        .spki = buf_view(&world.spki),
                                        .name = host ? "broker.example" : MAC,
                                        .sans = host ? sans : NULL,
                                        .shard = 3,
                                        .now = time(NULL)};
}

static struct buf build(const struct certificate_request *req)
{
    struct buf tbs = {0};
    struct err err;
    if (certificate_build(&tbs, req, NULL, NULL, &err))
        fail_msg("%s", err.text);
    return tbs;
}

static void refused(struct bytes tbs, const struct certificate_request *req, const char *rule)
{
    struct err err = {0};
    char begin[64];
    snprintf(begin, sizeof begin, "%s: ", rule);
    if (certificate_lint(tbs, req, &err) == 0)
        fail_msg("%s: was not refused", rule);
    if (strncmp(err.text, begin, strlen(begin)) != 0)
        fail_msg("%s: refused, but by \"%s\"", rule, err.text);
    assert_int_equal(err.code, ERR_lint_refused);
}

static X509 *as_certificate(const struct buf *tbs)
{
    static const uint8_t signature[1] = {0};
    struct buf der = {0};
    assert_int_equal(signed_wrap(&der, issuer_alg(world.ca.issuer), buf_view(tbs),
                                 (struct bytes){signature, sizeof signature}),
                     0);
    const unsigned char *at = der.data;
    X509 *x = d2i_X509(NULL, &at, (long)der.len);
    assert_non_null(x);
    buf_free(&der);
    return x;
}

/* ---- what OpenSSL can be made to write ---- */

static void set_serial(X509 *x, const char *hex)
{
    BIGNUM *n = NULL;
    assert_true(BN_hex2bn(&n, hex));
    assert_non_null(BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x)));
    BN_free(n);
}

static void version_2(X509 *x)
{
    X509_set_version(x, X509_VERSION_2);
}

static void version_1(X509 *x)
{
    X509_set_version(x, X509_VERSION_1);
}

static void serial_zero(X509 *x)
{
    set_serial(x, "0");
}

static void serial_negative(X509 *x)
{
    set_serial(x, "-4fa03b1122334455667788990a0b0c0d");
}

static void serial_long(X509 *x)
{
    set_serial(x, "4fa03b1122334455667788990a0b0c0d0e0f101112");
}

static void serial_short(X509 *x)
{
    set_serial(x, "4fa03b1122334455");
}

static void serial_poor(X509 *x)
{
    set_serial(x, "01020301020301020301020301020301");
}

static void serial_other(X509 *x)
{
    set_serial(x, "4fa03b1122334455667788990a0b0c0d");
}

static void algorithm_other(X509 *x)
{
    X509_ALGOR *inside = (X509_ALGOR *)X509_get0_tbs_sigalg(x);
    assert_true(
        X509_ALGOR_set0(inside, OBJ_nid2obj(NID_sha256WithRSAEncryption), V_ASN1_NULL, NULL));
}

static void algorithm_sha1(X509 *x)
{
    X509_ALGOR *inside = (X509_ALGOR *)X509_get0_tbs_sigalg(x);
    assert_true(X509_ALGOR_set0(inside, OBJ_nid2obj(NID_ecdsa_with_SHA1), V_ASN1_UNDEF, NULL));
}

static void add_text(X509_NAME *name, const char *type, int form, const char *text)
{
    assert_true(
        X509_NAME_add_entry_by_txt(name, type, form, (const unsigned char *)text, -1, -1, 0));
}

/* Equal by the rules for names, but not byte for byte. */
static void issuer_other_string_type(X509 *x)
{
    X509_NAME *name = X509_NAME_new();
    add_text(name, "O", V_ASN1_PRINTABLESTRING, "Test");
    add_text(name, "CN", V_ASN1_UTF8STRING, "Test CA");
    assert_int_equal(X509_NAME_cmp(name, X509_get_issuer_name(x)), 0);
    X509_set_issuer_name(x, name);
    X509_NAME_free(name);
}

static void issuer_is_subject(X509 *x)
{
    X509_set_issuer_name(x, X509_get_subject_name(x));
}

static void shift(ASN1_TIME *t, int64_t seconds)
{
    struct tm tm;
    assert_int_equal(ASN1_TIME_to_tm(t, &tm), 1);
    assert_non_null(ASN1_TIME_set(t, timegm(&tm) + seconds));
}

static void begins_later(X509 *x)
{
    shift(X509_getm_notBefore(x), 1);
}

static void begins_sooner(X509 *x)
{
    shift(X509_getm_notBefore(x), -1);
}

static void ends_later(X509 *x)
{
    shift(X509_getm_notAfter(x), 1);
}

static void ends_sooner(X509 *x)
{
    shift(X509_getm_notAfter(x), -1);
}

static void ended(X509 *x)
{
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(x), time(NULL) - 10));
}

static void ends_before_it_begins(X509 *x)
{
    assert_non_null(ASN1_TIME_set(X509_getm_notAfter(x), time(NULL) - 3600));
}

static void put_time(ASN1_TIME *t, int type, const char *text)
{
    ASN1_STRING *s = (ASN1_STRING *)t;
    assert_true(ASN1_STRING_set(s, text, -1));
    s->type = type;
}

/* The same moments, written as RFC 5280 does not. */
static void generalized_too_early(X509 *x)
{
    char text[16];
    struct tm tm;
    assert_int_equal(ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm), 1);
    strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &tm);
    put_time(X509_getm_notAfter(x), V_ASN1_GENERALIZEDTIME, text);
}

static void time_without_seconds(X509 *x)
{
    put_time(X509_getm_notAfter(x), V_ASN1_UTCTIME, "2801010000Z");
}

static void time_with_offset(X509 *x)
{
    put_time(X509_getm_notAfter(x), V_ASN1_UTCTIME, "280101000000+0100");
}

static void time_without_z(X509 *x)
{
    put_time(X509_getm_notAfter(x), V_ASN1_UTCTIME, "2801010000000");
}

static void time_of_no_day(X509 *x)
{
    put_time(X509_getm_notAfter(x), V_ASN1_UTCTIME, "280230000000Z");
}

static void time_with_fraction(X509 *x)
{
    put_time(X509_getm_notAfter(x), V_ASN1_GENERALIZEDTIME, "20510101000000.5Z");
}

static void subject_other(X509 *x)
{
    X509_NAME *name = X509_NAME_new();
    add_text(name, "O", MBSTRING_UTF8, "Test");
    add_text(name, "CN", MBSTRING_UTF8, "24:0a:c4:12:34:57");
    X509_set_subject_name(x, name);
    X509_NAME_free(name);
}

static void subject_more(X509 *x)
{
    add_text(X509_get_subject_name(x), "OU", MBSTRING_UTF8, "More");
}

static void subject_less(X509 *x)
{
    X509_NAME_ENTRY_free(X509_NAME_delete_entry(X509_get_subject_name(x), 1));
}

static void subject_empty(X509 *x)
{
    while (X509_NAME_entry_count(X509_get_subject_name(x)))
        X509_NAME_ENTRY_free(X509_NAME_delete_entry(X509_get_subject_name(x), 0));
}

static void set_cn(X509 *x, int form, const char *text)
{
    X509_NAME_ENTRY_free(X509_NAME_delete_entry(X509_get_subject_name(x), 1));
    X509_NAME_ENTRY *entry = X509_NAME_ENTRY_create_by_NID(
        NULL, NID_serialNumber, V_ASN1_UTF8STRING, (const unsigned char *)text, -1);
    ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
    value->type = form;
    assert_true(X509_NAME_ENTRY_set_object(entry, OBJ_nid2obj(NID_commonName)));
    assert_true(X509_NAME_add_entry(X509_get_subject_name(x), entry, -1, 0));
    X509_NAME_ENTRY_free(entry);
}

static void subject_teletex(X509 *x)
{
    set_cn(x, V_ASN1_T61STRING, MAC);
}

static void subject_not_printable(X509 *x)
{
    set_cn(x, V_ASN1_PRINTABLESTRING, "24_0a");
}

static void subject_long(X509 *x)
{
    set_cn(x, V_ASN1_UTF8STRING,
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
}

static void key_other(X509 *x)
{
    EVP_PKEY *key = make_key("P-256");
    X509_set_pubkey(x, key);
    EVP_PKEY_free(key);
}

static void replace(X509 *x, int nid, const char *value)
{
    int at = X509_get_ext_by_NID(x, nid, -1);
    X509_EXTENSION_free(X509_delete_ext(x, at));
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, NULL, nid, value);
    assert_non_null(ext);
    assert_true(X509_add_ext(x, ext, at));
    X509_EXTENSION_free(ext);
}

/* The extension with these bytes for its value. */
static void put_value(X509 *x, int nid, const void *value, size_t len)
{
    X509_EXTENSION *ext = X509_get_ext(x, X509_get_ext_by_NID(x, nid, -1));
    assert_true(ASN1_OCTET_STRING_set(X509_EXTENSION_get_data(ext), value, (int)len));
}

static void is_ca(X509 *x)
{
    replace(x, NID_basic_constraints, "critical, CA:TRUE");
}

static void has_path_length(X509 *x)
{
    put_value(x, NID_basic_constraints, "\x30\x03\x02\x01\x00", 5);
}

static void ca_false_encoded(X509 *x)
{
    put_value(x, NID_basic_constraints, "\x30\x03\x01\x01\x00", 5);
}

static void signs_certificates(X509 *x)
{
    replace(x, NID_key_usage, "critical, digitalSignature, keyCertSign");
}

static void signs_crls(X509 *x)
{
    replace(x, NID_key_usage, "critical, digitalSignature, cRLSign");
}

static void usage_other(X509 *x)
{
    replace(x, NID_key_usage, "critical, digitalSignature, keyAgreement");
}

static void usage_none(X509 *x)
{
    put_value(x, NID_key_usage, "\x03\x01\x00", 3);
}

static void usage_zero_bits_at_the_end(X509 *x)
{
    put_value(x, NID_key_usage, "\x03\x02\x00\x80", 4);
}

static void usage_unused_bit_set(X509 *x)
{
    put_value(x, NID_key_usage, "\x03\x02\x07\xc0", 4);
}

static void purpose_ocsp(X509 *x)
{
    replace(x, NID_ext_key_usage, "clientAuth, OCSPSigning");
}

static void purpose_other(X509 *x)
{
    replace(x, NID_ext_key_usage, "serverAuth");
}

static void purpose_none(X509 *x)
{
    put_value(x, NID_ext_key_usage, "\x30\x00", 2);
}

static void key_id_other(X509 *x)
{
    uint8_t value[22] = {4, 20};
    put_value(x, NID_subject_key_identifier, value, sizeof value);
}

/* Method 1 of RFC 5280 itself, SHA-1: what RFC 7093 has taken the place of. */
static void key_id_sha1(X509 *x)
{
    uint8_t value[22] = {4, 20};
    assert_true(X509_pubkey_digest(x, EVP_sha1(), value + 2, NULL));
    put_value(x, NID_subject_key_identifier, value, sizeof value);
}

static void authority_other(X509 *x)
{
    uint8_t value[24] = {0x30, 22, 0x80, 20};
    put_value(x, NID_authority_key_identifier, value, sizeof value);
}

static void authority_empty(X509 *x)
{
    put_value(x, NID_authority_key_identifier, "\x30\x00", 2);
}

static void point_other_shard(X509 *x)
{
    replace(x, NID_crl_distribution_points, "URI:" URL "/crl/4");
}

static void point_other_host(X509 *x)
{
    replace(x, NID_crl_distribution_points, "URI:http://ca.example.org/crl/3");
}

static void point_one_more(X509 *x)
{
    replace(x, NID_crl_distribution_points, "URI:" URL "/crl/3,URI:" URL "/crl/4");
}

static void point_none(X509 *x)
{
    put_value(x, NID_crl_distribution_points, "\x30\x00", 2);
}

static void access_other(X509 *x)
{
    replace(x, NID_info_access, "OCSP;URI:http://elsewhere.example/ocsp");
}

static void toggle(X509 *x, int nid)
{
    X509_EXTENSION *ext = X509_get_ext(x, X509_get_ext_by_NID(x, nid, -1));
    assert_true(X509_EXTENSION_set_critical(ext, !X509_EXTENSION_get_critical(ext)));
}

static void constraints_not_critical(X509 *x)
{
    toggle(x, NID_basic_constraints);
}

static void usage_not_critical(X509 *x)
{
    toggle(x, NID_key_usage);
}

static void purpose_critical(X509 *x)
{
    toggle(x, NID_ext_key_usage);
}

static void key_id_critical(X509 *x)
{
    toggle(x, NID_subject_key_identifier);
}

static void authority_critical(X509 *x)
{
    toggle(x, NID_authority_key_identifier);
}

static void access_critical(X509 *x)
{
    toggle(x, NID_info_access);
}

static void point_critical(X509 *x)
{
    toggle(x, NID_crl_distribution_points);
}

static void take_out(X509 *x, int nid)
{
    X509_EXTENSION_free(X509_delete_ext(x, X509_get_ext_by_NID(x, nid, -1)));
}

static void no_constraints(X509 *x)
{
    take_out(x, NID_basic_constraints);
}

static void no_key_id(X509 *x)
{
    take_out(x, NID_subject_key_identifier);
}

static void no_authority(X509 *x)
{
    take_out(x, NID_authority_key_identifier);
}

static void no_point(X509 *x)
{
    take_out(x, NID_crl_distribution_points);
}

static void no_extension(X509 *x)
{
    while (X509_get_ext_count(x))
        X509_EXTENSION_free(X509_delete_ext(x, 0));
}

static void other_order(X509 *x)
{
    X509_EXTENSION *first = X509_delete_ext(x, 0);
    assert_true(X509_add_ext(x, first, -1));
    X509_EXTENSION_free(first);
}

static void extension_twice(X509 *x)
{
    assert_true(X509_add_ext(x, X509_get_ext(x, 0), -1));
}

static void one_in_place_of_another(X509 *x)
{
    take_out(x, NID_ext_key_usage);
    assert_true(X509_add_ext(x, X509_get_ext(x, 0), -1));
}

static void add(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, NULL, nid, value);
    assert_non_null(ext);
    assert_true(X509_add_ext(x, ext, -1));
    X509_EXTENSION_free(ext);
}

static void comment(X509 *x)
{
    add(x, NID_netscape_comment, "more");
}

static void name_constraints(X509 *x)
{
    add(x, NID_name_constraints, "permitted;DNS:example");
}

static void policy_constraints(X509 *x)
{
    add(x, NID_policy_constraints, "critical,requireExplicitPolicy:0");
}

static void names_not_asked_for(X509 *x)
{
    add(x, NID_subject_alt_name, "DNS:elsewhere.example");
}

static void names_one_less(X509 *x)
{
    replace(x, NID_subject_alt_name, "critical,DNS:broker.example,IP:192.0.2.1");
}

static void names_one_more(X509 *x)
{
    replace(x, NID_subject_alt_name,
            "critical,DNS:broker.example,IP:192.0.2.1,IP:2001:db8::1,DNS:b.example");
}

static void names_other_type(X509 *x)
{
    replace(x, NID_subject_alt_name, "critical,URI:broker.example,IP:192.0.2.1,IP:2001:db8::1");
}

static void names_not_critical(X509 *x)
{
    toggle(x, NID_subject_alt_name);
}

static void names_empty(X509 *x)
{
    put_value(x, NID_subject_alt_name, "\x30\x00", 2);
}

static void names_with_nul(X509 *x)
{
    put_value(x, NID_subject_alt_name,
              "\x30\x05\x82\x03"
              "a\0b",
              7);
}

static void names_short_address(X509 *x)
{
    put_value(x, NID_subject_alt_name, "\x30\x05\x87\x03\x0a\x00\x01", 7);
}

static void names_empty_name(X509 *x)
{
    put_value(x, NID_subject_alt_name, "\x30\x02\x82\x00", 4);
}

static void subject_empty_names_not_critical(X509 *x)
{
    subject_empty(x);
    toggle(x, NID_subject_alt_name);
}

#define SERIAL "rfc5280-4.1.2.2"
#define VALIDITY "rfc5280-4.1.2.5"

static const struct {
    const char *profile;
    void (*change)(X509 *x);
    const char *rule;
} changes[] = {
    {"plain", version_2, "rfc5280-4.1.2.1"},
    {"plain", version_1, "x690-10.1"}, /* the default: not encoded */
    {"plain", serial_zero, SERIAL},
    {"plain", serial_negative, SERIAL},
    {"plain", serial_long, SERIAL},
    {"plain", serial_short, SERIAL},
    {"plain", serial_poor, SERIAL},
    {"plain", serial_other, SERIAL},
    {"plain", algorithm_other, "rfc5280-4.1.2.3"},
    {"plain", algorithm_sha1, "rfc5280-4.1.2.3"},
    {"plain", issuer_other_string_type, "rfc5280-4.1.2.4"},
    {"plain", issuer_is_subject, "rfc5280-4.1.2.4"},
    {"plain", begins_later, "profile"},
    {"plain", begins_sooner, "profile"},
    {"plain", ends_later, "profile"},
    {"plain", ends_sooner, "profile"},
    {"plain", ended, VALIDITY},
    {"plain", ends_before_it_begins, VALIDITY},
    {"plain", generalized_too_early, VALIDITY},
    {"plain", time_without_seconds, VALIDITY},
    {"plain", time_with_offset, VALIDITY},
    {"plain", time_without_z, VALIDITY},
    {"plain", time_of_no_day, VALIDITY},
    {"plain", time_with_fraction, VALIDITY},
    {"plain", subject_other, "profile"},
    {"plain", subject_more, "profile"},
    {"plain", subject_less, "rfc5280-4.1.2.6"},
    {"plain", subject_teletex, "rfc5280-4.1.2.6"},
    {"plain", subject_not_printable, "rfc5280-4.1.2.6"},
    {"plain", subject_long, "rfc5280-4.1.2.6"},
    {"plain", subject_empty, "rfc5280-4.1.2.6"},
    {"host", subject_empty, "profile"},
    {"host", subject_empty_names_not_critical, "rfc5280-4.1.2.6"},
    {"plain", key_other, "rfc5280-4.1.2.7"},
    {"plain", is_ca, "rfc5280-4.2.1.9"},
    {"plain", has_path_length, "rfc5280-4.2.1.9"},
    {"plain", ca_false_encoded, "rfc5280-4.2.1.9"},
    {"plain", signs_certificates, "rfc5280-4.2.1.3"},
    {"plain", signs_crls, "rfc5280-4.2.1.3"},
    {"plain", usage_none, "rfc5280-4.2.1.3"},
    {"plain", usage_zero_bits_at_the_end, "rfc5280-4.2.1.3"},
    {"plain", usage_unused_bit_set, "rfc5280-4.2.1.3"},
    {"plain", usage_other, "profile"},
    {"plain", purpose_ocsp, "rfc6960-4.2.2.2"},
    {"plain", purpose_none, "rfc5280-4.2.1.12"},
    {"plain", purpose_other, "profile"},
    {"plain", key_id_other, "rfc5280-4.2.1.2"},
    {"plain", key_id_sha1, "rfc5280-4.2.1.2"},
    {"plain", authority_other, "rfc5280-4.2.1.1"},
    {"plain", authority_empty, "rfc5280-4.2.1.1"},
    {"plain", point_other_shard, "profile"},
    {"plain", point_other_host, "profile"},
    {"plain", point_one_more, "profile"},
    {"plain", point_none, "rfc5280-4.2.1.13"},
    {"plain", access_other, "profile"},
    {"plain", constraints_not_critical, "profile"},
    {"plain", usage_not_critical, "profile"},
    {"plain", purpose_critical, "profile"},
    {"plain", point_critical, "profile"},
    {"plain", key_id_critical, "rfc5280-4.2"},
    {"plain", authority_critical, "rfc5280-4.2"},
    {"plain", access_critical, "rfc5280-4.2"},
    {"plain", no_constraints, "profile"},
    {"plain", no_key_id, "profile"},
    {"plain", no_authority, "rfc5280-4.2.1.1"},
    {"plain", no_point, "profile"},
    {"plain", no_extension, "x690-10.1"},
    {"plain", other_order, "profile"},
    {"plain", extension_twice, "rfc5280-4.2"},
    {"plain", one_in_place_of_another, "rfc5280-4.2"},
    {"plain", comment, "profile"},
    {"plain", name_constraints, "rfc5280-4.2.1"},
    {"plain", policy_constraints, "rfc5280-4.2.1"},
    {"plain", names_not_asked_for, "profile"},
    {"host", names_one_less, "profile"},
    {"host", names_one_more, "profile"},
    {"host", names_other_type, "profile"},
    {"host", names_not_critical, "profile"},
    {"host", names_empty, "rfc5280-4.2.1.6"},
    {"host", names_with_nul, "rfc5280-4.2.1.6"},
    {"host", names_short_address, "rfc5280-4.2.1.6"},
    {"host", names_empty_name, "rfc5280-4.2.1.6"},
    {"late", ends_sooner, "profile"},
};

static void each_rule_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < LENGTH(changes); i++) {
        struct certificate_request req = request_for(changes[i].profile);
        struct buf tbs = build(&req);
        X509 *x = as_certificate(&tbs);
        unsigned char *der = NULL;
        changes[i].change(x);
        int len = i2d_re_X509_tbs(x, &der);
        assert_true(len > 0);
        refused((struct bytes){der, (size_t)len}, &req, changes[i].rule);
        OPENSSL_free(der);
        X509_free(x);
        buf_free(&tbs);
    }
}

/* ---- what OpenSSL cannot be made to write ---- */

/* All that the request does not fix is fixed by the rules: one other bit is another certificate. */
static void every_bit_counts(void **state)
{
    static const char *const names[] = {"plain", "host", "late"};
    struct err err;
    (void)state;
    for (size_t p = 0; p < LENGTH(names); p++) {
        struct certificate_request req = request_for(names[p]);
        struct buf tbs = build(&req);
        for (size_t bit = 0; bit < 8 * tbs.len; bit++) {
            tbs.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (certificate_lint(buf_view(&tbs), &req, &err) == 0)
                fail_msg("%s: bit %zu of byte %zu of %zu may be any", names[p], bit % 8, bit / 8,
                         tbs.len);
            tbs.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t len = 0; len < tbs.len; len++)
            assert_int_equal(certificate_lint((struct bytes){tbs.data, len}, &req, &err), -1);
        assert_int_equal(certificate_lint(buf_view(&tbs), &req, &err), 0);
        buf_free(&tbs);
    }
}

/* The bytes at offset `at`, `out` of them, replaced by in; lengths around them are the caller's. */
static void splice(struct buf *tbs, size_t at, size_t out, const char *in, size_t len)
{
    struct buf made = {0};
    assert_int_equal(buf_add(&made, tbs->data, at), 0);
    assert_int_equal(buf_add(&made, in, len), 0);
    assert_int_equal(buf_add(&made, tbs->data + at + out, tbs->len - at - out), 0);
    buf_free(tbs);
    *tbs = made;
}

static void only_der_passes(void **state)
{
    struct certificate_request req = request_for("plain");
    (void)state;
    struct buf tbs = build(&req);
    assert_int_equal(buf_add(&tbs, "", 1), 0); /* a byte behind it */
    refused(buf_view(&tbs), &req, "x690-10.1");
    buf_free(&tbs);

    tbs = build(&req); /* 30 82 LL LL: a length of three octets */
    assert_memory_equal(tbs.data, "\x30\x82", 2);
    splice(&tbs, 1, 1, "\x83\x00", 2);
    refused(buf_view(&tbs), &req, "x690-10.1");
    buf_free(&tbs);

    tbs = build(&req); /* indefinite, with its end */
    splice(&tbs, 1, 3, "\x80", 1);
    assert_int_equal(buf_add(&tbs, "\0\0", 2), 0);
    refused(buf_view(&tbs), &req, "x690-10.1");
    buf_free(&tbs);

    tbs = build(&req); /* a zero before the serial */
    size_t at = (size_t)((uint8_t *)memmem(tbs.data, tbs.len, world.serial, SERIAL_LEN) - tbs.data);
    splice(&tbs, at - 1, 1, "\x11\0", 2);
    tbs.data[3]++;
    refused(buf_view(&tbs), &req, "x690-8.3.2");
    buf_free(&tbs);

    tbs = build(&req); /* a subject that is not UTF-8 */
    *(uint8_t *)memmem(tbs.data, tbs.len, MAC, strlen(MAC)) = 0xff;
    refused(buf_view(&tbs), &req, "rfc5280-4.1.2.6");
    buf_free(&tbs);
}

static void key_types_are_the_profiles(void **state)
{
    static const struct {
        const char *type, *profile;
        int good;
    } keys[] = {{"P-256", "plain", 1},  {"P-384", "plain", 0},  {"rsa:2048", "plain", 0},
                {"P-256", "rsa", 0},    {"P-384", "rsa", 1},    {"rsa:2048", "rsa", 1},
                {"rsa:3072", "rsa", 1}, {"rsa:4096", "rsa", 0}, {"rsa:1024", "rsa", 0}};
    (void)state;
    for (size_t i = 0; i < LENGTH(keys); i++) {
        EVP_PKEY *key = make_key(keys[i].type);
        struct buf spki = make_spki(key);
        struct certificate_request req = request_for(keys[i].profile);
        struct err err;
        req.spki = buf_view(&spki);
        struct buf tbs = build(&req);
        if (!keys[i].good)
            refused(buf_view(&tbs), &req, "profile");
        else if (certificate_lint(buf_view(&tbs), &req, &err))
            fail_msg("%s: %s", keys[i].type, err.text);
        buf_free(&tbs);
        buf_free(&spki);
        EVP_PKEY_free(key);
    }
}

/* Of each CA, each profile and each way to ask, what certificate_build() makes passes. */
static void what_is_built_passes(void **state)
{
    static const char *const cas[] = {"rsa:2048", "P-256", "P-384"};
    struct err err;
    (void)state;
    for (size_t i = 0; i < LENGTH(cas); i++) {
        struct ca ca = ca_make(cas[i], 300);
        struct profiles *all;
        assert_int_equal(profiles_load(&all, NULL, ca.issuer, i ? URL : NULL, i == 2, &err), 0);
        const struct profile *p = NULL;
        while ((p = profiles_next(all, p))) {
            struct certificate_request req = request_for(profile_takes_names(p) ? "host" : "plain");
            req.issuer = ca.issuer;
            req.profile = p;
            for (unsigned n = 0; n < 8; n++) {
                req.shard = profile_takes_shard(p) && n & 1 ? 1023 : 0;
                req.lifetime = n & 2 ? 7 * DAY : 0;
                req.now = n & 4 ? issuer_not_after(ca.issuer) - 1 : time(NULL);
                struct buf tbs = build(&req);
                if (certificate_lint(buf_view(&tbs), &req, &err))
                    fail_msg("%s, %s: %s", cas[i], profile_name(p), err.text);
                buf_free(&tbs);
            }
        }
        profiles_free(all);
        ca_free(&ca);
    }
}

/* ---- around it ---- */

static void outside_is_as_inside(void **state)
{
    static const uint8_t signature[] = {1, 2, 3};
    struct certificate_request req = request_for("plain");
    struct buf tbs = build(&req), other = build(&req), der = {0};
    struct bytes sig = {signature, sizeof signature};
    struct err err;
    (void)state;
    other.data[other.len - 1] ^= 1;
    assert_int_equal(signed_wrap(&der, SIGN_ECDSA_SHA256, buf_view(&tbs), sig), 0);
    assert_int_equal(certificate_lint_signed(buf_view(&der), buf_view(&tbs), &err), 0);
    assert_int_equal(certificate_lint_signed(buf_view(&der), buf_view(&other), &err), -1);
    assert_memory_equal(err.text, "rfc5280-4.1.1.1", 15);
    assert_int_equal(buf_add(&der, "", 1), 0);
    assert_int_equal(certificate_lint_signed(buf_view(&der), buf_view(&tbs), &err), -1);
    assert_memory_equal(err.text, "x690-10.1", 9);
    der.len = 0;
    assert_int_equal(signed_wrap(&der, SIGN_ECDSA_SHA384, buf_view(&tbs), sig), 0);
    assert_int_equal(certificate_lint_signed(buf_view(&der), buf_view(&tbs), &err), -1);
    assert_memory_equal(err.text, "rfc5280-4.1.1.2", 15);
    buf_free(&der);
    buf_free(&tbs);
    buf_free(&other);
}

/* A profile that breaks RFC 5280 by itself is none; the start says so, not the first request. */
static void no_such_profile(void **state)
{
    static const struct {
        const char *line, *rule;
    } profiles[] = {{"keyUsage = DER:03020080", "rfc5280-4.2.1.3"},
                    {"extendedKeyUsage = DER:3000", "rfc5280-4.2.1.12"},
                    {"authorityKeyIdentifier = issuer:always", "rfc5280-4.2.1.1"},
                    {"authorityInfoAccess = critical, OCSP;URI:http://a.example/", "rfc5280-4.2"},
                    {"nameConstraints = permitted;DNS:example", "rfc5280-4.2.1"},
                    {"subjectAltName = DER:3000", "rfc5280-4.2.1.6"}};
    (void)state;
    for (size_t i = 0; i < LENGTH(profiles); i++) {
        char text[512];
        struct profiles *all;
        struct err err = {0};
        snprintf(text, sizeof text,
                 "[profile bad]\nkeys = ec:p256\nname = mac\nsubject = CN={name}\n"
                 "not_before = -5m\nnot_after = +1d\n%s\n",
                 profiles[i].line);
        CONF *conf = NCONF_new(NULL);
        BIO *bio = BIO_new_mem_buf(text, -1);
        assert_int_equal(NCONF_load_bio(conf, bio, NULL), 1);
        assert_int_equal(profiles_load(&all, conf, world.ca.issuer, URL, 0, &err), -1);
        if (!strstr(err.text, "[profile bad]") || !strstr(err.text, profiles[i].rule))
            fail_msg("%s: %s", profiles[i].line, err.text);
        BIO_free(bio);
        NCONF_free(conf);
    }
}

static void prints_what_it_costs(void **state)
{
    enum { N = 20000 };
    struct certificate_request req = request_for("plain");
    struct buf tbs = build(&req);
    struct err err;
    clock_t start = clock();
    (void)state;
    for (int i = 0; i < N; i++)
        assert_int_equal(certificate_lint(buf_view(&tbs), &req, &err), 0);
    print_message("certificate_lint %.1f us\n",
                  (double)(clock() - start) * 1e6 / CLOCKS_PER_SEC / N);
    buf_free(&tbs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_refuses),    cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(only_der_passes),      cmocka_unit_test(key_types_are_the_profiles),
        cmocka_unit_test(what_is_built_passes), cmocka_unit_test(outside_is_as_inside),
        cmocka_unit_test(no_such_profile),      cmocka_unit_test(prints_what_it_costs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
