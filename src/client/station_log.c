#include "client/station_log.h"

#include <stdio.h>
#include <string.h>

#include "client/csv_line.h"

/* The first nine are those of a batch's results. */
enum {
    MAC,
    STATUS,
    PROFILE,
    SERIAL,
    NOT_BEFORE,
    NOT_AFTER,
    FOLDER,
    ERROR,
    MESSAGE,
    BEGAN,
    SECONDS,
    PORT,
    CHIP,
    COLUMNS
};
static const char *const columns[COLUMNS] = {
    [MAC] = "mac",       [STATUS] = "status",         [PROFILE] = "profile",
    [SERIAL] = "serial", [NOT_BEFORE] = "not_before", [NOT_AFTER] = "not_after",
    [FOLDER] = "folder", [ERROR] = "error",           [MESSAGE] = "message",
    [BEGAN] = "began",   [SECONDS] = "seconds",       [PORT] = "port",
    [CHIP] = "chip",
};

static const char *const statuses[] = {
    [PASSED] = "passed", [FAILED] = "failed", [SKIPPED] = "skipped"};

const char *outcome_word(enum outcome outcome)
{
    static const char *const words[] = {[PASSED] = "PASS", [FAILED] = "FAIL", [SKIPPED] = "SKIP"};
    return words[outcome];
}

static int add_line(struct buf *out, const char *const cells[COLUMNS])
{
    int rc = 0;
    for (int i = 0; rc == 0 && i < COLUMNS; i++)
        rc = csv_add(out, cells[i], i == COLUMNS - 1);
    return rc;
}

/* ---- opening ---- */

/* How much of it are whole lines of ours; 0: it is something else. */
static size_t whole_lines(struct bytes text, struct bytes head)
{
    struct bytes rest = text, line;
    size_t good = 0;
    int whole;
    while (csv_next_line(&rest, &line, &whole) && whole) {
        if (!good && !bytes_equal(line, head))
            return 0;
        good = text.len - rest.len;
    }
    return good;
}

static int go_on_with(struct csv_file *c, struct bytes text, struct bytes head, struct failure *f)
{
    size_t good = whole_lines(text, (struct bytes){head.data, head.len - 2});
    if (good == 0 && text.len)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "%s is not a station's results (its columns are others); it is never "
                    "overwritten: move it away, or give another --results",
                    c->path);
    if (good == 0)
        return csv_file_append(c, head, f);
    return good < text.len ? csv_file_replace(c, (struct bytes){text.data, good}, f) : 0;
}

int station_log_open(struct csv_file *c, const char *path, struct failure *f)
{
    struct buf text = {0}, head = {0};
    int rc = add_line(&head, columns) ? fail_memory(f) : csv_file_open(c, path, &text, f);
    if (rc == 0)
        rc = go_on_with(c, buf_view(&text), buf_view(&head), f);
    buf_free(&text);
    buf_free(&head);
    return rc;
}

/* ---- a board ---- */

int station_log_add(struct csv_file *c, const struct attempt *a, struct failure *f)
{
    const struct provisioned *d = &a->board.device;
    int passed = a->outcome == PASSED;
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%.1f", a->seconds);
    const char *cells[COLUMNS] = {[MAC] = a->board.mac,
                                  [STATUS] = statuses[a->outcome],
                                  [PROFILE] = a->profile,
                                  [SERIAL] = d->serial,
                                  [NOT_BEFORE] = d->not_before,
                                  [NOT_AFTER] = d->not_after,
                                  [FOLDER] = d->folder ? d->folder : "",
                                  [ERROR] = passed ? "" : a->why.code,
                                  [MESSAGE] = passed ? "" : a->why.text,
                                  [BEGAN] = a->began,
                                  [SECONDS] = seconds,
                                  [PORT] = a->port,
                                  [CHIP] = a->board.mark.chip};
    struct buf line = {0};
    int rc = add_line(&line, cells) ? fail_memory(f) : csv_file_append(c, buf_view(&line), f);
    buf_free(&line);
    return rc;
}

cJSON *attempt_json(const struct attempt *a)
{
    cJSON *o;
    if (a->outcome == PASSED) {
        o = flashed_json(&a->board);
    } else {
        o = failure_json(&a->why);
        if (*a->board.mac)
            cJSON_AddStringToObject(o, "mac", a->board.mac);
    }
    cJSON_AddStringToObject(o, "result", outcome_word(a->outcome));
    cJSON_AddStringToObject(o, "profile", a->profile);
    cJSON_AddStringToObject(o, "port", a->port);
    cJSON_AddStringToObject(o, "began", a->began);
    cJSON_AddNumberToObject(o, "seconds", a->seconds);
    return o;
}
