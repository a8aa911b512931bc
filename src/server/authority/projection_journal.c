/* Opening journal.log: where it ends, and whether the store was there. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "server/authority/projection_parts.h"

#define LINE_MAX_BYTES 2048

/* A plain file, or none at all, which is no failure. A pipe would hold up the start. A child of an
 * authority that was killed may still be in a write; it has the lock as long. */
static int open_file(struct files *f, int flags, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/journal.log", f->state);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0644);
    f->journal = fd;
    if (fd < 0 && errno != EISDIR && errno != ELOOP)
        return errno == ENOENT ? 0 : files_failed(path, err);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return err_set(err, ERR_storage_unavailable,
                       "%s is not a regular file: move it aside, and put the file itself there",
                       path);
    return flock(fd, LOCK_EX) ? files_failed(path, err) : 0;
}

/* The last whole line of the journal into line ("" when empty), and where it ends: what is behind,
 * half a line from a crash, may be cut off once all else was found good. */
static int last_line(struct files *f, char line[LINE_MAX_BYTES], off_t *whole, struct err *err)
{
    char tail[2 * LINE_MAX_BYTES + 1];
    off_t size = lseek(f->journal, 0, SEEK_END);
    off_t from = size > 2 * LINE_MAX_BYTES ? size - 2 * LINE_MAX_BYTES : 0;
    ssize_t n = size < 0 ? -1 : pread(f->journal, tail, 2 * LINE_MAX_BYTES, from);
    if (n < 0)
        return files_failed("journal.log: cannot read", err);
    tail[n] = '\0';
    char *end = strrchr(tail, '\n');
    *whole = end ? from + (end - tail) + 1 : from;
    line[0] = '\0';
    if (!end && from > 0)
        return err_set(err, ERR_storage_unavailable,
                       "%s/journal.log: its end is no journal's; docs/recovery.md, \"A cut "
                       "journal\", has the way back",
                       f->state);
    if (!end)
        return 0;
    *end = '\0';
    char *start = strrchr(tail, '\n');
    start = start ? start + 1 : tail;
    snprintf(line, LINE_MAX_BYTES, "%s", start); /* a longer one is no event's, and not found */
    return 0;
}

static int cut_partial_line(struct files *f, off_t whole, struct err *err)
{
    off_t size = lseek(f->journal, 0, SEEK_END);
    if (size <= whole)
        return 0;
    log_warn("journal.log: %lld bytes behind its last whole line are cut off, as a crash leaves "
             "them",
             (long long)(size - whole));
    return ftruncate(f->journal, whole)
               ? files_failed("journal.log: cannot cut a partial line", err)
               : 0;
}

struct position {
    const char *line;   /* of the file */
    uint64_t seq, head; /* of that line; of the store */
    int64_t projected, filed;
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
    int rc = tx_meta(tx, "filed", &at->filed);
    if (rc < 0)
        return -1;
    if (rc > 0 || at->filed > at->projected) /* never said; a store that was restored */
        at->filed = at->projected;
    at->same = at->seq == 0;
    if (at->seq == 0)
        return 0;
    rc = tx_event_after(tx, at->seq - 1, &e);
    at->same = rc == 0 && e.seq == at->seq && strcmp(e.line, at->line) == 0;
    return rc < 0 ? -1 : 0;
}

/* Where the file ends must be where the store was. */
static int judge_position(const struct files *f, const struct position *at, struct err *err)
{
    static const char journal_back[] = "docs/recovery.md, \"A cut journal\", has the way back";
    const char *state = f->state;
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

static int read_store_position(const struct files *f, struct store *store, struct position *at,
                               struct err *err)
{
    if (store_read(store, read_position, at))
        return err_set(err, ERR_storage_unavailable, "%s/signet.db cannot be read: %s", f->state,
                       store_problem(store) ? store_problem(store) : "no memory");
    return 0;
}

int journal_open(struct files *f, struct store *store, struct progress *recorded, uint64_t *in_file,
                 struct err *err)
{
    char line[LINE_MAX_BYTES] = "";
    off_t whole = 0;
    if (open_file(f, 0, err) || (f->journal >= 0 && last_line(f, line, &whole, err)))
        return -1;
    struct position at = {.line = line, .seq = strtoull(line, NULL, 10)};
    if (read_store_position(f, store, &at, err) || judge_position(f, &at, err))
        return -1;
    *in_file = at.seq;
    f->end = whole;
    *recorded = (struct progress){(uint64_t)at.projected, (uint64_t)at.filed};
    return f->journal >= 0 ? cut_partial_line(f, whole, err) : 0;
}

int journal_make(struct files *f, struct err *err)
{
    return open_file(f, O_CREAT, err);
}
