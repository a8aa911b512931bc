/* An issuance from inside: for issue.c, its way from the request to the certificate, and
 * issue_rules.c, what must hold before a serial is taken. */
#ifndef SIGNET_ISSUE_PARTS_H
#define SIGNET_ISSUE_PARTS_H

#include <sys/queue.h>
#include "server/authority/issue.h"

/* One request on its way. It owns all that it points to. */
struct issuance {
    TAILQ_ENTRY(issuance) next; /* in issuing.list, or in another's followers */
    struct authority *a;
    struct issue_request req;
    char operation[65], profile[65], request_id[65], name[65];
    uint8_t body_digest[32], csr_digest[32], key[32]; /* key: of the exactly-once row */
    struct buf spki;
    char **sans; /* NULL-terminated; NULL: none */
    issue_done done;
    void *arg;

    /* set by the decision */
    struct err err;
    struct certificate_row row;
    struct buf tbs, der;
    int repeated; /* row is of an earlier request */
    unsigned superseded;
    uint64_t superseded_of; /* shards, shard_bit() */
    int tries;

    TAILQ_HEAD(, issuance) followers; /* the same request, come again meanwhile */
};

/* Who asks, as the store knows them. */
struct asker {
    struct operator_row op;         /* id 0: signetd or signetctl */
    struct enrolment_row enrolment; /* id 0: not by one */
    struct certificate_row current; /* of a device that renews */
};

/* The rules, in the order in which they are asked; each within a decision. 0, or -1 with s->err. */

/* Who asks, and their right to the profile, which is found by the way. */
int rule_authorise(struct store_tx *tx, struct issuance *s, struct asker *who,
                   const struct profile **p, int64_t now);
/* Sets s->key, by which the request is known. */
int rule_request_key(struct issuance *s, const struct asker *who);
/* The same request again: 1 found (s->row, s->der and s->repeated are set), 0 new, -1 refused. */
int rule_find_repeated(struct store_tx *tx, struct issuance *s, int64_t now);
/* Key, name and names, on the bytes themselves. */
int rule_check_bytes(struct issuance *s, const struct profile *p);
/* An enrolment, when it is by one, has a use left. */
int rule_check_uses(struct issuance *s, const struct enrolment_row *e);
/* Against what is certified already. */
int rule_check_conflicts(struct store_tx *tx, struct issuance *s, const struct operator_row *op,
                         int64_t now);
/* signetctl's operator: its row, made or given its new roles. */
int rule_settle_operator(struct store_tx *tx, struct issuance *s, int64_t now);
int rule_take_from_caps(struct store_tx *tx, struct issuance *s, const struct operator_row *op,
                        int64_t now);

/* -1, with storage_unavailable. */
int rule_store_failed(struct issuance *s);
void issuance_serial_text(char out[41], const struct certificate_row *row);

#endif
