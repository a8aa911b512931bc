/* The store: each certificate by itself, against the journal, and against its file. */
#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <openssl/err.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "pki/certificate.h"
#include "server/ctl/audit.h"

#define FILE_MAX (64 * 1024)

struct certificates {
    struct audit *a;
    uint64_t total;
    int64_t issuer_id; /* whose certificate is in issuer */
    X509 *issuer;
    char serial[41]; /* of the row being looked at */
};

/* ---- its issuer ---- */

/* A row's issuer must be one that the root has signed. */
static X509 *issuer_of(struct certificates *s, int64_t id)
{
    struct bytes der;
    if (s->issuer && s->issuer_id == id)
        return s->issuer;
    X509_free(s->issuer);
    s->issuer = NULL;
    s->issuer_id = id;
    if (tx_issuer_by_id(s->a->tx, id, &der))
        return NULL;
    const unsigned char *p = der.data;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);
    if (x && X509_verify(x, X509_get0_pubkey(s->a->root)) == 1)
        s->issuer = x;
    else
        X509_free(x);
    ERR_clear_error();
    if (!s->issuer)
        finding(s->a, AREA_STORE, "issuer %lld is not a CA that the root has signed",
                (long long)id);
    return s->issuer;
}

/* ---- the certificate itself ---- */

static int same_serial(const X509 *x, const struct certificate_row *row)
{
    uint8_t serial[20] = {0};
    BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
    int len = n ? BN_num_bytes(n) : 0;
    int same = n && !BN_is_negative(n) && len == (int)row->serial_len &&
               BN_bn2bin(n, serial) == len && memcmp(serial, row->serial, (size_t)len) == 0;
    BN_free(n);
    return same;
}

static int same_digest(const uint8_t expected[32], unsigned char *der, int len)
{
    uint8_t digest[32] = {0};
    if (len > 0)
        sha256(digest, (struct bytes){der, (size_t)len});
    OPENSSL_free(der);
    return len > 0 && memcmp(digest, expected, 32) == 0;
}

static int same_time(const ASN1_TIME *t, int64_t seconds)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 && timegm(&tm) == seconds;
}

static void check_der(struct certificates *s, const struct certificate_row *row)
{
    struct audit *a = s->a;
    uint8_t digest[32];
    sha256(digest, row->der);
    if (memcmp(digest, row->der_sha256, 32) != 0)
        finding(a, AREA_STORE, "certificate %s is not the one of its digest", s->serial);
    const unsigned char *p = row->der.data;
    unsigned char *tbs = NULL, *spki = NULL;
    X509 *x = d2i_X509(NULL, &p, (long)row->der.len);
    X509 *ca = issuer_of(s, row->issuer);
    if (!x) {
        finding(a, AREA_STORE, "certificate %s is no certificate", s->serial);
    } else {
        int tbs_len = i2d_re_X509_tbs(x, &tbs);
        int spki_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
        if (ca && X509_verify(x, X509_get0_pubkey(ca)) != 1)
            finding(a, AREA_STORE, "certificate %s is not signed by its CA", s->serial);
        int same = same_digest(row->tbs_sha256, tbs, tbs_len);
        same &= same_digest(row->spki_sha256, spki, spki_len);
        if (!same || !same_serial(x, row) || !same_time(X509_get0_notBefore(x), row->not_before) ||
            !same_time(X509_get0_notAfter(x), row->not_after))
            finding(a, AREA_STORE,
                    "certificate %s has other content than its row: serial, key, dates or what was "
                    "approved",
                    s->serial);
    }
    X509_free(x);
    ERR_clear_error();
}

/* ---- against the journal ---- */

static void check_story(struct certificates *s, const struct certificate_row *row,
                        const struct fact *f)
{
    struct audit *a = s->a;
    uint8_t name[32];
    if (!f || !f->known) {
        finding(a, AREA_STORE, "certificate %s is in the store, but no event tells of it",
                s->serial);
        return;
    }
    sha256(name, (struct bytes){(const uint8_t *)row->name, strlen(row->name)});
    if (f->state != row->state)
        finding(a, AREA_STORE, "certificate %s is %s in the store, %s by the journal", s->serial,
                certificate_state_name(row->state), certificate_state_name(f->state));
    else if (row->state >= STATE_REVOKED &&
             (f->revoked_at != row->revoked_at || f->reason != row->reason))
        finding(a, AREA_STORE,
                "certificate %s is revoked at another time or for another reason than the journal "
                "says",
                s->serial);
    if (f->board != row->board)
        finding(a, AREA_STORE, "the board of %s is %s in the store, %s by the journal", s->serial,
                board_state_name(row->board), board_state_name(f->board));
    if (memcmp(name, f->name_sha256, 32) != 0)
        finding(a, AREA_STORE,
                "certificate %s has the name %s in the store, another in the journal", s->serial,
                row->name);
    if (f->has_certificate != (row->der.len > 0) ||
        (f->has_certificate && memcmp(f->sha256, row->der_sha256, 32) != 0))
        finding(a, AREA_STORE, "certificate %s is not the one that the journal names by digest",
                s->serial);
}

/* ---- against its file ---- */

static void check_file(struct certificates *s, const struct certificate_row *row,
                       const struct fact *f)
{
    char path[PATH_MAX];
    struct buf file;
    struct err err;
    int wanted = config_has_files(s->a->c->config);
    if (!f || f->file_seq == 0 || row->der.len == 0 ||
        f->file_seq > (wanted ? s->a->filed : s->a->projected))
        return; /* it has none, or it is still being written */
    snprintf(path, sizeof path, "%s/certs/%.2s/%.2s/%s.pem", s->a->c->config->state, s->serial,
             s->serial + 2, s->serial);
    if (!wanted && access(path, F_OK) && errno == ENOENT)
        return;
    s->a->files++;
    if (file_read(&file, path, FILE_MAX, &err)) {
        finding(s->a, AREA_FILES, "%s", err.text);
        return;
    }
    char *pem = certificate_pem(row->der);
    if (!pem)
        s->a->failed = 1;
    else if (!bytes_equal(buf_view(&file), (struct bytes){(const uint8_t *)pem, strlen(pem)}))
        finding(s->a, AREA_FILES, "%s is not the certificate of the store", path);
    free(pem);
    buf_free(&file);
}

/* ---- the walk ---- */

static int on_certificate(const struct certificate_row *row, void *arg)
{
    struct certificates *s = arg;
    struct bytes serial = {row->serial, row->serial_len};
    struct fact *f = fact_of(s->a, serial);
    if (!f)
        return -1;
    hex_encode(s->serial, serial);
    if (f->in_store)
        finding(s->a, AREA_STORE, "serial %s is there twice", s->serial);
    f->in_store = 1;
    f->not_after = row->not_after;
    f->shard = row->shard;
    if (row->der.len)
        check_der(s, row);
    check_story(s, row, f);
    check_file(s, row, f);
    ctl_progress(s->a->c, "certificates", ++s->a->certificates, s->total);
    return 0;
}

static void find_missing(const void *node, VISIT visit, void *arg)
{
    const struct fact *f = *(struct fact *const *)node;
    char serial[41];
    if ((visit == postorder || visit == leaf) && f->known && !f->in_store)
        finding(arg, AREA_STORE, "certificate %s is in the journal, but not in the store",
                serial_text(serial, f));
}

/* Each use went into a certificate, or it was given back. */
static int check_enrolments(struct audit *a)
{
    struct enrolment_row e = {0};
    int rc;
    while ((rc = tx_enrolment_miscounted(a->tx, e.user, &e)) == 0)
        finding(a, AREA_STORE,
                "enrolment %s has %lld uses in the store, but another number of certificates came "
                "of it",
                e.user, (long long)e.uses);
    return rc < 0 ? -1 : 0;
}

int audit_certificates(struct audit *a)
{
    struct certificates s = {.a = a};
    struct list_filter all = {.state = -1, .limit = UINT_MAX};
    struct store_counts n;
    if (tx_counts(a->tx, &n))
        return -1;
    s.total = n.issued + n.revoked + n.orphans + n.open;
    int rc = tx_list(a->tx, &all, on_certificate, &s);
    X509_free(s.issuer);
    if (rc == 0)
        twalk_r(a->facts, find_missing, a);
    return rc ? rc : check_enrolments(a);
}

/* ---- files that nobody knows ---- */

static struct audit *walking; /* nftw() passes no argument */

/* Issued since the snapshot is no finding. */
static int is_new(struct store_tx *tx, void *arg)
{
    struct certificate_row row;
    const struct bytes *serial = arg;
    for (int64_t issuer = 1;; issuer++) {
        struct bytes der;
        int rc = tx_issuer_by_id(tx, issuer, &der);
        if (rc)
            return -1;
        if (tx_certificate_by_serial(tx, issuer, *serial, &row) == 0)
            return 0;
    }
}

static int on_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    char hex[41], expected[64];
    uint8_t bytes[20];
    size_t len = 0;
    const char *name = path + at->base;
    if (type == FTW_D)
        return 0;
    snprintf(hex, sizeof hex, "%.*s", (int)strcspn(name, "."), name);
    snprintf(expected, sizeof expected, "/certs/%.2s/%.2s/%s.pem", hex, hex + 2, hex);
    int good = hex_decode(bytes, sizeof bytes, &len, hex) == 0 && len > 1 &&
               strlen(path) > strlen(expected) &&
               strcmp(path + strlen(path) - strlen(expected), expected) == 0;
    struct bytes serial = {bytes, len};
    const struct fact *f = good ? fact_find(walking, serial) : NULL;
    if (!f || !f->has_certificate)
        if (!good || store_read(walking->store, is_new, &serial))
            finding(walking, AREA_FILES, "%s: the store knows no certificate of this name", path);
    return 0;
}

int audit_extra_files(struct audit *a)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/certs", a->c->config->state);
    walking = a;
    int must_be = config_has_files(a->c->config) && a->filed;
    if (nftw(path, on_file, 16, FTW_PHYS) < 0 && (errno != ENOENT || must_be))
        finding(a, AREA_FILES, "%s: %s", path, strerror(errno));
    return 0;
}
