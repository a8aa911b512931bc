/* What the unit tests share: a folder of their own, files in it, open descriptors counted. */
#ifndef TESTS_UNIT_TEMP_H
#define TESTS_UNIT_TEMP_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char temp_folder[64] __attribute__((unused));

/* Group setup: chdir() into a new private folder. */
static inline int temp_enter(void **state)
{
    (void)state;
    snprintf(temp_folder, sizeof temp_folder, "/tmp/signet-unit.XXXXXX");
    return mkdtemp(temp_folder) && chdir(temp_folder) == 0 ? 0 : -1;
}

static inline int temp_remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static inline int temp_leave(void **state)
{
    (void)state;
    if (chdir("/"))
        return -1;
    nftw(temp_folder, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return 0;
}

static inline void temp_write(const char *path, const void *data, size_t len, mode_t mode)
{
    unlink(path); /* one that is read-only */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len || fchmod(fd, mode) || close(fd))
        abort();
}

/* Entries of a folder, without . and .. */
static inline int temp_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    if (!d)
        return -1;
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

/* Open descriptors of this process. */
static inline int temp_fds(void)
{
    return temp_entries("/proc/self/fd");
}

static inline int temp_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* A user namespace in which this user is root, for those who are not (user_namespaces(7)). */
static inline int temp_become_root(void)
{
    char users[64], groups[64];
    snprintf(users, sizeof users, "0 %u 1", (unsigned)getuid());
    snprintf(groups, sizeof groups, "0 %u 1", (unsigned)getgid());
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) || temp_put("/proc/self/uid_map", users) ||
                   temp_put("/proc/self/setgroups", "deny") ||
                   temp_put("/proc/self/gid_map", groups)
               ? -1
               : 0;
}

/* A file system of its own at path, in a mount namespace that ends with the process. options as of
 * tmpfs: "size=64k". */
static inline int temp_mount(const char *path, const char *options)
{
    static int inside;
    if (!inside && unshare(CLONE_NEWNS) && temp_become_root())
        return -1;
    if (!inside && mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL))
        return -1;
    inside = 1;
    return (mkdir(path, 0755) == 0 || access(path, F_OK) == 0) &&
                   mount("tmpfs", path, "tmpfs", 0, options) == 0
               ? 0
               : -1;
}

#endif
