#include "client/results.h"

#include <stdlib.h>
#include <string.h>

#include "client/csv_file.h"
#include "client/csv_line.h"

#define ISSUED "issued"
#define FAILED "failed"
#define VERIFIED "verified"

/* PORT and BOARD are there when the list has ports. The labels follow. */
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
    PORT,
    BOARD,
    COLUMNS
};
static const char *const columns[COLUMNS] = {[MAC] = "mac",
                                             [STATUS] = "status",
                                             [PROFILE] = "profile",
                                             [SERIAL] = "serial",
                                             [NOT_BEFORE] = "not_before",
                                             [NOT_AFTER] = "not_after",
                                             [FOLDER] = "folder",
                                             [ERROR] = "error",
                                             [MESSAGE] = "message",
                                             [PORT] = "port",
                                             [BOARD] = "board"};

struct results {
    struct csv_file file;
    const char *profile;
    int flash;
    struct device_list *list;
    char *done; /* one for each board */
};

/* ---- lines ---- */

static int own_columns(const struct device_list *l)
{
    return l->port < l->column_count ? COLUMNS : PORT;
}

static int add_line(struct buf *out, const char *const own[COLUMNS], const struct device_list *l,
                    const char *cells)
{
    int count = own_columns(l);
    size_t last = l->column_count;
    for (size_t i = 0; i < l->column_count; i++)
        if (device_list_is_label(l, i))
            last = i;
    int rc = 0;
    for (int i = 0; rc == 0 && i < count; i++)
        rc = csv_add(out, own[i], i == count - 1 && last == l->column_count);
    for (size_t i = 0; rc == 0 && i < l->column_count; i++)
        if (device_list_is_label(l, i))
            rc = csv_add(out, csv_cell(cells, i), i == last);
    return rc;
}

static int check_labels(const struct device_list *l, struct failure *f)
{
    for (size_t i = 0; i < l->column_count; i++)
        for (int j = 0; device_list_is_label(l, i) && j < own_columns(l); j++)
            if (strcmp(csv_cell(l->columns, i), columns[j]) == 0)
                return fail(f, EXIT_USAGE, "usage",
                            "the column \"%s\" is one of the results'; give it another name",
                            columns[j]);
    return 0;
}

/* ---- a file from before ---- */

static int is_foreign(const struct results *r, struct failure *f)
{
    return fail(f, EXIT_LOCAL, "already_exists",
                "%s is not the results of this batch (its columns are others); it is never "
                "overwritten: move it away, or give another --results",
                r->file.path);
}

/* A line that names only a port is that of the board which was done there. */
static struct device *whose(const struct results *r, const char *text)
{
    struct device *d = device_list_find(r->list, csv_cell(text, MAC));
    if (d || own_columns(r->list) == PORT)
        return d;
    d = device_list_find_port(r->list, csv_cell(text, PORT));
    return d && !*d->mac ? d : NULL;
}

/* Is this board, which has its certificate, to be flashed yet? */
static int is_unflashed(const struct results *r, const struct device *d, const char *text)
{
    return d && d->at && r->flash && strcmp(csv_cell(text, BOARD), VERIFIED) != 0;
}

static int mark_done(struct results *r, struct device *d, const char *text)
{
    struct failure f;
    unsigned other;
    if (!d || strcmp(device_profile(r->list, d, r->profile), csv_cell(text, PROFILE)) != 0)
        return 0;
    r->done[d - r->list->device] = 1;
    return device_list_know(r->list, d, csv_cell(text, MAC), &other, &f);
}

/* Keeps the line when that board is done; -1: it is no line of ours. */
static int take_line(struct results *r, struct buf *kept, struct bytes line, size_t count)
{
    struct buf cells = {0};
    size_t n = 0;
    int rc = csv_split(&cells, &n, line) || n != count ? -1 : 0;
    const char *text = (const char *)cells.data;
    if (rc == 0 && strcmp(csv_cell(text, STATUS), ISSUED) == 0) {
        struct device *d = whose(r, text);
        if (!is_unflashed(r, d, text))
            rc = mark_done(r, d, text) || buf_add(kept, line.data, line.len) ||
                         buf_add(kept, "\r\n", 2)
                     ? -1
                     : 0;
    }
    buf_free(&cells);
    return rc;
}

/* What is kept of a file from before: at least the line that names the columns. */
static int sift(struct results *r, struct buf *kept, struct bytes text, struct failure *f)
{
    struct bytes line, head;
    size_t labels = 0;
    int whole;
    for (size_t i = 0; i < r->list->column_count; i++)
        labels += (size_t)device_list_is_label(r->list, i);
    if (add_line(kept, columns, r->list, r->list->columns))
        return fail_memory(f);
    head = (struct bytes){kept->data, kept->len - 2};
    if (csv_next_line(&text, &line, &whole) && !(whole && bytes_equal(line, head)))
        return is_foreign(r, f);
    while (csv_next_line(&text, &line, &whole))
        if (whole && take_line(r, kept, line, (size_t)own_columns(r->list) + labels))
            return is_foreign(r, f);
    return 0;
}

/* ---- opening ---- */

static int go_on_with(struct results *r, const char *path, struct failure *f)
{
    struct buf text = {0}, kept = {0};
    int rc = csv_file_open(&r->file, path, &text, f);
    if (rc == 0)
        rc = sift(r, &kept, buf_view(&text), f);
    if (rc == 0 && !bytes_equal(buf_view(&text), buf_view(&kept)))
        rc = csv_file_replace(&r->file, buf_view(&kept), f);
    buf_free(&text);
    buf_free(&kept);
    return rc;
}

int results_open(struct results **out, const char *path, struct device_list *list,
                 const char *profile, int flash, struct failure *f)
{
    if (check_labels(list, f))
        return -1;
    struct results *r = calloc(1, sizeof *r);
    if (!r)
        return fail_memory(f);
    *r = (struct results){.file = {.fd = -1}, .profile = profile, .flash = flash, .list = list};
    r->done = calloc(list->count, 1);
    if (!r->done ? fail_memory(f) : go_on_with(r, path, f)) {
        results_close(r);
        return -1;
    }
    *out = r;
    return 0;
}

void results_close(struct results *r)
{
    if (!r)
        return;
    csv_file_close(&r->file);
    free(r->done);
    free(r);
}

int results_is_done(const struct results *r, size_t index)
{
    return r->done[index];
}

/* ---- a board more ---- */

int results_add(struct results *r, size_t index, const struct result *result, struct failure *f)
{
    const struct device *d = &r->list->device[index];
    const struct provisioned *p = result->device;
    const struct failure *why = result->why;
    const char *own[COLUMNS] = {[MAC] = result->mac,
                                [STATUS] = why ? FAILED : ISSUED,
                                [PROFILE] = device_profile(r->list, d, r->profile),
                                [SERIAL] = p ? p->serial : "",
                                [NOT_BEFORE] = p ? p->not_before : "",
                                [NOT_AFTER] = p ? p->not_after : "",
                                [FOLDER] = p ? p->folder : "",
                                [ERROR] = why ? why->code : "",
                                [MESSAGE] = why ? why->text : "",
                                [PORT] = device_port(r->list, d),
                                [BOARD] = result->board};
    struct buf line = {0};
    int rc = add_line(&line, own, r->list, d->cells)
                 ? fail_memory(f)
                 : csv_file_append(&r->file, buf_view(&line), f);
    buf_free(&line);
    return rc;
}
