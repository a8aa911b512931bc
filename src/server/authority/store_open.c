/* Opening the store on SQLite: one file, write-ahead log, synchronous=FULL. All is looked at before
 * anything is written: what is refused stays as it was. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "common/log.h"
#include "server/authority/store_parts.h"

/* Of the log (32 MB). To carry it over takes three syncs, for which everybody waits, and writes
 * each page of the database that changed since the last time: so not often. */
#define CHECKPOINT_PAGES 8000

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

/* Nothing is in it: it is new, or the very first start was ended before the schema was there. */
static int is_empty(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int empty = sqlite3_prepare_v2(db, "SELECT 1 FROM sqlite_schema", -1, &st, NULL) == SQLITE_OK &&
                sqlite3_step(st) == SQLITE_DONE;
    sqlite3_finalize(st);
    return empty;
}

/* Which it has, 1 to STORE_SCHEMA. */
static int find_schema(struct store *s, const char *path, int64_t *schema, struct err *err)
{
    int rc = tx_meta(tx_of(s), "schema", schema);
    if (rc < 0)
        return database_error(s->db, path, err);
    if (rc > 0)
        return err_set(err, ERR_storage_unavailable,
                       "%s names no schema: it is no store of Signet; %s", path, way_back);
    if (*schema < 1 || *schema > STORE_SCHEMA)
        return err_set(err, ERR_storage_unavailable,
                       "%s has schema %lld; this signetd knows %d: use the release that made it",
                       path, (long long)*schema, STORE_SCHEMA);
    return 0;
}

/* Who only reads cannot bring it here. */
static int check_current(struct store *s, const char *path, struct err *err)
{
    int64_t schema;
    if (find_schema(s, path, &schema, err))
        return -1;
    if (schema != STORE_SCHEMA)
        return err_set(err, ERR_storage_unavailable,
                       "%s has schema %lld, of an earlier release: start signetd once, which makes "
                       "it schema %d",
                       path, (long long)schema, STORE_SCHEMA);
    return 0;
}

int store_quick_check(sqlite3 *db)
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
        store_end_if_sync_failed(db);
    return SQLITE_OK; /* otherwise the log grows, and the next commit tries again */
}

/* All that can be seen without writing. */
static int check_whole(struct store *s, const char *path, int64_t *schema, struct err *err)
{
    char odd[64];
    if (find_schema(s, path, schema, err))
        return -1;
    if (store_quick_check(s->db))
        return err_set(err, ERR_storage_unavailable, "%s is corrupt; it is not made anew; %s", path,
                       way_back);
    if (!store_same_schema(s->db, (int)*schema, odd))
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
    int64_t schema = 0;
    int is_new = is_empty(s->db);
    if (sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL))
        return database_error(s->db, path, err);
    if (is_new ? may_make(state, 0, err) : check_whole(s, path, &schema, err))
        return -1;
    store_close_row(s);
    if (sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) ||
        (schema < STORE_SCHEMA && store_raise_schema(s->db, (int)schema, STORE_SCHEMA)) ||
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL))
        return database_error(s->db, path, err);
    if (schema && schema < STORE_SCHEMA)
        log_info("%s: schema %d became %d", path, (int)schema, STORE_SCHEMA);
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
    return writing ? set_up_to_write(s, path, state, err) : check_current(s, path, err);
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

/* For the whole process, before its first use: there are no threads, and nobody asks SQLite how
 * much memory it has. Later calls are refused, and change nothing. */
static void configure_sqlite(void)
{
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static int open_file(struct store *s, const char *path, int writing)
{
    configure_sqlite();
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
