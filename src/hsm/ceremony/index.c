#include "hsm/ceremony/index.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "hsm/ceremony/ceremony.h"
#include "pki/crl.h"

struct index {
    char path[PATH_MAX];
    int fd;
    struct revocation *revoked;
    size_t count;
    uint64_t crl_number;
};

static int keep_revocation(struct index *x, const struct revocation *r)
{
    struct revocation *grown = realloc(x->revoked, (x->count + 1) * sizeof *grown);
    if (!grown)
        return -1;
    x->revoked = grown;
    x->revoked[x->count++] = *r;
    return 0;
}

static int read_time(int64_t *out, const char *text)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end)
        return -1;
    *out = timegm(&tm);
    return 0;
}

static int read_line(struct index *x, const char *line)
{
    char serial[INDEX_SERIAL], when[32], word[64];
    unsigned long long number;
    int end = 0;
    struct revocation r;
    if (*line == '#' || *line == '\0' || strncmp(line, "issued ", 7) == 0)
        return 0;
    /* there must be one above */
    if (sscanf(line, "crl %19llu%n", &number, &end) == 1 && line[end] == ' ' &&
        number <= INT64_MAX) {
        x->crl_number = number > x->crl_number ? number : x->crl_number;
        return 0;
    }
    if (sscanf(line, "revoked %40s %31s %63s", serial, when, word) != 3 ||
        read_time(&r.when, when) || (r.reason = crl_reason_from_name(word)) < 0)
        return -1;
    snprintf(r.serial, sizeof r.serial, "%s", serial);
    return keep_revocation(x, &r);
}

static int read_lines(struct index *x, struct err *err)
{
    FILE *in = fdopen(dup(x->fd), "r");
    char *line = NULL;
    size_t size = 0, number = 0;
    ssize_t len;
    int rc = in ? 0 : -1;
    while (rc == 0 && (len = getline(&line, &size, in)) > 0) {
        number++;
        if (line[len - 1] != '\n') /* cut off */
            rc = -1;
        line[len - 1] = '\0';
        if (rc == 0)
            rc = read_line(x, line);
    }
    if (rc)
        err_set(err, ERR_internal, "%s:%zu: not understood; restore the file from a copy", x->path,
                number);
    free(line);
    if (in)
        fclose(in);
    return rc;
}

int index_open(struct index **out, const char *root_certificate, struct err *err)
{
    struct index *x = calloc(1, sizeof *x);
    if (!x)
        return err_set(err, ERR_internal, "no memory");
    snprintf(x->path, sizeof x->path, "%s.index", root_certificate);
    x->fd = open(x->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (x->fd < 0)
        err_set(err, ERR_internal, "cannot open %s: %s", x->path, strerror(errno));
    else if (flock(x->fd, LOCK_EX | LOCK_NB))
        err_set(err, ERR_internal, "%s is in use by another ceremony", x->path);
    else if (read_lines(x, err) == 0) {
        *out = x;
        return 0;
    }
    index_free(x);
    return -1;
}

void index_free(struct index *x)
{
    if (!x)
        return;
    if (x->fd >= 0)
        close(x->fd);
    free(x->revoked);
    free(x);
}

static int append(struct index *x, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int append(struct index *x, struct err *err, const char *fmt, ...)
{
    char *line = NULL;
    va_list ap;
    va_start(ap, fmt);
    int len = vasprintf(&line, fmt, ap);
    va_end(ap);
    if (len < 0)
        return err_set(err, ERR_internal, "no memory");
    int rc = 0;
    if (write(x->fd, line, (size_t)len) != len || fsync(x->fd))
        rc = err_set(err, ERR_storage_unavailable, "cannot write %s: %s", x->path, strerror(errno));
    free(line);
    return rc;
}

int index_issued(struct index *x, const char *serial, int64_t not_before, int64_t not_after,
                 const char *subject, struct err *err)
{
    char from[32], to[32];
    time_text(from, not_before);
    time_text(to, not_after);
    return append(x, err, "issued %s %s %s %s\n", serial, from, to, subject);
}

int index_revoked(struct index *x, const struct revocation *r, struct err *err)
{
    char when[32];
    time_text(when, r->when);
    if (append(x, err, "revoked %s %s %s\n", r->serial, when, crl_reason_name(r->reason)))
        return -1;
    return keep_revocation(x, r) ? err_set(err, ERR_internal, "no memory") : 0;
}

int index_crl(struct index *x, uint64_t number, int64_t this_update, int64_t next_update,
              struct err *err)
{
    char from[32], to[32];
    time_text(from, this_update);
    time_text(to, next_update);
    x->crl_number = number;
    return append(x, err, "crl %llu %s %s\n", (unsigned long long)number, from, to);
}

uint64_t index_crl_number(const struct index *x)
{
    return x->crl_number;
}

const struct revocation *index_revocations(const struct index *x, size_t *count)
{
    *count = x->count;
    return x->revoked;
}

int index_is_revoked(const struct index *x, const char *serial)
{
    for (size_t i = 0; i < x->count; i++)
        if (strcmp(x->revoked[i].serial, serial) == 0)
            return 1;
    return 0;
}

const char *index_path(const struct index *x)
{
    return x->path;
}
