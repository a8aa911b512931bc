#include "client/adopt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/listing.h"

int is_provisioned(const struct board *b)
{
    char *folder = device_dir_path(b->out, b->mac);
    int there = folder && device_has(folder, DEVICE_CERT);
    free(folder);
    return there;
}

static int check_state(const struct board *board, const char *folder, const cJSON *answer,
                       struct failure *f)
{
    char state[16], profile[80];
    row_text(state, sizeof state, answer, "state");
    row_text(profile, sizeof profile, answer, "profile");
    if (strcmp(state, "issued") != 0)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "the certificate in %s is %s; move the folder away, or: signet provision --mac "
                    "%s --replace",
                    folder, state, board->mac);
    if (strcmp(profile, board->profile) != 0)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "the certificate in %s is of profile %s, not %s; move the folder away", folder,
                    profile, board->profile);
    return 0;
}

static int check_with_server(struct session *s, const struct board *b, const struct provisioned *p,
                             struct failure *f)
{
    cJSON *request = cJSON_CreateObject(), *answer = NULL;
    int good = cJSON_AddStringToObject(request, "operation", "get_cert") &&
               cJSON_AddStringToObject(request, "serial", p->serial);
    int rc = good ? http_call(s->http, request, ANSWER_MAX, &answer, f) : fail_memory(f);
    if (rc == 0)
        rc = check_state(b, p->folder, answer, f);
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc;
}

/* What was done with the board counts when it was done with this certificate. */
static int load_mark(struct flashed *out, struct failure *f)
{
    if (board_mark_load(&out->mark, out->device.folder, f))
        return -1;
    if (strcmp(out->mark.serial, out->device.serial) != 0)
        out->mark = (struct board_mark){0};
    return 0;
}

int adopt(struct flashed *out, struct session *s, const struct board *b, struct failure *f)
{
    *out = (struct flashed){.already = 1};
    if (provision_find(&out->device, s->root, b, f) == 0)
        return load_mark(out, f) || check_with_server(s, b, &out->device, f) ? -1 : 0;
    char why[sizeof f->text];
    snprintf(why, sizeof why, "%s", f->text);
    return fail(f, EXIT_LOCAL, "already_exists",
                "%s exists already, and is not what could be taken for done: %s",
                out->device.folder, why);
}
