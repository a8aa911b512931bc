#include "client/makers.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/notice.h"

/* Boards that a maker has: it must not wait for us while we wait for the server. */
#define AHEAD 4
#define DEATHS_MAX 3 /* in a row, at one board */

struct maker {
    pid_t pid; /* 0: none runs */
    int fd;
    uint32_t given[AHEAD]; /* the first is the one it is at */
    unsigned count;
    unsigned deaths; /* since it last told something */
};

struct makers {
    make_fn *make;
    void *arg;
    unsigned count, next; /* next: whom to look at first, so that all have their turn */
    struct maker maker[MAKERS_MAX];
};

/* ---- in the maker ---- */

/* Nothing that this process has open is the maker's: not the lock of the results, not another
 * maker's socket (else its end would not be noticed), not the connection. */
static void close_others(unsigned fd)
{
    if (fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, fd - 1, 0);
    close_range(fd + 1, ~0U, 0);
}

static _Noreturn void serve(const struct makers *m, int fd, pid_t parent)
{
    close_others((unsigned)fd);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    notice_off();
    struct made made;
    while (getppid() == parent && recv(fd, &made.index, sizeof made.index, 0) > 0) {
        made = (struct made){.index = made.index};
        m->make(m->arg, &made);
        if (interrupted() || send(fd, &made, sizeof made, MSG_NOSIGNAL) < 0)
            break;
    }
    _exit(EXIT_DONE); /* not exit(): the parent's buffers and connection are the parent's */
}

/* ---- here ---- */

static int cannot(struct failure *f, const char *what)
{
    return fail(f, EXIT_LOCAL, "process", "cannot %s: %s", what, strerror(errno));
}

/* May fail to reach one that has just ended; that is noticed later, and its replacement is told. */
static void tell(const struct maker *k, uint32_t index)
{
    if (send(k->fd, &index, sizeof index, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return;
}

static int start(struct makers *m, struct maker *k, struct failure *f)
{
    int pair[2];
    pid_t parent = getpid();
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return cannot(f, "make a socket pair");
    k->pid = fork();
    if (k->pid == 0)
        serve(m, pair[1], parent);
    close(pair[1]);
    if (k->pid < 0) {
        k->pid = 0;
        close(pair[0]);
        return cannot(f, "start a process that makes keys");
    }
    k->fd = pair[0];
    for (unsigned i = 0; i < k->count; i++)
        tell(k, k->given[i]);
    return 0;
}

/* Its locks are free once it has been waited for. Returns its status. */
static int end(struct maker *k)
{
    int status = 0;
    close(k->fd);
    while (waitpid(k->pid, &status, 0) < 0 && errno == EINTR)
        ;
    k->pid = 0;
    return status;
}

int makers_open(struct makers **out, unsigned count, make_fn *make, void *arg, struct failure *f)
{
    struct makers *m = calloc(1, sizeof *m);
    if (!m)
        return fail_memory(f);
    m->make = make;
    m->arg = arg;
    for (; m->count < count; m->count++)
        if (start(m, &m->maker[m->count], f)) {
            makers_close(m);
            return -1;
        }
    *out = m;
    return 0;
}

void makers_close(struct makers *m)
{
    for (unsigned i = 0; m && i < m->count; i++)
        if (m->maker[i].pid) {
            kill(m->maker[i].pid, SIGKILL);
            end(&m->maker[i]);
        }
    free(m);
}

int makers_give(struct makers *m, uint32_t index)
{
    struct maker *k = &m->maker[0];
    for (unsigned i = 1; i < m->count; i++)
        if (m->maker[i].count < k->count)
            k = &m->maker[i];
    if (k->count == AHEAD)
        return 0;
    k->given[k->count++] = index;
    tell(k, index);
    return 1;
}

static void forget_first(struct maker *k)
{
    k->count--;
    memmove(k->given, k->given + 1, k->count * sizeof k->given[0]);
}

/* A board at which makers die one after the other is given up. */
static int give_up(struct maker *k, int status, struct made *out)
{
    *out = (struct made){.index = k->given[0], .rc = -1};
    fail(&out->failure, EXIT_LOCAL, "process",
         "the process that made its key was ended %u times, at last by %s %d", DEATHS_MAX,
         WIFSIGNALED(status) ? "signal" : "exit code",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    k->deaths = 0;
    forget_first(k);
    return 1;
}

static int replace(struct makers *m, struct maker *k, struct made *out, struct failure *f)
{
    int status = end(k);
    if (interrupted())
        return 0;
    k->deaths++;
    int given_up = k->count && k->deaths == DEATHS_MAX ? give_up(k, status, out) : 0;
    return start(m, k, f) ? -1 : given_up;
}

static int hear(struct makers *m, struct maker *k, struct made *out, struct failure *f)
{
    if (recv(k->fd, out, sizeof *out, MSG_DONTWAIT) != (ssize_t)sizeof *out)
        return replace(m, k, out, f);
    k->deaths = 0;
    forget_first(k);
    return 1;
}

int makers_wait(struct makers *m, int ms, struct made *out, struct failure *f)
{
    struct pollfd fds[MAKERS_MAX];
    for (unsigned i = 0; i < m->count; i++) {
        struct maker *k = &m->maker[(m->next + i) % m->count];
        fds[i] = (struct pollfd){.fd = k->pid ? k->fd : -1, .events = POLLIN};
    }
    int n = poll(fds, m->count, ms);
    if (n < 0 && errno != EINTR)
        return cannot(f, "wait for the processes that make keys");
    for (unsigned i = 0; n > 0 && i < m->count; i++)
        if (fds[i].revents) {
            m->next = (m->next + i + 1) % m->count;
            return hear(m, &m->maker[(m->next + m->count - 1) % m->count], out, f);
        }
    return 0;
}

unsigned makers_default(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > MAKERS_MAX ? MAKERS_MAX : (unsigned)n;
}
