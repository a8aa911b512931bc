/* signetctl status, signetctl pin retry */
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <fcntl.h>
#include <unistd.h>
#include <errno.h>

#include "server/ctl/ctl.h"

static int usage(const char *text, int code)
{
    fprintf(code ? stderr : stdout, "usage: signetctl %s\n", text);
    return code;
}

static void print_status(const struct msg_answer_status *m)
{
    char a[32], b[32];
    printf("signetd    %s, up since %s\n", m->ready ? "ready" : "NOT READY",
           time_text(a, m->started_at));
    if (m->problem[0])
        printf("problem    %s\n", m->problem);
    printf("signers    %u of %u ready\n", m->signers_ready, m->signers_wanted);
    if (m->token_detail[0])
        printf("token      %s\n", m->token_detail);
    if (m->custody[0])
        printf("custody    %s\n", m->custody);
    printf("issued     %llu in force, %llu under way\n", (unsigned long long)m->issued,
           (unsigned long long)m->pending);
    printf("revoked    %llu, and %llu orphans\n", (unsigned long long)m->revoked,
           (unsigned long long)m->orphans);
    printf("CRL        number %llu, from %s to %s\n", (unsigned long long)m->crl_number,
           time_text(a, m->crl_this_update), time_text(b, m->crl_next_update));
    printf("CA         until %s\n", time_text(a, m->issuer_not_after));
}

static void print_json(const struct msg_answer_status *m)
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
    printf(",\"ca_not_after\":\"%s\",\"token_fault\":%u,\"token\":",
           time_text(a, m->issuer_not_after), m->token_fault);
    json_string(m->token_detail);
    printf(",\"custody\":");
    json_string(m->custody);
    printf(",\"problem\":");
    json_string(m->problem);
    printf("}\n");
}

int cmd_status(struct ctl *c, int argc, char **argv)
{
    static const char text[] =
        "status\n\nHow signetd, its token and its CRL stand. Exit code 0 when "
        "it is ready to sign, 4 when not.";
    struct msg_admin_status m = {0};
    struct msg_answer_status answer;
    int rc;
    if (argc > 1)
        return usage(text, strcmp(argv[1], "--help") == 0 ? 0 : EXIT_USAGE);
    if ((rc = ctl_connect(c, 1)) || (rc = ctl_ask(c, MSG_admin_status, &m)))
        return rc;
    if (c->in.type != MSG_answer_status || msg_decode(&answer, MSG_answer_status, c->in.fields)) {
        err_set(&c->err, ERR_internal,
                "signetd's answer is not understood; are both of one release?");
        return ctl_fail(c, EXIT_UNREACHABLE);
    }
    if (c->json)
        print_json(&answer);
    else
        print_status(&answer);
    return answer.ready ? EXIT_DONE : EXIT_REFUSED;
}

/* Without signetd: the file goes, if really none runs on this state. */
static int forget_refusal(struct ctl *c)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/lock", c->config->state);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB)) {
        err_set(&c->err, ERR_storage_unavailable, "%s: %s", path, strerror(errno));
        return ctl_fail(c, EXIT_LOCAL);
    }
    snprintf(path, sizeof path, "%s/pin-refused", c->config->state);
    int rc = unlink(path), why = errno;
    close(lock);
    if (rc && why != ENOENT) {
        err_set(&c->err, ERR_storage_unavailable, "%s: %s", path, strerror(why));
        return ctl_fail(c, EXIT_LOCAL);
    }
    if (c->json)
        printf("{\"status\":\"OK\",\"refusal\":\"%s\"}\n", rc ? "none" : "forgotten");
    else if (rc)
        printf("no refused PIN is remembered; nothing to do\n");
    else
        printf("the refused PIN is forgotten; start signetd, it tries the PIN once\n");
    return EXIT_DONE;
}

int cmd_pin(struct ctl *c, int argc, char **argv)
{
    static const char text[] =
        "pin retry\n\nAfter the token refused the PIN and you corrected the PIN file: lets signetd "
        "try it\nonce more. A wrong PIN may lock the token: look before you retry.";
    struct msg_admin_pin_retry m = {0};
    int rc;
    if (argc != 2 || strcmp(argv[1], "retry") != 0)
        return usage(text, argc == 2 && strcmp(argv[1], "--help") == 0 ? 0 : EXIT_USAGE);
    if (ctl_connect(c, 0))
        return forget_refusal(c);
    if ((rc = ctl_ask(c, MSG_admin_pin_retry, &m)))
        return rc;
    if (c->json)
        printf("{\"status\":\"OK\"}\n");
    else
        printf("signetd tries the PIN once more; see signetctl status\n");
    return EXIT_DONE;
}
