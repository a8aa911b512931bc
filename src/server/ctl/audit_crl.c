/* The CRL: is it the newest that was published, and does it list what was revoked, and only that?
 */
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/ctl/audit.h"

/* ---- reading ---- */

struct rows {
    struct audit *a;
    uint64_t newest, taken; /* numbers: published; given out */
    int found;              /* the file's number has a row */
    struct crl_row row;     /* that row */
};

static int on_row(const struct crl_row *row, void *arg)
{
    struct rows *r = arg;
    if (row->journal_seq > r->a->head)
        finding(r->a, AREA_CRL, "CRL %llu anchors event %llu, which the store does not have",
                (unsigned long long)row->number, (unsigned long long)row->journal_seq);
    if (row->shard) {
        audit_shards_row(r->a, row);
        return 0;
    }
    if (row->number > r->taken)
        r->taken = row->number;
    if (row->published && row->number > r->newest)
        r->newest = row->number;
    if (row->number == r->a->crl.number) {
        r->found = 1;
        r->row = *row;
    }
    return 0;
}

static int on_entry(const struct crl_entry *e, void *arg)
{
    struct audit *a = arg;
    struct fact *f = fact_of(a, e->serial);
    if (!f)
        return -1;
    f->listed = 1;
    f->listed_at = e->revoked_at;
    f->listed_reason = e->reason;
    return 0;
}

/* The file is there: is it the one that it should be? */
static void check_row(struct audit *a, const struct rows *r)
{
    unsigned long long number = a->crl.number;
    if (!r->found)
        finding(a, AREA_CRL, "crl.der is number %llu, which this store never gave out", number);
    else if (number < r->newest)
        finding(a, AREA_CRL, "crl.der is number %llu, but %llu is the newest published", number,
                (unsigned long long)r->newest);
    else if (r->row.published && memcmp(r->row.sha256, a->crl.sha256, 32) != 0)
        finding(a, AREA_CRL, "crl.der is not the CRL %llu that was published", number);
    if (r->found && r->row.published && a->crl.has_anchor &&
        a->crl.journal_seq != r->row.journal_seq)
        finding(a, AREA_CRL, "CRL %llu anchors event %llu, its row says %llu", number,
                (unsigned long long)a->crl.journal_seq, (unsigned long long)r->row.journal_seq);
    if (!a->crl.has_anchor)
        finding(a, AREA_CRL, "CRL %llu anchors no journal", number);
}

int audit_crl_read(struct audit *a)
{
    struct rows r = {.a = a};
    char path[PATH_MAX];
    struct stat st;
    struct err err;
    snprintf(path, sizeof path, "%s/crl.der", a->c->config->state);
    int absent = stat(path, &st) && errno == ENOENT;
    int bad = !absent && crl_file_read(&a->crl, path, a->issuer, &err);
    if (audit_shards_read(a) || tx_each_crl(a->tx, on_row, &r))
        return -1;
    /* published between the two looks, or swapped: once more tells */
    int newer = a->crl.list && (!r.found || a->crl.number < r.newest);
    if ((newer || audit_shards_newer(a)) && a->crl_tries++ < 5) {
        a->retry = 1;
        return 0;
    }
    a->newest_crl = r.newest;
    if (bad)
        finding(a, AREA_CRL, "%s", err.text);
    if (!a->crl.list)
        return 0;
    check_row(a, &r);
    if (crl_file_each(&a->crl, on_entry, a))
        finding(a, AREA_CRL, "an entry of crl.der is not understood");
    return 0;
}

/* ---- comparing ---- */

/* What expired before the CRL may be left out (RFC 5280 section 3.3). */
static void compare(const void *node, VISIT visit, void *arg)
{
    struct audit *a = arg;
    const struct fact *f = *(struct fact *const *)node;
    char serial[41];
    if (visit != postorder && visit != leaf)
        return;
    serial_text(serial, f);
    if (f->listed && !f->explained)
        finding(a, AREA_CRL,
                "CRL %llu lists %s with a time or reason of which the journal does not know",
                (unsigned long long)a->crl.number, serial);
    if (f->anchored && !f->listed && !f->changed_since && f->not_after >= a->crl.this_update)
        finding(a, AREA_CRL, "CRL %llu does not list %s, which was revoked before it was made",
                (unsigned long long)a->crl.number, serial);
    if (f->anchored && f->listed && f->explained && !f->changed_since &&
        (f->anchored_at != f->listed_at || f->anchored_reason != f->listed_reason))
        finding(a, AREA_CRL, "CRL %llu lists %s with an older time or reason than the journal",
                (unsigned long long)a->crl.number, serial);
}

/* The journal names each CRL by number and digest, so that an older one cannot come back. */
static void check_told(struct audit *a)
{
    unsigned long long number = a->told.number;
    if (a->newest_crl != number)
        finding(a, AREA_CRL, "the newest CRL is %llu by the store, %llu by the journal",
                (unsigned long long)a->newest_crl, number);
    if (a->crl.list && a->crl.number < number)
        finding(a, AREA_CRL, "crl.der is number %llu, the journal tells of %llu",
                (unsigned long long)a->crl.number, number);
    if (a->crl.list && a->crl.number == number && memcmp(a->crl.sha256, a->told.sha256, 32) != 0)
        finding(a, AREA_CRL, "crl.der is not the CRL %llu that the journal names by digest",
                number);
    /* after a restore there is none until signetd has made the next */
    if (!a->crl.list && number && a->findings[AREA_CRL] == 0 && a->restored_at <= a->told_at)
        finding(a, AREA_CRL, "crl.der is missing; signetctl crl rebuild makes the next");
}

int audit_crl_compare(struct audit *a)
{
    check_told(a);
    if (a->crl.list)
        twalk_r(a->facts, compare, a);
    audit_shards_compare(a);
    return 0;
}
