#include "folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES_MAX 16

static char folder[64];
static char paths[FILES_MAX][128];
static size_t count;

static void clean_up(void)
{
    for (size_t i = 0; i < count; i++)
        unlink(paths[i]);
    rmdir(folder);
}

/* In memory, where there is such a place: it is written for each input. */
const char *fuzz_folder(void)
{
    if (*folder)
        return folder;
    snprintf(folder, sizeof folder, "%s/signet-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(folder) || atexit(clean_up))
        abort();
    return folder;
}

static void remember(const char *path)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(paths[i], path) == 0)
            return;
    if (count == FILES_MAX)
        abort();
    snprintf(paths[count++], sizeof paths[0], "%s", path);
}

void fuzz_file(const char *name, const uint8_t *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    remember(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd))
        abort();
}
