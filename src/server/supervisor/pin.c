#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "server/supervisor/supervisor.h"

int pin_get(struct secret **out, const struct config *config, struct err *err)
{
    char path[PATH_MAX];
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    if (config->pin_file)
        return secret_from_file(out, config->pin_file, err);
    if (credentials) {
        snprintf(path, sizeof path, "%s/pin", credentials);
        return secret_from_file(out, path, err);
    }
    if (isatty(STDIN_FILENO)) {
        snprintf(path, sizeof path, "PIN of token %s: ", config->token_label);
        return secret_from_prompt(out, path, err);
    }
    return err_set(err, ERR_internal,
                   "no PIN: set [token] pin_file, give the systemd credential \"pin\", or start on "
                   "a terminal");
}

static void path_of(char out[PATH_MAX], const struct config *config)
{
    snprintf(out, PATH_MAX, "%s/pin-refused", config->state);
}

int pin_was_refused(const struct config *config, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    path_of(path, config);
    if (lstat(path, &st) && errno == ENOENT)
        return 0; /* any other failure may hide it */
    return err_set(
        err, ERR_token_unavailable,
        "%s stands: the token refused the PIN before, and another wrong try may lock it. "
        "Correct the PIN, then run: signetctl pin retry",
        path);
}

int pin_record_refusal(const struct config *config, const char *detail, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    path_of(path, config);
    if (lstat(path, &st) == 0)
        return 0;
    struct bytes text = {(const uint8_t *)detail, strlen(detail)};
    return file_write(path, text, 0644, 1, err);
}

int pin_forget_refusal(const struct config *config, struct err *err)
{
    char path[PATH_MAX];
    path_of(path, config);
    if (unlink(path) && errno != ENOENT)
        return err_set(err, ERR_storage_unavailable, "%s: %s", path, strerror(errno));
    return 0;
}
