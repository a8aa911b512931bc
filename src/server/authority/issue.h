/* Issuing: the one path by which a certificate comes to be, whoever asks.
 *
 *   intent      policy, serial, TBS; committed before the token is asked
 *   signature   by a signer, over the digest of exactly that TBS
 *   issued      verified, committed; only then is anything answered
 *
 * An intent whose signature cannot be had becomes an orphan. The same request again, while one is
 * under way, waits for it and gets the same answer. */
#ifndef SIGNET_ISSUE_H
#define SIGNET_ISSUE_H

#include "server/authority/authority.h"
#include "server/authority/caller.h"
#include "server/authority/enrolment.h"

enum issue_origin {
    ISSUE_FOR_CALLER,    /* an operator, over the wire */
    ISSUE_FOR_ENROLMENT, /* a device's first, by an enrolment's password */
    ISSUE_FOR_DEVICE,    /* the device itself, renewing; name and profile are its certificate's */
    ISSUE_FOR_ADMIN,     /* signetctl: an operator's certificate */
    ISSUE_FOR_LISTENER,  /* signetd's own TLS certificate */
    ISSUE_FOR_RESPONDER, /* signetd's own OCSP responder */
};

/* What is asked for; all of it is copied. */
struct issue_request {
    enum issue_origin origin;
    struct caller caller;             /* ISSUE_FOR_CALLER, ISSUE_FOR_DEVICE */
    struct enrolment_claim enrolment; /* ISSUE_FOR_ENROLMENT; profile "" is the enrolment's own */
    const char *operation, *profile, *request_id, *name;
    const uint8_t *body_digest, *csr_digest; /* 32 bytes; NULL for signetd itself */
    struct bytes spki;
    const char *const *sans; /* as certificate_request; may be NULL */
    int replace;      /* revoke the live one of this name (superseded), with this one's issue */
    int64_t lifetime; /* 0: the profile's */
    unsigned roles;   /* ISSUE_FOR_ADMIN: of the operator */
};

/* err->code ERR_none: serial and der are the certificate, views for the call only. */
typedef void (*issue_done)(void *arg, struct bytes serial, struct bytes der, const struct err *err);

/* An issue_done for a question: answers it (arg) with answer_certificate or answer_error. */
void issue_answer(void *question, struct bytes serial, struct bytes der, const struct err *err);

/* Calls done once, from the loop. */
void issue(struct authority *a, const struct issue_request *req, issue_done done, void *arg);

struct issuing *issuing_new(struct authority *a);
void issuing_free(struct issuing *i);
/* Why the last certificate that was asked for was not to be signed; NULL: it was. */
const char *issuing_problem(const struct issuing *i);
size_t issuing_open(const struct issuing *i); /* not yet answered or resolved */

/* At the start: every intent that a crash left open becomes an orphan. Returns how many, or -1. */
int issue_resolve_open(struct authority *a, struct err *err) __attribute__((warn_unused_result));

#endif
