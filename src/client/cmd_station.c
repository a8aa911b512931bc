/* signet station: board after board, as they are plugged in.
 *
 * One board at a time, and it must be taken off before the next is begun, so that what stands on
 * the screen is about the board that is plugged in. Nothing is kept in memory that the next run
 * needs: what was done stands in the boards' folders, and the record is only written. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/flash.h"
#include "client/interrupt.h"
#include "client/listing.h"
#include "client/notice.h"
#include "client/ports.h"
#include "client/station_log.h"
#include "client/verdict.h"
#include "common/file.h"

#define TICK_MS 100
#define SERVER_MS 5000 /* between two questions to a server that is away */
#define ENDS_AFTER "\nsignet: ends after this board; Ctrl-C once more ends at once\n"

struct station {
    struct session session;
    struct board board; /* what holds for all */
    struct flash_plan plan;
    struct ports *ports;
    struct csv_file log;
    char *log_path;
    struct look look;
    int json;
    int asks;              /* a person is there */
    long limit;            /* 0: none */
    size_t count[3];       /* by outcome */
    double *seconds;       /* of each that passed */
    int exit;              /* of the last one that failed */
    int64_t server_failed; /* ms, when it was asked; 0: all is well with it */
};

static size_t tried(const struct station *s)
{
    return s->count[PASSED] + s->count[FAILED];
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

/* ---- the server ---- */

static int judge_status(const cJSON *status, const struct session *s, struct failure *f)
{
    char problem[256];
    row_text(problem, sizeof problem, status, "problem");
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(status, "ready")))
        return fail(f, EXIT_REFUSED, "not_ready", "%s cannot sign now: %s", s->settings.server,
                    problem);
    if (!cJSON_GetObjectItemCaseSensitive(status, "certificates")) /* for operators alone */
        return fail(f, EXIT_REFUSED, "certificate_unknown",
                    "%s does not take %s for an operator's in force", s->settings.server,
                    s->settings.cert);
    return 0;
}

static int ask_server(struct session *s, struct failure *f)
{
    cJSON *request = cJSON_CreateObject(), *status = NULL;
    int rc = cJSON_AddStringToObject(request, "operation", "get_status")
                 ? http_call(s->http, request, ANSWER_MAX, &status, f)
                 : fail_memory(f);
    if (rc == 0)
        rc = judge_status(status, s, f);
    cJSON_Delete(status);
    cJSON_Delete(request);
    return rc;
}

/* Says how it is when that has changed. */
static void look_at_server(struct station *s)
{
    struct failure f = {0};
    int64_t before = s->server_failed;
    int rc = ask_server(&s->session, &f);
    if (rc && f.exit > EXIT_SIGNAL)
        return;
    s->server_failed = rc ? now_ms() : 0;
    if (rc && !before)
        fprintf(s->look.to, "server: %s; it is asked again until that is over\n", f.text);
    else if (rc == 0 && before)
        fprintf(s->look.to, "server: %s is ready\n", s->session.settings.server);
    fflush(s->look.to);
}

/* ---- waiting ---- */

static void idle(struct station *s)
{
    if (s->server_failed && now_ms() - s->server_failed >= SERVER_MS)
        look_at_server(s);
    interrupt_sleep(TICK_MS);
}

/* *port NULL: interrupted */
static int wait_for_board(struct station *s, const char **port, struct failure *f)
{
    for (*port = NULL; !*port && !interrupted();) {
        if (ports_look(s->ports, f))
            return -1;
        *port = ports_take(s->ports);
        if (!*port)
            idle(s);
    }
    return 0;
}

static int wait_until_off(struct station *s, struct failure *f)
{
    for (;;) {
        if (ports_look(s->ports, f))
            return -1;
        if (interrupted() || ports_is_free(s->ports))
            return 0;
        idle(s);
    }
}

/* ---- a question ---- */

/* A line that comes from now on; until the board is taken off, or somebody wants an end. */
static int says_yes(struct station *s, const char *port)
{
    char line[16];
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    tcflush(STDIN_FILENO, TCIFLUSH);
    for (;;) {
        int n = poll(&in, 1, TICK_MS);
        if (interrupted() || interrupt_asked())
            return 0;
        if (n == 0 && access(port, F_OK)) {
            fprintf(s->look.to, "no: it was taken off\n");
            return 0;
        }
        if (n > 0)
            break;
    }
    ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    return strcasecmp(line, "y") == 0 || strcasecmp(line, "yes") == 0;
}

static void describe_done(char *out, size_t size, const struct attempt *a)
{
    if (strcmp(a->why.code, "already_flashed") == 0)
        snprintf(out, size, "%s was done on %s", a->board.mac, a->board.mark.since);
    else
        snprintf(out, size, "%s has a live certificate from elsewhere", a->board.mac);
}

static int is_done_before(const struct failure *f)
{
    return strcmp(f->code, "already_flashed") == 0 ||
           strcmp(f->code, "subject_has_certificate") == 0;
}

/* 1: it is to be done again. 0: the reason why not is put in its place. */
static int is_to_be_done_again(struct station *s, struct attempt *a)
{
    char done[128];
    describe_done(done, sizeof done, a);
    if (!s->asks) {
        fail(&a->why, EXIT_LOCAL, "done_already",
             "%s already, and nobody is here to be asked: signet provision --flash --replace does "
             "it again",
             done);
        return 0;
    }
    fprintf(s->look.to, "%s. Do it again? Its older certificate is then revoked. [y/N] ", done);
    fflush(s->look.to);
    if (says_yes(s, a->port))
        return 1;
    a->outcome = SKIPPED;
    fail(&a->why, EXIT_LOCAL, "done_already", "%s already, and was left as it is", done);
    return 0;
}

/* ---- a board ---- */

static int flash(struct station *s, struct attempt *a, int again)
{
    char mac[MAC_TEXT_SIZE];
    struct board board = s->board;
    int64_t began = now_ms();
    memcpy(mac, a->board.mac, sizeof mac);
    board.mac = again ? mac : NULL;
    board.replace = again;
    flashed_free(&a->board);
    a->why = (struct failure){0};
    int rc = flash_board(&a->board, &s->session, &board, &s->plan, &a->why);
    a->outcome = rc ? FAILED : PASSED;
    a->seconds = (double)(now_ms() - began) / 1000;
    return rc;
}

static void do_board(struct station *s, struct attempt *a)
{
    fprintf(s->look.to, "a board at %s\n", a->port);
    fflush(s->look.to);
    when_now(a->began);
    s->plan.port = a->port;
    if (flash(s, a, 0) && is_done_before(&a->why) && is_to_be_done_again(s, a))
        flash(s, a, 1);
}

static int remember(struct station *s, const struct attempt *a, struct failure *f)
{
    if (a->outcome == PASSED) {
        double *grown = realloc(s->seconds, (s->count[PASSED] + 1) * sizeof *grown);
        if (!grown)
            return fail_memory(f);
        s->seconds = grown;
        grown[s->count[PASSED]] = a->seconds;
    } else if (a->outcome == FAILED) {
        s->exit = a->why.exit;
    }
    s->count[a->outcome]++;
    return station_log_add(&s->log, a, f);
}

/* "3 boards: 2 passed, 1 failed, yield 66.7 %" */
static void print_count(const struct station *s, FILE *to)
{
    size_t n = tried(s), passed = s->count[PASSED];
    fprintf(to, "%zu board%s: %zu passed, %zu failed", n, plural(n), passed, s->count[FAILED]);
    if (s->count[SKIPPED])
        fprintf(to, ", %zu left as %s", s->count[SKIPPED],
                s->count[SKIPPED] == 1 ? "it was" : "they were");
    if (n)
        fprintf(to, ", yield %.1f %%", 100 * (double)passed / (double)n);
}

static void show(const struct station *s, const struct attempt *a)
{
    FILE *to = s->look.to;
    const char *mac = *a->board.mac ? a->board.mac : "a board without a name";
    verdict_show(&s->look, a->outcome);
    fprintf(to, "%s %s: ", outcome_word(a->outcome), mac);
    if (a->outcome == PASSED)
        fprintf(to, "flashed and verified, serial %s, %.1f s\n", a->board.device.serial,
                a->seconds);
    else
        fprintf(to, "%s\n", a->why.text);
    print_count(s, to);
    fprintf(to, "\n");
}

static int put_on_record(struct station *s, const struct attempt *a, struct failure *f)
{
    int rc = remember(s, a, f);
    show(s, a);
    if (rc)
        return -1;
    if (s->json) {
        cJSON *o = attempt_json(a);
        json_print(o);
        cJSON_Delete(o);
    }
    if (fflush(s->look.to) == 0 && fflush(stdout) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot write to standard output: %s",
                strerror(errno));
}

static int is_servers(const struct failure *f)
{
    return f->exit == EXIT_UNREACHABLE || f->exit == EXIT_REFUSED;
}

static int handle(struct station *s, const char *port, struct failure *f)
{
    struct attempt a = {.profile = s->board.profile, .port = strdup(port)};
    if (!a.port)
        return fail_memory(f);
    interrupt_hold(ENDS_AFTER);
    int begun = !interrupted(), rc = 0;
    if (begun) {
        do_board(s, &a);
        rc = put_on_record(s, &a, f);
    }
    if (begun && rc == 0 && interrupted())
        rc = fail_interrupted(f);
    interrupt_hold(NULL);
    ports_leave(s->ports);
    if (begun && rc == 0 && a.outcome == FAILED && is_servers(&a.why))
        look_at_server(s);
    flashed_free(&a.board);
    free(a.port);
    return rc;
}

/* ---- board after board ---- */

static int is_over(const struct station *s)
{
    return interrupted() || interrupt_asked() || (s->limit && tried(s) >= (size_t)s->limit);
}

static void ask_to_take_off(const struct station *s)
{
    size_t waiting = ports_waiting(s->ports);
    fprintf(s->look.to, "take the board off");
    if (waiting)
        fprintf(s->look.to, "; %zu other%s wait%s, one is done after the other", waiting,
                plural(waiting), waiting == 1 ? "s" : "");
    fprintf(s->look.to, "\n");
    fflush(s->look.to);
}

static int take_turns(struct station *s, struct failure *f)
{
    const char *port;
    while (!is_over(s)) {
        fprintf(s->look.to, "plug in a board\n");
        fflush(s->look.to);
        if (wait_for_board(s, &port, f))
            return -1;
        if (!port)
            break;
        if (handle(s, port, f))
            return -1;
        if (is_over(s))
            break;
        if (ports_look(s->ports, f))
            return -1;
        if (!ports_is_free(s->ports))
            ask_to_take_off(s);
        if (wait_until_off(s, f))
            return -1;
    }
    return 0;
}

/* ---- the end ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* There is at least one. */
static double median(const struct station *s)
{
    size_t n = s->count[PASSED];
    qsort(s->seconds, n, sizeof *s->seconds, compare);
    return (s->seconds[(n - 1) / 2] + s->seconds[n / 2]) / 2;
}

static void print_summary_json(const struct station *s)
{
    cJSON *o = cJSON_CreateObject();
    size_t n = tried(s);
    cJSON_AddStringToObject(o, "status", s->count[FAILED] ? "ERROR" : "OK");
    cJSON_AddNumberToObject(o, "boards", (double)n);
    cJSON_AddNumberToObject(o, "passed", (double)s->count[PASSED]);
    cJSON_AddNumberToObject(o, "failed", (double)s->count[FAILED]);
    cJSON_AddNumberToObject(o, "skipped", (double)s->count[SKIPPED]);
    if (n)
        cJSON_AddNumberToObject(o, "yield", (double)s->count[PASSED] / (double)n);
    if (s->count[PASSED])
        cJSON_AddNumberToObject(o, "median_seconds", median(s));
    cJSON_AddStringToObject(o, "results", s->log_path);
    json_print(o);
    cJSON_Delete(o);
}

static void print_summary(const struct station *s)
{
    FILE *to = s->look.to;
    fprintf(to, "\n");
    print_count(s, to);
    if (s->count[PASSED])
        fprintf(to, ", median %.1f s a board", median(s));
    fprintf(to, "\n  results %s\n", s->log_path);
    fflush(to);
    if (s->json)
        print_summary_json(s);
}

static int conclude(const struct station *s, struct failure *f)
{
    size_t failed = s->count[FAILED];
    return failed ? fail(f, s->exit, "boards_failed", "%zu of %zu boards failed; %s says why",
                         failed, tried(s), s->log_path)
                  : 0;
}

/* ---- the beginning ---- */

/* OUT/station-2026-11-23.csv */
static int name_log(struct station *s, const char *given, struct failure *f)
{
    char now[WHEN_SIZE];
    struct err err;
    when_now(now);
    if (!given && file_make_dir(s->board.out, 0700, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int n = given ? asprintf(&s->log_path, "%s", given)
                  : asprintf(&s->log_path, "%s/station-%.10s.csv", s->board.out, now);
    if (n >= 0)
        return 0;
    s->log_path = NULL;
    return fail_memory(f);
}

static int take_limit(long *out, const char *text, struct failure *f)
{
    char *end;
    *out = 0;
    if (!text)
        return 0;
    *out = strtol(text, &end, 10);
    return *end || *out < 1 || *out > 1000000
               ? fail(f, EXIT_USAGE, "usage", "--limit \"%s\" is not a number of 1 or more", text)
               : 0;
}

static void say_how_it_is(struct station *s)
{
    const char *port;
    fprintf(s->look.to, "certificates of profile %s, folders in %s, results in %s\n",
            s->board.profile, s->board.out, s->log_path);
    for (size_t i = 0; (port = ports_old(s->ports, i)); i++)
        fprintf(s->look.to,
                "%s is there already: it is left alone until it is taken off and "
                "plugged in again\n",
                port);
    look_at_server(s);
    if (!s->server_failed)
        fprintf(s->look.to, "server: %s is ready\n", s->session.settings.server);
    fprintf(s->look.to, "Ctrl-C ends\n");
}

static int prepare(struct station *s, const struct options *o, struct failure *f)
{
    if (take_limit(&s->limit, o->limit, f) || session_open(&s->session, o, f) ||
        board_settings(&s->board, &s->session, f) ||
        flash_plan_take(&s->plan, o, &s->session.settings, f) || flash_plan_check(&s->plan, f) ||
        session_connect(&s->session, "operator", f))
        return -1;
    s->plan.once = 1;
    s->board.profile = o->profile ? o->profile : PROFILE_DEFAULT;
    s->json = o->json;
    look_at(&s->look, s->json ? stderr : stdout);
    s->asks = isatty(STDIN_FILENO) && isatty(fileno(s->look.to));
    return name_log(s, o->results, f) || station_log_open(&s->log, s->log_path, f) ||
                   ports_open(&s->ports, o->ports, f)
               ? -1
               : 0;
}

int cmd_station(const struct options *o, struct failure *f)
{
    struct station s = {.log = {.fd = -1}};
    int rc = prepare(&s, o, f);
    if (rc == 0) {
        say_how_it_is(&s);
        rc = take_turns(&s, f);
        print_summary(&s);
    }
    if (rc == 0)
        rc = conclude(&s, f);
    ports_close(s.ports);
    csv_file_close(&s.log);
    free(s.log_path);
    free(s.seconds);
    session_close(&s.session);
    return rc;
}
