/* signet-signer: signs digests with the CA's key, or the OCSP responder's.
 *
 * Holds: one session with the token, and through it these private keys; the PIN, until the login.
 * Talks to: the authority, which asks for signatures (descriptor 5), and the supervisor, which
 *   started it and hears whether it is ready (descriptor 3).
 * Never sees: a request, a name, a certificate to be, the network, the store. It signs the digests
 *   that the authority sends, and cannot know what they stand for.
 *
 * It is crash-only: after any fault that is not known to pass it ends, and the supervisor starts
 * another. It blocks in its calls; the authority watches how long they take, from outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/config.h"
#include "common/file.h"
#include "common/log.h"
#include "common/msg.h"
#include "common/sandbox.h"
#include "common/secret.h"
#include "hsm/token.h"

#define OPEN_DEADLINE 90 /* seconds; later than the supervisor's own */

enum { PIN_FD = 0, SUPERVISOR_FD = 3, CONFIG_FD = 4, AUTHORITY_FD = 5 };

static const char usage[] =
    "signet-signer --number N\n"
    "Signs digests with the CA's key in the token. Started by signetd, never by hand: it wants\n"
    "the PIN on descriptor 0, its sockets on 3 and 5, the configuration on 4.\n";

static unsigned read_options(int argc, char **argv)
{
    static const struct option options[] = {{"number", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'},
                                            {NULL, 0, NULL, 0}};
    unsigned number = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (c == 'n') {
            number = (unsigned)strtoul(optarg, NULL, 10);
            continue;
        }
        if (c == 'V')
            puts("signet-signer " SIGNET_VERSION);
        else
            fputs(usage, c == 'h' ? stdout : stderr);
        exit(c == '?' ? 2 : 0);
    }
    return number;
}

/* Ends with the supervisor, leaves no core, and is stopped by it alone: a Ctrl-C on the terminal
 * must not end the signer before the requests in flight are done. */
static void settle(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sandbox_prepare();
    signal(SIGPIPE, SIG_IGN); /* a remoted module that loses its connection raises it */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
}

/* The end of the supervisor ends this process at once, but not within a login: SoftHSM rewrites its
 * token file there, not atomically, and a kill in that instant loses the token for good. The alarm
 * is for a module that hangs when nobody is left to watch; the trial signature, after the login,
 * has the deadline of every other. */
static void opening(int begins)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGUSR1);
    if (begins)
        sigprocmask(SIG_BLOCK, &held, NULL);
    prctl(PR_SET_PDEATHSIG, begins ? SIGUSR1 : SIGKILL);
    alarm(begins ? OPEN_DEADLINE : 0);
    if (!begins)
        sigprocmask(SIG_UNBLOCK, &held, NULL);
}

static int read_pin(struct secret **pin, struct err *err)
{
    if (secret_from_fd(pin, PIN_FD, err))
        return -1;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0 || dup2(null, PIN_FD) < 0)
        return err_set(err, ERR_internal, "cannot open /dev/null: %s", strerror(errno));
    close(null);
    return 0;
}

/* The module's own settings, before it is loaded. */
static int set_environment(struct config *c, struct err *err)
{
    for (size_t i = 0; c->env[i]; i++)
        if (putenv(c->env[i]))
            return err_set(err, ERR_internal, "no memory");
    return 0;
}

/* Before the module is loaded: the maker's code is as little trusted as what may come through it.
 */
static int shut_in(const struct config *c, struct err *err)
{
    if (strcmp(c->token_sandbox, "off") != 0)
        return sandbox_enter(PROC_SIGNER, NULL, err);
    log_warn("[token] sandbox = off: the module may start programs");
    return 0;
}

static int read_issuer(struct issuer **out, const struct config *c, struct err *err)
{
    struct buf pem;
    if (file_read(&pem, c->certificate, 64 * 1024, err))
        return -1;
    int rc = issuer_from_pem(out, buf_view(&pem), err);
    if (rc)
        err_prefix(err, "%s", c->certificate);
    buf_free(&pem);
    return rc;
}

static enum token_fault open_token(struct token **out, const struct config *c,
                                   const struct issuer *issuer, const struct secret *pin,
                                   struct err *err)
{
    enum token_fault fault;
    struct token_config tc = {
        .module = c->module,
        .init_args = c->init_args,
        .label = c->token_label,
        .ca = {c->key_label, buf_view(&c->key_id), c->custody_exception},
        .responder = {c->ocsp_key_label, buf_view(&c->ocsp_key_id), c->ocsp_custody_exception},
        .trial_limit = (c->sign_deadline_ms + 999) / 1000};
    opening(1);
    fault = token_open(out, &tc, pin, issuer_spki(issuer), err);
    opening(0);
    return fault;
}

/* Configuration, certificate, PIN, token. What is wrong with the first two is no fault of the
 * token, but keeps it from being used in the same way as a module that is not there. */
static enum token_fault start(struct token **token, struct err *err)
{
    struct config *config = NULL;
    struct issuer *issuer = NULL;
    struct secret *pin = NULL;
    enum token_fault fault = TOKEN_MODULE;
    if (config_from_fd(&config, CONFIG_FD, err) == 0 && read_pin(&pin, err) == 0 &&
        set_environment(config, err) == 0 && read_issuer(&issuer, config, err) == 0 &&
        shut_in(config, err) == 0)
        fault = open_token(token, config, issuer, pin, err);
    secret_free(pin);
    issuer_free(issuer);
    if (config)
        memset(config->env, 0, sizeof config->env); /* the environment's now */
    config_free(config);
    return fault;
}

static void warn_of_custody(const char *setting, const char *whose, unsigned custody)
{
    char text[160];
    unsigned more = custody & (CUSTODY_WARN_DECRYPT | CUSTODY_WARN_UNWRAP | CUSTODY_WARN_DERIVE);
    unsigned missing = CUSTODY_ALL & ~custody;
    custody_text(text, sizeof text, more);
    if (more)
        log_warn("the token lets %s key do more than sign: %s", whose, text);
    custody_text(text, sizeof text, missing);
    if (missing)
        log_warn("%s is in force: the token does not say %s of %s key", setting, text, whose);
}

static void report_ready(const struct token *token)
{
    struct msg_ready ready = {.detail = token_description(token)};
    struct msg_signer_hello hello = {
        .custody = token_custody(token, TOKEN_KEY_CA),
        .token = token_description(token),
        .responder_spki = token_responder_spki(token),
        .responder_custody = token_custody(token, TOKEN_KEY_RESPONDER),
    };
    if (msg_send_wait(SUPERVISOR_FD, MSG_ready, 0, &ready, -1) ||
        msg_send_wait(AUTHORITY_FD, MSG_signer_hello, 0, &hello, -1))
        fatal("cannot report to the supervisor and the authority: %s", strerror(errno));
}

_Noreturn static void report_failed(enum token_fault fault, const struct err *err)
{
    struct msg_failed failed = {.fault = (uint8_t)fault, .detail = err->text};
    /* before the log: were it killed between the two, the next one would try a refused PIN again */
    if (msg_send_wait(SUPERVISOR_FD, MSG_failed, 0, &failed, -1))
        log_error("cannot report to the supervisor: %s", strerror(errno));
    log_error("%s", err->text);
    _exit(1);
}

/* Answers one request; the fault tells whether another can be taken. */
static enum token_fault serve(struct token *token, const struct msg *m)
{
    struct msg_sign ask;
    uint8_t sig[SIGNATURE_MAX];
    size_t sig_len = 0;
    struct err err;
    if (m->type != MSG_sign || msg_decode(&ask, MSG_sign, m->fields))
        fatal("a malformed message from the authority: %s", msg_name(m->type));
    enum token_fault fault = token_sign(token, (enum token_key)ask.key, (enum sign_alg)ask.alg,
                                        ask.digest, sig, &sig_len, &err);
    struct msg_signed done = {.signature = {sig, sig_len}};
    struct msg_sign_failed failed = {.fault = (uint8_t)fault, .detail = err.text};
    if (fault)
        log_warn("%s: %s", token_fault_name(fault), err.text);
    if (fault ? msg_send_wait(AUTHORITY_FD, MSG_sign_failed, m->id, &failed, -1)
              : msg_send_wait(AUTHORITY_FD, MSG_signed, m->id, &done, -1))
        return TOKEN_LOST;
    return fault;
}

int main(int argc, char **argv)
{
    static struct msg m; /* 128 KiB, too much for a stack */
    static char name[32];
    struct token *token = NULL;
    struct err err;
    snprintf(name, sizeof name, "signet-signer-%u", read_options(argc, argv));
    log_open(name, LOG_INFO);
    settle();
    enum token_fault fault = start(&token, &err);
    if (fault)
        report_failed(fault, &err);
    warn_of_custody("custody_exception", "the CA's", token_custody(token, TOKEN_KEY_CA));
    if (token_responder_spki(token).len)
        warn_of_custody("ocsp_custody_exception", "the OCSP responder's",
                        token_custody(token, TOKEN_KEY_RESPONDER));
    report_ready(token);
    int got;
    while ((got = msg_receive(AUTHORITY_FD, &m, PROC_AUTHORITY, PROC_SIGNER)) == 1) {
        fault = serve(token, &m);
        if (fault && fault != TOKEN_TRANSIENT)
            _exit(1); /* at once: a call into a lost session can hang */
    }
    if (got < 0)
        fatal("a message from the authority that is not allowed");
    token_close(token);
    _exit(0);
}
