/* One CRL, from its number to its record. */
#include <stdio.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/authority/clock.h"
#include "server/authority/publish_parts.h"
#include "server/authority/signers.h"
#include "server/authority/violation.h"

#define CALL_DEADLINE 30000   /* ms for a publisher to appear */
#define BUILD_DEADLINE 900000 /* for it to be done */

static void enter(struct publishing *p, enum phase phase)
{
    p->phase = phase;
    p->phase_since = publish_clock();
}

void build_drop_file(struct publishing *p)
{
    if (p->next_file >= 0)
        close(p->next_file);
    p->next_file = -1;
}

static void give_up(struct publishing *p, const char *why)
{
    build_drop_file(p);
    if (p->publisher) {
        channel_free(p->publisher);
        p->publisher = NULL;
    }
    enter(p, IDLE);
    publish_failed(p, why);
}

/* ---- number ---- */

static int decide_number(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    struct crl_row last;
    uint8_t hash[32];
    int rc = tx_last_crl(tx, p->a->issuer_id, (int)p->building, 0, &last);
    if (rc < 0)
        return -1;
    int64_t now = clock_now(p->a->clock), end = issuer_not_after(p->a->issuer);
    p->next =
        (struct crl_row){.issuer = p->a->issuer_id, .shard = (int)p->building, .this_update = now};
    p->next.number = rc == 0 ? last.number + 1 : 1;
    p->next.next_update = now + p->a->config->crl_life < end ? now + p->a->config->crl_life : end;
    if (tx_journal_head(tx, &p->next.journal_seq, hash))
        return -1;
    return tx_add_crl(tx, &p->next);
}

static void after_number(int durable, void *arg)
{
    struct publishing *p = arg;
    struct msg_publisher_wanted m = {0};
    if (!durable) {
        give_up(p, "its number could not be stored");
        return;
    }
    p->scopes[p->building].wanted = NOT_WANTED;
    enter(p, CALLING);
    if (channel_send(p->a->supervisor, MSG_publisher_wanted, 0, &m, -1))
        give_up(p, "the supervisor does not answer");
}

void build_begin(struct publishing *p, unsigned scope)
{
    p->building = scope;
    p->begun = publish_clock();
    enter(p, NUMBERING);
    if (store_submit(p->a->store, decide_number, after_number, p))
        give_up(p, "no memory");
}

/* ---- building ---- */

struct job_facts {
    uint64_t seq;
    uint8_t hash[32];
};

static int read_head(struct store_tx *tx, void *arg)
{
    struct job_facts *f = arg;
    return tx_journal_head(tx, &f->seq, f->hash);
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What expired before this has stood on a CRL beyond its end. The clock may have been set back
 * since the last one. */
static int64_t expired_before(const struct publishing *p)
{
    const struct crl_row *current = &p->scopes[p->building].current;
    return current->number ? earlier(current->this_update, p->next.this_update) : 0;
}

/* The anchor is the journal as it is now, not as it was when the number was taken: later is truer,
 * and the row is corrected with it. */
static int send_job(struct publishing *p)
{
    struct job_facts f;
    if (store_read(p->a->store, read_head, &f))
        return -1;
    p->next.journal_seq = f.seq;
    uint8_t issuer[32];
    sha256(issuer, issuer_certificate_der(p->a->issuer));
    struct msg_crl_job m = {
        .issuer = (uint32_t)p->a->issuer_id,
        .shard = p->building,
        .number = p->next.number,
        .this_update = p->next.this_update,
        .next_update = p->next.next_update,
        /* one CRL beyond its expiry has been issued for what expired before the last one */
        .expired_before = expired_before(p),
        .journal_seq = f.seq,
        .journal_hash = {f.hash, 32},
        .issuer_sha256 = {issuer, 32},
    };
    return channel_send(p->publisher, MSG_crl_job, 1, &m, -1);
}

#define WRONG "the token's signature does not verify"

/* Which CRL a signature was asked for: the next one is not given an old answer. */
struct asked_signature {
    struct publishing *p;
    unsigned scope;
    uint64_t number;
    uint8_t digest[DIGEST_MAX];
    size_t digest_len;
};

static void on_signature(void *arg, struct bytes signature, const struct err *err)
{
    struct asked_signature *asked = arg;
    struct publishing *p = asked->p;
    struct msg_crl_signature m = {.signature = signature};
    int is_late = p->phase != BUILDING || !p->publisher || asked->scope != p->building ||
                  asked->number != p->next.number;
    int is_wrong =
        signature.len &&
        issuer_verify(p->a->issuer, (struct bytes){asked->digest, asked->digest_len}, signature);
    free(asked);
    if (is_wrong)
        signers_distrust(p->a->signers, WRONG);
    if (is_late)
        return; /* given up meanwhile */
    if (signature.len == 0)
        give_up(p, err->text);
    else if (is_wrong)
        give_up(p, WRONG);
    else if (channel_send(p->publisher, MSG_crl_signature, 1, &m, -1))
        give_up(p, "the publisher does not answer");
}

/* One, and over a digest: a publisher in other hands has no more of the token than that. */
static int ask_for_signature(struct publishing *p, struct bytes digest)
{
    uint8_t unused[DIGEST_MAX];
    if (p->asked++ || digest.len != sign_digest(issuer_alg(p->a->issuer), digest, unused))
        return -1;
    struct asked_signature *asked = malloc(sizeof *asked);
    if (!asked)
        return -1;
    *asked = (struct asked_signature){p, p->building, p->next.number, .digest_len = digest.len};
    memcpy(asked->digest, digest.data, digest.len);
    if (signers_sign(p->a->signers, TOKEN_KEY_CA, SIGN_FOR_CRL, digest, on_signature, asked)) {
        free(asked);
        return -1;
    }
    return 0;
}

static int decide_published(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    char digest[65], shard[16] = "";
    hex_encode(digest, (struct bytes){p->next.sha256, 32});
    if (p->building)
        snprintf(shard, sizeof shard, " shard=%u", p->building);
    return tx_set_crl_published(tx, &p->next) ||
                   tx_event(tx, clock_now(p->a->clock), 0,
                            "crl number=%llu journal=%llu sha256=%s%s",
                            (unsigned long long)p->next.number,
                            (unsigned long long)p->next.journal_seq, digest, shard)
               ? -1
               : 0;
}

static void after_published(int durable, void *arg)
{
    struct publishing *p = arg;
    if (!durable) {
        give_up(p, "it could not be recorded");
        return;
    }
    enter(p, IDLE);
    channel_free(p->publisher); /* it ends by itself; the next is not kept waiting for that */
    p->publisher = NULL;
    publish_done(p);
}

/* All fronts have it mapped: who made it must not be able to change or cut it. */
static int is_sealed(int fd)
{
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int has = fcntl(fd, F_GET_SEALS);
    return has >= 0 && (has & seals) == seals;
}

static int on_done(struct publishing *p, const struct msg_crl_done *m, int fd)
{
    char title[CRL_TITLE_MAX];
    if (m->sha256.len != 32 || !is_sealed(fd)) {
        close(fd);
        return -1;
    }
    build_drop_file(p);
    p->next_file = fd;
    memcpy(p->next.sha256, m->sha256.data, 32);
    log_info("%s: %llu entries, %llu bytes, %lld ms",
             publish_title(title, p->building, p->next.number), (unsigned long long)m->entries,
             (unsigned long long)m->size, (long long)(publish_clock() - p->begun));
    if (store_submit(p->a->store, decide_published, after_published, p))
        return -1;
    enter(p, RECORDING); /* from here on after_published() ends it, and nothing else */
    return 0;
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct publishing *p = arg;
    union {
        struct msg_crl_digest digest;
        struct msg_crl_done done;
        struct msg_crl_failed failed;
    } body;
    if (p->phase != BUILDING || (m->type == MSG_crl_done) != (m->fd >= 0) ||
        msg_decode(&body, m->type, m->fields)) {
        if (m->fd >= 0)
            close(m->fd);
        return -1;
    }
    switch (m->type) {
    case MSG_crl_digest:
        return ask_for_signature(p, body.digest.digest);
    case MSG_crl_done:
        return on_done(p, &body.done, m->fd);
    case MSG_crl_failed:
        snprintf(p->why, sizeof p->why, "%s", body.failed.why);
        return 0; /* its end follows */
    default:
        return -1;
    }
}

/* Two at once would write the same temporary files. */
static void end_publisher(struct publishing *p, const char *why)
{
    struct msg_peer_end m = {.role = PROC_PUBLISHER, .number = 1, .why = why};
    channel_send(p->a->supervisor, MSG_peer_end, 0, &m, -1);
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct publishing *p = arg;
    p->publisher = NULL;
    channel_free(c);
    if (why) {
        violation_journal(p->a, PROC_PUBLISHER, 1, why);
        end_publisher(p, why);
    }
    if (p->phase != BUILDING)
        return;
    char reason[512];
    snprintf(reason, sizeof reason, "%s", why ? why : p->why[0] ? p->why : "the publisher ended");
    give_up(p, reason);
}

void publish_add(struct publishing *p, int socket)
{
    static const struct channel_handlers handlers = {on_message, on_end};
    if (p->phase != CALLING || p->publisher) {
        close(socket); /* come too late; it ends by itself */
        return;
    }
    p->publisher = channel_new(p->a->base, socket, PROC_AUTHORITY, PROC_PUBLISHER, &handlers, p);
    if (!p->publisher) {
        close(socket);
        give_up(p, "no memory");
        return;
    }
    p->why[0] = '\0';
    p->asked = 0;
    enter(p, BUILDING);
    if (send_job(p))
        give_up(p, "the publisher does not answer");
}

/* ---- too long ---- */

void build_check(struct publishing *p)
{
    int64_t in_phase = publish_clock() - p->phase_since;
    if (p->phase == CALLING && in_phase > CALL_DEADLINE) {
        give_up(p, "no publisher was started");
    } else if (p->phase == BUILDING && in_phase > BUILD_DEADLINE) {
        end_publisher(p, "it takes too long");
        give_up(p, "the publisher took too long");
    }
}
