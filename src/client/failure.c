#include "client/failure.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/answer.h"

int fail(struct failure *f, int exit_code, const char *code, const char *fmt, ...)
{
    f->exit = exit_code;
    f->nothing_done = 0;
    if (code != f->code)
        snprintf(f->code, sizeof f->code, "%s", code);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
    return -1;
}

int fail_err(struct failure *f, int exit_code, const struct err *err)
{
    const char *code = exit_code == EXIT_USAGE   ? "usage"
                       : exit_code == EXIT_LOCAL ? "local_file"
                                                 : err_name(err->code);
    return fail(f, exit_code, code, "%s", err->text);
}

int fail_memory(struct failure *f)
{
    return fail(f, EXIT_LOCAL, "memory", "out of memory");
}

int fail_add(struct failure *f, const char *fmt, ...)
{
    size_t len = strlen(f->text);
    int n = snprintf(f->text + len, sizeof f->text - len, "; ");
    if (n < 0 || (size_t)n >= sizeof f->text - len)
        return -1;
    len += (size_t)n;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text + len, sizeof f->text - len, fmt, ap);
    va_end(ap);
    return -1;
}

int fail_at(struct failure *f, const char *address)
{
    char text[sizeof f->text];
    if (strstr(f->text, address))
        return -1;
    memcpy(text, f->text, sizeof text);
    int n = snprintf(f->text, sizeof f->text, "%s: ", address);
    if (n > 0 && (size_t)n < sizeof f->text)
        snprintf(f->text + n, sizeof f->text - (size_t)n, "%s", text);
    return -1;
}

cJSON *failure_json(const struct failure *f)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "status", "ERROR");
    cJSON_AddNumberToObject(object, "exit", f->exit);
    cJSON *error = cJSON_AddObjectToObject(object, "error");
    cJSON_AddStringToObject(error, "code", f->code);
    cJSON_AddStringToObject(error, "message", f->text);
    return object;
}

int failure_report(const struct failure *f, int json)
{
    if (json) {
        cJSON *object = failure_json(f);
        json_print(object);
        cJSON_Delete(object);
    }
    fprintf(stderr, "signet: %s\n", f->text);
    return f->exit;
}
