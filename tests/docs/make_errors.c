/* Prints docs/errors.md from the one table of error codes, common/err.h. */
#include <stdio.h>
#include "common/err.h"

static const char head[] =
    "# Error codes\n"
    "\n"
    "Made from the table in [err.h](../src/common/err.h) by `make-errors`; do not edit.\n"
    "\n"
    "A refused request is answered with\n"
    "\n"
    "    {\"status\":\"ERROR\",\"operation\":\"\xe2\x80\xa6\",\"error\":{\"code\":\"\xe2\x80\xa6\","
    "\"message\":\"\xe2\x80\xa6\"}}\n"
    "\n"
    "and the HTTP status of its code. Codes are stable: let programs go by them. The message is "
    "for\n"
    "people; below is what it says when there is nothing more particular to say. After a 503 the "
    "same\n"
    "request may be sent again, when the seconds of `Retry-After` have passed. The codes that "
    "`signet`\n"
    "adds of its own, as `unreachable`, are in signet(1).\n"
    "\n"
    "| code | HTTP | what was wrong, and what to do |\n"
    "|---|---|---|\n";

int main(void)
{
    fputs(head, stdout);
    for (int c = ERR_none + 1; c < ERR_COUNT; c++)
        printf("| `%s` | %d | %s |\n", err_name((enum err_code)c),
               err_http_status((enum err_code)c), err_message((enum err_code)c));
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
