/* signetctl pin retry, crl rebuild, clock accept: what is asked of a running signetd. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/ctl/ctl.h"

static int usage(const char *text, int code)
{
    fprintf(code ? stderr : stdout, "usage: signetctl %s\n", text);
    return code;
}

/* 1 when argv is exactly "COMMAND word"; else *rc is how to end. */
static int is_call(int argc, char **argv, const char *word, const char *help, int *rc)
{
    if (argc == 2 && strcmp(argv[1], word) == 0)
        return 1;
    *rc = usage(help, argc > 1 && strcmp(argv[argc - 1], "--help") == 0 ? EXIT_DONE : EXIT_USAGE);
    return 0;
}

/* ---- pin retry ---- */

/* Without signetd: the file goes, if really none runs on this state. */
static int forget_refusal(struct ctl *c)
{
    char path[4096];
    int lock = ctl_lock_state(c, c->config->state);
    if (lock < 0)
        return ctl_fail(c, EXIT_LOCAL);
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
    if (!is_call(argc, argv, "retry", text, &rc))
        return rc;
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

/* ---- crl rebuild ---- */

#define CRL_PATIENCE 120 /* seconds; a million entries take several */
#define SIGN_PATIENCE 10 /* when it cannot sign at all */

static int ask_status(struct ctl *c, struct msg_answer_status *answer)
{
    struct msg_admin_status m = {0};
    return ctl_exchange(c, MSG_admin_status, &m, MSG_answer_status, answer);
}

static int wait_for_crl(struct ctl *c, uint64_t before, struct msg_answer_status *now)
{
    static const struct timespec pause = {0, 200000000};
    int rc = ask_status(c, now);
    for (int i = 0; rc == EXIT_DONE && now->crl_number <= before && i < CRL_PATIENCE * 5; i++) {
        if (!now->ready && i > SIGN_PATIENCE * 5)
            break;
        ctl_progress(c, "making the CRL", (uint64_t)i, CRL_PATIENCE * 5);
        nanosleep(&pause, NULL);
        rc = ask_status(c, now);
    }
    ctl_progress_end(c);
    if (rc == EXIT_DONE && now->crl_number <= before) {
        err_set(&c->err, ERR_token_unavailable, "there is no new CRL yet: %s",
                now->problem[0] ? now->problem : "see signetd's log");
        rc = ctl_fail(c, EXIT_REFUSED);
    }
    return rc;
}

int cmd_crl(struct ctl *c, int argc, char **argv)
{
    static const char text[] =
        "crl rebuild\n\nMakes a new CRL now, under the next number, and waits until it is "
        "published; those of the\nshards follow. signetd does so by itself after each revocation "
        "and at half "
        "of a CRL's life.";
    struct msg_admin_crl_rebuild m = {0};
    struct msg_answer_status now;
    struct msg_answer_end end;
    char until[32];
    int rc;
    if (!is_call(argc, argv, "rebuild", text, &rc))
        return rc;
    if ((rc = ctl_connect(c, 1)) ||
        (rc = ctl_exchange(c, MSG_admin_crl_rebuild, &m, MSG_answer_end, &end)) ||
        (rc = wait_for_crl(c, end.count, &now)))
        return rc;
    time_text(until, now.crl_next_update);
    if (c->json)
        printf("{\"status\":\"OK\",\"crl_number\":%llu,\"crl_next_update\":\"%s\"}\n",
               (unsigned long long)now.crl_number, until);
    else
        printf("CRL %llu is published, until %s\n", (unsigned long long)now.crl_number, until);
    return EXIT_DONE;
}

/* ---- clock accept ---- */

/* A person is asked, a script is believed. */
static int is_agreed(void)
{
    char answer[16];
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return 1;
    printf("Is that the right time? [y/N] ");
    fflush(stdout);
    return fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

int cmd_clock(struct ctl *c, int argc, char **argv)
{
    static const char text[] =
        "clock accept\n\nsignetd signs nothing while the clock is more than 5 minutes behind its "
        "last event, or has\njumped by more than an hour. Set the clock right first (timedatectl); "
        "this then takes it as\nit is, and journals that.";
    struct msg_admin_clock_accept m = {0};
    struct msg_answer_status now;
    struct msg_answer_end end;
    char when[32];
    int rc;
    if (!is_call(argc, argv, "accept", text, &rc))
        return rc;
    if ((rc = ctl_connect(c, 1)) || (rc = ask_status(c, &now)))
        return rc;
    time_text(when, now.time);
    if (!c->json) {
        printf("signetd's clock says %s\n", when);
        if (now.problem[0])
            printf("%s\n", now.problem);
        if (!is_agreed()) {
            printf("nothing was changed; set the clock right (timedatectl), then again\n");
            return EXIT_REFUSED;
        }
    }
    if ((rc = ctl_exchange(c, MSG_admin_clock_accept, &m, MSG_answer_end, &end)))
        return rc;
    if (c->json)
        printf("{\"status\":\"OK\",\"time\":\"%s\"}\n", when);
    else
        printf("the clock is accepted; see signetctl status\n");
    return EXIT_DONE;
}
