/* signet doctor: whether all that the other commands need is there, line by line, each with the
 * next step. It changes nothing. */
#include <errno.h>
#include <inttypes.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/esptool.h"
#include "client/keys.h"
#include "client/listing.h"
#include "client/notice.h"
#include "client/session.h"
#include "client/when.h"

#define DAY 86400
#define OPERATOR_SOON (30 * DAY)
#define CA_SOON (180 * DAY)
#define CLOCK_WARN 30       /* seconds */
#define CLOCK_FAIL (5 * 60) /* the profiles' notBefore lies so far back */

enum level { LEVEL_OK, LEVEL_WARN, LEVEL_FAIL };

struct doctor {
    const struct options *o;
    int json;
    int warnings, failures;
    struct failure first; /* the first one */
    struct session session;
    int has_settings, has_operator; /* what later checks can build on */
    cJSON *status;                  /* get_status; NULL: no answer */
    int64_t asked_at, answered_at;
};

/* ---- what was found ---- */

static void print_line(const struct doctor *d, enum level level, const char *name, const char *text)
{
    static const char *const words[] = {"ok", "warn", "FAIL"};
    if (!d->json) {
        printf("%-4s  %-9s %s\n", words[level], name, text);
        fflush(stdout);
        return;
    }
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "check", name);
    cJSON_AddStringToObject(o, "result", level == LEVEL_FAIL ? "fail" : words[level]);
    cJSON_AddStringToObject(o, "message", text);
    json_print(o);
    cJSON_Delete(o);
}

static void say(struct doctor *d, enum level level, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void say(struct doctor *d, enum level level, const char *name, const char *fmt, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    d->warnings += level == LEVEL_WARN;
    print_line(d, level, name, text);
}

/* A failure, with the exit code of what failed; a setting that is missing is a local matter. */
static void flunk(struct doctor *d, const char *name, const struct failure *f)
{
    if (d->failures++ == 0) {
        d->first = *f;
        if (f->exit == EXIT_USAGE)
            d->first.exit = EXIT_LOCAL;
    }
    print_line(d, LEVEL_FAIL, name, f->text);
}

/* ---- files ---- */

static void check_config(struct doctor *d)
{
    struct failure f = {0};
    const struct settings *s = &d->session.settings;
    if (settings_load(&d->session.settings, d->o, &f)) {
        if (s->file && access(s->file, F_OK))
            fail_add(&f, "signet init makes it");
        flunk(d, "config", &f);
        return;
    }
    d->has_settings = 1;
    if (access(s->file, F_OK) == 0)
        say(d, LEVEL_OK, "config", "%s", s->file);
    else
        say(d, s->server && s->ca ? LEVEL_OK : LEVEL_WARN, "config",
            "%s is not there; signet init makes it, or give all options", s->file);
}

/* How long a certificate lasts, in the words of the line. */
static enum level judge_end(char out[96], X509 *cert, int64_t soon)
{
    char end[TIME_TEXT_SIZE];
    int days = 0, seconds = 0;
    time_text(end, X509_get0_notAfter(cert));
    if (ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
        days = 0;
    if (days < 0 || seconds < 0)
        snprintf(out, 96, "expired on %s", end);
    else
        snprintf(out, 96, "until %s (%d days)", end, days);
    if (days < 0 || seconds < 0)
        return LEVEL_FAIL;
    return (int64_t)days * DAY < soon ? LEVEL_WARN : LEVEL_OK;
}

static void check_ca(struct doctor *d)
{
    struct failure f = {0};
    struct session *s = &d->session;
    char until[96];
    if (settings_need(s->settings.ca, "ca", &s->settings, &f) ||
        root_load(&s->root, s->settings.ca, &f)) {
        flunk(d, "ca", &f);
        return;
    }
    enum level level = judge_end(until, s->root, CA_SOON);
    if (level == LEVEL_FAIL) {
        fail(&f, EXIT_VERIFY, "chain_invalid", "%s %s; ask the CA's keeper for the new root",
             s->settings.ca, until);
        flunk(d, "ca", &f);
    } else {
        say(d, level, "ca", "%s %s", s->settings.ca, until);
    }
}

static int check_mode(struct doctor *d, const char *path)
{
    struct stat st;
    if (stat(path, &st) || (st.st_mode & 077) == 0)
        return 0;
    say(d, LEVEL_WARN, "operator", "%s can be read by others (mode %o): chmod 600 %s", path,
        (unsigned)(st.st_mode & 0777), path);
    return 1;
}

static int load_operator(struct doctor *d, X509 **cert, EVP_PKEY **key, struct failure *f)
{
    const struct settings *s = &d->session.settings;
    if (settings_need(s->cert, "cert", s, f) || settings_need(s->key, "key", s, f) ||
        key_load(key, s->key, f))
        return -1;
    if (access(s->cert, F_OK) && errno == ENOENT)
        return fail(f, EXIT_LOCAL, "local_file",
                    "%s is not there yet: have operator.csr answered on the server (signetctl "
                    "operator issue), then signet init --install FILE",
                    s->cert);
    if (cert_load(cert, s->cert, f))
        return -1;
    if (X509_check_private_key(*cert, *key) == 1)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file",
                "the key %s does not belong to %s: install the certificate that answers this key's "
                "request",
                s->key, s->cert);
}

static void check_operator(struct doctor *d)
{
    struct failure f = {0};
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    char until[96], name[80] = "?";
    int rc = load_operator(d, &cert, &key, &f);
    enum level level = rc ? LEVEL_FAIL : judge_end(until, cert, OPERATOR_SOON);
    if (rc == 0 && level == LEVEL_FAIL)
        fail(&f, EXIT_VERIFY, "certificate_expired",
             "%s %s; have a new one issued for the same request (signetctl operator issue)",
             d->session.settings.cert, until);
    if (level == LEVEL_FAIL) {
        flunk(d, "operator", &f);
    } else {
        char *cn = name_cn(X509_get_subject_name(cert));
        printable(name, sizeof name, cn ? cn : "?");
        OPENSSL_free(cn);
        d->has_operator = 1;
        if (!check_mode(d, d->session.settings.key))
            say(d, level, "operator", "%s %s, its key fits%s", name, until,
                level == LEVEL_WARN ? "; have the next one issued: signetctl operator issue" : "");
    }
    EVP_PKEY_free(key);
    X509_free(cert);
}

/* ---- the server ---- */

static int ask_status(struct doctor *d, struct failure *f)
{
    cJSON *request = cJSON_CreateObject();
    d->asked_at = (int64_t)time(NULL);
    int rc = cJSON_AddStringToObject(request, "operation", "get_status")
                 ? http_call(d->session.http, request, ANSWER_MAX, &d->status, f)
                 : fail_memory(f);
    d->answered_at = (int64_t)time(NULL);
    cJSON_Delete(request);
    return rc;
}

/* With the operator's certificate when there is one: that it is accepted is seen by the answer. */
static void check_server(struct doctor *d)
{
    struct failure f = {0};
    struct session *s = &d->session;
    char version[40];
    int64_t began = now_ms();
    if (!s->root)
        fail(&f, EXIT_LOCAL, "local_file", "not asked: without the root it cannot be verified");
    else if (session_connect(s, d->has_operator ? "operator" : NULL, &f) == 0 &&
             ask_status(d, &f) == 0) {
        row_text(version, sizeof version, d->status, "version");
        say(d, LEVEL_OK, "server",
            "%s answers, its certificate leads to the root (%" PRId64 " ms, version %s)",
            s->settings.server, now_ms() - began, version);
        return;
    }
    flunk(d, "server", &f);
}

static void check_clock(struct doctor *d)
{
    char text[TIME_TEXT_SIZE];
    struct failure f = {0};
    row_text(text, sizeof text, d->status, "time");
    int64_t theirs = when_seconds(text);
    if (theirs < 0)
        theirs = http_date(d->session.http);
    if (theirs <= 0) {
        say(d, LEVEL_WARN, "clock", "the server does not say what time it is");
        return;
    }
    /* its clock is cut to seconds, and was read between our two looks */
    int64_t off = theirs + 1 < d->asked_at      ? d->asked_at - theirs
                  : theirs > d->answered_at + 1 ? d->answered_at - theirs
                                                : 0;
    const char *is = off > 0 ? "ahead of" : "behind";
    int64_t by = off > 0 ? off : -off;
    if (by > CLOCK_FAIL) {
        fail(&f, EXIT_LOCAL, "clock",
             "this machine is %" PRId64 " s %s the server, so that certificates will not verify: "
             "set the clock that is wrong (timedatectl)",
             by, is);
        flunk(d, "clock", &f);
    } else if (by > CLOCK_WARN) {
        say(d, LEVEL_WARN, "clock",
            "this machine is %" PRId64 " s %s the server: timedatectl shows "
            "whether it is set by the network",
            by, is);
    } else {
        say(d, LEVEL_OK, "clock", "%s", by ? "a few seconds from the server's" : "as the server's");
    }
}

static void check_ready(struct doctor *d)
{
    char problem[256];
    struct failure f = {0};
    row_text(problem, sizeof problem, d->status, "problem");
    int known = strcmp(problem, "-") != 0;
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(d->status, "ready"))) {
        fail(&f, EXIT_REFUSED, "not_ready",
             "the server cannot sign now%s%s; its keeper sees why with signetctl status",
             known ? ": " : "", known ? problem : "");
        flunk(d, "ready", &f);
    } else if (known) {
        say(d, LEVEL_WARN, "ready", "the server signs, but: %s; tell its keeper", problem);
    } else {
        say(d, LEVEL_OK, "ready", "the server can sign");
    }
}

/* Only an operator in force gets the detail. */
static void check_accepted(struct doctor *d)
{
    struct failure f = {0};
    char roles[64];
    const cJSON *who = cJSON_GetObjectItemCaseSensitive(d->status, "operator");
    if (!d->has_operator)
        return;
    if (!cJSON_GetObjectItemCaseSensitive(d->status, "certificates")) {
        fail(&f, EXIT_REFUSED, "certificate_unknown",
             "the server does not take %s for an operator's in force: it is revoked, or of another "
             "CA; have a new one issued (signetctl operator issue)",
             d->session.settings.cert);
        flunk(d, "accepted", &f);
        return;
    }
    row_text(roles, sizeof roles, who, "roles");
    say(d, LEVEL_OK, "accepted", "the server takes the operator certificate%s%s",
        strcmp(roles, "-") != 0 ? "; roles: " : "", strcmp(roles, "-") != 0 ? roles : "");
}

static void check_crl(struct doctor *d)
{
    struct failure f = {0};
    STACK_OF(X509) *chain = NULL;
    X509_CRL *crl = NULL;
    char until[TIME_TEXT_SIZE];
    if (session_chain(&d->session, &chain, &f) ||
        session_crl(&d->session, sk_X509_value(chain, 0), &crl, &f)) {
        flunk(d, "crl", &f);
    } else {
        int days = 0, seconds = 0;
        char *number = crl_number_text(crl);
        time_text(until, X509_CRL_get0_nextUpdate(crl));
        ASN1_TIME_diff(&days, &seconds, NULL, X509_CRL_get0_nextUpdate(crl));
        say(d, days < 1 ? LEVEL_WARN : LEVEL_OK, "crl", "number %s, good until %s%s",
            number ? number : "?", until,
            days < 1 ? "; the server should have renewed it: tell its keeper" : "");
        OPENSSL_free(number);
    }
    X509_CRL_free(crl);
    certs_free(chain);
}

/* ---- this machine ---- */

static void check_esptool(struct doctor *d)
{
    struct failure f = {0};
    char version[80] = "";
    char *program = NULL;
    if (esptool_find(&program, d->session.settings.esptool, &f) == 0)
        esptool_version(version, sizeof version, program);
    if (*version)
        say(d, LEVEL_OK, "esptool", "%s", version);
    else if (*f.text)
        say(d, LEVEL_WARN, "esptool", "%s; only flashing needs it", f.text);
    else
        say(d, LEVEL_WARN, "esptool", "%s does not work; only flashing needs it", program);
    free(program);
}

static void check_out(struct doctor *d)
{
    struct failure f = {0};
    const char *out = d->session.settings.out ? d->session.settings.out : ".";
    struct stat st;
    if (stat(out, &st) && errno == ENOENT)
        say(d, LEVEL_OK, "out", "%s is not there yet; signet provision makes it", out);
    else if (access(out, W_OK | X_OK) == 0 && S_ISDIR(st.st_mode))
        say(d, LEVEL_OK, "out", "%s can be written",
            strcmp(out, ".") == 0 ? "this folder (no \"out\" is set)" : out);
    else {
        fail(&f, EXIT_LOCAL, "local_file", "cannot write in %s: %s; give another --out", out,
             S_ISDIR(st.st_mode) ? strerror(errno) : "it is no folder");
        flunk(d, "out", &f);
    }
}

/* ---- all of it ---- */

static void check_all(struct doctor *d)
{
    check_config(d);
    if (d->has_settings) {
        check_ca(d);
        check_operator(d);
        check_server(d);
    }
    if (d->status) {
        check_clock(d);
        check_ready(d);
        check_accepted(d);
        check_crl(d);
    }
    check_esptool(d);
    if (d->has_settings)
        check_out(d);
}

int cmd_doctor(const struct options *o, struct failure *f)
{
    struct doctor d = {.o = o, .json = o->json};
    check_all(&d);
    int failures = d.failures;
    if (failures)
        fail(f, d.first.exit, d.first.code, "%d of the checks failed; begin with the first FAIL",
             failures);
    else if (!d.json)
        printf("%s\n", d.warnings ? "Nothing failed; see the warnings." : "All is well.");
    cJSON_Delete(d.status);
    session_close(&d.session);
    return failures ? -1 : 0;
}
