/* Files, whole and durable. Paths in errors; the next step where one is known. */
#ifndef SIGNET_FILE_H
#define SIGNET_FILE_H

#include <sys/types.h>
#include "common/bytes.h"
#include "common/err.h"

/* Reads a whole regular file of at most max bytes; a NUL is put behind and not counted.
 * After a failure out is empty. */
int file_read(struct buf *out, const char *path, size_t max, struct err *err)
    __attribute__((warn_unused_result));

/* Writes path by a temporary name in the same folder, fsync, rename, fsync of the folder.
 * replace 0: fails (and leaves everything as it was) when path exists. */
int file_write(const char *path, struct bytes data, mode_t mode, int replace, struct err *err)
    __attribute__((warn_unused_result));

/* fsync of the folder that path is in: a name made or changed there is durable. */
int file_sync_parent(const char *path, struct err *err) __attribute__((warn_unused_result));

/* Takes away what file_write() leaves of these names (up to a NULL) when it is killed, such as
 * "device.key.tmp-a1B2c3". Only where nobody else is at work. */
void file_sweep(const char *folder, const char *const *names);

/* A sealed copy in memory of an open file, from its start, of the same date, with the copy's
 * SHA-256 and size: what happens to the file afterwards changes it no more. The descriptor, or -1
 * with err set. */
int file_sealed_copy(int file, uint8_t digest[32], uint64_t *size, struct err *err)
    __attribute__((warn_unused_result));

/* mkdir -p with mode for what is made, which is durable then; 0 when it is there already as a
 * directory. */
int file_make_dir(const char *path, mode_t mode, struct err *err)
    __attribute__((warn_unused_result));

#endif
