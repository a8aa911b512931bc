/* Enrolments: passwords that signetctl makes, with which devices get their first certificate (EST,
 * RFC 7030 section 3.2.3). Each is for one board, or for so many, and ends. The authority knows the
 * password's SHA-256 alone. */
#ifndef SIGNET_ENROLMENT_H
#define SIGNET_ENROLMENT_H

#include "server/authority/authority.h"

/* As whom the devices of enrolment USER ask, so that what it led to is found, listed and revoked by
 * its name. No label, so signetctl makes no operator of such a name. */
#define ENROLMENT_OPERATOR "enrolment:"
#define BEHIND_ENROLMENT_OPERATORS "enrolment;" /* the next in the order of bytes */

/* What a device says to know. */
struct enrolment_claim {
    char user[65];
    uint8_t password_sha256[32];
};

/* The enrolment that the claim is of, and the operator as whom it asks. Unknown, another password,
 * ended, expired: all the same refusal (enrolment_refused), after the same work. That all its uses
 * are spent is no refusal here: the same request again gets the same certificate. */
int enrolment_find(struct store_tx *tx, const struct enrolment_claim *claim, int64_t now,
                   struct enrolment_row *row, struct operator_row *op, struct err *err);

/* signetctl's */
void enrolment_add(struct authority *a, const struct msg_admin_enrolment_add *m,
                   struct question *q);
void enrolment_list(struct authority *a, const char *after, struct question *q);
void enrolment_end(struct authority *a, const char *user, struct question *q);

#endif
