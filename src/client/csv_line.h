/* One record of CSV (RFC 4180) on one line, read and written. libcsv does the quoting; stricter
 * than RFC 4180 in one point: a field holds no line break, so that a record is a line. */
#ifndef SIGNET_CLIENT_CSV_LINE_H
#define SIGNET_CLIENT_CSV_LINE_H

#include "common/bytes.h"

/* *cells gets the fields one behind the other, each with its NUL, *count how many; buf_free().
 * line: without its end. NULL, or what is wrong with it. */
const char *csv_split(struct buf *cells, size_t *count, struct bytes line)
    __attribute__((warn_unused_result));

/* The field at index of such cells. */
const char *csv_cell(const char *cells, size_t index);

/* Adds one field, quoted where it must be, and ',' or, behind the last one, the line's end. What
 * csv_split() would not take becomes '?'. 0, or -1: no memory. */
int csv_add(struct buf *out, const char *field, int last) __attribute__((warn_unused_result));

/* The next line of a text, without its end (LF or CRLF), and takes it away from the text; *whole:
 * it had an end. 0: there is none. */
int csv_next_line(struct bytes *text, struct bytes *line, int *whole);

#endif
