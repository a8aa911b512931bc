#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server/ctl/ctl.h"

void json_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text < ' ')
            printf("\\u%04x", (unsigned)*text);
        else
            putchar(*text);
    }
    putchar('"');
}

int ctl_fail(struct ctl *c, int code)
{
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

int ctl_next(struct ctl *c)
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
    return ctl_fail(c, EXIT_REFUSED);
}

int ctl_ask(struct ctl *c, enum msg_type type, const void *body)
{
    if (msg_send_wait(c->socket, type, 1, body, -1)) {
        err_set(&c->err, ERR_internal, "signetd hung up: you are not root or in admin_group");
        return ctl_fail(c, EXIT_UNREACHABLE);
    }
    return ctl_next(c);
}

const char *time_text(char out[32], int64_t seconds)
{
    struct tm tm;
    time_t t = (time_t)seconds;
    if (seconds == 0 || !gmtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(out, 32, "-");
    return out;
}
