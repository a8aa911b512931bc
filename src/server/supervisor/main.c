/* signetd: the supervisor of Signet's server.
 *
 * It holds the listening sockets, the lock on the state, and the PIN, which it hands to each new
 * signer by a pipe. Its children speak to it over the sockets they were born with; nothing from
 * outside ever reaches it: it touches no request, no certificate and no token.
 *
 *     signetd ─┬─ signet-authority       1   policy, store, journal
 *              ├─ signet-signer          S   one token session each
 *              ├─ signet-front           N   TLS, HTTP, JSON
 *              └─ signet-publisher     0-1   builds a CRL, then ends
 *
 * It starts them in this order, signers one after another, and starts again what ends: a signer or
 * front by itself, with backoff; all of them when the authority does.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "server/supervisor/supervisor.h"

/* What signetd writes is its own, and what it trusts is written by nobody else. */
static int check_file(const struct config *c, const char *name, int own, struct err *err)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", c->state, name);
    if (lstat(path, &st) || S_ISLNK(st.st_mode))
        return 0; /* who needs it says what is wrong with it */
    if (st.st_uid != geteuid() && (own || st.st_uid != 0))
        return err_set(err, ERR_storage_unavailable,
                       "%s belongs to user %u, but signetd runs as user %u; chown it", path,
                       st.st_uid, geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(err, ERR_storage_unavailable,
                       "%s can be written by others than its owner; find out who did, then: chmod "
                       "go-w %s",
                       path, path);
    return 0;
}

static int check_files(const struct config *c, struct err *err)
{
    static const char *const own[] = {
        "signet.db", "signet.db-wal", "signet.db-shm",    "journal.log", "certs",
        "crl.der",   "listener.pem",  "listener-key.pem", "lock"};
    static const char *const given[] = {"intermediate.pem", "ca-chain.pem", "root-crl.der"};
    char name[16];
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (check_file(c, own[i], 1, err))
            return -1;
    for (unsigned shard = 1; shard <= 64; shard++) {
        snprintf(name, sizeof name, "crl-%u.der", shard);
        if (check_file(c, name, 1, err))
            return -1;
    }
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (check_file(c, given[i], 0, err))
            return -1;
    return 0;
}

/* Who can write there can change what this CA knows; and what root would write into the folder of
 * the server's user, that user could not read any more. */
static int check_state(const struct config *c, struct err *err)
{
    struct stat st;
    if (stat(c->state, &st))
        return err_set(err, ERR_storage_unavailable,
                       "[server] state %s: %s; hsm-setup/intermediate.sh --install makes it",
                       c->state, strerror(errno));
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(err, ERR_storage_unavailable,
                       "[server] state %s belongs to user %u, but signetd runs as user %u; run it "
                       "as that user, or chown the folder and all in it",
                       c->state, st.st_uid, geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return err_set(err, ERR_storage_unavailable,
                       "[server] state %s can be written by others than its owner; chmod go-w %s",
                       c->state, c->state);
    return check_files(c, err);
}

/* The dying children of a signetd that was killed may hold it for a moment. */
static int lock_state(struct supervisor *s, struct err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", s->config->state);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0)
        return err_set(err, ERR_storage_unavailable, "%s: %s%s", path, strerror(errno),
                       errno == EROFS
                           ? "; the disk must be writable: see dmesg, mount -o remount,rw"
                       : errno == ENOSPC ? "; make room"
                                         : "; it is made anew when it is moved aside");
    for (int i = 0; i < 50; i++) {
        if (flock(s->lock, LOCK_EX | LOCK_NB) == 0)
            return 0;
        usleep(100000);
    }
    return err_set(err, ERR_storage_unavailable, "%s is locked: another signetd runs on this state",
                   path);
}

static int open_sockets(struct supervisor *s, struct err *err)
{
    char tls[80], http[80] = "off";
    s->tls_socket = listen_on(s->config->listen, tls, err);
    if (s->tls_socket < 0)
        return -1;
    if (strcmp(s->config->http_listen, "none") != 0 &&
        (s->http_socket = listen_on(s->config->http_listen, http, err)) < 0)
        return -1;
    log_info("signetd %s: HTTPS on %s, plain HTTP on %s, state in %s", SIGNET_VERSION, tls, http,
             s->config->state);
    return 0;
}

static int prepare(struct supervisor *s, struct err *err)
{
    s->signers = calloc(s->config->signers, sizeof *s->signers);
    s->fronts = calloc(s->config->fronts, sizeof *s->fronts);
    s->base = event_base_new();
    if (!s->signers || !s->fronts || !s->base)
        return err_set(err, ERR_internal, "no memory");
    const struct config *c = s->config;
    return user_lower(c->user, err) || check_state(c, err) || lock_state(s, err) ||
                   pin_was_refused(c, err) || user_raise(err) || pin_get(&s->pin, c, err) ||
                   open_sockets(s, err) || user_become(c->user, err)
               ? -1
               : 0;
}

static void tear_down(struct supervisor *s)
{
    secret_free(s->pin);
    if (s->base)
        event_base_free(s->base);
    free(s->signers);
    free(s->fronts);
    config_free(s->config);
}

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: signetd [--config FILE] [--check]\n"
        "\n"
        "The server of Signet, a certificate authority whose key stays in its token.\n"
        "\n"
        "  --config FILE  the configuration (default %s)\n"
        "  --check        read configuration, profiles and CA files, say what is wrong, and end\n"
        "  --version      print the version\n"
        "  --help         print this\n",
        CONFIG_DEFAULT_PATH);
    return code;
}

static int check(struct supervisor *s)
{
    struct err err;
    if (user_become(s->config->user, &err) || child_check_authority(s, &err)) {
        log_error("%s", err.text);
        return 1;
    }
    printf("signetd: %s is valid, and so are its profiles and CA certificates\n", s->config_path);
    return 0;
}

static int serve(struct supervisor *s)
{
    struct err err;
    if (prepare(s, &err) || sandbox_enter(PROC_SUPERVISOR, NULL, &err)) {
        log_error("%s", err.text);
        return 1;
    }
    log_info("sandbox: %s", sandbox_layers());
    supervise(s);
    if (s->exit_code == 0)
        log_info("stopped");
    else
        log_error("signetd does not start; see above, and docs/recovery.md");
    return s->exit_code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct supervisor s = {.config_fd = -1,
                           .lock = -1,
                           .tls_socket = -1,
                           .http_socket = -1,
                           .config_path = CONFIG_DEFAULT_PATH};
    struct err err;
    int only_check = 0, option, rc;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'c')
            s.config_path = optarg;
        else if (option == 'k')
            only_check = 1;
        else if (option == 'v')
            return printf("signetd %s\n", SIGNET_VERSION) < 0;
        else
            return usage(option == 'h' ? 0 : 2);
    }
    if (optind < argc)
        return usage(2);
    log_open("signetd", LOG_INFO);
    sandbox_prepare();
    signal(SIGPIPE, SIG_IGN);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    LIST_INIT(&s.children);
    if (load_config(&s, &err)) {
        log_error("%s", err.text);
        rc = 1;
    } else {
        rc = only_check ? check(&s) : serve(&s);
    }
    tear_down(&s);
    return rc;
}
