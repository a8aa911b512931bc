#include "client/device_mark.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/settings.h"
#include "common/file.h"

#define MARK_MAX 4096

static const char *const steps[] = {"nothing", "flashed", "verified"};

static int take_step(enum board_step *out, const cJSON *o, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));
    for (int i = STEP_NONE; text && i <= STEP_VERIFIED; i++)
        if (strcmp(text, steps[i]) == 0) {
            *out = (enum board_step)i;
            return 0;
        }
    return -1;
}

static int is_true(const cJSON *o, const char *name)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, name));
}

static void take_text(char *out, size_t size, const cJSON *o, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));
    printable(out, size, text ? text : "");
}

static uint32_t take_number(const cJSON *o, const char *name)
{
    double n = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(o, name));
    return n >= 0 && n <= UINT32_MAX ? (uint32_t)n : 0;
}

static int take(struct board_mark *m, const cJSON *o)
{
    m->replacing = is_true(o, "replacing");
    m->keep_key = is_true(o, "keep_key");
    take_text(m->serial, sizeof m->serial, o, "serial");
    take_text(m->since, sizeof m->since, o, "since");
    take_text(m->chip, sizeof m->chip, o, "chip");
    take_text(m->partition, sizeof m->partition, o, "partition");
    m->offset = take_number(o, "offset");
    m->size = take_number(o, "size");
    return take_step(&m->done, o, "board") || take_step(&m->told, o, "server_told") ? -1 : 0;
}

int board_mark_load(struct board_mark *m, const char *folder, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    char *path = path_join(folder, DEVICE_MARK);
    int rc = path ? 0 : fail_memory(f);
    *m = (struct board_mark){0};
    if (rc == 0 && (access(path, F_OK) == 0 || errno != ENOENT)) {
        cJSON *o = NULL;
        if (file_read(&text, path, MARK_MAX, &err))
            rc = fail_err(f, EXIT_LOCAL, &err);
        else if (!(o = json_parse(buf_view(&text))) || take(m, o))
            rc = fail(f, EXIT_LOCAL, "local_file",
                      "%s is damaged; when it is taken away, the board is flashed anew", path);
        cJSON_Delete(o);
    }
    buf_free(&text);
    free(path);
    return rc;
}

static cJSON *describe(const struct board_mark *m)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "board", steps[m->done]);
    cJSON_AddStringToObject(o, "server_told", steps[m->told]);
    cJSON_AddBoolToObject(o, "replacing", m->replacing);
    if (m->done == STEP_NONE)
        return o;
    cJSON_AddStringToObject(o, "since", m->since);
    cJSON_AddStringToObject(o, "serial", m->serial);
    cJSON_AddBoolToObject(o, "keep_key", m->keep_key);
    cJSON_AddStringToObject(o, "chip", m->chip);
    cJSON_AddStringToObject(o, "partition", m->partition);
    cJSON_AddNumberToObject(o, "offset", m->offset);
    cJSON_AddNumberToObject(o, "size", m->size);
    return o;
}

int board_mark_save(const struct board_mark *m, const char *folder, struct failure *f)
{
    struct err err;
    cJSON *o = describe(m);
    char *text = o ? cJSON_Print(o) : NULL;
    char *path = path_join(folder, DEVICE_MARK);
    int rc = 0;
    if (!text || !path)
        rc = fail_memory(f);
    else if (file_write(path, (struct bytes){(const uint8_t *)text, strlen(text)}, 0644, 1, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    cJSON_free(text);
    cJSON_Delete(o);
    free(path);
    return rc;
}
