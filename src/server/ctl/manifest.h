/* What a backup folder holds, and its SHA256SUMS, in the form that sha256sum -c reads. */
#ifndef SIGNET_MANIFEST_H
#define SIGNET_MANIFEST_H

#include "common/err.h"

/* Lists every known file that is in the folder. */
int manifest_write(const char *folder, struct err *err) __attribute__((warn_unused_result));
/* Every listed file is known, there and unchanged; nothing that is needed is missing. */
int manifest_check(const char *folder, struct err *err) __attribute__((warn_unused_result));
/* Every known file and the folder: gone. For what was not finished. */
void manifest_remove(const char *folder);

/* fsync of a file or folder. */
int sync_path(const char *path, struct err *err) __attribute__((warn_unused_result));

#endif
