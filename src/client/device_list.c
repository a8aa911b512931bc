#include "client/device_list.h"

#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/csv_line.h"

#define LINE_MAX_BYTES 16384
#define COLUMNS_MAX 64

/* While the lines are read. */
struct reading {
    struct device_list *list;
    const char *what;
    bad_line_fn *bad;
    void *arg;
    unsigned line, bad_lines;
};

static int compare_macs(const void *a, const void *b)
{
    return strcmp(((const struct device *)a)->mac, ((const struct device *)b)->mac);
}

static int compare_ports(const void *a, const void *b)
{
    return strcmp(((const struct device *)a)->at, ((const struct device *)b)->at);
}

/* ---- the line that names the columns ---- */

static int refuse_doubled(const struct device_list *l, const char *what, struct failure *f)
{
    for (size_t i = 0; i < l->column_count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(csv_cell(l->columns, i), csv_cell(l->columns, j)) == 0)
                return fail(f, EXIT_USAGE, "usage", "%s names the column \"%s\" twice", what,
                            csv_cell(l->columns, i));
    return 0;
}

static size_t find_column(const struct device_list *l, const char *name)
{
    size_t i = 0;
    while (i < l->column_count && strcmp(csv_cell(l->columns, i), name) != 0)
        i++;
    return i;
}

static int check_columns(struct device_list *l, const char *what, struct failure *f)
{
    l->mac = find_column(l, "mac");
    l->port = find_column(l, "port");
    l->profile = find_column(l, "profile");
    if (l->mac == l->column_count && l->port == l->column_count)
        return fail(f, EXIT_USAGE, "usage",
                    "the first line of %s must name the columns, separated by commas, and one of "
                    "them must be mac or port",
                    what);
    if (find_column(l, "") < l->column_count)
        return fail(f, EXIT_USAGE, "usage", "the first line of %s has a column without a name",
                    what);
    return refuse_doubled(l, what, f);
}

static int read_columns(struct device_list *l, struct bytes *text, const char *what,
                        struct failure *f)
{
    struct buf cells = {0};
    struct bytes line = {0};
    int whole;
    if (text->len >= 3 && memcmp(text->data, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        *text = (struct bytes){text->data + 3, text->len - 3};
    const char *why = csv_next_line(text, &line, &whole) ? csv_split(&cells, &l->column_count, line)
                                                         : "it is empty";
    l->columns = (char *)cells.data;
    if (!why)
        why = !l->column_count                ? "it is empty"
              : l->column_count > COLUMNS_MAX ? "it has more than 64 columns"
              : line.len > LINE_MAX_BYTES     ? "it is longer than 16384 bytes"
                                              : NULL;
    if (why)
        return fail(f, EXIT_USAGE, "usage", "the first line of %s must name the columns: %s", what,
                    why);
    return check_columns(l, what, f);
}

/* ---- the boards ---- */

static void bad(struct reading *r, const char *why)
{
    r->bad_lines++;
    r->bad(r->arg, r->line, why);
}

static int is_token(const char *text)
{
    return strlen(text) <= 64 && text[strspn(text, "abcdefghijklmnopqrstuvwxyz"
                                                   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                   "0123456789._:@-")] == '\0';
}

/* The cell of a column that may be missing. */
static const char *cell_of(const struct device_list *l, const struct device *d, size_t column)
{
    return column < l->column_count ? csv_cell(d->cells, column) : "";
}

/* NULL, or what is wrong with it; why is room for that. */
static const char *check_board(struct device *d, const struct device_list *l, char why[512])
{
    struct err err;
    const char *mac = cell_of(l, d, l->mac);
    if (!*mac && *device_port(l, d))
        return NULL;
    if (!*mac && l->port < l->column_count)
        return "it names neither a MAC nor a port";
    if (mac_from_text(d->mac, mac, &err) == 0)
        return NULL;
    snprintf(why, 512, "%s", err.text);
    return why;
}

static const char *check_cells(struct device *d, const struct device_list *l, size_t count,
                               char why[512])
{
    if (count != l->column_count) {
        snprintf(why, 512, "it has %zu columns, the first line %zu", count, l->column_count);
        return why;
    }
    for (size_t i = 0; i < count; i++)
        if (strlen(csv_cell(d->cells, i)) > LABEL_MAX) {
            snprintf(why, 512, "its %.400s is longer than %d bytes", csv_cell(l->columns, i),
                     LABEL_MAX);
            return why;
        }
    if (!is_token(cell_of(l, d, l->profile)))
        return "a profile's name is at most 64 of letters, digits, . _ : @ -";
    return check_board(d, l, why);
}

/* The port's one name, if it is there now: /dev/serial/by-id and /dev/ttyUSB0 are the same. */
static char *port_itself(const char *port)
{
    char *path = realpath(port, NULL);
    return path ? path : strdup(port);
}

static struct device *found(struct device *const *node)
{
    return node ? *node : NULL;
}

/* NULL, or what is wrong with it; why is room for that. */
static const char *check_doubled(const struct device *d, const struct device_list *l, char why[512])
{
    const struct device *same_mac = *d->mac ? found(tfind(d, &l->by_mac, compare_macs)) : NULL;
    const struct device *same_port = d->at ? found(tfind(d, &l->by_port, compare_ports)) : NULL;
    if (!same_mac && !same_port)
        return NULL;
    snprintf(why, 512, "%.400s is on line %u already", same_mac ? d->mac : device_port(l, d),
             same_mac ? same_mac->line : same_port->line);
    return why;
}

static int add(struct device_list *l, struct device *d, struct failure *f)
{
    l->count++;
    l->ports += d->at != NULL;
    if ((*d->mac && !tsearch(d, &l->by_mac, compare_macs)) ||
        (d->at && !tsearch(d, &l->by_port, compare_ports)))
        return fail_memory(f);
    return 0;
}

static void forget(struct device *d)
{
    free(d->cells);
    free(d->at);
}

/* -1 only when there is no memory; a bad line is told and left out. */
static int read_line(struct reading *r, struct bytes line, struct failure *f)
{
    char text[512];
    size_t count = 0;
    struct buf cells = {0};
    struct device_list *l = r->list;
    struct device *d = &l->device[l->count];
    *d = (struct device){.line = r->line};
    const char *why = line.len > LINE_MAX_BYTES ? "it is longer than 16384 bytes"
                                                : csv_split(&cells, &count, line);
    d->cells = (char *)cells.data;
    if (!why)
        why = check_cells(d, l, count, text);
    if (!why && *device_port(l, d) && !(d->at = port_itself(device_port(l, d))))
        why = "no memory";
    if (!why)
        why = check_doubled(d, l, text);
    if (!why)
        return add(l, d, f);
    bad(r, why);
    forget(d);
    return 0;
}

static size_t count_lines(struct bytes text)
{
    size_t n = 1;
    for (size_t i = 0; i < text.len; i++)
        n += text.data[i] == '\n';
    return n;
}

static int read_lines(struct reading *r, struct bytes text, struct failure *f)
{
    struct bytes line;
    int whole;
    r->list->device = calloc(count_lines(text), sizeof *r->list->device);
    if (!r->list->device)
        return fail_memory(f);
    for (r->line = 2; csv_next_line(&text, &line, &whole); r->line++)
        if (line.len && read_line(r, line, f))
            return -1;
    return 0;
}

int device_list_parse(struct device_list *out, struct bytes text, const char *what,
                      bad_line_fn *told, void *arg, struct failure *f)
{
    struct reading r = {.list = out, .what = what, .bad = told, .arg = arg};
    if (read_columns(out, &text, what, f) || read_lines(&r, text, f))
        return -1;
    if (r.bad_lines)
        return fail(f, EXIT_USAGE, "usage",
                    "%u line%s of %s cannot be used; mend them and give the same command again: "
                    "nothing was sent",
                    r.bad_lines, r.bad_lines == 1 ? "" : "s", what);
    return out->count ? 0 : fail(f, EXIT_USAGE, "usage", "%s lists no boards", what);
}

static void keep(void *node)
{
    (void)node; /* the devices are the list's */
}

void device_list_free(struct device_list *l)
{
    tdestroy(l->by_mac, keep);
    tdestroy(l->by_port, keep);
    for (size_t i = 0; i < l->count; i++)
        forget(&l->device[i]);
    free(l->device);
    free(l->columns);
}

const char *device_port(const struct device_list *l, const struct device *d)
{
    return cell_of(l, d, l->port);
}

int device_names_mac(const struct device_list *l, const struct device *d)
{
    return *cell_of(l, d, l->mac) != '\0';
}

const char *device_profile(const struct device_list *l, const struct device *d,
                           const char *otherwise)
{
    const char *profile = cell_of(l, d, l->profile);
    return *profile ? profile : otherwise;
}

int device_list_is_label(const struct device_list *l, size_t column)
{
    return column != l->mac && column != l->port && column != l->profile;
}

struct device *device_list_find(const struct device_list *l, const char *mac)
{
    struct device key = {0};
    snprintf(key.mac, sizeof key.mac, "%s", mac);
    return found(tfind(&key, &l->by_mac, compare_macs));
}

struct device *device_list_find_port(const struct device_list *l, const char *port)
{
    struct device key = {.at = port_itself(port)};
    struct device *d = key.at ? found(tfind(&key, &l->by_port, compare_ports)) : NULL;
    free(key.at);
    return d;
}

int device_list_know(struct device_list *l, struct device *d, const char *mac, unsigned *line,
                     struct failure *f)
{
    const struct device *same = device_list_find(l, mac);
    *line = same && same != d ? same->line : 0;
    if (same)
        return 0;
    snprintf(d->mac, sizeof d->mac, "%s", mac);
    return tsearch(d, &l->by_mac, compare_macs) ? 0 : fail_memory(f);
}
