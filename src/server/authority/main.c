/* signet-authority: the one process that decides.
 *
 * It holds policy, profiles, serials, the store and the journal, in its state directory. Fronts
 * (requests, already typed and bounded), signers (signatures), publishers (CRLs) and the supervisor
 * speak to it over sockets they were born with; signetctl over STATE/admin.sock. It never sees HTTP
 * or TLS, never the PIN, and never a CA's private key; JSON only when an operator's signature over
 * it has verified (signed.c).
 *
 * One loop: every pass handles what has come, then commits all of it at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "server/authority/admin.h"
#include "server/authority/authority.h"
#include "server/authority/clock.h"
#include "server/authority/fronts.h"
#include "server/authority/issue.h"
#include "server/authority/listener.h"
#include "server/authority/ocsp.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"
#include "server/authority/responder.h"
#include "server/authority/signers.h"

#define FD_SUPERVISOR 3
#define FD_CONFIG 4
#define PEM_MAX (64 * 1024)

/* ---- the CA's certificates ---- */

static STACK_OF(X509) * read_chain(struct bytes pem)
{
    STACK_OF(X509) *chain = sk_X509_new_null();
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *x;
    while (chain && in && (x = PEM_read_bio_X509(in, NULL, NULL, NULL)))
        if (!sk_X509_push(chain, x))
            X509_free(x);
    ERR_clear_error();
    BIO_free(in);
    return chain;
}

/* The chain must lead from this issuer to a root that ends the file: what it serves to others it
 * has checked itself. */
static int check_chain(struct authority *a, STACK_OF(X509) * chain, struct err *err)
{
    const char *path = a->config->chain;
    X509 *own = issuer_certificate(a->issuer);
    int n = sk_X509_num(chain);
    if (n < 2 || X509_cmp(sk_X509_value(chain, 0), own) != 0)
        return err_set(err, ERR_field_value,
                       "%s must hold the intermediate of %s first, then the root", path,
                       a->config->certificate);
    X509_STORE *roots = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int ok = roots && ctx && X509_STORE_add_cert(roots, sk_X509_value(chain, n - 1)) &&
             X509_STORE_CTX_init(ctx, roots, own, chain);
    if (ok) {
        /* clock.c judges the clock; and a CA that has expired still has its CRL to serve */
        X509_STORE_CTX_set_flags(ctx, X509_V_FLAG_NO_CHECK_TIME);
        ok = X509_verify_cert(ctx) == 1;
    }
    if (!ok)
        err_set(err, ERR_field_value, "%s does not verify the intermediate %s: %s", path,
                a->config->certificate,
                ctx ? X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)) : "no memory");
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(roots);
    ERR_clear_error();
    return ok ? 0 : -1;
}

static int keep_root(struct authority *a, X509 *root, struct err *err)
{
    unsigned char *der = NULL;
    int n = i2d_X509(root, &der);
    int rc = n > 0 ? buf_add(&a->root, der, (size_t)n) : -1;
    OPENSSL_free(der);
    return rc ? err_set(err, ERR_internal, "no memory") : 0;
}

static int load_issuer(struct authority *a, struct err *err)
{
    struct buf pem;
    if (file_read(&pem, a->config->certificate, PEM_MAX, err))
        return err_prefix(err, "the intermediate's certificate, of which each backup has a copy");
    int rc = issuer_from_pem(&a->issuer, buf_view(&pem), err);
    buf_free(&pem);
    if (rc)
        return err_prefix(err, "%s", a->config->certificate);
    if (file_read(&a->chain, a->config->chain, PEM_MAX, err))
        return err_prefix(err, "the chain, of which each backup has a copy");
    STACK_OF(X509) *chain = read_chain(buf_view(&a->chain));
    if (!chain)
        return err_set(err, ERR_internal, "no memory");
    rc = check_chain(a, chain, err) ||
         keep_root(a, sk_X509_value(chain, sk_X509_num(chain) - 1), err);
    sk_X509_pop_free(chain, X509_free);
    return rc ? -1 : 0;
}

/* ---- the store ---- */

struct first_round {
    struct authority *a;
    int rc;
};

static int decide_first(struct store_tx *tx, void *arg)
{
    struct first_round *f = arg;
    struct authority *a = f->a;
    uint8_t name[32];
    sha256(name, issuer_name_der(a->issuer));
    return tx_issuer(tx, issuer_certificate_der(a->issuer), name, issuer_spki_sha256(a->issuer),
                     issuer_not_after(a->issuer), clock_now(a->clock), &a->issuer_id) ||
                   tx_counts(tx, &a->counts)
               ? -1
               : 0;
}

static void after_first(int durable, void *arg)
{
    struct first_round *f = arg;
    f->rc = durable ? 0 : -1;
}

/* Whether the journal's file agrees with the store is seen before anything is written to either. */
static int open_store(struct authority *a, struct err *err)
{
    if (store_open(&a->store, a->config->state, err) || clock_open(&a->clock, a, err) ||
        projection_open(&a->projection, a, err))
        return -1;
    int orphans = issue_resolve_open(a, err);
    if (orphans < 0)
        return -1;
    if (orphans)
        log_warn("%d intents were open when signetd ended last; they are on the CRL as orphans",
                 orphans);
    struct first_round f = {a, -1};
    if (store_submit(a->store, decide_first, after_first, &f) == 0)
        store_commit(a->store);
    if (f.rc)
        return err_set(err, ERR_storage_unavailable, "%s",
                       store_problem(a->store) ? store_problem(a->store) : "no memory");
    return 0;
}

/* ---- a new configuration ---- */

/* Policy is exchanged between two rounds; the CA's own certificate cannot be: that is a restart. */
static int take_configuration(struct authority *a, int fd, struct err *err)
{
    struct authority fresh = {0};
    int rc = config_from_fd(&fresh.config, fd, err) || load_issuer(&fresh, err) ? -1 : 0;
    if (rc == 0 &&
        !bytes_equal(issuer_certificate_der(fresh.issuer), issuer_certificate_der(a->issuer)))
        rc = err_set(err, ERR_field_value, "the CA's certificate is another; that takes a restart");
    if (rc == 0 && strcmp(fresh.config->state, a->config->state) != 0)
        rc = err_set(err, ERR_field_value, "the state folder is another; that takes a restart");
    if (rc == 0)
        rc = profiles_load(&fresh.profiles, fresh.config->conf, a->issuer, fresh.config->public_url,
                           config_has_ocsp(fresh.config), err);
    if (rc == 0) {
        struct config *old_config = a->config;
        struct profiles *old_profiles = a->profiles;
        a->config = fresh.config;
        a->profiles = fresh.profiles;
        fresh.config = old_config;
        fresh.profiles = old_profiles;
        listener_check_names(a->listener);
        publish_configure(a->publishing);
        projection_wanted(a->projection);
    }
    profiles_free(fresh.profiles);
    issuer_free(fresh.issuer);
    buf_free(&fresh.chain);
    buf_free(&fresh.root);
    config_free(fresh.config);
    return rc;
}

static void reload(struct authority *a, int fd)
{
    struct err err;
    if (take_configuration(a, fd, &err))
        log_error("the new configuration is not taken: %s", err.text);
    else
        log_info("the new configuration is in force");
    close(fd);
}

/* ---- the supervisor ---- */

static int add_peer(struct authority *a, const struct msg_peer *m, int socket)
{
    switch (m->role) {
    case PROC_FRONT:
        fronts_add(a->fronts, m->number, socket);
        return 0;
    case PROC_SIGNER:
        signers_add(a->signers, m->number, socket);
        return 0;
    case PROC_PUBLISHER:
        publish_add(a->publishing, socket);
        return 0;
    default:
        close(socket);
        return -1;
    }
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct authority *a = arg;
    union {
        struct msg_peer peer;
        struct msg_reload reload;
        struct msg_token_state state;
    } body;
    int with_fd = m->type == MSG_peer || m->type == MSG_reload;
    if (with_fd != (m->fd >= 0) || msg_decode(&body, m->type, m->fields))
        return -1;
    if (m->type == MSG_peer)
        return add_peer(a, &body.peer, m->fd);
    if (m->type == MSG_reload) {
        reload(a, m->fd);
        return 0;
    }
    signers_token_state(a->signers, body.state.fault, body.state.detail);
    return 0;
}

static void on_supervisor_end(struct channel *c, const char *why, void *arg)
{
    (void)c, (void)arg;
    fatal("the supervisor is gone%s%s", why ? ": " : "", why ? why : "");
}

static void on_term(evutil_socket_t signal_number, short what, void *arg)
{
    (void)signal_number, (void)what;
    struct authority *a = arg;
    a->stopping = 1;
}

/* ---- a custody exception is journaled (design, section 5.6), once a start ---- */

static int custody_event(struct store_tx *tx, const struct authority *a, const char *exception,
                         const uint8_t spki_sha256[32], unsigned missing)
{
    char reason[512], key[65];
    snprintf(reason, sizeof reason, "%s", exception);
    for (char *p = reason; *p; p++)
        if (*p <= ' ' || *p > '~')
            *p = '_'; /* a field of the journal is one word */
    const char *comma = strchr(reason, ',');
    hex_encode(key, (struct bytes){spki_sha256, 32});
    return tx_event(tx, clock_now(a->clock), 0, "custody-exception key=%s missing=%#x reason=%s",
                    key, missing, comma ? comma + 1 + (comma[1] == '_') : reason);
}

static int decide_custody(struct store_tx *tx, void *arg)
{
    struct authority *a = arg;
    uint8_t responder[32];
    unsigned of_ca = signers_custody_missing(a->signers);
    unsigned of_responder = signers_responder_missing(a->signers);
    sha256(responder, signers_responder_spki(a->signers));
    return (of_ca && custody_event(tx, a, a->config->custody_exception,
                                   issuer_spki_sha256(a->issuer), of_ca)) ||
                   (of_responder && custody_event(tx, a, a->config->ocsp_custody_exception,
                                                  responder, of_responder))
               ? -1
               : 0;
}

/* The signer reports what is missing only under an exception; the configuration may be another
 * since. */
static int is_waived(const struct authority *a)
{
    unsigned of_ca = signers_custody_missing(a->signers);
    unsigned of_responder = signers_responder_missing(a->signers);
    return (of_ca || of_responder) && (!of_ca || a->config->custody_exception) &&
           (!of_responder || a->config->ocsp_custody_exception);
}

static void after_custody(int durable, void *arg)
{
    struct authority *a = arg;
    a->custody_journaled = durable;
    if (durable)
        projection_wanted(a->projection);
}

static void journal_custody(struct authority *a)
{
    if (a->custody_journaled || !is_waived(a))
        return;
    a->custody_journaled = 1;
    if (store_submit(a->store, decide_custody, after_custody, a))
        a->custody_journaled = 0;
}

/* ---- the whole ---- */

/* Everything that can be wrong with configuration and CA files, without touching state or token. */
static int load(struct authority *a, struct err *err)
{
    return config_from_fd(&a->config, FD_CONFIG, err) || load_issuer(a, err) ||
                   profiles_load(&a->profiles, a->config->conf, a->issuer, a->config->public_url,
                                 config_has_ocsp(a->config), err)
               ? -1
               : 0;
}

static void on_changes(const struct state_change *list, size_t count, void *arg)
{
    struct authority *a = arg;
    fronts_forget(a->fronts, list, count);
}

/* What waits for a signer, or for its time. */
static void look(void *arg)
{
    struct authority *a = arg;
    listener_look(a->listener);
    delegation_look(a->delegation);
    publish_look(a->publishing);
}

static int set_up(struct authority *a, struct err *err)
{
    if (open_store(a, err))
        return -1;
    a->signers = signers_new(a);
    a->issuing = issuing_new(a);
    a->fronts = fronts_new(a);
    a->responding = responding_new(a);
    store_on_changes(a->store, on_changes, a);
    if (publishing_open(&a->publishing, a, err) || admin_open(&a->admin, a, err))
        return -1;
    projection_wanted(a->projection); /* orphans, if there are any */
    a->listener = listener_new(a);
    a->delegation = delegation_new(a);
    signers_on_ready(a->signers, look, a);
    return 0;
}

/* Before the first front is connected. Certificate and chain may be elsewhere, and are read again
 * on SIGHUP; `certs` may be a link to another disk. */
static int shut_in(const struct authority *a, struct err *err)
{
    char certs[PATH_MAX];
    snprintf(certs, sizeof certs, "%s/certs", a->config->state);
    const struct sandbox_path paths[] = {{a->config->state, SANDBOX_ALL},
                                         {certs, SANDBOX_ALL},
                                         {a->config->certificate, SANDBOX_READ},
                                         {a->config->chain, SANDBOX_READ},
                                         {NULL, SANDBOX_READ}};
    return sandbox_enter(PROC_AUTHORITY, paths, err);
}

/* Until nothing is open any more: a request that was taken is answered. The supervisor ends the
 * fronts before; who signals the whole group does not. */
static int is_finished(const struct authority *a)
{
    return a->stopping && !fronts_any(a->fronts) && issuing_open(a->issuing) == 0 &&
           !store_waiting(a->store);
}

/* What the clock brings. A disk that was full and is not any more is noticed without a client's
 * request. */
static void on_second(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct authority *a = arg;
    look(a);
    if (store_problem(a->store))
        store_try(a->store);
}

static void run(struct authority *a)
{
    static const struct channel_handlers handlers = {on_message, on_supervisor_end};
    struct msg_ready ready = {.detail = "authority"};
    struct err err;
    struct timeval second = {1, 0};
    struct event *term = evsignal_new(a->base, SIGTERM, on_term, a);
    struct event *every_second = event_new(a->base, -1, EV_PERSIST, on_second, a);
    a->supervisor =
        channel_new(a->base, FD_SUPERVISOR, PROC_AUTHORITY, PROC_SUPERVISOR, &handlers, a);
    if (!term || evsignal_add(term, NULL) || !every_second || event_add(every_second, &second) ||
        !a->supervisor || channel_send(a->supervisor, MSG_ready, 0, &ready, -1))
        fatal("no memory");
    while (!is_finished(a)) {
        event_base_loop(a->base, store_waiting(a->store) ? EVLOOP_NONBLOCK : EVLOOP_ONCE);
        journal_custody(a);
        store_commit(a->store);
    }
    if (projection_flush(a->projection, &err))
        log_error("%s; it is completed at the next start", err.text);
    store_commit(a->store);
    event_free(every_second);
    event_free(term);
}

static void tear_down(struct authority *a)
{
    a->stopping = 1;
    admin_close(a->admin);
    listener_free(a->listener);
    delegation_free(a->delegation);
    fronts_free(a->fronts);
    signers_free(a->signers);
    responding_free(a->responding);
    publishing_close(a->publishing);
    projection_close(a->projection);
    issuing_free(a->issuing);
    clock_close(a->clock);
    channel_free(a->supervisor);
    store_close(a->store);
    profiles_free(a->profiles);
    issuer_free(a->issuer);
    buf_free(&a->chain);
    buf_free(&a->root);
    config_free(a->config);
    event_base_free(a->base);
}

static int fail_start(const struct err *err)
{
    struct msg_failed m = {.fault = 0, .detail = err->text};
    if (msg_send_wait(FD_SUPERVISOR, MSG_failed, 0, &m, -1))
        log_error("%s", err->text);
    return 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"check", no_argument, NULL, 'c'}, {0}};
    struct authority a = {0};
    struct err err;
    int check = 0, option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'c')
            return 2;
        check = 1;
    }
    log_open("signet-authority", LOG_INFO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sandbox_prepare();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN); /* until the loop, and again behind it */
    umask(022);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    if (load(&a, &err))
        return fail_start(&err);
    if (check)
        return 0;
    a.started_at = now_seconds();
    a.base = event_base_new();
    if (!a.base)
        fatal("no memory");
    if (set_up(&a, &err) || shut_in(&a, &err))
        return fail_start(&err);
    run(&a);
    tear_down(&a);
    return 0;
}
