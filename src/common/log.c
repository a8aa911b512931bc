#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    const char *process;
    enum log_level most;
    int journal; /* stderr is systemd's: it wants "<N>" before the text and adds the rest */
} log_state = {"signet", LOG_INFO, 0};

void log_open(const char *process, enum log_level most)
{
    log_state.process = process;
    log_state.most = most;
    log_state.journal = getenv("JOURNAL_STREAM") != NULL;
}

__attribute__((format(printf, 2, 0))) static void put(enum log_level level, const char *fmt,
                                                      va_list ap)
{
    char text[1200], line[1400];
    vsnprintf(text, sizeof text, fmt, ap);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    int n = log_state.journal
                ? snprintf(line, sizeof line, "<%d>%s: %s\n", (int)level, log_state.process, text)
                : snprintf(line, sizeof line, "%s[%d]: %s%s\n", log_state.process, (int)getpid(),
                           level == LOG_ERROR  ? "error: "
                           : level == LOG_WARN ? "warning: "
                                               : "",
                           text);
    /* one write a line, so that lines of several processes do not mix */
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to say so */
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level > log_state.most)
        return;
    va_list ap;
    va_start(ap, fmt);
    put(level, fmt, ap);
    va_end(ap);
}

void fatal(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    put(LOG_ERROR, fmt, ap);
    va_end(ap);
    _exit(70);
}
