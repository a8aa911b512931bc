/* signet-publisher: builds one CRL and ends.
 *
 * It holds a read-only connection to the store and the file it writes. Only the authority speaks to
 * it: one job in, a digest out, the signature in, done. It never sees the token, the PIN, a client
 * or a request. It is niced: a million entries take seconds, and must stop nobody.
 *
 *     STATE/crl.tbs.tmp   what is signed, streamed from the store
 *     STATE/crl.der.tmp   the whole CRL, verified; renamed to STATE/crl.der, or crl-K.der of a
 * shard
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/file.h"
#include "common/log.h"
#include "common/msg.h"
#include "common/sandbox.h"
#include "pki/crl.h"
#include "server/authority/store.h"

#define FD_CONFIG 4
#define FD_AUTHORITY 5
#define PEM_MAX (64 * 1024)
#define POINTS_MAX 16 /* public_urls that were given up count too */

struct publisher {
    struct config *config;
    struct issuer *issuer;
    struct store *store;
    struct msg_crl_job job;
    uint8_t journal_hash[32];
    struct crl *crl;
    char points[POINTS_MAX][CRL_URL_MAX + CRL_NAME_MAX];
    const char *point_list[POINTS_MAX + 1];
    char tbs_path[PATH_MAX], tmp_path[PATH_MAX], path[PATH_MAX];
    int tbs, out;
    uint64_t entries;
    struct err err;
    struct msg in;
};

static int load(struct publisher *p)
{
    struct buf pem;
    if (config_from_fd(&p->config, FD_CONFIG, &p->err) ||
        file_read(&pem, p->config->certificate, PEM_MAX, &p->err))
        return -1;
    int rc = issuer_from_pem(&p->issuer, buf_view(&pem), &p->err);
    buf_free(&pem);
    if (rc)
        return -1;
    snprintf(p->tbs_path, sizeof p->tbs_path, "%s/crl.tbs.tmp", p->config->state);
    snprintf(p->tmp_path, sizeof p->tmp_path, "%s/crl.der.tmp", p->config->state);
    return store_open_read_only(&p->store, p->config->state, &p->err);
}

static int receive_job(struct publisher *p)
{
    if (msg_receive(FD_AUTHORITY, &p->in, PROC_AUTHORITY, PROC_PUBLISHER) != 1 ||
        p->in.type != MSG_crl_job || msg_decode(&p->job, MSG_crl_job, p->in.fields) ||
        p->job.journal_hash.len != 32 || p->job.shard > CRL_SHARDS_MAX)
        return err_set(&p->err, ERR_internal, "no job came from the authority");
    char name[CRL_NAME_MAX];
    snprintf(p->path, sizeof p->path, "%s/%s", p->config->state, crl_file_name(name, p->job.shard));
    memcpy(p->journal_hash, p->job.journal_hash.data, 32);
    uint8_t issuer[32];
    sha256(issuer, issuer_certificate_der(p->issuer));
    if (!bytes_equal(p->job.issuer_sha256, (struct bytes){issuer, 32}))
        return err_set(&p->err, ERR_field_value,
                       "%s is another certificate than the one that signetd runs with; restart it",
                       p->config->certificate);
    return 0;
}

static int make_file(struct publisher *p, const char *path, mode_t mode)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        err_set(&p->err, ERR_storage_unavailable, "%s: %s", path, strerror(errno));
    return fd;
}

/* ---- the list ---- */

static int count_entry(const struct revoked_row *row, void *arg)
{
    struct publisher *p = arg;
    struct crl_entry e = {row->serial, row->revoked_at, row->reason};
    p->entries++;
    return crl_count(p->crl, &e, &p->err);
}

static int add_entry(const struct revoked_row *row, void *arg)
{
    struct publisher *p = arg;
    struct crl_entry e = {row->serial, row->revoked_at, row->reason};
    return crl_add(p->crl, &e, &p->err);
}

static int walk(struct store_tx *tx, struct publisher *p,
                int (*each)(const struct revoked_row *row, void *arg))
{
    return tx_each_revoked(tx, p->job.issuer, (int)p->job.shard, p->job.expired_before, each, p);
}

/* A shard is known by each URL that ever stood in a certificate of it: a verifier compares the two
 * (RFC 5280 section 6.3.3). */
static int read_points(struct store_tx *tx, struct publisher *p)
{
    char url[CRL_URL_MAX] = "", path[CRL_NAME_MAX];
    int rc, n = 0;
    while ((rc = tx_crl_url_after(tx, url)) == 0) {
        if (n == POINTS_MAX)
            return err_set(&p->err, ERR_internal, "more than %d public_urls were ever used",
                           POINTS_MAX);
        snprintf(p->points[n], sizeof p->points[n], "%s%s", url, crl_url_path(path, p->job.shard));
        p->point_list[n] = p->points[n];
        n++;
    }
    return rc < 0 || n == 0 ? -1 : 0;
}

/* Both walks in one snapshot, so that they see the same. */
static int build(struct store_tx *tx, void *arg)
{
    struct publisher *p = arg;
    struct crl_head head = {.issuer = p->issuer,
                            .number = p->job.number,
                            .this_update = p->job.this_update,
                            .next_update = p->job.next_update,
                            .journal_seq = p->job.journal_seq};
    memcpy(head.journal_hash, p->journal_hash, 32);
    if (p->job.shard && read_points(tx, p))
        return -1;
    head.points = p->job.shard ? p->point_list : NULL;
    return crl_new(&p->crl, &head, p->tbs, &p->err) || walk(tx, p, count_entry) ||
                   crl_begin(p->crl, &p->err) || walk(tx, p, add_entry)
               ? -1
               : 0;
}

static int have_it_signed(struct publisher *p, struct bytes *signature)
{
    uint8_t digest[DIGEST_MAX];
    size_t len;
    struct msg_crl_signature answer;
    if (crl_digest(p->crl, digest, &len, &p->err))
        return -1;
    struct msg_crl_digest m = {.digest = {digest, len}};
    if (msg_send_wait(FD_AUTHORITY, MSG_crl_digest, 1, &m, -1) ||
        msg_receive(FD_AUTHORITY, &p->in, PROC_AUTHORITY, PROC_PUBLISHER) != 1 ||
        p->in.type != MSG_crl_signature || msg_decode(&answer, MSG_crl_signature, p->in.fields))
        return err_set(&p->err, ERR_internal, "no signature came from the authority");
    *signature = answer.signature;
    return 0;
}

/* Durable before its name: fsync, rename, fsync of the folder. */
static int put_in_place(struct publisher *p)
{
    int folder = open(p->config->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fsync(p->out) || rename(p->tmp_path, p->path) || folder < 0 || fsync(folder) ? -1 : 0;
    if (rc)
        err_set(&p->err, ERR_storage_unavailable, "%s: %s", p->path, strerror(errno));
    if (folder >= 0)
        close(folder);
    return rc;
}

/* With the CRL itself, as it is now: the file's later fate is nothing that verifiers should see. */
static int report(struct publisher *p)
{
    uint8_t digest[32];
    struct msg_crl_done m = {.entries = p->entries, .sha256 = {digest, 32}};
    int copy = file_sealed_copy(p->out, digest, &m.size, &p->err);
    if (copy < 0)
        return -1;
    int rc = msg_send_wait(FD_AUTHORITY, MSG_crl_done, 1, &m, copy);
    if (rc)
        err_set(&p->err, ERR_internal, "the CRL cannot be handed to the authority: %s",
                strerror(errno));
    close(copy);
    return rc;
}

static int publish(struct publisher *p)
{
    /* store and files are open then: no other can be, and none of these by its name */
    const struct sandbox_path state[] = {{p->config->state, SANDBOX_NAMES}, {NULL, SANDBOX_READ}};
    struct bytes signature;
    err_set(&p->err, ERR_storage_unavailable, "the store cannot be read");
    if ((p->tbs = make_file(p, p->tbs_path, 0600)) < 0 ||
        (p->out = make_file(p, p->tmp_path, 0644)) < 0 ||
        sandbox_enter(PROC_PUBLISHER, state, &p->err) || store_read(p->store, build, p) ||
        have_it_signed(p, &signature) || crl_finish(p->crl, signature, p->out, &p->err) ||
        put_in_place(p))
        return -1;
    return report(p);
}

static void clean_up(struct publisher *p)
{
    crl_free(p->crl);
    store_close(p->store);
    issuer_free(p->issuer);
    if (p->tbs >= 0)
        unlink(p->tbs_path);
    if (p->out >= 0)
        unlink(p->tmp_path); /* gone already when all went well */
    config_free(p->config);
}

int main(void)
{
    static struct publisher p = {.tbs = -1, .out = -1};
    log_open("signet-publisher", LOG_INFO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sandbox_prepare();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    umask(022);
    setpriority(PRIO_PROCESS, 0, 10);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    int rc = load(&p) || receive_job(&p) || publish(&p);
    if (rc) {
        struct msg_crl_failed m = {.why = p.err.text};
        log_error("CRL %llu: %s", (unsigned long long)p.job.number, p.err.text);
        if (msg_send_wait(FD_AUTHORITY, MSG_crl_failed, 1, &m, -1))
            log_error("the authority is gone");
    }
    clean_up(&p);
    return rc ? 1 : 0;
}
