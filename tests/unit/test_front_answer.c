#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "server/front/answer.h"

static void expect(char *json, const char *text)
{
    assert_non_null(json);
    assert_string_equal(json, text);
    free(json);
}

static void errors(void **state)
{
    (void)state;
    expect(answer_error(OP_REVOKE_CERT, ERR_serial_unknown, "a \"quoted\"\nline \x01"),
           "{\"status\":\"ERROR\",\"operation\":\"revoke_cert\",\"error\":{\"code\":"
           "\"serial_unknown\",\"message\":\"a \\\"quoted\\\"\\nline \\u0001\"}}\n");
    expect(answer_error(OP_NONE, ERR_busy, ""),
           "{\"status\":\"ERROR\",\"operation\":\"\",\"error\":{\"code\":\"busy\",\"message\":"
           "\"the server is busy; try again shortly\"}}\n");
}

static void revoked(void **state)
{
    (void)state;
    static const uint8_t serial[] = {0x4f, 0xa0};
    const struct msg_answer_revoked m = {{serial, 2}, 1795435200, 1, 1};
    expect(answer_revoked(&m),
           "{\"status\":\"OK\",\"operation\":\"revoke_cert\",\"serial\":\"4fa0\","
           "\"revoked_at\":\"2026-11-23T12:00:00Z\",\"reason\":\"keyCompromise\"}\n");
    static const uint8_t long_serial[21] = {1};
    const struct msg_answer_revoked bad = {{long_serial, 21}, 0, 1, 1};
    assert_null(answer_revoked(&bad));
}

static void reported(void **state)
{
    (void)state;
    static const uint8_t serial[] = {0x4f, 0xa0};
    const struct msg_answer_reported m = {{serial, 2}, "flashed"};
    expect(answer_reported(&m),
           "{\"status\":\"OK\",\"operation\":\"report_device\",\"serial\":\"4fa0\","
           "\"state\":\"flashed\"}\n");
}

static void status(void **state)
{
    (void)state;
    struct msg_answer_status m = {.ready = 1, .token_detail = "", .custody = "", .problem = ""};
    expect(answer_status(&m), "{\"status\":\"OK\",\"operation\":\"get_status\",\"ready\":true,"
                              "\"version\":\"" SIGNET_VERSION "\"}\n");
    m.detailed = 1;
    m.token_fault = 200; /* from a newer authority */
    m.issued = UINT64_MAX;
    char *json = answer_status(&m);
    assert_non_null(json);
    assert_non_null(strstr(json, "\"issued\":18446744073709551615"));
    assert_non_null(strstr(json, "\"state\":\"lost\""));
    assert_non_null(strstr(json, "\"next_update\":null"));
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors),
        cmocka_unit_test(revoked),
        cmocka_unit_test(reported),
        cmocka_unit_test(status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
