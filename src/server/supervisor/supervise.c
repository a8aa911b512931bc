/* Starting, watching, starting again, stopping: what to do when something happens to a child. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "hsm/token.h"
#include "server/supervisor/supervisor.h"

#define SIGNER_START_DEADLINE 60000 /* ms; a login on a slow token takes seconds */
#define FRONTS_STOP_DEADLINE 20000
#define OTHERS_STOP_DEADLINE 15000
#define BACKOFF_FIRST 100
#define BACKOFF_MOST 30000
#define RETIRE_DEADLINE 30000 /* a front needs 17 s at the most */
#define RECORD_AGAIN 1000
#define LIVED_WELL 5000 /* who lived as long starts again at once */
#define LOOK_AGAIN 1000 /* soon enough for deadlines */

/* Whatever happened: what follows from it is done next. */
static void look(struct supervisor *s)
{
    event_active(s->look, EV_TIMEOUT, 0);
}

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
    look(s);
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
        if (now - c->started_at > SIGNER_START_DEADLINE) {
            snprintf(c->detail, sizeof c->detail, "the token was not open after %d s",
                     SIGNER_START_DEADLINE / 1000);
            child_signal(c, SIGKILL);
        }
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
        if (c->retiring) {
            child_signal(c, SIGUSR1);
            if (!c->retired_at)
                c->retired_at = monotonic_ms();
        }
}

/* One that does not heed that is in other hands, or stuck. */
static void end_retired_fronts(struct supervisor *s)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->retired_at && monotonic_ms() - c->retired_at > RETIRE_DEADLINE)
            child_signal(c, SIGKILL);
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

static void record_refusal(struct supervisor *s, const char *detail)
{
    struct err err;
    int was = s->pin_unrecorded;
    s->pin_unrecorded = pin_record_refusal(s->config, detail, &err) != 0;
    s->record_at = monotonic_ms() + RECORD_AGAIN;
    if (s->pin_unrecorded && !was)
        log_error(
            "the refused PIN cannot be remembered (%s): do not restart signetd, which would try "
            "it once more, until there is room and %s/pin-refused stands",
            err.text, s->config->state);
    else if (was && !s->pin_unrecorded)
        log_info("%s/pin-refused stands now", s->config->state);
}

static void on_failed(struct child *c, const struct msg_failed *m)
{
    struct err err;
    err_set(&err, ERR_internal, "%s", m->detail);
    config_locate(c->s->config, &err);
    c->fault = m->fault;
    snprintf(c->detail, sizeof c->detail, "%s", err.text);
    if (m->fault == TOKEN_PIN_REFUSED && c->role == PROC_SIGNER)
        record_refusal(c->s, m->detail);
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
    s->pin_blocked = s->pin_unrecorded = 0;
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
    if (m->fd >= 0 || msg_decode(&body, m->type, m->fields) || (m->type == MSG_ready && c->ready)) {
        log_error("%s %u: a malformed message, or ready twice", role_text(c->role), c->number);
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
    look(s);
}

/* ---- what becomes of one that ended ---- */

/* "" when another knows better: who had it killed. What it said itself hides no sandbox's end. */
static void say_cause(struct child *c)
{
    int number = WIFSIGNALED(c->status) ? WTERMSIG(c->status) : 0;
    if ((c->detail[0] && number != SIGSYS) || number == SIGKILL || !number)
        return;
    if (number == SIGALRM)
        snprintf(c->detail, sizeof c->detail,
                 "the token does not sign: its trial signature took longer than sign_deadline");
    else if (number == SIGSYS)
        snprintf(
            c->detail, sizeof c->detail,
            "the PKCS#11 module %s tried what the sandbox of signers forbids; the kernel's log "
            "has the call (audit type 1326); docs/security.md, \"Signer\"",
            c->s->config->module);
    else
        snprintf(c->detail, sizeof c->detail,
                 "it was ended by signal %d, in the PKCS#11 module %s; if it goes on, ask its "
                 "vendor",
                 number, c->s->config->module);
}

static void say_end(const struct child *c)
{
    int by_sandbox = WIFSIGNALED(c->status) && WTERMSIG(c->status) == SIGSYS;
    if (c->detail[0] && (!by_sandbox || c->role == PROC_SIGNER))
        log_error("%s %u: %s", role_text(c->role), c->number, c->detail);
    else if (by_sandbox)
        log_error(
            "%s %u was ended by its sandbox: it tried what it never does, so somebody else may "
            "have; the kernel's log has the call (audit type 1326), docs/security.md the rest",
            role_text(c->role), c->number);
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
    tell_token_state(s, c->fault ? c->fault : TOKEN_LOST, c->detail);
    if (s->phase == STARTING && is_configuration_fault(c->fault) && !s->pin_unrecorded)
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
    if (c->role == PROC_SIGNER)
        say_cause(c);
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
    look(s);
}

/* ---- the loop ---- */

/* The next thing that is due by the clock alone, in ms. What is due already and was not done waits
 * for a child, and that is heard of. */
static int64_t next_look(const struct supervisor *s)
{
    int64_t now = monotonic_ms(), next = now + LOOK_AGAIN;
    const struct config *c = s->config;
    if (s->phase == RESTARTING && s->restart_at > now && s->restart_at < next)
        next = s->restart_at;
    for (unsigned i = 0; i < c->signers + c->fronts; i++) {
        const struct slot *slot = i < c->signers ? &s->signers[i] : &s->fronts[i - c->signers];
        if (!slot->child && slot->not_before > now && slot->not_before < next)
            next = slot->not_before;
    }
    return next - now;
}

static void do_what_is_due(struct supervisor *s)
{
    if (s->phase == STOPPING) {
        go_on_stopping(s);
        return;
    }
    if (s->phase == RESTARTING) {
        restart_all(s);
        return;
    }
    if (s->pin_unrecorded && monotonic_ms() >= s->record_at)
        record_refusal(s, "the token refused the PIN");
    if (!s->authority || !s->authority->ready)
        return;
    start_signers(s);
    if (s->phase == STARTING && !signers_tried(s) && !s->pin_blocked)
        return;
    if (s->phase == STARTING)
        s->phase = RUNNING;
    start_fronts(s);
    end_retired_fronts(s);
}

static void on_look(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct supervisor *s = arg;
    do_what_is_due(s);
    int64_t ms = next_look(s);
    struct timeval later = {ms / 1000, ms % 1000 * 1000};
    if (evtimer_add(s->look, &later))
        fatal("no memory");
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
    look(arg);
}

void supervise(struct supervisor *s)
{
    struct event *events[] = {
        evsignal_new(s->base, SIGCHLD, on_child_signal, s),
        evsignal_new(s->base, SIGTERM, on_stop_signal, s),
        evsignal_new(s->base, SIGINT, on_stop_signal, s),
        evsignal_new(s->base, SIGHUP, on_hup, s),
    };
    size_t count = sizeof events / sizeof *events;
    for (size_t i = 0; i < count; i++)
        if (!events[i] || event_add(events[i], NULL))
            fatal("no memory");
    if (!(s->look = evtimer_new(s->base, on_look, s)))
        fatal("no memory");
    look(s);
    if (start_authority(s))
        s->exit_code = 1;
    else
        event_base_dispatch(s->base);
    for (size_t i = 0; i < count; i++)
        event_free(events[i]);
    event_free(s->look);
}
