/* The store on SQLite: statements, rounds of one commit each, a sound copy. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "server/authority/store_parts.h"

static const char *const sql_of[] = {
#define S_TEXT(name, sql) [S_##name] = (sql),
    STATEMENTS(S_TEXT)
#undef S_TEXT
};

/* ---- statements ---- */

void store_close_row(struct store *s)
{
    sqlite3_reset(s->row);
    s->row = NULL;
}

static sqlite3_stmt *statement(struct store *s, enum statement which)
{
    sqlite3_stmt **st = &s->statements[which];
    store_close_row(s);
    if (!*st && sqlite3_prepare_v3(s->db, sql_of[which], -1, SQLITE_PREPARE_PERSISTENT, st, NULL))
        return NULL;
    return *st;
}

/* Binds by format, a letter a parameter: i int64, t text, b struct bytes, d 32-byte digest; 0 as
 * 'o' (optional id) is NULL. Text and bytes must live until the step. */
static int bind(sqlite3_stmt *st, const char *format, va_list ap)
{
    int rc = SQLITE_OK;
    for (int n = 1; *format && rc == SQLITE_OK; n++, format++) {
        if (*format == 'i') {
            rc = sqlite3_bind_int64(st, n, va_arg(ap, int64_t));
        } else if (*format == 'o') {
            int64_t id = va_arg(ap, int64_t);
            rc = id ? sqlite3_bind_int64(st, n, id) : sqlite3_bind_null(st, n);
        } else if (*format == 't') {
            rc = sqlite3_bind_text(st, n, va_arg(ap, const char *), -1, SQLITE_STATIC);
        } else if (*format == 'd') {
            rc = sqlite3_bind_blob(st, n, va_arg(ap, const uint8_t *), 32, SQLITE_STATIC);
        } else {
            struct bytes b = va_arg(ap, struct bytes);
            rc = sqlite3_bind_blob64(st, n, b.data ? (const void *)b.data : "", b.len,
                                     SQLITE_STATIC);
        }
    }
    return rc;
}

/* SQLite reports a failed fdatasync as IOERR_FSYNC. What the kernel then has of the file nobody
 * knows: end, and let the next start read what is really there. */
void store_end_if_sync_failed(sqlite3 *db)
{
    int code = sqlite3_extended_errcode(db);
    if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC)
        fatal("a sync of the database failed (%s): the disk may have lost writes",
              sqlite3_errmsg(db));
}

static void note_problem(struct store *s, const char *what, int tell)
{
    int is_new = s->problem[0] == '\0';
    snprintf(s->problem, sizeof s->problem, "the database: %s", what);
    if (is_new && tell && s->serving)
        log_error("%s; nothing is issued or revoked until it can be written again", s->problem);
}

/* A broken constraint is the one decision's affair. */
void store_note_problem(struct store *s)
{
    note_problem(s, sqlite3_errmsg(s->db), sqlite3_errcode(s->db) != SQLITE_CONSTRAINT);
    store_end_if_sync_failed(s->db);
}

/* Binds and steps once. 0: a row (in *row, valid until the statement's next use), 1: no row,
 * -1: failed. */
int store_query(struct store *s, sqlite3_stmt **row, enum statement which, const char *format, ...)
{
    sqlite3_stmt *st = statement(s, which);
    va_list ap;
    va_start(ap, format);
    int rc = st ? bind(st, format, ap) : SQLITE_ERROR;
    va_end(ap);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        s->row = st;
        if (row)
            *row = st;
        return 0;
    }
    if (rc == SQLITE_DONE) {
        sqlite3_reset(st);
        return 1;
    }
    store_note_problem(s);
    if (st)
        sqlite3_reset(st);
    return -1;
}

struct bytes row_bytes(sqlite3_stmt *row, int n)
{
    const void *data = sqlite3_column_blob(row, n); /* before the length, as SQLite asks */
    return (struct bytes){data, (size_t)sqlite3_column_bytes(row, n)};
}

void row_fixed(uint8_t *out, size_t size, sqlite3_stmt *row, int n)
{
    struct bytes b = row_bytes(row, n);
    memset(out, 0, size);
    if (b.len)
        memcpy(out, b.data, b.len < size ? b.len : size);
}

void row_text(char *out, size_t size, sqlite3_stmt *row, int n)
{
    snprintf(out, size, "%s", (const char *)sqlite3_column_text(row, n));
}

int store_changed_one(struct store_tx *tx, int rc)
{
    return rc == 0 && sqlite3_changes(of(tx)->db) == 1 ? 0 : -1;
}

/* ---- closing ---- */

void store_close(struct store *s)
{
    if (!s)
        return;
    struct task *t;
    while ((t = STAILQ_FIRST(&s->waiting))) {
        STAILQ_REMOVE_HEAD(&s->waiting, next);
        free(t);
    }
    store_close_row(s);
    for (int i = 0; i < S_COUNT; i++)
        sqlite3_finalize(s->statements[i]);
    sqlite3_close(s->db);
    free(tx_of(s));
}

/* ---- rounds ---- */

int store_submit(struct store *s, store_decision decide, store_completion complete, void *arg)
{
    struct task *t = calloc(1, sizeof *t);
    if (!t)
        return -1;
    t->decide = decide;
    t->complete = complete;
    t->arg = arg;
    STAILQ_INSERT_TAIL(&s->waiting, t, next);
    return 0;
}

int store_waiting(const struct store *s)
{
    return !STAILQ_EMPTY(&s->waiting);
}

const char *store_problem(const struct store *s)
{
    return s->problem[0] ? s->problem : NULL;
}

void store_on_changes(struct store *s, store_changes_fn told, void *arg)
{
    s->changes.told = told;
    s->changes.arg = arg;
}

static void tell_changes(struct store *s)
{
    struct changes *c = &s->changes;
    if (c->count && c->told)
        c->told(c->count > STORE_CHANGES_MAX ? NULL : c->list, c->count, c->arg);
}

/* One decision; its writes are taken back when it says no. -1: the transaction is lost; on a full
 * disk SQLite itself rolls all of it back. */
static int decide_apart(struct store *s, struct task *t)
{
    size_t changes = s->changes.count;
    if (run(s, S_savepoint, ""))
        return -1;
    t->done = t->decide(tx_of(s), t->arg) == 0;
    if (!t->done) {
        s->changes.count = changes;
        s->head.known = 0;
    }
    if (!t->done && (sqlite3_get_autocommit(s->db) || run(s, S_rollback_to, "")))
        return -1;
    return run(s, S_release, "");
}

/* The same without a savepoint, for which SQLite copies every page that is written: most decisions
 * that say no do so before they write. 1: this one did not. */
static int decide_together(struct store *s, struct task *t)
{
    sqlite3_int64 written = sqlite3_total_changes64(s->db);
    t->done = t->decide(tx_of(s), t->arg) == 0;
    if (t->done)
        return 0;
    if (sqlite3_get_autocommit(s->db))
        return -1;
    return sqlite3_total_changes64(s->db) != written;
}

/* What goes into a file that has no name any more is lost with the process. Put back, it is the
 * store again. */
static int is_moved(struct store *s)
{
    int moved = 0;
    if (sqlite3_file_control(s->db, "main", SQLITE_FCNTL_HAS_MOVED, &moved) != SQLITE_OK || !moved)
        return 0;
    note_problem(s, "signet.db was moved or deleted while signetd runs: put it back", 1);
    return 1;
}

static int decide_all(struct store *s, struct tasks *round,
                      int (*decide)(struct store *s, struct task *t))
{
    struct task *t;
    int rc = 0;
    s->changes.count = 0;
    s->head.known = 0;
    STAILQ_FOREACH (t, round, next)
        if ((rc = decide(s, t)))
            break;
    return rc;
}

static int run_round(struct store *s, struct tasks *round)
{
    if (is_moved(s) || run(s, S_begin, ""))
        return -1;
    int rc = decide_all(s, round, decide_together);
    if (rc > 0) /* all of them anew */
        rc =
            run(s, S_rollback, "") || run(s, S_begin, "") ? -1 : decide_all(s, round, decide_apart);
    return rc ? -1 : run(s, S_commit, "");
}

void store_commit(struct store *s)
{
    struct tasks round;
    struct task *t;
    if (!store_waiting(s))
        return;
    round = s->waiting;
    STAILQ_INIT(&s->waiting);
    int durable = run_round(s, &round) == 0;
    if (durable) {
        tell_changes(s);
        if (s->problem[0])
            log_info("the database can be written again");
        s->problem[0] = '\0';
    } else {
        if (!sqlite3_get_autocommit(s->db) && run(s, S_rollback, ""))
            fatal("the database cannot roll back: %s", sqlite3_errmsg(s->db));
    }
    while ((t = STAILQ_FIRST(&round))) {
        STAILQ_REMOVE_HEAD(&round, next);
        t->complete(durable && t->done, t->arg);
        free(t);
    }
}

static int try_to_write(struct store_tx *tx, void *arg)
{
    (void)arg;
    return tx_set_meta(tx, "tried", 1);
}

static void tried(int durable, void *arg)
{
    (void)durable, (void)arg;
}

/* Nobody waits for it, so it waits for nobody: a lock held by another must not stop all else. */
void store_try(struct store *s)
{
    if (!s->problem[0] || store_waiting(s) || store_submit(s, try_to_write, tried, NULL))
        return; /* the next second comes */
    sqlite3_busy_timeout(s->db, 0);
    store_commit(s);
    sqlite3_busy_timeout(s->db, BUSY_MS);
}

int store_read(struct store *s, store_decision reader, void *arg)
{
    if (run(s, S_begin_read, ""))
        return -1;
    int rc = reader(tx_of(s), arg);
    return run(s, S_rollback, "") ? -1 : rc;
}

/* ---- for signetctl: is it sound, and a copy of it ---- */

static int check_with(struct store *s, const char *pragma, const char *prefix,
                      void (*each)(const char *problem, void *arg), void *arg)
{
    sqlite3_stmt *st = NULL;
    int step = SQLITE_ERROR;
    char text[512];
    if (sqlite3_prepare_v2(s->db, pragma, -1, &st, NULL) == SQLITE_OK)
        while ((step = sqlite3_step(st)) == SQLITE_ROW) {
            const char *said = (const char *)sqlite3_column_text(st, 0);
            if (said && strcmp(said, "ok") == 0)
                continue;
            snprintf(text, sizeof text, "%s%s", prefix, said ? said : "?");
            each(text, arg);
        }
    if (step != SQLITE_DONE)
        store_note_problem(s);
    sqlite3_finalize(st);
    return step == SQLITE_DONE ? 0 : -1;
}

int store_check(struct store *s, void (*each)(const char *problem, void *arg), void *arg)
{
    return check_with(s, "PRAGMA integrity_check(20)", "", each, arg) ||
                   check_with(s, "PRAGMA foreign_key_check",
                              "a row points to what is not there, in table ", each, arg)
               ? -1
               : 0;
}

#define BACKUP_PAGES 1024 /* a step; the read transaction holds the snapshot between two */

static int copy_pages(struct store *s, sqlite3 *to,
                      void (*progress)(int done, int total, void *arg), void *arg)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", s->db, "main");
    int rc = b ? SQLITE_OK : SQLITE_ERROR;
    while (rc == SQLITE_OK) {
        rc = sqlite3_backup_step(b, BACKUP_PAGES);
        progress(sqlite3_backup_pagecount(b) - sqlite3_backup_remaining(b),
                 sqlite3_backup_pagecount(b), arg);
    }
    int end = b ? sqlite3_backup_finish(b) : rc;
    return rc == SQLITE_DONE && end == SQLITE_OK ? 0 : -1;
}

int tx_backup(struct store_tx *tx, const char *path,
              void (*progress)(int done, int total, void *arg), void *arg, struct err *err)
{
    sqlite3 *to = NULL;
    uint64_t seq;
    uint8_t hash[32];
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOFOLLOW;
    /* The first read takes the snapshot. The copy has no write-ahead log: it is one file, that can
     * be read where nothing can be written. */
    int rc = tx_journal_head(tx, &seq, hash) || sqlite3_open_v2(path, &to, flags, NULL) ||
                     sqlite3_exec(to, "PRAGMA synchronous=FULL", NULL, NULL, NULL) ||
                     copy_pages(of(tx), to, progress, arg) ||
                     sqlite3_exec(to, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL) ||
                     store_quick_check(to)
                 ? -1
                 : 0;
    if (rc)
        err_set(err, ERR_storage_unavailable, "%s: the copy failed: %s", path,
                to ? sqlite3_errmsg(to) : "no memory");
    sqlite3_close(to);
    return rc;
}
