#include "client/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cJSON *json_parse(struct bytes body)
{
    const char *end = NULL, *last = (const char *)body.data + body.len;
    cJSON *object = cJSON_ParseWithLengthOpts((const char *)body.data, body.len, &end, 0);
    while (object && end < last && strchr(" \t\r\n", *end) && *end)
        end++;
    if (object && cJSON_IsObject(object) && end == last)
        return object;
    cJSON_Delete(object);
    return NULL;
}

void json_print(const cJSON *object)
{
    char *line = cJSON_PrintUnformatted(object);
    if (line)
        printf("%s\n", line);
    cJSON_free(line);
}

int answer_text(const char **out, const cJSON *answer, const char *name, struct failure *f)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, name));
    if (!text)
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "the server's answer has no text field \"%s\"; is it a Signet server of this "
                    "version?",
                    name);
    *out = text;
    return 0;
}

int answer_bytes(struct buf *out, const cJSON *answer, const char *name, struct failure *f)
{
    const char *text = NULL;
    if (answer_text(&text, answer, name, f))
        return -1;
    *out = (struct buf){0};
    out->data = base64_decode(text, strlen(text), &out->len);
    if (!out->data)
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "the server's answer has a field \"%s\" that is not base64", name);
    out->cap = out->len;
    return 0;
}

void printable(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
}
