#include "server/authority/status.h"

#include <stdio.h>

#include "pki/certificate.h"
#include "server/authority/caller.h"
#include "server/authority/clock.h"
#include "server/authority/issue.h"
#include "server/authority/listener.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"
#include "server/authority/responder.h"
#include "server/authority/signers.h"

/* That revocations wait is told beside why they do. */
static const char *clock_and_crl(struct authority *a)
{
    static char both[1024];
    const char *why = clock_problem(a->clock), *crl = publish_problem(a->publishing);
    if (!why || !crl)
        return why;
    snprintf(both, sizeof both, "%s; %s", why, crl);
    return both;
}

/* A serial is drawn for nothing: so a broken generator is told before anybody asks for a
 * certificate, and one that is well again too. */
static const char *random_problem(void)
{
    static struct err err;
    uint8_t serial[SERIAL_LEN];
    return serial_make(serial, &err) ? err.text : NULL;
}

/* The first thing that is wrong; "" when nothing is. */
static const char *problem(struct authority *a, const char *random)
{
    const char *why = store_problem(a->store);
    if (!why)
        why = random ? random : issuing_problem(a->issuing);
    if (!why)
        why = clock_and_crl(a);
    if (!why)
        why = projection_problem(a->projection);
    if (!why)
        why = publish_problem(a->publishing);
    if (!why)
        why = listener_problem(a->listener);
    if (!why)
        why = responder_problem(a);
    if (!why && signers_ready(a->signers) < a->config->signers)
        why = "fewer signers are ready than configured";
    return why ? why : "";
}

void status_fill(struct authority *a, struct msg_answer_status *m, int detailed)
{
    const struct crl_row *crl = publish_current(a->publishing, 0);
    const char *random = random_problem();
    *m = (struct msg_answer_status){
        .token_detail = "", .custody = "", .problem = "", .operator_name = ""};
    m->ready = signers_ready(a->signers) > 0 && !store_problem(a->store) &&
               !clock_problem(a->clock) && !random && !a->stopping;
    if (!detailed)
        return;
    m->detailed = 1;
    m->signers_ready = signers_ready(a->signers);
    m->signers_wanted = a->config->signers;
    m->token_fault = a->token_fault;
    m->token_detail = m->signers_ready ? signers_token(a->signers) : a->token_detail;
    m->custody = signers_custody(a->signers);
    m->issued = a->counts.issued;
    m->revoked = a->counts.revoked;
    m->orphans = a->counts.orphans;
    m->pending = a->counts.open;
    m->crl_number = crl->number;
    m->crl_this_update = crl->this_update;
    m->crl_next_update = crl->next_update;
    m->issuer_not_after = issuer_not_after(a->issuer);
    m->started_at = a->started_at;
    m->time = now_seconds();
    m->listener_not_after = listener_not_after(a->listener);
    m->responder_not_after = a->ocsp_responder ? responder_not_after(a->ocsp_responder) : 0;
    m->problem = problem(a, random);
}

struct status_question {
    struct authority *a;
    struct caller caller;
    struct err err;
    struct operator_row op;
    uint64_t seq;
};

static int read_status(struct store_tx *tx, void *arg)
{
    struct status_question *s = arg;
    uint8_t hash[32];
    return tx_journal_head(tx, &s->seq, hash) ||
                   caller_operator(tx, &s->caller, clock_now(s->a->clock), &s->op, &s->err)
               ? -1
               : 0;
}

void status_answer(struct authority *a, const struct msg_status *m, struct question *q)
{
    struct status_question s = {.a = a};
    struct msg_answer_status answer;
    caller_copy(&s.caller, m->caller_issuer, m->caller_serial, m->caller_digest, m->caller_address);
    int known = m->caller_digest.len && store_read(a->store, read_status, &s) == 0;
    status_fill(a, &answer, known);
    if (known) {
        answer.journal_seq = s.seq;
        answer.operator_name = s.op.name;
        answer.roles = s.op.roles;
    }
    question_answer(q, MSG_answer_status, &answer);
}
