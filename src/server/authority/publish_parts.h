/* Publishing from inside: for publish.c (which CRL is made, and when), publish_build.c (one of
 * them, from its number to its record) and publish_load.c (what was published before). */
#ifndef SIGNET_PUBLISH_PARTS_H
#define SIGNET_PUBLISH_PARTS_H

#include "pki/crl.h"
#include "server/authority/publish.h"

#define SCOPES (1 + CRL_SHARDS_MAX)

enum phase {
    IDLE,
    NUMBERING, /* the number is being committed */
    CALLING,   /* a publisher was asked for */
    BUILDING,  /* it works, or waits for the signature */
    RECORDING  /* the file is in place; the row is being committed */
};

/* SOON waits until what it costs is in proportion; AT_ONCE for no more than the one that is being
 * made. */
enum urgency { NOT_WANTED, SOON, AT_ONCE };

struct scope {
    enum urgency wanted;
    int64_t wanted_since;
    struct crl_row current; /* number 0: none yet */
    int file;               /* sealed copy of the current one, which fronts get; -1: none */
};

/* Times are milliseconds of a clock that nobody sets. */
struct publishing {
    struct authority *a;
    struct scope scopes[SCOPES];
    unsigned shards;    /* that are published: never fewer than certificates name */
    unsigned issue_for; /* of which new certificates get one */
    int configuring;    /* these two are being committed */
    int new_url;        /* with a URL that the shards' CRLs do not name yet */

    enum phase phase;
    unsigned building; /* the scope */
    int64_t phase_since, begun;
    int64_t not_before; /* after a failure: no new try until then */
    int failures;
    int64_t rest_until[2]; /* of the full CRL, of the shards: what is wanted SOON waits */
    struct crl_row next;
    int next_file;
    int asked; /* for the signature of the one that is being built: a publisher gets one */
    struct channel *publisher;
    struct event *timer;
    char why[512];     /* what the publisher said before it ended */
    char problem[512]; /* for people; "" while all is well */
    int problem_of;    /* the scope; -1: of all */
};

int64_t publish_clock(void);
/* "CRL 12", "CRL 12 of shard 7"; without the number when it is 0 */
#define CRL_TITLE_MAX 48
const char *publish_title(char out[CRL_TITLE_MAX], unsigned scope, uint64_t number);

/* ---- publish_build.c ---- */
/* Begins with the scope's next number; ends in publish_done() or publish_failed(). */
void build_begin(struct publishing *p, unsigned scope);
/* Gives up what takes too long. */
void build_check(struct publishing *p);
void build_drop_file(struct publishing *p);

/* ---- publish.c ---- */
void publish_done(struct publishing *p);
void publish_failed(struct publishing *p, const char *why);

/* ---- publish_load.c ---- */
int publish_load(struct publishing *p, struct err *err);

#endif
