/* The store: what the CA knows, durable before anything is acknowledged.
 *
 * Asynchronous from the start. A change is a *decision* that reads and writes within a transaction
 * and may be run again (it must set, not add to, what it keeps elsewhere), and a *completion* that
 * is told once whether it is durable. store_submit() takes both; store_commit() runs a round: all
 * decisions in one transaction, one sync, then the completions. SQLite (WAL, synchronous=FULL)
 * stands behind it in store_sqlite.c and its neighbours; another database would be beside them.
 *
 * A decision that returns -1 takes back its own writes and nobody else's.
 */
#ifndef SIGNET_STORE_H
#define SIGNET_STORE_H

#include "common/bytes.h"
#include "common/err.h"

enum certificate_state {
    STATE_INTENT = 0,
    STATE_ISSUED = 1,
    STATE_REVOKED = 2,
    STATE_HELD = 3,
    STATE_ORPHAN =
        4 /* an intent that came to nothing, on the CRL in case it was signed after all */
};
/* What the laptop reported of the board that the certificate is for. */
enum board_state { BOARD_UNREPORTED = 0, BOARD_FLASHED = 1, BOARD_VERIFIED = 2 };

const char *certificate_state_name(enum certificate_state s);
const char *board_state_name(enum board_state b);

struct store;    /* one connection */
struct store_tx; /* a transaction under way */

/* Opens STATE/signet.db for writing. A store that is not there is made only when STATE holds no
 * journal and no certificates: a lost store is not made anew behind one's back. One of an earlier
 * schema becomes one of this in one transaction. A corrupt one, or one of a later schema, is
 * refused. */
int store_open(struct store **out, const char *state, struct err *err)
    __attribute__((warn_unused_result));
/* For publisher and signetctl; of this schema alone. */
int store_open_read_only(struct store **out, const char *state, struct err *err)
    __attribute__((warn_unused_result));
void store_close(struct store *s);

typedef int (*store_decision)(struct store_tx *tx, void *arg);
/* durable: 1 the decision is committed and synced; 0 it returned -1 or the store cannot be written
 * (then store_problem() says why). */
typedef void (*store_completion)(int durable, void *arg);

/* -1: no memory; nothing is called then. */
int store_submit(struct store *s, store_decision decide, store_completion complete, void *arg)
    __attribute__((warn_unused_result));
/* Whether a round has anything to do. */
int store_waiting(const struct store *s);
/* One round. Ends the process when a sync fails (section 5.8 of the design). */
void store_commit(struct store *s);
/* Certificates by which an answer on their state is another now: revoked, held, off hold, orphan or
 * found. Told once a round, when it is durable and before its completions; beyond
 * STORE_CHANGES_MAX none is named (list NULL): it may be any. */
#define STORE_CHANGES_MAX 512
struct state_change {
    int64_t issuer;
    uint8_t serial[20];
    size_t serial_len;
};
typedef void (*store_changes_fn)(const struct state_change *list, size_t count, void *arg);
void store_on_changes(struct store *s, store_changes_fn told, void *arg);

/* NULL while all is well; otherwise why the last round could not be written. */
const char *store_problem(const struct store *s);

/* While there is a problem: writes what changes nothing, to see whether it has passed. */
void store_try(struct store *s);

/* Reading outside of a round, in one snapshot. */
int store_read(struct store *s, store_decision reader, void *arg);

/* What SQLite finds wrong in its file: pages, indexes, references. -1: it cannot be read. */
int store_check(struct store *s, void (*each)(const char *problem, void *arg), void *arg);
/* ---- within a transaction ----
 * Views in results are valid until the next call on the same transaction.
 * Unless said otherwise: 0 found or done, 1 not there, -1 the store failed. */

struct certificate_row {
    int64_t id, issuer;
    uint8_t serial[20];
    size_t serial_len;
    enum certificate_state state;
    char profile[65], name[65];
    int64_t operator_id, subject_operator; /* 0: none */
    uint8_t spki_sha256[32], tbs_sha256[32], der_sha256[32];
    int64_t not_before, not_after, created_at, issued_at, revoked_at;
    int reason;
    enum board_state board;
    int shard;        /* whose CRL its distribution point names; 0: the full one, -1: unknown */
    struct bytes der; /* a view; empty until issued */
};

struct operator_row {
    int64_t id;
    char name[65];
    unsigned roles;
    int64_t revoked_at; /* 0: in force */
};

int tx_certificate_by_serial(struct store_tx *tx, int64_t issuer, struct bytes serial,
                             struct certificate_row *row);
int tx_certificate_by_id(struct store_tx *tx, int64_t id, struct certificate_row *row);
/* The issuer whose name has this digest; the id. */
int tx_issuer_by_name(struct store_tx *tx, struct bytes name_sha256, struct bytes serial,
                      int64_t *issuer);
/* A certificate on this key for a subject other than name. */
int tx_key_of_other(struct store_tx *tx, const uint8_t spki_sha256[32], const char *name,
                    const char *profile);
/* A live one (an open intent, or issued, not revoked, not expired) for this name and profile. */
int tx_live_certificate(struct store_tx *tx, const char *name, const char *profile, int64_t now,
                        struct certificate_row *row);

/* Adds row (state intent, without der); sets row->id. 1: this issuer has this serial already. */
int tx_add_intent(struct store_tx *tx, struct certificate_row *row);
int tx_set_issued(struct store_tx *tx, int64_t id, struct bytes der, const uint8_t sha256[32],
                  int64_t at);
/* Whose certificate this one took the place of. */
int tx_set_replaces(struct store_tx *tx, int64_t id, int64_t older);
/* Orphan: the request that led to it is forgotten, so that a retry gets a new serial, and the use
 * of an enrolment that went into it is given back. */
int tx_set_orphan(struct store_tx *tx, int64_t id, int64_t at);
int tx_set_revoked(struct store_tx *tx, int64_t id, enum certificate_state state, int64_t at,
                   int reason);
/* Its certificate turned up: a row without one, revoked or held (after a restore, or an orphan),
 * takes names, dates and DER from row; it stays on the CRL as it is. */
int tx_set_found(struct store_tx *tx, const struct certificate_row *row, struct bytes der,
                 const uint8_t sha256[32], int64_t at);
/* What became of its board; refused for one that is not issued, and never down. */
int tx_set_board(struct store_tx *tx, int64_t id, enum board_state board);
/* Off hold: issued again, as if it had never been. */
int tx_set_unheld(struct store_tx *tx, int64_t id);
/* The next certificate after `after`, by id, that an operator asked for within [from, to] and that
 * is issued or on hold. */
int tx_issued_by_operator(struct store_tx *tx, int64_t operator_id, int64_t from, int64_t to,
                          int64_t after, struct certificate_row *row);
/* The next live one (issued or on hold, not expired) of this name, by id. */
int tx_live_of_name(struct store_tx *tx, const char *name, int64_t now, int64_t after,
                    struct certificate_row *row);

struct list_filter {
    const char *name;    /* NULL or "": any */
    int64_t operator_id; /* who asked; 0: any */
    int state;           /* enum certificate_state; -1: any */
    unsigned board;      /* enum board_state, + 1, of devices' certificates; 0: any */
    int64_t from, to;    /* of the intent, inclusive; 0: open */
    int64_t after;       /* id; pages go on from here */
    int64_t last;        /* id; none beyond it is looked at; 0: open */
    unsigned limit;
};
/* By id, at most limit rows; each returns non-zero to stop with -1. */
int tx_list(struct store_tx *tx, const struct list_filter *filter,
            int (*each)(const struct certificate_row *row, void *arg), void *arg);
/* The highest id; 0: there is none. */
int tx_newest_certificate(struct store_tx *tx, int64_t *id);
/* The first open intent, for the start. */
int tx_open_intent(struct store_tx *tx, struct certificate_row *row);

struct request_row {
    uint8_t body_sha256[32];
    int64_t certificate; /* 0: none in particular */
    int64_t result;      /* a time or a count, as the operation says */
};
int tx_request(struct store_tx *tx, const uint8_t key[32], struct request_row *row);
int tx_add_request(struct store_tx *tx, const uint8_t key[32], const struct request_row *row,
                   int64_t at);

/* The issuer's row for this certificate, made when it is new. */
int tx_issuer(struct store_tx *tx, struct bytes certificate, const uint8_t name_sha256[32],
              const uint8_t spki_sha256[32], int64_t not_after, int64_t now, int64_t *id);

/* Its certificate, a view. */
int tx_issuer_by_id(struct store_tx *tx, int64_t id, struct bytes *certificate);

int tx_operator_by_name(struct store_tx *tx, const char *name, struct operator_row *row);
int tx_operator_by_id(struct store_tx *tx, int64_t id, struct operator_row *row);
int tx_operator_after(struct store_tx *tx, const char *name, struct operator_row *row);
int tx_add_operator(struct store_tx *tx, struct operator_row *row, int64_t at);
int tx_set_operator(struct store_tx *tx, const struct operator_row *row);
/* The live certificate of an operator with the highest id below `below`. */
int tx_operator_certificate(struct store_tx *tx, int64_t operator_id, int64_t below, int64_t now,
                            struct certificate_row *row);

/* A password that signetctl made, with which a device gets a certificate. */
struct enrolment_row {
    int64_t id,
        operator_id; /* the operator "enrolment:USER", who has no certificate and no right */
    char user[65];
    uint8_t password_sha256[32];
    char profile[65], mac[65];                               /* mac "": any */
    int64_t uses_max, uses, not_after, created_at, ended_at; /* ended_at 0: not */
};
int tx_enrolment_by_user(struct store_tx *tx, const char *user, struct enrolment_row *row);
int tx_enrolment_after(struct store_tx *tx, const char *user, struct enrolment_row *row);
/* Sets row->id. */
int tx_add_enrolment(struct store_tx *tx, struct enrolment_row *row);
int tx_end_enrolment(struct store_tx *tx, int64_t id, int64_t at);
/* One use, for this certificate; refused when all are spent. */
int tx_spend_enrolment(struct store_tx *tx, int64_t id, int64_t certificate);
/* The next whose uses are not those that certificates say, for the audit. */
int tx_enrolment_miscounted(struct store_tx *tx, const char *after, struct enrolment_row *row);

/* The next event: sequence and hash are given by the store. text is one line without sequence and
 * time: "issued serial=… name=…". certificate 0: none has its file from this. */
int tx_event(struct store_tx *tx, int64_t at, int64_t certificate, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* When the newest event was; 1 when there is none. */
int tx_last_event_time(struct store_tx *tx, int64_t *at);
/* Sequence and hash of the newest event (0 and zeros when there is none). */
int tx_journal_head(struct store_tx *tx, uint64_t *seq, uint8_t hash[32]);

struct event_row {
    uint64_t seq;
    const char *line; /* whole: sequence, time, text, hash; no line end */
    int64_t certificate;
    uint8_t hash[32];
    int64_t at;
};
int tx_event_after(struct store_tx *tx, uint64_t seq, struct event_row *row);
/* The newest one after seq that changed what belongs on a CRL. */
int tx_last_crl_event(struct store_tx *tx, uint64_t seq, uint64_t *last);
int tx_meta(struct store_tx *tx, const char *name, int64_t *value);
int tx_set_meta(struct store_tx *tx, const char *name, int64_t value);

struct crl_row {
    int64_t issuer;
    int shard;
    uint64_t number, journal_seq;
    int64_t this_update, next_update;
    int published;
    uint8_t sha256[32];
};
/* The newest of this issuer and shard; published_only skips those never published. */
int tx_last_crl(struct store_tx *tx, int64_t issuer, int shard, int published_only,
                struct crl_row *row);
/* Every one, of all issuers, by number. each returns non-zero to stop with -1. */
int tx_each_crl(struct store_tx *tx, int (*each)(const struct crl_row *row, void *arg), void *arg);
int tx_add_crl(struct store_tx *tx, const struct crl_row *row);
int tx_set_crl_published(struct store_tx *tx, const struct crl_row *row);

struct revoked_row {
    struct bytes serial;
    int64_t revoked_at;
    int reason;
};
/* What belongs on the CRL of this scope (0: the full one), in the same order each time: revoked,
 * held and orphan, unless it both expired and was revoked before expired_before: each stands on one
 * CRL at the least. each returns non-zero to stop with -1. */
int tx_each_revoked(struct store_tx *tx, int64_t issuer, int scope, int64_t expired_before,
                    int (*each)(const struct revoked_row *row, void *arg), void *arg);

/* A public_url under which certificates name their shards; it is never taken away. */
#define CRL_URL_MAX 512
/* 1: it was there. */
int tx_add_crl_url(struct store_tx *tx, const char *url);
/* The next one behind url, in the order of their bytes; from "" on. */
int tx_crl_url_after(struct store_tx *tx, char url[CRL_URL_MAX]);

/* What the caps count. usage sums the hour that `now` is in, and the 24 up to it. */
struct usage {
    uint64_t issued_hour, issued_day, revoked_hour, revoked_day;
};
int tx_usage(struct store_tx *tx, int64_t operator_id, int64_t now, struct usage *usage);
/* Adds to the operator's hour (0: none) and to that of all. */
int tx_add_usage(struct store_tx *tx, int64_t operator_id, int64_t now, unsigned issued,
                 unsigned revoked);

/* A copy at path (not there yet), as one sound file, of what this transaction sees. */
int tx_backup(struct store_tx *tx, const char *path,
              void (*progress)(int done, int total, void *arg), void *arg, struct err *err)
    __attribute__((warn_unused_result));

struct store_counts {
    uint64_t issued, revoked, orphans, open;
};
int tx_counts(struct store_tx *tx, struct store_counts *counts);

#endif
