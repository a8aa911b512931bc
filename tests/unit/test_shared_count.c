#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "common/shared_count.h"
#include "temp.h"

static void another_process_sees_it_at_once(void **state)
{
    (void)state;
    int before = temp_fds(), status;
    struct shared_count *own = shared_count_new(),
                        *seen = shared_count_open(dup(shared_count_fd(own)));
    assert_non_null(own);
    assert_non_null(seen);
    assert_int_equal(shared_count_get(seen), 0);
    shared_count_raise(own);
    shared_count_raise(own);
    assert_int_equal(shared_count_get(own), 2);
    pid_t pid = fork();
    if (pid == 0)
        _exit(shared_count_get(seen) == 2 ? (shared_count_raise(own), 0) : 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(shared_count_get(seen), 3);
    assert_int_equal(shared_count_get(own), 3);
    shared_count_free(seen);
    shared_count_free(own);
    shared_count_free(NULL);
    assert_int_equal(temp_fds(), before);
}

/* Who has the descriptor alone. */
static void another_process_cannot_write(void **state)
{
    (void)state;
    struct shared_count *own = shared_count_new();
    uint64_t number = 9;
    int fd = dup(shared_count_fd(own));
    assert_ptr_equal(mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(pwrite(fd, &number, sizeof number, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    void *page = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(page, MAP_FAILED);
    assert_int_equal(mprotect(page, 8, PROT_READ | PROT_WRITE), -1);
    munmap(page, 8);
    close(fd);
    shared_count_raise(own);
    assert_int_equal(shared_count_get(own), 1);
    shared_count_free(own);
}

static void what_is_none_is_refused(void **state)
{
    (void)state;
    int empty = memfd_create("empty", MFD_CLOEXEC), ends[2];
    assert_null(shared_count_open(dup(empty)));
    assert_null(shared_count_open(-1));
    assert_int_equal(pipe(ends), 0);
    assert_null(shared_count_open(dup(ends[0])));
    close(ends[0]);
    close(ends[1]);
    close(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_sees_it_at_once),
        cmocka_unit_test(another_process_cannot_write),
        cmocka_unit_test(what_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
