#include "server/authority/projection.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "pki/certificate.h"

#define LINE_MAX_BYTES 2048

/* So many files are synced one by one, more with all of their file system: that waits for what
 * anybody wrote there, but once. */
#define FRESH_MAX 64
#define SERIAL_TEXT 41

struct projection {
    struct authority *a;
    int journal, certs; /* the file; the folder */
    off_t end;          /* of what was written there; -1: not known yet */
    uint64_t written;   /* the last sequence in the journal and the files */
    uint64_t recorded;  /* the last one that meta.projected says is on disk */
    struct event *timer, *child_ended;
    int scheduled;
    char fresh[FRESH_MAX][SERIAL_TEXT]; /* certificates written since the last sync … */
    size_t fresh_count;                 /* … or more than fit */
    pid_t syncing;                      /* the child that syncs; 0: none */
    uint64_t synced;                    /* what it will have synced */
    char problem[512];
};

/* Events between two syncs while catching up. */
#define BATCH 1000

static int io_failed(const char *doing, struct err *err)
{
    return err_set(err, ERR_storage_unavailable, "%s: %s", doing, strerror(errno));
}

/* ---- writing ---- */

/* certs/4f/a0/<serial>.pem; folders are made when they are missing. */
static int open_certificate(struct projection *p, const char *serial, struct err *err)
{
    char path[80], first[8], second[16];
    snprintf(first, sizeof first, "%.2s", serial);
    snprintf(second, sizeof second, "%.2s/%.2s", serial, serial + 2);
    snprintf(path, sizeof path, "%s/%s.pem", second, serial);
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    int fd = openat(p->certs, path, flags, 0644);
    if (fd < 0 && errno == ENOENT) {
        if ((mkdirat(p->certs, first, 0755) && errno != EEXIST) ||
            (mkdirat(p->certs, second, 0755) && errno != EEXIST))
            return io_failed("certs: cannot make a folder", err);
        fd = openat(p->certs, path, flags, 0644);
    }
    return fd < 0 ? io_failed("certs: cannot make a file", err) : fd;
}

static int write_certificate(struct projection *p, const struct certificate_row *row,
                             struct err *err)
{
    char serial[41];
    hex_encode(serial, (struct bytes){row->serial, row->serial_len});
    char *pem = certificate_pem(row->der);
    if (!pem)
        return err_set(err, ERR_internal, "no memory");
    if (p->fresh_count < FRESH_MAX)
        memcpy(p->fresh[p->fresh_count], serial, sizeof serial);
    p->fresh_count++;
    int fd = open_certificate(p, serial, err), rc = fd < 0 ? -1 : 0;
    size_t len = strlen(pem);
    if (rc == 0 && write(fd, pem, len) != (ssize_t)len)
        rc = io_failed("certs: cannot write a certificate", err);
    if (fd >= 0)
        close(fd);
    free(pem);
    return rc;
}

/* A batch of events out of the store, in one snapshot. */
struct batch {
    struct projection *p;
    struct err err;
    struct buf lines;
    uint64_t last;
    int count;
};

static int read_batch(struct store_tx *tx, void *arg)
{
    struct batch *b = arg;
    struct event_row e;
    int rc;
    while (b->count < BATCH && (rc = tx_event_after(tx, b->last, &e)) == 0) {
        struct certificate_row row;
        int64_t certificate = e.certificate;
        b->last = e.seq;
        b->count++;
        if (buf_add(&b->lines, e.line, strlen(e.line)) || buf_add(&b->lines, "\n", 1))
            return err_set(&b->err, ERR_internal, "no memory");
        if (certificate &&
            (tx_certificate_by_id(tx, certificate, &row) || write_certificate(b->p, &row, &b->err)))
            return -1;
    }
    return b->count < BATCH && rc < 0 ? -1 : 0;
}

/* Nobody else writes there, and nobody takes it away: a line in a file without a name is lost, and
 * one behind a cut says nothing of the cut. */
static int check_journal(const struct projection *p, off_t end, struct err *err)
{
    char path[PATH_MAX];
    struct stat own, there;
    snprintf(path, sizeof path, "%s/journal.log", p->a->config->state);
    if (fstat(p->journal, &own))
        return io_failed(path, err);
    if (lstat(path, &there) || there.st_ino != own.st_ino || there.st_dev != own.st_dev)
        return err_set(err, ERR_storage_unavailable,
                       "%s was moved, deleted or exchanged while signetd writes it: put it back",
                       path);
    if (p->end >= 0 && end != p->end)
        return err_set(
            err, ERR_storage_unavailable,
            "%s has %lld bytes, %lld were written: it was cut or added to; run signetctl "
            "audit; docs/recovery.md, \"A cut journal\"",
            path, (long long)end, (long long)p->end);
    return 0;
}

/* A line half written (a full disk) must not stay before the next one. */
static int append(struct projection *p, struct bytes lines, struct err *err)
{
    off_t end = lseek(p->journal, 0, SEEK_END);
    if (end < 0)
        return io_failed("journal.log", err);
    if (check_journal(p, end, err))
        return -1;
    if (write(p->journal, lines.data, lines.len) == (ssize_t)lines.len) {
        p->end = end + (off_t)lines.len;
        return 0;
    }
    io_failed("journal.log: cannot write", err);
    if (ftruncate(p->journal, end))
        fatal("journal.log: a partial line cannot be taken back: %s", strerror(errno));
    return -1;
}

/* Up to BATCH events; *more says whether there may be others. */
static int write_batch(struct projection *p, int *more, struct err *err)
{
    struct batch b = {.p = p, .last = p->written};
    err_set(&b.err, ERR_storage_unavailable, "the store cannot be read");
    int rc = store_read(p->a->store, read_batch, &b);
    if (rc == 0 && b.count)
        rc = append(p, buf_view(&b.lines), &b.err);
    if (rc == 0)
        p->written = b.last;
    else
        *err = b.err;
    *more = b.count == BATCH;
    buf_free(&b.lines);
    return rc;
}

static int record(struct store_tx *tx, void *arg)
{
    struct projection *p = arg;
    return tx_set_meta(tx, "projected", (int64_t)p->recorded);
}

static void recorded(int durable, void *arg)
{
    (void)arg;
    if (!durable)
        log_warn("the store did not take how far the files are; they are written again at start");
}

/* A sync that failed is not tried again: what is on the disk then, nobody knows. */
static void sync_failed(void)
{
    fatal("journal.log or certs: a sync failed; the disk may have lost writes");
}

static int is_synced(struct projection *p, uint64_t seq)
{
    p->recorded = seq;
    return store_submit(p->a->store, record, recorded, p);
}

static int sync_path(int folder, const char *path)
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
    if (sync_path(certs, path))
        return -1;
    path[5] = '\0';
    if (sync_path(certs, path))
        return -1;
    path[2] = '\0';
    return sync_path(certs, path);
}

static int sync_all(const struct projection *p, int journal, int certs)
{
    if (fdatasync(journal))
        return -1;
    if (p->fresh_count > FRESH_MAX)
        return syncfs(certs);
    for (size_t i = 0; i < p->fresh_count; i++)
        if (sync_certificate(certs, p->fresh[i]))
            return -1;
    return p->fresh_count ? fsync(certs) : 0;
}

/* A sync takes seconds on a busy disk: a child waits, and requests go on. It keeps only the two
 * descriptors, so that no peer takes it for the authority. */
_Noreturn static void sync_in_child(const struct projection *p)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int ok = dup2(p->journal, 0) == 0 && dup2(p->certs, 1) == 1 && close_range(2, ~0u, 0) == 0;
    _exit(ok && sync_all(p, 0, 1) == 0 ? 0 : 1);
}

static void start_sync(struct projection *p)
{
    if (p->syncing || p->written == p->recorded)
        return;
    p->synced = p->written;
    p->syncing = fork();
    if (p->syncing == 0)
        sync_in_child(p);
    if (p->syncing > 0)
        p->fresh_count = 0;
    if (p->syncing < 0) {
        p->syncing = 0;
        log_warn("no process for a sync: %s; it is tried again", strerror(errno));
        projection_wanted(p);
    }
}

static void take_end(struct projection *p, int status)
{
    p->syncing = 0;
    if (!WIFEXITED(status))
        p->fresh_count = FRESH_MAX + 1; /* ended from outside: nobody knows how far it came */
    else if (WEXITSTATUS(status) != 0)
        sync_failed();
    else if (is_synced(p, p->synced))
        log_warn("no memory to record how far the files are");
}

static void on_child_ended(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    struct projection *p = arg;
    int status;
    if (!p->syncing || waitpid(p->syncing, &status, WNOHANG) != p->syncing)
        return;
    take_end(p, status);
    if (p->written != p->recorded)
        projection_wanted(p);
}

static int write_all(struct projection *p, struct err *err)
{
    int more = 1;
    while (more)
        if (write_batch(p, &more, err))
            return -1;
    return 0;
}

int projection_flush(struct projection *p, struct err *err)
{
    int status;
    if (write_all(p, err))
        return -1;
    if (p->syncing && waitpid(p->syncing, &status, 0) == p->syncing)
        take_end(p, status);
    if (p->written == p->recorded)
        return 0;
    if (sync_all(p, p->journal, p->certs))
        sync_failed();
    p->fresh_count = 0;
    return is_synced(p, p->written) ? err_set(err, ERR_internal, "no memory") : 0;
}

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct projection *p = arg;
    struct err err;
    p->scheduled = 0;
    if (write_all(p, &err)) {
        if (!p->problem[0])
            log_error("%s; it is tried again", err.text);
        snprintf(p->problem, sizeof p->problem, "%s", err.text);
        projection_wanted(p);
        return;
    }
    if (p->problem[0])
        log_info("journal and files are complete again");
    p->problem[0] = '\0';
    start_sync(p);
}

void projection_wanted(struct projection *p)
{
    struct timeval quarter = {0, 250000};
    if (p->scheduled)
        return;
    p->scheduled = 1;
    evtimer_add(p->timer, &quarter);
}

const char *projection_problem(const struct projection *p)
{
    return p->problem[0] ? p->problem : NULL;
}

/* ---- opening ---- */

/* The last whole line of the journal into line ("" when empty), and where it ends: what is behind,
 * half a line from a crash, may be cut off once all else was found good. */
static int last_line(struct projection *p, char line[LINE_MAX_BYTES], off_t *whole, struct err *err)
{
    char tail[2 * LINE_MAX_BYTES + 1];
    off_t size = lseek(p->journal, 0, SEEK_END);
    off_t from = size > 2 * LINE_MAX_BYTES ? size - 2 * LINE_MAX_BYTES : 0;
    ssize_t n = size < 0 ? -1 : pread(p->journal, tail, 2 * LINE_MAX_BYTES, from);
    if (n < 0)
        return io_failed("journal.log: cannot read", err);
    tail[n] = '\0';
    char *end = strrchr(tail, '\n');
    *whole = end ? from + (end - tail) + 1 : from;
    line[0] = '\0';
    if (!end && from > 0)
        return err_set(err, ERR_storage_unavailable,
                       "%s/journal.log: its end is no journal's; docs/recovery.md, \"A cut "
                       "journal\", has the way back",
                       p->a->config->state);
    if (!end)
        return 0;
    *end = '\0';
    char *start = strrchr(tail, '\n');
    start = start ? start + 1 : tail;
    snprintf(line, LINE_MAX_BYTES, "%s", start); /* a longer one is no event's, and not found */
    return 0;
}

static int cut_partial_line(struct projection *p, off_t whole, struct err *err)
{
    off_t size = lseek(p->journal, 0, SEEK_END);
    if (size <= whole)
        return 0;
    log_warn("journal.log: %lld bytes behind its last whole line are cut off, as a crash leaves "
             "them",
             (long long)(size - whole));
    return ftruncate(p->journal, whole) ? io_failed("journal.log: cannot cut a partial line", err)
                                        : 0;
}

struct position {
    const char *line;   /* of the file */
    uint64_t seq, head; /* of that line; of the store */
    int64_t projected;
    int same;
};

static int read_position(struct store_tx *tx, void *arg)
{
    struct position *at = arg;
    struct event_row e;
    uint8_t hash[32];
    at->projected = 0;
    if (tx_meta(tx, "projected", &at->projected) < 0 || tx_journal_head(tx, &at->head, hash))
        return -1;
    at->same = at->seq == 0;
    if (at->seq == 0)
        return 0;
    int rc = tx_event_after(tx, at->seq - 1, &e);
    at->same = rc == 0 && e.seq == at->seq && strcmp(e.line, at->line) == 0;
    return rc < 0 ? -1 : 0;
}

/* Where the file ends must be where the store was. */
static int judge_position(const struct projection *p, const struct position *at, struct err *err)
{
    static const char journal_back[] = "docs/recovery.md, \"A cut journal\", has the way back";
    const char *state = p->a->config->state;
    if (at->seq > at->head && at->line[0])
        return err_set(err, ERR_storage_unavailable,
                       "%s/signet.db ends at event %llu, but journal.log at %llu: the database has "
                       "lost events, or is an older one, or lines were added to the journal: "
                       "signetctl audit tells which; docs/recovery.md, \"A corrupt database\"",
                       state, (unsigned long long)at->head, (unsigned long long)at->seq);
    if (!at->same || (at->line[0] && at->seq == 0))
        return err_set(err, ERR_storage_unavailable,
                       "%s/journal.log: its last line is not what the store has: it was edited, or "
                       "is of another store; %s",
                       state, journal_back);
    if ((int64_t)at->seq < at->projected)
        return err_set(err, ERR_storage_unavailable,
                       "%s/journal.log ends at event %llu, but %lld were written: it was cut; %s",
                       state, (unsigned long long)at->seq, (long long)at->projected, journal_back);
    return 0;
}

static int read_store_position(struct projection *p, struct position *at, struct err *err)
{
    if (store_read(p->a->store, read_position, at))
        return err_set(err, ERR_storage_unavailable, "%s/signet.db cannot be read: %s",
                       p->a->config->state,
                       store_problem(p->a->store) ? store_problem(p->a->store) : "no memory");
    return 0;
}

static int find_position(struct projection *p, uint64_t *in_file, struct err *err)
{
    char line[LINE_MAX_BYTES] = "";
    off_t whole = 0;
    if (p->journal >= 0 && last_line(p, line, &whole, err))
        return -1;
    struct position at = {.line = line, .seq = strtoull(line, NULL, 10)};
    if (read_store_position(p, &at, err) || judge_position(p, &at, err))
        return -1;
    *in_file = at.seq;
    p->written = p->recorded = (uint64_t)at.projected;
    return p->journal >= 0 ? cut_partial_line(p, whole, err) : 0;
}

/* What was written but not known to be on disk is written again, all of it when the folder was
 * gone; journal lines only once. */
static int catch_up(struct projection *p, uint64_t in_file, int all, struct err *err)
{
    struct batch b = {.p = p, .last = all ? 0 : p->written};
    err_set(&b.err, ERR_storage_unavailable, "the store cannot be read");
    while (b.last < in_file) {
        b.count = 0;
        b.lines.len = 0;
        if (store_read(p->a->store, read_batch, &b)) {
            *err = b.err;
            buf_free(&b.lines);
            return -1;
        }
        if (b.count == 0)
            break;
    }
    buf_free(&b.lines);
    p->written = in_file > p->written ? in_file : p->written;
    return projection_flush(p, err);
}

/* A plain file, or none at all, which is no failure. A pipe would hold up the start. */
static int open_journal(struct projection *p, const char *path, int flags, struct err *err)
{
    struct stat st;
    p->journal = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0644);
    if (p->journal < 0 && errno != EISDIR && errno != ELOOP)
        return errno == ENOENT ? 0 : io_failed(path, err);
    if (p->journal < 0 || fstat(p->journal, &st) || !S_ISREG(st.st_mode))
        return err_set(err, ERR_storage_unavailable,
                       "%s is not a regular file: move it aside, and put the file itself there",
                       path);
    return 0;
}

static int open_certs(struct projection *p, int *all, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/certs", p->a->config->state);
    *all = p->written > 0 && access(path, F_OK) && errno == ENOENT;
    if (*all)
        log_warn("%s is missing: each certificate's file is written anew from the store", path);
    if (file_make_dir(path, 0755, err))
        return -1;
    p->certs = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return p->certs < 0 ? io_failed(path, err) : 0;
}

int projection_open(struct projection **out, struct authority *a, struct err *err)
{
    struct projection *p = calloc(1, sizeof *p);
    char path[PATH_MAX];
    uint64_t in_file;
    int all;
    if (!p || !(p->timer = evtimer_new(a->base, on_timer, p)) ||
        !(p->child_ended = evsignal_new(a->base, SIGCHLD, on_child_ended, p)) ||
        evsignal_add(p->child_ended, NULL))
        fatal("no memory");
    p->a = a;
    p->journal = p->certs = -1;
    p->end = -1;
    snprintf(path, sizeof path, "%s/journal.log", a->config->state);
    if (open_journal(p, path, 0, err) || find_position(p, &in_file, err) ||
        open_certs(p, &all, err) || (p->journal < 0 && open_journal(p, path, O_CREAT, err)))
        goto fail;
    snprintf(path, sizeof path, "%s/.", a->config->state); /* the folder may be a link */
    if (sync_path(AT_FDCWD, path)) {
        io_failed(path, err);
        goto fail;
    }
    if (catch_up(p, in_file, all, err)) { /* a full disk is no reason to serve nothing */
        log_error("%s; it is tried again", err->text);
        snprintf(p->problem, sizeof p->problem, "%s", err->text);
        projection_wanted(p);
    }
    *out = p;
    return 0;
fail:
    projection_close(p);
    return -1;
}

void projection_close(struct projection *p)
{
    if (!p)
        return;
    event_free(p->timer);
    event_free(p->child_ended);
    if (p->syncing)
        waitpid(p->syncing, NULL, 0);
    if (p->journal >= 0)
        close(p->journal);
    if (p->certs >= 0)
        close(p->certs);
    free(p);
}
