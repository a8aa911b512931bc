#include "client/outlook.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/settings.h"
#include "common/file.h"

static int http_status(const char *code)
{
    for (int i = 1; i < ERR_COUNT; i++)
        if (strcmp(err_name((enum err_code)i), code) == 0)
            return err_http_status((enum err_code)i);
    return 0;
}

int is_passing(const struct failure *f)
{
    int status = f->exit == EXIT_REFUSED ? http_status(f->code) : 0;
    return f->exit == EXIT_UNREACHABLE || status == 503 || status == 429;
}

/* A full or read-only disk does not get better with the next board. */
static int can_write(const char *folder)
{
    static const uint8_t nothing[65536];
    char *path = path_join(folder, ".signet-batch");
    struct err err;
    int good =
        path && file_write(path, (struct bytes){nothing, sizeof nothing}, 0600, 1, &err) == 0;
    if (good)
        unlink(path);
    free(path);
    return good;
}

int concerns_all(const struct failure *f, const char *out)
{
    switch (f->exit) {
    case EXIT_REFUSED:
        return is_passing(f) || http_status(f->code) == 401 || http_status(f->code) == 0 ||
               strcmp(f->code, "role_refused") == 0;
    case EXIT_LOCAL:
        return strcmp(f->code, "local_file") == 0 && !can_write(out);
    default: /* interrupted, or a server that is not to be believed */
        return 1;
    }
}
