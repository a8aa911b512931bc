#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "client/esptool_output.h"
#include "common/file.h"

/* Transcripts: 4.7-… are of the real esptool and the board of tests/integration/board.py; 5.x-by-
 * hand-… are written after the sources of 5.x and were never printed by one. */
static struct buf said;

static struct bytes transcript(const char *name)
{
    char path[256];
    struct err err;
    buf_free(&said);
    said = (struct buf){0};
    snprintf(path, sizeof path, CORPUS "/esptool/%s", name);
    assert_int_equal(file_read(&said, path, 65536, &err), 0);
    return buf_view(&said);
}

static int forget(void **state)
{
    (void)state;
    buf_free(&said);
    said = (struct buf){0};
    return 0;
}

static void reads_chip_mac_and_hashes(void **state)
{
    static const struct {
        const char *name, *chip, *mac;
        size_t verified;
    } runs[] = {
        {"4.7-esp32-read_mac", "ESP32-D0WDQ6 (revision v0.0)", "24:0a:c4:12:34:56", 0},
        {"4.7-esp32-write_flash-two", "ESP32-D0WDQ6 (revision v0.0)", "24:0a:c4:12:34:56", 2},
        {"4.7-esp32c3-write_flash", "ESP32-C3 (QFN32) (revision v0.0)", "24:0a:c4:12:34:56", 1},
        {"4.7-esp32c6-read_mac", "ESP32-C6 (QFN40) (revision v0.0)", "24:0a:c4:12:34:56", 0},
        {"5.x-by-hand-read_mac", "ESP32-D0WD-V3 (revision v3.1)", "24:0a:c4:12:34:56", 0},
        {"5.x-by-hand-read_mac-colour", "ESP32-C6 (QFN40) (revision v0.1)", "60:55:f9:f7:2c:a2", 0},
        {"5.x-by-hand-write_flash", "ESP32-D0WD-V3 (revision v3.1)", "24:0a:c4:12:34:56", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct esptool_output out;
        assert_int_equal(esptool_parse(&out, transcript(runs[i].name), NULL), 0);
        assert_string_equal(out.chip, runs[i].chip);
        assert_string_equal(out.mac, runs[i].mac);
        assert_int_equal(out.verified, runs[i].verified);
    }
}

static void says_why_it_failed(void **state)
{
    static const struct {
        const char *name, *code, *reason;
    } runs[] = {
        {"4.7-esp32-bad-md5", "flash_differs", "MD5 of file does not match data in flash!"},
        {"4.7-esp32-mute", "no_answer",
         "Failed to connect to Espressif device: No serial data received."},
        {"4.7-esp32-running", "no_answer", NULL},
        {"4.7-esp32-wrong-boot-mode", "wrong_boot_mode", NULL},
        {"4.7-esp32-pulled", "board_gone", "Could not configure port: (5, 'Input/output error')"},
        {"4.7-esp32-silent-while-writing", "board_gone", "The chip stopped responding."},
        {"4.7-esp32-secure-download", "secure_download_mode", NULL},
        {"4.7-esp32c3-secure-download", "secure_download_mode",
         "esptool.util.UnsupportedCommandError: This command (0xa) is not supported in Secure "
         "Download Mode"},
        {"4.7-no-port", "port_missing", NULL},
        {"5.x-by-hand-no-answer", "no_answer", NULL},
        {"5.x-by-hand-busy", "port_busy", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        char reason[256];
        struct bytes text = transcript(runs[i].name);
        const struct esptool_problem *why = esptool_problem(text);
        assert_non_null(why);
        assert_string_equal(why->code, runs[i].code);
        esptool_reason(reason, sizeof reason, text);
        if (runs[i].reason)
            assert_string_equal(reason, runs[i].reason);
    }
}

static void knows_a_missing_stub(void **state)
{
    (void)state;
    assert_true(esptool_lacks_stub(transcript("4.7-esp32-no-stub-there")));
    assert_false(esptool_lacks_stub(transcript("4.7-esp32-mute")));
}

static void knows_when_writing_began(void **state)
{
    (void)state;
    assert_true(esptool_has_written(transcript("4.7-esp32-pulled")));
    assert_true(esptool_has_written(transcript("5.x-by-hand-write_flash")));
    assert_false(esptool_has_written(transcript("4.7-esp32-read_mac")));
}

static int parse(struct esptool_output *out, const char *text)
{
    return esptool_parse(out, (struct bytes){(const uint8_t *)text, strlen(text)}, NULL);
}

/* Clones report rubbish; half a line is no line. */
static void refuses_other_macs(void **state)
{
    struct esptool_output out;
    (void)state;
    assert_int_equal(esptool_parse(&out, transcript("4.7-esp32-zero-mac"), NULL), -1);
    assert_int_equal(parse(&out, "MAC: ff:ff:ff:ff:ff:ff\n"), -1);
    assert_int_equal(parse(&out, "MAC: 01:00:00:00:00:01\n"), -1);
    assert_int_equal(parse(&out, "MAC: none\n"), -1);
    assert_int_equal(parse(&out, "MAC: 24:0a:c4:12:34:56\nMAC: 24:0a:c4:12:34:57\n"), -1);
    assert_int_equal(parse(&out, "MAC: 24:0a:c4:12:34:5"), 0);
    assert_string_equal(out.mac, "");
    assert_int_equal(parse(&out, "MAC_EXT: ff:fe\nNo MAC: 1\n"), 0);
    assert_string_equal(out.mac, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(reads_chip_mac_and_hashes, forget),
        cmocka_unit_test_teardown(says_why_it_failed, forget),
        cmocka_unit_test_teardown(knows_a_missing_stub, forget),
        cmocka_unit_test_teardown(knows_when_writing_began, forget),
        cmocka_unit_test_teardown(refuses_other_macs, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
