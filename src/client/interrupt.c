#include "client/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t caught, asked;
static const char *volatile held;

static void note(int signal_number)
{
    const char *words = held;
    int before = errno;
    if (words && !asked && write(STDERR_FILENO, words, strlen(words)) >= 0) {
        asked = signal_number;
    } else {
        caught = signal_number;
        signal(signal_number, SIG_DFL); /* one more ends the process at once */
    }
    errno = before;
}

void interrupt_catch(void)
{
    struct sigaction act = {.sa_handler = note};
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    act.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &act, NULL);
}

void interrupt_hold(const char *words)
{
    held = words;
}

int interrupt_asked(void)
{
    return asked;
}

int interrupted(void)
{
    return caught;
}

int fail_interrupted(struct failure *f)
{
    return fail(f, EXIT_SIGNAL + caught, "interrupted", "interrupted");
}

int interrupt_sleep(long ms)
{
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    if (!interrupted())
        nanosleep(&left, NULL); /* cut short by a signal, which is what is wanted */
    return interrupted() ? -1 : 0;
}
