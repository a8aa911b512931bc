#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>

#include "common/msg.h"
#include "temp.h"

/* ---- the table once more, read here apart from msg.c ---- */

enum kind { F_U8, F_U32, F_U64, F_TEXT, F_BYTES };
struct field {
    enum kind kind;
    size_t offset, max;
};
enum group {
    G_SUPERVISOR = PROC_SUPERVISOR,
    G_FRONT = PROC_FRONT,
    G_AUTHORITY = PROC_AUTHORITY,
    G_SIGNER = PROC_SIGNER,
    G_PUBLISHER = PROC_PUBLISHER,
    G_ADMIN = PROC_ADMIN,
    G_ANY,
    G_ASKER
};
#define ROLES (PROC_ADMIN + 1)

#define F_u8(name) {F_U8, offsetof(OWNER, name), 0},
#define F_u32(name) {F_U32, offsetof(OWNER, name), 0},
#define F_u64(name) {F_U64, offsetof(OWNER, name), 0},
#define F_i64(name) {F_U64, offsetof(OWNER, name), 0},
#define F_text(name, most) {F_TEXT, offsetof(OWNER, name), most},
#define F_bytes(name, most) {F_BYTES, offsetof(OWNER, name), most},
#define MSG(name, number, ...) MSG_TABLE(name, __VA_ARGS__)
#define MSG_TABLE(name, from, to, ...)                                                             \
    static const struct field *fields_##name(size_t *count)                                        \
    {                                                                                              \
        typedef struct msg_##name OWNER;                                                           \
        static const struct field fields[] = {__VA_ARGS__};                                        \
        *count = sizeof fields / sizeof *fields;                                                   \
        return fields;                                                                             \
    }
#include "common/msg_fields.h"
#undef MSG

static const struct kind_of_message {
    const char *name;
    enum msg_type type;
    enum group from, to;
    const struct field *(*fields)(size_t *count);
} messages[] = {
#define MSG(name, number, sender, receiver, ...)                                                   \
    {#name, MSG_##name, G_##sender, G_##receiver, fields_##name},
#include "common/msg_fields.h"
#undef MSG
};
#define MESSAGES (sizeof messages / sizeof *messages)

union body {
#define MSG(name, ...) struct msg_##name m_##name;
#include "common/msg_fields.h"
#undef MSG
};

/* ---- bodies, and an encoder of our own ---- */

static uint64_t seed = 20261123;

static uint64_t any(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint8_t pool[128 * 1024];

/* Random content of this size: of text one without NUL, ended by one. */
static void fill_field(void *at, const struct field *f, size_t len)
{
    uint64_t number = any();
    uint8_t *content = malloc(len + 1);
    assert_non_null(content);
    memcpy(content, pool + any() % 1000, len);
    for (size_t i = 0; f->kind == F_TEXT && i < len; i++)
        content[i] = content[i] ? content[i] : 'a';
    content[len] = '\0';
    if (f->kind == F_TEXT)
        *(char **)at = (char *)content;
    else if (f->kind == F_BYTES)
        *(struct bytes *)at = (struct bytes){content, len};
    else
        memcpy(at, &number, f->kind == F_U8 ? 1 : f->kind == F_U32 ? 4 : 8);
    if (f->kind != F_TEXT && f->kind != F_BYTES)
        free(content);
}

enum size { SMALLEST, LARGEST, RANDOM, SHORT };

static size_t length_for(const struct field *f, enum size size)
{
    switch (size) {
    case SMALLEST:
        return 0;
    case LARGEST:
        return f->max;
    case RANDOM:
        return any() % (f->max + 1);
    case SHORT:
        return any() % ((f->max < 12 ? f->max : 12) + 1);
    }
    return 0;
}

static void fill(union body *b, const struct kind_of_message *m, enum size size)
{
    size_t count;
    const struct field *f = m->fields(&count);
    for (size_t i = 0; i < count; i++)
        fill_field((uint8_t *)b + f[i].offset, &f[i], length_for(&f[i], size));
}

static void empty(union body *b, const struct kind_of_message *m)
{
    size_t count;
    const struct field *f = m->fields(&count);
    for (size_t i = 0; i < count; i++) {
        void *at = (uint8_t *)b + f[i].offset;
        if (f[i].kind == F_TEXT)
            free(*(char **)at);
        if (f[i].kind == F_BYTES)
            free((void *)(uintptr_t)((struct bytes *)at)->data);
    }
}

static void add(struct buf *b, const void *data, size_t len)
{
    assert_int_equal(buf_add(b, data, len), 0);
}

static void add_number(struct buf *b, uint64_t n, unsigned width)
{
    while (width--) {
        uint8_t byte = (uint8_t)(n >> 8 * width);
        add(b, &byte, 1);
    }
}

static void add_field(struct buf *b, const struct field *f, const void *at)
{
    const char *text;
    struct bytes run;
    switch (f->kind) {
    case F_U8:
        add_number(b, *(const uint8_t *)at, 1);
        break;
    case F_U32:
        add_number(b, *(const uint32_t *)at, 4);
        break;
    case F_U64:
        add_number(b, *(const uint64_t *)at, 8);
        break;
    case F_TEXT:
        text = *(const char *const *)at;
        add_number(b, strlen(text) + 1, 4);
        add(b, text, strlen(text) + 1);
        break;
    case F_BYTES:
        run = *(const struct bytes *)at;
        add_number(b, run.len, 4);
        add(b, run.data, run.len);
        break;
    }
}

/* The fields as the contract has them; what is behind number `stop` is left out. */
static void add_fields(struct buf *b, const struct kind_of_message *m, const union body *body,
                       size_t stop)
{
    size_t count;
    const struct field *f = m->fields(&count);
    for (size_t i = 0; i < count && i < stop; i++)
        add_field(b, &f[i], (const uint8_t *)body + f[i].offset);
}

static void add_header(struct buf *b, unsigned type, uint64_t length, uint64_t id)
{
    add_number(b, MSG_VERSION, 1);
    add_number(b, type, 1);
    add_number(b, 0, 2);
    add_number(b, length, 4);
    add_number(b, id, 8);
}

/* In memory of exactly this size, so that the sanitizer sees one byte too many. */
static int decode_exactly(union body *out, unsigned type, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, data, len);
    int rc = msg_decode(out, (enum msg_type)type, (struct bytes){copy, len});
    free(copy);
    return rc;
}

/* ---- encoding and decoding ---- */

static void assert_round_trip(const struct kind_of_message *m, enum size size)
{
    union body body, back;
    struct buf record = {0}, again = {0}, fields = {0};
    struct bytes view;
    unsigned type = 0;
    uint64_t id = any(), id_back = 0;
    fill(&body, m, size);
    add_fields(&fields, m, &body, SIZE_MAX);
    int rc = msg_encode(&record, m->type, id, &body);
    if (fields.len + MSG_HEADER > MSG_MAX) {
        assert_int_equal(rc, -1);
        goto out;
    }
    assert_int_equal(rc, 0);
    add_header(&again, m->type, fields.len, id);
    add(&again, fields.data, fields.len);
    assert_true(bytes_equal(buf_view(&record), buf_view(&again)));

    assert_int_equal(msg_open(buf_view(&record), &type, &id_back, &view), 0);
    assert_int_equal(type, m->type);
    assert_true(id_back == id);
    memset(&back, 0xee, sizeof back);
    assert_int_equal(msg_decode(&back, m->type, view), 0);
    fields.len = 0;
    add_fields(&fields, m, &back, SIZE_MAX);
    assert_true(bytes_equal(view, buf_view(&fields)));
out:
    empty(&body, m);
    buf_free(&record);
    buf_free(&again);
    buf_free(&fields);
}

static void every_message_round_trips(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        assert_round_trip(&messages[i], SMALLEST);
        assert_round_trip(&messages[i], LARGEST);
        for (int n = 0; n < 20; n++)
            assert_round_trip(&messages[i], RANDOM);
    }
}

/* All fits a record even at its maxima, but what carries two PEM chains. */
static void what_cannot_fit_a_record_is_known(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        union body body;
        struct buf fields = {0};
        fill(&body, &messages[i], LARGEST);
        add_fields(&fields, &messages[i], &body, SIZE_MAX);
        assert_int_equal(fields.len + MSG_HEADER > MSG_MAX, messages[i].type == MSG_listener);
        empty(&body, &messages[i]);
        buf_free(&fields);
    }
}

static void no_text_is_sent_as_empty_text(void **state)
{
    struct msg_ready m = {.detail = NULL}, back;
    struct buf record = {0};
    (void)state;
    assert_int_equal(msg_encode(&record, MSG_ready, 1, &m), 0);
    struct bytes fields = {record.data + MSG_HEADER, record.len - MSG_HEADER};
    assert_int_equal(msg_decode(&back, MSG_ready, fields), 0);
    assert_string_equal(back.detail, "");
    buf_free(&record);
}

static void a_field_over_its_maximum_is_not_sent(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        size_t count;
        const struct field *f = messages[i].fields(&count);
        for (size_t n = 0; n < count; n++) {
            union body body;
            struct buf record = {0};
            void *at = (uint8_t *)&body + f[n].offset;
            if (f[n].kind != F_TEXT && f[n].kind != F_BYTES)
                continue;
            fill(&body, &messages[i], SMALLEST);
            free(f[n].kind == F_TEXT ? *(void **)at
                                     : (void *)(uintptr_t)((struct bytes *)at)->data);
            fill_field(at, &f[n], f[n].max + 1);
            assert_int_equal(msg_encode(&record, messages[i].type, 1, &body), -1);
            empty(&body, &messages[i]);
            buf_free(&record);
        }
    }
}

static void a_field_over_its_maximum_is_not_taken(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++) {
        size_t count;
        const struct field *f = messages[i].fields(&count);
        for (size_t n = 0; n < count; n++) {
            union body body, back;
            struct buf fields = {0};
            if (f[n].kind != F_TEXT && f[n].kind != F_BYTES)
                continue;
            fill(&body, &messages[i], SMALLEST);
            for (size_t over = 0; over < 2; over++) { /* the maximum itself is taken */
                size_t len = f[n].max + over;
                fields.len = 0;
                add_fields(&fields, &messages[i], &body, n);
                add_number(&fields, len + (f[n].kind == F_TEXT), 4);
                for (size_t k = 0; k < len; k++)
                    add(&fields, "x", 1);
                if (f[n].kind == F_TEXT)
                    add(&fields, "", 1);
                for (size_t k = n + 1; k < count; k++)
                    add_field(&fields, &f[k], (uint8_t *)&body + f[k].offset);
                assert_int_equal(decode_exactly(&back, messages[i].type, fields.data, fields.len),
                                 over ? -1 : 0);
            }
            empty(&body, &messages[i]);
            buf_free(&fields);
        }
    }
}

static void every_truncation_and_a_trailing_byte_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < MESSAGES; i++)
        for (int n = 0; n < 5; n++) {
            union body body, back;
            struct buf fields = {0};
            fill(&body, &messages[i], n ? SHORT : SMALLEST);
            add_fields(&fields, &messages[i], &body, SIZE_MAX);
            for (size_t len = 0; len < fields.len; len++)
                assert_int_equal(decode_exactly(&back, messages[i].type, fields.data, len), -1);
            assert_int_equal(decode_exactly(&back, messages[i].type, fields.data, fields.len), 0);
            add(&fields, "", 1);
            assert_int_equal(decode_exactly(&back, messages[i].type, fields.data, fields.len), -1);
            empty(&body, &messages[i]);
            buf_free(&fields);
        }
}

/* No length leads outside, whatever stands in its four bytes. */
static void a_length_is_checked_before_use(void **state)
{
    static const uint32_t lengths[] = {1, 2, 33, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    union body back;
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct buf fields = {0};
        add_number(&fields, lengths[i], 4);
        assert_int_equal(decode_exactly(&back, MSG_crl_failed, fields.data, fields.len), -1);
        assert_int_equal(decode_exactly(&back, MSG_signed, fields.data, fields.len), -1);
        buf_free(&fields);
    }
}

static void text_ends_with_its_only_nul(void **state)
{
    static const struct {
        const char *text;
        uint32_t len;
        int rc;
    } rows[] = {{"ab\0", 3, 0},  {"\0", 1, 0},      {"ab", 2, -1}, {"a\0b\0", 4, -1},
                {"\0\0", 2, -1}, {"ab\0\0", 4, -1}, {"", 0, -1},   {"\0b", 2, -1}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        union body back;
        struct buf fields = {0};
        add_number(&fields, rows[i].len, 4);
        add(&fields, rows[i].text, rows[i].len);
        assert_int_equal(decode_exactly(&back, MSG_crl_failed, fields.data, fields.len),
                         rows[i].rc);
        buf_free(&fields);
    }
}

static void a_header_that_is_not_ours_is_refused(void **state)
{
    uint8_t good[MSG_HEADER + 3] = {MSG_VERSION, MSG_ready, 0, 0, 0, 0, 0, 3,
                                    1,           2,         3, 4, 5, 6, 7, 8};
    struct bytes record = {good, sizeof good}, fields;
    unsigned type;
    uint64_t id;
    (void)state;
    assert_int_equal(msg_open(record, &type, &id, &fields), 0);
    assert_true(id == 0x0102030405060708);
    assert_int_equal(fields.len, 3);
    assert_ptr_equal(fields.data, good + MSG_HEADER);
    for (size_t len = 0; len < sizeof good; len++)
        assert_int_equal(msg_open((struct bytes){good, len}, &type, &id, &fields), -1);
    for (size_t at = 0; at < 8; at++) /* every bit of version, reserved and length counts */
        for (int bit = 0; bit < 8; bit++) {
            uint8_t bad[sizeof good];
            memcpy(bad, good, sizeof good);
            bad[at] ^= (uint8_t)(1 << bit);
            assert_int_equal(msg_open((struct bytes){bad, sizeof bad}, &type, &id, &fields),
                             at == 1 ? 0 : -1);
        }
}

static void an_unknown_type_is_nothing(void **state)
{
    union body body = {0};
    struct buf record = {0};
    (void)state;
    for (unsigned type = 0; type < 300; type++) {
        int known = 0;
        for (size_t i = 0; i < MESSAGES; i++)
            known |= messages[i].type == type;
        if (known)
            continue;
        assert_string_equal(msg_name(type), "?");
        assert_int_equal(msg_encode(&record, (enum msg_type)type, 1, &body), -1);
        assert_int_equal(decode_exactly(&body, type, NULL, 0), -1);
    }
    for (size_t i = 0; i < MESSAGES; i++) {
        assert_string_equal(msg_name(messages[i].type), messages[i].name);
        assert_in_range(messages[i].type, 1, 255);
    }
    buf_free(&record);
}

/* ---- who may send what ---- */

static int belongs(enum role_name who, enum group group)
{
    if (group == G_ANY) /* those that a supervisor starts for good */
        return who == PROC_FRONT || who == PROC_AUTHORITY || who == PROC_SIGNER;
    if (group == G_ASKER)
        return who == PROC_FRONT || who == PROC_ADMIN;
    return (int)who == (int)group;
}

static void what_the_table_does_not_allow_is_refused(void **state)
{
    int allowed = 0;
    (void)state;
    for (unsigned type = 0; type < 300; type++)
        for (int from = 0; from < ROLES + 2; from++)
            for (int to = 0; to < ROLES + 2; to++) {
                int expected = 0;
                for (size_t i = 0; i < MESSAGES; i++)
                    expected |= messages[i].type == type &&
                                belongs((enum role_name)from, messages[i].from) &&
                                belongs((enum role_name)to, messages[i].to);
                assert_int_equal(msg_allowed(type, (enum role_name)from, (enum role_name)to),
                                 expected);
                allowed += expected;
            }
    assert_true(allowed > (int)MESSAGES && allowed < 2 * (int)MESSAGES);
}

/* What would matter most, spelled out. */
static void nobody_but_the_authority_asks_a_signer(void **state)
{
    (void)state;
    for (int from = 0; from < ROLES; from++) {
        enum role_name who = (enum role_name)from;
        assert_int_equal(msg_allowed(MSG_sign, who, PROC_SIGNER), who == PROC_AUTHORITY);
        assert_int_equal(msg_allowed(MSG_admin_operator_issue, who, PROC_AUTHORITY),
                         who == PROC_ADMIN);
        assert_int_equal(msg_allowed(MSG_peer, who, PROC_AUTHORITY), who == PROC_SUPERVISOR);
        assert_int_equal(msg_allowed(MSG_pin_retry, who, PROC_SUPERVISOR), who == PROC_AUTHORITY);
        for (unsigned type = 0; type < 256; type++)
            if (who != PROC_AUTHORITY)
                assert_int_equal(msg_allowed(type, PROC_FRONT, who),
                                 who == PROC_SUPERVISOR &&
                                     (type == MSG_ready || type == MSG_failed));
    }
}

/* ---- sockets ---- */

static void pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

/* A record with as many descriptors as told. */
static void send_with(int socket, const void *data, size_t len, int fds)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(16 * sizeof(int))];
    } with = {0};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds) {
        h.msg_control = with.room;
        h.msg_controllen = CMSG_SPACE((size_t)fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)fds * sizeof(int));
        for (int i = 0; i < fds; i++)
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &socket, sizeof(int));
    }
    assert_int_equal(sendmsg(socket, &h, MSG_NOSIGNAL), len);
}

static void a_record_comes_whole_or_not_at_all(void **state)
{
    int ends[2], fd = -1;
    uint8_t room[8];
    size_t len = 0;
    (void)state;
    pair(ends);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), 2);
    send_with(ends[0], "12345678", 8, 0);
    send_with(ends[0], "123456789", 9, 0);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), 1);
    assert_int_equal(len, 8);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), -1);
    close(ends[0]);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), 0);
    assert_int_equal(fd, -1);
    close(ends[1]);
}

/* More than one, or with a record that is not taken: none stays open here. */
static void descriptors_do_not_pile_up(void **state)
{
    static const struct {
        size_t len;
        int fds, rc, kept;
    } rows[] = {{4, 0, 1, 0},  {4, 1, 1, 1},  {4, 2, -1, 0}, {4, 3, -1, 0}, {4, 16, -1, 0},
                {9, 1, -1, 0}, {9, 2, -1, 0}, {0, 1, 0, 0},  {0, 2, -1, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int ends[2], fd = -1;
        uint8_t room[8];
        size_t len = 0;
        pair(ends);
        send_with(ends[0], "123456789", rows[i].len, rows[i].fds);
        int before = temp_fds();
        int got = msg_socket_receive(ends[1], room, sizeof room, &len, &fd);
        if (got != rows[i].rc && !(rows[i].len == 0 && got <= 0))
            fail_msg("row %zu: %d", i, got);
        assert_int_equal(temp_fds(), before + rows[i].kept);
        assert_int_equal(fd >= 0, rows[i].kept);
        if (fd >= 0) {
            assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            close(fd);
        }
        close(ends[0]);
        close(ends[1]);
    }
}

/* The kernel reports a reset before what the dead peer had said; that must not be lost. */
static void what_a_peer_said_before_it_died_is_heard(void **state)
{
    int ends[2], fd = -1;
    uint8_t room[8];
    size_t len = 0;
    (void)state;
    pair(ends);
    send_with(ends[0], "last", 4, 0);
    send_with(ends[1], "unread", 6, 0);
    close(ends[0]);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), 1);
    assert_int_equal(len, 4);
    assert_memory_equal(room, "last", 4);
    assert_int_equal(msg_socket_receive(ends[1], room, sizeof room, &len, &fd), 0);
    close(ends[1]);
}

static void the_blocking_forms_carry_a_message(void **state)
{
    static struct msg in;
    struct msg_document body = {.path = "/crl", .content_type = "x", .modified = -1}, back;
    int ends[2], before = temp_fds();
    (void)state;
    pair(ends);
    assert_int_equal(msg_send_wait(ends[0], MSG_document, 7, &body, ends[0]), 0);
    assert_int_equal(msg_receive(ends[1], &in, PROC_AUTHORITY, PROC_FRONT), 1);
    assert_int_equal(in.type, MSG_document);
    assert_true(in.id == 7);
    assert_int_equal(msg_decode(&back, in.type, in.fields), 0);
    assert_string_equal(back.path, "/crl");
    assert_true(back.modified == -1);
    assert_true(in.fd >= 0 && in.fd != ends[0]);
    close(in.fd);
    close(ends[0]);
    assert_int_equal(msg_receive(ends[1], &in, PROC_AUTHORITY, PROC_FRONT), 0);
    assert_int_equal(in.fd, -1);
    assert_int_equal(msg_send_wait(ends[1], MSG_document, 7, &body, -1), -1); /* and no SIGPIPE */
    close(ends[1]);
    assert_int_equal(temp_fds(), before);
}

static void the_blocking_form_refuses_and_closes(void **state)
{
    static struct msg in;
    struct msg_document document = {0};
    struct msg_status status = {0};
    int ends[2];
    (void)state;
    pair(ends);
    int before = temp_fds();
    /* not in the table */
    assert_int_equal(msg_send_wait(ends[0], MSG_document, 7, &document, ends[0]), 0);
    assert_int_equal(msg_receive(ends[1], &in, PROC_FRONT, PROC_AUTHORITY), -1);
    assert_int_equal(in.fd, -1);
    /* a descriptor with a message that has none */
    assert_int_equal(msg_send_wait(ends[0], MSG_status, 7, &status, ends[0]), 0);
    assert_int_equal(msg_receive(ends[1], &in, PROC_FRONT, PROC_AUTHORITY), -1);
    assert_int_equal(in.fd, -1);
    /* malformed */
    send_with(ends[0], "xxxx", 4, 1);
    assert_int_equal(msg_receive(ends[1], &in, PROC_AUTHORITY, PROC_FRONT), -1);
    assert_int_equal(in.fd, -1);
    assert_int_equal(temp_fds(), before);
    close(ends[0]);
    close(ends[1]);
}

static int make_pool(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (uint8_t)any();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_round_trips),
        cmocka_unit_test(what_cannot_fit_a_record_is_known),
        cmocka_unit_test(no_text_is_sent_as_empty_text),
        cmocka_unit_test(a_field_over_its_maximum_is_not_sent),
        cmocka_unit_test(a_field_over_its_maximum_is_not_taken),
        cmocka_unit_test(every_truncation_and_a_trailing_byte_are_refused),
        cmocka_unit_test(a_length_is_checked_before_use),
        cmocka_unit_test(text_ends_with_its_only_nul),
        cmocka_unit_test(a_header_that_is_not_ours_is_refused),
        cmocka_unit_test(an_unknown_type_is_nothing),
        cmocka_unit_test(what_the_table_does_not_allow_is_refused),
        cmocka_unit_test(nobody_but_the_authority_asks_a_signer),
        cmocka_unit_test(a_record_comes_whole_or_not_at_all),
        cmocka_unit_test(descriptors_do_not_pile_up),
        cmocka_unit_test(what_a_peer_said_before_it_died_is_heard),
        cmocka_unit_test(the_blocking_forms_carry_a_message),
        cmocka_unit_test(the_blocking_form_refuses_and_closes),
    };
    return cmocka_run_group_tests(tests, make_pool, NULL);
}
