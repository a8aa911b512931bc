/* signet batch: all boards of a file.
 *
 * Keys take long and come from processes of their own (makers.h); this one asks for the
 * certificates, one after the other on one connection, and keeps the results. Whatever ends it, the
 * next run finds each board in one of four states: nothing there; key and request in its pending
 * folder (the same request gets the same certificate); folder complete but not in the results (the
 * server is asked whether that is its certificate); in the results, and so done.
 *
 * Boards at a port come one after the other in between, from their MAC to the verified flash, all
 * in this process: the port names no board, so each is asked who it is before anything is done for
 * it, also when the line is done: then another board there is left alone, and said. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/adopt.h"
#include "client/answer.h"
#include "client/commands.h"
#include "client/csv_line.h"
#include "client/interrupt.h"
#include "client/makers.h"
#include "client/notice.h"
#include "client/outlook.h"
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
    struct board board;     /* what holds for all */
    struct flash_plan plan; /* for the boards at a port */
    int flash;
    struct device_list list;
    struct results *results;
    struct makers *makers;
    struct progress progress;
    size_t next, next_port; /* the first board that no maker was given; the first not looked at */
    size_t issued, refused; /* in this run */
};

/* The certificate of one board, asked for or found; and that board flashed. */
typedef int obtain_fn(struct flashed *out, struct batch *b, const struct board *board,
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

static void tell_bad_line(void *arg, unsigned line, const char *why)
{
    const struct batch *b = arg;
    struct failure f = {0};
    fail(&f, EXIT_USAGE, "usage", "%s", why);
    if (b->json) {
        cJSON *o = failure_json(&f);
        cJSON_AddNumberToObject(o, "line", line);
        json_print(o);
        cJSON_Delete(o);
    }
    fprintf(stderr, "signet: %s:%u: %s\n", b->path, line, f.text);
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

/* A board at a port is named by it. */
static void add_line(cJSON *o, const struct batch *b, const struct device *d)
{
    cJSON_AddNumberToObject(o, "line", d->line);
    if (d->at)
        cJSON_AddStringToObject(o, "port", device_port(&b->list, d));
}

static void print_good(const struct batch *b, const struct device *d, const struct flashed *got)
{
    cJSON *o = b->flash && d->at ? flashed_json(got) : provisioned_json(&got->device);
    add_line(o, b, d);
    cJSON_AddBoolToObject(o, "already", got->already);
    cJSON_AddStringToObject(o, "profile", device_profile(&b->list, d, b->board.profile));
    add_labels(o, b, d);
    json_print(o);
    cJSON_Delete(o);
}

static void print_failed(const struct batch *b, const struct device *d, const char *mac,
                         const struct failure *why)
{
    if (b->json) {
        cJSON *o = failure_json(why);
        add_line(o, b, d);
        if (*mac)
            cJSON_AddStringToObject(o, "mac", mac);
        json_print(o);
        cJSON_Delete(o);
    }
    struct failure named = *why;
    fail_at(&named, d->at ? device_port(&b->list, d) : mac);
    fprintf(stderr, "signet: %s:%u: %s\n", b->path, d->line, named.text);
}

/* What standard output leads to holds the line, as the results do. */
static int sync_output(struct failure *f)
{
    if (fflush(stdout) == 0 && (fdatasync(STDOUT_FILENO) == 0 || errno == EINVAL || errno == EROFS))
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot write to standard output: %s",
                strerror(errno));
}

/* What became of a board that has its certificate. */
static const char *board_state(const struct flashed *got)
{
    static const char *const states[] = {
        [STEP_NONE] = "issued", [STEP_FLASHED] = "flashed", [STEP_VERIFIED] = "verified"};
    return *got->device.serial ? states[got->mark.done] : "";
}

static int keep_result(struct batch *b, size_t index, const char *mac, const struct flashed *got,
                       const struct failure *why, struct failure *f)
{
    struct result result = {.mac = mac,
                            .device = *got->device.serial ? &got->device : NULL,
                            .board = board_state(got),
                            .why = why};
    return results_add(b->results, index, &result, f);
}

static int settle_good(struct batch *b, size_t index, const struct flashed *got, struct failure *f)
{
    if (keep_result(b, index, got->device.mac, got, NULL, f))
        return -1;
    if (b->json)
        print_good(b, &b->list.device[index], got);
    b->issued += !got->already;
    progress_step(&b->progress, 0);
    return sync_output(f);
}

static int settle_failed(struct batch *b, size_t index, const char *mac, const struct flashed *got,
                         const struct failure *why, struct failure *f)
{
    if (keep_result(b, index, mac, got, why, f))
        return -1;
    progress_clear(&b->progress);
    print_failed(b, &b->list.device[index], mac, why);
    b->refused += why->exit == EXIT_REFUSED;
    progress_step(&b->progress, 1);
    return sync_output(f);
}

/* ---- one board ---- */

static int ask(struct flashed *out, struct batch *b, const struct board *board, struct failure *f)
{
    return provision(&out->device, &b->session, board, f);
}

static int find(struct flashed *out, struct batch *b, const struct board *board, struct failure *f)
{
    return adopt(out, &b->session, board, f);
}

/* Its certificate is looked at before it is flashed, so that no other one gets to the board. */
static int ask_at_port(struct flashed *out, struct batch *b, const struct board *board,
                       struct failure *f)
{
    int there = is_provisioned(board);
    if (there && find(out, b, board, f))
        return out->mark.done == STEP_VERIFIED && is_passing(f)
                   ? fail_add(f, "the board %s is flashed and verified", board->mac)
                   : -1;
    if (!b->flash)
        return there ? 0 : ask(out, b, board, f);
    flashed_free(out);
    if (flash_board(out, &b->session, board, &b->plan, f) == 0)
        return 0;
    out->already = strcmp(f->code, "already_flashed") == 0;
    return out->already ? 0 : -1;
}

/* Tries again while the server is away, but not for ever. */
static int until_answered(struct flashed *out, struct batch *b, const struct board *board,
                          obtain_fn *obtain, struct failure *f)
{
    int64_t until = now_ms() + 2 * b->session.settings.timeout_ms;
    for (long pause = 250;; pause = pause * 2 < BACKOFF_MAX_MS ? pause * 2 : BACKOFF_MAX_MS) {
        if (obtain(out, b, board, f) == 0)
            return 0;
        if (!is_passing(f) || now_ms() + pause >= until)
            return -1;
        flashed_free(out);
        *out = (struct flashed){0};
        progress_show(&b->progress);
        if (interrupt_sleep(pause))
            return fail_interrupted(f);
    }
}

/* A refusal is this board's own when it has its certificate: it was of the report. */
static int ends_all(const struct batch *b, const struct flashed *got, const struct failure *why)
{
    int own = *got->device.serial && why->exit == EXIT_REFUSED && !is_passing(why);
    return !own && concerns_all(why, b->board.out);
}

/* -1 only when the whole batch cannot go on. */
static int settle(struct batch *b, size_t index, const char *mac, const struct flashed *got,
                  const struct failure *why, struct failure *f)
{
    if (!why)
        return settle_good(b, index, got, f);
    if (!ends_all(b, got, why))
        return settle_failed(b, index, mac, got, why, f);
    *f = *why;
    return -1;
}

static int settle_made(struct batch *b, const struct made *m, struct failure *f)
{
    struct flashed got = {0};
    struct failure why = m->failure;
    struct board board = board_at(b, m->index);
    int found = m->rc && strcmp(why.code, "already_exists") == 0, rc = m->rc;
    if (rc == 0 || found)
        rc = until_answered(&got, b, &board, found ? find : ask, &why);
    got.device.resumed = m->resumed;
    rc = settle(b, m->index, board.mac, &got, rc ? &why : NULL, f);
    flashed_free(&got);
    return rc;
}

/* ---- one board at a port ---- */

/* Is this line done by what the results say of the board that was at its port? Then another one may
 * be there by now. */
static int is_done_by_port(const struct batch *b, size_t index)
{
    return results_is_done(b->results, index) &&
           !device_names_mac(&b->list, &b->list.device[index]);
}

static int check_not_doubled(struct batch *b, struct device *d, const char *mac, struct failure *f)
{
    unsigned line = 0;
    if (device_list_know(&b->list, d, mac, &line, f))
        return -1;
    return !line ? 0
                 : fail(f, EXIT_LOCAL, "mac_doubled",
                        "the board at %s is %s, which is that of line %u: nothing was done with it",
                        b->plan.port, mac, line);
}

static int check_still_there(const struct batch *b, const struct device *d, const char *mac,
                             struct failure *f)
{
    if (strcmp(d->mac, mac) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "other_board",
                "the board at %s is %s now, but %s was done there: nothing was done with it; "
                "another --results begins anew, with the boards that are there then",
                b->plan.port, mac, d->mac);
}

static int do_at_port(struct flashed *got, char mac[MAC_TEXT_SIZE], struct batch *b, size_t index,
                      struct failure *f)
{
    struct device *d = &b->list.device[index];
    if (flash_identify(mac, &b->plan, f))
        return -1;
    if (!*d->mac && check_not_doubled(b, d, mac, f))
        return -1;
    struct board board = board_at(b, index);
    return until_answered(got, b, &board, ask_at_port, f);
}

static int settle_port(struct batch *b, size_t index, struct failure *f)
{
    const struct device *d = &b->list.device[index];
    char mac[MAC_TEXT_SIZE];
    struct flashed got = {0};
    struct failure why = {0};
    memcpy(mac, d->mac, sizeof mac);
    int rc = do_at_port(&got, mac, b, index, &why);
    rc = settle(b, index, mac, &got, rc ? &why : NULL, f);
    flashed_free(&got);
    return rc;
}

/* It stays done when nobody answers: who was done may be taken off. */
static int settle_done_port(struct batch *b, size_t index, struct failure *f)
{
    const struct device *d = &b->list.device[index];
    char mac[MAC_TEXT_SIZE] = "";
    struct flashed nothing = {0};
    struct failure why = {0};
    int unknown = flash_identify(mac, &b->plan, &why);
    if (!unknown && check_still_there(b, d, mac, &why))
        return settle_failed(b, index, mac, &nothing, &why, f);
    if (unknown && interrupted())
        return fail_interrupted(f);
    if (unknown) {
        progress_clear(&b->progress);
        fprintf(stderr,
                "signet: %s:%u: %s was done at %s, which board is there now is not known: %s\n",
                b->path, d->line, d->mac, b->plan.port, why.text);
    }
    progress_step(&b->progress, 0);
    return 0;
}

/* ---- all of them ---- */

/* Done before, with nothing left to be looked at. */
static int is_settled(const struct batch *b, size_t index)
{
    return results_is_done(b->results, index) && !is_done_by_port(b, index);
}

static void give(struct batch *b)
{
    while (b->next < b->list.count && (is_settled(b, b->next) || b->list.device[b->next].at ||
                                       makers_give(b->makers, (uint32_t)b->next)))
        b->next++;
}

/* Is there a board at a port left? It is next_port then. */
static int has_port(struct batch *b)
{
    while (b->next_port < b->list.count &&
           (is_settled(b, b->next_port) || !b->list.device[b->next_port].at))
        b->next_port++;
    return b->next_port < b->list.count;
}

static int settle_next_port(struct batch *b, struct failure *f)
{
    size_t index = b->next_port++;
    b->plan.port = device_port(&b->list, &b->list.device[index]);
    return is_done_by_port(b, index) ? settle_done_port(b, index, f) : settle_port(b, index, f);
}

/* Keys are made while a board is at work: what is made by then comes before the next board. */
static int settle_all(struct batch *b, struct failure *f)
{
    struct made m;
    while (b->progress.done < b->list.count) {
        if (interrupted())
            return fail_interrupted(f);
        give(b);
        progress_show(&b->progress);
        int port = has_port(b);
        int got = makers_wait(b->makers, port ? 0 : TICK_MS, &m, f);
        if (got < 0 || (got > 0 && settle_made(b, &m, f)) ||
            (got == 0 && port && settle_next_port(b, f)))
            return -1;
    }
    return 0;
}

static size_t count_settled(const struct batch *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->list.count; i++)
        n += is_settled(b, i) != 0;
    return n;
}

/* How many boards are done. */
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
        if (b->flash)
            cJSON_AddNumberToObject(o, "verified", (double)b->list.ports);
        cJSON_AddStringToObject(o, "results", b->results_path);
        json_print(o);
        cJSON_Delete(o);
        return;
    }
    printf("%zu board%s: each has its certificate", total, total == 1 ? "" : "s");
    if (b->flash)
        printf(", %zu at ports flashed and verified", b->list.ports);
    if (before)
        printf(" (%zu done before this run)", before);
    printf("\n  results %s\n", b->results_path);
}

static int conclude(const struct batch *b, struct failure *f)
{
    size_t failed = b->progress.failed;
    if (failed)
        return fail(f, b->refused ? EXIT_REFUSED : EXIT_LOCAL, "boards_failed",
                    "%zu of %zu boards failed, %zu done; %s says why, and the same "
                    "command tries those again",
                    failed, b->list.count, good_boards(b), b->results_path);
    print_summary(b);
    return 0;
}

static int run(struct batch *b, unsigned jobs, struct failure *f)
{
    progress_begin(&b->progress, b->list.count, count_settled(b));
    int rc = makers_open(&b->makers, jobs, make, b, f);
    if (rc == 0)
        rc = settle_all(b, f);
    makers_close(b->makers);
    progress_clear(&b->progress);
    if (rc && f->exit > EXIT_SIGNAL)
        fail_interrupted(f); /* of all of it, not of the one board it was at */
    return rc ? fail_add(f, "%zu of %zu boards are done: the same command goes on", good_boards(b),
                         b->list.count)
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

/* The list, and what is to be written to boards at a port. */
static int prepare(struct batch *b, const struct options *o, struct failure *f)
{
    int rc = read_list(b, f);
    if (rc == 0 && b->flash && !b->list.ports)
        rc = fail(f, EXIT_USAGE, "usage", "--flash: no line of %s names a port", b->path);
    if (rc == 0)
        rc = flash_plan_take(&b->plan, o, &b->session.settings, f);
    b->plan.once = 1;
    return rc || !b->list.ports ? rc : flash_plan_check(&b->plan, f);
}

int cmd_batch(const struct options *o, struct failure *f)
{
    unsigned jobs = 0;
    struct batch b = {.path = o->operand, .json = o->json, .flash = o->flash};
    if (!o->operand)
        return fail(f, EXIT_USAGE, "usage",
                    "which boards? give a CSV file with a column mac or port");
    if (flash_usage(o, f))
        return -1;
    int rc = parse_jobs(&jobs, o->jobs, f);
    if (rc == 0)
        rc = session_open(&b.session, o, f);
    if (rc == 0)
        rc = board_settings(&b.board, &b.session, f);
    b.board.profile = o->profile ? o->profile : PROFILE_DEFAULT;
    if (rc == 0)
        rc = prepare(&b, o, f);
    if (rc == 0)
        rc = session_connect(&b.session, "operator", f);
    if (rc == 0)
        rc = name_results(&b, o->results, f);
    if (rc == 0)
        rc = results_open(&b.results, b.results_path, &b.list, b.board.profile, b.flash, f);
    if (rc == 0)
        rc = run(&b, jobs, f);
    results_close(b.results);
    device_list_free(&b.list);
    session_close(&b.session);
    free(b.results_path);
    return rc;
}
