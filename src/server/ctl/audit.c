/* signetctl audit: do journal, CRL, store and files tell the same story?
 *
 * Each holds the others: the journal's hash chain is anchored in every CRL under the token's
 * signature, each certificate is signed by the CA and named by its digest in the journal. So an
 * edit of any of them, also by root, shows; only the token's key could make all agree again.
 */
#include "server/ctl/audit.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

#define SHOWN_MOST 20
#define PEM_MAX (64 * 1024)

static const char *const areas[] = {"journal", "CRL", "store", "files"};

void finding(struct audit *a, enum area area, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (a->findings[area]++ >= SHOWN_MOST)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ctl_progress_end(a->c);
    if (a->c->json) {
        printf("{\"area\":\"%s\",\"finding\":", areas[area]);
        json_string(text);
        printf("}\n");
    } else {
        printf("! %-8s %s\n", areas[area], text);
    }
}

/* ---- facts ---- */

static int compare(const void *left, const void *right)
{
    const struct fact *a = left, *b = right;
    if (a->serial_len != b->serial_len)
        return a->serial_len < b->serial_len ? -1 : 1;
    return memcmp(a->serial, b->serial, a->serial_len);
}

static int as_key(struct fact *key, struct bytes serial)
{
    *key = (struct fact){.serial_len = serial.len};
    if (serial.len == 0 || serial.len > sizeof key->serial)
        return -1;
    memcpy(key->serial, serial.data, serial.len);
    return 0;
}

struct fact *fact_find(const struct audit *a, struct bytes serial)
{
    struct fact key;
    struct fact **at = as_key(&key, serial) ? NULL : tfind(&key, &a->facts, compare);
    return at ? *at : NULL;
}

struct fact *fact_of(struct audit *a, struct bytes serial)
{
    struct fact key, *known = fact_find(a, serial), *f = NULL;
    if (known)
        return known;
    if (as_key(&key, serial) == 0 && (f = malloc(sizeof *f)) != NULL) {
        *f = key;
        if (!tsearch(f, &a->facts, compare)) {
            free(f);
            f = NULL;
        }
    }
    a->failed |= f == NULL;
    return f;
}

const char *serial_text(char out[41], const struct fact *f)
{
    hex_encode(out, (struct bytes){f->serial, f->serial_len});
    return out;
}

/* ---- the whole ---- */

static void on_unsound(const char *problem, void *arg)
{
    finding(arg, AREA_STORE, "signet.db: %s", problem);
}

/* How far journal and files are. */
static int read_progress(struct audit *a)
{
    int64_t projected = 0, filed = 0;
    uint8_t hash[32];
    if (tx_journal_head(a->tx, &a->head, hash) || tx_meta(a->tx, "projected", &projected) < 0)
        return -1;
    int rc = tx_meta(a->tx, "filed", &filed);
    a->projected = (uint64_t)projected;
    a->filed = rc == 0 && filed < projected ? (uint64_t)filed : a->projected;
    return rc < 0 ? -1 : 0;
}

static int look(struct store_tx *tx, void *arg)
{
    struct audit *a = arg;
    a->tx = tx;
    if (read_progress(a))
        return -1;
    if (audit_crl_read(a) || a->retry)
        return a->retry ? 0 : -1;
    ctl_progress(a->c, "the database", 0, 0);
    return store_check(a->store, on_unsound, a) || audit_journal(a) || audit_certificates(a) ||
                   audit_crl_compare(a)
               ? -1
               : 0;
}

static int load_root(struct audit *a)
{
    const char *path = a->c->config->chain;
    struct buf pem;
    X509 *x;
    if (file_read(&pem, path, PEM_MAX, &a->c->err))
        return -1;
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    while (in && (x = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
        X509_free(a->root); /* the last one of the file is the root */
        a->root = x;
    }
    BIO_free(in);
    buf_free(&pem);
    ERR_clear_error();
    return a->root ? 0 : err_set(&a->c->err, ERR_field_value, "%s: no certificate in it", path);
}

/* The CRL's file and the snapshot of the store are two things: a CRL published between the two is
 * met by another look. */
static int run(struct audit *a)
{
    err_set(&a->c->err, ERR_storage_unavailable, "the store cannot be read");
    int rc = -1;
    for (int tries = 0; tries < 10; tries++) {
        a->retry = 0;
        rc = store_read(a->store, look, a);
        if (rc || !a->retry)
            break;
        crl_file_free(&a->crl);
        audit_shards_free(a);
    }
    if (rc && store_problem(a->store))
        err_set(
            &a->c->err, ERR_storage_unavailable,
            "%s/signet.db cannot be read: %s; docs/recovery.md, \"A corrupt database\", has the "
            "way back",
            a->c->config->state, store_problem(a->store));
    if (rc == 0)
        rc = audit_extra_files(a);
    return rc || a->failed ? -1 : 0;
}

static uint64_t summary(struct audit *a)
{
    uint64_t all = 0;
    for (int i = 0; i < AREA_COUNT; i++) {
        all += a->findings[i];
        if (a->findings[i] > SHOWN_MOST && !a->c->json)
            printf("! %-8s and %llu more\n", areas[i],
                   (unsigned long long)(a->findings[i] - SHOWN_MOST));
    }
    if (a->c->json) {
        printf("{\"status\":\"%s\",\"events\":%llu,\"certificates\":%llu,\"files\":%llu,"
               "\"crl_number\":%llu,\"findings\":%llu}\n",
               all ? "FINDINGS" : "OK", (unsigned long long)a->events,
               (unsigned long long)a->certificates, (unsigned long long)a->files,
               (unsigned long long)a->crl.number, (unsigned long long)all);
        return all;
    }
    printf("journal   %llu events\n", (unsigned long long)a->events);
    if (a->crl.list)
        printf("CRL       number %llu, %llu entries, anchors event %llu\n",
               (unsigned long long)a->crl.number, (unsigned long long)crl_file_count(&a->crl),
               (unsigned long long)a->crl.journal_seq);
    else
        printf("CRL       none yet\n");
    if (a->shard_count)
        printf("shards    %u\n", a->shard_count);
    printf("store     %llu certificates\n", (unsigned long long)a->certificates);
    printf("files     %llu%s\n", (unsigned long long)a->files,
           config_has_files(a->c->config) ? "" : ", certificate_files is off");
    if (all == 0)
        printf("the audit passed: all of them agree\n");
    else
        printf("%llu findings; docs/recovery.md says what each may mean\n",
               (unsigned long long)all);
    return all;
}

int cmd_audit(struct ctl *c, int argc, char **argv)
{
    struct audit a = {.c = c};
    uint64_t found = 0;
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr,
                "usage: signetctl audit\n\n"
                "Checks, beside a running signetd, that journal (hash chain, journal.log), CRL "
                "(signature,\nanchor, entries), store (each certificate's digests, signature, "
                "state) and files tell the\nsame. Exit code 0 when they do, 6 with a line for each "
                "finding when not.\n");
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    int rc = ctl_store(c, &a.store) || ctl_issuer(c, c->config->certificate, &a.issuer) ||
             load_root(&a) || run(&a);
    ctl_progress_end(c);
    if (rc == 0)
        found = summary(&a);
    store_close(a.store);
    crl_file_free(&a.crl);
    audit_shards_free(&a);
    issuer_free(a.issuer);
    X509_free(a.root);
    tdestroy(a.facts, free);
    if (rc)
        return ctl_fail(c, EXIT_LOCAL);
    return found ? EXIT_FINDINGS : EXIT_DONE;
}
