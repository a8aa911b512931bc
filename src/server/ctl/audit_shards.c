/* The CRLs of the shards: each by its file, its row, the journal, and what it must list. */
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/ctl/audit.h"

/* ---- reading ---- */

static int read_file(struct audit *a, unsigned shard)
{
    struct shard_audit *s = &a->shards[shard];
    char path[PATH_MAX], name[CRL_NAME_MAX];
    struct stat st;
    struct err err;
    snprintf(path, sizeof path, "%s/%s", a->c->config->state, crl_file_name(name, shard));
    if (stat(path, &st) && errno == ENOENT)
        return 0;
    if (crl_file_read(&s->crl, path, a->issuer, &err))
        finding(a, AREA_CRL, "%s", err.text);
    return 0;
}

int audit_shards_read(struct audit *a)
{
    int64_t count = 0;
    if (tx_meta(a->tx, "crl_shards", &count) < 0)
        return -1;
    a->shard_count = count > 0 && count <= CRL_SHARDS_MAX ? (unsigned)count : 0;
    for (unsigned i = 1; i <= a->shard_count; i++) {
        a->shards[i] = (struct shard_audit){0};
        if (read_file(a, i))
            return -1;
    }
    return 0;
}

void audit_shards_row(struct audit *a, const struct crl_row *row)
{
    if (row->shard < 1 || row->shard > CRL_SHARDS_MAX)
        return;
    struct shard_audit *s = &a->shards[row->shard];
    if (row->published && row->number > s->newest)
        s->newest = row->number;
    if (row->number == s->crl.number) {
        s->found = 1;
        s->row = *row;
    }
}

int audit_shards_newer(const struct audit *a)
{
    for (unsigned i = 1; i <= a->shard_count; i++) {
        const struct shard_audit *s = &a->shards[i];
        if (s->crl.list && (!s->found || s->crl.number < s->newest))
            return 1;
    }
    return 0;
}

void audit_shards_free(struct audit *a)
{
    for (unsigned i = 1; i <= CRL_SHARDS_MAX; i++)
        crl_file_free(&a->shards[i].crl);
}

/* ---- the file: is it the one that it should be? ---- */

static void check_file(struct audit *a, const struct shard_audit *s, const char *name)
{
    unsigned long long number = s->crl.number;
    if (!s->crl.list) {
        if (s->told && a->restored_at <= a->told_at)
            finding(a, AREA_CRL, "%s is missing; signetctl crl rebuild makes the next", name);
        return;
    }
    if (!s->found)
        finding(a, AREA_CRL, "%s is number %llu, which this store never gave out", name, number);
    else if (number < s->newest)
        finding(a, AREA_CRL, "%s is number %llu, but %llu is the newest published", name, number,
                (unsigned long long)s->newest);
    else if (s->row.published && memcmp(s->row.sha256, s->crl.sha256, 32) != 0)
        finding(a, AREA_CRL, "%s is not the CRL %llu that was published", name, number);
    if (s->crl.number < s->told)
        finding(a, AREA_CRL, "%s is number %llu, the journal tells of %llu", name, number,
                (unsigned long long)s->told);
    if (s->crl.number == s->told && memcmp(s->crl.sha256, s->told_sha256, 32) != 0)
        finding(a, AREA_CRL, "%s is not the CRL %llu that the journal names by digest", name,
                number);
    if (!s->crl.has_anchor)
        finding(a, AREA_CRL, "%s anchors no journal", name);
}

/* ---- what it lists ---- */

struct comparing {
    struct audit *a;
    const struct shard_audit *s;
    int shard;
    char name[CRL_NAME_MAX];
};

static int on_entry(const struct crl_entry *e, void *arg)
{
    struct comparing *c = arg;
    char serial[41];
    struct fact *f = fact_find(c->a, e->serial);
    if (!f || !f->known || (f->shard != c->shard && f->shard != -1)) {
        hex_encode(serial, e->serial);
        finding(c->a, AREA_CRL, "%s lists %s, which is not of this shard", c->name, serial);
        return 0;
    }
    f->shard_listed = c->shard;
    f->shard_listed_at = e->revoked_at;
    f->shard_reason = e->reason;
    return 0;
}

/* What changed since the CRL was made is no finding, and what had expired may be left out. */
static void compare(const void *node, VISIT visit, void *arg)
{
    const struct comparing *c = arg;
    const struct fact *f = *(struct fact *const *)node;
    char serial[41];
    int listed = f->shard_listed == c->shard;
    if ((visit != postorder && visit != leaf) || !f->in_store || !f->known ||
        (f->shard != c->shard && f->shard != -1) || f->changed_seq > c->s->crl.journal_seq)
        return;
    serial_text(serial, f);
    if (listed && (f->state < STATE_REVOKED || f->revoked_at != f->shard_listed_at ||
                   f->reason != f->shard_reason))
        finding(c->a, AREA_CRL, "%s lists %s with another time or reason than the journal", c->name,
                serial);
    if (!listed && f->state >= STATE_REVOKED && f->not_after >= c->s->crl.this_update)
        finding(c->a, AREA_CRL, "%s does not list %s, which was revoked before it was made",
                c->name, serial);
}

void audit_shards_compare(struct audit *a)
{
    for (unsigned i = 1; i <= a->shard_count; i++) {
        struct comparing c = {.a = a, .s = &a->shards[i], .shard = (int)i};
        crl_file_name(c.name, i);
        check_file(a, c.s, c.name);
        if (!c.s->crl.list)
            continue;
        if (crl_file_each(&c.s->crl, on_entry, &c))
            finding(a, AREA_CRL, "an entry of %s is not understood", c.name);
        if (c.s->crl.has_anchor)
            twalk_r(a->facts, compare, &c);
    }
}
