/* The journal: its hash chain, journal.log line by line, and what it tells of each certificate. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "server/ctl/audit.h"

#define LINE_LEN 2048

struct replay {
    struct audit *a;
    FILE *log;
    int log_ended, log_findings;
    uint8_t hash[32];

    /* the event being looked at */
    uint64_t seq;
    const char *line, *text; /* whole; behind number and time */
    size_t len;              /* of number, time and text: without " hash" */
    int64_t at;
};

/* ---- the chain ---- */

static void check_hash(struct replay *r, const struct event_row *e)
{
    uint8_t both[32 + LINE_LEN], hash[32];
    char shown[65];
    memcpy(both, r->hash, 32);
    memcpy(both + 32, r->line, r->len);
    sha256(hash, (struct bytes){both, 32 + r->len});
    hex_encode(shown, (struct bytes){hash, 32});
    if (memcmp(hash, e->hash, 32) != 0 || strcmp(r->line + r->len + 1, shown) != 0)
        finding(r->a, AREA_JOURNAL,
                "event %llu in the store is not what its hash was made of, or the one before was "
                "changed",
                (unsigned long long)e->seq);
    memcpy(r->hash, e->hash, 32); /* the next is judged by itself */
}

/* "17 2026-11-23T12:00:00Z text… hash" */
static int split(struct replay *r, const struct event_row *e)
{
    struct tm tm = {0};
    char *end;
    size_t len = strlen(e->line);
    const char *last = strrchr(e->line, ' ');
    r->seq = e->seq;
    r->line = e->line;
    if (len >= LINE_LEN || !last || strlen(last) != 65 || strtoull(e->line, &end, 10) != e->seq ||
        *end != ' ')
        return -1;
    const char *rest = strptime(end + 1, "%Y-%m-%dT%H:%M:%SZ ", &tm);
    r->text = rest && rest < last ? rest : NULL;
    r->len = (size_t)(last - e->line);
    r->at = (int64_t)timegm(&tm);
    return r->text ? 0 : -1;
}

/* ---- journal.log ---- */

static void compare_log(struct replay *r)
{
    char line[LINE_LEN];
    if (r->log_ended || r->log_findings)
        return;
    size_t len = fgets(line, sizeof line, r->log) ? strlen(line) : 0;
    if (len == 0 || line[len - 1] != '\n') { /* half a line is being written */
        r->log_ended = 1;
        if (r->seq <= r->a->projected)
            finding(r->a, AREA_JOURNAL, "journal.log was cut: it ends before event %llu of %llu",
                    (unsigned long long)r->seq, (unsigned long long)r->a->projected);
        return;
    }
    line[len - 1] = '\0';
    if (strcmp(line, r->line) == 0)
        return;
    r->log_findings = 1;
    finding(r->a, AREA_JOURNAL,
            "journal.log line %llu is not event %llu of the store; it is not compared further",
            (unsigned long long)r->seq, (unsigned long long)r->seq);
}

/* What no event explains: lines behind the last event, half of one that is no crash's. */
static void check_rest(struct replay *r, uint64_t last)
{
    char line[LINE_LEN];
    size_t len;
    if (!r->log || r->log_ended || r->log_findings || !fgets(line, sizeof line, r->log))
        return;
    len = strlen(line);
    if (len && line[len - 1] == '\n' && strtoull(line, NULL, 10) == last + 1)
        return; /* it was written since the snapshot */
    if (len && line[len - 1] == '\n')
        finding(r->a, AREA_JOURNAL,
                "journal.log goes on behind event %llu, the last one of the store, with what is no "
                "event",
                (unsigned long long)last);
}

/* A plain file: a pipe would hold up the audit. */
static void open_log(struct replay *r)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/journal.log", r->a->c->config->state);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    const char *why = fd < 0 ? strerror(errno) : NULL;
    if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
        why = "it is not a regular file";
    r->log = fd >= 0 && !why ? fdopen(fd, "r") : NULL;
    if (!r->log && fd >= 0)
        close(fd);
    r->log_ended = r->log == NULL;
    if (!r->log && r->a->projected)
        finding(r->a, AREA_JOURNAL, "journal.log: %s", why ? why : "no memory");
}

/* ---- what it tells ---- */

/* " key=value" in the text; -1: not there or too long. */
static int field(const struct replay *r, const char *key, char *out, size_t size)
{
    char wanted[32];
    snprintf(wanted, sizeof wanted, " %s=", key);
    const char *at = strstr(r->text, wanted);
    if (!at || at >= r->line + r->len)
        return -1;
    at += strlen(wanted);
    size_t n = strcspn(at, " ");
    if (n >= size)
        return -1;
    memcpy(out, at, n);
    out[n] = '\0';
    return 0;
}

static int is(const struct replay *r, const char *kind)
{
    size_t n = strlen(kind);
    return strncmp(r->text, kind, n) == 0 && r->text[n] == ' ';
}

/* restore says when it was revoked; else it was at the event. */
static int64_t revoked_when(const struct replay *r)
{
    struct tm tm = {0};
    char text[32];
    if (field(r, "at", text, sizeof text) == 0 && strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        return (int64_t)timegm(&tm);
    return r->at;
}

static void tell_revoked(struct replay *r, struct fact *f, enum certificate_state state)
{
    char reason[40];
    f->state = state;
    f->revoked_at = revoked_when(r);
    f->reason = field(r, "reason", reason, sizeof reason) == 0 ? crl_reason_from_name(reason)
                                                               : REASON_UNSPECIFIED;
    if (f->listed && f->listed_at == f->revoked_at && f->listed_reason == f->reason)
        f->explained = 1;
}

static void tell_certificate(struct replay *r, struct fact *f)
{
    char hex[65] = "";
    size_t len;
    int imported = is(r, "imported");
    if (!imported || !f->known)
        f->state = STATE_ISSUED;
    else if (f->state == STATE_ORPHAN)
        f->state = STATE_REVOKED;
    f->has_certificate = 1;
    f->file_seq = r->seq;
    if (field(r, "sha256", hex, sizeof hex) || hex_decode(f->sha256, 32, &len, hex) || len != 32)
        finding(r->a, AREA_JOURNAL, "event %llu names no digest", (unsigned long long)r->seq);
}

/* What was reported of its board is no state of the certificate's: no CRL knows it. */
static void tell_board(const struct replay *r, struct fact *f)
{
    if (is(r, "flashed"))
        f->board = BOARD_FLASHED;
    else if (is(r, "verified"))
        f->board = BOARD_VERIFIED;
}

static void tell(struct replay *r, struct fact *f)
{
    char name[65];
    tell_board(r, f);
    if (is(r, "intent"))
        f->state = STATE_INTENT;
    else if (is(r, "issued") || is(r, "imported"))
        tell_certificate(r, f);
    else if (is(r, "revoked") || is(r, "held"))
        tell_revoked(r, f, is(r, "held") ? STATE_HELD : STATE_REVOKED);
    else if (is(r, "orphan"))
        tell_revoked(r, f, STATE_ORPHAN);
    else if (is(r, "unheld"))
        f->state = STATE_ISSUED;
    else
        return;
    f->known = 1;
    f->changed_seq = r->seq;
    f->changed_since = r->a->crl.has_anchor && r->seq > r->a->crl.journal_seq;
    if (field(r, "name", name, sizeof name) == 0)
        sha256(f->name_sha256, (struct bytes){(const uint8_t *)name, strlen(name)});
}

static void tell_crl(struct replay *r)
{
    char number[24], hex[65], shard[8] = "";
    uint8_t digest[32];
    size_t len;
    struct audit *a = r->a;
    unsigned long in = field(r, "shard", shard, sizeof shard) ? 0 : strtoul(shard, NULL, 10);
    if (field(r, "number", number, sizeof number) || field(r, "sha256", hex, sizeof hex) ||
        hex_decode(digest, 32, &len, hex) || len != 32 || in > CRL_SHARDS_MAX) {
        finding(a, AREA_JOURNAL, "event %llu is no CRL's", (unsigned long long)r->seq);
        return;
    }
    if (in) {
        a->shards[in].told = strtoull(number, NULL, 10);
        memcpy(a->shards[in].told_sha256, digest, 32);
        return;
    }
    memcpy(a->told.sha256, digest, 32);
    a->told.number = strtoull(number, NULL, 10);
    a->told_at = r->seq;
}

static int tell_event(struct replay *r)
{
    uint8_t serial[20];
    size_t len;
    char hex[41];
    if (is(r, "restored"))
        r->a->restored_at = r->seq;
    if (is(r, "crl"))
        tell_crl(r);
    if (field(r, "serial", hex, sizeof hex) || hex_decode(serial, sizeof serial, &len, hex))
        return 0;
    struct fact *f = fact_of(r->a, (struct bytes){serial, len});
    if (!f)
        return -1;
    tell(r, f);
    return 0;
}

/* ---- the CRL's anchor ---- */

static void keep_anchored(const void *node, VISIT visit, void *arg)
{
    struct fact *f = *(struct fact *const *)node;
    (void)arg;
    if (visit != postorder && visit != leaf)
        return;
    f->anchored = f->state >= STATE_REVOKED;
    f->anchored_at = f->revoked_at;
    f->anchored_reason = f->reason;
}

static void check_anchor(struct replay *r, const struct event_row *e)
{
    struct audit *a = r->a;
    if (!a->crl.has_anchor || a->crl.journal_seq != e->seq)
        return;
    if (memcmp(a->crl.journal_hash, e->hash, 32) != 0)
        finding(a, AREA_JOURNAL,
                "event %llu has another hash than CRL %llu anchors under the token's signature: "
                "the journal was rewritten",
                (unsigned long long)e->seq, (unsigned long long)a->crl.number);
    twalk_r(a->facts, keep_anchored, NULL);
}

/* ---- the walk ---- */

static int on_event(struct replay *r, const struct event_row *e, uint64_t expected)
{
    if (e->seq != expected)
        finding(r->a, AREA_JOURNAL, "events %llu to %llu are missing in the store",
                (unsigned long long)expected, (unsigned long long)e->seq - 1);
    if (split(r, e)) {
        finding(r->a, AREA_JOURNAL, "event %llu in the store is no journal line",
                (unsigned long long)e->seq);
        memcpy(r->hash, e->hash, 32);
        return 0;
    }
    check_hash(r, e);
    if (e->at != r->at)
        finding(r->a, AREA_JOURNAL, "event %llu has another time in the store than in its line",
                (unsigned long long)e->seq);
    compare_log(r);
    if (tell_event(r))
        return -1;
    check_anchor(r, e);
    return 0;
}

int audit_journal(struct audit *a)
{
    struct replay r = {.a = a};
    struct event_row e = {0};
    uint64_t last = 0;
    int rc;
    open_log(&r);
    while ((rc = tx_event_after(a->tx, last, &e)) == 0) {
        if ((rc = on_event(&r, &e, last + 1)))
            break;
        last = e.seq;
        a->events++;
        ctl_progress(a->c, "journal", last, a->head);
    }
    check_rest(&r, last);
    if (a->projected > last)
        finding(a, AREA_JOURNAL, "the store ends at event %llu, but %llu were written to files",
                (unsigned long long)last, (unsigned long long)a->projected);
    if (a->crl.has_anchor && a->crl.journal_seq > last)
        finding(a, AREA_JOURNAL,
                "the store ends at event %llu, but CRL %llu anchors event %llu: it is older than "
                "what was published",
                (unsigned long long)last, (unsigned long long)a->crl.number,
                (unsigned long long)a->crl.journal_seq);
    if (r.log)
        fclose(r.log);
    return rc < 0 ? -1 : 0;
}
