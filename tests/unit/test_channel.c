#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/socket.h>

#include "common/channel.h"
#include "temp.h"

/* One end: what came, and how it ended. */
struct end {
    struct channel *c;
    uint64_t received, ended, next_id;
    const char *why;
    int out_of_order, refuse, free_at_end, in_send;
    enum msg_type last;
    int fd;
    const struct msg_chain *flood; /* sent until the channel is dead */
    size_t reply_len;              /* of a signature sent back for each digest; 0: none */
    int takes_long;                /* to handle a message, ms */
    const struct end *beside;      /* how much that one had received is noted in had */
    uint64_t had;
};

static struct event_base *base;
static struct event *tick;
static uint8_t pool[65536];

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    struct end *e = arg;
    assert_false(e->in_send);
    e->received++;
    e->last = m->type;
    e->fd = m->fd;
    e->out_of_order |= m->id != e->next_id++;
    if (e->beside && e->received == 1)
        e->had = e->beside->received;
    if (e->takes_long)
        nanosleep(&(struct timespec){.tv_nsec = e->takes_long * 1000000L}, NULL);
    while (e->flood && channel_send(c, MSG_chain, 0, e->flood, -1) == 0)
        ;
    if (e->refuse)
        return -1;
    if (e->reply_len) {
        struct msg_signed s = {.signature = {pool, e->reply_len}};
        channel_send(c, MSG_signed, m->id, &s, -1);
    }
    return 0;
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct end *e = arg;
    assert_false(e->in_send); /* from the loop, never from within a call */
    e->ended++;
    e->why = why;
    if (e->free_at_end) {
        channel_free(c);
        e->c = NULL;
    }
}

static const struct channel_handlers handlers = {on_message, on_end};

static void pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

static void open_end(struct end *e, int socket, enum role_name self, enum role_name peer)
{
    *e = (struct end){.fd = -1};
    e->c = channel_new(base, socket, self, peer, &handlers, e);
    assert_non_null(e->c);
}

static int send_to(struct end *e, enum msg_type type, uint64_t id, const void *body, int fd)
{
    e->in_send = 1;
    int rc = channel_send(e->c, type, id, body, fd);
    e->in_send = 0;
    return rc;
}

static void settle(void)
{
    for (int i = 0; i < 20; i++)
        event_base_loop(base, EVLOOP_ONCE); /* a tick returns from it */
}

/* Runs the loop until *what is n, or for half a minute; then on, for what must not happen. */
static void run_until(const uint64_t *what, uint64_t n)
{
    for (int i = 0; i < 30000 && *what < n; i++)
        event_base_loop(base, EVLOOP_ONCE);
    settle();
}

static void raw_send(int socket, const struct buf *record, int fd)
{
    assert_int_equal(msg_socket_send(socket, buf_view(record), fd, 0), record->len);
}

static void messages_come_in_order(void **state)
{
    struct end authority, front;
    struct msg_status ask = {.caller_address = "x"};
    int ends[2];
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&front, ends[1], PROC_FRONT, PROC_AUTHORITY);
    for (uint64_t i = 0; i < 500; i++)
        assert_int_equal(send_to(&front, MSG_status, i, &ask, -1), 0);
    run_until(&authority.received, 500);
    assert_int_equal(authority.received, 500);
    assert_int_equal(authority.last, MSG_status);
    assert_false(authority.out_of_order);
    assert_int_equal(channel_queued(front.c), 0);
    assert_int_equal(authority.ended + front.ended, 0);
    assert_true(fcntl(ends[0], F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(ends[0], F_GETFL) & O_NONBLOCK);
    channel_free(authority.c);
    channel_free(front.c);
    assert_int_equal(fcntl(ends[0], F_GETFD), -1);
}

/* Who asks for what takes long gets less of each round: nobody waits for all that it asked. */
static void a_costly_peer_keeps_no_other_waiting(void **state)
{
    struct end costly, quick;
    struct msg_status ask = {.caller_address = "x"};
    struct buf record = {0};
    int ends[2], other[2];
    (void)state;
    pair(ends);
    pair(other);
    open_end(&costly, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&quick, other[0], PROC_AUTHORITY, PROC_FRONT);
    costly.takes_long = 10;
    quick.beside = &costly;
    assert_int_equal(msg_encode(&record, MSG_status, 0, &ask), 0);
    for (int i = 0; i < 20; i++)
        raw_send(ends[1], &record, -1);
    raw_send(other[1], &record, -1);
    run_until(&costly.received, 20);
    assert_int_equal(costly.received, 20);
    assert_int_equal(quick.received, 1);
    assert_true(quick.had <= 1);
    buf_free(&record);
    channel_free(costly.c);
    channel_free(quick.c);
    close(ends[1]);
    close(other[1]);
}

/* Both send far more than the sockets hold before either reads: nobody waits for the other. */
static void bursts_both_ways_do_not_lock(void **state)
{
    struct end authority, front;
    struct msg_chain down = {.issuer_der = {pool, 100}, .chain_pem = {pool, 20000}};
    struct msg_issue up = {.spki = {pool, 1024}};
    int ends[2], small = 30000;
    (void)state;
    pair(ends);
    for (int i = 0; i < 2; i++)
        assert_int_equal(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&front, ends[1], PROC_FRONT, PROC_AUTHORITY);
    for (uint64_t i = 0; i < 300; i++) {
        assert_int_equal(send_to(&authority, MSG_chain, i, &down, -1), 0);
        for (uint64_t k = 0; k < 10; k++)
            assert_int_equal(send_to(&front, MSG_issue, 10 * i + k, &up, -1), 0);
    }
    assert_true(channel_queued(authority.c) > 5000000);
    assert_true(channel_queued(front.c) > 1000000);
    run_until(&front.received, 300);
    run_until(&authority.received, 3000);
    assert_int_equal(front.received, 300);
    assert_int_equal(authority.received, 3000);
    assert_false(front.out_of_order || authority.out_of_order);
    assert_int_equal(channel_queued(authority.c) + channel_queued(front.c), 0);
    assert_int_equal(authority.ended + front.ended, 0);
    channel_free(authority.c);
    channel_free(front.c);
}

/* An answer to each, from within the handler. */
static void handlers_answer_while_they_are_called(void **state)
{
    struct end authority, signer;
    struct msg_sign ask = {.digest = {pool, 32}};
    int ends[2], small = 5000;
    (void)state;
    pair(ends);
    for (int i = 0; i < 2; i++)
        assert_int_equal(setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_SIGNER);
    open_end(&signer, ends[1], PROC_SIGNER, PROC_AUTHORITY);
    signer.reply_len = 512;
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(send_to(&authority, MSG_sign, i, &ask, -1), 0);
    run_until(&authority.received, 5000);
    assert_int_equal(authority.received, 5000);
    assert_false(authority.out_of_order || signer.out_of_order);
    assert_int_equal(authority.ended + signer.ended, 0);
    channel_free(authority.c);
    channel_free(signer.c);
}

static void a_peer_that_does_not_drain_is_ended(void **state)
{
    struct end authority;
    struct msg_chain m = {.chain_pem = {pool, 60000}};
    int ends[2], sent = 0;
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    while (sent < 1000 && send_to(&authority, MSG_chain, 0, &m, -1) == 0) {
        sent++;
        assert_true(channel_queued(authority.c) <= CHANNEL_QUEUE_MAX);
    }
    assert_in_range(sent, CHANNEL_QUEUE_MAX / 60100, CHANNEL_QUEUE_MAX / 60000 + 10);
    assert_int_equal(authority.ended, 0);
    assert_int_equal(channel_queued(authority.c), 0); /* the memory is free at once */
    assert_int_equal(send_to(&authority, MSG_chain, 0, &m, -1), -1);
    run_until(&authority.ended, 1);
    assert_int_equal(authority.ended, 1);
    assert_string_equal(authority.why, "it does not take its messages");
    assert_int_equal(send_to(&authority, MSG_chain, 0, &m, -1), -1);
    settle();
    assert_int_equal(authority.ended, 1);
    channel_free(authority.c);
    close(ends[1]);
}

/* While one that does take them may have any number, over time. */
static void the_bound_is_on_what_waits(void **state)
{
    struct end authority, front;
    struct msg_chain m = {.chain_pem = {pool, 60000}};
    int ends[2];
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&front, ends[1], PROC_FRONT, PROC_AUTHORITY);
    for (uint64_t round = 0; round < 5; round++) {
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(send_to(&authority, MSG_chain, 100 * round + i, &m, -1), 0);
        run_until(&front.received, 100 * (round + 1));
    }
    assert_int_equal(front.received, 500);
    channel_free(authority.c);
    channel_free(front.c);
}

/* Who came to the socket when it was full is not overtaken when it no longer is. */
static void nothing_overtakes_what_waits(void **state)
{
    struct end authority;
    struct msg_chain big = {.chain_pem = {pool, 60000}}, small = {0};
    static struct msg in;
    int ends[2];
    uint64_t sent = 0;
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    while (channel_queued(authority.c) == 0)
        assert_int_equal(send_to(&authority, MSG_chain, sent++, &big, -1), 0);
    assert_int_equal(msg_receive(ends[1], &in, PROC_AUTHORITY, PROC_FRONT), 1);
    assert_int_equal(send_to(&authority, MSG_chain, sent++, &small, -1), 0);
    for (uint64_t id = 1; id < sent; id++) {
        settle();
        assert_int_equal(msg_receive(ends[1], &in, PROC_AUTHORITY, PROC_FRONT), 1);
        assert_true(in.id == id);
    }
    channel_free(authority.c);
    close(ends[1]);
}

static void a_descriptor_comes_along(void **state)
{
    struct end authority, front;
    struct msg_document m = {.path = "/crl"};
    char text[4] = "";
    int ends[2], before = temp_fds(), fd = memfd_create("x", MFD_CLOEXEC);
    (void)state;
    assert_int_equal(write(fd, "crl", 3), 3);
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&front, ends[1], PROC_FRONT, PROC_AUTHORITY);
    assert_int_equal(send_to(&authority, MSG_document, 0, &m, fd), 0);
    close(fd); /* the sender may: it is the receiver's too */
    run_until(&front.received, 1);
    assert_true(front.fd >= 0);
    assert_true(fcntl(front.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(pread(front.fd, text, 3, 0), 3);
    assert_string_equal(text, "crl");
    close(front.fd);
    channel_free(authority.c);
    channel_free(front.c);
    assert_int_equal(temp_fds(), before);
}

/* Queued with the message: still good after the sender closed it, and in order. */
static void a_waiting_descriptor_is_kept(void **state)
{
    struct end authority, front;
    struct msg_document m = {.path = "/crl"};
    struct msg_chain big = {.chain_pem = {pool, 60000}};
    int ends[2], before = temp_fds(), fd = memfd_create("x", MFD_CLOEXEC);
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    open_end(&front, ends[1], PROC_FRONT, PROC_AUTHORITY);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(send_to(&authority, MSG_chain, i, &big, -1), 0);
    assert_true(channel_queued(authority.c) > 0);
    assert_int_equal(send_to(&authority, MSG_document, 20, &m, fd), 0);
    close(fd);
    run_until(&front.received, 21);
    assert_int_equal(front.last, MSG_document);
    assert_false(front.out_of_order);
    assert_true(front.fd >= 0 && fcntl(front.fd, F_GETFD) >= 0);
    close(front.fd);
    channel_free(authority.c);
    channel_free(front.c);
    assert_int_equal(temp_fds(), before);
}

/* Who does not take them must not fill the table of who sends them. */
static void no_more_descriptors_wait_than_there_is_room_for(void **state)
{
    struct end authority;
    struct msg_document m = {.path = "/crl"};
    struct msg_chain big = {.chain_pem = {pool, 60000}};
    int ends[2], before = temp_fds(), sent = 0, fd = memfd_create("x", MFD_CLOEXEC);
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(send_to(&authority, MSG_chain, i, &big, -1), 0);
    while (sent <= CHANNEL_FDS_MAX && send_to(&authority, MSG_document, 20, &m, fd) == 0)
        sent++;
    assert_int_equal(sent, CHANNEL_FDS_MAX);
    run_until(&authority.ended, 1);
    assert_string_equal(authority.why, "it does not take its messages");
    channel_free(authority.c);
    close(ends[1]);
    close(fd);
    assert_int_equal(temp_fds(), before);
}

static void no_descriptor_leaks_when_a_peer_ends(void **state)
{
    struct msg_document m = {.path = "/crl"};
    struct msg_chain big = {.chain_pem = {pool, 60000}};
    int before = temp_fds();
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct end authority;
        int ends[2];
        pair(ends);
        open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(send_to(&authority, MSG_chain, 0, &big, -1), 0);
            assert_int_equal(send_to(&authority, MSG_document, 0, &m, ends[0]), 0);
        }
        assert_true(temp_fds() > before + 2); /* dup()s that wait */
        if (way == 0) {                       /* the peer goes */
            close(ends[1]);
            run_until(&authority.ended, 1);
            assert_int_equal(authority.ended, 1);
            assert_int_equal(temp_fds(), before + 1);
        } else if (way == 1) { /* it does not drain */
            while (send_to(&authority, MSG_chain, 0, &big, -1) == 0)
                ;
            run_until(&authority.ended, 1);
            assert_int_equal(temp_fds(), before + 2);
        }
        channel_free(authority.c); /* and just like that */
        if (way)
            close(ends[1]);
        assert_int_equal(temp_fds(), before);
    }
}

static void a_descriptor_that_cannot_be_kept_ends_the_peer(void **state)
{
    struct end authority;
    struct msg_document m = {.path = "/crl"};
    struct msg_chain big = {.chain_pem = {pool, 60000}};
    int ends[2], before = temp_fds();
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    for (int i = 0; i < 20; i++)
        assert_int_equal(send_to(&authority, MSG_chain, 0, &big, -1), 0);
    assert_int_equal(send_to(&authority, MSG_document, 0, &m, 9999), -1);
    run_until(&authority.ended, 1);
    assert_int_equal(authority.ended, 1);
    channel_free(authority.c);
    close(ends[1]);
    assert_int_equal(temp_fds(), before);
}

/* A record to an authority from a front; it must be ended once, for this reason, and leak nothing.
 */
static void assert_ends(const struct buf *record, int fd, const char *why, uint64_t received)
{
    struct end authority;
    struct msg_chain down = {0};
    int ends[2], before = temp_fds();
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    authority.refuse = 1;
    raw_send(ends[1], record, fd);
    raw_send(ends[1], record, fd); /* is not listened to any more */
    run_until(&authority.ended, 1);
    assert_int_equal(authority.ended, 1);
    assert_int_equal(authority.received, received);
    assert_string_equal(authority.why, why);
    assert_int_equal(send_to(&authority, MSG_chain, 0, &down, -1), -1);
    channel_free(authority.c);
    close(ends[1]);
    assert_int_equal(temp_fds(), before);
}

static void a_bad_record_ends_the_peer(void **state)
{
    static const char bad[] = "a malformed message, or one it may not send";
    struct msg_status ask = {0};
    struct msg_chain answer = {0};
    struct buf record = {0};
    (void)state;
    assert_int_equal(buf_add(&record, "x", 1), 0);
    assert_ends(&record, -1, bad, 0);
    assert_ends(&record, STDERR_FILENO, bad, 0);
    assert_int_equal(msg_encode(&record, MSG_chain, 1, &answer), 0); /* an authority's own */
    assert_ends(&record, -1, bad, 0);
    assert_int_equal(msg_encode(&record, MSG_status, 1, &ask), 0);
    assert_ends(&record, STDERR_FILENO, bad, 0); /* a descriptor that it has no use for */
    assert_ends(&record, -1, "a message with bad fields", 1);
    record.data[0]++;
    assert_ends(&record, -1, bad, 0);
    record.len = 0;
    while (record.len <= MSG_MAX)
        assert_int_equal(buf_add(&record, pool, sizeof pool), 0);
    assert_ends(&record, -1, "a truncated record, or a broken socket", 0);
    buf_free(&record);
}

/* Ended from within a handler that then refuses, too. */
static void the_first_reason_counts(void **state)
{
    struct end authority;
    struct msg_chain flood = {.chain_pem = {pool, 60000}};
    struct msg_status ask = {0};
    struct buf record = {0};
    int ends[2];
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_FRONT);
    authority.flood = &flood;
    authority.refuse = 1;
    assert_int_equal(msg_encode(&record, MSG_status, 0, &ask), 0);
    raw_send(ends[1], &record, -1);
    run_until(&authority.ended, 1);
    assert_int_equal(authority.ended, 1);
    assert_string_equal(authority.why, "it does not take its messages");
    buf_free(&record);
    channel_free(authority.c);
    close(ends[1]);
}

static void a_plain_end_has_no_reason(void **state)
{
    struct end authority, signer;
    struct msg_sign_failed last = {.detail = "last words"};
    struct msg_sign ask = {.digest = {pool, 32}};
    int ends[2], before = temp_fds();
    (void)state;
    pair(ends);
    open_end(&authority, ends[0], PROC_AUTHORITY, PROC_SIGNER);
    open_end(&signer, ends[1], PROC_SIGNER, PROC_AUTHORITY);
    authority.free_at_end = 1;
    assert_int_equal(send_to(&authority, MSG_sign, 0, &ask, -1), 0); /* is never read */
    assert_int_equal(send_to(&signer, MSG_sign_failed, 0, &last, -1), 0);
    channel_free(signer.c);
    run_until(&authority.ended, 1);
    assert_int_equal(authority.received, 1);
    assert_int_equal(authority.last, MSG_sign_failed);
    assert_int_equal(authority.ended, 1);
    assert_null(authority.why);
    assert_null(authority.c);
    assert_int_equal(temp_fds(), before);
}

/* By the sender: no message leaves that the table does not have for these two. */
static void what_is_not_in_the_table_is_not_sent(void **state)
{
    struct end front, authority;
    struct msg_sign m = {0};
    struct msg_chain c = {0};
    int ends[2];
    (void)state;
    pair(ends);
    open_end(&front, ends[0], PROC_FRONT, PROC_AUTHORITY);
    open_end(&authority, ends[1], PROC_AUTHORITY, PROC_FRONT);
    assert_int_equal(send_to(&front, MSG_sign, 0, &m, -1), -1);
    assert_int_equal(send_to(&front, MSG_chain, 0, &c, -1), -1);
    assert_int_equal(send_to(&front, (enum msg_type)250, 0, &c, -1), -1);
    settle();
    assert_int_equal(authority.received + authority.ended + front.ended, 0);
    channel_free(front.c);
    channel_free(authority.c);
}

static void on_tick(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what, (void)arg;
}

static int make_base(void **state)
{
    static const struct timeval millisecond = {0, 1000};
    (void)state;
    base = event_base_new();
    tick = base ? event_new(base, -1, EV_PERSIST, on_tick, NULL) : NULL;
    if (!tick || event_add(tick, &millisecond))
        return -1;
    for (size_t i = 0; i < sizeof pool; i++)
        pool[i] = (uint8_t)(i * 31 >> 3);
    return 0;
}

static int free_base(void **state)
{
    (void)state;
    event_free(tick);
    event_base_free(base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_come_in_order),
        cmocka_unit_test(bursts_both_ways_do_not_lock),
        cmocka_unit_test(a_costly_peer_keeps_no_other_waiting),
        cmocka_unit_test(handlers_answer_while_they_are_called),
        cmocka_unit_test(a_peer_that_does_not_drain_is_ended),
        cmocka_unit_test(the_bound_is_on_what_waits),
        cmocka_unit_test(nothing_overtakes_what_waits),
        cmocka_unit_test(a_descriptor_comes_along),
        cmocka_unit_test(a_waiting_descriptor_is_kept),
        cmocka_unit_test(no_more_descriptors_wait_than_there_is_room_for),
        cmocka_unit_test(no_descriptor_leaks_when_a_peer_ends),
        cmocka_unit_test(a_descriptor_that_cannot_be_kept_ends_the_peer),
        cmocka_unit_test(a_bad_record_ends_the_peer),
        cmocka_unit_test(the_first_reason_counts),
        cmocka_unit_test(a_plain_end_has_no_reason),
        cmocka_unit_test(what_is_not_in_the_table_is_not_sent),
    };
    return cmocka_run_group_tests(tests, make_base, free_base);
}
