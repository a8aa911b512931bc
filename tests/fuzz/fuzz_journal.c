/* The journal, as signetctl audit reads it: the events of a store, and journal.log beside them. The
 * input's lines up to an empty one are the store's; those behind it are the file's (without an
 * empty one: the file has the same). Seeds: ../corpus/journal, of a server that ran. */
#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "server/ctl/audit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *next_line; /* of the store */
static char row_line[4096];

/* ---- what stands around it in signetctl ---- */

void finding(struct audit *a, enum area area, const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (area != AREA_JOURNAL)
        abort();
    a->findings[area]++;
}

void ctl_progress(struct ctl *c, const char *what, uint64_t done, uint64_t total)
{
    (void)c, (void)what, (void)done, (void)total;
}

static int by_serial(const void *left, const void *right)
{
    const struct fact *a = left, *b = right;
    if (a->serial_len != b->serial_len)
        return a->serial_len < b->serial_len ? -1 : 1;
    return memcmp(a->serial, b->serial, a->serial_len);
}

struct fact *fact_of(struct audit *a, struct bytes serial)
{
    struct fact *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    memcpy(f->serial, serial.data, serial.len);
    f->serial_len = serial.len;
    struct fact **found = tsearch(f, &a->facts, by_serial);
    if (!found)
        abort();
    if (*found != f)
        free(f);
    return *found;
}

/* The next line, numbered as it says unless that goes back. */
int tx_event_after(struct store_tx *tx, uint64_t seq, struct event_row *row)
{
    char *line = strsep(&next_line, "\n");
    (void)tx;
    if (!line || !*line)
        return 1;
    size_t len;
    const char *hash = strrchr(line, ' ');
    snprintf(row_line, sizeof row_line, "%s", line);
    *row = (struct event_row){.seq = strtoull(line, NULL, 10), .line = row_line};
    if (row->seq <= seq)
        row->seq = seq + 1;
    if (hash && strlen(hash) == 65 && hex_decode(row->hash, sizeof row->hash, &len, hash + 1))
        memset(row->hash, 0, sizeof row->hash);
    return 0;
}

/* ---- one input ---- */

static void check_fact(const void *node, VISIT visit, void *arg)
{
    const struct fact *f = *(struct fact *const *)node;
    (void)arg, (void)visit;
    if (f->state > STATE_ORPHAN || f->board > BOARD_VERIFIED || (f->anchored && !f->known))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct config config;
    static struct ctl ctl = {.config = &config};
    struct audit *a = calloc(1, sizeof *a);
    char *text = strndup((const char *)data, size);
    if (!a || !text)
        abort();
    const char *log = strstr(text, "\n\n");
    log = log ? log + 2 : text;
    config.state = (char *)fuzz_folder();
    fuzz_file("journal.log", (const uint8_t *)log, strlen(log));
    a->c = &ctl;
    a->projected = 3;
    a->crl.has_anchor = 1;
    a->crl.journal_seq = 3;
    next_line = text;
    if (audit_journal(a) && a->events == 0 && a->findings[AREA_JOURNAL] == 0)
        abort();
    twalk_r(a->facts, check_fact, NULL);
    tdestroy(a->facts, free);
    free(text);
    free(a);
    return 0;
}
