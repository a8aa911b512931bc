/* How a batch of events gets to journal and files. Most of it runs in a child of the authority, so
 * that no request waits for a file system. */
#include "server/authority/projection_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pki/certificate.h"

/* So many files are synced one by one, more with all of their file system: that waits for what
 * anybody wrote there, but once. */
#define ONE_BY_ONE_MAX 64
#define SERIAL_TEXT 41

struct file_head {
    char serial[SERIAL_TEXT];
    size_t len;
};

int batch_add_line(struct batch *b, const char *line)
{
    return buf_add(&b->lines, line, strlen(line)) || buf_add(&b->lines, "\n", 1) ? -1 : 0;
}

int batch_add_certificate(struct batch *b, struct bytes serial, struct bytes der)
{
    struct file_head head = {.len = der.len};
    if (2 * serial.len >= sizeof head.serial)
        return -1;
    hex_encode(head.serial, serial);
    b->file_count++;
    return buf_add(&b->certificates, &head, sizeof head) ||
                   buf_add(&b->certificates, der.data, der.len)
               ? -1
               : 0;
}

void batch_clear(struct batch *b)
{
    buf_free(&b->lines);
    buf_free(&b->certificates);
    b->count = b->file_count = 0;
}

/* The certificate at *at, which is moved on. 0, or -1 at the end. */
static int batch_next(const struct batch *b, size_t *at, struct file_head *head, struct bytes *der)
{
    if (*at >= b->certificates.len)
        return -1;
    memcpy(head, b->certificates.data + *at, sizeof *head);
    *der = (struct bytes){b->certificates.data + *at + sizeof *head, head->len};
    *at += sizeof *head + head->len;
    return 0;
}

int files_failed(const char *doing, struct err *err)
{
    return err_set(err, ERR_storage_unavailable, "%s: %s", doing, strerror(errno));
}

static enum files_rc failed(const char *doing, struct err *err)
{
    files_failed(doing, err);
    return FILES_NOT_WRITTEN;
}

/* ---- certs/4f/a0/<serial>.pem; folders are made when they are missing ---- */

static int make_folders(int certs, const char *serial)
{
    char first[8], second[16];
    snprintf(first, sizeof first, "%.2s", serial);
    snprintf(second, sizeof second, "%.2s/%.2s", serial, serial + 2);
    if (mkdirat(certs, second, 0755) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT || (mkdirat(certs, first, 0755) && errno != EEXIST))
        return -1;
    return mkdirat(certs, second, 0755) && errno != EEXIST ? -1 : 0;
}

static enum files_rc write_certificate(int certs, const char *serial, struct bytes der,
                                       struct err *err)
{
    char path[80];
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    enum files_rc rc = FILES_DONE;
    snprintf(path, sizeof path, "%.2s/%.2s/%s.pem", serial, serial + 2, serial);
    char *pem = certificate_pem(der);
    if (!pem) {
        err_set(err, ERR_internal, "no memory");
        return FILES_NOT_WRITTEN;
    }
    int fd = openat(certs, path, flags, 0644);
    if (fd < 0 && errno == ENOENT && make_folders(certs, serial))
        rc = failed("certs: cannot make a folder", err);
    else if (fd < 0 && (errno == ENOENT || errno == EEXIST))
        fd = openat(certs, path, flags, 0644);
    if (fd < 0 && rc == FILES_DONE)
        rc = failed("certs: cannot make a file", err);
    size_t len = strlen(pem);
    if (fd >= 0 && write(fd, pem, len) != (ssize_t)len)
        rc = failed("certs: cannot write a certificate", err);
    if (fd >= 0)
        close(fd);
    free(pem);
    return rc;
}

enum files_rc files_write_certificates(const struct files *f, const struct batch *b,
                                       struct err *err)
{
    struct file_head head;
    struct bytes der;
    size_t at = 0;
    enum files_rc rc = FILES_DONE;
    while (rc == FILES_DONE && batch_next(b, &at, &head, &der) == 0)
        rc = write_certificate(f->certs, head.serial, der, err);
    return rc;
}

/* ---- journal.log ---- */

/* A child that was killed may have written some of these lines; then they are taken back. */
static int is_of_batch(const struct files *f, off_t end, struct bytes lines)
{
    size_t more = (size_t)(end - f->end);
    if (end < f->end || more > lines.len)
        return 0;
    uint8_t *there = malloc(more + 1);
    int same = there && pread(f->journal, there, more, f->end) == (ssize_t)more &&
               memcmp(there, lines.data, more) == 0;
    free(there);
    return same;
}

/* Nobody else writes there, and nobody takes it away: a line in a file without a name is lost, and
 * one behind a cut says nothing of the cut. */
static int check_journal(const struct files *f, off_t end, struct bytes lines, struct err *err)
{
    char path[PATH_MAX];
    struct stat own, there;
    snprintf(path, sizeof path, "%s/journal.log", f->state);
    if (fstat(f->journal, &own))
        return err_set(err, ERR_storage_unavailable, "%s: %s", path, strerror(errno));
    if (lstat(path, &there) || there.st_ino != own.st_ino || there.st_dev != own.st_dev)
        return err_set(err, ERR_storage_unavailable,
                       "%s was moved, deleted or exchanged while signetd writes it: put it back",
                       path);
    if (end != f->end && !is_of_batch(f, end, lines))
        return err_set(
            err, ERR_storage_unavailable,
            "%s has %lld bytes, %lld were written: it was cut or added to; run signetctl "
            "audit; docs/recovery.md, \"A cut journal\"",
            path, (long long)end, (long long)f->end);
    return 0;
}

/* A line half written (a full disk) must not stay before the next one. */
static enum files_rc take_back(const struct files *f, off_t end, struct err *err)
{
    if (ftruncate(f->journal, end) == 0)
        return FILES_NOT_WRITTEN;
    failed("journal.log: a partial line cannot be taken back", err);
    return FILES_BROKEN;
}

static enum files_rc append(struct files *f, struct bytes lines, struct err *err)
{
    off_t end = lseek(f->journal, 0, SEEK_END);
    if (end < 0)
        return failed("journal.log", err);
    if (check_journal(f, end, lines, err))
        return FILES_NOT_WRITTEN;
    if (end > f->end) {
        if (take_back(f, f->end, err) == FILES_BROKEN)
            return FILES_BROKEN;
        end = lseek(f->journal, f->end, SEEK_SET);
    }
    if (write(f->journal, lines.data, lines.len) == (ssize_t)lines.len) {
        f->end = end + (off_t)lines.len;
        return FILES_DONE;
    }
    failed("journal.log: cannot write", err);
    return take_back(f, end, err);
}

enum files_rc files_write(struct files *f, const struct batch *b, struct err *err)
{
    enum files_rc rc = files_write_certificates(f, b, err);
    return rc == FILES_DONE && b->lines.len ? append(f, buf_view(&b->lines), err) : rc;
}

/* ---- syncing ---- */

int files_sync_path(int folder, const char *path)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The file, and the folders that name it. */
static int sync_certificate(int certs, const char *serial)
{
    char path[80];
    snprintf(path, sizeof path, "%.2s/%.2s/%s.pem", serial, serial + 2, serial);
    if (files_sync_path(certs, path))
        return -1;
    path[5] = '\0';
    if (files_sync_path(certs, path))
        return -1;
    path[2] = '\0';
    return files_sync_path(certs, path);
}

static int sync_all(const struct files *f, const struct batch *b, int all)
{
    struct file_head head;
    struct bytes der;
    size_t at = 0;
    if (fdatasync(f->journal))
        return -1;
    if (f->certs < 0)
        return 0;
    if (all || b->file_count > ONE_BY_ONE_MAX)
        return syncfs(f->certs);
    while (batch_next(b, &at, &head, &der) == 0)
        if (sync_certificate(f->certs, head.serial))
            return -1;
    return b->file_count ? fsync(f->certs) : 0;
}

/* One that failed is not tried again: what is on the disk then, nobody knows. */
enum files_rc files_sync(const struct files *f, const struct batch *b, int all, struct err *err)
{
    if (sync_all(f, b, all) == 0)
        return FILES_DONE;
    err_set(err, ERR_storage_unavailable,
            "journal.log or certs: a sync failed; the disk may have lost writes");
    return FILES_BROKEN;
}
