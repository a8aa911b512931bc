#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "server/supervisor/supervisor.h"

/* The descriptors a child is born with (its main.c names the same numbers). */
enum { AT_STDIN = 0, AT_SUPERVISOR = 3, AT_CONFIG = 4, AT_AUTHORITY = 5, AT_FIRST = 6, AT_SECOND };
#define AT_COUNT 8

int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *role_text(enum role_name role)
{
    static const char *const names[] = {"supervisor", "front",     "authority",
                                        "signer",     "publisher", "admin"};
    return names[role];
}

/* Beside signetd (a build directory), or where they are installed. */
static void program_path(char out[PATH_MAX], enum role_name role)
{
    char self[PATH_MAX - 64];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    snprintf(out, PATH_MAX, "%s/signet-%s", self, role_text(role));
    if (access(out, X_OK) != 0)
        snprintf(out, PATH_MAX, LIBEXECDIR "/signet-%s", role_text(role));
}

/* Between fork and exec: async-signal-safe calls only. Sources are moved up first, so that none is
 * overwritten before it is used. */
static void place_descriptors(const int source[AT_COUNT])
{
    int high[AT_COUNT];
    for (int i = 0; i < AT_COUNT; i++)
        high[i] = source[i] >= 0 ? fcntl(source[i], F_DUPFD_CLOEXEC, 64) : -1;
    for (int i = 0; i < AT_COUNT; i++)
        if (i != 1 && i != 2) {
            if (high[i] >= 0)
                dup2(high[i], i);
            else
                close(i);
        }
}

static void become(const char *path, char *const argv[], const int source[AT_COUNT],
                   const struct config *config, enum role_name role)
{
    sigset_t none;
    sigemptyset(&none);
    /* the supervisor's handlers would tell the supervisor of this child's signals */
    signal(SIGCHLD, SIG_DFL);
    /* what comes to the whole group is for the supervisor to decide about; a front is ended so */
    signal(SIGTERM, role == PROC_FRONT ? SIG_DFL : SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_SETMASK, &none, NULL);
    place_descriptors(source);
    if (role == PROC_SIGNER)
        for (size_t i = 0; config->env[i]; i++)
            putenv(config->env[i]);
    execv(path, argv);
    _exit(127);
}

static int make_pair(int pair[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static void close_pair(int pair[2])
{
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
}

static pid_t spawn(struct supervisor *s, enum role_name role, unsigned number,
                   const int source[AT_COUNT], int checking)
{
    char path[PATH_MAX], number_text[16];
    program_path(path, role);
    snprintf(number_text, sizeof number_text, "%u", number);
    char *const with_number[] = {path, "--number", number_text, NULL};
    char *const to_check[] = {path, "--check", NULL};
    char *const plain[] = {path, NULL};
    char *const *argv = checking                                    ? to_check
                        : role == PROC_FRONT || role == PROC_SIGNER ? with_number
                                                                    : plain;
    if (access(path, X_OK)) {
        log_error("%s: %s; is Signet installed whole?", path, strerror(errno));
        return -1;
    }
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all,
                &before); /* in the child until become() has let go of handlers */
    pid_t pid = fork();
    if (pid == 0)
        become(path, argv, source, s->config, role);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        log_error("cannot start %s: %s", path, strerror(errno));
    return pid;
}

/* The PIN's way to a signer: a pipe that is full and closed before the signer reads. */
static int pin_pipe(const struct secret *pin)
{
    int ends[2];
    size_t len;
    const char *bytes = secret_bytes(pin, &len);
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    ssize_t n = write(ends[1], bytes, len);
    close(ends[1]);
    if (n == (ssize_t)len)
        return ends[0];
    close(ends[0]);
    return -1;
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    on_child_message(arg, m);
    return 0;
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct child *child = arg;
    if (why) {
        log_error("%s %u is ended: %s", role_text(child->role), child->number, why);
        child_signal(child, SIGKILL);
    }
    channel_free(c);
    child->channel = NULL;
    if (!child->pid)
        on_child_end(child);
}

static int introduce(struct supervisor *s, enum role_name role, unsigned number, int socket)
{
    struct msg_peer m = {.role = (uint8_t)role, .number = number};
    return s->authority && s->authority->channel
               ? channel_send(s->authority->channel, MSG_peer, 0, &m, socket)
               : -1;
}

/* What this role gets beside the sockets to supervisor and authority. */
static int own_descriptors(struct supervisor *s, enum role_name role, int source[AT_COUNT])
{
    if (role == PROC_AUTHORITY)
        source[AT_FIRST] = s->lock; /* so that the state stays locked as long as it lives */
    if (role == PROC_FRONT) {
        source[AT_FIRST] = s->tls_socket;
        source[AT_SECOND] = s->http_socket;
    }
    source[AT_STDIN] =
        role == PROC_SIGNER ? pin_pipe(s->pin) : open("/dev/null", O_RDWR | O_CLOEXEC);
    return source[AT_STDIN] < 0 ? -1 : 0;
}

struct child *child_start(struct supervisor *s, enum role_name role, unsigned number)
{
    static const struct channel_handlers handlers = {on_message, on_end};
    int control[2] = {-1, -1}, peer[2] = {-1, -1};
    int source[AT_COUNT] = {-1, -1, -1, -1, -1, -1, -1, -1};
    struct child *c = calloc(1, sizeof *c);
    if (!c || make_pair(control) || (role != PROC_AUTHORITY && make_pair(peer)) ||
        own_descriptors(s, role, source))
        goto fail;
    source[AT_SUPERVISOR] = control[1];
    source[AT_CONFIG] = s->config_fd;
    source[AT_AUTHORITY] = peer[1];
    c->s = s;
    c->role = role;
    c->number = number;
    c->started_at = monotonic_ms();
    c->channel = channel_new(s->base, control[0], PROC_SUPERVISOR, role, &handlers, c);
    if (!c->channel)
        goto fail;
    control[0] = -1;
    if (peer[0] >= 0 && introduce(s, role, number, peer[0]))
        goto fail;
    c->pid = spawn(s, role, number, source, 0);
    if (c->pid <= 0)
        goto fail;
    LIST_INSERT_HEAD(&s->children, c, next);
    goto out;
fail:
    log_error("%s %u cannot be started", role_text(role), number);
    if (c)
        channel_free(c->channel);
    free(c);
    c = NULL;
out:
    if (source[AT_STDIN] >= 0)
        close(source[AT_STDIN]);
    close_pair(control);
    close_pair(peer);
    return c;
}

void child_signal(const struct child *c, int signal_number)
{
    if (c->pid > 0)
        kill(c->pid, signal_number);
}

void child_free(struct child *c)
{
    LIST_REMOVE(c, next);
    channel_free(c->channel);
    free(c);
}

int child_check_authority(struct supervisor *s, struct err *err)
{
    int control[2], source[AT_COUNT] = {-1, -1, -1, -1, -1, -1, -1, -1}, status = -1;
    static struct msg m;
    struct msg_failed failed;
    if (make_pair(control))
        return err_set(err, ERR_internal, "%s", strerror(errno));
    source[AT_SUPERVISOR] = control[1];
    source[AT_CONFIG] = s->config_fd;
    pid_t pid = spawn(s, PROC_AUTHORITY, 0, source, 1);
    close(control[1]);
    err_set(err, ERR_internal, "signet-authority --check did not answer");
    if (pid > 0) {
        if (msg_receive(control[0], &m, PROC_AUTHORITY, PROC_SUPERVISOR) == 1 &&
            m.type == MSG_failed && msg_decode(&failed, MSG_failed, m.fields) == 0)
            err_set(err, ERR_field_value, "%s", failed.detail);
        config_locate(s->config, err);
        waitpid(pid, &status, 0);
    }
    close(control[0]);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}
