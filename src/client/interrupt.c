#include "client/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>

static volatile sig_atomic_t caught;

static void note(int signal_number)
{
    caught = signal_number;
}

void interrupt_catch(void)
{
    struct sigaction act = {.sa_handler = note, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &act, NULL); /* a second Ctrl-C ends the process at once */
    sigaction(SIGTERM, &act, NULL);
    act.sa_handler = SIG_IGN;
    act.sa_flags = 0;
    sigaction(SIGPIPE, &act, NULL);
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
