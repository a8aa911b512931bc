#include "client/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/notice.h"

#define TICK_MS 100
#define EXIT_MS 5 /* between the end of its output and its own */

struct child {
    pid_t pid;
    int out;    /* its stdout and stderr */
    int failed; /* where errno comes when exec() fails; closed when it works */
    int status; /* of waitpid() */
    int ended;
};

/* ---- in the child ---- */

static void become(const struct process *p, int out, int failed, pid_t parent)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    int null = open("/dev/null", O_RDONLY);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it ended before that */
        _exit(127);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGPIPE, &act, NULL);
    int good = null >= 0 && dup2(null, 0) == 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2;
    for (size_t i = 0; good && i < p->fd_count; i++)
        good = fcntl(p->fds[i], F_SETFD, 0) == 0;
    for (size_t i = 0; good && p->env && p->env[i]; i++)
        good = putenv((char *)(uintptr_t)p->env[i]) == 0;
    if (good)
        execv(p->argv[0], (char *const *)(uintptr_t)p->argv);
    int why = errno;
    if (write(failed, &why, sizeof why) != (ssize_t)sizeof why)
        _exit(126);
    _exit(127);
}

/* ---- in the parent ---- */

/* For its output. It holds one write at a time (O_DIRECT, one page), so that the program is never
 * further ahead of watch() than one more. */
static int output_pipe(int out[2])
{
    if (pipe2(out, O_CLOEXEC | O_DIRECT))
        return -1;
    if (fcntl(out[1], F_SETPIPE_SZ, 1) > 0)
        return 0;
    int why = errno;
    close(out[0]);
    close(out[1]);
    errno = why;
    return -1;
}

static int start(struct child *c, const struct process *p, struct failure *f)
{
    int out[2], failed[2];
    if (output_pipe(out))
        return fail(f, EXIT_LOCAL, "local_file", "cannot make a pipe: %s", strerror(errno));
    if (pipe2(failed, O_CLOEXEC)) {
        close(out[0]);
        close(out[1]);
        return fail(f, EXIT_LOCAL, "local_file", "cannot make a pipe: %s", strerror(errno));
    }
    pid_t self = getpid();
    c->pid = fork();
    if (c->pid == 0)
        become(p, out[1], failed[1], self);
    int why = errno;
    close(out[1]);
    close(failed[1]);
    c->out = out[0];
    c->failed = failed[0];
    if (c->pid < 0)
        return fail(f, EXIT_LOCAL, "local_file", "cannot start %s: %s", p->argv[0], strerror(why));
    setpgid(c->pid, c->pid); /* whoever is first */
    fcntl(c->out, F_SETFL, O_NONBLOCK);
    return 0;
}

/* exec() worked: the pipe is closed without a byte. */
static int has_started(struct child *c, const struct process *p, struct failure *f)
{
    int why = 0;
    ssize_t n;
    do
        n = read(c->failed, &why, sizeof why);
    while (n < 0 && errno == EINTR);
    if (n == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot start %s: %s", p->argv[0], strerror(why));
}

static int reap(struct child *c, int options)
{
    pid_t got;
    if (c->ended)
        return 1;
    do
        got = waitpid(c->pid, &c->status, options);
    while (got < 0 && errno == EINTR);
    c->ended = got != 0;
    return c->ended;
}

/* The whole group, a wrapper's own child as well, and at once: it must not go on for an instant. */
static void end(struct child *c)
{
    kill(-c->pid, SIGKILL);
    reap(c, 0);
}

/* 1: there was something; 0: nothing now; 2: the end; -1 with the failure */
static int take(struct child *c, const struct process *p, struct buf *output, struct failure *f)
{
    uint8_t bytes[8192];
    ssize_t n = read(c->out, bytes, sizeof bytes);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : 2;
    if (n == 0)
        return 2;
    if (output->len + (size_t)n > PROCESS_OUTPUT_MAX)
        return fail(f, EXIT_LOCAL, "esptool_failed", "%s says more than %u MiB; it was ended",
                    p->argv[0], PROCESS_OUTPUT_MAX >> 20);
    return buf_add(output, bytes, (size_t)n) ? fail_memory(f) : 1;
}

static int watch(const struct process *p, const struct buf *output, struct failure *f)
{
    return p->watch ? p->watch(p->context, buf_view(output), f) : 0;
}

/* To its own end, though something that it started may keep the pipe, or it may have closed it. */
static int follow(struct child *c, const struct process *p, struct buf *output, struct failure *f)
{
    struct notice notice;
    int64_t heard = now_ms();
    int got = 0, rc = 0;
    notice_begin(&notice);
    while (rc == 0) {
        struct pollfd ready = {.fd = got == 2 ? -1 : c->out, .events = POLLIN};
        int gone = reap(c, WNOHANG);
        poll(&ready, 1, gone ? 0 : got == 2 ? EXIT_MS : TICK_MS);
        notice_tick(&notice, "%s", p->doing);
        if (got != 2)
            got = take(c, p, output, f);
        if (got == 1)
            heard = now_ms();
        if (got < 0 || (got == 1 && watch(p, output, f)))
            rc = -1;
        else if (got != 1 && gone)
            break;
        else if (interrupted())
            rc = fail_interrupted(f);
        else if (now_ms() - heard > p->silence_ms)
            rc =
                fail(f, EXIT_LOCAL, "esptool_failed", "%s has said nothing for %ld s and was ended",
                     p->argv[0], p->silence_ms / 1000);
    }
    notice_end(&notice);
    return rc;
}

int process_run(const struct process *p, struct buf *output, int *status, struct failure *f)
{
    struct child c = {.out = -1, .failed = -1};
    int rc = start(&c, p, f);
    if (rc == 0)
        rc = has_started(&c, p, f);
    if (rc == 0 && follow(&c, p, output, f)) {
        end(&c);
        rc = -1;
    }
    if (c.pid > 0)
        reap(&c, 0);
    *status = WIFSIGNALED(c.status) ? 128 + WTERMSIG(c.status) : WEXITSTATUS(c.status);
    if (c.out >= 0)
        close(c.out);
    if (c.failed >= 0)
        close(c.failed);
    return rc;
}
