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
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "hsm/token.h"
#include "server/supervisor/supervisor.h"

#define SIGNER_START_DEADLINE 60000 /* ms; a login on a slow token takes seconds */
#define FRONTS_STOP_DEADLINE 20000
#define OTHERS_STOP_DEADLINE 15000
#define BACKOFF_FIRST 100
#define BACKOFF_MOST 30000
#define LIVED_WELL 5000 /* who lived as long starts again at once */

/* ---- starting and starting again ---- */

static void stop(struct supervisor *s, int exit_code)
{
    if (s->phase == STOPPING)
        return;
    s->phase = STOPPING;
    s->stop_since = monotonic_ms();
    s->exit_code = exit_code;
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->role == PROC_FRONT)
            child_signal(c, SIGTERM);
}

void end_child(const struct child *c)
{
    if (c->role == PROC_SIGNER && !c->ready &&
        monotonic_ms() - c->started_at <= SIGNER_START_DEADLINE)
        return;
    child_signal(c, SIGKILL);
}

static void back_off(struct slot *slot, const struct child *c)
{
    int64_t now = monotonic_ms();
    if (c && c->ready && now - c->started_at > LIVED_WELL)
        slot->backoff = 0;
    slot->not_before = now + slot->backoff;
    slot->backoff = slot->backoff ? slot->backoff * 2 : BACKOFF_FIRST;
    if (slot->backoff > BACKOFF_MOST)
        slot->backoff = BACKOFF_MOST;
}

static int start_slot(struct supervisor *s, struct slot *slot, enum role_name role, unsigned number)
{
    slot->tried = 1;
    slot->child = child_start(s, role, number);
    if (slot->child)
        slot->child->slot = slot;
    else
        back_off(slot, NULL);
    return slot->child ? 0 : -1;
}

/* Signers one after another: logins at the same time break some tokens. */
static void start_signers(struct supervisor *s)
{
    int64_t now = monotonic_ms();
    struct child *c;
    LIST_FOREACH (c, &s->children, next) {
        if (c->role != PROC_SIGNER || c->ready)
            continue;
        if (now - c->started_at > SIGNER_START_DEADLINE)
            child_signal(c, SIGKILL);
        return;
    }
    for (unsigned i = 0; i < s->config->signers && !s->pin_blocked; i++) {
        struct slot *slot = &s->signers[i];
        if (!slot->child && now >= slot->not_before) {
            start_slot(s, slot, PROC_SIGNER, i + 1);
            return;
        }
    }
}

static int signers_tried(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->config->signers; i++)
        if (!s->signers[i].tried || (s->signers[i].child && !s->signers[i].child->ready))
            return 0;
    return 1;
}

static void start_fronts(struct supervisor *s)
{
    int64_t now = monotonic_ms();
    for (unsigned i = 0; i < s->config->fronts; i++)
        if (!s->fronts[i].child && now >= s->fronts[i].not_before)
            start_slot(s, &s->fronts[i], PROC_FRONT, ++s->front_number);
}

static int start_authority(struct supervisor *s)
{
    s->authority = child_start(s, PROC_AUTHORITY, 0);
    return s->authority ? 0 : -1;
}

/* All anew, after the authority ended: nobody keeps a socket to the dead one. */
static void restart_all(struct supervisor *s)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        end_child(c);
    if (!LIST_EMPTY(&s->children) || monotonic_ms() < s->restart_at)
        return;
    for (unsigned i = 0; i < s->config->signers; i++)
        s->signers[i] = (struct slot){0};
    for (unsigned i = 0; i < s->config->fronts; i++)
        s->fronts[i] = (struct slot){0};
    s->phase = RUNNING;
    if (start_authority(s))
        stop(s, 1);
}

static unsigned ready_children(const struct supervisor *s, enum role_name role)
{
    unsigned n = 0;
    const struct child *c;
    LIST_FOREACH (c, &s->children, next)
        n += c->role == role && c->ready && !c->retiring;
    return n;
}

/* The new fronts serve: those of the configuration before answer what they took, and end. */
static void retire_old_fronts(struct supervisor *s)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->retiring)
            child_signal(c, SIGUSR1);
}

/* ---- stopping: fronts first, so that what they took is answered; then the authority ---- */

static int any_left(struct supervisor *s, enum role_name role)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->role == role)
            return 1;
    return 0;
}

static void kill_all(struct supervisor *s, enum role_name role)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->role == role)
            end_child(c);
}

static void go_on_stopping(struct supervisor *s)
{
    int64_t waited = monotonic_ms() - s->stop_since;
    if (any_left(s, PROC_FRONT)) {
        if (waited > FRONTS_STOP_DEADLINE)
            kill_all(s, PROC_FRONT);
        return;
    }
    if (s->authority) {
        child_signal(s->authority, SIGTERM);
        if (waited > FRONTS_STOP_DEADLINE + OTHERS_STOP_DEADLINE)
            child_signal(s->authority, SIGKILL);
        return;
    }
    kill_all(s, PROC_SIGNER); /* nobody is left to ask them anything */
    kill_all(s, PROC_PUBLISHER);
    if (LIST_EMPTY(&s->children))
        event_base_loopbreak(s->base);
}

/* ---- what children say ---- */

static void tell_token_state(struct supervisor *s, uint8_t fault, const char *detail)
{
    struct msg_token_state m = {
        .fault = fault, .signers = ready_children(s, PROC_SIGNER), .detail = detail};
    if (s->authority && s->authority->channel)
        channel_send(s->authority->channel, MSG_token_state, 0, &m, -1);
}

static int is_configuration_fault(uint8_t fault)
{
    return fault == TOKEN_PIN_REFUSED || fault == TOKEN_PIN_LAST || fault == TOKEN_KEY_MISSING ||
           fault == TOKEN_KEY_DOUBLED || fault == TOKEN_CUSTODY || fault == TOKEN_KEY_MISMATCH;
}

static void on_ready(struct child *c)
{
    struct supervisor *s = c->s;
    c->ready = 1;
    if (c->role == PROC_SIGNER && !c->slot) /* of a configuration that is no more */
        child_signal(c, SIGKILL);
    else if (c->role == PROC_SIGNER)
        tell_token_state(s, TOKEN_OK, "");
    if (c->role == PROC_FRONT && ready_children(s, PROC_FRONT) == s->config->fronts) {
        if (!s->announced)
            log_info("ready");
        s->announced = 1;
        retire_old_fronts(s);
    }
}

static void on_failed(struct child *c, const struct msg_failed *m)
{
    struct err err;
    err_set(&err, ERR_internal, "%s", m->detail);
    config_locate(c->s->config, &err);
    c->fault = m->fault;
    snprintf(c->detail, sizeof c->detail, "%s", err.text);
    if (m->fault == TOKEN_PIN_REFUSED && c->role == PROC_SIGNER)
        pin_refused_now(c->s->config, m->detail);
}

static void pin_retry(struct supervisor *s)
{
    struct secret *pin;
    struct err err;
    if (pin_get(&pin, s->config, &err)) {
        log_error("pin retry: %s", err.text);
        return;
    }
    secret_free(s->pin);
    s->pin = pin;
    if (pin_forget_refusal(s->config, &err)) {
        log_error("pin retry: %s", err.text);
        return;
    }
    log_info("the PIN is tried again, as signetctl asked");
    s->pin_blocked = 0;
    for (unsigned i = 0; i < s->config->signers; i++)
        s->signers[i].not_before = s->signers[i].backoff = 0;
}

static void end_peer(struct supervisor *s, const struct msg_peer_end *m)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->role == m->role && c->number == m->number && !c->retiring && s->phase != STOPPING)
            end_child(c); /* not one that is still opening the token: that is the next already */
}

void on_child_message(struct child *c, const struct msg *m)
{
    union {
        struct msg_ready ready;
        struct msg_failed failed;
        struct msg_peer_end end;
        struct msg_publisher_wanted publisher;
        struct msg_pin_retry retry;
    } body;
    struct supervisor *s = c->s;
    if (m->fd >= 0 || msg_decode(&body, m->type, m->fields)) {
        log_error("%s %u: a malformed message", role_text(c->role), c->number);
        if (m->fd >= 0)
            close(m->fd);
        child_signal(c, SIGKILL);
        return;
    }
    if (m->type == MSG_ready)
        on_ready(c);
    else if (m->type == MSG_failed)
        on_failed(c, &body.failed);
    else if (m->type == MSG_peer_end)
        end_peer(s, &body.end);
    else if (m->type == MSG_publisher_wanted && s->phase != STOPPING)
        child_start(s, PROC_PUBLISHER, 1);
    else if (m->type == MSG_pin_retry)
        pin_retry(s);
}

/* ---- what becomes of one that ended ---- */

static void say_end(const struct child *c)
{
    if (c->detail[0])
        log_error("%s %u: %s", role_text(c->role), c->number, c->detail);
    else if (WIFSIGNALED(c->status))
        log_warn("%s %u was ended by signal %d", role_text(c->role), c->number,
                 WTERMSIG(c->status));
    else if (WEXITSTATUS(c->status))
        log_warn("%s %u ended with code %d", role_text(c->role), c->number, WEXITSTATUS(c->status));
}

static void signer_ended(struct supervisor *s, struct child *c)
{
    struct slot *slot = c->slot;
    if (c->fault == TOKEN_PIN_REFUSED || c->fault == TOKEN_PIN_LAST)
        s->pin_blocked = 1;
    if (!slot)
        return; /* of a configuration that is no more */
    slot->child = NULL;
    back_off(slot, c);
    if (c->fault)
        tell_token_state(s, c->fault, c->detail);
    else
        tell_token_state(s, TOKEN_LOST, "the signer process ended");
    if (s->phase == STARTING && is_configuration_fault(c->fault))
        stop(s, 1);
    else if (c->fault && !c->ready) /* the same awaits the others: give the token time */
        for (unsigned i = 0; i < s->config->signers; i++) {
            s->signers[i].tried = 1;
            if (s->signers[i].not_before < slot->not_before)
                s->signers[i].not_before = slot->not_before;
        }
}

static void authority_ended(struct supervisor *s, struct child *c)
{
    int64_t now = monotonic_ms();
    s->authority = NULL;
    if (s->phase == STOPPING)
        return;
    if (s->phase == STARTING) {
        stop(s, 1);
        return;
    }
    struct child *other;
    LIST_FOREACH (other, &s->children, next)
        if (other != c)
            end_child(other);
    s->restart_backoff = now - c->started_at > LIVED_WELL ? 0
                         : s->restart_backoff             ? s->restart_backoff * 2
                                                          : BACKOFF_FIRST;
    if (s->restart_backoff > BACKOFF_MOST)
        s->restart_backoff = BACKOFF_MOST;
    s->restart_at = now + s->restart_backoff;
    s->phase = RESTARTING;
}

void on_child_end(struct child *c)
{
    struct supervisor *s = c->s;
    if (s->phase != STOPPING || c->detail[0])
        say_end(c);
    if (c->role == PROC_AUTHORITY)
        authority_ended(s, c);
    else if (c->role == PROC_SIGNER)
        signer_ended(s, c);
    else if (c->slot) {
        c->slot->child = NULL;
        back_off(c->slot, c);
    }
    child_free(c);
}

/* ---- the loop ---- */

static void on_tick(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct supervisor *s = arg;
    if (s->phase == STOPPING) {
        go_on_stopping(s);
        return;
    }
    if (s->phase == RESTARTING) {
        restart_all(s);
        return;
    }
    if (!s->authority || !s->authority->ready)
        return;
    start_signers(s);
    if (s->phase == STARTING && !signers_tried(s) && !s->pin_blocked)
        return;
    if (s->phase == STARTING)
        s->phase = RUNNING;
    start_fronts(s);
}

static void on_child_signal(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    struct supervisor *s = arg;
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *c, *found = NULL;
        LIST_FOREACH (c, &s->children, next)
            if (c->pid == pid)
                found = c;
        if (!found)
            continue;
        found->pid = 0;
        found->status = status;
        if (!found->channel)
            on_child_end(found);
    }
}

static void on_stop_signal(evutil_socket_t number, short what, void *arg)
{
    (void)what;
    struct supervisor *s = arg;
    if (s->phase == STOPPING) {
        log_warn("signal %d again: ending at once", (int)number);
        _exit(1); /* the children follow */
    }
    log_info("stopping: requests in flight are answered first");
    stop(s, 0);
}

static void on_hup(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    reload(arg);
}

static void run(struct supervisor *s)
{
    static const struct timeval often = {0, 20000};
    struct event *events[] = {
        evsignal_new(s->base, SIGCHLD, on_child_signal, s),
        evsignal_new(s->base, SIGTERM, on_stop_signal, s),
        evsignal_new(s->base, SIGINT, on_stop_signal, s),
        evsignal_new(s->base, SIGHUP, on_hup, s),
        event_new(s->base, -1, EV_PERSIST, on_tick, s),
    };
    size_t count = sizeof events / sizeof *events;
    for (size_t i = 0; i < count; i++)
        if (!events[i] || event_add(events[i], i == count - 1 ? &often : NULL))
            fatal("no memory");
    if (start_authority(s))
        s->exit_code = 1;
    else
        event_base_dispatch(s->base);
    for (size_t i = 0; i < count; i++)
        event_free(events[i]);
}

/* ---- before it ---- */

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
    return 0;
}

/* The dying children of a signetd that was killed may hold it for a moment. */
static int lock_state(struct supervisor *s, struct err *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", s->config->state);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock < 0)
        return err_set(err, ERR_storage_unavailable, "%s: %s", path, strerror(errno));
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
    return check_state(s->config, err) || lock_state(s, err) || pin_was_refused(s->config, err) ||
                   pin_get(&s->pin, s->config, err) || open_sockets(s, err)
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
    if (child_check_authority(s, &err)) {
        log_error("%s", err.text);
        return 1;
    }
    printf("signetd: %s is valid, and so are its profiles and CA certificates\n", s->config_path);
    return 0;
}

static int serve(struct supervisor *s)
{
    struct err err;
    if (prepare(s, &err)) {
        log_error("%s", err.text);
        return 1;
    }
    run(s);
    if (s->exit_code == 0)
        log_info("stopped");
    else
        log_error("signetd does not start; see above");
    return s->exit_code;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    static const struct rlimit no_core = {0, 0};
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
    prctl(PR_SET_DUMPABLE, 0);
    setrlimit(RLIMIT_CORE, &no_core);
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
