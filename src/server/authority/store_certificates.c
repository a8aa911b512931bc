/* The store's certificates: as they come to be, as they are looked for, and as CRLs list them. */
#include <stdio.h>
#include <string.h>

#include "server/authority/store_parts.h"

const char *certificate_state_name(enum certificate_state s)
{
    static const char *const names[] = {"intent", "issued", "revoked", "held", "orphan"};
    return (unsigned)s < sizeof names / sizeof *names ? names[s] : "?";
}

const char *board_state_name(enum board_state b)
{
    static const char *const names[] = {"issued", "flashed", "verified"};
    return (unsigned)b < sizeof names / sizeof *names ? names[b] : "?";
}

/* ---- certificates ---- */

static void read_certificate(sqlite3_stmt *row, struct certificate_row *c)
{
    memset(c, 0, sizeof *c);
    c->id = sqlite3_column_int64(row, 0);
    c->issuer = sqlite3_column_int64(row, 1);
    struct bytes serial = row_bytes(row, 2);
    c->serial_len = serial.len < sizeof c->serial ? serial.len : sizeof c->serial;
    row_fixed(c->serial, sizeof c->serial, row, 2);
    c->state = (enum certificate_state)sqlite3_column_int(row, 3);
    row_text(c->profile, sizeof c->profile, row, 4);
    row_text(c->name, sizeof c->name, row, 5);
    c->operator_id = sqlite3_column_int64(row, 6);
    c->subject_operator = sqlite3_column_int64(row, 7);
    row_fixed(c->spki_sha256, 32, row, 8);
    row_fixed(c->tbs_sha256, 32, row, 9);
    row_fixed(c->der_sha256, 32, row, 10);
    c->not_before = sqlite3_column_int64(row, 11);
    c->not_after = sqlite3_column_int64(row, 12);
    c->created_at = sqlite3_column_int64(row, 13);
    c->issued_at = sqlite3_column_int64(row, 14);
    c->revoked_at = sqlite3_column_int64(row, 15);
    c->reason = sqlite3_column_int(row, 16);
    c->der = row_bytes(row, 17);
    c->board = (enum board_state)sqlite3_column_int(row, 18);
    c->shard = sqlite3_column_int(row, 19);
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
    return found_certificate(
        tx, store_query(of(tx), NULL, S_certificate_by_serial, "ib", issuer, serial), c);
}

int tx_certificate_by_id(struct store_tx *tx, int64_t id, struct certificate_row *c)
{
    return found_certificate(tx, store_query(of(tx), NULL, S_certificate_by_id, "i", id), c);
}

int tx_issuer_by_name(struct store_tx *tx, struct bytes name_sha256, struct bytes serial,
                      int64_t *issuer)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_issuer_by_name, "bb", name_sha256, serial);
    if (rc == 0)
        *issuer = sqlite3_column_int64(row, 0);
    return rc;
}

int tx_key_of_other(struct store_tx *tx, const uint8_t spki_sha256[32], const char *name,
                    const char *profile)
{
    return store_query(of(tx), NULL, S_key_of_other, "dtt", spki_sha256, name, profile);
}

int tx_live_certificate(struct store_tx *tx, const char *name, const char *profile, int64_t now,
                        struct certificate_row *c)
{
    return found_certificate(
        tx, store_query(of(tx), NULL, S_live_certificate, "tti", name, profile, now), c);
}

int tx_open_intent(struct store_tx *tx, struct certificate_row *c)
{
    return found_certificate(tx, store_query(of(tx), NULL, S_open_intent, ""), c);
}

int tx_operator_certificate(struct store_tx *tx, int64_t operator_id, int64_t below, int64_t now,
                            struct certificate_row *c)
{
    return found_certificate(
        tx, store_query(of(tx), NULL, S_operator_certificate, "iii", operator_id, below, now), c);
}

int tx_add_intent(struct store_tx *tx, struct certificate_row *c)
{
    struct bytes serial = {c->serial, c->serial_len};
    if (run(of(tx), S_add_intent, "ibttooddiiii", c->issuer, serial, c->profile, c->name,
            c->operator_id, c->subject_operator, c->spki_sha256, c->tbs_sha256, c->not_before,
            c->not_after, c->created_at, (int64_t)c->shard))
        return -1;
    if (sqlite3_changes(of(tx)->db) != 1)
        return 1;
    c->id = sqlite3_last_insert_rowid(of(tx)->db);
    return 0;
}

int tx_set_issued(struct store_tx *tx, int64_t id, struct bytes der, const uint8_t sha256[32],
                  int64_t at)
{
    return store_changed_one(tx, run(of(tx), S_set_issued, "bdii", der, sha256, at, id));
}

/* What touched one row, by which its state is another now; every such change comes through here. */
static int changed_state(struct store_tx *tx, int rc, int64_t id)
{
    struct changes *all = &of(tx)->changes;
    sqlite3_stmt *row;
    if (store_changed_one(tx, rc) || store_query(of(tx), &row, S_serial_by_id, "i", id) != 0)
        return -1;
    if (all->count < STORE_CHANGES_MAX) {
        struct state_change *c = &all->list[all->count];
        size_t len = row_bytes(row, 1).len;
        c->issuer = sqlite3_column_int64(row, 0);
        c->serial_len = len < sizeof c->serial ? len : sizeof c->serial;
        row_fixed(c->serial, sizeof c->serial, row, 1);
    }
    all->count++;
    return 0;
}

int tx_set_orphan(struct store_tx *tx, int64_t id, int64_t at)
{
    if (changed_state(tx, run(of(tx), S_set_orphan, "ii", at, id), id))
        return -1;
    return run(of(tx), S_forget_requests, "i", id) ? -1 : store_give_back_use(of(tx), id);
}

int tx_set_revoked(struct store_tx *tx, int64_t id, enum certificate_state state, int64_t at,
                   int reason)
{
    return changed_state(
        tx, run(of(tx), S_set_revoked, "iiii", (int64_t)state, at, (int64_t)reason, id), id);
}

int tx_set_found(struct store_tx *tx, const struct certificate_row *c, struct bytes der,
                 const uint8_t sha256[32], int64_t at)
{
    int rc = run(of(tx), S_set_found, "ttoddiibdiii", c->profile, c->name, c->operator_id,
                 c->spki_sha256, c->tbs_sha256, c->not_before, c->not_after, der, sha256, at,
                 (int64_t)c->shard, c->id);
    return changed_state(tx, rc, c->id);
}

int tx_set_replaces(struct store_tx *tx, int64_t id, int64_t older)
{
    return store_changed_one(tx, run(of(tx), S_set_replaces, "ii", older, id));
}

int tx_set_board(struct store_tx *tx, int64_t id, enum board_state board)
{
    return store_changed_one(tx, run(of(tx), S_set_board, "ii", (int64_t)board, id));
}

int tx_newest_certificate(struct store_tx *tx, int64_t *id)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_newest_certificate, "");
    if (rc == 0)
        *id = sqlite3_column_int64(row, 0);
    return rc;
}

int tx_set_unheld(struct store_tx *tx, int64_t id)
{
    return changed_state(tx, run(of(tx), S_set_unheld, "i", id), id);
}

int tx_issued_by_operator(struct store_tx *tx, int64_t operator_id, int64_t from, int64_t to,
                          int64_t after, struct certificate_row *c)
{
    return found_certificate(
        tx, store_query(of(tx), NULL, S_issued_by_operator, "iiii", operator_id, from, to, after),
        c);
}

int tx_live_of_name(struct store_tx *tx, const char *name, int64_t now, int64_t after,
                    struct certificate_row *c)
{
    return found_certificate(tx, store_query(of(tx), NULL, S_live_of_name, "tii", name, after, now),
                             c);
}

/* The conditions that are asked for, so that SQLite can choose an index by them. Ids rise with
 * time, unless a clock was set back: a time is looked up once, the rows are walked by id from there
 * on, and each is looked at (the + keeps SQLite from sorting by time instead). */
static int list_statement(struct store *s, const struct list_filter *f, sqlite3_stmt **st)
{
    char sql[1024];
    snprintf(
        sql, sizeof sql,
        "SELECT " CERTIFICATE_COLUMNS " FROM certificate WHERE id>?1%s%s%s%s%s%s%s"
        " ORDER BY id LIMIT ?2",
        f->name && *f->name ? " AND name=?3" : "", f->operator_id ? " AND operator=?4" : "",
        f->state >= 0 ? " AND state=?5" : "",
        f->from ? " AND id>=(SELECT ifnull(min(id),1<<62) FROM certificate WHERE created_at>=?6)"
                  " AND +created_at>=?6"
                : "",
        f->to ? " AND id<=(SELECT ifnull(max(id),0) FROM certificate WHERE created_at<=?7)"
                " AND +created_at<=?7"
              : "",
        /* a MAC has colons, the names of servers and operators have none */
        f->board ? " AND board=?8 AND name GLOB '??:??:??:*'" : "", f->last ? " AND id<=?9" : "");
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
    if (f->board)
        sqlite3_bind_int64(*st, 8, f->board - 1);
    if (f->last)
        sqlite3_bind_int64(*st, 9, f->last);
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
        store_note_problem(of(tx));
    sqlite3_finalize(st);
    return step == SQLITE_DONE ? 0 : -1;
}

#define HOUR 3600

int tx_usage(struct store_tx *tx, int64_t operator_id, int64_t now, struct usage *usage)
{
    sqlite3_stmt *row;
    int64_t hour = now / HOUR;
    if (store_query(of(tx), &row, S_usage, "iiiii", hour, hour, operator_id, hour - 24, hour) != 0)
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

/* ---- CRLs ---- */

static void read_crl(sqlite3_stmt *row, int64_t issuer, int shard, struct crl_row *c)
{
    *c = (struct crl_row){.issuer = issuer, .shard = shard};
    c->number = (uint64_t)sqlite3_column_int64(row, 0);
    c->journal_seq = (uint64_t)sqlite3_column_int64(row, 1);
    c->this_update = sqlite3_column_int64(row, 2);
    c->next_update = sqlite3_column_int64(row, 3);
    c->published = sqlite3_column_type(row, 4) != SQLITE_NULL;
    row_fixed(c->sha256, 32, row, 4);
}

int tx_last_crl(struct store_tx *tx, int64_t issuer, int shard, int published_only,
                struct crl_row *c)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_last_crl, "iii", issuer, (int64_t)shard,
                         (int64_t)published_only);
    if (rc == 0)
        read_crl(row, issuer, shard, c);
    return rc;
}

int tx_each_crl(struct store_tx *tx, int (*each)(const struct crl_row *row, void *arg), void *arg)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_each_crl, "");
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    int step = SQLITE_ROW;
    for (; step == SQLITE_ROW; step = sqlite3_step(row)) {
        struct crl_row c;
        read_crl(row, sqlite3_column_int64(row, 5), sqlite3_column_int(row, 6), &c);
        if (each(&c, arg))
            break;
    }
    store_close_row(of(tx));
    return step == SQLITE_DONE ? 0 : -1;
}

int tx_add_crl(struct store_tx *tx, const struct crl_row *c)
{
    return run(of(tx), S_add_crl, "iiiiii", c->issuer, (int64_t)c->shard, (int64_t)c->number,
               c->this_update, c->next_update, (int64_t)c->journal_seq);
}

int tx_set_crl_published(struct store_tx *tx, const struct crl_row *c)
{
    return store_changed_one(tx, run(of(tx), S_set_crl_published, "diiii", c->sha256,
                                     (int64_t)c->journal_seq, c->issuer, (int64_t)c->shard,
                                     (int64_t)c->number));
}

/* rc: of the query that found the first. */
static int each_of(struct store_tx *tx, int rc, sqlite3_stmt *row,
                   int (*each)(const struct revoked_row *row, void *arg), void *arg)
{
    int step = SQLITE_ROW;
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    for (; step == SQLITE_ROW; step = sqlite3_step(row)) {
        struct revoked_row r = {row_bytes(row, 0), sqlite3_column_int64(row, 1),
                                sqlite3_column_int(row, 2)};
        if (each(&r, arg))
            break;
    }
    store_close_row(of(tx));
    return step == SQLITE_DONE ? 0 : -1;
}

#define SHARD_UNKNOWN ((int64_t)-1)

/* By the index alone, in its order: nothing is sorted, and no row is looked up. */
int tx_each_revoked(struct store_tx *tx, int64_t issuer, int scope, int64_t expired_before,
                    int (*each)(const struct revoked_row *row, void *arg), void *arg)
{
    sqlite3_stmt *row = NULL;
    int rc;
    if (scope == 0) {
        rc = store_query(of(tx), &row, S_each_revoked, "iii", issuer, expired_before,
                         expired_before);
        return each_of(tx, rc, row, each, arg);
    }
    rc = store_query(of(tx), &row, S_each_revoked_of, "iiii", issuer, SHARD_UNKNOWN, expired_before,
                     expired_before);
    if (each_of(tx, rc, row, each, arg))
        return -1;
    rc = store_query(of(tx), &row, S_each_revoked_of, "iiii", issuer, (int64_t)scope,
                     expired_before, expired_before);
    return each_of(tx, rc, row, each, arg);
}

int tx_add_crl_url(struct store_tx *tx, const char *url)
{
    if (run(of(tx), S_add_crl_url, "t", url))
        return -1;
    return sqlite3_changes(of(tx)->db) == 0;
}

int tx_crl_url_after(struct store_tx *tx, char url[CRL_URL_MAX])
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_crl_url_after, "t", url);
    if (rc == 0)
        row_text(url, CRL_URL_MAX, row, 0);
    return rc;
}

int tx_counts(struct store_tx *tx, struct store_counts *counts)
{
    sqlite3_stmt *row;
    *counts = (struct store_counts){0};
    int rc = store_query(of(tx), &row, S_counts, "");
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
    store_close_row(of(tx));
    return 0;
}
