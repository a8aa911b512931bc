#include "common/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

struct waiting {
    STAILQ_ENTRY(waiting) next;
    struct buf record;
    int fd;
};

struct channel {
    int socket;
    enum role_name self, peer;
    struct channel_handlers handlers;
    void *arg;
    struct event *readable, *writable;
    struct event *ending; /* ends the channel from the loop, never from within channel_send() */
    const char *why;
    STAILQ_HEAD(, waiting) queue;
    size_t queued;
    unsigned queued_fds;
    int dead, handling;
    struct msg in;
};

/* Messages handled for one peer before the loop looks at the others, and milliseconds after which
 * it gets no further one: who asks for what takes long keeps nobody waiting for more than that. */
#define TURN 32
#define TURN_MS 5

static void drop_queue(struct channel *c)
{
    struct waiting *w;
    while ((w = STAILQ_FIRST(&c->queue))) {
        STAILQ_REMOVE_HEAD(&c->queue, next);
        if (w->fd >= 0)
            close(w->fd);
        buf_free(&w->record);
        free(w);
    }
    c->queued = 0;
    c->queued_fds = 0;
}

static void kill_channel(struct channel *c, const char *why)
{
    if (c->dead)
        return;
    c->dead = 1;
    c->why = why;
    event_del(c->readable);
    event_del(c->writable);
    drop_queue(c);
    event_active(c->ending, 0, 0);
}

static void on_ending(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct channel *c = arg;
    c->handlers.on_end(c, c->why, c->arg);
}

/* 0: one message was handled. */
static int receive_one(struct channel *c)
{
    size_t len = 0;
    int fd = -1;
    unsigned type;
    int got = msg_socket_receive(c->socket, c->in.record, sizeof c->in.record, &len, &fd);
    if (got == 2)
        return -1;
    if (got != 1) {
        kill_channel(c, got == 0 ? NULL : "a truncated record, or a broken socket");
        return -1;
    }
    c->in.fd = fd;
    if (msg_open((struct bytes){c->in.record, len}, &type, &c->in.id, &c->in.fields) ||
        !msg_allowed(type, c->peer, c->self) || (fd >= 0 && !msg_takes_fd(type))) {
        if (fd >= 0)
            close(fd);
        kill_channel(c, "a malformed message, or one it may not send");
        return -1;
    }
    c->in.type = (enum msg_type)type;
    c->handling = 1;
    int rc = c->handlers.on_message(c, &c->in, c->arg);
    c->handling = 0;
    if (rc) {
        kill_channel(c, "a message with bad fields");
        return -1;
    }
    return 0;
}

static int64_t monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_readable(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct channel *c = arg;
    int64_t until = monotonic_ms() + TURN_MS;
    for (int i = 0; i < TURN && !c->dead; i++)
        if (receive_one(c) || monotonic_ms() > until)
            return;
}

int channel_catch_up(struct channel *c)
{
    if (c->handling) /* its message would be overwritten */
        return -1;
    while (!c->dead && receive_one(c) == 0)
        ;
    return c->dead ? -1 : 0;
}

/* 0 sent, 1 the socket is full, -1 broken. */
static int try_send(struct channel *c, struct bytes record, int fd)
{
    ssize_t n = msg_socket_send(c->socket, record, fd, MSG_DONTWAIT);
    if (n == (ssize_t)record.len)
        return 0;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) ? 1 : -1;
}

static void on_writable(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct channel *c = arg;
    struct waiting *w;
    while ((w = STAILQ_FIRST(&c->queue))) {
        int rc = try_send(c, buf_view(&w->record), w->fd);
        if (rc == 1)
            return;
        if (rc < 0) {
            kill_channel(c, NULL);
            return;
        }
        STAILQ_REMOVE_HEAD(&c->queue, next);
        c->queued -= w->record.len;
        if (w->fd >= 0) {
            close(w->fd);
            c->queued_fds--;
        }
        buf_free(&w->record);
        free(w);
    }
    event_del(c->writable);
}

static int enqueue(struct channel *c, struct buf *record, int fd)
{
    struct waiting *w = calloc(1, sizeof *w);
    if (!w || c->queued + record->len > CHANNEL_QUEUE_MAX ||
        (fd >= 0 && c->queued_fds >= CHANNEL_FDS_MAX))
        goto fail;
    w->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (fd >= 0 && w->fd < 0)
        goto fail;
    w->record = *record;
    *record = (struct buf){0};
    STAILQ_INSERT_TAIL(&c->queue, w, next);
    c->queued += w->record.len;
    c->queued_fds += fd >= 0;
    event_add(c->writable, NULL);
    return 0;
fail:
    free(w);
    kill_channel(c, "it does not take its messages");
    return -1;
}

int channel_send(struct channel *c, enum msg_type type, uint64_t id, const void *body, int fd)
{
    if (c->dead || !msg_allowed(type, c->self, c->peer))
        return -1;
    struct buf record = {0};
    int rc = msg_encode(&record, type, id, body);
    if (rc == 0 && STAILQ_EMPTY(&c->queue)) {
        rc = try_send(c, buf_view(&record), fd);
        if (rc < 0)
            kill_channel(c, NULL);
    } else if (rc == 0) {
        rc = 1;
    }
    if (rc == 1)
        rc = enqueue(c, &record, fd);
    buf_free(&record);
    return rc;
}

struct channel *channel_new(struct event_base *base, int socket, enum role_name self,
                            enum role_name peer, const struct channel_handlers *handlers, void *arg)
{
    struct channel *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->socket = socket;
    c->self = self;
    c->peer = peer;
    c->handlers = *handlers;
    c->arg = arg;
    STAILQ_INIT(&c->queue);
    c->readable = event_new(base, socket, EV_READ | EV_PERSIST, on_readable, c);
    c->writable = event_new(base, socket, EV_WRITE | EV_PERSIST, on_writable, c);
    c->ending = event_new(base, -1, 0, on_ending, c);
    if (!c->readable || !c->writable || !c->ending || fcntl(socket, F_SETFL, O_NONBLOCK) ||
        fcntl(socket, F_SETFD, FD_CLOEXEC) || event_add(c->readable, NULL)) {
        c->socket = -1; /* stays the caller's */
        channel_free(c);
        return NULL;
    }
    return c;
}

size_t channel_queued(const struct channel *c)
{
    return c->queued;
}

void channel_free(struct channel *c)
{
    if (!c)
        return;
    struct event *events[] = {c->readable, c->writable, c->ending};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    drop_queue(c);
    if (c->socket >= 0)
        close(c->socket);
    free(c);
}
