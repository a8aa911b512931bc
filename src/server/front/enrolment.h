/* A request for a certificate, by whichever door it came: the CSR's checks that need no policy, and
 * the questions to the authority that it becomes. */
#ifndef SIGNET_FRONT_ENROLMENT_H
#define SIGNET_FRONT_ENROLMENT_H

#include "pki/csr.h"
#include "server/front/ask.h"

/* Before any work for one who cannot be known: certificate_required, certificate_unknown. */
int require_certificate(const struct exchange *x, struct err *err)
    __attribute__((warn_unused_result));

/* A CSR that passed every check, with the digests by which its request is known. */
struct enrolment {
    struct csr *csr;
    uint8_t body_digest[32], csr_digest[32];
    const char *profile, *request_id; /* borrowed; "" until they are set */
    int replace;
};

/* csr: PEM or DER, only read. After a refusal there is nothing to end. */
int enrolment_take(struct enrolment *e, struct exchange *x, struct bytes csr, struct err *err)
    __attribute__((warn_unused_result));

/* Each asks the authority, which answers x, and ends e. */
void enrolment_issue(struct enrolment *e, struct service *s, struct exchange *x, answer_fn answer);
/* A device, by an enrolment's password; profile "": the one that the enrolment is for. */
void enrolment_by_password(struct enrolment *e, struct service *s, struct exchange *x,
                           const char *user, const uint8_t password_sha256[32], answer_fn answer);
/* The device itself, by its current certificate. */
void enrolment_renew(struct enrolment *e, struct service *s, struct exchange *x, answer_fn answer);

#endif
