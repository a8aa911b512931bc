#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

static void every_row_of_the_table_is_whole(void **state)
{
    (void)state;
    for (int c = ERR_none + 1; c < ERR_COUNT; c++) {
        enum err_code code = (enum err_code)c;
        const char *name = err_name(code), *message = err_message(code);
        int http = err_http_status(code);
        assert_true(*name && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")]);
        assert_true(http >= 400 && http <= 599);
        assert_true(strlen(message) > 5 && message[strlen(message) - 1] != '.');
        for (int d = ERR_none; d < c; d++)
            assert_string_not_equal(name, err_name((enum err_code)d));
    }
}

static void a_code_from_elsewhere_is_internal(void **state)
{
    static const int codes[] = {-1, ERR_COUNT, ERR_COUNT + 1, 1 << 30, (int)0x80000000};
    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        assert_string_equal(err_name((enum err_code)codes[i]), "internal");
        assert_int_equal(err_http_status((enum err_code)codes[i]), 500);
        assert_string_equal(err_message((enum err_code)codes[i]), err_message(ERR_internal));
    }
    assert_string_equal(err_name(ERR_none), "none");
    assert_int_equal(err_http_status(ERR_none), 200);
}

static void a_refusal_is_one_statement(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(err_set(&err, ERR_busy, NULL), -1);
    assert_int_equal(err.code, ERR_busy);
    assert_string_equal(err.text, err_message(ERR_busy));
    assert_int_equal(err_set(&err, ERR_key_weak, "%s is %d", "it", 7), -1);
    assert_int_equal(err.code, ERR_key_weak);
    assert_string_equal(err.text, "it is 7");
    assert_int_equal(err_set(NULL, ERR_busy, "%d", 1), -1);
    assert_int_equal(err_prefix(NULL, "x"), -1);
}

static void a_prefix_goes_before_and_keeps_the_code(void **state)
{
    struct err err;
    (void)state;
    err_set(&err, ERR_key_weak, "too weak");
    assert_int_equal(err_prefix(&err, "[profile %s]", "device"), -1);
    assert_string_equal(err.text, "[profile device]: too weak");
    assert_int_equal(err.code, ERR_key_weak);
}

static void long_text_is_cut_and_ends(void **state)
{
    struct {
        struct err err;
        char behind[8];
    } room = {.behind = "behind"};
    char text[2000];
    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(&room.err, ERR_internal, "%s", text);
    assert_int_equal(strlen(room.err.text), sizeof room.err.text - 1);
    err_prefix(&room.err, "%s", "front");
    assert_int_equal(strlen(room.err.text), sizeof room.err.text - 1);
    assert_memory_equal(room.err.text, "front: aaa", 10);
    err_prefix(&room.err, "%s", text);
    assert_int_equal(strlen(room.err.text), sizeof room.err.text - 1);
    assert_string_equal(room.behind, "behind");
}

static void openssl_says_its_newest_reason_once(void **state)
{
    (void)state;
    ERR_clear_error();
    assert_string_equal(err_openssl(), "no reason given");
    ERR_raise(ERR_LIB_X509, ERR_R_MALLOC_FAILURE);
    ERR_raise(ERR_LIB_EVP, ERR_R_PASSED_NULL_PARAMETER);
    assert_non_null(strstr(err_openssl(), "passed a null parameter"));
    assert_string_equal(err_openssl(), "no reason given");
}

/* What log_write() puts on stderr, by a pipe. */
static void logged(char *out, size_t size, enum log_level level, const char *text)
{
    int ends[2], old = dup(STDERR_FILENO);
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    log_write(level, "%s", text);
    dup2(old, STDERR_FILENO);
    close(old);
    ssize_t n = read(ends[0], out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    close(ends[0]);
}

static void input_cannot_forge_a_log_line(void **state)
{
    char out[2000], expected[200], text[3000];
    (void)state;
    unsetenv("JOURNAL_STREAM");
    log_open("signet-test", LOG_INFO);
    logged(out, sizeof out, LOG_INFO, "a\nsignetd[1]: b\r\x1b[31m\x7f\t");
    snprintf(expected, sizeof expected, "signet-test[%d]: a?signetd[1]: b??[31m??\n",
             (int)getpid());
    assert_string_equal(out, expected);
    logged(out, sizeof out, LOG_DEBUG, "quiet");
    assert_string_equal(out, "");
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    logged(out, sizeof out, LOG_ERROR, text);
    assert_int_equal(out[strlen(out) - 1], '\n');
    setenv("JOURNAL_STREAM", "1:2", 1);
    log_open("signet-test", LOG_INFO);
    logged(out, sizeof out, LOG_WARN, "w");
    assert_string_equal(out, "<4>signet-test: w\n");
    unsetenv("JOURNAL_STREAM");
    log_open("signet-test", LOG_INFO);
}

static void a_broken_invariant_ends_the_process(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        fatal("%s", "broken");
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table_is_whole),
        cmocka_unit_test(a_code_from_elsewhere_is_internal),
        cmocka_unit_test(a_refusal_is_one_statement),
        cmocka_unit_test(a_prefix_goes_before_and_keeps_the_code),
        cmocka_unit_test(long_text_is_cut_and_ends),
        cmocka_unit_test(openssl_says_its_newest_reason_once),
        cmocka_unit_test(input_cannot_forge_a_log_line),
        cmocka_unit_test(a_broken_invariant_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
