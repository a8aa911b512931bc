#include "common/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(struct err *err, const char *doing, const char *path)
{
    return err_set(err, ERR_storage_unavailable, "cannot %s %s: %s", doing, path, strerror(errno));
}

/* Straight into the buffer, which is large enough from the start unless the file grows: of a secret
 * nothing stays elsewhere. */
static int read_all(struct buf *out, int fd, size_t expected, size_t max, const char *path,
                    struct err *err)
{
    ssize_t n = 1;
    if (expected > max)
        return err_set(err, ERR_internal, "%s: larger than %zu bytes", path, max);
    while (n) {
        size_t want = expected > out->len ? expected - out->len : 0;
        if (buf_reserve(out, want + 2)) /* one byte more to find the end, and the NUL */
            return err_set(err, ERR_internal, "no memory to read %s", path);
        n = read(fd, out->data + out->len, out->cap - out->len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(err, "read", path);
        out->len += (size_t)n;
        if (out->len > max)
            return err_set(err, ERR_internal, "%s: larger than %zu bytes", path, max);
    }
    out->data[out->len] = '\0';
    return 0;
}

int file_read(struct buf *out, const char *path, size_t max, struct err *err)
{
    *out = (struct buf){0}; /* also for those who free it after a failure */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return failed(err, "open", path);
    struct stat st;
    int rc = -1;
    if (fstat(fd, &st))
        failed(err, "stat", path);
    else if (!S_ISREG(st.st_mode))
        err_set(err, ERR_internal, "%s: not a regular file", path);
    else
        rc = read_all(out, fd, (size_t)st.st_size, max, path, err);
    close(fd);
    if (rc)
        buf_free(out);
    return rc;
}

static int write_all(int fd, struct bytes data)
{
    while (data.len) {
        ssize_t n = write(fd, data.data, data.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data.data += n;
        data.len -= (size_t)n;
    }
    return 0;
}

int file_sync_parent(const char *path, struct err *err)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    const char *folder = dirname(copy);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return failed(err, "open", folder);
    int rc = fsync(fd) ? failed(err, "sync", folder) : 0;
    close(fd);
    return rc;
}

/* The complete file under a temporary name; its name in tmp. */
static int write_temporary(char tmp[PATH_MAX], const char *path, struct bytes data, mode_t mode,
                           struct err *err)
{
    if (snprintf(tmp, PATH_MAX, "%s.tmp-XXXXXX", path) >= PATH_MAX)
        return err_set(err, ERR_internal, "%s: the path is too long", path);
    int fd = mkostemp(tmp, O_CLOEXEC);
    if (fd < 0)
        return failed(err, "create", path);
    int rc = fchmod(fd, mode) || write_all(fd, data) || fsync(fd) ? failed(err, "write", path) : 0;
    if (close(fd) && rc == 0)
        rc = failed(err, "close", path);
    if (rc)
        unlink(tmp);
    return rc;
}

/* renameat2(RENAME_NOREPLACE) is not on every file system; link() refuses an existing name on all
 * that have hard links. */
static int put_in_place(const char *tmp, const char *path, int replace, struct err *err)
{
    if (replace)
        return rename(tmp, path) ? failed(err, "rename to", path) : 0;
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno == EINVAL && link(tmp, path) == 0)
        return unlink(tmp) ? failed(err, "remove", tmp) : 0;
    if (errno == EEXIST)
        return err_set(err, ERR_already_exists, "%s exists already; it is not overwritten", path);
    return failed(err, "create", path);
}

int file_write(const char *path, struct bytes data, mode_t mode, int replace, struct err *err)
{
    char tmp[PATH_MAX];
    if (write_temporary(tmp, path, data, mode, err))
        return -1;
    if (put_in_place(tmp, path, replace, err)) {
        unlink(tmp);
        return -1;
    }
    return file_sync_parent(path, err);
}

static int is_temporary_of(const char *entry, const char *name)
{
    size_t len = strlen(name);
    return strncmp(entry, name, len) == 0 && strncmp(entry + len, ".tmp-", 5) == 0 &&
           strlen(entry + len) == sizeof ".tmp-XXXXXX" - 1;
}

void file_sweep(const char *folder, const char *const *names)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        for (const char *const *name = names; *name; name++)
            if (is_temporary_of(entry->d_name, *name))
                unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir)
        closedir(dir);
}

/* One folder, and its name in the one above. */
static int make_one_dir(const char *path, mode_t mode, struct err *err)
{
    if (mkdir(path, mode) == 0)
        return file_sync_parent(path, err);
    return errno == EEXIST ? 0 : failed(err, "make folder", path);
}

static int copy_and_digest(int to, int from, uint8_t digest[32], uint64_t *size)
{
    uint8_t chunk[65536];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ssize_t n = 0;
    *size = 0;
    int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    while (ok && (n = pread(from, chunk, sizeof chunk, (off_t)*size)) > 0) {
        ok = EVP_DigestUpdate(ctx, chunk, (size_t)n) &&
             write_all(to, (struct bytes){chunk, (size_t)n}) == 0;
        *size += (uint64_t)n;
    }
    ok = ok && n == 0 && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return ok ? 0 : -1;
}

static int keep_time(int to, int from)
{
    struct stat st;
    return fstat(from, &st) ? -1 : futimens(to, (struct timespec[]){st.st_atim, st.st_mtim});
}

int file_sealed_copy(int file, uint8_t digest[32], uint64_t *size, struct err *err)
{
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    if (fd >= 0 && copy_and_digest(fd, file, digest, size) == 0 && keep_time(fd, file) == 0 &&
        fcntl(fd, F_ADD_SEALS, seals) == 0)
        return fd;
    failed(err, "copy", "a file to memory");
    if (fd >= 0)
        close(fd);
    return -1;
}

int file_make_dir(const char *path, mode_t mode, struct err *err)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof part, "%s", path) >= PATH_MAX)
        return err_set(err, ERR_internal, "%s: the path is too long", path);
    for (char *p = part; *p; p++) {
        if (*p != '/' || p == part)
            continue;
        *p = '\0';
        if (make_one_dir(part, mode, err))
            return -1;
        *p = '/';
    }
    struct stat st;
    if (make_one_dir(part, mode, err))
        return -1;
    if (stat(part, &st))
        return failed(err, "open folder", part);
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_already_exists, "%s exists and is not a folder", part);
    return 0;
}
