/* The store's other records: requests, issuers, operators, the journal. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/authority/store_parts.h"

#define EVENT_MAX 1280 /* a journal line: number, time, up to 1023 of text, hash */

/* ---- requests, issuers, operators ---- */

int tx_request(struct store_tx *tx, const uint8_t key[32], struct request_row *r)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_request, "d", key);
    if (rc == 0) {
        row_fixed(r->body_sha256, 32, row, 0);
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
        store_query(of(tx), &row, S_find_key, "d", spki_sha256) != 0)
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
    int rc = store_query(of(tx), &row, S_find_issuer, "d", digest);
    if (rc == 0)
        *id = sqlite3_column_int64(row, 0);
    if (rc != 1)
        return rc;
    rc = store_query(of(tx), &row, S_find_issuer_by_key, "dd", spki_sha256, name_sha256);
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
    int rc = store_query(of(tx), &row, S_issuer_by_id, "i", id);
    if (rc == 0)
        *certificate = row_bytes(row, 0);
    return rc;
}

static int found_operator(struct store_tx *tx, int rc, struct operator_row *o)
{
    sqlite3_stmt *row = of(tx)->row;
    if (rc == 0) {
        o->id = sqlite3_column_int64(row, 0);
        row_text(o->name, sizeof o->name, row, 1);
        o->roles = (unsigned)sqlite3_column_int(row, 2);
        o->revoked_at = sqlite3_column_int64(row, 3);
    }
    return rc;
}

int tx_operator_by_name(struct store_tx *tx, const char *name, struct operator_row *o)
{
    return found_operator(tx, store_query(of(tx), NULL, S_operator_by_name, "t", name), o);
}

int tx_operator_by_id(struct store_tx *tx, int64_t id, struct operator_row *o)
{
    return found_operator(tx, store_query(of(tx), NULL, S_operator_by_id, "i", id), o);
}

int tx_operator_after(struct store_tx *tx, const char *name, struct operator_row *o)
{
    return found_operator(tx, store_query(of(tx), NULL, S_operator_after, "t", name), o);
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
    return store_changed_one(
        tx, run(of(tx), S_set_operator, "ioi", (int64_t)o->roles, o->revoked_at, o->id));
}

/* ---- journal ---- */

int tx_journal_head(struct store_tx *tx, uint64_t *seq, uint8_t hash[32])
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_journal_head, "");
    if (rc < 0)
        return -1;
    *seq = rc == 0 ? (uint64_t)sqlite3_column_int64(row, 0) : 0;
    memset(hash, 0, 32);
    if (rc == 0)
        row_fixed(hash, 32, row, 1);
    return 0;
}

int tx_last_event_time(struct store_tx *tx, int64_t *at)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_last_event_time, "");
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

/* What changes a CRL; that there was one is looked up at the start, without a walk through all. */
static int is_of_crl(const char *text)
{
    static const char *const kinds[] = {
        "revoked serial=", "orphan serial=", "held serial=", "unheld serial="};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strncmp(text, kinds[i], strlen(kinds[i])) == 0)
            return 1;
    return 0;
}

int tx_event(struct store_tx *tx, int64_t at, int64_t certificate, const char *fmt, ...)
{
    uint64_t seq;
    uint8_t hash[32];
    char text[1024], when[32], line[EVENT_MAX], hex[65];
    struct tm tm;
    time_t t = (time_t)at;
    struct head *head = &of(tx)->head;
    if (!head->known && tx_journal_head(tx, &head->seq, head->hash))
        return -1;
    seq = head->seq;
    memcpy(hash, head->hash, 32);
    head->known = 0; /* unless all goes well */
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
    if (is_of_crl(text) && tx_set_meta(tx, "crl_event", (int64_t)seq + 1))
        return -1;
    if (run(of(tx), S_add_event, "iitdo", (int64_t)seq + 1, at, line, hash, certificate))
        return -1;
    *head = (struct head){.known = 1, .seq = seq + 1};
    memcpy(head->hash, hash, 32);
    return 0;
}

int tx_event_after(struct store_tx *tx, uint64_t seq, struct event_row *e)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_event_after, "i", (int64_t)seq);
    if (rc == 0) {
        e->seq = (uint64_t)sqlite3_column_int64(row, 0);
        e->line = (const char *)sqlite3_column_text(row, 1);
        e->certificate = sqlite3_column_int64(row, 2);
        row_fixed(e->hash, 32, row, 3);
        e->at = sqlite3_column_int64(row, 4);
    }
    return rc;
}

int tx_last_crl_event(struct store_tx *tx, uint64_t seq, uint64_t *last)
{
    sqlite3_stmt *row;
    int64_t known;
    int rc = tx_meta(tx, "crl_event", &known);
    if (rc == 0) {
        *last = (uint64_t)known;
        return *last > seq ? 0 : 1;
    }
    if (rc < 0)
        return -1;
    /* of schema 1, and nothing was revoked since */
    rc = store_query(of(tx), &row, S_last_crl_event, "i", (int64_t)seq);
    if (rc == 0)
        *last = (uint64_t)sqlite3_column_int64(row, 0);
    return rc;
}

int tx_meta(struct store_tx *tx, const char *name, int64_t *value)
{
    sqlite3_stmt *row;
    int rc = store_query(of(tx), &row, S_meta, "t", name);
    if (rc == 0)
        *value = sqlite3_column_int64(row, 0);
    return rc;
}

int tx_set_meta(struct store_tx *tx, const char *name, int64_t value)
{
    return run(of(tx), S_set_meta, "ti", name, value);
}
