/* The store on SQLite: one file, write-ahead log, synchronous=FULL, one commit a round. */
#include "server/authority/store.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define SCHEMA 1
#define CHECKPOINT_PAGES 2000
#define EVENT_MAX 1280                /* a journal line: number, time, up to 1023 of text, hash */
extern const char store_schema_sql[]; /* schema.sql, made into C by the build */

/* Every statement, by name; prepared on first use and kept. */
#define CERTIFICATE_COLUMNS                                                                        \
    "id,issuer,serial,state,profile,name,operator,subject_operator,spki_sha256,tbs_sha256,"        \
    "der_sha256,not_before,not_after,created_at,issued_at,revoked_at,reason,der,board"
#define STATEMENTS(X)                                                                              \
    X(begin, "BEGIN IMMEDIATE")                                                                    \
    X(begin_read, "BEGIN")                                                                         \
    X(commit, "COMMIT")                                                                            \
    X(rollback, "ROLLBACK")                                                                        \
    X(savepoint, "SAVEPOINT decision")                                                             \
    X(release, "RELEASE decision")                                                                 \
    X(rollback_to, "ROLLBACK TO decision")                                                         \
    X(certificate_by_serial,                                                                       \
      "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE issuer=? AND serial=?")               \
    X(certificate_by_id, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE id=?")             \
    X(issuer_by_name, "SELECT i.id FROM issuer i JOIN certificate c ON c.issuer=i.id"              \
                      " WHERE i.name_sha256=? AND c.serial=?")                                     \
    X(key_of_other, "SELECT 1 FROM certificate WHERE spki_sha256=? AND (name<>? OR profile<>?)"    \
                    " LIMIT 1")                                                                    \
    X(live_certificate, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE name=?"             \
                        " AND profile=? AND state IN (0,1,3) AND not_after>? LIMIT 1")             \
    X(add_intent,                                                                                  \
      "INSERT INTO certificate (issuer,serial,state,profile,name,operator,subject_operator,"       \
      "spki_sha256,tbs_sha256,not_before,not_after,created_at) VALUES (?,?,0,?,?,?,?,?,?,?,?,?)")  \
    X(set_issued,                                                                                  \
      "UPDATE certificate SET state=1,der=?,der_sha256=?,issued_at=? WHERE id=? AND state=0")      \
    X(set_orphan, "UPDATE certificate SET state=4,revoked_at=?,reason=0 WHERE id=? AND state=0")   \
    X(forget_requests, "DELETE FROM request WHERE certificate=?")                                  \
    X(set_revoked, "UPDATE certificate SET state=?,revoked_at=?,reason=? WHERE id=?")              \
    X(set_replaces, "UPDATE certificate SET replaces=? WHERE id=?")                                \
    X(set_unheld,                                                                                  \
      "UPDATE certificate SET state=1,revoked_at=NULL,reason=NULL WHERE id=? AND state=3")         \
    X(issued_by_operator, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE operator=?"       \
                          " AND issued_at BETWEEN ? AND ? AND id>? AND state IN (1,3)"             \
                          " ORDER BY id LIMIT 1")                                                  \
    X(live_of_name, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE name=? AND id>?"        \
                    " AND state IN (1,3) AND not_after>? AND operator IS NOT NULL"                 \
                    " ORDER BY id LIMIT 1")                                                        \
    X(usage, "SELECT coalesce(sum(issued) FILTER (WHERE hour=?),0),coalesce(sum(issued),0),"       \
             "coalesce(sum(revoked) FILTER (WHERE hour=?),0),coalesce(sum(revoked),0) FROM usage"  \
             " WHERE operator=? AND hour>?")                                                       \
    X(add_usage, "INSERT INTO usage (operator,hour,issued,revoked) VALUES (?,?,?,?)"               \
                 " ON CONFLICT DO UPDATE SET issued=issued+excluded.issued,"                       \
                 "revoked=revoked+excluded.revoked")                                               \
    X(last_event_time, "SELECT at FROM journal ORDER BY seq DESC LIMIT 1")                         \
    X(open_intent, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE state=0 LIMIT 1")        \
    X(request, "SELECT body_sha256,certificate,result FROM request WHERE key=?")                   \
    X(add_request, "INSERT INTO request (key,body_sha256,certificate,result,created_at)"           \
                   " VALUES (?,?,?,?,?)")                                                          \
    X(find_issuer, "SELECT id FROM issuer WHERE certificate_sha256=?")                             \
    X(find_issuer_by_key, "SELECT i.id FROM issuer i JOIN ca_key k ON k.id=i.key"                  \
                          " WHERE k.spki_sha256=? AND i.name_sha256=?")                            \
    X(renew_issuer, "UPDATE issuer SET certificate_sha256=?,certificate=?,not_after=? WHERE id=?") \
    X(add_key, "INSERT OR IGNORE INTO ca_key (spki_sha256) VALUES (?)")                            \
    X(find_key, "SELECT id FROM ca_key WHERE spki_sha256=?")                                       \
    X(add_issuer, "INSERT INTO issuer (key,name_sha256,certificate_sha256,certificate,not_after,"  \
                  "added_at) VALUES (?,?,?,?,?,?)")                                                \
    X(operator_by_name, "SELECT id,name,roles,revoked_at FROM operator WHERE name=?")              \
    X(operator_by_id, "SELECT id,name,roles,revoked_at FROM operator WHERE id=?")                  \
    X(operator_after, "SELECT id,name,roles,revoked_at FROM operator WHERE name>?"                 \
                      " ORDER BY name LIMIT 1")                                                    \
    X(add_operator, "INSERT INTO operator (name,roles,created_at) VALUES (?,?,?)")                 \
    X(set_operator, "UPDATE operator SET roles=?,revoked_at=? WHERE id=?")                         \
    X(operator_certificate, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE"                \
                            " subject_operator=? AND id<? AND state IN (0,1,3) AND not_after>?"    \
                            " ORDER BY id DESC LIMIT 1")                                           \
    X(journal_head, "SELECT seq,hash FROM journal ORDER BY seq DESC LIMIT 1")                      \
    X(add_event, "INSERT INTO journal (seq,at,line,hash,certificate) VALUES (?,?,?,?,?)")          \
    X(event_after, "SELECT seq,line,certificate,hash,at FROM journal WHERE seq>? ORDER BY seq"     \
                   " LIMIT 1")                                                                     \
    X(meta, "SELECT value FROM meta WHERE name=?")                                                 \
    X(set_meta, "INSERT INTO meta (name,value) VALUES (?,?)"                                       \
                " ON CONFLICT (name) DO UPDATE SET value=excluded.value")                          \
    X(last_crl, "SELECT number,journal_seq,this_update,next_update,sha256 FROM crl WHERE issuer=?" \
                " AND shard=? AND (?=0 OR sha256 IS NOT NULL) ORDER BY number DESC LIMIT 1")       \
    X(add_crl, "INSERT INTO crl (issuer,shard,number,this_update,next_update,journal_seq)"         \
               " VALUES (?,?,?,?,?,?)")                                                            \
    X(set_crl_published, "UPDATE crl SET sha256=?,journal_seq=? WHERE issuer=? AND shard=?"        \
                         " AND number=?")                                                          \
    X(each_crl, "SELECT number,journal_seq,this_update,next_update,sha256,issuer,shard FROM crl"   \
                " ORDER BY issuer,shard,number")                                                   \
    X(issuer_by_id, "SELECT certificate FROM issuer WHERE id=?")                                   \
    X(set_found, "UPDATE certificate SET state=CASE state WHEN 4 THEN 2 ELSE state END,profile=?," \
                 "name=?,operator=?,spki_sha256=?,tbs_sha256=?,not_before=?,not_after=?,der=?,"    \
                 "der_sha256=?,issued_at=? WHERE id=? AND der IS NULL AND state>=2")               \
    X(each_revoked, "SELECT serial,revoked_at,reason FROM certificate INDEXED BY"                  \
                    " certificate_on_crl WHERE issuer=? AND shard=? AND state>=2"                  \
                    " AND (not_after>=? OR revoked_at>=?) ORDER BY serial")                        \
    X(counts, "SELECT state,count(*) FROM certificate GROUP BY state")

enum statement {
#define S_ENUM(name, sql) S_##name,
    STATEMENTS(S_ENUM)
#undef S_ENUM
        S_COUNT
};

static const char *const sql_of[] = {
#define S_TEXT(name, sql) [S_##name] = sql,
    STATEMENTS(S_TEXT)
#undef S_TEXT
};

struct task {
    STAILQ_ENTRY(task) next;
    store_decision decide;
    store_completion complete;
    void *arg;
    int done;
};
STAILQ_HEAD(tasks, task);

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[S_COUNT];
    sqlite3_stmt *row; /* whose result is being looked at; reset by the next call */
    struct tasks waiting;
    char problem[512];
};

/* A transaction is its store: SQLite has one a connection. */
struct store_tx {
    struct store store;
};

static struct store *of(struct store_tx *tx)
{
    return &tx->store;
}

static struct store_tx *tx_of(struct store *s)
{
    return (struct store_tx *)s;
}

const char *certificate_state_name(enum certificate_state s)
{
    static const char *const names[] = {"intent", "issued", "revoked", "held", "orphan"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

/* ---- statements ---- */

static void close_row(struct store *s)
{
    sqlite3_reset(s->row);
    s->row = NULL;
}

static sqlite3_stmt *statement(struct store *s, enum statement which)
{
    sqlite3_stmt **st = &s->statements[which];
    close_row(s);
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

static void note_problem(struct store *s)
{
    snprintf(s->problem, sizeof s->problem, "the database: %s", sqlite3_errmsg(s->db));
    end_if_sync_failed(s->db);
}

/* Binds and steps once. 0: a row (in *row, valid until the statement's next use), 1: no row,
 * -1: failed. */
static int query(struct store *s, sqlite3_stmt **row, enum statement which, const char *format, ...)
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
    note_problem(s);
    if (st)
        sqlite3_reset(st);
    return -1;
}

/* For statements without rows: 0 or -1. */
#define run(s, which, ...) (query(s, NULL, which, __VA_ARGS__) == 1 ? 0 : -1)

static struct bytes column(sqlite3_stmt *row, int n)
{
    const void *data = sqlite3_column_blob(row, n); /* before the length, as SQLite asks */
    return (struct bytes){data, (size_t)sqlite3_column_bytes(row, n)};
}

static void column_fixed(uint8_t *out, size_t size, sqlite3_stmt *row, int n)
{
    struct bytes b = column(row, n);
    memset(out, 0, size);
    if (b.len)
        memcpy(out, b.data, b.len < size ? b.len : size);
}

static void column_text(char *out, size_t size, sqlite3_stmt *row, int n)
{
    snprintf(out, size, "%s", (const char *)sqlite3_column_text(row, n));
}

/* ---- opening ---- */

static int database_error(sqlite3 *db, const char *path, struct err *err)
{
    return err_set(err, ERR_storage_unavailable,
                   "%s: %s; restore a backup, or see docs/recovery.md, but do not delete it", path,
                   db ? sqlite3_errmsg(db) : "no memory");
}

static int exists(const char *state, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", state, name);
    return stat(path, &st) == 0;
}

static int may_make(const char *state, struct err *err)
{
    if (!exists(state, "journal.log") && !exists(state, "certs"))
        return 0;
    return err_set(err, ERR_storage_unavailable,
                   "%s/signet.db is missing or empty, but a journal or certificates are there: "
                   "restore the database from a backup; it is not made anew",
                   state);
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
    if (tx_meta(tx_of(s), "schema", &schema))
        return database_error(s->db, path, err);
    if (schema != SCHEMA)
        return err_set(err, ERR_storage_unavailable,
                       "%s has schema %lld; this signetd knows %d: use the release that made it",
                       path, (long long)schema, SCHEMA);
    return 0;
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

static int set_up(struct store *s, const char *path, const char *state, int writing,
                  struct err *err)
{
    static const char pragmas[] = "PRAGMA busy_timeout=5000; PRAGMA foreign_keys=ON;"
                                  "PRAGMA trusted_schema=OFF; PRAGMA temp_store=MEMORY;";
    static const char for_writing[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";
    if (sqlite3_exec(s->db, pragmas, NULL, NULL, NULL) ||
        (writing && sqlite3_exec(s->db, for_writing, NULL, NULL, NULL)))
        return database_error(s->db, path, err);
    if (writing && is_empty(s->db)) {
        if (may_make(state, err))
            return -1;
        if (make_schema(s->db))
            return database_error(s->db, path, err);
    }
    if (check_schema(s, path, err))
        return -1;
    if (writing && quick_check(s->db))
        return err_set(err, ERR_storage_unavailable,
                       "%s is corrupt: restore a backup; it is not made anew", path);
    if (writing)
        sqlite3_wal_hook(s->db, on_wal, NULL);
    return 0;
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

static int open_database(struct store **out, const char *state, int writing, struct err *err)
{
    char path[PATH_MAX];
    if (database_path(path, state, err) ||
        (writing && !exists(state, "signet.db") && may_make(state, err)))
        return -1;
    struct store_tx *tx = calloc(1, sizeof *tx);
    if (!tx)
        return err_set(err, ERR_internal, "no memory");
    struct store *s = of(tx);
    STAILQ_INIT(&s->waiting);
    int flags = writing ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    int rc = -1;
    if (sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOFOLLOW, NULL) != SQLITE_OK)
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
    close_row(s);
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

static int run_round(struct store *s, struct tasks *round)
{
    struct task *t;
    if (run(s, S_begin, ""))
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

void store_try(struct store *s)
{
    if (s->problem[0] && store_submit(s, try_to_write, tried, NULL))
        return; /* the next second comes */
}

int store_read(struct store *s, store_decision reader, void *arg)
{
    if (run(s, S_begin_read, ""))
        return -1;
    int rc = reader(tx_of(s), arg);
    return run(s, S_rollback, "") ? -1 : rc;
}

/* ---- certificates ---- */

static void read_certificate(sqlite3_stmt *row, struct certificate_row *c)
{
    memset(c, 0, sizeof *c);
    c->id = sqlite3_column_int64(row, 0);
    c->issuer = sqlite3_column_int64(row, 1);
    struct bytes serial = column(row, 2);
    c->serial_len = serial.len < sizeof c->serial ? serial.len : sizeof c->serial;
    column_fixed(c->serial, sizeof c->serial, row, 2);
    c->state = (enum certificate_state)sqlite3_column_int(row, 3);
    column_text(c->profile, sizeof c->profile, row, 4);
    column_text(c->name, sizeof c->name, row, 5);
    c->operator_id = sqlite3_column_int64(row, 6);
    c->subject_operator = sqlite3_column_int64(row, 7);
    column_fixed(c->spki_sha256, 32, row, 8);
    column_fixed(c->tbs_sha256, 32, row, 9);
    column_fixed(c->der_sha256, 32, row, 10);
    c->not_before = sqlite3_column_int64(row, 11);
    c->not_after = sqlite3_column_int64(row, 12);
    c->created_at = sqlite3_column_int64(row, 13);
    c->issued_at = sqlite3_column_int64(row, 14);
    c->revoked_at = sqlite3_column_int64(row, 15);
    c->reason = sqlite3_column_int(row, 16);
    c->der = column(row, 17);
    c->board = sqlite3_column_int(row, 18);
}

static int found_certificate(struct store_tx *tx, int rc, struct certificate_row *c)
{
    if (rc == 0)
        read_certificate(of(tx)->row, c);
    return rc;
}

int tx_certificate_by_serial(struct store_tx *tx, int64_t issuer, struct bytes serial,
                             struct certificate_row *c)
{
    return found_certificate(tx, query(of(tx), NULL, S_certificate_by_serial, "ib", issuer, serial),
                             c);
}

int tx_certificate_by_id(struct store_tx *tx, int64_t id, struct certificate_row *c)
{
    return found_certificate(tx, query(of(tx), NULL, S_certificate_by_id, "i", id), c);
}

int tx_issuer_by_name(struct store_tx *tx, struct bytes name_sha256, struct bytes serial,
                      int64_t *issuer)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_issuer_by_name, "bb", name_sha256, serial);
    if (rc == 0)
        *issuer = sqlite3_column_int64(row, 0);
    return rc;
}

int tx_key_of_other(struct store_tx *tx, const uint8_t spki_sha256[32], const char *name,
                    const char *profile)
{
    return query(of(tx), NULL, S_key_of_other, "dtt", spki_sha256, name, profile);
}

int tx_live_certificate(struct store_tx *tx, const char *name, const char *profile, int64_t now,
                        struct certificate_row *c)
{
    return found_certificate(tx, query(of(tx), NULL, S_live_certificate, "tti", name, profile, now),
                             c);
}

int tx_open_intent(struct store_tx *tx, struct certificate_row *c)
{
    return found_certificate(tx, query(of(tx), NULL, S_open_intent, ""), c);
}

int tx_operator_certificate(struct store_tx *tx, int64_t operator_id, int64_t below, int64_t now,
                            struct certificate_row *c)
{
    return found_certificate(
        tx, query(of(tx), NULL, S_operator_certificate, "iii", operator_id, below, now), c);
}

int tx_add_intent(struct store_tx *tx, struct certificate_row *c)
{
    struct bytes serial = {c->serial, c->serial_len};
    if (run(of(tx), S_add_intent, "ibttooddiii", c->issuer, serial, c->profile, c->name,
            c->operator_id, c->subject_operator, c->spki_sha256, c->tbs_sha256, c->not_before,
            c->not_after, c->created_at))
        return -1;
    c->id = sqlite3_last_insert_rowid(of(tx)->db);
    return 0;
}

/* A change that must touch one row; none is a broken invariant of the caller's. */
static int changed_one(struct store_tx *tx, int rc)
{
    return rc == 0 && sqlite3_changes(of(tx)->db) == 1 ? 0 : -1;
}

int tx_set_issued(struct store_tx *tx, int64_t id, struct bytes der, const uint8_t sha256[32],
                  int64_t at)
{
    return changed_one(tx, run(of(tx), S_set_issued, "bdii", der, sha256, at, id));
}

int tx_set_orphan(struct store_tx *tx, int64_t id, int64_t at)
{
    if (changed_one(tx, run(of(tx), S_set_orphan, "ii", at, id)))
        return -1;
    return run(of(tx), S_forget_requests, "i", id);
}

int tx_set_revoked(struct store_tx *tx, int64_t id, enum certificate_state state, int64_t at,
                   int reason)
{
    return changed_one(tx,
                       run(of(tx), S_set_revoked, "iiii", (int64_t)state, at, (int64_t)reason, id));
}

int tx_set_found(struct store_tx *tx, const struct certificate_row *c, struct bytes der,
                 const uint8_t sha256[32], int64_t at)
{
    return changed_one(tx, run(of(tx), S_set_found, "ttoddiibdii", c->profile, c->name,
                               c->operator_id, c->spki_sha256, c->tbs_sha256, c->not_before,
                               c->not_after, der, sha256, at, c->id));
}

int tx_set_replaces(struct store_tx *tx, int64_t id, int64_t older)
{
    return changed_one(tx, run(of(tx), S_set_replaces, "ii", older, id));
}

int tx_set_unheld(struct store_tx *tx, int64_t id)
{
    return changed_one(tx, run(of(tx), S_set_unheld, "i", id));
}

int tx_issued_by_operator(struct store_tx *tx, int64_t operator_id, int64_t from, int64_t to,
                          int64_t after, struct certificate_row *c)
{
    return found_certificate(
        tx, query(of(tx), NULL, S_issued_by_operator, "iiii", operator_id, from, to, after), c);
}

int tx_live_of_name(struct store_tx *tx, const char *name, int64_t now, int64_t after,
                    struct certificate_row *c)
{
    return found_certificate(tx, query(of(tx), NULL, S_live_of_name, "tii", name, after, now), c);
}

/* The conditions that are asked for, so that SQLite can choose an index by them. Ids rise with
 * time, so a time is looked up once and the rows are walked by id. */
static int list_statement(struct store *s, const struct list_filter *f, sqlite3_stmt **st)
{
    char sql[1024];
    snprintf(
        sql, sizeof sql,
        "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE id>?1%s%s%s%s%s"
        " ORDER BY id LIMIT ?2",
        f->name && *f->name ? " AND name=?3" : "", f->operator_id ? " AND operator=?4" : "",
        f->state >= 0 ? " AND state=?5" : "",
        f->from ? " AND id>=(SELECT ifnull(min(id),1<<62) FROM certificate WHERE created_at>=?6)"
                : "",
        f->to ? " AND id<=(SELECT ifnull(max(id),0) FROM certificate WHERE created_at<=?7)" : "");
    if (sqlite3_prepare_v2(s->db, sql, -1, st, NULL))
        return -1;
    sqlite3_bind_int64(*st, 1, f->after);
    sqlite3_bind_int64(*st, 2, f->limit);
    if (f->name && *f->name)
        sqlite3_bind_text(*st, 3, f->name, -1, SQLITE_STATIC);
    if (f->operator_id)
        sqlite3_bind_int64(*st, 4, f->operator_id);
    if (f->state >= 0)
        sqlite3_bind_int64(*st, 5, f->state);
    if (f->from)
        sqlite3_bind_int64(*st, 6, f->from);
    if (f->to)
        sqlite3_bind_int64(*st, 7, f->to);
    return 0;
}

int tx_list(struct store_tx *tx, const struct list_filter *filter,
            int (*each)(const struct certificate_row *row, void *arg), void *arg)
{
    sqlite3_stmt *st = NULL;
    int step = SQLITE_ERROR;
    if (list_statement(of(tx), filter, &st) == 0)
        while ((step = sqlite3_step(st)) == SQLITE_ROW) {
            struct certificate_row row;
            read_certificate(st, &row);
            if (each(&row, arg))
                break;
        }
    if (step != SQLITE_DONE)
        note_problem(of(tx));
    sqlite3_finalize(st);
    return step == SQLITE_DONE ? 0 : -1;
}

#define HOUR 3600

int tx_usage(struct store_tx *tx, int64_t operator_id, int64_t now, struct usage *usage)
{
    sqlite3_stmt *row;
    int64_t hour = now / HOUR;
    if (query(of(tx), &row, S_usage, "iiii", hour, hour, operator_id, hour - 24) != 0)
        return -1;
    usage->issued_hour = (uint64_t)sqlite3_column_int64(row, 0);
    usage->issued_day = (uint64_t)sqlite3_column_int64(row, 1);
    usage->revoked_hour = (uint64_t)sqlite3_column_int64(row, 2);
    usage->revoked_day = (uint64_t)sqlite3_column_int64(row, 3);
    return 0;
}

static int add_usage(struct store_tx *tx, int64_t operator_id, int64_t now, unsigned issued,
                     unsigned revoked)
{
    return run(of(tx), S_add_usage, "iiii", operator_id, now / HOUR, (int64_t)issued,
               (int64_t)revoked);
}

int tx_add_usage(struct store_tx *tx, int64_t operator_id, int64_t now, unsigned issued,
                 unsigned revoked)
{
    return (operator_id && add_usage(tx, operator_id, now, issued, revoked)) ||
                   add_usage(tx, 0, now, issued, revoked)
               ? -1
               : 0;
}

/* ---- requests, issuers, operators ---- */

int tx_request(struct store_tx *tx, const uint8_t key[32], struct request_row *r)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_request, "d", key);
    if (rc == 0) {
        column_fixed(r->body_sha256, 32, row, 0);
        r->certificate = sqlite3_column_int64(row, 1);
        r->result = sqlite3_column_int64(row, 2);
    }
    return rc;
}

int tx_add_request(struct store_tx *tx, const uint8_t key[32], const struct request_row *r,
                   int64_t at)
{
    return run(of(tx), S_add_request, "ddoii", key, r->body_sha256, r->certificate, r->result, at);
}

static int add_issuer(struct store_tx *tx, struct bytes certificate, const uint8_t digest[32],
                      const uint8_t name_sha256[32], const uint8_t spki_sha256[32],
                      int64_t not_after, int64_t now, int64_t *id)
{
    sqlite3_stmt *row;
    if (run(of(tx), S_add_key, "d", spki_sha256) ||
        query(of(tx), &row, S_find_key, "d", spki_sha256) != 0)
        return -1;
    int64_t key = sqlite3_column_int64(row, 0);
    if (run(of(tx), S_add_issuer, "iddbii", key, name_sha256, digest, certificate, not_after, now))
        return -1;
    *id = sqlite3_last_insert_rowid(of(tx)->db);
    return 0;
}

int tx_issuer(struct store_tx *tx, struct bytes certificate, const uint8_t name_sha256[32],
              const uint8_t spki_sha256[32], int64_t not_after, int64_t now, int64_t *id)
{
    uint8_t digest[32];
    sqlite3_stmt *row;
    sha256(digest, certificate);
    int rc = query(of(tx), &row, S_find_issuer, "d", digest);
    if (rc == 0)
        *id = sqlite3_column_int64(row, 0);
    if (rc != 1)
        return rc;
    rc = query(of(tx), &row, S_find_issuer_by_key, "dd", spki_sha256, name_sha256);
    if (rc == 0) { /* certified anew: the same CA, whose serials and CRL numbers go on */
        *id = sqlite3_column_int64(row, 0);
        return run(of(tx), S_renew_issuer, "dbii", digest, certificate, not_after, *id);
    }
    if (rc != 1)
        return rc;
    return add_issuer(tx, certificate, digest, name_sha256, spki_sha256, not_after, now, id);
}

int tx_issuer_by_id(struct store_tx *tx, int64_t id, struct bytes *certificate)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_issuer_by_id, "i", id);
    if (rc == 0)
        *certificate = column(row, 0);
    return rc;
}

static int found_operator(struct store_tx *tx, int rc, struct operator_row *o)
{
    sqlite3_stmt *row = of(tx)->row;
    if (rc == 0) {
        o->id = sqlite3_column_int64(row, 0);
        column_text(o->name, sizeof o->name, row, 1);
        o->roles = (unsigned)sqlite3_column_int(row, 2);
        o->revoked_at = sqlite3_column_int64(row, 3);
    }
    return rc;
}

int tx_operator_by_name(struct store_tx *tx, const char *name, struct operator_row *o)
{
    return found_operator(tx, query(of(tx), NULL, S_operator_by_name, "t", name), o);
}

int tx_operator_by_id(struct store_tx *tx, int64_t id, struct operator_row *o)
{
    return found_operator(tx, query(of(tx), NULL, S_operator_by_id, "i", id), o);
}

int tx_operator_after(struct store_tx *tx, const char *name, struct operator_row *o)
{
    return found_operator(tx, query(of(tx), NULL, S_operator_after, "t", name), o);
}

int tx_add_operator(struct store_tx *tx, struct operator_row *o, int64_t at)
{
    if (run(of(tx), S_add_operator, "tii", o->name, (int64_t)o->roles, at))
        return -1;
    o->id = sqlite3_last_insert_rowid(of(tx)->db);
    return 0;
}

int tx_set_operator(struct store_tx *tx, const struct operator_row *o)
{
    return changed_one(tx,
                       run(of(tx), S_set_operator, "ioi", (int64_t)o->roles, o->revoked_at, o->id));
}

/* ---- journal ---- */

int tx_journal_head(struct store_tx *tx, uint64_t *seq, uint8_t hash[32])
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_journal_head, "");
    if (rc < 0)
        return -1;
    *seq = rc == 0 ? (uint64_t)sqlite3_column_int64(row, 0) : 0;
    memset(hash, 0, 32);
    if (rc == 0)
        column_fixed(hash, 32, row, 1);
    return 0;
}

int tx_last_event_time(struct store_tx *tx, int64_t *at)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_last_event_time, "");
    if (rc == 0)
        *at = sqlite3_column_int64(row, 0);
    return rc;
}

/* SHA-256 over the hash before and "seq time text": the chain that each CRL anchors. */
static void chain(uint8_t hash[32], const char *line, size_t len)
{
    uint8_t both[32 + EVENT_MAX];
    memcpy(both, hash, 32);
    memcpy(both + 32, line, len);
    sha256(hash, (struct bytes){both, 32 + len});
}

int tx_event(struct store_tx *tx, int64_t at, int64_t certificate, const char *fmt, ...)
{
    uint64_t seq;
    uint8_t hash[32];
    char text[1024], when[32], line[EVENT_MAX], hex[65];
    struct tm tm;
    time_t t = (time_t)at;
    if (tx_journal_head(tx, &seq, hash))
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?'; /* one event, one line */
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    int n = snprintf(line, sizeof line, "%llu %s %s", (unsigned long long)seq + 1, when, text);
    size_t len = n > 0 ? (size_t)n : 0;
    chain(hash, line, len);
    hex_encode(hex, (struct bytes){hash, 32});
    snprintf(line + len, sizeof line - len, " %s", hex);
    return run(of(tx), S_add_event, "iitdo", (int64_t)seq + 1, at, line, hash, certificate);
}

int tx_event_after(struct store_tx *tx, uint64_t seq, struct event_row *e)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_event_after, "i", (int64_t)seq);
    if (rc == 0) {
        e->seq = (uint64_t)sqlite3_column_int64(row, 0);
        e->line = (const char *)sqlite3_column_text(row, 1);
        e->certificate = sqlite3_column_int64(row, 2);
        column_fixed(e->hash, 32, row, 3);
        e->at = sqlite3_column_int64(row, 4);
    }
    return rc;
}

int tx_meta(struct store_tx *tx, const char *name, int64_t *value)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_meta, "t", name);
    if (rc == 0)
        *value = sqlite3_column_int64(row, 0);
    return rc;
}

int tx_set_meta(struct store_tx *tx, const char *name, int64_t value)
{
    return run(of(tx), S_set_meta, "ti", name, value);
}

/* ---- CRLs ---- */

static void read_crl(sqlite3_stmt *row, int64_t issuer, int shard, struct crl_row *c)
{
    *c = (struct crl_row){.issuer = issuer, .shard = shard};
    c->number = (uint64_t)sqlite3_column_int64(row, 0);
    c->journal_seq = (uint64_t)sqlite3_column_int64(row, 1);
    c->this_update = sqlite3_column_int64(row, 2);
    c->next_update = sqlite3_column_int64(row, 3);
    c->published = sqlite3_column_type(row, 4) != SQLITE_NULL;
    column_fixed(c->sha256, 32, row, 4);
}

int tx_last_crl(struct store_tx *tx, int64_t issuer, int shard, int published_only,
                struct crl_row *c)
{
    sqlite3_stmt *row;
    int rc =
        query(of(tx), &row, S_last_crl, "iii", issuer, (int64_t)shard, (int64_t)published_only);
    if (rc == 0)
        read_crl(row, issuer, shard, c);
    return rc;
}

int tx_each_crl(struct store_tx *tx, int (*each)(const struct crl_row *row, void *arg), void *arg)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_each_crl, "");
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    int step = SQLITE_ROW;
    for (; step == SQLITE_ROW; step = sqlite3_step(row)) {
        struct crl_row c;
        read_crl(row, sqlite3_column_int64(row, 5), sqlite3_column_int(row, 6), &c);
        if (each(&c, arg))
            break;
    }
    close_row(of(tx));
    return step == SQLITE_DONE ? 0 : -1;
}

int tx_add_crl(struct store_tx *tx, const struct crl_row *c)
{
    return run(of(tx), S_add_crl, "iiiiii", c->issuer, (int64_t)c->shard, (int64_t)c->number,
               c->this_update, c->next_update, (int64_t)c->journal_seq);
}

int tx_set_crl_published(struct store_tx *tx, const struct crl_row *c)
{
    return changed_one(tx,
                       run(of(tx), S_set_crl_published, "diiii", c->sha256, (int64_t)c->journal_seq,
                           c->issuer, (int64_t)c->shard, (int64_t)c->number));
}

int tx_each_revoked(struct store_tx *tx, int64_t issuer, int shard, int64_t expired_before,
                    int (*each)(const struct revoked_row *row, void *arg), void *arg)
{
    sqlite3_stmt *row;
    int rc = query(of(tx), &row, S_each_revoked, "iiii", issuer, (int64_t)shard, expired_before,
                   expired_before);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    int step = SQLITE_ROW;
    for (; step == SQLITE_ROW; step = sqlite3_step(row)) {
        struct revoked_row r = {column(row, 0), sqlite3_column_int64(row, 1),
                                sqlite3_column_int(row, 2)};
        if (each(&r, arg))
            break;
    }
    close_row(of(tx));
    return step == SQLITE_DONE ? 0 : -1;
}

int tx_counts(struct store_tx *tx, struct store_counts *counts)
{
    sqlite3_stmt *row;
    *counts = (struct store_counts){0};
    int rc = query(of(tx), &row, S_counts, "");
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    do {
        uint64_t n = (uint64_t)sqlite3_column_int64(row, 1);
        switch ((enum certificate_state)sqlite3_column_int(row, 0)) {
        case STATE_INTENT:
            counts->open = n;
            break;
        case STATE_ISSUED:
            counts->issued += n;
            break;
        case STATE_REVOKED:
        case STATE_HELD:
            counts->revoked += n;
            break;
        case STATE_ORPHAN:
            counts->orphans = n;
            break;
        }
    } while (sqlite3_step(row) == SQLITE_ROW);
    close_row(of(tx));
    return 0;
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
        note_problem(s);
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
