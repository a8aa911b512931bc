#include "server/front/enrolment.h"

#include "pki/key.h"
#include "pki/mac.h"

int require_certificate(const struct exchange *x, struct err *err)
{
    switch (exchange_caller(x)->kind) {
    case CALLER_CERTIFICATE:
        return 0;
    case CALLER_FOREIGN:
        return err_set(err, ERR_certificate_unknown, NULL);
    default:
        if (exchange_operation(x) == OP_RENEW_CLIENT_CERT)
            return err_set(err, ERR_certificate_required,
                           "connect with the device's certificate that is to be renewed");
        return err_set(err, ERR_certificate_required, NULL);
    }
}

/* Every check that needs no policy; the authority checks key and name again, by the profile. The
 * proof of possession is verified here only, and comes last: it is what costs time. */
static int check_csr(const struct csr *csr, struct err *err)
{
    static const struct key_policy widest = {2048, 4096, 1, 1};
    struct key_info info;
    if (key_check(csr_spki(csr), &widest, &info, err) || mac_check(csr_cn(csr), err))
        return -1;
    return csr_verify(csr, err);
}

int enrolment_take(struct enrolment *e, struct exchange *x, struct bytes csr, struct err *err)
{
    *e = (struct enrolment){.profile = "", .request_id = ""};
    if (csr_parse(&e->csr, csr, err))
        return -1;
    if (check_csr(e->csr, err)) {
        csr_free(e->csr);
        return -1;
    }
    sha256(e->body_digest, exchange_body(x));
    sha256(e->csr_digest, csr_der(e->csr));
    return 0;
}

void enrolment_issue(struct enrolment *e, struct service *s, struct exchange *x, answer_fn answer)
{
    struct msg_issue m = {
        .operation = operation_name(OP_REQ_CLIENT_CERT),
        .profile = e->profile,
        .request_id = e->request_id,
        .body_digest = {e->body_digest, sizeof e->body_digest},
        .csr_digest = {e->csr_digest, sizeof e->csr_digest},
        .name = csr_cn(e->csr),
        .spki = csr_spki(e->csr),
        .replace = e->replace != 0,
    };
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_issue, &m, answer);
    csr_free(e->csr);
}

void enrolment_renew(struct enrolment *e, struct service *s, struct exchange *x, answer_fn answer)
{
    struct msg_renew m = {
        .request_id = e->request_id,
        .body_digest = {e->body_digest, sizeof e->body_digest},
        .csr_digest = {e->csr_digest, sizeof e->csr_digest},
        .name = csr_cn(e->csr),
        .spki = csr_spki(e->csr),
    };
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_renew, &m, answer);
    csr_free(e->csr);
}

void enrolment_by_password(struct enrolment *e, struct service *s, struct exchange *x,
                           const char *user, const uint8_t password_sha256[32], answer_fn answer)
{
    struct msg_enrol m = {
        .caller_address = exchange_caller(x)->address,
        .user = user,
        .password_sha256 = {password_sha256, 32},
        .profile = e->profile,
        .body_digest = {e->body_digest, sizeof e->body_digest},
        .csr_digest = {e->csr_digest, sizeof e->csr_digest},
        .name = csr_cn(e->csr),
        .spki = csr_spki(e->csr),
    };
    ask(s, x, MSG_enrol, &m, answer);
    csr_free(e->csr);
}
