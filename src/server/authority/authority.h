/* What the parts of the authority share. One of it a process; main.c makes it. */
#ifndef SIGNET_AUTHORITY_H
#define SIGNET_AUTHORITY_H

#include <event2/event.h>
#include "common/channel.h"
#include "common/config.h"
#include "pki/issuer.h"
#include "pki/profile.h"
#include "server/authority/store.h"

struct authority {
    struct event_base *base;
    struct config *config;
    struct issuer *issuer;
    int64_t issuer_id; /* its row in the store */
    struct buf chain;  /* intermediate and root, PEM */
    struct buf root;   /* the root alone, DER */
    struct profiles *profiles;
    struct store *store;

    struct channel *supervisor;
    struct clock_watch *clock;
    struct signers *signers;
    struct issuing *issuing;
    struct responding *responding;
    const struct responder *ocsp_responder; /* its certificate in force; NULL: none */
    struct publishing *publishing;
    struct projection *projection;
    struct listener *listener;
    struct delegation *delegation;
    struct fronts *fronts;
    struct admin *admin;

    struct store_counts counts; /* as of the last commit */
    int64_t started_at;
    uint8_t token_fault; /* what the supervisor last said of the token */
    char token_detail[512];
    int stopping, custody_journaled;
    int64_t violation_at; /* when one was journaled; monotonic, seconds. 0: none was */
    unsigned violations_untold;
};

/* A peer that asks (a front, or signetctl), kept as long as an answer to it is open. */
struct peer {
    struct channel *channel; /* NULL when it is gone */
    int open;                /* requests not yet answered */
};

/* One open question: whom to answer, under which id. Answering frees it. */
struct question {
    struct peer *peer;
    uint64_t id;
};
struct question *question_new(struct peer *peer, uint64_t id);
/* Sends (or drops, when the peer is gone) and frees. */
void question_answer(struct question *q, enum msg_type type, const void *body);
void question_refuse(struct question *q, const struct err *err);
/* Ends a question that was answered by messages of its own. */
void question_end(struct question *q);
/* The peer is gone: freed with the last open question. */
void peer_gone(struct peer *peer);

/* Seconds since 1970. */
int64_t now_seconds(void);

#endif
