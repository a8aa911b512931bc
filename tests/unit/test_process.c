#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another one */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/process.h"

#define PATIENCE_MS 60000

struct run {
    struct buf said;
    int status, rc;
    struct failure f;
};

/* A script of sh, as the program. */
static void run(struct run *r, struct process p, const char *script)
{
    const char *const argv[] = {"/bin/sh", "-c", script, "sh", "one argument", NULL};
    *r = (struct run){0};
    p.argv = argv;
    p.doing = "testing";
    if (!p.silence_ms)
        p.silence_ms = PATIENCE_MS;
    r->rc = process_run(&p, &r->said, &r->status, &r->f);
    assert_int_equal(buf_add(&r->said, "", 1), 0);
}

static const char *text(const struct run *r)
{
    return (const char *)r->said.data;
}

static void gives_output_and_exit_code(void **state)
{
    static const char *const env[] = {"NO_COLOR=1", NULL};
    struct run r;
    (void)state;
    run(&r, (struct process){.env = env}, "echo \"$1 $NO_COLOR\"; echo to stderr >&2; cat; exit 7");
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.status, 7);
    assert_string_equal(text(&r), "one argument 1\nto stderr\n");
    buf_free(&r.said);
    run(&r, (struct process){0}, "kill -9 $$");
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.status, 128 + SIGKILL);
    buf_free(&r.said);
}

static void inherits_what_it_is_given_and_nothing_else(void **state)
{
    struct run r;
    int given = memfd_create("given", MFD_CLOEXEC), other = memfd_create("other", MFD_CLOEXEC);
    char script[128];
    (void)state;
    assert_int_equal(write(given, "hello", 5), 5);
    snprintf(script, sizeof script, "cat /proc/self/fd/%d; test ! -e /proc/self/fd/%d", given,
             other);
    run(&r, (struct process){.fds = &given, .fd_count = 1}, script);
    assert_int_equal(r.status, 0);
    assert_string_equal(text(&r), "hello");
    buf_free(&r.said);
    close(given);
    close(other);
}

static void says_that_it_cannot_start(void **state)
{
    const char *const argv[] = {"/nonexistent/esptool", NULL};
    struct process p = {.argv = argv, .doing = "testing", .silence_ms = PATIENCE_MS};
    struct buf said = {0};
    struct failure f = {0};
    int status;
    (void)state;
    assert_int_equal(process_run(&p, &said, &status, &f), -1);
    assert_int_equal(f.exit, EXIT_LOCAL);
    assert_non_null(strstr(f.text, "/nonexistent/esptool: No such file"));
    buf_free(&said);
}

static int is_gone(const char *pid)
{
    return kill((pid_t)strtol(pid, NULL, 10), 0) != 0;
}

/* With the whole group: a wrapper's child too. */
static void ends_what_is_silent(void **state)
{
    struct run r;
    (void)state;
    run(&r, (struct process){.silence_ms = 300}, "sleep 1000 & echo $!; wait");
    assert_int_equal(r.rc, -1);
    assert_non_null(strstr(r.f.text, "has said nothing"));
    assert_int_equal(r.status, 128 + SIGKILL);
    for (int i = 0; i < 1000 && !is_gone(text(&r)); i++)
        usleep(10000); /* until init has reaped it */
    assert_true(is_gone(text(&r)));
    buf_free(&r.said);
}

/* Nothing but the kernel can see to that. */
static void goes_when_we_are_killed(void **state)
{
    int ends[2];
    char script[64], pid[32] = "";
    struct run r;
    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    snprintf(script, sizeof script, "echo $$ >/proc/self/fd/%d; exec sleep 1000", ends[1]);
    pid_t us = fork();
    if (us == 0) {
        run(&r, (struct process){.fds = &ends[1], .fd_count = 1}, script);
        _exit(0);
    }
    assert_true(read(ends[0], pid, sizeof pid - 1) > 0);
    assert_false(is_gone(pid));
    kill(us, SIGKILL);
    waitpid(us, NULL, 0);
    for (int i = 0; i < 1000 && !is_gone(pid); i++)
        usleep(10000);
    assert_true(is_gone(pid));
    close(ends[0]);
    close(ends[1]);
}

/* What it leaves behind holds the pipe, and does not hold us up. */
static void waits_for_none_but_it(void **state)
{
    struct run r;
    (void)state;
    run(&r, (struct process){0}, "sleep 1000 & echo $!");
    assert_int_equal(r.rc, 0);
    assert_int_equal(r.status, 0);
    kill((pid_t)strtol(text(&r), NULL, 10), SIGKILL);
    buf_free(&r.said);
}

static void ends_what_says_too_much(void **state)
{
    struct run r;
    (void)state;
    run(&r, (struct process){0}, "yes");
    assert_int_equal(r.rc, -1);
    assert_true(r.said.len <= PROCESS_OUTPUT_MAX + 1);
    buf_free(&r.said);
}

static int refuse(void *context, struct bytes so_far, struct failure *f)
{
    const char *what = context;
    if (!memmem(so_far.data, so_far.len, what, strlen(what)))
        return 0;
    return fail(f, EXIT_LOCAL, "refused", "seen");
}

static void ends_what_is_refused(void **state)
{
    struct run r;
    char other[] = "MAC: other";
    (void)state;
    run(&r, (struct process){.watch = refuse, .context = other},
        "echo begin; echo MAC: other; sleep 1000; echo written");
    assert_int_equal(r.rc, -1);
    assert_string_equal(r.f.code, "refused");
    assert_null(strstr(text(&r), "written"));
    buf_free(&r.said);
}

static int slow(void *context, struct bytes so_far, struct failure *f)
{
    (void)context;
    (void)so_far;
    (void)f;
    usleep(300 * 1000);
    return fail(f, 1, "refused", "slowly");
}

/* It waits with what it says, and so with what it does next, until the last word was looked at. */
static void is_no_further_than_what_was_watched(void **state)
{
    char where[] = "/tmp/test-process-XXXXXX", script[128];
    struct stat st;
    struct run r;
    int fd = mkstemp(where);
    (void)state;
    assert_true(fd >= 0);
    snprintf(script, sizeof script, "for i in 1 2 3 4 5 6; do echo said; printf . >>%s; done",
             where);
    run(&r, (struct process){.watch = slow}, script);
    assert_string_equal(r.f.code, "refused");
    assert_int_equal(fstat(fd, &st), 0);
    assert_in_range(st.st_size, 0, 2); /* the first word, and one more in the pipe */
    buf_free(&r.said);
    unlink(where);
    close(fd);
}

/* The last test: the flag stays. */
static void ends_with_ctrl_c(void **state)
{
    struct run r;
    (void)state;
    interrupt_catch();
    run(&r, (struct process){0}, "kill -INT $PPID; sleep 1000");
    assert_int_equal(r.rc, -1);
    assert_int_equal(r.f.exit, EXIT_SIGNAL + SIGINT);
    buf_free(&r.said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_output_and_exit_code),
        cmocka_unit_test(inherits_what_it_is_given_and_nothing_else),
        cmocka_unit_test(says_that_it_cannot_start),
        cmocka_unit_test(ends_what_is_silent),
        cmocka_unit_test(goes_when_we_are_killed),
        cmocka_unit_test(waits_for_none_but_it),
        cmocka_unit_test(ends_what_says_too_much),
        cmocka_unit_test(ends_what_is_refused),
        cmocka_unit_test(is_no_further_than_what_was_watched),
        cmocka_unit_test(ends_with_ctrl_c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
