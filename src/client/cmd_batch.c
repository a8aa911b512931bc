/* signet batch: all boards of a file.
 *
 * Keys take long and come from processes of their own (makers.h); this one asks for the
 * certificates, one after the other on one connection, and keeps the results. Whatever ends it, the
 * next run finds each board in one of four states: nothing there; key and request in its pending
 * folder (the same request gets the same certificate); folder complete but not in the results (the
 * server is asked whether that is its certificate); in the results, and so done. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/csv_line.h"
#include "client/interrupt.h"
#include "client/listing.h"
#include "client/makers.h"
#include "client/notice.h"
#include "client/progress.h"
#include "client/results.h"
#include "common/file.h"

#define TICK_MS 200
#define BUSY_TRIES 20       /* of a folder that a process of an earlier run has just let go of */
#define BACKOFF_MAX_MS 5000 /* between tries while the server is away */

struct batch {
    const char *path;
    char *results_path;
    int json;
    struct session session;
    struct board board; /* what holds for all */
    struct device_list list;
    struct results *results;
    struct makers *makers;
    struct progress progress;
    size_t next;            /* the first board that no maker was given */
    size_t issued, refused; /* in this run */
};

/* The certificate of one board, asked for or found. */
typedef int obtain_fn(struct provisioned *out, struct batch *b, const struct board *board,
                      struct failure *f);

static struct board board_at(const struct batch *b, size_t index)
{
    const struct device *d = &b->list.device[index];
    struct board board = b->board;
    board.mac = d->mac;
    board.profile = device_profile(&b->list, d, b->board.profile);
    return board;
}

/* ---- in the makers ---- */

/* The processes of a run that was killed may live a moment longer than it. */
static void make(void *arg, struct made *m)
{
    struct batch *b = arg;
    struct board board = board_at(b, m->index);
    for (int i = 0; i < BUSY_TRIES; i++) {
        m->rc = provision_key(&board, &m->resumed, &m->failure);
        if (m->rc == 0 || strcmp(m->failure.code, "busy") != 0 || interrupt_sleep(100))
            return;
    }
}

/* ---- the file ---- */

static void print_error(const struct batch *b, const struct device *d, unsigned line,
                        const struct failure *f)
{
    if (b->json) {
        cJSON *o = failure_json(f);
        cJSON_AddNumberToObject(o, "line", line);
        if (d)
            cJSON_AddStringToObject(o, "mac", d->mac);
        json_print(o);
        cJSON_Delete(o);
    }
    fprintf(stderr, "signet: %s:%u: %s%s%s\n", b->path, line, d ? d->mac : "", d ? ": " : "",
            f->text);
}

static void tell_bad_line(void *arg, unsigned line, const char *why)
{
    struct failure f = {0};
    if (fail(&f, EXIT_USAGE, "usage", "%s", why))
        print_error(arg, NULL, line, &f);
}

static int read_list(struct batch *b, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    if (file_read(&text, b->path, DEVICE_LIST_SIZE_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int rc = device_list_parse(&b->list, buf_view(&text), b->path, tell_bad_line, b, f);
    buf_free(&text);
    return rc;
}

/* devices.csv: devices.results.csv */
static int name_results(struct batch *b, const char *given, struct failure *f)
{
    size_t len = strlen(b->path);
    int csv = len > 4 && strcmp(b->path + len - 4, ".csv") == 0;
    int n =
        given ? asprintf(&b->results_path, "%s", given)
              : asprintf(&b->results_path, "%.*s.results.csv", (int)(csv ? len - 4 : len), b->path);
    if (n >= 0)
        return 0;
    b->results_path = NULL;
    return fail_memory(f);
}

/* ---- results ---- */

static void add_labels(cJSON *o, const struct batch *b, const struct device *d)
{
    cJSON *labels = cJSON_AddObjectToObject(o, "labels");
    for (size_t i = 0; i < b->list.column_count; i++)
        if (device_list_is_label(&b->list, i))
            cJSON_AddStringToObject(labels, csv_cell(b->list.columns, i), csv_cell(d->cells, i));
}

static void print_issued(const struct batch *b, const struct device *d, const struct provisioned *p,
                         int found)
{
    cJSON *o = provisioned_json(p);
    cJSON_AddNumberToObject(o, "line", d->line);
    cJSON_AddBoolToObject(o, "already", found);
    cJSON_AddStringToObject(o, "profile", device_profile(&b->list, d, b->board.profile));
    add_labels(o, b, d);
    json_print(o);
    cJSON_Delete(o);
}

/* What standard output leads to holds the line, as the results do. */
static int sync_output(struct failure *f)
{
    if (fflush(stdout) == 0 && (fdatasync(STDOUT_FILENO) == 0 || errno == EINVAL || errno == EROFS))
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot write to standard output: %s",
                strerror(errno));
}

static int settle_good(struct batch *b, size_t index, const struct provisioned *p, int found,
                       struct failure *f)
{
    if (results_add(b->results, index, p, NULL, f))
        return -1;
    if (b->json)
        print_issued(b, &b->list.device[index], p, found);
    b->issued += !found;
    progress_step(&b->progress, 0);
    return sync_output(f);
}

static int settle_failed(struct batch *b, size_t index, const struct failure *why,
                         struct failure *f)
{
    if (results_add(b->results, index, NULL, why, f))
        return -1;
    const struct device *d = &b->list.device[index];
    progress_clear(&b->progress);
    print_error(b, d, d->line, why);
    b->refused += why->exit == EXIT_REFUSED;
    progress_step(&b->progress, 1);
    return sync_output(f);
}

/* ---- what a failure means for the others ---- */

static int http_status(const char *code)
{
    for (int i = 1; i < ERR_COUNT; i++)
        if (strcmp(err_name((enum err_code)i), code) == 0)
            return err_http_status((enum err_code)i);
    return 0;
}

/* Will the same request be answered later? */
static int is_passing(const struct failure *f)
{
    int status = f->exit == EXIT_REFUSED ? http_status(f->code) : 0;
    return f->exit == EXIT_UNREACHABLE || status == 503 || status == 429;
}

/* A full or read-only disk does not get better with the next board. */
static int can_write(const char *folder)
{
    static const uint8_t nothing[65536];
    char *path = path_join(folder, ".signet-batch");
    struct err err;
    int good =
        path && file_write(path, (struct bytes){nothing, sizeof nothing}, 0600, 1, &err) == 0;
    if (good)
        unlink(path);
    free(path);
    return good;
}

static int concerns_all(const struct batch *b, const struct failure *f)
{
    switch (f->exit) {
    case EXIT_REFUSED:
        return is_passing(f) || http_status(f->code) == 401 || http_status(f->code) == 0 ||
               strcmp(f->code, "role_refused") == 0;
    case EXIT_LOCAL:
        return strcmp(f->code, "already_exists") != 0 && strcmp(f->code, "process") != 0 &&
               !can_write(b->board.out);
    default: /* interrupted, or a server that is not to be believed */
        return 1;
    }
}

/* ---- one board ---- */

static int ask(struct provisioned *out, struct batch *b, const struct board *board,
               struct failure *f)
{
    return provision(out, &b->session, board, f);
}

static int check_state(const struct board *board, const char *folder, const cJSON *answer,
                       struct failure *f)
{
    char state[16], profile[80];
    row_text(state, sizeof state, answer, "state");
    row_text(profile, sizeof profile, answer, "profile");
    if (strcmp(state, "issued") != 0)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "the certificate in %s is %s; move the folder away, or: signet provision --mac "
                    "%s --replace",
                    folder, state, board->mac);
    if (strcmp(profile, board->profile) != 0)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "the certificate in %s is of profile %s, not %s; move the folder away", folder,
                    profile, board->profile);
    return 0;
}

/* A folder that is complete: of this batch's run that was killed before the result was written, or
 * of a signet provision. */
static int adopt(struct provisioned *out, struct batch *b, const struct board *board,
                 struct failure *f)
{
    if (provision_find(out, b->session.root, board, f)) {
        char why[sizeof f->text];
        snprintf(why, sizeof why, "%s", f->text);
        return fail(f, EXIT_LOCAL, "already_exists",
                    "%s exists already, and is not what could be taken for done: %s", out->folder,
                    why);
    }
    cJSON *request = cJSON_CreateObject(), *answer = NULL;
    int good = cJSON_AddStringToObject(request, "operation", "get_cert") &&
               cJSON_AddStringToObject(request, "serial", out->serial);
    int rc = good ? http_call(b->session.http, request, ANSWER_MAX, &answer, f) : fail_memory(f);
    if (rc == 0)
        rc = check_state(board, out->folder, answer, f);
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc;
}

/* Tries again while the server is away, but not for ever. */
static int until_answered(struct provisioned *out, struct batch *b, const struct board *board,
                          obtain_fn *obtain, struct failure *f)
{
    int64_t until = now_ms() + 2 * b->session.settings.timeout_ms;
    for (long pause = 250;; pause = pause * 2 < BACKOFF_MAX_MS ? pause * 2 : BACKOFF_MAX_MS) {
        if (obtain(out, b, board, f) == 0)
            return 0;
        if (!is_passing(f) || now_ms() + pause >= until)
            return -1;
        provisioned_free(out);
        *out = (struct provisioned){0};
        progress_show(&b->progress);
        if (interrupt_sleep(pause))
            return fail_interrupted(f);
    }
}

/* -1 only when the whole batch cannot go on. */
static int settle(struct batch *b, const struct made *m, struct failure *f)
{
    struct provisioned p = {0};
    struct failure why = m->failure;
    struct board board = board_at(b, m->index);
    int found = m->rc && strcmp(why.code, "already_exists") == 0, rc = m->rc;
    if (rc == 0 || found)
        rc = until_answered(&p, b, &board, found ? adopt : ask, &why);
    p.resumed = m->resumed;
    if (rc == 0) {
        rc = settle_good(b, m->index, &p, found, f);
    } else if (concerns_all(b, &why)) {
        *f = why;
    } else {
        rc = settle_failed(b, m->index, &why, f);
    }
    provisioned_free(&p);
    return rc;
}

/* ---- all of them ---- */

static void give(struct batch *b)
{
    while (b->next < b->list.count &&
           (results_is_done(b->results, b->next) || makers_give(b->makers, (uint32_t)b->next)))
        b->next++;
}

static int settle_all(struct batch *b, struct failure *f)
{
    struct made m;
    while (b->progress.done < b->list.count) {
        if (interrupted())
            return fail_interrupted(f);
        give(b);
        progress_show(&b->progress);
        int got = makers_wait(b->makers, TICK_MS, &m, f);
        if (got < 0 || (got > 0 && settle(b, &m, f)))
            return -1;
    }
    return 0;
}

static size_t count_done(const struct batch *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->list.count; i++)
        n += results_is_done(b->results, i) != 0;
    return n;
}

/* How many boards have their certificate. */
static size_t good_boards(const struct batch *b)
{
    return b->progress.done - b->progress.failed;
}

static void print_summary(const struct batch *b)
{
    size_t total = b->list.count, before = total - b->issued;
    if (b->json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "status", "OK");
        cJSON_AddNumberToObject(o, "boards", (double)total);
        cJSON_AddNumberToObject(o, "issued", (double)b->issued);
        cJSON_AddNumberToObject(o, "already", (double)before);
        cJSON_AddStringToObject(o, "results", b->results_path);
        json_print(o);
        cJSON_Delete(o);
        return;
    }
    printf("%zu board%s: each has its certificate", total, total == 1 ? "" : "s");
    if (before)
        printf(" (%zu had it before this run)", before);
    printf("\n  results %s\n", b->results_path);
}

static int conclude(const struct batch *b, struct failure *f)
{
    size_t failed = b->progress.failed;
    if (failed)
        return fail(f, b->refused ? EXIT_REFUSED : EXIT_LOCAL, "boards_failed",
                    "%zu of %zu boards %s no certificate, the other %zu have theirs; %s says why, "
                    "and the same command tries those again",
                    failed, b->list.count, failed == 1 ? "has" : "have", good_boards(b),
                    b->results_path);
    print_summary(b);
    return 0;
}

static int run(struct batch *b, unsigned jobs, struct failure *f)
{
    progress_begin(&b->progress, b->list.count, count_done(b));
    int rc = makers_open(&b->makers, jobs, make, b, f);
    if (rc == 0)
        rc = settle_all(b, f);
    makers_close(b->makers);
    progress_clear(&b->progress);
    return rc ? fail_add(f, "%zu of %zu boards have their certificate: the same command goes on",
                         good_boards(b), b->list.count)
              : conclude(b, f);
}

static int parse_jobs(unsigned *jobs, const char *text, struct failure *f)
{
    char *end;
    *jobs = makers_default();
    if (!text)
        return 0;
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > MAKERS_MAX)
        return fail(f, EXIT_USAGE, "usage", "--jobs \"%s\" is not a number from 1 to %d", text,
                    MAKERS_MAX);
    *jobs = (unsigned)n;
    return 0;
}

int cmd_batch(const struct options *o, struct failure *f)
{
    unsigned jobs = 0;
    struct batch b = {.path = o->operand, .json = o->json};
    if (!o->operand)
        return fail(f, EXIT_USAGE, "usage", "which boards? give a CSV file with a column mac");
    int rc = parse_jobs(&jobs, o->jobs, f);
    if (rc == 0)
        rc = session_open(&b.session, o, f);
    if (rc == 0)
        rc = board_settings(&b.board, &b.session, f);
    b.board.profile = o->profile ? o->profile : PROFILE_DEFAULT;
    if (rc == 0)
        rc = read_list(&b, f);
    if (rc == 0)
        rc = session_connect(&b.session, "operator", f);
    if (rc == 0)
        rc = name_results(&b, o->results, f);
    if (rc == 0)
        rc = results_open(&b.results, b.results_path, &b.list, b.board.profile, f);
    if (rc == 0)
        rc = run(&b, jobs, f);
    results_close(b.results);
    device_list_free(&b.list);
    session_close(&b.session);
    free(b.results_path);
    return rc;
}
