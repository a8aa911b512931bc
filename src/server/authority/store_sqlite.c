/* The store on SQLite: one file, write-ahead log, synchronous=FULL, one commit a round. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/log.h"
#include "server/authority/store_parts.h"

#define SCHEMA 1
#define CHECKPOINT_PAGES 2000
#define BUSY_MS 5000
extern const char store_schema_sql[]; /* schema.sql, made into C by the build */

static const char *const sql_of[] = {
#define S_TEXT(name, sql) [S_##name] = sql,
    STATEMENTS(S_TEXT)
#undef S_TEXT
};

static struct store_tx *tx_of(struct store *s)
{
    return (struct store_tx *)s;
}

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
static void end_if_sync_failed(sqlite3 *db)
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
    end_if_sync_failed(s->db);
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

/* ---- opening ---- */

static const char way_back[] = "docs/recovery.md, \"A corrupt database\", has the way back";

static int database_error(sqlite3 *db, const char *path, struct err *err)
{
    return err_set(err, ERR_storage_unavailable, "%s: %s; nothing was changed; %s", path,
                   db ? sqlite3_errmsg(db) : "no memory", way_back);
}

/* What signetd leaves in a state that it has served: there a store was. Its log too, where the
 * database is gone; with one that is merely empty, the log is of a first start that was ended. */
static int may_make(const char *state, int is_gone, struct err *err)
{
    static const char *const traces[] = {"restore.tmp", "journal.log",  "certs",
                                         "crl.der",     "listener.pem", "signet.db-wal"};
    size_t count = sizeof traces / sizeof *traces - (is_gone ? 0 : 1);
    for (size_t i = 0; i < count; i++) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", state, traces[i]);
        if (lstat(path, &st) == 0 && i == 0)
            return err_set(err, ERR_storage_unavailable,
                           "%s is there: a signetctl restore did not come to its end; run it again",
                           path);
        if (lstat(path, &st) == 0)
            return err_set(err, ERR_storage_unavailable,
                           "%s/signet.db is missing or empty, but %s is there: it is not made "
                           "anew; %s",
                           state, traces[i], way_back);
    }
    return 0;
}

/* Of the database and its two companions each is a plain file, or not there. A pipe would hold up
 * who opens it for ever, and SQLite says of none of them what is wrong. */
static int check_kind(const char *path, int *is_there, struct err *err)
{
    static const char *const companions[] = {"", "-wal", "-shm"};
    *is_there = 0;
    for (size_t i = 0; i < sizeof companions / sizeof *companions; i++) {
        char name[PATH_MAX + 8];
        struct stat st;
        snprintf(name, sizeof name, "%s%s", path, companions[i]);
        if (lstat(name, &st)) {
            if (errno != ENOENT)
                return err_set(err, ERR_storage_unavailable, "%s: %s", name, strerror(errno));
            continue;
        }
        if (!S_ISREG(st.st_mode))
            return err_set(err, ERR_storage_unavailable,
                           "%s is not a regular file: move it aside, and put the file itself there",
                           name);
        *is_there |= i == 0 && st.st_size > 0;
    }
    return 0;
}

static int make_schema(sqlite3 *db)
{
    char *sql = sqlite3_mprintf("BEGIN; %s; INSERT INTO meta VALUES ('schema', %d); COMMIT;",
                                store_schema_sql, SCHEMA);
    int rc = sql ? sqlite3_exec(db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    return rc == SQLITE_OK ? 0 : -1;
}

/* Nothing is in it: it is new, or the very first start was ended before the schema was there. */
static int is_empty(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int empty = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema", -1, &st, NULL) == SQLITE_OK &&
                sqlite3_step(st) == SQLITE_DONE;
    sqlite3_finalize(st);
    return empty;
}

static int check_schema(struct store *s, const char *path, struct err *err)
{
    int64_t schema = 0;
    int rc = tx_meta(tx_of(s), "schema", &schema);
    if (rc < 0)
        return database_error(s->db, path, err);
    if (rc > 0)
        return err_set(err, ERR_storage_unavailable,
                       "%s names no schema: it is no store of Signet; %s", path, way_back);
    if (schema != SCHEMA)
        return err_set(err, ERR_storage_unavailable,
                       "%s has schema %lld; this signetd knows %d: use the release that made it",
                       path, (long long)schema, SCHEMA);
    return 0;
}

/* Each table and index as schema.sql makes it, and no trigger or view: who drops an index undoes
 * what it guards. */
static int same_schema(sqlite3 *db, char odd[64])
{
    sqlite3 *model = NULL;
    sqlite3_stmt *st = NULL, *own = NULL;
    int step = SQLITE_ERROR, same = 1;
    snprintf(odd, 64, "?");
    if (sqlite3_open(":memory:", &model) || make_schema(model) ||
        sqlite3_prepare_v2(model,
                           "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL UNION ALL "
                           "SELECT 'a trigger or view', NULL",
                           -1, &st, NULL) ||
        sqlite3_prepare_v2(db,
                           "SELECT CASE WHEN ?2 IS NULL THEN NOT EXISTS (SELECT 1 FROM "
                           "sqlite_schema WHERE type IN ('trigger', 'view')) ELSE EXISTS (SELECT 1 "
                           "FROM sqlite_schema WHERE name = ?1 AND sql = ?2) END",
                           -1, &own, NULL))
        same = 0;
    while (same && (step = sqlite3_step(st)) == SQLITE_ROW) {
        row_text(odd, 64, st, 0);
        sqlite3_reset(own);
        same = sqlite3_bind_value(own, 1, sqlite3_column_value(st, 0)) == SQLITE_OK &&
               sqlite3_bind_value(own, 2, sqlite3_column_value(st, 1)) == SQLITE_OK &&
               sqlite3_step(own) == SQLITE_ROW && sqlite3_column_int(own, 0);
    }
    sqlite3_finalize(st);
    sqlite3_finalize(own);
    sqlite3_close(model);
    return same && step == SQLITE_DONE;
}

static int quick_check(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int good = sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL) == SQLITE_OK &&
               sqlite3_step(st) == SQLITE_ROW &&
               strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0;
    sqlite3_finalize(st);
    return good ? 0 : -1;
}

/* What wal_autocheckpoint does, which would keep a failed sync to itself. */
static int on_wal(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)arg;
    if (pages >= CHECKPOINT_PAGES &&
        sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK)
        end_if_sync_failed(db);
    return SQLITE_OK; /* otherwise the log grows, and the next commit tries again */
}

/* All that can be seen without writing. */
static int check_whole(struct store *s, const char *path, struct err *err)
{
    char odd[64];
    if (check_schema(s, path, err))
        return -1;
    if (quick_check(s->db))
        return err_set(err, ERR_storage_unavailable, "%s is corrupt; it is not made anew; %s", path,
                       way_back);
    if (!same_schema(s->db, odd))
        return err_set(err, ERR_storage_unavailable,
                       "%s is not as this signetd makes it (%s); nothing was changed; %s", path,
                       odd, way_back);
    return 0;
}

/* A log of other pages than this database's own is not carried into it when it is refused: without
 * that log the database is still what it was. */
static int set_up_to_write(struct store *s, const char *path, const char *state, struct err *err)
{
    static const char pragmas[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";
    int is_new = is_empty(s->db);
    if (sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL))
        return database_error(s->db, path, err);
    if (is_new ? may_make(state, 0, err) : check_whole(s, path, err))
        return -1;
    store_close_row(s);
    if (sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) || (is_new && make_schema(s->db)) ||
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL))
        return database_error(s->db, path, err);
    sqlite3_wal_hook(s->db, on_wal, NULL);
    s->serving = 1;
    return 0;
}

static int set_up(struct store *s, const char *path, const char *state, int writing,
                  struct err *err)
{
    static const char pragmas[] = "PRAGMA foreign_keys=ON;"
                                  "PRAGMA trusted_schema=OFF; PRAGMA temp_store=MEMORY;";
    if (sqlite3_busy_timeout(s->db, BUSY_MS) || sqlite3_exec(s->db, pragmas, NULL, NULL, NULL))
        return database_error(s->db, path, err);
    return writing ? set_up_to_write(s, path, state, err) : check_schema(s, path, err);
}

/* The folder may be reached by links, as administrators make them; of the rest SQLite refuses them
 * (SQLITE_OPEN_NOFOLLOW looks at the whole path). */
static int database_path(char path[PATH_MAX], const char *state, struct err *err)
{
    char folder[PATH_MAX];
    if (!realpath(state, folder))
        return err_set(err, ERR_storage_unavailable, "%s: %s", state, strerror(errno));
    if (snprintf(path, PATH_MAX, "%s/signet.db", folder) >= PATH_MAX)
        return err_set(err, ERR_storage_unavailable, "%s: the path is too long", state);
    return 0;
}

/* On a read-only disk nobody writes, and SQLite cannot make what it shares with writers. A log that
 * was not carried over wants writing: a copy of the folder elsewhere can be read. */
static int is_at_rest(const char *path)
{
    char log[PATH_MAX + 8];
    struct statvfs fs;
    struct stat st;
    snprintf(log, sizeof log, "%s-wal", path);
    return statvfs(path, &fs) == 0 && fs.f_flag & ST_RDONLY && (stat(log, &st) || st.st_size == 0);
}

static int open_file(struct store *s, const char *path, int writing)
{
    int flags = writing ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    if (writing || !is_at_rest(path))
        return sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOFOLLOW, NULL);
    char uri[3 * PATH_MAX + 32] = "file:";
    size_t n = strlen(uri);
    for (const char *p = path; *p; p++)
        n += (size_t)snprintf(uri + n, 4, strchr("?#%", *p) ? "%%%02x" : "%c", *p);
    snprintf(uri + n, sizeof uri - n, "?immutable=1");
    return sqlite3_open_v2(uri, &s->db, flags | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_URI, NULL);
}

static int open_database(struct store **out, const char *state, int writing, struct err *err)
{
    char path[PATH_MAX];
    int is_there;
    if (database_path(path, state, err) || check_kind(path, &is_there, err) ||
        (writing && !is_there && may_make(state, 1, err)))
        return -1;
    struct store_tx *tx = calloc(1, sizeof *tx);
    if (!tx)
        return err_set(err, ERR_internal, "no memory");
    struct store *s = of(tx);
    STAILQ_INIT(&s->waiting);
    int rc = -1;
    if (open_file(s, path, writing))
        database_error(s->db, path, err);
    else
        rc = set_up(s, path, state, writing, err);
    if (rc == 0)
        *out = s;
    else
        store_close(s);
    return rc;
}

int store_open(struct store **out, const char *state, struct err *err)
{
    return open_database(out, state, 1, err);
}

int store_open_read_only(struct store **out, const char *state, struct err *err)
{
    return open_database(out, state, 0, err);
}

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

/* One decision; its writes are taken back when it says no. -1: the transaction is lost; on a full
 * disk SQLite itself rolls all of it back. */
static int decide(struct store *s, struct task *t)
{
    if (run(s, S_savepoint, ""))
        return -1;
    t->done = t->decide(tx_of(s), t->arg) == 0;
    if (!t->done && (sqlite3_get_autocommit(s->db) || run(s, S_rollback_to, "")))
        return -1;
    return run(s, S_release, "");
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

static int run_round(struct store *s, struct tasks *round)
{
    struct task *t;
    if (is_moved(s) || run(s, S_begin, ""))
        return -1;
    STAILQ_FOREACH (t, round, next)
        if (decide(s, t))
            return -1;
    return run(s, S_commit, "");
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
                     quick_check(to)
                 ? -1
                 : 0;
    if (rc)
        err_set(err, ERR_storage_unavailable, "%s: the copy failed: %s", path,
                to ? sqlite3_errmsg(to) : "no memory");
    sqlite3_close(to);
    return rc;
}
