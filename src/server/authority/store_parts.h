/* The store on SQLite, from inside: for store_open.c (what is refused, what is made),
 * store_schema.c, store_sqlite.c (statements, rounds, a copy), store_records.c (operators,
 * requests, journal), store_certificates.c (certificates, CRLs) and store_enrolments.c. */
#ifndef SIGNET_STORE_PARTS_H
#define SIGNET_STORE_PARTS_H

#include <sqlite3.h>
#include <sys/queue.h>
#include "server/authority/store.h"

/* Every statement, by name; prepared on first use and kept. */
#define CERTIFICATE_COLUMNS                                                                        \
    "id,issuer,serial,state,profile,name,operator,subject_operator,spki_sha256,tbs_sha256,"        \
    "der_sha256,not_before,not_after,created_at,issued_at,revoked_at,reason,der,board,shard"
#define ENROLMENT_COLUMNS                                                                          \
    "id,operator,user,password_sha256,profile,mac,uses_max,uses,not_after,created_at,ended_at"
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
    /* CROSS: few issuers first; SQLite would walk all certificates */                             \
    X(issuer_by_name, "SELECT i.id FROM issuer i CROSS JOIN certificate c"                         \
                      " WHERE i.name_sha256=? AND c.issuer=i.id AND c.serial=?")                   \
    X(key_of_other, "SELECT 1 FROM certificate WHERE spki_sha256=? AND (name<>? OR profile<>?)"    \
                    " LIMIT 1")                                                                    \
    X(live_certificate, "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE name=?"             \
                        " AND profile=? AND state IN (0,1,3) AND not_after>? LIMIT 1")             \
    X(add_intent,                                                                                  \
      "INSERT INTO certificate (issuer,serial,state,profile,name,operator,subject_operator,"       \
      "spki_sha256,tbs_sha256,not_before,not_after,created_at,shard)"                              \
      " VALUES (?,?,0,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (issuer,serial) DO NOTHING")                \
    X(set_issued,                                                                                  \
      "UPDATE certificate SET state=1,der=?,der_sha256=?,issued_at=? WHERE id=? AND state=0")      \
    X(set_orphan, "UPDATE certificate SET state=4,revoked_at=?,reason=0 WHERE id=? AND state=0")   \
    X(forget_requests, "DELETE FROM request WHERE certificate=?")                                  \
    X(set_revoked, "UPDATE certificate SET state=?,revoked_at=?,reason=? WHERE id=?")              \
    X(set_replaces, "UPDATE certificate SET replaces=? WHERE id=?")                                \
    X(set_board, "UPDATE certificate SET board=?1 WHERE id=?2 AND state=1 AND board<?1")           \
    X(serial_by_id, "SELECT issuer,serial FROM certificate WHERE id=?")                            \
    X(newest_certificate, "SELECT ifnull(max(id),0) FROM certificate")                             \
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
             " WHERE operator=? AND hour>? AND hour<=?")                                           \
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
    X(last_crl_event, "SELECT seq FROM journal WHERE seq>? AND (line LIKE '% revoked serial=%' OR" \
                      " line LIKE '% orphan serial=%' OR line LIKE '% held serial=%' OR"           \
                      " line LIKE '% unheld serial=%') ORDER BY seq DESC LIMIT 1")                 \
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
                 "der_sha256=?,issued_at=?,shard=? WHERE id=? AND der IS NULL AND state>=2")       \
    X(each_revoked, "SELECT serial,revoked_at,reason FROM certificate INDEXED BY"                  \
                    " certificate_on_crl WHERE issuer=? AND state>=2"                              \
                    " AND (not_after>=? OR revoked_at>=?) ORDER BY shard,serial")                  \
    X(each_revoked_of, "SELECT serial,revoked_at,reason FROM certificate INDEXED BY"               \
                       " certificate_on_crl WHERE issuer=? AND shard=? AND state>=2"               \
                       " AND (not_after>=? OR revoked_at>=?) ORDER BY serial")                     \
    X(add_crl_url, "INSERT OR IGNORE INTO crl_url (url) VALUES (?)")                               \
    X(crl_url_after, "SELECT url FROM crl_url WHERE url>? ORDER BY url LIMIT 1")                   \
    X(enrolment_by_user, "SELECT " ENROLMENT_COLUMNS " FROM enrolment WHERE user=?")               \
    X(enrolment_after, "SELECT " ENROLMENT_COLUMNS " FROM enrolment WHERE user>? ORDER BY user"    \
                       " LIMIT 1")                                                                 \
    X(add_enrolment, "INSERT INTO enrolment (operator,user,password_sha256,profile,mac,uses_max,"  \
                     "not_after,created_at) VALUES (?,?,?,?,nullif(?,''),?,?,?)")                  \
    X(end_enrolment, "UPDATE enrolment SET ended_at=? WHERE id=? AND ended_at IS NULL")            \
    X(spend_enrolment, "UPDATE enrolment SET uses=uses+1 WHERE id=? AND uses<uses_max")            \
    X(add_enrolled, "INSERT INTO enrolled (certificate,enrolment) VALUES (?,?)")                   \
    X(give_back_use, "UPDATE enrolment SET uses=uses-1 WHERE id="                                  \
                     "(SELECT enrolment FROM enrolled WHERE certificate=?)")                       \
    X(forget_enrolled, "DELETE FROM enrolled WHERE certificate=?")                                 \
    X(enrolment_miscounted, "SELECT " ENROLMENT_COLUMNS " FROM enrolment WHERE user>? AND uses<>"  \
                            "(SELECT count(*) FROM enrolled WHERE enrolment=enrolment.id)"         \
                            " ORDER BY user LIMIT 1")                                              \
    X(counts, "SELECT state,count(*) FROM certificate GROUP BY state")

enum statement {
#define S_ENUM(name, sql) S_##name,
    STATEMENTS(S_ENUM)
#undef S_ENUM
        S_COUNT
};

struct task {
    STAILQ_ENTRY(task) next;
    store_decision decide;
    store_completion complete;
    void *arg;
    int done;
};
STAILQ_HEAD(tasks, task);

/* Of the round under way; count goes on beyond what the list holds. */
struct changes {
    store_changes_fn told;
    void *arg;
    size_t count;
    struct state_change list[STORE_CHANGES_MAX];
};

/* The newest event, once a decision of the round has looked for it. */
struct head {
    int known;
    uint64_t seq;
    uint8_t hash[32];
};

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[S_COUNT];
    sqlite3_stmt *row; /* whose result is being looked at; reset by the next call */
    struct tasks waiting;
    struct changes changes;
    struct head head;
    char problem[512];
    int serving; /* it was found whole: what goes wrong now is told in the log */
};

/* A transaction is its store: SQLite has one a connection. */
struct store_tx {
    struct store store;
};

static inline struct store *of(struct store_tx *tx)
{
    return &tx->store;
}
static inline struct store_tx *tx_of(struct store *s)
{
    return (struct store_tx *)s;
}

#define BUSY_MS 5000 /* how long another's lock is waited for */

/* Binds and steps once. format, a letter a parameter: i int64, t text, b struct bytes, d 32-byte
 * digest, o an id that is NULL when 0; text and bytes must live until the step. 0: a row (in *row,
 * also s->row; valid until the next call on this connection), 1: no row, -1: failed, with
 * store_problem() set. */
int store_query(struct store *s, sqlite3_stmt **row, enum statement which, const char *format, ...);

/* For statements without rows: 0 or -1. */
#define run(s, which, ...) (store_query(s, NULL, which, __VA_ARGS__) == 1 ? 0 : -1)

/* Notes why SQLite failed; ends the process when it was a sync. */
void store_note_problem(struct store *s);
void store_end_if_sync_failed(sqlite3 *db);
/* SQLite's quick look at the whole file: 0 sound, -1 not. */
int store_quick_check(sqlite3 *db);
/* A schema of number `to` out of one of number `from` (0: an empty database), in one transaction.
 */
#define STORE_SCHEMA 2
int store_raise_schema(sqlite3 *db, int from, int to);
/* Whether the database is as the schema of that number makes it; odd: the first that is not. */
int store_same_schema(sqlite3 *db, int schema, char odd[64]);
/* The certificate came to nothing: a use of an enrolment that went into it is open again. */
int store_give_back_use(struct store *s, int64_t certificate);
/* Done with the row of the last call. */
void store_close_row(struct store *s);
/* rc of a change that must have touched one row; none is a broken invariant of the caller's. */
int store_changed_one(struct store_tx *tx, int rc);

/* A column of a row: a view; cut or padded with zeros to size; cut, with a NUL. */
struct bytes row_bytes(sqlite3_stmt *row, int n);
void row_fixed(uint8_t *out, size_t size, sqlite3_stmt *row, int n);
void row_text(char *out, size_t size, sqlite3_stmt *row, int n);

#endif
