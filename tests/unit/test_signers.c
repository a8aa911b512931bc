/* The authority's side of the signers: this test is supervisor and signers to it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>

#include "hsm/token.h"
#include "server/authority/signers.h"
#include "server/authority/violation.h"
#include "temp.h"

/* Of the issuer, signers.c asks this alone; and of a key which algorithm it has: here the number
 * that its first byte is, and none for 0. */
enum sign_alg issuer_alg(const struct issuer *issuer)
{
    (void)issuer;
    return (enum sign_alg)0;
}

int sign_alg_of(enum sign_alg *out, struct bytes spki, struct err *err)
{
    *out = (enum sign_alg)spki.data[0];
    return spki.data[0] ? 0 : err_set(err, ERR_key_invalid, NULL);
}

static struct authority a;
static unsigned violations; /* that the journal was told of */

void violation_journal(struct authority *of, enum role_name role, unsigned number, const char *why)
{
    assert_ptr_equal(of, &a);
    assert_int_equal(role, PROC_SIGNER);
    assert_true(number && why[0]);
    violations++;
}

static struct config config;
static struct event *tick;
static int supervisor; /* our end */

struct result {
    int called;
    size_t len;
    uint8_t first;
    struct err err;
};

static void done(void *arg, struct bytes signature, const struct err *err)
{
    struct result *r = arg;
    r->called++;
    r->len = signature.len;
    if (signature.len)
        r->first = signature.data[0];
    else
        r->err = *err;
}

static void turn(void)
{
    for (int i = 0; i < 4; i++)
        event_base_loop(a.base, EVLOOP_ONCE); /* a tick returns from it */
}

static void ask(struct result *r, enum sign_priority priority, uint8_t tag)
{
    uint8_t digest[32] = {tag};
    *r = (struct result){0};
    assert_int_equal(
        signers_sign(a.signers, TOKEN_KEY_CA, priority, (struct bytes){digest, 32}, done, r), 0);
}

static void ask_responder(struct result *r, uint8_t tag)
{
    uint8_t digest[32] = {tag};
    *r = (struct result){0};
    assert_int_equal(signers_sign(a.signers, TOKEN_KEY_RESPONDER, SIGN_FOR_OCSP,
                                  (struct bytes){digest, 32}, done, r),
                     0);
}

static int add_signer(unsigned number)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    signers_add(a.signers, number, ends[0]);
    return ends[1];
}

static void say(int socket, enum msg_type type, uint64_t id, const void *body)
{
    assert_int_equal(msg_send_wait(socket, type, id, body, -1), 0);
    turn();
}

static int ready_signer(unsigned number)
{
    int socket = add_signer(number);
    struct msg_signer_hello hello = {.custody = CUSTODY_ALL, .token = "a token"};
    say(socket, MSG_signer_hello, 0, &hello);
    return socket;
}

/* One with a key for the OCSP responder, of which spki is the first byte. */
static int responder_signer(unsigned number, uint8_t spki)
{
    int socket = add_signer(number);
    struct msg_signer_hello hello = {.custody = CUSTODY_ALL,
                                     .token = "a token",
                                     .responder_spki = {&spki, 1},
                                     .responder_custody = CUSTODY_ALL};
    say(socket, MSG_signer_hello, 0, &hello);
    return socket;
}

static struct msg_sign last; /* its numbers; not its digest */

/* What a signer is asked next: the digest's first byte; -1: nothing. */
static int asked(int socket, uint64_t *id)
{
    static struct msg in;
    struct msg_sign m;
    turn();
    if (msg_receive(socket, &in, PROC_AUTHORITY, PROC_SIGNER) != 1)
        return -1;
    assert_int_equal(in.type, MSG_sign);
    assert_int_equal(msg_decode(&m, in.type, in.fields), 0);
    assert_int_equal(m.digest.len, 32);
    *id = in.id;
    last = m;
    return m.digest.data[0];
}

static void sign_it(int socket, uint64_t id, uint8_t tag)
{
    struct msg_signed m = {.signature = {&tag, 1}};
    say(socket, MSG_signed, id, &m);
}

static void fail_it(int socket, uint64_t id, enum token_fault fault)
{
    struct msg_sign_failed m = {.fault = (uint8_t)fault, .detail = "a fault"};
    say(socket, MSG_sign_failed, id, &m);
}

/* Whom the supervisor is told to end next; 0: nobody. */
static unsigned to_be_ended(void)
{
    static struct msg in;
    struct msg_peer_end m;
    turn();
    if (msg_receive(supervisor, &in, PROC_AUTHORITY, PROC_SUPERVISOR) != 1)
        return 0;
    assert_int_equal(in.type, MSG_peer_end);
    assert_int_equal(msg_decode(&m, in.type, in.fields), 0);
    assert_int_equal(m.role, PROC_SIGNER);
    assert_true(m.why[0] != '\0');
    return m.number;
}

static int hung_up(int socket)
{
    static struct msg in;
    turn();
    return msg_receive(socket, &in, PROC_AUTHORITY, PROC_SIGNER) == 0;
}

/* ---- */

static void a_signature_comes_back_to_who_asked(void **state)
{
    struct result one, two;
    struct err err;
    uint64_t id = 0;
    (void)state;
    assert_int_equal(signers_usable(a.signers, &err), -1);
    assert_int_equal(err.code, ERR_token_unavailable);
    int s = add_signer(1);
    assert_int_equal(signers_ready(a.signers), 0); /* not before its hello */
    struct msg_signer_hello hello = {.custody = CUSTODY_ALL, .token = "a token"};
    say(s, MSG_signer_hello, 0, &hello);
    assert_int_equal(signers_ready(a.signers), 1);
    assert_int_equal(signers_usable(a.signers, &err), 0);
    assert_string_equal(signers_token(a.signers), "a token");
    ask(&one, SIGN_FOR_CERTIFICATE, 11);
    ask(&two, SIGN_FOR_CERTIFICATE, 12);
    assert_int_equal(signers_waiting(a.signers), 2);
    assert_int_equal(asked(s, &id), 11);
    sign_it(s, id, 111);
    assert_int_equal(one.called, 1);
    assert_int_equal(one.first, 111);
    assert_int_equal(two.called, 0);
    assert_int_equal(asked(s, &id), 12);
    sign_it(s, id, 112);
    assert_int_equal(two.first, 112);
    assert_int_equal(one.called + two.called, 2);
    assert_int_equal(signers_waiting(a.signers), 0);
    close(s);
}

static void what_is_asked_before_a_signer_is_there_waits(void **state)
{
    struct result r;
    uint64_t id;
    (void)state;
    ask(&r, SIGN_FOR_CERTIFICATE, 1);
    assert_int_equal(signers_waiting(a.signers), 1);
    int s = ready_signer(1);
    assert_int_equal(asked(s, &id), 1);
    sign_it(s, id, 2);
    assert_int_equal(r.first, 2);
    close(s);
}

/* A signer's queue is bounded; what waits behind it goes by priority: CRL, certificate, OCSP. */
static void the_crl_goes_first(void **state)
{
    struct result many[SIGNER_DEPTH], ocsp, certificate, crl;
    uint64_t id, first = 0;
    int s = ready_signer(1), n = 0;
    (void)state;
    for (int i = 0; i < SIGNER_DEPTH; i++)
        ask(&many[i], SIGN_FOR_CERTIFICATE, (uint8_t)i);
    ask(&ocsp, SIGN_FOR_OCSP, 101);
    ask(&certificate, SIGN_FOR_CERTIFICATE, 102);
    ask(&crl, SIGN_FOR_CRL, 103);
    for (; asked(s, &id) == n; n++)
        first = first ? first : id;
    assert_int_equal(n, SIGNER_DEPTH); /* no more than these were sent */
    uint64_t next = first;
    uint64_t sent[3] = {0};
    int order[3];
    for (int i = 0; i < 3; i++) {
        sign_it(s, next++, 1);
        order[i] = asked(s, &sent[i]);
    }
    assert_int_equal(order[0], 103);
    assert_int_equal(order[1], 102);
    assert_int_equal(order[2], -1); /* the signer has more than enough to do */
    while (next < first + SIGNER_DEPTH)
        sign_it(s, next++, 1);
    assert_int_equal(asked(s, &id), -1);
    sign_it(s, sent[0], 1);
    assert_int_equal(asked(s, &id), 101);
    close(s);
}

/* So a certificate that is asked for now is signed soon, however many ask for OCSP answers. */
static void no_queue_of_ocsp_answers_is_before_a_certificate(void **state)
{
    struct result ocsp[10], certificate;
    uint64_t id, first;
    int s = ready_signer(1);
    (void)state;
    for (int i = 0; i < 10; i++)
        ask(&ocsp[i], SIGN_FOR_OCSP, (uint8_t)(10 + i));
    ask(&certificate, SIGN_FOR_CERTIFICATE, 1);
    assert_int_equal(asked(s, &first), 10);
    assert_int_equal(asked(s, &id), 11);
    assert_int_equal(asked(s, &id), 1);
    assert_int_equal(asked(s, &id), -1);
    sign_it(s, first, 1);
    sign_it(s, first + 1, 1);
    assert_int_equal(asked(s, &id), 12);
    assert_int_equal(asked(s, &id), -1);
    close(s);
}

static void work_is_shared_out(void **state)
{
    struct result r[10];
    uint64_t id;
    int one = ready_signer(1), two = ready_signer(2), n = 0, m = 0;
    (void)state;
    for (int i = 0; i < 10; i++)
        ask(&r[i], SIGN_FOR_CERTIFICATE, (uint8_t)i);
    while (asked(one, &id) >= 0)
        n++;
    while (asked(two, &id) >= 0)
        m++;
    assert_int_equal(n, 5);
    assert_int_equal(m, 5);
    close(one);
    close(two);
}

static void a_fault_ends_the_signer_and_another_signs(void **state)
{
    struct result r, behind;
    uint64_t id;
    int one = ready_signer(1);
    (void)state;
    ask(&r, SIGN_FOR_CERTIFICATE, 7);
    ask(&behind, SIGN_FOR_CERTIFICATE, 8);
    assert_int_equal(asked(one, &id), 7);
    fail_it(one, id, TOKEN_LOST);
    assert_int_equal(to_be_ended(), 1);
    assert_int_equal(r.called + behind.called, 0);
    assert_int_equal(signers_ready(a.signers), 0);
    sign_it(one, id + 1, 66); /* is not listened to any more */
    assert_int_equal(behind.called, 0);
    int two = ready_signer(2), tags = 0;
    for (int i = 0; i < 2; i++) {
        int tag = asked(two, &id);
        tags += tag;
        sign_it(two, id, (uint8_t)(tag + 10));
    }
    assert_int_equal(tags, 15);
    assert_int_equal(r.first, 17);
    assert_int_equal(behind.first, 18);
    close(one);
    turn();
    assert_int_equal(to_be_ended(), 0); /* once is enough */
    close(two);
}

static void a_transient_fault_is_tried_again_but_not_forever(void **state)
{
    struct result r;
    uint64_t id;
    int s = ready_signer(1);
    (void)state;
    ask(&r, SIGN_FOR_CERTIFICATE, 7);
    assert_int_equal(asked(s, &id), 7);
    for (int tries = 1; tries < 3; tries++) {
        fail_it(s, id, TOKEN_TRANSIENT);
        assert_int_equal(r.called, 0);
        assert_int_equal(asked(s, &id), 7);
    }
    fail_it(s, id, TOKEN_TRANSIENT);
    assert_int_equal(r.called, 1);
    assert_int_equal(r.len, 0);
    assert_int_equal(r.err.code, ERR_token_unavailable);
    assert_int_equal(to_be_ended(), 0);
    assert_int_equal(signers_ready(a.signers), 1);
    close(s);
}

static void a_job_is_not_carried_from_grave_to_grave(void **state)
{
    struct result r;
    uint64_t id;
    (void)state;
    ask(&r, SIGN_FOR_CERTIFICATE, 7);
    for (unsigned grave = 1; grave <= 3; grave++) {
        assert_int_equal(r.called, 0);
        int s = ready_signer(grave);
        assert_int_equal(asked(s, &id), 7);
        close(s); /* it crashed */
        turn();
    }
    assert_int_equal(r.called, 1);
    assert_int_equal(r.err.code, ERR_token_unavailable);
    assert_int_equal(signers_waiting(a.signers), 0);
}

static void a_signer_that_breaks_the_rules_is_ended(void **state)
{
    struct msg_signed none = {.signature = {NULL, 0}};
    struct msg_signer_hello again_hello = {
        .custody = CUSTODY_ALL, .token = "t", .responder_spki = {(const uint8_t[]){1}, 1}};
    uint64_t id;
    (void)state;
    for (unsigned way = 0; way < 5; way++) {
        struct result r;
        int s = ready_signer(1);
        violations = 0;
        ask(&r, SIGN_FOR_CERTIFICATE, 7);
        assert_int_equal(asked(s, &id), 7);
        if (way == 0)
            sign_it(s, id + 1, 1); /* not what it was asked */
        else if (way == 1)
            fail_it(s, id - 1, TOKEN_TRANSIENT);
        else if (way == 2)
            say(s, MSG_signed, id, &none); /* a signature of nothing */
        else if (way == 3)
            assert_int_equal(send(s, "junk", 4, 0), 4);
        else
            say(s, MSG_signer_hello, 0, &again_hello); /* a second one, with another key */
        assert_int_equal(to_be_ended(), 1);
        assert_int_equal(violations, 1);
        assert_true(hung_up(s));
        assert_int_equal(r.called, 0);
        close(s);
        int other = ready_signer(2);
        assert_int_equal(asked(other, &id), 7);
        sign_it(other, id, 5);
        assert_int_equal(r.called, 1);
        assert_int_equal(r.first, 5);
        close(other);
        turn();
    }
}

static void a_call_past_its_deadline_ends_the_signer(void **state)
{
    struct result one, two, three;
    uint64_t id, other_id;
    (void)state;
    config.sign_deadline_ms = 600;
    int s = ready_signer(1), other = ready_signer(2);
    ask(&one, SIGN_FOR_CERTIFICATE, 1);
    ask(&two, SIGN_FOR_CERTIFICATE, 2);
    ask(&three, SIGN_FOR_CERTIFICATE, 3);
    int hangs = asked(s, &id) == 2 ? 1 : 0; /* one of them got 1 and 3, the other 2 */
    int tag = asked(other, &other_id);
    sign_it(other, other_id, 1);
    if (hangs) {
        assert_int_equal(tag, 1);
        assert_int_equal(asked(other, &other_id), 3);
        sign_it(other, other_id, 3);
    }
    for (int i = 0; i < 5000 && signers_ready(a.signers) == 2; i++)
        event_base_loop(a.base, EVLOOP_ONCE);
    assert_int_equal(to_be_ended(), 1);
    assert_int_equal(signers_ready(a.signers), 1); /* who is idle is not ended */
    while (asked(other, &other_id) >= 0)
        sign_it(other, other_id, 9);
    assert_int_equal(one.called + two.called + three.called, 3);
    assert_true(one.len && two.len && three.len);
    close(s);
    close(other);
}

static void without_any_signer_the_wait_ends(void **state)
{
    struct result r;
    (void)state;
    config.sign_deadline_ms = 200;
    ask(&r, SIGN_FOR_CERTIFICATE, 1);
    for (int i = 0; i < 5000 && !r.called; i++)
        event_base_loop(a.base, EVLOOP_ONCE);
    assert_int_equal(r.called, 1);
    assert_int_equal(r.err.code, ERR_token_unavailable);
    assert_int_equal(signers_waiting(a.signers), 0);
}

static struct result again;

/* What came back is no signature of the CA. */
static void done_and_distrust(void *arg, struct bytes signature, const struct err *err)
{
    done(arg, signature, err);
    signers_distrust(a.signers, "it did not verify");
    ask(&again, SIGN_FOR_CERTIFICATE, 9);
}

static void whose_signature_is_wrong_is_ended(void **state)
{
    struct result r = {0};
    uint8_t digest[32] = {8};
    uint64_t id;
    int one = ready_signer(1), two;
    (void)state;
    violations = 0;
    assert_int_equal(signers_sign(a.signers, TOKEN_KEY_CA, SIGN_FOR_CERTIFICATE,
                                  (struct bytes){digest, 32}, done_and_distrust, &r),
                     0);
    assert_int_equal(asked(one, &id), 8);
    two = ready_signer(2);
    sign_it(one, id, 1);
    assert_int_equal(r.called, 1);
    assert_int_equal(to_be_ended(), 1);
    assert_int_equal(violations, 1);
    assert_int_equal(signers_ready(a.signers), 1);
    assert_int_equal(asked(two, &id), 9); /* not of the same again */
    close(one);
    close(two);
}

static void an_exception_of_custody_is_told(void **state)
{
    struct msg_signer_hello hello = {.custody = CUSTODY_ALL & ~1u, .token = "t"};
    (void)state;
    config.custody_exception = (char[]){"ab12, wrapped backup"};
    assert_string_equal(signers_custody(a.signers), "");
    int s = add_signer(1);
    say(s, MSG_signer_hello, 0, &hello);
    assert_non_null(strstr(signers_custody(a.signers), "exception in force"));
    assert_non_null(strstr(signers_custody(a.signers), "wrapped backup"));
    close(s);
}

static void what_the_responder_signs_goes_to_who_has_its_key(void **state)
{
    struct result r, ca;
    uint64_t id;
    (void)state;
    int without = ready_signer(1);
    assert_int_equal(signers_responder_spki(a.signers).len, 0);
    ask_responder(&r, 20);
    assert_int_equal(asked(without, &id), -1);
    ask(&ca, SIGN_FOR_CERTIFICATE, 21); /* is not kept back by it */
    assert_int_equal(asked(without, &id), 21);
    assert_int_equal(last.key, TOKEN_KEY_CA);
    int with = responder_signer(2, SIGN_ECDSA_SHA384);
    assert_int_equal(signers_responder_spki(a.signers).len, 1);
    assert_int_equal(asked(with, &id), 20);
    assert_int_equal(last.key, TOKEN_KEY_RESPONDER);
    assert_int_equal(last.alg, SIGN_ECDSA_SHA384);
    sign_it(with, id, 120);
    assert_int_equal(r.first, 120);
    close(without);
    close(with);
}

static void another_key_for_the_responder_is_not_the_old_one(void **state)
{
    struct result r;
    uint64_t id;
    (void)state;
    int old = responder_signer(1, SIGN_ECDSA_SHA256), new = responder_signer(2, SIGN_RSA_SHA256);
    assert_int_equal(signers_responder_spki(a.signers).data[0], SIGN_RSA_SHA256);
    for (uint8_t i = 0; i < 4; i++) {
        ask_responder(&r, (uint8_t)(30 + i));
        assert_int_equal(asked(old, &id), -1);
        assert_int_equal(asked(new, &id), 30 + i);
        assert_int_equal(last.alg, SIGN_RSA_SHA256);
        sign_it(new, id, 1);
    }
    close(old);
    close(new);
}

static void a_responders_key_of_no_kind_ends_the_signer(void **state)
{
    (void)state;
    int s = responder_signer(1, 0);
    assert_int_equal(to_be_ended(), 1);
    assert_int_equal(signers_ready(a.signers), 0);
    assert_int_equal(signers_responder_spki(a.signers).len, 0);
    close(s);
}

/* ---- */

static void on_tick(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what, (void)arg;
}

static int no_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c, (void)m, (void)arg;
    return -1;
}

static void no_end(struct channel *c, const char *why, void *arg)
{
    (void)c, (void)why, (void)arg;
}

static int set_up(void **state)
{
    static const struct timeval millisecond = {0, 1000};
    static const struct channel_handlers handlers = {no_message, no_end};
    int ends[2];
    (void)state;
    config = (struct config){.sign_deadline_ms = 10000, .signers = 2};
    a = (struct authority){.config = &config, .base = event_base_new()};
    tick = event_new(a.base, -1, EV_PERSIST, on_tick, NULL);
    if (!tick || event_add(tick, &millisecond) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return -1;
    supervisor = ends[1];
    if (fcntl(supervisor, F_SETFL, O_NONBLOCK))
        return -1;
    a.supervisor = channel_new(a.base, ends[0], PROC_AUTHORITY, PROC_SUPERVISOR, &handlers, NULL);
    a.signers = signers_new(&a);
    return a.supervisor ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    signers_free(a.signers);
    channel_free(a.supervisor);
    close(supervisor);
    event_free(tick);
    event_base_free(a.base);
    return 0;
}

#define each(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(a_signature_comes_back_to_who_asked),
        each(what_is_asked_before_a_signer_is_there_waits),
        each(the_crl_goes_first),
        each(what_the_responder_signs_goes_to_who_has_its_key),
        each(another_key_for_the_responder_is_not_the_old_one),
        each(a_responders_key_of_no_kind_ends_the_signer),
        each(no_queue_of_ocsp_answers_is_before_a_certificate),
        each(work_is_shared_out),
        each(a_fault_ends_the_signer_and_another_signs),
        each(a_transient_fault_is_tried_again_but_not_forever),
        each(a_job_is_not_carried_from_grave_to_grave),
        each(a_signer_that_breaks_the_rules_is_ended),
        each(a_call_past_its_deadline_ends_the_signer),
        each(without_any_signer_the_wait_ends),
        each(whose_signature_is_wrong_is_ended),
        each(an_exception_of_custody_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
