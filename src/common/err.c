#include "common/err.h"

#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int http;
    const char *message;
} table[] = {[ERR_none] = {"none", 200, "no error"},
#define ERR_ROW(name, http, text) [ERR_##name] = {#name, http, text},
             ERR_TABLE(ERR_ROW)
#undef ERR_ROW
};

static size_t row(enum err_code code)
{
    return (unsigned)code < ERR_COUNT ? (size_t)code : (size_t)ERR_internal;
}

const char *err_name(enum err_code code)
{
    return table[row(code)].name;
}

int err_http_status(enum err_code code)
{
    return table[row(code)].http;
}

const char *err_message(enum err_code code)
{
    return table[row(code)].message;
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (!err)
        return -1;
    err->code = code;
    if (!fmt) {
        snprintf(err->text, sizeof err->text, "%s", err_message(code));
        return -1;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    char prefix[sizeof err->text - 2];
    if (!err)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    size_t n = strlen(prefix), room = sizeof err->text - n - 2;
    memmove(err->text + n + 2, err->text, room);
    memcpy(err->text, prefix, n);
    memcpy(err->text + n, ": ", 2);
    err->text[sizeof err->text - 1] = '\0';
    return -1;
}

const char *err_openssl(void)
{
    static char text[256];
    unsigned long e = ERR_peek_last_error();
    if (e)
        ERR_error_string_n(e, text, sizeof text);
    else
        snprintf(text, sizeof text, "no reason given");
    ERR_clear_error();
    return text;
}
