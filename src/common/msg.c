#include "common/msg.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum kind { U8, U32, U64, TEXT, BYTES };

struct field {
    enum kind kind;
    size_t offset; /* in the message's struct */
    uint32_t max;  /* of text and bytes */
};

/* Groups in the table of messages, beside enum role_name. */
enum { PROC_ANY = 100, PROC_ASKER };

#define F_u8(name) {U8, offsetof(OWNER, name), 0},
#define F_u32(name) {U32, offsetof(OWNER, name), 0},
#define F_u64(name) {U64, offsetof(OWNER, name), 0},
#define F_i64(name) {U64, offsetof(OWNER, name), 0},
#define F_text(name, max) {TEXT, offsetof(OWNER, name), max},
#define F_bytes(name, max) {BYTES, offsetof(OWNER, name), max},

/* The fields of a type, from the one table; NULL for a type that is not in it. */
static const struct field *fields_of(unsigned type, size_t *count)
{
    switch (type) {
#define MSG(name, number, from, to, ...)                                                           \
    case number: {                                                                                 \
        typedef struct msg_##name OWNER;                                                           \
        static const struct field fields[] = {__VA_ARGS__};                                        \
        *count = sizeof fields / sizeof *fields;                                                   \
        return fields;                                                                             \
    }
#include "common/msg_fields.h"
#undef MSG
    }
    *count = 0;
    return NULL;
}

const char *msg_name(unsigned type)
{
    switch (type) {
#define MSG(name, number, ...)                                                                     \
    case number:                                                                                   \
        return #name;
#include "common/msg_fields.h"
#undef MSG
    }
    return "?";
}

static int is(enum role_name who, int group)
{
    if (group == PROC_ANY)
        return who == PROC_FRONT || who == PROC_AUTHORITY || who == PROC_SIGNER;
    if (group == PROC_ASKER)
        return who == PROC_FRONT || who == PROC_ADMIN;
    return (int)who == group;
}

int msg_allowed(unsigned type, enum role_name from, enum role_name to)
{
    switch (type) {
#define MSG(name, number, sender, receiver, ...)                                                   \
    case number:                                                                                   \
        return is(from, PROC_##sender) && is(to, PROC_##receiver);
#include "common/msg_fields.h"
#undef MSG
    }
    return 0;
}

int msg_takes_fd(unsigned type)
{
    return type == MSG_peer || type == MSG_document || type == MSG_reload || type == MSG_crl_done ||
           type == MSG_ocsp_told;
}

static int put_number(struct buf *out, uint64_t value, unsigned width)
{
    uint8_t b[8];
    for (unsigned i = 0; i < width; i++)
        b[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    return buf_add(out, b, width);
}

static int put_run(struct buf *out, struct bytes run, uint32_t max)
{
    return run.len > max || put_number(out, run.len, 4) || buf_add(out, run.data, run.len) ? -1 : 0;
}

static int put_text(struct buf *out, const char *text, uint32_t max)
{
    if (!text)
        text = "";
    return put_run(out, (struct bytes){(const uint8_t *)text, strlen(text) + 1}, max + 1);
}

static int put_field(struct buf *out, const struct field *f, const uint8_t *body)
{
    const void *value = body + f->offset;
    switch (f->kind) {
    case U8:
        return put_number(out, *(const uint8_t *)value, 1);
    case U32:
        return put_number(out, *(const uint32_t *)value, 4);
    case U64:
        return put_number(out, *(const uint64_t *)value, 8);
    case TEXT:
        return put_text(out, *(const char *const *)value, f->max);
    case BYTES:
        return put_run(out, *(const struct bytes *)value, f->max);
    }
    return -1;
}

int msg_encode(struct buf *out, enum msg_type type, uint64_t id, const void *body)
{
    size_t count;
    const struct field *fields = fields_of(type, &count);
    out->len = 0;
    if (!fields || put_number(out, MSG_VERSION, 1) || put_number(out, type, 1) ||
        put_number(out, 0, 2) || put_number(out, 0, 4) || put_number(out, id, 8))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (put_field(out, &fields[i], body))
            return -1;
    if (out->len > MSG_MAX)
        return -1;
    size_t length = out->len - MSG_HEADER;
    for (unsigned i = 0; i < 4; i++)
        out->data[4 + i] = (uint8_t)(length >> (8 * (3 - i)));
    return 0;
}

/* Takes width bytes from the front of *in. */
static int get_number(struct bytes *in, uint64_t *value, size_t width)
{
    if (in->len < width)
        return -1;
    *value = 0;
    for (size_t i = 0; i < width; i++)
        *value = *value << 8 | in->data[i];
    in->data += width;
    in->len -= width;
    return 0;
}

static int get_run(struct bytes *in, struct bytes *run, uint32_t max)
{
    uint64_t len;
    if (get_number(in, &len, 4) || len > max || len > in->len)
        return -1;
    *run = (struct bytes){in->data, (size_t)len};
    in->data += len;
    in->len -= (size_t)len;
    return 0;
}

static int get_text(struct bytes *in, const char **text, uint32_t max)
{
    struct bytes run;
    if (get_run(in, &run, max + 1) || run.len == 0 ||
        memchr(run.data, '\0', run.len) != run.data + run.len - 1)
        return -1;
    *text = (const char *)run.data;
    return 0;
}

static int get_field(struct bytes *in, const struct field *f, uint8_t *body)
{
    void *value = body + f->offset;
    uint64_t number;
    switch (f->kind) {
    case U8:
        if (get_number(in, &number, 1))
            return -1;
        *(uint8_t *)value = (uint8_t)number;
        return 0;
    case U32:
        if (get_number(in, &number, 4))
            return -1;
        *(uint32_t *)value = (uint32_t)number;
        return 0;
    case U64:
        return get_number(in, (uint64_t *)value, 8);
    case TEXT:
        return get_text(in, (const char **)value, f->max);
    case BYTES:
        return get_run(in, (struct bytes *)value, f->max);
    }
    return -1;
}

int msg_open(struct bytes record, unsigned *type, uint64_t *id, struct bytes *fields)
{
    uint64_t version, kind, zero, length;
    if (get_number(&record, &version, 1) || get_number(&record, &kind, 1) ||
        get_number(&record, &zero, 2) || get_number(&record, &length, 4) ||
        get_number(&record, id, 8))
        return -1;
    if (version != MSG_VERSION || zero != 0 || length != record.len)
        return -1;
    *type = (unsigned)kind;
    *fields = record;
    return 0;
}

int msg_decode(void *body, enum msg_type type, struct bytes in)
{
    size_t count;
    const struct field *fields = fields_of(type, &count);
    if (!fields)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (get_field(&in, &fields[i], body))
            return -1;
    return in.len == 0 ? 0 : -1;
}

union ancillary {
    struct cmsghdr header; /* for its alignment */
    char room[CMSG_SPACE(sizeof(int))];
};

ssize_t msg_socket_send(int socket, struct bytes record, int fd, int flags)
{
    struct iovec iov = {(void *)(uintptr_t)record.data, record.len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    union ancillary with = {0};
    if (fd >= 0) {
        h.msg_control = with.room;
        h.msg_controllen = sizeof with.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n;
    do
        n = sendmsg(socket, &h, flags | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
}

/* The descriptors of a record: how many, and the one in *fd (-1: none). More than one is more than
 * any message has: they are closed, else a peer could fill our table with them. The kernel closes
 * those that did not fit (MSG_CTRUNC). */
static size_t take_fds(struct msghdr *h, int *fd)
{
    size_t count = 0;
    *fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++, count++) {
            if (*fd >= 0)
                close(*fd);
            memcpy(fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        }
    }
    return count;
}

int msg_socket_receive(int socket, uint8_t *record, size_t size, size_t *len, int *fd)
{
    struct iovec iov = {record, size};
    union ancillary with;
    struct msghdr h = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = with.room,
                       .msg_controllen = sizeof with.room};
    ssize_t n;
    /* a peer that died with our messages unread: Linux reports that (once) before the records it
     * had sent, and those are still to be heard */
    do
        n = recvmsg(socket, &h, MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 2 : -1;
    size_t fds = take_fds(&h, fd);
    if (n == 0 && fds == 0)
        return 0;
    if (n == 0 || fds > 1 || h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        return -1;
    }
    *len = (size_t)n;
    return 1;
}

int msg_send_wait(int socket, enum msg_type type, uint64_t id, const void *body, int fd)
{
    struct buf record = {0};
    int rc = -1;
    if (msg_encode(&record, type, id, body) == 0 &&
        msg_socket_send(socket, buf_view(&record), fd, 0) == (ssize_t)record.len)
        rc = 0;
    buf_free(&record);
    return rc;
}

int msg_receive(int socket, struct msg *m, enum role_name from, enum role_name to)
{
    size_t len;
    m->fd = -1;
    int got = msg_socket_receive(socket, m->record, sizeof m->record, &len, &m->fd);
    if (got != 1)
        return got == 0 ? 0 : -1;
    unsigned type;
    if (msg_open((struct bytes){m->record, len}, &type, &m->id, &m->fields) == 0 &&
        msg_allowed(type, from, to) && (m->fd < 0 || msg_takes_fd(type))) {
        m->type = (enum msg_type)type;
        return 1;
    }
    if (m->fd >= 0)
        close(m->fd);
    m->fd = -1;
    return -1;
}
