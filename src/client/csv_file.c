#include "client/csv_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

static int cannot(const struct csv_file *c, const char *what, struct failure *f)
{
    return fail(f, EXIT_LOCAL, "local_file", "cannot %s the results %s: %s", what, c->path,
                strerror(errno));
}

static int is_same_file(const struct csv_file *c)
{
    struct stat by_name, held;
    return stat(c->path, &by_name) == 0 && fstat(c->fd, &held) == 0 &&
           by_name.st_dev == held.st_dev && by_name.st_ino == held.st_ino;
}

static int open_locked(struct csv_file *c, struct failure *f)
{
    c->fd = open(c->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644);
    if (c->fd < 0)
        return cannot(c, "open", f);
    if (flock(c->fd, LOCK_EX | LOCK_NB) == 0 && is_same_file(c))
        return 0;
    return fail(f, EXIT_LOCAL, "busy", "another signet is writing %s right now", c->path);
}

int csv_file_open(struct csv_file *c, const char *path, struct buf *text, struct failure *f)
{
    struct err err;
    *c = (struct csv_file){.path = path};
    if (open_locked(c, f))
        return -1;
    if (file_read(text, path, CSV_FILE_SIZE_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    c->size = (off_t)text->len;
    return 0;
}

void csv_file_close(struct csv_file *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

int csv_file_replace(struct csv_file *c, struct bytes text, struct failure *f)
{
    struct err err;
    int old = c->fd;
    int rc = file_write(c->path, text, 0644, 1, &err) ? fail_err(f, EXIT_LOCAL, &err)
                                                      : open_locked(c, f);
    close(old);
    if (rc && c->fd == old)
        c->fd = -1;
    c->size = (off_t)text.len;
    return rc;
}

/* Half a line of a full disk is taken back. */
int csv_file_append(struct csv_file *c, struct bytes lines, struct failure *f)
{
    ssize_t n = write(c->fd, lines.data, lines.len);
    if (n == (ssize_t)lines.len && fdatasync(c->fd) == 0) {
        c->size += n;
        return 0;
    }
    if (n >= 0 && n < (ssize_t)lines.len)
        errno = ENOSPC;
    cannot(c, "write", f);
    return ftruncate(c->fd, c->size) ? cannot(c, "mend", f) : -1;
}
