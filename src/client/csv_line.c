#include "client/csv_line.h"

#include <csv.h>
#include <stdlib.h>
#include <string.h>

struct fields {
    struct buf *cells;
    size_t count;
    int failed;
};

static void take_field(void *text, size_t len, void *arg)
{
    struct fields *f = arg;
    f->count++;
    if (buf_add(f->cells, text, len) || buf_add(f->cells, "", 1))
        f->failed = 1;
}

static void take_row(int end, void *arg)
{
    (void)end, (void)arg;
}

/* White space belongs to the field (RFC 4180 section 2, 4). */
static int is_space(unsigned char c)
{
    (void)c;
    return 0;
}

/* How many bytes it has, if there is one: U+0080 to U+009F move a terminal's cursor as well. */
static size_t control_at(struct bytes text, size_t i)
{
    if (text.data[i] < ' ' || text.data[i] == 0x7f)
        return 1;
    return text.data[i] == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0 ? 2 : 0;
}

static const char *check_characters(struct bytes line)
{
    if (memchr(line.data, '\0', line.len))
        return "it holds a NUL character";
    if (!utf8_valid(line))
        return "it is not UTF-8; save the file as UTF-8";
    for (size_t i = 0; i < line.len; i++)
        if (control_at(line, i))
            return "it holds a control character";
    return NULL;
}

const char *csv_split(struct buf *cells, size_t *count, struct bytes line)
{
    struct csv_parser parser;
    struct fields f = {.cells = cells};
    const char *why = check_characters(line);
    if (why)
        return why;
    if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI))
        return "no memory";
    csv_set_space_func(&parser, is_space);
    int good = csv_parse(&parser, line.data, line.len, take_field, take_row, &f) == line.len &&
               csv_fini(&parser, take_field, take_row, &f) == 0;
    csv_free(&parser);
    *count = f.count;
    if (!good)
        return "its quotes are not those of CSV (RFC 4180), or do not end on this line";
    return f.failed ? "no memory" : NULL;
}

const char *csv_cell(const char *cells, size_t index)
{
    while (index--)
        cells += strlen(cells) + 1;
    return cells;
}

static int add_quoted(struct buf *out, const char *field, size_t len)
{
    size_t size = csv_write(NULL, 0, field, len);
    char *text = malloc(size);
    if (!text)
        return -1;
    csv_write(text, size, field, len);
    int rc = buf_add(out, text, size);
    free(text);
    return rc;
}

static void make_readable(uint8_t *text, size_t len)
{
    int ascii_only = !utf8_valid((struct bytes){text, len});
    for (size_t i = 0; i < len; i++)
        if (ascii_only && text[i] > 0x7f)
            text[i] = '?';
        else
            memset(text + i, '?', control_at((struct bytes){text, len}, i));
}

int csv_add(struct buf *out, const char *field, int last)
{
    size_t len = strlen(field), from = out->len;
    int quote = strpbrk(field, ",\"") || *field == ' ' || (len && field[len - 1] == ' ');
    if (quote ? add_quoted(out, field, len) : buf_add(out, field, len))
        return -1;
    if (len) /* otherwise there may be no data at all */
        make_readable(out->data + from, out->len - from);
    return last ? buf_add(out, "\r\n", 2) : buf_add(out, ",", 1);
}

int csv_next_line(struct bytes *text, struct bytes *line, int *whole)
{
    if (!text->len)
        return 0;
    const uint8_t *end = memchr(text->data, '\n', text->len);
    *whole = end != NULL;
    *line = (struct bytes){text->data, end ? (size_t)(end - text->data) : text->len};
    size_t taken = line->len + (end != NULL);
    *text = (struct bytes){text->data + taken, text->len - taken};
    if (line->len && line->data[line->len - 1] == '\r')
        line->len--;
    return 1;
}
