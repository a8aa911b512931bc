#include "client/when.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define FORMAT "%Y-%m-%dT%H:%M:%SZ"

int64_t when_seconds(const char *text)
{
    struct tm tm = {0};
    char again[WHEN_SIZE];
    const char *end = strptime(text, FORMAT, &tm);
    if (!end || *end || strlen(text) != 20)
        return -1;
    time_t t =
        timegm(&tm); /* strptime() takes February 30; what it means is then written otherwise */
    return t >= 0 && strftime(again, sizeof again, FORMAT, &tm) && strcmp(again, text) == 0 ? t
                                                                                            : -1;
}

void when_now(char out[WHEN_SIZE])
{
    struct tm tm;
    time_t now = time(NULL);
    if (!gmtime_r(&now, &tm) || !strftime(out, WHEN_SIZE, FORMAT, &tm))
        *out = '\0';
}

int when_from_text(char out[WHEN_SIZE], const char *option, const char *text, int end,
                   struct failure *f)
{
    size_t len = strlen(text);
    if (len == 10)
        snprintf(out, WHEN_SIZE, "%s%s", text, end ? "T23:59:59Z" : "T00:00:00Z");
    else
        snprintf(out, WHEN_SIZE, "%.21s", text);
    if (when_seconds(out) >= 0)
        return 0;
    return fail(f, EXIT_USAGE, "usage",
                "%s \"%s\" is not a time such as 2026-11-23T12:00:00Z (UTC) or a date such as "
                "2026-11-23",
                option, text);
}
