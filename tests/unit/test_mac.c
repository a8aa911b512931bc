#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "pki/mac.h"

static void accepts_what_people_type(void **state)
{
    static const char *const typed[] = {"24:0a:c4:12:34:56", "24:0A:C4:12:34:56",
                                        "24-0a-c4-12-34-56", "240ac4123456", "240AC4123456"};
    (void)state;
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++) {
        char out[MAC_TEXT_SIZE];
        struct err err;
        assert_int_equal(mac_from_text(out, typed[i], &err), 0);
        assert_string_equal(out, "24:0a:c4:12:34:56");
    }
}

static void accepts_eui_64(void **state)
{
    char out[MAC_TEXT_SIZE];
    struct err err;
    (void)state;
    assert_int_equal(mac_from_text(out, "AA-BB-CC-FF-FE-DD-EE-00", &err), 0);
    assert_string_equal(out, "aa:bb:cc:ff:fe:dd:ee:00");
    assert_int_equal(mac_from_text(out, "aabbccfffeddee00", &err), 0);
    assert_string_equal(out, "aa:bb:cc:ff:fe:dd:ee:00");
    assert_int_equal(mac_check("aa:bb:cc:ff:fe:dd:ee:00", &err), 0);
}

static void refuses_what_is_no_mac(void **state)
{
    static const char *const bad[] = {"",
                                      ":",
                                      "24",
                                      "24:0a:c4:12:34",
                                      "24:0a:c4:12:34:5",
                                      "24:0a:c4:12:34:56:",
                                      ":24:0a:c4:12:34:56",
                                      "24:0a:c4:12:34:56:78",
                                      "24:0a-c4:12:34:56",
                                      "24:0ac4:12:34:56",
                                      "240a:c412:3456",
                                      "24:0a:c4:12:34:5g",
                                      "24:0a:c4:12:34: 6",
                                      " 24:0a:c4:12:34:56",
                                      "24:0a:c4:12:34:56 ",
                                      "240ac41234567",
                                      "24:0a:c4:12:34:56:78:9a:bc",
                                      "240ac4123456789abcdef0123456789abcdef012345678"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char out[MAC_TEXT_SIZE];
        struct err err = {0};
        assert_int_equal(mac_from_text(out, bad[i], &err), -1);
        assert_int_equal(err.code, ERR_csr_cn_not_mac);
        assert_int_equal(mac_check(bad[i], &err), -1);
    }
}

static void refuses_what_is_no_station(void **state)
{
    static const char *const bad[] = {"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01",
                                      "33:33:00:00:00:01", "00:00:00:00:00:00:00:00"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        assert_int_equal(mac_check(bad[i], &err), -1);
        assert_int_equal(err.code, ERR_mac_not_unicast);
    }
}

static void the_wire_carries_one_form(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(mac_check("24:0a:c4:12:34:56", &err), 0);
    assert_int_equal(mac_check("24:0A:c4:12:34:56", &err), -1);
    assert_int_equal(err.code, ERR_csr_cn_not_mac);
    assert_non_null(strstr(err.text, "24:0a:c4:12:34:56"));
    assert_int_equal(mac_check("24-0a-c4-12-34-56", &err), -1);
    assert_int_equal(mac_check("240ac4123456", &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts_what_people_type),  cmocka_unit_test(accepts_eui_64),
        cmocka_unit_test(refuses_what_is_no_mac),    cmocka_unit_test(refuses_what_is_no_station),
        cmocka_unit_test(the_wire_carries_one_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
