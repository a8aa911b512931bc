#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "server/ctl/ctl.h"

#define PEM_MAX (64 * 1024)

void json_write(FILE *to, const char *text)
{
    putc('"', to);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(to, "\\%c", *text);
        else if ((unsigned char)*text < ' ')
            fprintf(to, "\\u%04x", (unsigned)*text);
        else
            putc(*text, to);
    }
    putc('"', to);
}

void json_string(const char *text)
{
    json_write(stdout, text);
}

int ctl_fail(struct ctl *c, int code)
{
    ctl_progress_end(c);
    if (c->json) {
        printf("{\"status\":\"ERROR\",\"exit\":%d,\"error\":{\"code\":\"%s\",\"message\":", code,
               err_name(c->err.code));
        json_string(c->err.text);
        printf("}}\n");
    } else {
        fprintf(stderr, "signetctl: %s\n", c->err.text);
    }
    return code;
}

/* By the folder's descriptor: its path may be longer than a socket address takes. */
static int connect_to(const char *state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int folder = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), why;
    snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/admin.sock", folder);
    int rc = folder < 0 || fd < 0 ? -1 : connect(fd, (struct sockaddr *)&at, sizeof at);
    why = errno;
    if (folder >= 0)
        close(folder);
    if (rc && fd >= 0)
        close(fd);
    errno = why;
    return rc ? -1 : fd;
}

int ctl_connect(struct ctl *c, int say)
{
    static const struct timeval patience = {30, 0};
    c->socket = connect_to(c->config->state);
    if (c->socket >= 0) {
        setsockopt(c->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        return EXIT_DONE;
    }
    err_set(&c->err, ERR_internal, "cannot reach signetd at %s/admin.sock: %s; %s",
            c->config->state, strerror(errno),
            errno == EACCES ? "use root, or a member of admin_group" : "is signetd running?");
    return say ? ctl_fail(c, EXIT_UNREACHABLE) : EXIT_UNREACHABLE;
}

/* A refusal is in c->err and not said yet. */
static int receive(struct ctl *c)
{
    struct msg_answer_error m;
    int got = msg_receive(c->socket, &c->in, PROC_AUTHORITY, PROC_ADMIN);
    if (got != 1) {
        err_set(&c->err, ERR_internal,
                got == 0 ? "signetd hung up: you are not root or in admin_group, or it is stopping"
                         : "signetd did not answer in 30 s; see its log");
        return ctl_fail(c, EXIT_UNREACHABLE);
    }
    if (c->in.type != MSG_answer_error)
        return EXIT_DONE;
    if (msg_decode(&m, MSG_answer_error, c->in.fields))
        err_set(&c->err, ERR_internal, "signetd's answer is malformed; are both of one release?");
    else
        err_set(&c->err, (enum err_code)m.code, m.detail[0] ? "%s" : NULL, m.detail);
    return EXIT_REFUSED;
}

int ctl_next(struct ctl *c)
{
    int rc = receive(c);
    return rc == EXIT_REFUSED ? ctl_fail(c, rc) : rc;
}

int ctl_try(struct ctl *c, enum msg_type type, const void *body)
{
    if (msg_send_wait(c->socket, type, 1, body, -1)) {
        err_set(&c->err, ERR_internal, "signetd hung up: you are not root or in admin_group");
        return ctl_fail(c, EXIT_UNREACHABLE);
    }
    return receive(c);
}

int ctl_ask(struct ctl *c, enum msg_type type, const void *body)
{
    int rc = ctl_try(c, type, body);
    return rc == EXIT_REFUSED ? ctl_fail(c, rc) : rc;
}

int ctl_expect(struct ctl *c, enum msg_type type, void *body)
{
    if (c->in.type == type && msg_decode(body, type, c->in.fields) == 0)
        return EXIT_DONE;
    err_set(&c->err, ERR_internal, "signetd's answer is not understood; are both of one release?");
    return ctl_fail(c, EXIT_UNREACHABLE);
}

int ctl_exchange(struct ctl *c, enum msg_type type, const void *body, enum msg_type answer,
                 void *fields)
{
    int rc = ctl_ask(c, type, body);
    return rc ? rc : ctl_expect(c, answer, fields);
}

void ctl_progress(struct ctl *c, const char *what, uint64_t done, uint64_t total)
{
    struct timespec t;
    if (c->json || !isatty(STDERR_FILENO))
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (now - c->shown_ms < 100)
        return;
    c->shown_ms = now;
    if (total)
        fprintf(stderr, "\r\033[K%s … %d %%", what, (int)(done * 100 / total));
    else if (done)
        fprintf(stderr, "\r\033[K%s … %llu", what, (unsigned long long)done);
    else
        fprintf(stderr, "\r\033[K%s …", what);
    fflush(stderr);
}

void ctl_progress_end(struct ctl *c)
{
    if (c->shown_ms)
        fputs("\r\033[K", stderr);
    c->shown_ms = 0;
}

int ctl_store(struct ctl *c, struct store **out)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/signet.db", c->config->state);
    if (access(path, R_OK) && errno != ENOENT)
        return err_set(&c->err, ERR_storage_unavailable,
                       "%s: %s; use root or the user that runs signetd", path, strerror(errno));
    return store_open_read_only(out, c->config->state, &c->err);
}

int ctl_lock_state(struct ctl *c, const char *state)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/lock", state);
    int lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
        return lock;
    int why = errno;
    if (lock >= 0)
        close(lock);
    return err_set(&c->err, ERR_storage_unavailable, "%s: %s", path,
                   why == EWOULDBLOCK ? "signetd runs on this state; stop it first"
                                      : strerror(why));
}

int ctl_issuer(struct ctl *c, const char *path, struct issuer **out)
{
    struct buf pem;
    if (file_read(&pem, path, PEM_MAX, &c->err))
        return err_prefix(&c->err, "the CA's certificate");
    int rc = issuer_from_pem(out, buf_view(&pem), &c->err);
    buf_free(&pem);
    return rc ? err_prefix(&c->err, "%s", path) : 0;
}

const char *time_text(char out[32], int64_t seconds)
{
    struct tm tm;
    time_t t = (time_t)seconds;
    if (seconds == 0 || !gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(out, 32, "-");
    return out;
}
