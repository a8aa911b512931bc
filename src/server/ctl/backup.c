/* signetctl backup: a copy of what cannot be made anew, as one moment saw it, beside a running
 * signetd. Never in it: the PIN, the token's keys, the listener's key. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "pki/crl.h"
#include "server/ctl/ctl.h"
#include "server/ctl/manifest.h"

#define SMALL_FILE_MAX (64 * 1024)
#define CRL_FILE_MAX (512 * 1024 * 1024)

struct backup {
    struct ctl *c;
    char folder[PATH_MAX]; /* under its temporary name */
    uint64_t seq, crl_number, certificates;
    uint8_t hash[32];
};

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: signetctl backup --out FOLDER\n"
            "\n"
            "A consistent copy of the store with the CA's certificates, CRL and configuration, "
            "while\nsignetd runs. FOLDER must not be there yet; it appears when it is whole, with "
            "SHA256SUMS.\nThe PIN and the token's key are not in it. Keep it off this machine, and "
            "keep published\nCRLs too: signetctl restore wants the newest. docs/recovery.md has "
            "the whole.\n");
    return code;
}

/* ---- the parts ---- */

static void on_progress(int done, int total, void *arg)
{
    struct backup *b = arg;
    ctl_progress(b->c, "copying the store", (uint64_t)done, (uint64_t)total);
}

static int on_crl(const struct crl_row *row, void *arg)
{
    struct backup *b = arg;
    if (row->shard == 0 && row->published && row->number > b->crl_number)
        b->crl_number = row->number;
    return 0;
}

/* Copy and numbers from one snapshot. */
static int copy_store(struct store_tx *tx, void *arg)
{
    struct backup *b = arg;
    struct store_counts n;
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/signet.db", b->folder);
    err_set(&b->c->err, ERR_storage_unavailable, "the store cannot be read");
    if (tx_backup(tx, path, on_progress, b, &b->c->err) || tx_journal_head(tx, &b->seq, b->hash) ||
        tx_each_crl(tx, on_crl, b) || tx_counts(tx, &n))
        return -1;
    b->certificates = n.issued + n.revoked + n.orphans + n.open;
    return sync_path(path, &b->c->err);
}

static int copy_file(struct backup *b, const char *from, const char *name, size_t max, int needed)
{
    char to[PATH_MAX + 32];
    struct buf text;
    struct stat st;
    if (!needed && stat(from, &st) && errno == ENOENT)
        return 0;
    if (file_read(&text, from, max, &b->c->err))
        return -1;
    snprintf(to, sizeof to, "%s/%s", b->folder, name);
    int rc = file_write(to, buf_view(&text), 0600, 0, &b->c->err);
    buf_free(&text);
    return rc;
}

/* The full one, and those of the shards. */
static int copy_crls(struct backup *b)
{
    char path[PATH_MAX], name[CRL_NAME_MAX];
    for (unsigned i = 0; i <= CRL_SHARDS_MAX; i++) {
        snprintf(path, sizeof path, "%s/%s", b->c->config->state, crl_file_name(name, i));
        if (copy_file(b, path, name, CRL_FILE_MAX, 0))
            return -1;
    }
    return 0;
}

static int copy_files(struct backup *b)
{
    const struct config *conf = b->c->config;
    char root_crl[PATH_MAX];
    snprintf(root_crl, sizeof root_crl, "%s/root-crl.der", conf->state);
    return copy_file(b, conf->certificate, "intermediate.pem", SMALL_FILE_MAX, 1) ||
                   copy_file(b, conf->chain, "ca-chain.pem", SMALL_FILE_MAX, 1) ||
                   copy_file(b, root_crl, "root-crl.der", CRL_FILE_MAX, 0) || copy_crls(b) ||
                   copy_file(b, b->c->config_path, "signet.conf", CONFIG_SIZE_MAX, 1)
               ? -1
               : 0;
}

/* For people; restore reads the store itself. */
static int write_note(struct backup *b)
{
    char path[PATH_MAX + 16], text[512], when[32], hex[65];
    hex_encode(hex, (struct bytes){b->hash, 32});
    int n = snprintf(text, sizeof text,
                     "Signet backup, made %s by signetctl %s\n"
                     "certificates %llu\njournal event %llu %s\nCRL number   %llu\n"
                     "To restore: signetctl restore --help\n",
                     time_text(when, (int64_t)time(NULL)), SIGNET_VERSION,
                     (unsigned long long)b->certificates, (unsigned long long)b->seq, hex,
                     (unsigned long long)b->crl_number);
    snprintf(path, sizeof path, "%s/backup.txt", b->folder);
    return file_write(path, (struct bytes){(const uint8_t *)text, (size_t)n}, 0600, 0, &b->c->err);
}

/* ---- the folder ---- */

static int put_in_place(struct backup *b, const char *out)
{
    char copy[PATH_MAX];
    if (renameat2(AT_FDCWD, b->folder, AT_FDCWD, out, RENAME_NOREPLACE))
        return err_set(&b->c->err, ERR_already_exists, "%s: %s", out, strerror(errno));
    snprintf(copy, sizeof copy, "%s", out);
    return sync_path(dirname(copy), &b->c->err);
}

static int make(struct backup *b, char *out)
{
    struct store *s;
    struct stat st;
    struct err *err = &b->c->err;
    size_t len = strlen(out);
    while (len > 1 && out[len - 1] == '/')
        out[--len] = '\0';
    if (lstat(out, &st) == 0)
        return err_set(err, ERR_already_exists, "%s is there already; name a new folder", out);
    if (ctl_store(b->c, &s))
        return -1;
    int n = snprintf(b->folder, sizeof b->folder, "%s.XXXXXX", out);
    if (n >= (int)sizeof b->folder || !mkdtemp(b->folder)) {
        store_close(s);
        return err_set(err, ERR_internal, "%s: %s", out, strerror(errno));
    }
    int rc = store_read(s, copy_store, b);
    store_close(s);
    if (rc == 0)
        rc = copy_files(b) || write_note(b) || manifest_write(b->folder, err) ||
                     sync_path(b->folder, err) || put_in_place(b, out)
                 ? -1
                 : 0;
    if (rc)
        manifest_remove(b->folder);
    return rc;
}

int cmd_backup(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"out", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct backup b = {.c = c};
    char *out = NULL;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'o')
            return usage(option == 'h' ? EXIT_DONE : EXIT_USAGE);
        out = optarg;
    }
    if (!out || optind < argc)
        return usage(EXIT_USAGE);
    if (make(&b, out))
        return ctl_fail(c, EXIT_LOCAL);
    ctl_progress_end(c);
    if (c->json) {
        printf("{\"status\":\"OK\",\"folder\":");
        json_string(out);
        printf(",\"certificates\":%llu,\"journal_seq\":%llu,\"crl_number\":%llu}\n",
               (unsigned long long)b.certificates, (unsigned long long)b.seq,
               (unsigned long long)b.crl_number);
    } else {
        printf("%s: %llu certificates, journal to event %llu, CRL number %llu\n", out,
               (unsigned long long)b.certificates, (unsigned long long)b.seq,
               (unsigned long long)b.crl_number);
    }
    return EXIT_DONE;
}
