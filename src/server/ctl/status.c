/* signetctl status: the first line says whether it can sign, and why not. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hsm/token.h"
#include "server/ctl/ctl.h"

#define DAY 86400
#define CA_WARNING (180 * DAY) /* a new intermediate takes a ceremony: say it early */

/* One thing to know and what to do about it. */
struct notice {
    char text[640], next[160];
};

struct notices {
    struct notice list[8];
    unsigned count;
};

__attribute__((format(printf, 3, 4))) static void add(struct notices *n, const char *next,
                                                      const char *fmt, ...)
{
    va_list ap;
    if (n->count == sizeof n->list / sizeof *n->list)
        return;
    struct notice *at = &n->list[n->count++];
    va_start(ap, fmt);
    vsnprintf(at->text, sizeof at->text, fmt, ap);
    va_end(ap);
    snprintf(at->next, sizeof at->next, "%s", next);
}

/* "6 days", "3 hours", "5 minutes" */
static const char *span(char out[32], int64_t seconds)
{
    int64_t n = seconds < 0 ? 0 : seconds;
    if (n >= 2 * DAY)
        snprintf(out, 32, "%lld days", (long long)(n / DAY));
    else if (n >= 7200)
        snprintf(out, 32, "%lld hours", (long long)(n / 3600));
    else
        snprintf(out, 32, "%lld minutes", (long long)(n / 60));
    return out;
}

static void notice_expiry(struct notices *n, const struct msg_answer_status *m)
{
    char left[32];
    int64_t crl_life = m->crl_next_update - m->crl_this_update;
    if (m->issuer_not_after <= m->time)
        add(n, "docs/recovery.md, \"A new intermediate\"", "the CA certificate has ended");
    else if (m->issuer_not_after - m->time < CA_WARNING)
        add(n, "docs/recovery.md, \"A new intermediate\"; certificates end with it",
            "the CA certificate ends in %s", span(left, m->issuer_not_after - m->time));
    if (m->listener_not_after && m->listener_not_after - m->time < DAY)
        add(n, "signetd renews it when it can sign; see its log",
            "the server's own TLS certificate %s",
            m->listener_not_after <= m->time ? "has ended" : "ends within a day");
    if (m->responder_not_after && m->responder_not_after - m->time < DAY &&
        m->responder_not_after < m->issuer_not_after)
        add(n, "signetd renews it when it can sign; see its log",
            "the OCSP responder's certificate ends within a day");
    if (m->crl_number == 0)
        add(n, "it is made when the token can sign", "there is no CRL yet");
    else if (m->crl_next_update <= m->time)
        add(n, "signetctl crl rebuild, and see the log: verifiers refuse every certificate",
            "the CRL has ended");
    else if (m->crl_next_update - m->time < crl_life / 4)
        add(n, "signetctl crl rebuild, and see the log", "the CRL is late, it ends in %s",
            span(left, m->crl_next_update - m->time));
}

/* What a person does about it. */
static const char *step_for(const char *problem)
{
    static const char *const of_disk[] = {"the database", "journal.log",  "certs",    "not saved",
                                          "No space",     "Input/output", "Read-only"};
    if (strstr(problem, "clock"))
        return "set the clock right, then signetctl clock accept";
    if (strstr(problem, "random generator"))
        return "docs/recovery.md, \"No random numbers\"; nothing was signed";
    for (size_t i = 0; i < sizeof of_disk / sizeof *of_disk; i++)
        if (strstr(problem, of_disk[i]))
            return "docs/recovery.md, \"A full or failing disk\"; it goes on by itself afterwards";
    return "see signetd's log";
}

static void notice_state(struct notices *n, const struct ctl *c, const struct msg_answer_status *m)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/pin-refused", c->config->state);
    if (stat(path, &st) == 0)
        add(n, "correct the PIN file, then signetctl pin retry", "the token refused the PIN");
    else if (m->signers_ready == 0)
        add(n,
            m->token_fault == TOKEN_PIN_LAST
                ? "log in once with the right PIN by another tool, then signetctl pin retry"
                : "is the token plugged in? signetd tries again by itself; see its log",
            "no signer is ready%s%s", m->token_detail[0] ? ": " : "", m->token_detail);
    else if (m->signers_ready < m->signers_wanted)
        add(n, "signetd starts the others again; see its log", "%u of %u signers are ready",
            m->signers_ready, m->signers_wanted);
    if (m->problem[0] &&
        !(m->signers_ready < m->signers_wanted && strstr(m->problem, "fewer signers")))
        add(n, step_for(m->problem), "%s", m->problem);
}

static void print_numbers(const struct msg_answer_status *m)
{
    char a[32], b[32];
    printf("signers    %u of %u ready\n", m->signers_ready, m->signers_wanted);
    if (m->token_detail[0])
        printf("token      %s\n", m->token_detail);
    if (m->custody[0])
        printf("custody    %s\n", m->custody);
    printf("issued     %llu in force, %llu under way\n", (unsigned long long)m->issued,
           (unsigned long long)m->pending);
    printf("revoked    %llu, and %llu orphans\n", (unsigned long long)m->revoked,
           (unsigned long long)m->orphans);
    printf("CRL        number %llu of %s, until %s\n", (unsigned long long)m->crl_number,
           time_text(a, m->crl_this_update), time_text(b, m->crl_next_update));
    printf("listener   until %s\n", time_text(a, m->listener_not_after));
    if (m->responder_not_after)
        printf("OCSP       until %s (the responder's certificate)\n",
               time_text(a, m->responder_not_after));
    printf("CA         until %s\n", time_text(a, m->issuer_not_after));
}

static void print_status(const struct msg_answer_status *m, const struct notices *n)
{
    char a[32], up[32];
    if (m->ready)
        printf("READY      up for %s, since %s\n", span(up, m->time - m->started_at),
               time_text(a, m->started_at));
    else
        printf("NOT READY: %s\n", n->count ? n->list[0].text : "signetd is stopping");
    for (unsigned i = 0; i < n->count; i++) {
        if (m->ready || i > 0)
            printf("! %s\n", n->list[i].text);
        printf("  next: %s\n", n->list[i].next);
    }
    print_numbers(m);
}

static void print_json(const struct msg_answer_status *m, const struct notices *n)
{
    char a[32];
    printf(
        "{\"status\":\"OK\",\"ready\":%s,\"started_at\":\"%s\",\"signers_ready\":%u,"
        "\"signers_wanted\":%u,\"issued\":%llu,\"pending\":%llu,\"revoked\":%llu,\"orphans\":%llu,",
        m->ready ? "true" : "false", time_text(a, m->started_at), m->signers_ready,
        m->signers_wanted, (unsigned long long)m->issued, (unsigned long long)m->pending,
        (unsigned long long)m->revoked, (unsigned long long)m->orphans);
    printf("\"crl_number\":%llu,\"crl_this_update\":\"%s\"", (unsigned long long)m->crl_number,
           time_text(a, m->crl_this_update));
    printf(",\"crl_next_update\":\"%s\"", time_text(a, m->crl_next_update));
    printf(",\"listener_not_after\":\"%s\"", time_text(a, m->listener_not_after));
    if (m->responder_not_after)
        printf(",\"ocsp_not_after\":\"%s\"", time_text(a, m->responder_not_after));
    printf(",\"time\":\"%s\"", time_text(a, m->time));
    printf(",\"ca_not_after\":\"%s\",\"token_fault\":%u,\"token\":",
           time_text(a, m->issuer_not_after), m->token_fault);
    json_string(m->token_detail);
    printf(",\"custody\":");
    json_string(m->custody);
    printf(",\"problem\":");
    json_string(m->problem);
    printf(",\"notices\":[");
    for (unsigned i = 0; i < n->count; i++) {
        printf("%s{\"text\":", i ? "," : "");
        json_string(n->list[i].text);
        printf(",\"next\":");
        json_string(n->list[i].next);
        putchar('}');
    }
    printf("]}\n");
}

/* signetd does not answer: that is a status too. */
static int print_absent(struct ctl *c)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/pin-refused", c->config->state);
    if (c->json)
        return ctl_fail(c, EXIT_UNREACHABLE);
    printf("NOT READY: %s\n", c->err.text);
    printf("  next: %s\n", stat(path, &st) == 0
                               ? "the token refused the PIN: correct the PIN file, then signetctl "
                                 "pin retry, then start signetd"
                               : "start signetd and read what it says (systemctl start signetd; "
                                 "journalctl -u signetd)");
    return EXIT_UNREACHABLE;
}

int cmd_status(struct ctl *c, int argc, char **argv)
{
    struct msg_admin_status m = {0};
    struct msg_answer_status answer;
    struct notices notices = {0};
    int rc;
    if (argc > 1) {
        int help = strcmp(argv[1], "--help") == 0;
        fprintf(help ? stdout : stderr,
                "usage: signetctl status\n\n"
                "The first line says READY, or NOT READY and why; then what ends soon and what to "
                "do\nabout it; then signers, token, custody, numbers and dates. Exit code 0 when "
                "it is ready\nto sign, 4 when not, 3 when signetd does not answer.\n");
        return help ? EXIT_DONE : EXIT_USAGE;
    }
    if (ctl_connect(c, 0))
        return print_absent(c);
    if ((rc = ctl_exchange(c, MSG_admin_status, &m, MSG_answer_status, &answer)))
        return rc;
    notice_state(&notices, c, &answer);
    notice_expiry(&notices, &answer);
    if (c->json)
        print_json(&answer, &notices);
    else
        print_status(&answer, &notices);
    return answer.ready ? EXIT_DONE : EXIT_REFUSED;
}
