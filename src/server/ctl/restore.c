/* signetctl restore: a backup becomes a state again, and what was published since is not forgotten.
 *
 * The backup is of yesterday; the world has seen CRLs since. Every entry of the newest one is taken
 * over, also of serials that the backup does not know, and the next CRL's number is far above any
 * that can have been published. journal.log and certs/ are made from the store at signetd's start.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "server/ctl/crl_file.h"
#include "server/ctl/ctl.h"
#include "server/ctl/manifest.h"

/* The newest CRL at hand may not be the newest there was: some may have been published since. */
#define NUMBER_JUMP 1000000
#define SMALL_MAX (4 * 1024 * 1024)

struct restore {
    struct ctl *c;
    const char *from, *crl_path, *state;
    struct issuer *issuer;
    struct crl_file crl; /* .list NULL: --none */
    char work[PATH_MAX]; /* STATE/restore.tmp: until the database is whole */

    /* set by the merge */
    int rc;
    int64_t issuer_id, now;
    struct store_tx *tx;
    uint64_t certificates, seq, next_number, changed, lost, listed, held_only_here, open_enrolments;
};

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: signetctl restore --from FOLDER --crl NEWEST.crl [--state DIR]\n"
        "       signetctl restore --from FOLDER --none [--state DIR]\n"
        "\n"
        "Makes a state of what signetctl backup wrote, where there is none; signetd must not "
        "run.\n"
        "\n"
        "  --from FOLDER   the backup\n"
        "  --crl FILE      the newest CRL that was published, DER or PEM: what it revokes stays "
        "revoked.\n                  Any verifier's copy will do; its signature is checked\n"
        "  --none          there is no newer CRL to be had: revocations since the backup are "
        "lost\n"
        "  --state DIR     another folder than the configuration's\n"
        "\n"
        "If the configuration is lost too: signetctl --config FOLDER/signet.conf restore …\n"
        "Afterwards: start signetd, signetctl audit, then signetctl import what was issued "
        "since.\n");
    return code;
}

/* ---- the merge: one transaction ---- */

static int store_failed(struct restore *r)
{
    return err_set(&r->c->err, ERR_storage_unavailable, "the restored store cannot be written");
}

/* Of a serial that the backup does not know only the CRL speaks: a row without a certificate, that
 * is listed until the CA ends. signetctl import fills it in. */
static int add_lost(struct restore *r, const struct crl_entry *e, struct certificate_row *row)
{
    *row = (struct certificate_row){.issuer = r->issuer_id,
                                    .serial_len = e->serial.len,
                                    .profile = "unknown",
                                    .name = "unknown",
                                    .shard = -1,
                                    .not_before = e->revoked_at,
                                    .not_after = issuer_not_after(r->issuer),
                                    .created_at = r->now};
    memcpy(row->serial, e->serial.data, e->serial.len);
    r->lost++;
    return tx_add_intent(r->tx, row) ? -1 : 0;
}

static int on_entry(const struct crl_entry *e, void *arg)
{
    struct restore *r = arg;
    struct certificate_row row;
    char serial[41], when[32];
    enum certificate_state to = e->reason == REASON_HOLD ? STATE_HELD : STATE_REVOKED;
    int known = tx_certificate_by_serial(r->tx, r->issuer_id, e->serial, &row);
    ctl_progress(r->c, "taking over revocations", ++r->listed, crl_file_count(&r->crl));
    if (known < 0)
        return store_failed(r);
    if (known == 0 && (row.state == to || row.state == STATE_ORPHAN) &&
        row.revoked_at == e->revoked_at && row.reason == e->reason)
        return 0;
    if ((known == 1 && add_lost(r, e, &row)) ||
        tx_set_revoked(r->tx, row.id, to, e->revoked_at, e->reason))
        return store_failed(r);
    hex_encode(serial, e->serial);
    r->changed++;
    return tx_event(r->tx, r->now, 0, "%s serial=%s name=%s reason=%s operator=restore%s at=%s",
                    to == STATE_HELD ? "held" : "revoked", serial, row.name,
                    crl_reason_name(e->reason), known == 1 ? " certificate=lost" : "",
                    time_text(when, e->revoked_at))
               ? store_failed(r)
               : 0;
}

static int is_on_crl(const struct restore *r, const struct certificate_row *row)
{
    X509_REVOKED *found;
    BIGNUM *n = BN_bin2bn(row->serial, (int)row->serial_len, NULL);
    ASN1_INTEGER *serial = n ? BN_to_ASN1_INTEGER(n, NULL) : NULL;
    int listed = serial && X509_CRL_get0_by_serial(r->crl.list, &found, serial) == 1;
    ASN1_INTEGER_free(serial);
    BN_free(n);
    return listed;
}

static int on_held(const struct certificate_row *row, void *arg)
{
    struct restore *r = arg;
    r->held_only_here += !is_on_crl(r, row);
    return 0;
}

static int merge_crl(struct restore *r)
{
    struct list_filter held = {.state = STATE_HELD, .limit = UINT_MAX};
    if (!r->crl.list)
        return 0;
    if (crl_file_each(&r->crl, on_entry, r))
        return r->c->err.code ? -1
                              : err_set(&r->c->err, ERR_field_value,
                                        "%s: an entry is not understood", r->crl_path);
    return tx_list(r->tx, &held, on_held, r) ? store_failed(r) : 0;
}

/* A use that was spent after the backup is open again here: nothing tells of it. */
static int count_enrolments(struct restore *r)
{
    struct enrolment_row e = {0};
    int rc;
    while ((rc = tx_enrolment_after(r->tx, e.user, &e)) == 0)
        r->open_enrolments += !e.ended_at && e.uses < e.uses_max && r->now < e.not_after;
    return rc < 0 ? store_failed(r) : 0;
}

/* Taken and never published: the next one is above it. */
static int raise_number(struct restore *r, int scope)
{
    struct crl_row last = {0};
    struct crl_row taken = {.issuer = r->issuer_id,
                            .shard = scope,
                            .this_update = r->now,
                            .next_update = r->now,
                            .journal_seq = r->seq};
    if (tx_last_crl(r->tx, r->issuer_id, scope, 0, &last) < 0)
        return store_failed(r);
    uint64_t newest = scope == 0 && r->crl.number > last.number ? r->crl.number : last.number;
    taken.number = newest + NUMBER_JUMP;
    if (scope == 0)
        r->next_number = taken.number + 1;
    return tx_add_crl(r->tx, &taken) ? store_failed(r) : 0;
}

/* Of the shards too that the backup does not know: there may have been more since. */
static int raise_numbers(struct restore *r)
{
    for (int scope = 0; scope <= CRL_SHARDS_MAX; scope++)
        if (raise_number(r, scope))
            return -1;
    return 0;
}

static int find_issuer(struct restore *r)
{
    uint8_t name[32];
    sha256(name, issuer_name_der(r->issuer));
    return tx_issuer(r->tx, issuer_certificate_der(r->issuer), name, issuer_spki_sha256(r->issuer),
                     issuer_not_after(r->issuer), r->now, &r->issuer_id)
               ? store_failed(r)
               : 0;
}

static int merge(struct store_tx *tx, void *arg)
{
    struct restore *r = arg;
    struct store_counts n;
    uint8_t hash[32];
    char number[24] = "none";
    int64_t last = 0;
    r->tx = tx;
    r->now = (int64_t)time(NULL);
    if (tx_journal_head(tx, &r->seq, hash) || tx_last_event_time(tx, &last) < 0 ||
        tx_counts(tx, &n))
        return store_failed(r);
    if (r->now < last)
        r->now = last; /* events do not go back; signetd's clock rule deals with the rest */
    r->certificates = n.issued + n.revoked + n.orphans + n.open;
    if (r->crl.list)
        snprintf(number, sizeof number, "%llu", (unsigned long long)r->crl.number);
    if (tx_event(tx, r->now, 0, "restored journal=%llu crl=%s", (unsigned long long)r->seq,
                 number) ||
        tx_set_meta(tx, "projected", 0))
        return store_failed(r);
    return find_issuer(r) || merge_crl(r) || raise_numbers(r) || count_enrolments(r) ? -1 : 0;
}

static void merged(int durable, void *arg)
{
    struct restore *r = arg;
    r->rc = durable ? 0 : -1;
}

static int run_merge(struct restore *r)
{
    struct store *s;
    r->rc = -1;
    if (store_open(&s, r->work, &r->c->err))
        return -1;
    r->c->err.code = ERR_none;
    if (store_submit(s, merge, merged, r) == 0)
        store_commit(s);
    if (r->rc && r->c->err.code == ERR_none)
        err_set(&r->c->err, ERR_storage_unavailable, "the restored store cannot be written: %s",
                store_problem(s) ? store_problem(s) : "no memory");
    store_close(s);
    return r->rc;
}

/* ---- files ---- */

static int exists(const char *folder, const char *name)
{
    char path[PATH_MAX];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return lstat(path, &st) == 0;
}

static int check_target(struct restore *r)
{
    static const char *const remains[] = {"signet.db", "journal.log", "certs", "crl.der"};
    struct err *err = &r->c->err;
    if (file_make_dir(r->state, 0750, err))
        return -1;
    char shard[CRL_NAME_MAX];
    for (size_t i = 0; i < sizeof remains / sizeof *remains + CRL_SHARDS_MAX; i++) {
        size_t behind = sizeof remains / sizeof *remains;
        const char *name =
            i < behind ? remains[i] : crl_file_name(shard, (unsigned)(i - behind) + 1);
        if (exists(r->state, name))
            return err_set(err, ERR_already_exists,
                           "%s/%s is there: nothing is overwritten. Move the whole folder aside, "
                           "keep it (its crl.der and certs may be newer than the backup), and "
                           "restore into a new one",
                           r->state, name);
    }
    return 0;
}

/* As the folder's owner, who is signetd. */
static int give_away(struct restore *r, const char *path)
{
    struct stat st;
    if (geteuid() != 0)
        return 0;
    if (stat(r->state, &st) || lchown(path, st.st_uid, st.st_gid))
        return err_set(&r->c->err, ERR_internal, "%s: %s", path, strerror(errno));
    return 0;
}

static int copy_database(struct restore *r)
{
    char from[PATH_MAX], to[PATH_MAX + 16];
    snprintf(from, sizeof from, "%s/signet.db", r->from);
    snprintf(to, sizeof to, "%s/signet.db", r->work);
    manifest_remove(r->work); /* of a restore that did not end */
    if (mkdir(r->work, 0700))
        return err_set(&r->c->err, ERR_internal, "%s: %s", r->work, strerror(errno));
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    ssize_t n = -1;
    while (in >= 0 && out >= 0 && (n = copy_file_range(in, NULL, out, NULL, 1 << 24, 0)) > 0)
        ;
    int rc = n == 0 ? 0 : err_set(&r->c->err, ERR_internal, "%s: %s", to, strerror(errno));
    if (in >= 0)
        close(in);
    if (out >= 0 && close(out) && rc == 0)
        rc = err_set(&r->c->err, ERR_internal, "%s: %s", to, strerror(errno));
    return rc;
}

/* What is there already stays: the root's CRL, or the CA's certificate, may be newer. */
static int place_small(struct restore *r, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    struct buf text;
    snprintf(from, sizeof from, "%s/%s", r->from, name);
    snprintf(to, sizeof to, "%s/%s", r->state, name);
    if (!exists(r->from, name) || exists(r->state, name))
        return 0;
    if (file_read(&text, from, SMALL_MAX, &r->c->err))
        return -1;
    int rc = file_write(to, buf_view(&text), 0644, 0, &r->c->err) ? -1 : give_away(r, to);
    buf_free(&text);
    return rc;
}

/* The same key and name is the same CA, also with a renewed certificate. */
static int check_same_ca(struct restore *r)
{
    char path[PATH_MAX];
    struct issuer *there;
    snprintf(path, sizeof path, "%s/intermediate.pem", r->state);
    if (!exists(r->state, "intermediate.pem"))
        return 0;
    if (ctl_issuer(r->c, path, &there))
        return -1;
    int same = bytes_equal(issuer_name_der(there), issuer_name_der(r->issuer)) &&
               memcmp(issuer_spki_sha256(there), issuer_spki_sha256(r->issuer), 32) == 0;
    issuer_free(there);
    return same ? 0
                : err_set(&r->c->err, ERR_already_exists,
                          "%s is not the backup's: that is another CA", path);
}

/* The database last: with its name the state is there. */
static int place(struct restore *r)
{
    char from[PATH_MAX + 16], to[PATH_MAX];
    snprintf(from, sizeof from, "%s/signet.db", r->work);
    snprintf(to, sizeof to, "%s/signet.db", r->state);
    if (place_small(r, "intermediate.pem") || place_small(r, "ca-chain.pem") ||
        place_small(r, "root-crl.der") || give_away(r, from) || sync_path(from, &r->c->err))
        return -1;
    if (rename(from, to))
        return err_set(&r->c->err, ERR_internal, "%s: %s", to, strerror(errno));
    manifest_remove(r->work);
    return sync_path(r->state, &r->c->err);
}

static int read_inputs(struct restore *r)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/intermediate.pem", r->from);
    if (manifest_check(r->from, &r->c->err) || ctl_issuer(r->c, path, &r->issuer))
        return -1;
    return r->crl_path ? crl_file_read(&r->crl, r->crl_path, r->issuer, &r->c->err) : 0;
}

static int restore(struct restore *r)
{
    char lock_path[PATH_MAX];
    if (read_inputs(r) || check_target(r))
        return -1;
    int lock = ctl_lock_state(r->c, r->state);
    if (lock < 0)
        return -1;
    snprintf(lock_path, sizeof lock_path, "%s/lock", r->state);
    snprintf(r->work, sizeof r->work, "%s/restore.tmp", r->state);
    int rc = check_target(r) || check_same_ca(r) || give_away(r, lock_path) || copy_database(r) ||
                     run_merge(r) || place(r)
                 ? -1
                 : 0;
    if (rc)
        manifest_remove(r->work);
    close(lock);
    return rc;
}

static void report(const struct restore *r)
{
    if (r->c->json) {
        printf("{\"status\":\"OK\",\"certificates\":%llu,\"journal_seq\":%llu,\"crl_entries\":%llu,"
               "\"revocations_taken\":%llu,\"certificates_lost\":%llu,\"next_crl_number\":%llu,"
               "\"open_enrolments\":%llu}\n",
               (unsigned long long)r->certificates, (unsigned long long)r->seq,
               (unsigned long long)r->listed, (unsigned long long)r->changed,
               (unsigned long long)r->lost, (unsigned long long)r->next_number,
               (unsigned long long)r->open_enrolments);
        return;
    }
    printf("%s: %llu certificates, journal to event %llu; the next CRL has number %llu\n", r->state,
           (unsigned long long)r->certificates, (unsigned long long)r->seq,
           (unsigned long long)r->next_number);
    if (r->crl.list)
        printf("CRL %llu: %llu entries, %llu taken over, %llu of them of certificates that the "
               "backup does not know\n",
               (unsigned long long)r->crl.number, (unsigned long long)r->listed,
               (unsigned long long)r->changed, (unsigned long long)r->lost);
    else
        printf("no CRL: what was revoked after the backup is in force again; revoke it anew\n");
    if (r->held_only_here)
        printf("%llu certificates were on hold at the backup and are not on that CRL: they stay on "
               "hold\nuntil a revoker lifts it (signetctl export shows them)\n",
               (unsigned long long)r->held_only_here);
    if (r->open_enrolments)
        printf(
            "enrolment passwords open as they were at the backup: %llu; end those used since then\n"
            "(signetctl enrolment list, signetctl enrolment end)\n",
            (unsigned long long)r->open_enrolments);
    printf("next: start signetd; signetctl audit; signetctl import what the laptops hold\n");
}

int cmd_restore(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"from", required_argument, NULL, 'f'}, {"crl", required_argument, NULL, 'c'},
        {"none", no_argument, NULL, 'n'},       {"state", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},       {0}};
    struct restore r = {.c = c, .state = c->config ? c->config->state : NULL};
    int option, none = 0;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'f')
            r.from = optarg;
        else if (option == 'c')
            r.crl_path = optarg;
        else if (option == 'n')
            none = 1;
        else if (option == 's')
            r.state = optarg;
        else
            return usage(option == 'h' ? EXIT_DONE : EXIT_USAGE);
    }
    if (!r.from || none == (r.crl_path != NULL) || optind < argc)
        return usage(EXIT_USAGE);
    int rc = restore(&r);
    ctl_progress_end(c);
    if (rc == 0)
        report(&r);
    crl_file_free(&r.crl);
    issuer_free(r.issuer);
    return rc ? ctl_fail(c, EXIT_LOCAL) : EXIT_DONE;
}
