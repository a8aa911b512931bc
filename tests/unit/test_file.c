#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "common/file.h"
#include "temp.h"

static struct bytes text(const char *t)
{
    return (struct bytes){(const uint8_t *)t, strlen(t)};
}

static void assert_holds(const char *path, const char *content)
{
    struct buf b;
    struct err err;
    assert_int_equal(file_read(&b, path, 1 << 20, &err), 0);
    assert_int_equal(b.len, strlen(content));
    assert_string_equal((char *)b.data, content);
    buf_free(&b);
}

static mode_t mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void reads_all_and_a_nul_behind(void **state)
{
    struct buf b;
    struct err err;
    char big[50000];
    (void)state;
    memset(big, 'b', sizeof big);
    temp_write("big", big, sizeof big, 0600);
    temp_write("empty", "", 0, 0600);
    assert_int_equal(file_read(&b, "big", sizeof big, &err), 0);
    assert_int_equal(b.len, sizeof big);
    assert_memory_equal(b.data, big, sizeof big);
    assert_int_equal(b.data[b.len], 0);
    buf_free(&b);
    assert_int_equal(file_read(&b, "empty", 0, &err), 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(b.data[0], 0);
    buf_free(&b);
}

static void refuses_a_file_that_is_larger(void **state)
{
    struct buf b;
    struct err err;
    int before = temp_fds();
    (void)state;
    assert_int_equal(file_read(&b, "big", 49999, &err), -1);
    assert_non_null(strstr(err.text, "big: larger than 49999 bytes"));
    assert_null(b.data);
    assert_int_equal(temp_fds(), before);
}

/* A FIFO must not hang it, a folder or device not be read. */
static void reads_regular_files_alone(void **state)
{
    static const char *const others[] = {"fifo", ".", "/dev/null", "/dev/zero"};
    struct err err;
    int before = temp_fds();
    (void)state;
    assert_int_equal(mkfifo("fifo", 0600), 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct buf b = {(uint8_t *)"garbage", 7, 7};
        assert_int_equal(file_read(&b, others[i], 100, &err), -1);
        assert_non_null(strstr(err.text, "not a regular file"));
        assert_null(b.data);
    }
    assert_int_equal(temp_fds(), before);
}

/* Also then out is safe to buf_free(). */
static void a_missing_file_is_named_with_the_cause(void **state)
{
    struct buf b = {(uint8_t *)"garbage", 7, 7};
    struct err err;
    (void)state;
    assert_int_equal(file_read(&b, "missing", 100, &err), -1);
    assert_string_equal(err.text, "cannot open missing: No such file or directory");
    assert_int_equal(err.code, ERR_storage_unavailable);
    assert_null(b.data);
    buf_free(&b);
}

static void writes_with_the_mode_whatever_the_umask(void **state)
{
    struct err err;
    mode_t old = umask(0777);
    (void)state;
    assert_int_equal(file_write("private", text("secret"), 0600, 0, &err), 0);
    assert_int_equal(file_write("public", text(""), 0644, 0, &err), 0);
    umask(old);
    assert_int_equal(mode_of("private"), 0600);
    assert_int_equal(mode_of("public"), 0644);
    assert_holds("private", "secret");
    assert_holds("public", "");
}

static void does_not_overwrite_unless_told(void **state)
{
    struct err err;
    int entries, before = temp_fds();
    (void)state;
    temp_write("mine", "old", 3, 0640);
    assert_int_equal(symlink("nowhere", "link"), 0);
    entries = temp_entries(".");
    assert_int_equal(file_write("mine", text("new"), 0600, 0, &err), -1);
    assert_int_equal(err.code, ERR_already_exists);
    assert_string_equal(err.text, "mine exists already; it is not overwritten");
    assert_int_equal(file_write("link", text("new"), 0600, 0, &err), -1);
    assert_int_equal(err.code, ERR_already_exists);
    assert_holds("mine", "old");
    assert_int_equal(mode_of("mine"), 0640);
    assert_int_equal(temp_entries("."), entries); /* no temporary is left */
    assert_int_not_equal(access("nowhere", F_OK), 0);
    assert_int_equal(temp_fds(), before);
}

/* Whoever has the older file open keeps it whole; a link is replaced, not followed. */
static void replaces_by_a_new_file(void **state)
{
    struct err err;
    char old[8] = "";
    (void)state;
    int fd = open("mine", O_RDONLY);
    temp_write("target", "target", 6, 0600);
    assert_int_equal(symlink("target", "to_target"), 0);
    int entries = temp_entries(".");
    assert_int_equal(file_write("mine", text("newer"), 0600, 1, &err), 0);
    assert_int_equal(file_write("to_target", text("x"), 0600, 1, &err), 0);
    assert_holds("mine", "newer");
    assert_int_equal(read(fd, old, 7), 3);
    assert_string_equal(old, "old");
    assert_holds("target", "target");
    assert_holds("to_target", "x");
    assert_int_equal(temp_entries("."), entries);
    close(fd);
}

static void says_where_it_cannot_write(void **state)
{
    struct err err;
    char name[PATH_MAX + 10];
    (void)state;
    assert_int_equal(file_write("no/such/file", text("x"), 0600, 1, &err), -1);
    assert_string_equal(err.text, "cannot create no/such/file: No such file or directory");
    assert_int_equal(mkdir("taken", 0700), 0);
    temp_write("taken/x", "x", 1, 0600);
    int entries = temp_entries(".");
    assert_int_equal(file_write("taken", text("x"), 0600, 1, &err), -1);
    assert_non_null(strstr(err.text, "taken: "));
    assert_int_equal(file_write("taken", text("x"), 0600, 0, &err), -1);
    assert_int_equal(temp_entries("."), entries);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(file_write(name, text("x"), 0600, 1, &err), -1);
}

/* A full disk: the old file stays, whole; nothing of the new one is left. */
static void a_full_disk_changes_nothing(void **state)
{
    struct err err;
    struct buf big = {0};
    static const uint8_t page[4096] = {1};
    (void)state;
    assert_int_equal(temp_mount("tiny", "size=64k"), 0);
    for (int i = 0; i < 32; i++)
        assert_int_equal(buf_add(&big, page, sizeof page), 0);
    assert_int_equal(file_write("tiny/f", text("old"), 0600, 0, &err), 0);
    assert_int_equal(file_write("tiny/f", buf_view(&big), 0600, 1, &err), -1);
    assert_string_equal(err.text, "cannot write tiny/f: No space left on device");
    assert_int_equal(err.code, ERR_storage_unavailable);
    assert_int_equal(file_write("tiny/new", buf_view(&big), 0600, 0, &err), -1);
    assert_holds("tiny/f", "old");
    assert_int_equal(temp_entries("tiny"), 1);
    assert_int_equal(file_write("tiny/f", text("newer"), 0600, 1, &err), 0);
    assert_holds("tiny/f", "newer");
    assert_int_equal(umount("tiny"), 0);
    buf_free(&big);
}

static void makes_folders_on_the_way(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(file_make_dir("a/b//c/", 0750, &err), 0);
    assert_int_equal(mode_of("a/b/c"), 0750);
    assert_int_equal(file_make_dir("a/b/c", 0700, &err), 0);
    assert_int_equal(mode_of("a/b/c"), 0750); /* what is there stays */
    assert_int_equal(file_make_dir("/", 0700, &err), 0);
    assert_int_equal(file_make_dir("d", 0700, &err), 0);
}

static void a_folder_must_be_one(void **state)
{
    struct err err;
    char name[PATH_MAX + 10];
    (void)state;
    temp_write("plain", "", 0, 0600);
    assert_int_equal(file_make_dir("plain", 0700, &err), -1);
    assert_string_equal(err.text, "plain exists and is not a folder");
    assert_int_equal(file_make_dir("plain/below", 0700, &err), -1);
    assert_int_equal(symlink("gone", "dangling"), 0);
    assert_int_equal(file_make_dir("dangling", 0700, &err), -1);
    assert_int_equal(file_make_dir("", 0700, &err), -1);
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(file_make_dir(name, 0700, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_all_and_a_nul_behind),
        cmocka_unit_test(refuses_a_file_that_is_larger),
        cmocka_unit_test(reads_regular_files_alone),
        cmocka_unit_test(a_missing_file_is_named_with_the_cause),
        cmocka_unit_test(writes_with_the_mode_whatever_the_umask),
        cmocka_unit_test(does_not_overwrite_unless_told),
        cmocka_unit_test(replaces_by_a_new_file),
        cmocka_unit_test(says_where_it_cannot_write),
        cmocka_unit_test(a_full_disk_changes_nothing),
        cmocka_unit_test(makes_folders_on_the_way),
        cmocka_unit_test(a_folder_must_be_one),
    };
    return cmocka_run_group_tests(tests, temp_enter, temp_leave);
}
