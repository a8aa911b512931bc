/* Before the programs by LD_PRELOAD: for the control of test_order.py, what is then not synced any
 * more; for tests/bench, how much slower each sync is.
 *
 *     SIGNET_TEST_SYNCHRONOUS   in place of FULL, in PRAGMA synchronous=FULL
 *     SIGNET_TEST_UNSYNCED      files and folders that end so, with a colon behind each, are not
 * synced
 *     SIGNET_TEST_SYNC_DELAY    microseconds that each sync takes longer
 */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*exec_function)(void *, const char *, void *, void *, char **);
typedef int (*sync_function)(int);

int sqlite3_exec(void *db, const char *sql, void *callback, void *arg, char **problem)
{
    static const char full[] = "synchronous=FULL";
    exec_function real = (exec_function)dlsym(RTLD_NEXT, "sqlite3_exec");
    const char *instead = getenv("SIGNET_TEST_SYNCHRONOUS"), *at = strstr(sql, full);
    char other[1024];
    if (instead && at) {
        snprintf(other, sizeof other, "%.*ssynchronous=%s%s", (int)(at - sql), sql, instead,
                 at + sizeof full - 1);
        sql = other;
    }
    return real(db, sql, callback, arg, problem);
}

static int is_left_out(int fd)
{
    char link[64], path[PATH_MAX];
    const char *end = getenv("SIGNET_TEST_UNSYNCED"), *colon;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    for (; n > 0 && end && (colon = strchr(end, ':')); end = colon + 1)
        if (n >= colon - end && strncmp(path + n - (colon - end), end, (size_t)(colon - end)) == 0)
            return 1;
    return 0;
}

static int sync_by(const char *function, int fd)
{
    const char *delay = getenv("SIGNET_TEST_SYNC_DELAY");
    if (delay)
        usleep((useconds_t)atoi(delay));
    return ((sync_function)dlsym(RTLD_NEXT, function))(fd);
}

int fsync(int fd)
{
    return is_left_out(fd) ? 0 : sync_by("fsync", fd);
}

int fdatasync(int fd)
{
    return is_left_out(fd) ? 0 : sync_by("fdatasync", fd);
}

int syncfs(int fd)
{
    return sync_by("syncfs", fd);
}
