/* seed-store STATE: a store of a million certificates, as issuance would have left it, in seconds.
 *
 * Works on the state of a signetd that is stopped and has issued at least one device's certificate:
 * the newest of them is the shape of all. Each row gets a serial, a MAC, a key and dates of its
 * own, its exactly-once row, and its events on the journal's chain, in store and journal.log; a
 * part is revoked. What is not as issuance makes it: the signature is the shape's own (so audit
 * finds each "not signed by its CA"), the keys are nobody's (on no curve), the times lie before
 * those of the events before, usage counts nothing of it, and without --files the files of certs/
 * are missing, though meta says that they were written. A shard is set in the row, the distribution
 * point of the DER is the shape's.
 *
 * For speed it writes without a log: a state that was being seeded and is interrupted is lost. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/bytes.h"
#include "pki/certificate.h"
#include "pki/crl.h"

#define EVENT_MAX 1280
#define KEY_BYTES 32 /* of the key, exchanged in the middle of it */
#define SHAPE_MAX 8192
#define MAC_LEN 17

static const char usage[] =
    "usage: seed-store [--revoked R] [--shards K] [--days D] [--files] STATE N\n\n"
    "Puts N certificates, R of them revoked, into the store of a stopped signetd that has issued "
    "at\nleast one device's certificate. K: so many CRL shards (default: none); D: over how many "
    "days\nthey were issued (365). --files: the files in certs/ too.\n";

/* The certificate that all are made from, and where in it stands what is exchanged. */
struct shape {
    uint8_t der[SHAPE_MAX];
    size_t len, serial, name, key, key_id, from, to; /* 0: not in it */
    size_t tbs, tbs_len, spki, spki_len;
    char profile[65], operator[65], text[41];
    int64_t id, issuer, operator_id, lifetime;
};

enum statement { CERTIFICATE, REQUEST, EVENT, STATEMENTS };
static const char *const sql_of[] = {
    [CERTIFICATE] = "INSERT INTO certificate (id,issuer,serial,state,profile,name,operator,"
                    "spki_sha256,tbs_sha256,der_sha256,not_before,not_after,shard,created_at,"
                    "issued_at,revoked_at,reason,der)"
                    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [REQUEST] = "INSERT INTO request (key,body_sha256,certificate,created_at) VALUES (?,?,?,?)",
    [EVENT] = "INSERT INTO journal (seq,at,line,hash,certificate) VALUES (?,?,?,?,?)"};

struct seeding {
    const char *state;
    int64_t count, revoked, days;
    unsigned shards;
    int files;
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
    FILE *log;
    struct shape shape;
    int64_t seq, first, now;
    uint8_t hash[32]; /* of the journal's head */
};

_Noreturn __attribute__((format(printf, 1, 2))) static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "seed-store: ");
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    exit(1);
}

static void sql(struct seeding *s, const char *text)
{
    char *why = NULL;
    if (sqlite3_exec(s->db, text, NULL, NULL, &why))
        die("%s: %s", text, why ? why : "?");
}

static sqlite3_stmt *prepare(struct seeding *s, const char *text)
{
    sqlite3_stmt *st = NULL;
    if (sqlite3_prepare_v2(s->db, text, -1, &st, NULL))
        die("%s: %s", text, sqlite3_errmsg(s->db));
    return st;
}

/* 16 to 4096 random bytes out of a large draw. */
static const uint8_t *draw(size_t n)
{
    static uint8_t pool[1 << 16];
    static size_t used = sizeof pool;
    if (used + n > sizeof pool) {
        if (RAND_bytes(pool, sizeof pool) != 1)
            die("the random generator fails");
        used = 0;
    }
    used += n;
    return pool + used - n;
}

static uint64_t below(uint64_t n)
{
    uint64_t r;
    memcpy(&r, draw(sizeof r), sizeof r);
    return r % n;
}

/* ---- the shape ---- */

static size_t find(const struct shape *p, const void *what, size_t len, const char *name)
{
    const uint8_t *at = len ? memmem(p->der, p->len, what, len) : NULL;
    if (!at)
        die("certificate %s: its %s is not found in it", p->text, name);
    return (size_t)(at - p->der);
}

static size_t find_time(const struct shape *p, const ASN1_TIME *t)
{
    const ASN1_STRING *text = (const ASN1_STRING *)t;
    if (ASN1_STRING_type(text) != V_ASN1_UTCTIME)
        return 0;
    return find(p, ASN1_STRING_get0_data(text), (size_t)ASN1_STRING_length(text), "date");
}

static void find_parts(struct shape *p, X509 *x)
{
    unsigned char *tbs = NULL, *spki = NULL;
    const ASN1_BIT_STRING *key = X509_get0_pubkey_bitstr(x);
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(x);
    int tbs_len = i2d_re_X509_tbs(x, &tbs);
    int spki_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
    p->tbs_len = tbs_len > 0 ? (size_t)tbs_len : 0;
    p->spki_len = spki_len > 0 ? (size_t)spki_len : 0;
    p->tbs = find(p, tbs, p->tbs_len, "signed part");
    p->spki = find(p, spki, p->spki_len, "key");
    size_t key_len = (size_t)ASN1_STRING_length(key);
    if (key_len < KEY_BYTES * 3 / 2)
        die("certificate %s has a small key", p->text);
    p->key = find(p, ASN1_STRING_get0_data(key), key_len, "key") + key_len / 2 - KEY_BYTES / 2;
    if (id)
        p->key_id = find(p, ASN1_STRING_get0_data(id), (size_t)ASN1_STRING_length(id), "key id");
    p->from = find_time(p, X509_get0_notBefore(x));
    p->to = find_time(p, X509_get0_notAfter(x));
    OPENSSL_free(tbs);
    OPENSSL_free(spki);
}

static void find_shape(struct seeding *s)
{
    struct shape *p = &s->shape;
    sqlite3_stmt *st = prepare(
        s, "SELECT c.id,c.issuer,c.serial,c.profile,c.name,c.operator,o.name,c.der,"
           "c.not_after-c.created_at FROM certificate c JOIN operator o ON o.id=c.operator WHERE"
           " c.state=1 AND length(c.name)=17 AND c.name GLOB '??:*' ORDER BY c.id DESC LIMIT 1");
    if (sqlite3_step(st) != SQLITE_ROW)
        die("%s has no device's certificate to make others from: issue one first", s->state);
    p->id = sqlite3_column_int64(st, 0);
    p->issuer = sqlite3_column_int64(st, 1);
    snprintf(p->profile, sizeof p->profile, "%s", (const char *)sqlite3_column_text(st, 3));
    p->operator_id = sqlite3_column_int64(st, 5);
    snprintf(p->operator, sizeof p->operator, "%s", (const char *)sqlite3_column_text(st, 6));
    p->lifetime = sqlite3_column_int64(st, 8);
    p->len = (size_t)sqlite3_column_bytes(st, 7);
    if (p->len == 0 || p->len > SHAPE_MAX || sqlite3_column_bytes(st, 2) != SERIAL_LEN)
        die("the newest device's certificate has no shape to make others from");
    memcpy(p->der, sqlite3_column_blob(st, 7), p->len);
    const unsigned char *at = p->der;
    X509 *x = d2i_X509(NULL, &at, (long)p->len);
    if (!x)
        die("the newest device's certificate is none");
    p->serial = find(p, sqlite3_column_blob(st, 2), SERIAL_LEN, "serial");
    p->name = find(p, sqlite3_column_text(st, 4), MAC_LEN, "name");
    find_parts(p, x);
    X509_free(x);
    sqlite3_finalize(st);
}

/* ---- the journal ---- */

static const char *when(int64_t at)
{
    static int64_t last = -1;
    static char text[32];
    struct tm tm;
    time_t t = (time_t)at;
    if (at != last)
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
    last = at;
    return text;
}

static void done(struct seeding *s, sqlite3_stmt *st)
{
    if (sqlite3_step(st) != SQLITE_DONE)
        die("%s/signet.db: %s", s->state, sqlite3_errmsg(s->db));
    sqlite3_reset(st);
}

/* As tx_event() does it. */
__attribute__((format(printf, 4, 5))) static void event(struct seeding *s, int64_t at, int64_t id,
                                                        const char *fmt, ...)
{
    uint8_t both[32 + EVENT_MAX];
    char *line = (char *)both + 32, hex[65];
    sqlite3_stmt *st = s->statements[EVENT];
    memcpy(both, s->hash, 32);
    int n = snprintf(line, EVENT_MAX, "%lld %s ", (long long)++s->seq, when(at));
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(line + n, (size_t)(EVENT_MAX - n), fmt, ap);
    va_end(ap);
    sha256(s->hash, (struct bytes){both, 32 + (size_t)n});
    hex_encode(hex, (struct bytes){s->hash, 32});
    n += snprintf(line + n, (size_t)(EVENT_MAX - n), " %s", hex);
    sqlite3_bind_int64(st, 1, s->seq);
    sqlite3_bind_int64(st, 2, at);
    sqlite3_bind_text(st, 3, line, n, SQLITE_STATIC);
    sqlite3_bind_blob(st, 4, s->hash, 32, SQLITE_STATIC);
    if (id)
        sqlite3_bind_int64(st, 5, id);
    else
        sqlite3_bind_null(st, 5);
    done(s, st);
    if (fprintf(s->log, "%s\n", line) < 0)
        die("%s/journal.log: %s", s->state, strerror(errno));
}

/* ---- one certificate ---- */

struct one {
    int64_t id, at, revoked_at;
    char name[MAC_LEN + 1], serial[41];
    const uint8_t *serial_bytes;
    uint8_t tbs[32], spki[32], der[32];
    int reason;
};

static void put_time(struct shape *p, size_t where, int64_t t)
{
    char text[16];
    struct tm tm;
    time_t seconds = (time_t)t;
    if (!where)
        return;
    strftime(text, sizeof text, "%Y%m%d%H%M%SZ", gmtime_r(&seconds, &tm));
    memcpy(p->der + where, text + 2, 13);
}

/* Every MAC once, in no order. */
static void make_name(char name[MAC_LEN + 1], int64_t number)
{
    uint64_t n = (uint64_t)number * 0x9e3779b97full & 0xffffffffffull;
    snprintf(name, MAC_LEN + 1, "70:%02x:%02x:%02x:%02x:%02x", (unsigned)(n >> 32 & 0xff),
             (unsigned)(n >> 24 & 0xff), (unsigned)(n >> 16 & 0xff), (unsigned)(n >> 8 & 0xff),
             (unsigned)(n & 0xff));
}

/* The shape is turned into this one. */
static void make(struct seeding *s, struct one *c)
{
    struct shape *p = &s->shape;
    uint8_t *serial = p->der + p->serial;
    memcpy(serial, draw(SERIAL_LEN), SERIAL_LEN);
    serial[0] = (uint8_t)(serial[0] & 0x7f ? serial[0] & 0x7f : 1);
    memcpy(p->der + p->name, c->name, MAC_LEN);
    memcpy(p->der + p->key, draw(KEY_BYTES), KEY_BYTES);
    if (p->key_id)
        memcpy(p->der + p->key_id, draw(20), 20);
    put_time(p, p->from, c->at - 300);
    put_time(p, p->to, c->at + p->lifetime);
    c->serial_bytes = serial;
    hex_encode(c->serial, (struct bytes){serial, SERIAL_LEN});
    sha256(c->spki, (struct bytes){p->der + p->spki, p->spki_len});
    sha256(c->tbs, (struct bytes){p->der + p->tbs, p->tbs_len});
    sha256(c->der, (struct bytes){p->der, p->len});
}

static void add_row(struct seeding *s, const struct one *c)
{
    const struct shape *p = &s->shape;
    sqlite3_stmt *st = s->statements[CERTIFICATE];
    sqlite3_bind_int64(st, 1, c->id);
    sqlite3_bind_int64(st, 2, p->issuer);
    sqlite3_bind_blob(st, 3, c->serial_bytes, SERIAL_LEN, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, c->revoked_at ? 2 : 1);
    sqlite3_bind_text(st, 5, p->profile, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 6, c->name, MAC_LEN, SQLITE_STATIC);
    sqlite3_bind_int64(st, 7, p->operator_id);
    sqlite3_bind_blob(st, 8, c->spki, 32, SQLITE_STATIC);
    sqlite3_bind_blob(st, 9, c->tbs, 32, SQLITE_STATIC);
    sqlite3_bind_blob(st, 10, c->der, 32, SQLITE_STATIC);
    sqlite3_bind_int64(st, 11, c->at - 300);
    sqlite3_bind_int64(st, 12, c->at + p->lifetime);
    sqlite3_bind_int64(st, 13,
                       crl_shard_of((struct bytes){c->serial_bytes, SERIAL_LEN}, s->shards));
    sqlite3_bind_int64(st, 14, c->at);
    sqlite3_bind_int64(st, 15, c->at);
    if (c->revoked_at) {
        sqlite3_bind_int64(st, 16, c->revoked_at);
        sqlite3_bind_int64(st, 17, c->reason);
    } else {
        sqlite3_bind_null(st, 16);
        sqlite3_bind_null(st, 17);
    }
    sqlite3_bind_blob(st, 18, p->der, (int)p->len, SQLITE_STATIC);
    done(s, st);
}

static void tell(struct seeding *s, const struct one *c)
{
    static const char *const reasons[] = {[0] = "unspecified",
                                          [1] = "keyCompromise",
                                          [4] = "superseded",
                                          [5] = "cessationOfOperation"};
    const struct shape *p = &s->shape;
    char hex[65];
    hex_encode(hex, (struct bytes){c->tbs, 32});
    event(s, c->at, 0, "intent serial=%s profile=%s name=%s operator=%s tbs=%s", c->serial,
          p->profile, c->name, p->operator, hex);
    hex_encode(hex, (struct bytes){c->der, 32});
    event(s, c->at, c->id, "issued serial=%s profile=%s name=%s sha256=%s", c->serial, p->profile,
          c->name, hex);
    if (c->revoked_at)
        event(s, c->revoked_at, 0, "revoked serial=%s name=%s reason=%s operator=%s", c->serial,
              c->name, reasons[c->reason], p->operator);
}

static void write_file(const struct seeding *s, const char *serial)
{
    char path[PATH_MAX], *pem = certificate_pem((struct bytes){s->shape.der, s->shape.len});
    int n = snprintf(path, sizeof path, "%s/certs/%.2s", s->state, serial);
    mkdir(path, 0755);
    n += snprintf(path + n, sizeof path - (size_t)n, "/%.2s", serial + 2);
    mkdir(path, 0755);
    snprintf(path + n, sizeof path - (size_t)n, "/%s.pem", serial);
    FILE *f = fopen(path, "wx");
    if (!f || !pem || fputs(pem, f) < 0 || fclose(f))
        die("%s: %s", path, strerror(errno));
    free(pem);
}

static void add_certificate(struct seeding *s, int64_t number, int revoked)
{
    static const int reasons[] = {0, 1, 4, 5};
    int64_t span = s->days * 86400;
    struct one c = {.id = s->first + number, .at = s->now - span + span * number / s->count};
    if (revoked) {
        c.reason = reasons[below(4)];
        c.revoked_at = c.at + (int64_t)below((uint64_t)(s->now - c.at) + 1);
    }
    make_name(c.name, c.id);
    make(s, &c);
    add_row(s, &c);
    tell(s, &c);
    if (s->files)
        write_file(s, c.serial);
}

/* In the order of their keys, which are as random as their certificates are. */
static void add_requests(struct seeding *s)
{
    sqlite3_stmt *st = s->statements[REQUEST];
    uint64_t step = UINT64_MAX / (uint64_t)s->count, odd = 0x9e3779b1;
    while ((uint64_t)s->count % odd == 0)
        odd += 2;
    for (uint64_t i = 0; i < (uint64_t)s->count; i++) {
        uint8_t key[32];
        uint64_t prefix = i * step + below(step), number = i * odd % (uint64_t)s->count;
        memcpy(key, draw(32), 32);
        for (int b = 0; b < 8; b++)
            key[b] = (uint8_t)(prefix >> (56 - 8 * b));
        sqlite3_bind_blob(st, 1, key, 32, SQLITE_STATIC);
        sqlite3_bind_blob(st, 2, draw(32), 32, SQLITE_STATIC);
        sqlite3_bind_int64(st, 3, s->first + (int64_t)number);
        sqlite3_bind_int64(st, 4, s->now);
        done(s, st);
    }
}

/* ---- the whole ---- */

static void lock_state(const struct seeding *s)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", s->state);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* kept to the end */
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB))
        die("%s is locked: stop the signetd that runs on this state", path);
}

static int64_t number(struct seeding *s, const char *text)
{
    sqlite3_stmt *st = prepare(s, text);
    int64_t n = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;
    sqlite3_finalize(st);
    return n;
}

static void open_state(struct seeding *s)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/signet.db", s->state);
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE, NULL))
        die("%s: %s", path, sqlite3_errmsg(s->db));
    sql(s, "PRAGMA journal_mode=DELETE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
           "PRAGMA cache_size=-1000000; PRAGMA locking_mode=EXCLUSIVE; PRAGMA foreign_keys=OFF");
    sqlite3_stmt *st = prepare(s, "SELECT seq,hash FROM journal ORDER BY seq DESC LIMIT 1");
    if (sqlite3_step(st) != SQLITE_ROW || sqlite3_column_bytes(st, 1) != 32)
        die("%s: its journal is empty", path);
    s->seq = sqlite3_column_int64(st, 0);
    memcpy(s->hash, sqlite3_column_blob(st, 1), 32);
    sqlite3_finalize(st);
    if (number(s, "SELECT value FROM meta WHERE name='projected'") != s->seq)
        die("%s: journal.log is not complete; start signetd and stop it again", path);
    s->first = number(s, "SELECT max(id)+1 FROM certificate");
    snprintf(path, sizeof path, "%s/journal.log", s->state);
    s->log = fopen(path, "a");
    if (!s->log || setvbuf(s->log, NULL, _IOFBF, 1 << 20))
        die("%s: %s", path, strerror(errno));
}

/* Made anew, at the end, in one go each. */
static char *drop_indexes(struct seeding *s)
{
    sqlite3_stmt *st = prepare(s, "SELECT group_concat('DROP INDEX ' || name, ';'),"
                                  " group_concat(sql, ';') FROM sqlite_schema"
                                  " WHERE type='index' AND sql IS NOT NULL");
    if (sqlite3_step(st) != SQLITE_ROW)
        die("%s", sqlite3_errmsg(s->db));
    char *drop = strdup((const char *)sqlite3_column_text(st, 0));
    char *make_again = strdup((const char *)sqlite3_column_text(st, 1));
    sqlite3_finalize(st);
    if (!drop || !make_again)
        die("no memory");
    sql(s, drop);
    free(drop);
    return make_again;
}

static void finish(struct seeding *s)
{
    char text[128];
    if (fflush(s->log) || fsync(fileno(s->log)) || fclose(s->log))
        die("%s/journal.log: %s", s->state, strerror(errno));
    snprintf(text, sizeof text, "UPDATE meta SET value=%lld WHERE name IN ('projected','filed')",
             (long long)s->seq);
    sql(s, text);
    sql(s, "DELETE FROM meta WHERE name='crl_event'"); /* looked for, once */
    sql(s, "COMMIT");
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(s->statements[i]);
    if (sqlite3_close(s->db))
        die("%s", sqlite3_errmsg(s->db));
    sync();
}

static void seed(struct seeding *s)
{
    int64_t left = s->revoked;
    sql(s, "BEGIN");
    char *indexes = drop_indexes(s);
    for (int i = 0; i < STATEMENTS; i++)
        s->statements[i] = prepare(s, sql_of[i]);
    for (int64_t i = 0; i < s->count; i++) {
        int revoked = below((uint64_t)(s->count - i)) < (uint64_t)left;
        left -= revoked;
        add_certificate(s, i, revoked);
    }
    add_requests(s);
    sql(s, indexes);
    free(indexes);
    finish(s);
}

static int64_t positive(const char *text)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    if (n < 0 || *end || end == text) {
        fputs(usage, stderr);
        exit(2);
    }
    return n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"revoked", required_argument, NULL, 'r'},
                                            {"shards", required_argument, NULL, 's'},
                                            {"days", required_argument, NULL, 'd'},
                                            {"files", no_argument, NULL, 'f'},
                                            {0}};
    static struct seeding s = {.days = 365};
    struct timespec from, to;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'r':
            s.revoked = positive(optarg);
            break;
        case 's':
            s.shards = (unsigned)positive(optarg);
            break;
        case 'd':
            s.days = positive(optarg);
            break;
        case 'f':
            s.files = 1;
            break;
        default:
            fputs(usage, stderr);
            return 2;
        }
    if (argc != optind + 2 || (s.count = positive(argv[optind + 1])) == 0 || s.revoked > s.count) {
        fputs(usage, stderr);
        return 2;
    }
    s.state = argv[optind];
    s.now = (int64_t)time(NULL);
    clock_gettime(CLOCK_MONOTONIC, &from);
    lock_state(&s);
    open_state(&s);
    find_shape(&s);
    seed(&s);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%lld certificates, %lld revoked: %.1f s\n", (long long)s.count, (long long)s.revoked,
           seconds);
    return 0;
}
