/* What the documents show works: each whole configuration in docs/configuration.md is valid, and so
 * are its profiles. */
#include "../unit/pki_fixture.h"

#include "common/config.h"
#include "pki/profile.h"

/* The next ```ini block from *at on; 0 when there is none. */
static int next_block(const char **at, struct bytes *block)
{
    static const char begin[] = "\n```ini\n", end[] = "\n```\n";
    const char *from = strstr(*at, begin), *to = from ? strstr(from + strlen(begin), end) : NULL;
    if (!to)
        return 0;
    from += strlen(begin);
    *block = (struct bytes){(const uint8_t *)from, (size_t)(to - from) + 1};
    *at = to;
    return 1;
}

static void check_block(struct bytes block, const struct issuer *issuer, int number)
{
    struct config *c = NULL;
    struct profiles *profiles = NULL;
    struct err err;
    if (config_parse(&c, block, "example", &err) ||
        profiles_load(&profiles, c->conf, issuer, c->public_url, 0, &err))
        fail_msg("example %d: %s", number, err.text);
    profiles_free(profiles);
    config_free(c);
}

static void configurations_are_valid(void **state)
{
    struct ca ca = ca_make("P-256", 365);
    struct buf text;
    struct bytes block;
    struct err err;
    int number = 0;
    (void)state;
    if (file_read(&text, DOCS "/configuration.md", 1 << 20, &err))
        fail_msg("%s", err.text);
    for (const char *at = (const char *)text.data; next_block(&at, &block);)
        check_block(block, ca.issuer, ++number);
    assert_int_equal(number, 2);
    buf_free(&text);
    ca_free(&ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(configurations_are_valid)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
