#include "client/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/notice.h"

#define BAR_MS 200    /* between two drawings */
#define LINE_MS 60000 /* at most that long without a line, and one at each tenth */
#define BAR_MAX 40

void progress_begin(struct progress *p, size_t total, size_t before)
{
    const char *term = getenv("TERM"), *plain = getenv("NO_COLOR");
    *p = (struct progress){.total = total, .before = before, .done = before, .told = before};
    p->since = p->shown = now_ms();
    p->bar = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
    p->colour = p->bar && !(plain && *plain); /* https://no-color.org */
}

void progress_step(struct progress *p, int failed)
{
    p->done++;
    p->failed += failed != 0;
}

/* "12.3/s, 1:05 left"; nothing while there is nothing to go by. */
static void pace(char out[64], const struct progress *p)
{
    size_t now = p->done - p->before;
    double seconds = (double)(now_ms() - p->since) / 1000;
    *out = '\0';
    if (!now || seconds <= 0)
        return;
    double rate = (double)now / seconds;
    long left = (long)((double)(p->total - p->done) / rate + 0.5);
    if (left >= 3600)
        snprintf(out, 64, ", %.1f/s, %ld:%02ld:%02ld left", rate, left / 3600, left / 60 % 60,
                 left % 60);
    else
        snprintf(out, 64, ", %.1f/s, %ld:%02ld left", rate, left / 60, left % 60);
}

static void describe(char out[160], const struct progress *p)
{
    char speed[64], failed[48] = "";
    pace(speed, p);
    if (p->failed)
        snprintf(failed, sizeof failed, ", %s%zu failed%s", p->colour ? "\033[31m" : "", p->failed,
                 p->colour ? "\033[0m" : "");
    snprintf(out, 160, "%zu of %zu%s%s", p->done, p->total, failed, speed);
}

static void draw(struct progress *p)
{
    char text[160];
    struct winsize size = {0};
    describe(text, p);
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
    int width = columns - 4 - (int)strlen(text); /* the colours' bytes make it a little shorter */
    width = width > BAR_MAX ? BAR_MAX : width;
    fputc('\r', stderr);
    if (width > 4) {
        int full = (int)((size_t)width * p->done / p->total);
        fprintf(stderr, "[%s", p->colour ? "\033[32m" : "");
        for (int i = 0; i < width; i++)
            fputc(i < full ? '#' : '.', stderr);
        fprintf(stderr, "%s] ", p->colour ? "\033[0m" : "");
    }
    fprintf(stderr, "%s\033[K", text);
    fflush(stderr);
    p->drawn = 1;
}

static void tell(struct progress *p)
{
    char text[160];
    describe(text, p);
    fprintf(stderr, "signet: %s\n", text);
    p->told = p->done;
}

void progress_show(struct progress *p)
{
    int64_t now = now_ms();
    int tenth = (p->done - p->told) * 10 >= p->total;
    if (p->bar ? now - p->shown < BAR_MS : !tenth && now - p->shown < LINE_MS)
        return;
    p->shown = now;
    if (p->bar)
        draw(p);
    else
        tell(p);
}

void progress_clear(struct progress *p)
{
    if (p->drawn)
        fputs("\r\033[K", stderr);
    fflush(stderr);
    p->drawn = 0;
}
