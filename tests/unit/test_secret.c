#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>

#include "common/secret.h"
#include "temp.h"

static void assert_is(struct secret *s, const char *text)
{
    size_t len = 0;
    assert_string_equal(secret_bytes(s, &len), text);
    assert_int_equal(len, strlen(text));
    secret_free(s);
}

static void one_line_end_is_dropped(void **state)
{
    static const char *const given[][2] = {{"1234", "1234"},       {"1234\n", "1234"},
                                           {"1234\r\n", "1234"},   {"1234\n\n", "1234\n"},
                                           {"1234\r", "1234\r"},   {"1234\n\r", "1234\n\r"},
                                           {" 1234 \n", " 1234 "}, {"p\xc3\xa9\n", "p\xc3\xa9"}};
    struct secret *s;
    struct err err;
    (void)state;
    for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
        assert_int_equal(secret_from_bytes(&s, given[i][0], strlen(given[i][0]), &err), 0);
        assert_is(s, given[i][1]);
    }
}

static void empty_or_with_a_nul_is_refused(void **state)
{
    struct secret *s = NULL;
    struct err err;
    (void)state;
    assert_int_equal(secret_from_bytes(&s, "", 0, &err), -1);
    assert_string_equal(err.text, "the PIN is empty");
    assert_int_equal(secret_from_bytes(&s, "\n", 1, &err), -1);
    assert_int_equal(secret_from_bytes(&s, "\r\n", 2, &err), -1);
    assert_int_equal(secret_from_bytes(&s,
                                       "12\0"
                                       "34",
                                       5, &err),
                     -1);
    assert_int_equal(secret_from_bytes(&s, "\0", 1, &err), -1);
    assert_int_equal(secret_from_bytes(&s, "1234\0", 5, &err), -1);
    assert_null(strstr(err.text, "1234"));
    assert_null(s);
}

static void file_of(const char *path, size_t len, const char *end)
{
    char text[400];
    memset(text, 'p', len);
    strcpy(text + len, end);
    temp_write(path, text, strlen(text), 0600);
}

static void at_most_255_bytes_by_every_way(void **state)
{
    static const char *const ends[] = {"", "\n", "\r\n"};
    struct secret *s;
    struct err err;
    size_t len;
    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        file_of("pin", SECRET_MAX, ends[i]);
        assert_int_equal(secret_from_file(&s, "pin", &err), 0);
        secret_bytes(s, &len);
        assert_int_equal(len, SECRET_MAX);
        secret_free(s);
        for (size_t more = 1; more < 8; more++) {
            file_of("pin", SECRET_MAX + more, ends[i]);
            assert_int_equal(secret_from_file(&s, "pin", &err), -1);
            assert_non_null(strstr(err.text, "pin: the PIN is longer than 255 bytes"));
        }
    }
    file_of("pin", SECRET_MAX, "\n\n\n\n\n"); /* cut off reading, it would seem to fit */
    assert_int_equal(secret_from_file(&s, "pin", &err), -1);
}

static void a_file_that_others_can_read_is_refused(void **state)
{
    static const mode_t bad[] = {0640, 0604, 0644, 0660, 0610, 0601, 0620, 0602, 0777};
    struct secret *s = NULL;
    struct err err;
    int before = temp_fds();
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        temp_write("pin", "1234\n", 5, bad[i]);
        assert_int_equal(secret_from_file(&s, "pin", &err), -1);
        assert_non_null(strstr(err.text, "chmod 600"));
        assert_null(strstr(err.text, "1234"));
        assert_null(s);
    }
    temp_write("pin", "1234\n", 5, 0600);
    assert_int_equal(secret_from_file(&s, "pin", &err), 0);
    assert_is(s, "1234");
    temp_write("pin", "1234\n", 5, 0400);
    assert_int_equal(secret_from_file(&s, "pin", &err), 0);
    assert_is(s, "1234");
    assert_int_equal(temp_fds(), before);
}

static void a_file_of_somebody_else_is_refused(void **state)
{
    struct secret *s = NULL;
    struct err err;
    (void)state;
    temp_write("pin", "1234\n", 5, 0600);
    if (geteuid() != 0)
        return; /* only root can give a file away */
    assert_int_equal(chown("pin", 65534, (gid_t)-1), 0);
    assert_int_equal(secret_from_file(&s, "pin", &err), -1);
    assert_non_null(strstr(err.text, "owned by user 65534"));
}

static void only_a_regular_file_is_one(void **state)
{
    struct secret *s = NULL;
    struct err err;
    (void)state;
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(secret_from_file(&s, "folder", &err), -1);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(secret_from_file(&s, "fifo", &err), -1); /* and does not hang */
    assert_int_equal(secret_from_file(&s, "missing", &err), -1);
    assert_non_null(strstr(err.text, "missing: No such file or directory"));
    assert_null(s);
}

static void a_pipe_is_read_to_its_end(void **state)
{
    struct secret *s;
    struct err err;
    int ends[2];
    (void)state;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) { /* in pieces, as a pipe may bring it */
        for (const char *p = "12345678\n"; *p; p++)
            if (write(ends[1], p, 1) != 1 || usleep(1000))
                _exit(1);
        _exit(0);
    }
    close(ends[1]);
    assert_int_equal(secret_from_fd(&s, ends[0], &err), 0);
    assert_is(s, "12345678");
    close(ends[0]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

#if defined __SANITIZE_ADDRESS__
#define MLOCK_IS_NOTHING 1 /* the sanitizer's own mlock() */
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define MLOCK_IS_NOTHING 1
#endif
#endif
#ifndef MLOCK_IS_NOTHING
#define MLOCK_IS_NOTHING 0
#endif

/* "VmFlags:" of the mapping that address is in. */
static void flags_of(const void *address, char out[256])
{
    char line[512];
    unsigned long from, to;
    int inside = 0;
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    *out = '\0';
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)address >= from && (uintptr_t)address < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(out, 256, "%.255s", line);
    }
    fclose(maps);
}

/* Not to swap, not to a core file. */
static void it_lives_in_locked_memory(void **state)
{
    struct secret *s;
    struct err err;
    char flags[256];
    (void)state;
    assert_int_equal(secret_from_bytes(&s, "1234", 4, &err), 0);
    flags_of(secret_bytes(s, NULL), flags);
    assert_true(MLOCK_IS_NOTHING || strstr(flags, " lo "));
    assert_non_null(strstr(flags, " dd "));
    secret_free(s);
    secret_free(NULL);
}

static void a_forked_child_has_no_copy(void **state)
{
    struct secret *s;
    struct err err;
    int status, ends[2];
    (void)state;
    assert_int_equal(secret_from_bytes(&s, "1234", 4, &err), 0);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], secret_bytes(s, NULL), 4), 4);
    pid_t pid = fork();
    if (pid == 0) /* the kernel tells what a look would not survive */
        _exit(write(ends[1], secret_bytes(s, NULL), 1) < 0 && errno == EFAULT ? 0 : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(ends[0]);
    close(ends[1]);
    secret_free(s);
}

static void without_locked_memory_there_is_none(void **state)
{
    int status;
    (void)state;
    if (MLOCK_IS_NOTHING)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        static const struct rlimit none = {0, 0};
        struct secret *s = NULL;
        struct err err = {0};
        if (setrlimit(RLIMIT_MEMLOCK, &none) || (geteuid() == 0 && setuid(65534)))
            _exit(2);
        int rc = secret_from_bytes(&s, "1234", 4, &err);
        _exit(rc == -1 && !s && strstr(err.text, "RLIMIT_MEMLOCK") ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* In the child: a prompt on its own terminal. 0 when the PIN is what was typed. */
static int ask(void)
{
    struct secret *s;
    struct err err;
    struct termios mode;
    if (secret_from_prompt(&s, "PIN: ", &err))
        return 1;
    int right = strcmp(secret_bytes(s, NULL), "4711") == 0;
    secret_free(s);
    return right && tcgetattr(STDIN_FILENO, &mode) == 0 && mode.c_lflag & ECHO ? 0 : 1;
}

static void a_prompt_does_not_echo(void **state)
{
    char seen[100] = "";
    size_t len = 0;
    ssize_t n;
    int terminal, status;
    (void)state;
    pid_t pid = forkpty(&terminal, NULL, NULL, NULL);
    if (pid == 0)
        _exit(ask());
    while (len < sizeof seen - 1 && !strstr(seen, "PIN: ") &&
           (n = read(terminal, seen + len, 1)) > 0)
        seen[len += (size_t)n] = '\0';
    assert_int_equal(write(terminal, "4711\n", 5), 5);
    while (len < sizeof seen - 1 && (n = read(terminal, seen + len, sizeof seen - 1 - len)) > 0)
        seen[len += (size_t)n] = '\0';
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_null(strstr(seen, "4711"));
    close(terminal);
}

static void without_a_terminal_there_is_no_prompt(void **state)
{
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        struct secret *s = NULL;
        struct err err = {0};
        setsid();
        int rc = secret_from_prompt(&s, "PIN: ", &err);
        _exit(rc == -1 && strstr(err.text, "no terminal") ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_line_end_is_dropped),
        cmocka_unit_test(empty_or_with_a_nul_is_refused),
        cmocka_unit_test(at_most_255_bytes_by_every_way),
        cmocka_unit_test(a_file_that_others_can_read_is_refused),
        cmocka_unit_test(a_file_of_somebody_else_is_refused),
        cmocka_unit_test(only_a_regular_file_is_one),
        cmocka_unit_test(a_pipe_is_read_to_its_end),
        cmocka_unit_test(it_lives_in_locked_memory),
        cmocka_unit_test(a_forked_child_has_no_copy),
        cmocka_unit_test(without_locked_memory_there_is_none),
        cmocka_unit_test(a_prompt_does_not_echo),
        cmocka_unit_test(without_a_terminal_there_is_no_prompt),
    };
    return cmocka_run_group_tests(tests, temp_enter, temp_leave);
}
