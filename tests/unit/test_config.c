#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#include "common/config.h"
#include "temp.h"

#define LEAST                                                                                      \
    "[server]\n"                                                                                   \
    "state = /var/lib/signet\n"                                                                    \
    "[token]\n"                                                                                    \
    "module = /usr/lib/module.so\n"                                                                \
    "label = t\n"                                                                                  \
    "key_label = k\n"

static int parse(struct config **out, const char *text, struct err *err)
{
    size_t len = strlen(text);
    uint8_t *exact = malloc(len ? len : 1); /* not ended by a NUL */
    assert_non_null(exact);
    memcpy(exact, text, len);
    *out = NULL;
    int rc = config_parse(out, (struct bytes){exact, len}, "signet.conf", err);
    free(exact);
    return rc;
}

static struct config *parsed(const char *text)
{
    struct config *c;
    struct err err;
    if (parse(&c, text, &err))
        fail_msg("%s", err.text);
    return c;
}

static void assert_refused(const char *text, const char *why)
{
    struct config *c;
    struct err err = {0};
    if (parse(&c, text, &err) == 0)
        fail_msg("taken: %s", text);
    assert_null(c);
    assert_int_equal(err.code, ERR_field_value);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" is not in \"%s\"", why, err.text);
}

static void the_least_has_all_defaults(void **state)
{
    struct config *c = parsed(LEAST);
    (void)state;
    assert_string_equal(c->state, "/var/lib/signet");
    assert_string_equal(c->listen, "127.0.0.1:8443");
    assert_string_equal(c->http_listen, "127.0.0.1:8080");
    assert_string_equal(c->names[0], "DNS:localhost");
    assert_string_equal(c->names[1], "IP:127.0.0.1");
    assert_null(c->names[2]);
    assert_null(c->public_url);
    assert_null(c->admin_group);
    assert_int_equal(c->fronts, 2);
    assert_int_equal(c->credits, 64);
    assert_string_equal(c->module, "/usr/lib/module.so");
    assert_string_equal(c->token_label, "t");
    assert_string_equal(c->key_label, "k");
    assert_int_equal(c->key_id.len, 0);
    assert_null(c->init_args);
    assert_null(c->pin_file);
    assert_null(c->custody_exception);
    assert_int_equal(c->signers, 2);
    assert_int_equal(c->sign_deadline_ms, 10000);
    assert_null(c->env[0]);
    assert_string_equal(c->certificate, "/var/lib/signet/intermediate.pem");
    assert_string_equal(c->chain, "/var/lib/signet/ca-chain.pem");
    assert_int_equal(c->crl_life, 7 * 86400);
    assert_int_equal(c->ocsp_life, 12 * 3600);
    assert_int_equal(c->ocsp_budget, 20);
    config_free(c);
    config_free(NULL);
}

static void every_key_is_taken(void **state)
{
    struct config *c = parsed("# a comment\n"
                              "[ server ]\n"
                              "state       = /s   # behind a value\n"
                              "listen      = [::]:443\n"
                              "http_listen = none\n"
                              "names       = ca.example, 192.0.2.7  2001:db8::1,,\n"
                              "public_url  = http://ca.example/pki/\n"
                              "fronts      = 64\n"
                              "credits     = 4096\n"
                              "admin_group = ops\n"
                              "[token]\n"
                              "module        = \"/opt/a b.so\"\n"
                              "init_args     = slot=1\n"
                              "label         = tok\\\nen\n"
                              "key_label     = k\n"
                              "key_id        = 00aBff\n"
                              "pin_file      = /p\n"
                              "signers       = 1\n"
                              "sign_deadline = 10m\n"
                              "custody_exception = ab12, wrapped backup\n"
                              "env.CONF_FILE = /etc/x.cfg\n"
                              "env.B         = two words\n"
                              "[ca]\n"
                              "certificate = /c.pem\n"
                              "chain       = /chain.pem\n"
                              "crl_life    = 36h\n"
                              "ocsp_life   = 90m\n"
                              "ocsp_budget = 5\n"
                              "[profile x]\n"
                              "anything = here\n");
    (void)state;
    assert_string_equal(c->state, "/s");
    assert_string_equal(c->listen, "[::]:443");
    assert_string_equal(c->http_listen, "none");
    assert_string_equal(c->names[0], "DNS:ca.example");
    assert_string_equal(c->names[1], "IP:192.0.2.7");
    assert_string_equal(c->names[2], "IP:2001:db8::1");
    assert_null(c->names[3]);
    assert_string_equal(c->public_url, "http://ca.example/pki");
    assert_int_equal(c->fronts, 64);
    assert_int_equal(c->credits, 4096);
    assert_string_equal(c->admin_group, "ops");
    assert_string_equal(c->module, "/opt/a b.so");
    assert_string_equal(c->init_args, "slot=1");
    assert_string_equal(c->token_label, "token");
    assert_int_equal(c->key_id.len, 3);
    assert_memory_equal(c->key_id.data, "\x00\xab\xff", 3);
    assert_string_equal(c->pin_file, "/p");
    assert_int_equal(c->signers, 1);
    assert_int_equal(c->sign_deadline_ms, 600000);
    assert_string_equal(c->custody_exception, "ab12, wrapped backup");
    assert_non_null(c->env[0]);
    assert_non_null(c->env[1]);
    assert_null(c->env[2]);
    int conf_file = strcmp(c->env[0], "CONF_FILE=/etc/x.cfg") == 0 ? 0 : 1;
    assert_string_equal(c->env[conf_file], "CONF_FILE=/etc/x.cfg");
    assert_string_equal(c->env[!conf_file], "B=two words");
    assert_string_equal(c->certificate, "/c.pem");
    assert_string_equal(c->chain, "/chain.pem");
    assert_int_equal(c->crl_life, 36 * 3600);
    assert_int_equal(c->ocsp_life, 90 * 60);
    assert_int_equal(c->ocsp_budget, 5);
    assert_string_equal(NCONF_get_string(c->conf, "profile x", "anything"), "here");
    config_free(c);
}

static void of_two_the_last_counts(void **state)
{
    struct config *c = parsed(LEAST "signers = 3\nsigners = 4\n");
    (void)state;
    assert_int_equal(c->signers, 4);
    config_free(c);
}

static void an_unknown_key_is_named_with_its_line(void **state)
{
    (void)state;
    assert_refused(LEAST "modul = x\n", "signet.conf:7: [token] modul: there is no such key");
    assert_refused("\n\n[ca]\n  crl_lifetime = 7d\n" LEAST,
                   "signet.conf:4: [ca] crl_lifetime: there is no such key");
    assert_refused(LEAST "env. = x\n", "[token] env.: there is no such key");
    assert_refused(LEAST "[server]\nenv.A = x\n", "signet.conf:8: [server] env.A: there is no");
    assert_refused(LEAST "[server]\nState = x\n", "there is no such key");
    assert_refused(LEAST "pin = 1234\n", "[token] pin: there is no such key");
}

static void what_is_required_is_asked_for(void **state)
{
    (void)state;
    assert_refused("", "[server] state: it is required and missing");
    assert_refused("[server]\nstate = /s\n", "[token] module: it is required");
    assert_refused("[server]\nstate = /s\n[token]\nmodule = m\n", "[token] label: it is required");
    assert_refused("[server]\nstate = /s\n[token]\nmodule = m\nlabel = l\n", "it or key_id is");
    assert_refused("[server]\nstate =\n[token]\nmodule = m\nlabel = l\nkey_id = 01\n",
                   "signet.conf:2: [server] state: it is required");
    config_free(parsed("[server]\nstate = /s\n[token]\nmodule = m\nlabel = l\nkey_id = 01\n"));
}

/* A key without a value is as one that is not there. */
static void an_empty_value_means_the_default(void **state)
{
    struct config *c = parsed(LEAST "pin_file =\n[server]\nlisten =\nhttp_listen =\npublic_url =\n"
                                    "admin_group =\n[ca]\nchain =\n");
    (void)state;
    assert_string_equal(c->listen, "127.0.0.1:8443");
    assert_string_equal(c->http_listen, "127.0.0.1:8080");
    assert_null(c->public_url);
    assert_null(c->pin_file);
    assert_null(c->admin_group);
    assert_string_equal(c->chain, "/var/lib/signet/ca-chain.pem");
    config_free(c);
}

static void a_bad_value_is_named_with_its_line(void **state)
{
    static const struct {
        const char *key, *why;
    } rows[] = {
        {"[server]\nfronts = 0", "signet.conf:8: [server] fronts: 0 is not within 1 to 64"},
        {"[server]\nfronts = 65", "65 is not within 1 to 64"},
        {"[server]\nfronts = -1", "\"-1\" is not a number"},
        {"[server]\nfronts = +2", "\"+2\" is not a number"},
        {"[server]\nfronts = 2x", "\"2x\" is not a number"},
        {"[server]\nfronts = 0x2", "\"0x2\" is not a number"},
        {"[server]\nfronts = two", "\"two\" is not a number"},
        {"[server]\nfronts =", "\"\" is not a number"},
        {"[server]\nfronts = 4294967297", "not within"},
        {"[server]\nfronts = 99999999999999999999", "is not a number"},
        {"[server]\ncredits = 4097", "not within 1 to 4096"},
        {"[server]\nnames = ,  ,", "at least one name is needed"},
        {"[server]\nnames =", "at least one name is needed"},
        {"[server]\nlisten = 8443", "signet.conf:8: [server] listen: \"8443\" is not address:port"},
        {"[server]\nlisten = none", "is not address:port"},
        {"[server]\nhttp_listen = off", "http_listen: \"off\" is not address:port"},
        {"[server]\npublic_url = https://ca.example", "must begin with http://"},
        {"[server]\npublic_url = ca.example", "must begin with http://"},
        {"signers = 65", "signet.conf:7: [token] signers: 65 is not within 1 to 64"},
        {"sign_deadline = 0", "\"0\" is not a time"},
        {"sign_deadline = 601", "601 is not within 1 to 600"},
        {"sign_deadline = 11m", "11m is not within"},
        {"sign_deadline = 10 s", "is not a time"},
        {"key_id = 0", "\"0\" is not hex"},
        {"key_id = 0g", "is not hex"},
        {"key_id =", "is not hex"},
        {"[ca]\ncrl_life = 11d", "signet.conf:8: [ca] crl_life: 11d is not within 60 to 864000"},
        {"[ca]\ncrl_life = 59", "not within 60"},
        {"[ca]\ncrl_shards = 65", "crl_shards: 65 is not within 1 to 64"},
        {"[ca]\ncrl_shards = 0", "crl_shards: 0 is not within"},
        {"[ca]\ncrl_shards = 2", "crl_shards: it needs a [server] public_url"},
        {"[ca]\ncrl_life = 106751991167301d", "is not"},
        {"[ca]\nocsp_life = 8d", "ocsp_life: 8d is not within 60 to 604800"},
        {"[ca]\nocsp_life = 59s", "not within 60"},
        {"[ca]\nocsp_budget = 0", "ocsp_budget: 0 is not within 1 to 100000"},
        {"[ca]\nocsp_budget = -1", "ocsp_budget"},
    };
    char text[1000];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, LEAST "%s\n", rows[i].key);
        assert_refused(text, rows[i].why);
    }
}

static void what_is_not_the_syntax_is_named_with_its_line(void **state)
{
    struct config *c;
    struct err err;
    (void)state;
    assert_refused("[server]\nstate /s\n", "signet.conf:2: not in OpenSSL's configuration syntax");
    assert_refused("[server\nstate = /s\n", "signet.conf:1: not in");
    assert_refused("[server]\n\nstate = $nothing\n", "signet.conf:3: not in");
    assert_int_equal(
        config_parse(&c, (struct bytes){(const uint8_t *)LEAST "\0", sizeof LEAST}, "f", &err), -1);
    assert_string_equal(err.text, "f: it holds a NUL character");
}

static void one_too_large_is_refused(void **state)
{
    struct buf text = {0};
    struct config *c = NULL;
    struct err err;
    (void)state;
    assert_int_equal(buf_add(&text, LEAST, strlen(LEAST)), 0);
    while (text.len < CONFIG_SIZE_MAX)
        assert_int_equal(buf_add(&text, "#######\n",
                                 CONFIG_SIZE_MAX - text.len < 8 ? CONFIG_SIZE_MAX - text.len : 8),
                         0);
    assert_int_equal(config_parse(&c, buf_view(&text), "f", &err), 0);
    config_free(c);
    assert_int_equal(buf_add(&text, "\n", 1), 0);
    assert_int_equal(config_parse(&c, buf_view(&text), "f", &err), -1);
    assert_non_null(strstr(err.text, "too large"));
    buf_free(&text);
}

/* A file brought in is one that nobody checked: by no spelling that NCONF understands. */
static void no_spelling_of_include_is_taken(void **state)
{
    static const char *const spellings[] = {
        ".include included.cnf\n",
        ".include = included.cnf\n",
        ".include=included.cnf\n",
        " \t.include included.cnf\n",
        "\r.include included.cnf\n",
        "\r\n.include included.cnf\n",
        "\xEF\xBB\xBF.include included.cnf\n",
        ".inc\\\nlude included.cnf\n",
        ".inc\\\r\nlude included.cnf\n",
        "\\\n.include included.cnf\n",
        "x::.include included.cnf\n",
        "a = b\\\\\n.inc\\\nlude included.cnf\n",
        ".i\\\nn\\\nc\\\nl\\\nu\\\nd\\\ne included.cnf\n",
        ".include included.cnf",
    };
    char text[1000];
    size_t reached = 0;
    (void)state;
    temp_write("included.cnf", "[included]\nx = 1\n", 17, 0600);
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        BIO *bio = BIO_new_mem_buf(spellings[i], -1);
        CONF *conf = NCONF_new(NULL);
        reached += NCONF_load_bio(conf, bio, NULL) > 0 && NCONF_get_string(conf, "included", "x");
        NCONF_free(conf);
        BIO_free(bio);
        snprintf(text, sizeof text, "%s\n" LEAST, spellings[i]);
        assert_refused(text, ".include");
        snprintf(text, sizeof text, LEAST "%s", spellings[i]);
        assert_refused(text, ".include");
    }
    assert_true(reached >= 13); /* or this shows nothing */
    assert_refused("\n\n" LEAST "\n.include x\n", "signet.conf:10: .include is not supported");
}

static void not_more_variables_than_fit(void **state)
{
    char text[2000] = LEAST, line[32];
    struct config *c;
    (void)state;
    for (int i = 0; i < CONFIG_ENV_MAX - 1; i++) {
        snprintf(line, sizeof line, "env.V%d = %d\n", i, i);
        strcat(text, line);
    }
    c = parsed(text);
    assert_non_null(c->env[CONFIG_ENV_MAX - 2]);
    assert_null(c->env[CONFIG_ENV_MAX - 1]);
    config_free(c);
    strcat(text, "env.ONE_MORE = 1\n");
    assert_refused(text, "more than 31 variables");
}

static void times_have_units(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds; /* 0: refused */
    } rows[] = {{"1", 1},
                {"90s", 90},
                {"5m", 300},
                {"12h", 43200},
                {"7d", 604800},
                {"2y", 63072000},
                {"007", 7},
                {"", 0},
                {"0", 0},
                {"0d", 0},
                {"-1", 0},
                {"+1", 0},
                {" 1", 0},
                {"1 ", 0},
                {"1 d", 0},
                {"1D", 0},
                {"1dd", 0},
                {"1d2h", 0},
                {"d", 0},
                {"1.5h", 0},
                {"1e3", 0},
                {"0x10", 0},
                {"1w", 0},
                {"\xd9\xa1", 0},
                {"9223372036854775807", 0},
                {"9223372036854775807y", 0},
                {"9223372036854775808", 0},
                {"99999999999999999999999", 0},
                {"292471208678y", 0}, /* one year more than 64 bits of seconds hold */
                {"1000y", 31536000000}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t seconds = -7;
        struct err err;
        assert_int_equal(duration_parse(&seconds, rows[i].text, &err), rows[i].seconds ? 0 : -1);
        assert_true(seconds == (rows[i].seconds ? rows[i].seconds : -7));
    }
}

static void addresses_split_at_the_port(void **state)
{
    static const char *const good[][3] = {{"127.0.0.1:8443", "127.0.0.1", "8443"},
                                          {"[::1]:443", "::1", "443"},
                                          {"*:80", "*", "80"},
                                          {"0.0.0.0:0", "0.0.0.0", "0"},
                                          {"::1:443", "::1", "443"},
                                          {"host:65535", "host", "65535"},
                                          {"1.2.3.4:00080", "1.2.3.4", "80"}};
    static const char *const bad[] = {"",
                                      ":",
                                      "host",
                                      "host:",
                                      ":80",
                                      "[]:80",
                                      "[::1]",
                                      "[::1]:",
                                      "[::1]80",
                                      "host:65536",
                                      "host:-1",
                                      "host:+1",
                                      "host: 80",
                                      "host:80 ",
                                      "host:http",
                                      "host:80x",
                                      "host:0x50",
                                      "[::1]:8:",
                                      "host:99999999999999999999",
                                      "host:4294967376",
                                      "[:80:",
                                      "::",
                                      "[::1:80",
                                      "::1]:80"};
    char text[200], host[64], port[8];
    struct err err;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(address_split(good[i][0], host, port, &err), 0);
        assert_string_equal(host, good[i][1]);
        assert_string_equal(port, good[i][2]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (address_split(bad[i], host, port, &err) == 0)
            fail_msg("taken: %s", bad[i]);
    for (size_t len = 60; len < 80; len++) {
        memset(text, 'h', len);
        strcpy(text + len, ":80");
        assert_int_equal(address_split(text, host, port, &err), len < 64 ? 0 : -1);
    }
}

static void a_memfd_holds_what_was_checked_and_stays_so(void **state)
{
    struct bytes text = {(const uint8_t *)LEAST, strlen(LEAST)};
    struct config *c;
    struct err err;
    int fd = config_memfd(text, &err);
    char path[64];
    (void)state;
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GET_SEALS),
                     F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(pwrite(fd, "x", 1, (off_t)text.len), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_true(mmap(NULL, text.len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* nor by a descriptor of one's own */
    int again = open(path, O_RDWR | O_CLOEXEC);
    assert_true(again < 0 || pwrite(again, "x", 1, 0) == -1);
    if (again >= 0)
        close(again);
    for (int twice = 0; twice < 2; twice++) { /* it does not depend on a position */
        assert_int_equal(config_from_fd(&c, fd, &err), 0);
        assert_string_equal(c->token_label, "t");
        config_free(c);
    }
    close(fd);
    assert_int_equal(config_from_fd(&c, fd, &err), -1);
    assert_non_null(strstr(err.text, "the configuration from the supervisor: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_has_all_defaults),
        cmocka_unit_test(every_key_is_taken),
        cmocka_unit_test(of_two_the_last_counts),
        cmocka_unit_test(an_unknown_key_is_named_with_its_line),
        cmocka_unit_test(what_is_required_is_asked_for),
        cmocka_unit_test(an_empty_value_means_the_default),
        cmocka_unit_test(a_bad_value_is_named_with_its_line),
        cmocka_unit_test(what_is_not_the_syntax_is_named_with_its_line),
        cmocka_unit_test(one_too_large_is_refused),
        cmocka_unit_test(no_spelling_of_include_is_taken),
        cmocka_unit_test(not_more_variables_than_fit),
        cmocka_unit_test(times_have_units),
        cmocka_unit_test(addresses_split_at_the_port),
        cmocka_unit_test(a_memfd_holds_what_was_checked_and_stays_so),
    };
    return cmocka_run_group_tests(tests, temp_enter, temp_leave);
}
