#include "server/authority/publish.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "pki/crl.h"
#include "server/authority/clock.h"
#include "server/authority/fronts.h"
#include "server/authority/projection.h"
#include "server/authority/signers.h"

enum phase {
    IDLE,
    NUMBERING, /* the number is being committed */
    CALLING,   /* a publisher was asked for */
    BUILDING,  /* it works, or waits for the signature */
    RECORDING  /* the file is in place; the row is being committed */
};

struct publishing {
    struct authority *a;
    enum phase phase;
    int wanted;
    /* in seconds of a clock that nobody sets */
    int64_t not_before; /* after a failure: no new try until then */
    int64_t phase_since;
    int failures;
    struct crl_row current, next;
    uint64_t given;      /* the highest number ever given out */
    int file, next_file; /* sealed copies: of the current one, which fronts get; of the next */
    struct channel *publisher;
    struct event *timer;
    char problem[512];
};

#define CALL_DEADLINE 30   /* seconds for a publisher to appear */
#define BUILD_DEADLINE 900 /* for it to be done */

static int64_t monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec;
}

static void enter(struct publishing *p, enum phase phase)
{
    p->phase = phase;
    p->phase_since = monotonic_seconds();
}

static void drop_next_file(struct publishing *p)
{
    if (p->next_file >= 0)
        close(p->next_file);
    p->next_file = -1;
}

static void give_up(struct publishing *p, const char *why)
{
    drop_next_file(p);
    if (p->publisher) {
        channel_free(p->publisher);
        p->publisher = NULL;
    }
    enter(p, IDLE);
    p->wanted = 1;
    p->failures++;
    p->not_before = monotonic_seconds() + (p->failures < 6 ? 1 << p->failures : 60);
    snprintf(p->problem, sizeof p->problem, "the CRL could not be made: %s", why);
    log_error("%s; it is tried again", p->problem);
}

/* ---- number ---- */

static int decide_number(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    struct crl_row last;
    uint8_t hash[32];
    int rc = tx_last_crl(tx, p->a->issuer_id, 0, 0, &last);
    if (rc < 0)
        return -1;
    int64_t now = clock_now(p->a->clock), end = issuer_not_after(p->a->issuer);
    p->next = (struct crl_row){.issuer = p->a->issuer_id, .this_update = now};
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
    p->wanted = 0;
    enter(p, CALLING);
    if (channel_send(p->a->supervisor, MSG_publisher_wanted, 0, &m, -1))
        give_up(p, "the supervisor does not answer");
}

/* Told once: what is revoked meanwhile is acknowledged, but verifiers do not see it yet. */
static void wait_for(struct publishing *p, const char *what)
{
    char problem[sizeof p->problem];
    snprintf(problem, sizeof problem,
             "the CRL waits for the %s: what was revoked since CRL %llu is not on it yet", what,
             (unsigned long long)p->current.number);
    if (strcmp(problem, p->problem) != 0)
        log_warn("%s", problem);
    memcpy(p->problem, problem, sizeof problem);
}

static void begin(struct publishing *p)
{
    struct err err;
    if (monotonic_seconds() < p->not_before)
        return;
    if (clock_usable(p->a->clock, &err)) {
        wait_for(p, "clock");
        return;
    }
    if (signers_usable(p->a->signers, &err)) {
        wait_for(p, "token");
        return;
    }
    enter(p, NUMBERING);
    if (store_submit(p->a->store, decide_number, after_number, p))
        give_up(p, "no memory");
}

/* ---- building ---- */

struct job_facts {
    struct publishing *p;
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
    return p->current.number ? earlier(p->current.this_update, p->next.this_update) : 0;
}

/* The anchor is the journal as it is now, not as it was when the number was taken: later is truer,
 * and the row is corrected with it. */
static int send_job(struct publishing *p)
{
    struct job_facts f = {.p = p};
    if (store_read(p->a->store, read_head, &f))
        return -1;
    p->next.journal_seq = f.seq;
    uint8_t issuer[32];
    sha256(issuer, issuer_certificate_der(p->a->issuer));
    struct msg_crl_job m = {
        .issuer = (uint32_t)p->a->issuer_id,
        .shard = (uint32_t)p->next.shard,
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

/* Which CRL a signature was asked for: the next one is not given an old answer. */
struct asked_signature {
    struct publishing *p;
    uint64_t number;
};

static void on_signature(void *arg, struct bytes signature, const struct err *err)
{
    struct asked_signature *asked = arg;
    struct publishing *p = asked->p;
    struct msg_crl_signature m = {.signature = signature};
    int is_late = p->phase != BUILDING || !p->publisher || asked->number != p->next.number;
    free(asked);
    if (is_late)
        return; /* given up meanwhile */
    if (signature.len == 0)
        give_up(p, err->text);
    else if (channel_send(p->publisher, MSG_crl_signature, 1, &m, -1))
        give_up(p, "the publisher does not answer");
}

static int ask_for_signature(struct publishing *p, struct bytes digest)
{
    struct asked_signature *asked = malloc(sizeof *asked);
    if (!asked)
        return -1;
    *asked = (struct asked_signature){p, p->next.number};
    if (signers_sign(p->a->signers, SIGN_FOR_CRL, digest, on_signature, asked)) {
        free(asked);
        return -1;
    }
    return 0;
}

static void serve_file(struct publishing *p, int fd)
{
    if (p->file >= 0)
        close(p->file);
    p->file = fd;
}

static int decide_published(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    char digest[65];
    hex_encode(digest, (struct bytes){p->next.sha256, 32});
    return tx_set_crl_published(tx, &p->next) ||
                   tx_event(tx, clock_now(p->a->clock), 0, "crl number=%llu journal=%llu sha256=%s",
                            (unsigned long long)p->next.number,
                            (unsigned long long)p->next.journal_seq, digest)
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
    p->failures = 0;
    p->problem[0] = '\0';
    p->current = p->next;
    p->current.published = 1;
    projection_wanted(p->a->projection);
    serve_file(p, p->next_file);
    p->next_file = -1;
    fronts_send_crl(p->a->fronts);
}

static int on_done(struct publishing *p, const struct msg_crl_done *m, int fd)
{
    if (m->sha256.len != 32) {
        close(fd);
        return -1;
    }
    drop_next_file(p);
    p->next_file = fd;
    memcpy(p->next.sha256, m->sha256.data, 32);
    log_info("CRL %llu: %llu entries, %llu bytes", (unsigned long long)p->next.number,
             (unsigned long long)m->entries, (unsigned long long)m->size);
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
        snprintf(p->problem, sizeof p->problem, "%s", body.failed.why);
        return 0; /* its end follows */
    default:
        return -1;
    }
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct publishing *p = arg;
    p->publisher = NULL;
    channel_free(c);
    if (p->phase != BUILDING)
        return;
    char reason[512];
    snprintf(reason, sizeof reason, "%s",
             why             ? why
             : p->problem[0] ? p->problem
                             : "the publisher ended");
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
    p->problem[0] = '\0';
    enter(p, BUILDING);
    if (send_job(p))
        give_up(p, "the publisher does not answer");
}

/* ---- when ---- */

/* Half of its life is over; or it is of a time to come, from a clock that was ahead. */
static int is_due(const struct publishing *p)
{
    const struct crl_row *c = &p->current;
    int64_t now = clock_now(p->a->clock);
    return c->number == 0 || now < c->this_update ||
           now >= c->this_update + (c->next_update - c->this_update) / 2;
}

/* Two at once would write the same temporary files. */
static void end_publisher(struct publishing *p)
{
    struct msg_peer_end m = {.role = PROC_PUBLISHER, .number = 1, .why = "it takes too long"};
    channel_send(p->a->supervisor, MSG_peer_end, 0, &m, -1);
}

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct publishing *p = arg;
    int64_t in_phase = monotonic_seconds() - p->phase_since;
    if (p->a->stopping)
        return;
    if (p->phase == IDLE && (p->wanted || is_due(p)))
        begin(p);
    else if (p->phase == CALLING && in_phase > CALL_DEADLINE)
        give_up(p, "no publisher was started");
    else if (p->phase == BUILDING && in_phase > BUILD_DEADLINE) {
        end_publisher(p);
        give_up(p, "the publisher took too long");
    }
}

/* At once, so that who looks after a revocation sees it; but what comes within the next second is
 * gathered. */
void publish_wanted(struct publishing *p)
{
    p->wanted = 1;
    if (p->phase == IDLE && monotonic_seconds() > p->phase_since)
        event_active(p->timer, EV_TIMEOUT, 0);
}

uint64_t publish_older(const struct publishing *p)
{
    return p->phase == BUILDING || p->phase == RECORDING ? p->next.number : p->current.number;
}

const struct crl_row *publish_current(const struct publishing *p)
{
    return &p->current;
}

int publish_file(const struct publishing *p)
{
    return p->file;
}

const char *publish_problem(const struct publishing *p)
{
    static const char late[] = "the CRL is past its nextUpdate; no new one could be made";
    if (p->current.number && clock_now(p->a->clock) >= p->current.next_update)
        return late;
    return p->problem[0] ? p->problem : NULL;
}

/* A revocation, or the end of a hold, that a crash came after is on no CRL yet: nothing else would
 * ask for one. */
static int read_last(struct store_tx *tx, void *arg)
{
    struct publishing *p = arg;
    struct crl_row last = {0};
    if (tx_last_crl(tx, p->a->issuer_id, 0, 0, &last) < 0)
        return -1;
    p->given = last.number;
    int rc = tx_last_crl(tx, p->a->issuer_id, 0, 1, &p->current);
    int changed = rc == 0 ? tx_crl_event_after(tx, p->current.journal_seq) : 1;
    p->wanted = changed == 0;
    return rc < 0 || changed < 0 ? -1 : 0;
}

/* The number of a CRL that this CA signed; 0: it is none. */
static uint64_t number_of(const struct publishing *p, int fd, uint64_t size)
{
    void *all = size ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (all == MAP_FAILED)
        return 0;
    uint64_t number = crl_number((struct bytes){all, size}, p->a->issuer);
    munmap(all, size);
    return number;
}

/* A CRL that the store never gave out, under this CA's own signature, was published: the store is
 * an older one. To go on would number CRLs anew and forget what that one revokes. */
static int check_number(const struct publishing *p, int fd, uint64_t size, struct err *err)
{
    uint64_t number = number_of(p, fd, size);
    if (number <= p->given)
        return 0;
    return err_set(
        err, ERR_storage_unavailable,
        "%s/signet.db gave out CRL numbers to %llu, but crl.der has %llu: the database is "
        "an older one; docs/recovery.md, \"A corrupt database\", has the way back, with "
        "this crl.der",
        p->a->config->state, (unsigned long long)p->given, (unsigned long long)number);
}

/* STATE/crl.der, if it is the very one that the store has as published. A pipe stops nobody. */
static int load_current(struct publishing *p, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    uint8_t digest[32];
    uint64_t size;
    snprintf(path, sizeof path, "%s/crl.der", p->a->config->state);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), copy = -1, rc = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        copy = file_sealed_copy(fd, digest, &size, err);
    if (fd >= 0)
        close(fd);
    if (copy >= 0 && memcmp(digest, p->current.sha256, 32) == 0) {
        serve_file(p, copy);
        return 0;
    }
    if (copy >= 0) {
        rc = check_number(p, copy, size, err);
        close(copy);
    }
    if (rc == 0 && p->current.number) {
        log_error("%s is not CRL %llu, the last one published; a new one is made", path,
                  (unsigned long long)p->current.number);
        p->wanted = 1; /* the next number takes its place; until then none is served */
    }
    return rc;
}

int publishing_open(struct publishing **out, struct authority *a, struct err *err)
{
    struct publishing *p = calloc(1, sizeof *p);
    struct timeval often = {0, 200000};
    if (!p || !(p->timer = event_new(a->base, -1, EV_PERSIST, on_timer, p)) ||
        event_add(p->timer, &often))
        fatal("no memory");
    p->a = a;
    p->file = p->next_file = -1;
    if (store_read(a->store, read_last, p)) {
        publishing_close(p);
        return err_set(err, ERR_storage_unavailable, "the store cannot be read");
    }
    if (load_current(p, err)) {
        publishing_close(p);
        return -1;
    }
    *out = p;
    return 0;
}

void publishing_close(struct publishing *p)
{
    if (!p)
        return;
    channel_free(p->publisher);
    event_free(p->timer);
    drop_next_file(p);
    if (p->file >= 0)
        close(p->file);
    free(p);
}
