/* OCSP answers, the authority's side: a real store and real answers, with a responder's key that is
 * no token's; this test is front, signer and clock to it. */
#include "pki_fixture.h"

#include <openssl/ocsp.h>

#include "common/channel.h"
#include "pki/ocsp.h"
#include "server/authority/clock.h"
#include "server/authority/ocsp.h"
#include "server/authority/signers.h"
#include "temp.h"

static struct {
    struct authority a;
    struct config config;
    struct ca ca, key; /* key: the responder's */
    struct peer peer;
    int64_t now;
    int clock_wrong, token_away, distrusted;
    /* the one signer */
    struct {
        uint8_t digest[DIGEST_MAX];
        size_t len;
        signed_fn done;
        void *arg;
    } jobs[64];
    size_t asked, signed_count;
    /* the last answer */
    uint64_t answered[64]; /* ids */
    size_t answers;
    enum err_code refused;
    struct buf response;
    int64_t this_update, next_update;
} t;

static struct responder *responder;

/* ---- what the authority's other parts would do ---- */

int64_t clock_now(struct clock_watch *c)
{
    (void)c;
    return t.now;
}

int clock_usable(struct clock_watch *c, struct err *err)
{
    (void)c;
    return t.clock_wrong ? err_set(err, ERR_clock_suspect, NULL) : 0;
}

int signers_usable(const struct signers *s, struct err *err)
{
    (void)s;
    return t.token_away ? err_set(err, ERR_token_unavailable, NULL) : 0;
}

int signers_sign(struct signers *s, enum token_key key, enum sign_priority priority,
                 struct bytes digest, signed_fn done, void *arg)
{
    (void)s;
    assert_int_equal(key, TOKEN_KEY_RESPONDER);
    assert_int_equal(priority, SIGN_FOR_OCSP);
    memcpy(t.jobs[t.asked].digest, digest.data, digest.len);
    t.jobs[t.asked].len = digest.len;
    t.jobs[t.asked].done = done;
    t.jobs[t.asked++].arg = arg;
    return 0;
}

void signers_distrust(struct signers *s, const char *why)
{
    (void)s;
    assert_true(why[0]);
    t.distrusted++;
}

struct question *question_new(struct peer *peer, uint64_t id)
{
    struct question *q = calloc(1, sizeof *q);
    q->peer = peer;
    q->id = id;
    peer->open++;
    return q;
}

static void answered(struct question *q)
{
    t.answered[t.answers++] = q->id;
    q->peer->open--;
    free(q);
}

void question_answer(struct question *q, enum msg_type type, const void *body)
{
    const struct msg_answer_ocsp *m = body;
    assert_int_equal(type, MSG_answer_ocsp);
    t.refused = ERR_none;
    t.response.len = 0;
    assert_int_equal(buf_add(&t.response, m->response.data, m->response.len), 0);
    t.this_update = m->this_update;
    t.next_update = m->next_update;
    answered(q);
}

void question_refuse(struct question *q, const struct err *err)
{
    t.refused = err->code;
    t.response.len = 0;
    answered(q);
}

/* The oldest job is done; wrong: by another key. */
static void sign_next(int wrong)
{
    uint8_t raw[SIGNATURE_MAX];
    size_t n = t.signed_count++;
    assert_true(n < t.asked);
    struct bytes digest = {t.jobs[n].digest, t.jobs[n].len};
    t.jobs[n].done(t.jobs[n].arg, ca_sign(wrong ? &t.ca : &t.key, digest, raw), NULL);
}

static void fail_next(void)
{
    struct err err;
    size_t n = t.signed_count++;
    err_set(&err, ERR_token_unavailable, "away");
    t.jobs[n].done(t.jobs[n].arg, (struct bytes){0}, &err);
}

/* ---- certificates ---- */

struct change {
    uint8_t tag;
    enum certificate_state to;
    int64_t at;
    int reason;
};

static int64_t id_of(struct store_tx *tx, uint8_t tag)
{
    struct certificate_row row = {.issuer = t.a.issuer_id,
                                  .serial = {tag, 9},
                                  .serial_len = 16,
                                  .profile = "device",
                                  .spki_sha256 = {tag},
                                  .tbs_sha256 = {tag},
                                  .not_after = t.now + 1000};
    struct bytes serial = {row.serial, 16};
    if (tx_certificate_by_serial(tx, row.issuer, serial, &row) == 0)
        return row.id;
    snprintf(row.name, sizeof row.name, "name-%c", tag);
    assert_int_equal(tx_add_intent(tx, &row), 0);
    return row.id;
}

static int decide_change(struct store_tx *tx, void *arg)
{
    const struct change *c = arg;
    uint8_t der[2] = {0x30, c->tag}, digest[32] = {c->tag};
    int64_t id = id_of(tx, c->tag);
    switch (c->to) {
    case STATE_INTENT:
        return 0;
    case STATE_ISSUED:
        return tx_set_unheld(tx, id) == 0
                   ? 0
                   : tx_set_issued(tx, id, (struct bytes){der, 2}, digest, c->at);
    case STATE_ORPHAN:
        return tx_set_orphan(tx, id, c->at);
    default:
        return tx_set_revoked(tx, id, c->to, c->at, c->reason);
    }
}

static int decide_issuer(struct store_tx *tx, void *arg)
{
    uint8_t name[32];
    (void)arg;
    sha256(name, issuer_name_der(t.ca.issuer));
    return tx_issuer(tx, issuer_certificate_der(t.ca.issuer), name, issuer_spki_sha256(t.ca.issuer),
                     issuer_not_after(t.ca.issuer), t.now, &t.a.issuer_id);
}

static void must(int durable, void *arg)
{
    (void)arg;
    assert_true(durable);
}

static void set(uint8_t tag, enum certificate_state to, int64_t at, int reason)
{
    struct change c = {tag, to, at, reason};
    assert_int_equal(store_submit(t.a.store, decide_change, must, &c), 0);
    store_commit(t.a.store);
}

/* ---- asking ---- */

static struct ocsp_certid certid(uint8_t tag, const EVP_MD *md)
{
    struct ocsp_certid c = {.serial = {tag, 9}, .serial_len = 16};
    unsigned len;
    assert_true(
        X509_NAME_digest(X509_get_subject_name(t.ca.certificate), md, c.issuer_name_hash, &len));
    assert_true(X509_pubkey_digest(t.ca.certificate, md, c.issuer_key_hash, &len));
    c.hash_len = len;
    return c;
}

static int ask_for(uint64_t id, const struct ocsp_certid *certids, size_t count, const char *nonce)
{
    struct buf packed = {0};
    assert_int_equal(ocsp_pack(&packed, certids, count), 0);
    struct msg_ocsp m = {
        .caller_address = "here", .certids = buf_view(&packed), .nonce = text_bytes(nonce)};
    int rc = ocsp_question(&t.a, &m, &t.peer, id);
    buf_free(&packed);
    return rc;
}

static void ask(uint64_t id, const char *tags, const char *nonce)
{
    struct ocsp_certid certids[OCSP_CERTIDS_MAX];
    size_t n = strlen(tags);
    for (size_t i = 0; i < n; i++)
        certids[i] = certid((uint8_t)tags[i], EVP_sha1());
    assert_int_equal(ask_for(id, certids, n, nonce), 0);
}

/* What the n-th of the last answer says, to OpenSSL's eye, after its signature was verified: the
 * status, as "good", "unknown", or time and reason. */
static const char *said(int n)
{
    static char text[64];
    const unsigned char *at = t.response.data;
    OCSP_RESPONSE *r = d2i_OCSP_RESPONSE(NULL, &at, (long)t.response.len);
    assert_non_null(r);
    assert_int_equal(OCSP_response_status(r), OCSP_RESPONSE_STATUS_SUCCESSFUL);
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(r);
    X509_STORE *trusted = X509_STORE_new();
    assert_true(X509_STORE_add_cert(trusted, t.ca.certificate));
    assert_true(X509_STORE_set_flags(trusted, X509_V_FLAG_PARTIAL_CHAIN));
    assert_int_equal(OCSP_basic_verify(basic, NULL, trusted, 0), 1);
    int reason;
    ASN1_GENERALIZEDTIME *when = NULL;
    int status = OCSP_single_get0_status(OCSP_resp_get0(basic, n), &reason, &when, NULL, NULL);
    if (status == V_OCSP_CERTSTATUS_REVOKED) {
        struct tm tm;
        assert_true(ASN1_TIME_to_tm(when, &tm));
        snprintf(text, sizeof text, "%+lld %d", (long long)(timegm(&tm) - t.now), reason);
    } else {
        snprintf(text, sizeof text, "%s", status == V_OCSP_CERTSTATUS_GOOD ? "good" : "unknown");
    }
    X509_STORE_free(trusted);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(r);
    return text;
}

/* Of an answer that nobody had to sign. */
static int bare_status(void)
{
    const unsigned char *at = t.response.data;
    OCSP_RESPONSE *r = d2i_OCSP_RESPONSE(NULL, &at, (long)t.response.len);
    assert_non_null(r);
    int status = OCSP_response_status(r);
    OCSP_RESPONSE_free(r);
    return status;
}

/* ---- set up ---- */

static X509 *responder_certificate(int days)
{
    X509 *x = make_certificate(t.key.key, days);
    X509_NAME *name = X509_NAME_new();
    assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"OCSP",
                                           -1, -1, 0));
    assert_true(X509_set_subject_name(x, name));
    X509_NAME_free(name);
    add_extension(x, NID_ext_key_usage, "OCSPSigning");
    assert_true(X509_sign(x, t.ca.key, EVP_sha256()));
    return x;
}

static void new_responder(int days)
{
    struct err err;
    unsigned char *der = NULL;
    X509 *x = responder_certificate(days);
    int len = i2d_X509(x, &der);
    struct responder *old = responder;
    responder = NULL;
    if (responder_new(&responder, (struct bytes){der, (size_t)len}, &err))
        fail_msg("%s", err.text);
    responder_free(old);
    t.a.ocsp_responder = responder;
    OPENSSL_free(der);
    X509_free(x);
}

static int set_up(void **state)
{
    static char label[] = "ocsp";
    struct err err;
    (void)state;
    memset(&t, 0, sizeof t);
    t.now = time(NULL);
    t.ca = ca_make("P-256", 100);
    t.key.key = make_key("P-256");
    new_responder(7);
    t.config.ocsp_life = 12 * 3600;
    t.config.ocsp_budget = 3;
    t.config.ocsp_key_label = label;
    t.a.config = &t.config;
    t.a.issuer = t.ca.issuer;
    char *folder = strdup("ocsp-XXXXXX");
    assert_non_null(mkdtemp(folder));
    if (store_open(&t.a.store, folder, &err))
        fail_msg("%s", err.text);
    free(folder);
    assert_int_equal(store_submit(t.a.store, decide_issuer, must, NULL), 0);
    store_commit(t.a.store);
    t.a.responding = responding_new(&t.a);
    set('g', STATE_ISSUED, t.now - 50, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    responding_free(t.a.responding);
    assert_int_equal(t.peer.open, 0);
    store_close(t.a.store);
    responder_free(responder);
    responder = NULL;
    EVP_PKEY_free(t.key.key);
    ca_free(&t.ca);
    buf_free(&t.response);
    return 0;
}

/* ---- tests ---- */

static void every_state_has_its_words(void **state)
{
    static const struct {
        uint8_t tag;
        enum certificate_state to;
        int reason;
        const char *said;
    } rows[] = {
        {'g', STATE_ISSUED, 0, "good"},    {'r', STATE_REVOKED, 1, "-40 1"},
        {'n', STATE_REVOKED, 0, "-40 -1"}, {'h', STATE_HELD, 6, "-40 6"},
        {'o', STATE_ORPHAN, 0, "-40 -1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char tag[2] = {(char)rows[i].tag, 0};
        if (rows[i].to != STATE_ISSUED)
            set(rows[i].tag, rows[i].to, t.now - 40, rows[i].reason);
        ask(i, tag, "");
        sign_next(0);
        assert_string_equal(said(0), rows[i].said);
        assert_int_equal(t.this_update, t.now);
        assert_int_equal(t.next_update, t.now + t.config.ocsp_life);
    }
    assert_int_equal(t.answers, sizeof rows / sizeof *rows);
    set('h', STATE_ISSUED, t.now, 0);
    ask(9, "h", "");
    sign_next(0);
    assert_string_equal(said(0), "good");
}

/* An open intent may be good in a moment: nobody keeps it. */
static void what_is_not_issued_is_unknown_and_not_kept(void **state)
{
    (void)state;
    set('i', STATE_INTENT, 0, 0);
    ask(1, "i", "");
    sign_next(0);
    assert_string_equal(said(0), "unknown");
    assert_int_equal(t.next_update, 0);
    ask(2, "x", "");
    sign_next(0);
    assert_string_equal(said(0), "unknown");
    assert_int_equal(t.next_update, 0);
}

static void several_are_answered_in_their_order(void **state)
{
    (void)state;
    set('r', STATE_REVOKED, t.now - 7, 4);
    ask(1, "rgx", "");
    sign_next(0);
    assert_int_equal(t.next_update, 0);
    assert_string_equal(said(0), "-7 4");
    assert_string_equal(said(1), "good");
    assert_string_equal(said(2), "unknown");
}

static void another_ca_s_certificates_are_not_its_affair(void **state)
{
    struct ocsp_certid ids[2] = {certid('g', EVP_sha256()), certid('g', EVP_sha1())};
    (void)state;
    assert_int_equal(ask_for(1, ids, 2, ""), 0);
    sign_next(0);
    assert_string_equal(said(0), "good");
    for (int i = 0; i < 4; i++) {
        struct ocsp_certid other = certid('g', i & 1 ? EVP_sha256() : EVP_sha1());
        (i & 2 ? other.issuer_name_hash : other.issuer_key_hash)[other.hash_len - 1] ^= 1;
        assert_int_equal(ask_for(2, &other, 1, ""), 0);
        assert_int_equal(bare_status(), OCSP_RESPONSE_STATUS_UNAUTHORIZED);
        assert_int_equal(t.next_update, 0);
        ids[1] = other;
        assert_int_equal(ask_for(2, ids, 2, "nonce"), 0);
        assert_int_equal(bare_status(), OCSP_RESPONSE_STATUS_UNAUTHORIZED);
    }
    assert_int_equal(t.asked, 1);
}

static void the_same_question_is_signed_once(void **state)
{
    struct ocsp_certid by_sha256 = certid('g', EVP_sha256());
    (void)state;
    ask(1, "g", "");
    ask(2, "g", "");
    assert_int_equal(t.asked, 1);
    assert_int_equal(ask_for(3, &by_sha256, 1, ""), 0); /* in other words */
    ask(4, "g", "nonce");
    ask(5, "gg", "");
    assert_int_equal(t.asked, 4);
    sign_next(0);
    assert_int_equal(t.answers, 2);
    assert_int_equal(t.answered[0] + t.answered[1], 3);
    assert_int_equal(t.next_update, t.now + t.config.ocsp_life);
    sign_next(0);
    sign_next(0);
    assert_int_equal(t.next_update, 0); /* with a nonce it is for one */
    sign_next(0);
    assert_int_equal(t.next_update, 0);
    ask(6, "g", ""); /* afterwards it is asked for anew: fronts keep answers, not this */
    assert_int_equal(t.asked, 5);
    sign_next(0);
    assert_int_equal(t.answers, 6);
}

/* The token takes its time; meanwhile the certificate is revoked, and that is acknowledged. */
static void what_changed_while_the_token_signed_is_built_anew(void **state)
{
    (void)state;
    ask(1, "g", "");
    set('g', STATE_HELD, t.now - 3, 6);
    ask(2, "g", ""); /* waits with the first */
    sign_next(0);
    assert_int_equal(t.answers, 0);
    set('g', STATE_ISSUED, t.now - 2, 0);
    sign_next(0);
    set('g', STATE_REVOKED, t.now - 1, 1);
    assert_int_equal(t.answers, 0);
    sign_next(0);
    assert_int_equal(t.answers, 0);
    sign_next(0);
    assert_int_equal(t.answers, 2);
    assert_string_equal(said(0), "-1 1");
    assert_int_equal(t.asked, 4);
}

static void a_state_that_never_rests_is_given_up(void **state)
{
    (void)state;
    ask(1, "g", "");
    for (int i = 0; t.answers == 0 && i < 20; i++) {
        set('g', i & 1 ? STATE_ISSUED : STATE_HELD, t.now, 6);
        sign_next(0);
    }
    assert_int_equal(t.refused, ERR_busy);
    assert_int_equal(t.signed_count, t.asked);
}

static void a_new_responder_signs_its_own(void **state)
{
    (void)state;
    ask(1, "g", "");
    new_responder(3);
    sign_next(0);
    assert_int_equal(t.answers, 0);
    sign_next(0);
    assert_string_equal(said(0), "good");
}

static void a_wrong_signature_ends_its_signer_and_is_tried_once_more(void **state)
{
    (void)state;
    ask(1, "g", "");
    sign_next(1);
    assert_int_equal(t.distrusted, 1);
    assert_int_equal(t.answers, 0);
    sign_next(0);
    assert_string_equal(said(0), "good");
    ask(2, "g", "");
    sign_next(1);
    sign_next(1);
    assert_int_equal(t.distrusted, 3);
    assert_int_equal(t.refused, ERR_token_unavailable);
    assert_int_equal(t.asked, t.signed_count);
}

static void nothing_is_answered_without_clock_token_or_responder(void **state)
{
    (void)state;
    t.clock_wrong = 1;
    ask(1, "g", "");
    assert_int_equal(t.refused, ERR_clock_suspect);
    t.clock_wrong = 0;
    t.token_away = 1;
    ask(2, "g", "");
    assert_int_equal(t.refused, ERR_token_unavailable);
    t.token_away = 0;
    ask(3, "g", "");
    fail_next();
    assert_int_equal(t.refused, ERR_token_unavailable);
    t.a.ocsp_responder = NULL;
    ask(4, "g", "");
    assert_int_equal(t.refused, ERR_token_unavailable);
    t.a.ocsp_responder = responder;
    assert_int_equal(t.asked, 1);
    ask(5, "g", ""); /* for whoever waits when it ends */
    responding_free(t.a.responding);
    t.a.responding = NULL;
    assert_int_equal(t.answers, 5);
    assert_int_equal(t.refused, ERR_draining);
}

static void an_answer_ends_with_its_responder_and_its_ca(void **state)
{
    (void)state;
    int64_t end = responder_not_after(responder);
    t.now = end - 100;
    ask(1, "g", "");
    sign_next(0);
    assert_int_equal(t.next_update, end);
    t.now = end;
    ask(2, "g", "");
    assert_int_equal(t.refused, ERR_token_unavailable);
    new_responder(200); /* beyond the CA's */
    t.now = end = issuer_not_after(t.ca.issuer) - 1;
    ask(3, "g", "");
    sign_next(0);
    assert_int_equal(t.next_update, end + 1);
}

/* Nonces, several, what is not there: a second's worth, then busy. What serves all goes on. */
static void strangers_have_a_budget(void **state)
{
    (void)state;
    ask(1, "g", "nonce");
    ask(2, "gg", "");
    ask(3, "x", "");
    assert_int_equal(t.answers, 0);
    assert_int_equal(t.asked, 3);
    ask(4, "g", "another");
    ask(5, "y", "");
    ask(6, "gy", "");
    assert_int_equal(t.answers, 3);
    assert_int_equal(t.refused, ERR_busy);
    assert_int_equal(t.asked, 3);
    ask(7, "g", "");
    assert_int_equal(t.asked, 4);
    for (int i = 0; i < 4; i++)
        sign_next(0);
    ask(8, "g", "third"); /* that they are answered gives nothing back */
    assert_int_equal(t.refused, ERR_busy);
    usleep(400000);
    ask(9, "g", "fourth"); /* time does: a third of a second for one */
    assert_int_equal(t.asked, 5);
    ask(10, "g", "fifth");
    assert_int_equal(t.refused, ERR_busy);
    sign_next(0);
}

static void few_at_once_are_for_strangers(void **state)
{
    (void)state;
    t.config.ocsp_budget = 100000;
    char nonce[2] = "a";
    for (uint64_t i = 0; i < 20; i++, nonce[0]++)
        ask(i, "g", nonce);
    assert_int_equal(t.asked, 16);
    assert_int_equal(t.answers, 4);
    assert_int_equal(t.refused, ERR_busy);
    sign_next(0);
    ask(21, "g", "again");
    assert_int_equal(t.asked, 17);
    while (t.signed_count < t.asked)
        sign_next(0);
}

static void without_a_key_there_is_none(void **state)
{
    (void)state;
    t.config.ocsp_key_label = NULL;
    ask(1, "g", "");
    assert_int_equal(t.refused, ERR_not_found);
    assert_int_equal(t.asked, 0);
}

static void what_no_front_sends_ends_it(void **state)
{
    struct msg_ocsp m = {.caller_address = "", .certids = text_bytes("not certids")};
    (void)state;
    assert_int_equal(ocsp_question(&t.a, &m, &t.peer, 1), -1);
    assert_int_equal(t.peer.open, 0);
}

#define each(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(every_state_has_its_words),
        each(what_is_not_issued_is_unknown_and_not_kept),
        each(several_are_answered_in_their_order),
        each(another_ca_s_certificates_are_not_its_affair),
        each(the_same_question_is_signed_once),
        each(what_changed_while_the_token_signed_is_built_anew),
        each(a_state_that_never_rests_is_given_up),
        each(a_new_responder_signs_its_own),
        each(a_wrong_signature_ends_its_signer_and_is_tried_once_more),
        each(nothing_is_answered_without_clock_token_or_responder),
        each(an_answer_ends_with_its_responder_and_its_ca),
        each(strangers_have_a_budget),
        each(few_at_once_are_for_strangers),
        each(without_a_key_there_is_none),
        each(what_no_front_sends_ends_it),
    };
    return cmocka_run_group_tests(tests, temp_enter, temp_leave);
}
