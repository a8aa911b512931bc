#include "client/report.h"

#include <string.h>

#include "client/answer.h"

static const char *const names[] = {[BOARD_FLASHED] = "flashed", [BOARD_VERIFIED] = "verified"};

/* Of that certificate, and no less than what was reported? */
static int check(const cJSON *answer, const char *serial, enum board_report what, struct failure *f)
{
    const char *said, *state;
    if (answer_text(&said, answer, "serial", f) || answer_text(&state, answer, "state", f))
        return -1;
    if (strcmp(said, serial) == 0 &&
        (strcmp(state, names[what]) == 0 || strcmp(state, names[BOARD_VERIFIED]) == 0))
        return 0;
    return fail(f, EXIT_VERIFY, "answer_not_understood",
                "the server was told that the board of %s is %s, and answers something else",
                serial, names[what]);
}

int report_device(struct session *s, const char *serial, enum board_report what, struct failure *f)
{
    cJSON *request = cJSON_CreateObject(), *answer = NULL;
    int good = cJSON_AddStringToObject(request, "operation", "report_device") &&
               cJSON_AddStringToObject(request, "serial", serial) &&
               cJSON_AddStringToObject(request, "state", names[what]);
    int rc = good ? http_call(s->http, request, ANSWER_MAX, &answer, f) : fail_memory(f);
    if (rc == 0)
        rc = check(answer, serial, what, f);
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc ? fail_at(f, s->settings.server) : 0;
}
