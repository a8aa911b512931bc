#include "pki_fixture.h"

#include <openssl/conf.h>

#include "pki/profile.h"

static struct ca ca;

#define DEVICE                                                                                     \
    "keys = ec:p256\nname = mac\nsubject = CN={name}\nnot_before = -5m\nnot_after = +1y\n"         \
    "basicConstraints = critical,CA:FALSE\n"

static CONF *conf_of(const char *text)
{
    CONF *conf = NCONF_new(NULL);
    BIO *bio = BIO_new_mem_buf(text, -1);
    long line = 0;
    if (NCONF_load_bio(conf, bio, &line) != 1)
        fail_msg("line %ld of the configuration", line);
    BIO_free(bio);
    return conf;
}

static int load(struct profiles **out, const char *text, struct err *err)
{
    CONF *conf = conf_of(text);
    int rc = profiles_load(out, conf, ca.issuer, "http://ca.example:8080", 0, err);
    NCONF_free(conf); /* not needed afterwards */
    return rc;
}

static const struct profile *find(const struct profiles *all, const char *name)
{
    const struct profile *p = profiles_find(all, name);
    assert_non_null(p);
    return p;
}

static void ships_device_server_operator(void **state)
{
    struct profiles *all;
    struct err err;
    (void)state;
    if (profiles_load(&all, NULL, ca.issuer, NULL, 0, &err))
        fail_msg("%s", err.text);
    const struct profile *device = find(all, "device"), *server = find(all, "server"),
                         *operator= find(all, "operator");
    assert_null(profiles_find(all, "Device"));
    assert_null(profiles_find(all, ""));
    assert_string_equal(profile_name(device), "device");
    assert_int_equal(profile_name_kind(device), NAME_MAC);
    assert_int_equal(profile_name_kind(server), NAME_HOSTNAME);
    assert_int_equal(profile_name_kind(operator), NAME_LABEL);
    assert_int_equal(profile_keys(device)->rsa_min, 2048);
    assert_int_equal(profile_roles(device), ROLE_PROVISIONER);
    assert_int_equal(profile_roles(server), ROLE_ADMIN);
    assert_int_equal(profile_roles(operator), 0);
    assert_true(profile_takes_names(server));
    assert_false(profile_takes_names(device));
    profiles_free(all);
}

static void operations_are_denied_by_default(void **state)
{
    struct profiles *all;
    struct err err;
    (void)state;
    assert_int_equal(load(&all,
                          "[profile two]\n" DEVICE "roles = admin\n"
                          "operations = req_server_cert, req_client_cert\n",
                          &err),
                     0);
    const struct profile *device = find(all, "device"), *operator= find(all, "operator"),
                         *two = find(all, "two");
    assert_true(profile_allows_operation(device, "req_client_cert"));
    assert_false(profile_allows_operation(device, "req_client"));
    assert_false(profile_allows_operation(device, "req_client_cert2"));
    assert_false(profile_allows_operation(device, "req_server_cert"));
    assert_false(profile_allows_operation(device, ""));
    assert_false(profile_allows_operation(operator, "req_client_cert"));
    assert_false(profile_allows_operation(operator, ""));
    assert_true(profile_allows_operation(two, "req_client_cert"));
    assert_true(profile_allows_operation(two, "req_server_cert"));
    assert_false(profile_allows_operation(two, "req_server_cert, req_client_cert"));
    profiles_free(all);
}

static void the_configuration_replaces_by_name(void **state)
{
    static const char *const sections[] = {"[profile device]\n", "[ profile device ]\n",
                                           "[profile   device]\n", "[\tprofile\tdevice\t]\n"};
    (void)state;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        struct profiles *all;
        struct err err;
        char text[1024];
        snprintf(text, sizeof text, "%s" DEVICE "[profiles]\nx = y\n[profile]\nx = y\n",
                 sections[i]);
        if (load(&all, text, &err))
            fail_msg("%s: %s", sections[i], err.text);
        assert_int_equal(profile_keys(find(all, "device"))->rsa_max, 0);
        assert_int_equal(profile_roles(find(all, "device")), 0);
        assert_non_null(profiles_find(all, "server"));
        profiles_free(all);
    }
}

static void takes_what_x509v3_config_can_say(void **state)
{
    struct profiles *all;
    struct err err;
    (void)state;
    int rc = load(&all,
                  "[profile rich]\n" DEVICE "keyUsage = critical,digitalSignature,keyAgreement\n"
                  "extendedKeyUsage = clientAuth,1.3.6.1.4.1.99999.7\n"
                  "certificatePolicies = 1.2.3.4,@policy\n"
                  "subjectAltName = @names\n"
                  "crlDistributionPoints = cdp\n"
                  "authorityInfoAccess = OCSP;URI:http://ocsp.example/\n"
                  "authorityKeyIdentifier = keyid:always\n"
                  "tlsfeature = status_request\n"
                  "noCheck = ignored\n"
                  "1.3.6.1.4.1.99999.1 = ASN1:UTF8String:hello\n"
                  "1.3.6.1.4.1.99999.2 = critical,DER:05:00\n"
                  "1.3.6.1.4.1.99999.3 = ASN1:SEQUENCE:parts\n"
                  "[policy]\npolicyIdentifier = 1.3.5.8\nCPS.1 = \"http://example.org/cps\"\n"
                  "[names]\nDNS.1 = a.example\nURI = urn:x\n"
                  "[cdp]\nfullname = URI:http://a.example/crl,URI:http://b.example/crl\n"
                  "[parts]\na = INTEGER:1\nb = BOOLEAN:TRUE\n",
                  &err);
    if (rc)
        fail_msg("%s", err.text);
    assert_non_null(profiles_find(all, "rich"));
    profiles_free(all);
}

/* Each mistake fails at load and names the profile, the key and the cause. */
static void mistakes_are_named(void **state)
{
    static const struct {
        const char *line, *key, *why;
    } mistakes[] = {
        {"keyUsge = digitalSignature", "keyUsge", "neither a key of a profile nor an extension"},
        {"keyUsage = digitalSig", "keyUsage", "unknown bit string argument"},
        {"extendedKeyUsage = clientAuht", "extendedKeyUsage", "clientAuht"},
        {"certificatePolicies = @nowhere", "certificatePolicies", "section"},
        {"1.2.3.4.5 = ASN1:UTF8Strin:x", "1.2.3.4.5", "unknown tag"},
        {"1.2.3.4.5 = hello", "1.2.3.4.5", "neither"},
        {"keyUsage = critical,keyCertSign", "keyUsage", "for CAs"},
        {"keyUsage = critical,cRLSign", "keyUsage", "for CAs"},
        {"2.5.29.19 = DER:30:03:01:01:ff", "2.5.29.19", "given twice"},
        {"subjectKeyIdentifier = 00112233", "subjectKeyIdentifier", "hash"},
        {"subjectAltName = {name}", "subjectAltName", "name"},
        {"keys = rsa:1024-2048", "keys", "rsa:1024-2048"},
        {"roles = boss", "roles", "boss"},
        {"operations = req_client_cert", "roles", "nobody"},
        {"operations = req_clinet_cert", "operations", "req_clinet_cert"},
        {"subject = CN=board", "subject", "{name}"},
        {"subject = CN={name}, OU={name}", NULL, NULL}, /* as in an IDevID: serialNumber too */
        {"subject = CN={name}{name}", "subject", "{name}"},
        {"subject = CN={name}, Example", "subject", "Example"},
        {"subject = CM={name}", "subject", "CM"},
        {"subject = CN={name}, C=Germany", "subject", "string too long"},
        {"name = ip", "name", "ip"},
        {"not_before = 5m", "not_before", "5m"},
        {"not_before = -5", "", NULL}, /* plain seconds */
        {"not_after = +1w", "not_after", "1w"},
        {"not_after = 20300231000000Z", "not_after", "20300231000000Z"},
        {"not_after = 19990101000000Z", "", "ended already"},
        {"not_after = -1d", "", "ended already"},
        {"beyond_issuer = maybe", "beyond_issuer", "maybe"},
        {"renew_key = maybe", "renew_key", "neither same nor any"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        struct profiles *all = NULL;
        struct err err = {0};
        char text[1024];
        snprintf(text, sizeof text, "[profile mine]\n" DEVICE "%s\n", mistakes[i].line);
        int rc = load(&all, text, &err);
        if (!mistakes[i].why) {
            if (rc)
                fail_msg("%s: %s", mistakes[i].line, err.text);
            profiles_free(all);
            continue;
        }
        if (rc != -1 || strncmp(err.text, "[profile mine]: ", 16) != 0 ||
            !strstr(err.text + 16, mistakes[i].key) || !strstr(err.text + 16, mistakes[i].why))
            fail_msg("%s: %d %s", mistakes[i].line, rc, err.text);
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void no_profile_makes_a_ca(void **state)
{
    static const char *const tries[] = {"basicConstraints = critical,CA:TRUE\n",
                                        "basicConstraints = CA:TRUE,pathlen:0\n",
                                        "basicConstraints = CA:TRUE\nkeyUsage = digitalSignature\n",
                                        "2.5.29.19 = DER:30:03:01:01:ff\n", "nsCertType = sslCA\n"};
    (void)state;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        struct profiles *all = NULL;
        struct err err = {0};
        char text[1024];
        snprintf(text, sizeof text,
                 "[profile mine]\nkeys = ec:p256\nname = mac\nsubject = CN={name}\n"
                 "not_before = -5m\nnot_after = +1y\n%s",
                 tries[i]);
        assert_int_equal(load(&all, text, &err), -1);
        if (!strstr(err.text, "would be CAs"))
            fail_msg("%s: %s", tries[i], err.text);
    }
}

static void missing_keys_are_named(void **state)
{
    static const char *const keys[] = {"keys", "name", "subject", "not_before", "not_after"};
    (void)state;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct profiles *all = NULL;
        struct err err = {0};
        char text[1024] = "[profile mine]\n", expected[64];
        for (const char *line = DEVICE; *line; line = strchr(line, '\n') + 1)
            if (strncmp(line, keys[i], strlen(keys[i])) != 0 || line[strlen(keys[i])] != ' ')
                strncat(text, line, (size_t)(strchr(line, '\n') + 1 - line));
        snprintf(expected, sizeof expected, "[profile mine]: %s: missing", keys[i]);
        assert_int_equal(load(&all, text, &err), -1);
        assert_string_equal(err.text, expected);
    }
}

static void odd_names_and_urls_are_refused(void **state)
{
    static const char *const urls[] = {"https://ca.example", "ca.example", "http://a,URI:ldap://b",
                                       "http://a;b", "http://a b"};
    struct profiles *all = NULL;
    struct err err;
    (void)state;
    assert_int_equal(load(&all, "[profile My Board]\n" DEVICE, &err), -1);
    assert_non_null(strstr(err.text, "My Board"));
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        assert_int_equal(profiles_load(&all, NULL, ca.issuer, urls[i], 0, &err), -1);
        assert_non_null(strstr(err.text, "public_url"));
    }
}

static void check_names(const struct profile *p, const char *const *good, const char *const *bad,
                        enum err_code code)
{
    struct err err;
    for (; *good; good++)
        if (profile_check_name(p, *good, &err))
            fail_msg("%s: %s", *good, err.text);
    for (; *bad; bad++) {
        err = (struct err){0};
        if (profile_check_name(p, *bad, &err) == 0 || err.code != code)
            fail_msg("\"%s\" gives %s", *bad, err_name(err.code));
    }
}

static void names_fit_their_kind(void **state)
{
    static const char long_label[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char longer[] =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct profiles *all;
    struct err err;
    (void)state;
    assert_int_equal(profiles_load(&all, NULL, ca.issuer, NULL, 0, &err), 0);
    check_names(find(all, "device"),
                (const char *[]){"24:0a:c4:12:34:56", "24:0a:c4:ff:fe:12:34:56", NULL},
                (const char *[]){"", "board", "24:0A:C4:12:34:56", "240ac4123456", NULL},
                ERR_csr_cn_not_mac);
    check_names(find(all, "server"),
                (const char *[]){"localhost", "broker.example.org", "3com.example", "a-b.c",
                                 "192.0.2.1", "2001:db8::1", "::1", "EXAMPLE.org", NULL},
                (const char *[]){"", ".", "a.", ".a", "a..b", "-a.b", "a-.b", "a_b",
                                 "*.example.org", "a b", "999.1.1.1", "1.2.3", "12", "a/b", longer,
                                 "b\xc3\xbc.de", NULL},
                ERR_csr_cn_invalid);
    check_names(find(all, "operator"),
                (const char *[]){"a", "jane.doe@example.org", "line-3_A", long_label, NULL},
                (const char *[]){"", "a b", "a/b", "a,b", "a=b", "\xc3\xbc", longer, NULL},
                ERR_csr_cn_invalid);
    profiles_free(all);
}

static void roles_there_and_back(void **state)
{
    struct err err;
    char text[48];
    (void)state;
    assert_int_equal(roles_parse("provisioner", &err), ROLE_PROVISIONER);
    assert_int_equal(roles_parse("auditor, provisioner", &err), ROLE_PROVISIONER | ROLE_AUDITOR);
    roles_text(text, sizeof text, 15);
    assert_string_equal(text, "provisioner,revoker,admin,auditor");
    assert_int_equal(roles_parse(text, &err), 15);
    roles_text(text, sizeof text, 0);
    assert_string_equal(text, "");
    static const char *const bad[] = {"", ",", "boss", "admin,", "admin,,auditor", "Admin"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct err){0};
        assert_int_equal(roles_parse(bad[i], &err), 0);
        assert_int_equal(err.code, ERR_field_value);
    }
}

static int set_up(void **state)
{
    (void)state;
    ca = ca_make("P-256", 3650);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ca_free(&ca);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ships_device_server_operator),
        cmocka_unit_test(operations_are_denied_by_default),
        cmocka_unit_test(the_configuration_replaces_by_name),
        cmocka_unit_test(takes_what_x509v3_config_can_say),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(no_profile_makes_a_ca),
        cmocka_unit_test(missing_keys_are_named),
        cmocka_unit_test(odd_names_and_urls_are_refused),
        cmocka_unit_test(names_fit_their_kind),
        cmocka_unit_test(roles_there_and_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
