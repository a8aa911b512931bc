/* A CSV file that grows line by line, each on the disk before the next. One process at a time. */
#ifndef SIGNET_CLIENT_CSV_FILE_H
#define SIGNET_CLIENT_CSV_FILE_H

#include <sys/types.h>
#include "client/failure.h"
#include "common/bytes.h"

#define CSV_FILE_SIZE_MAX ((size_t)512 * 1024 * 1024)

struct csv_file {
    const char *path;
    int fd; /* locked; -1: not open */
    off_t size;
};

/* Made when it is not there; *text (starts {0}, the caller's) gets what it holds. The path is
 * borrowed. csv_file_close() also after a failure. */
int csv_file_open(struct csv_file *c, const char *path, struct buf *text, struct failure *f)
    __attribute__((warn_unused_result));
void csv_file_close(struct csv_file *c);

/* All of it anew, atomically. */
int csv_file_replace(struct csv_file *c, struct bytes text, struct failure *f)
    __attribute__((warn_unused_result));

/* Whole lines at the end: all of them or, after a failure, nothing. */
int csv_file_append(struct csv_file *c, struct bytes lines, struct failure *f)
    __attribute__((warn_unused_result));

#endif
