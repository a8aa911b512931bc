/* What must hold before anything is issued: who asks, for what, how often, and what there is
 * already. */
#include <stdio.h>
#include <string.h>

#include "pki/key.h"
#include "server/authority/caps.h"
#include "server/authority/clock.h"
#include "server/authority/issue_parts.h"

void issuance_serial_text(char out[41], const struct certificate_row *row)
{
    hex_encode(out, (struct bytes){row->serial, row->serial_len});
}

/* By whom, and under which number, a request is known (design, section 3): with a request_id by
 * it, without one by what is asked. A device that renews is known by its current serial. */
int rule_request_key(struct issuance *s, const struct asker *who)
{
    char head[448], serial[41] = "";
    struct buf all = {0};
    int with_id = s->request_id[0] != '\0';
    if (s->req.origin == ISSUE_FOR_DEVICE)
        issuance_serial_text(serial, &who->current);
    int n = snprintf(head, sizeof head, "%lld|%s|%s|%s|%s|", (long long)who->op.id, serial,
                     s->operation, with_id ? "id" : s->profile, s->request_id);
    if (s->req.origin == ISSUE_FOR_ADMIN) /* what signetctl gives beside the CSR */
        n += snprintf(head + n, sizeof head - (size_t)n, "%s|%x|", s->name, s->req.roles);
    int rc = buf_add(&all, head, (size_t)n) || (!with_id && buf_add(&all, s->csr_digest, 32));
    if (rc == 0)
        sha256(s->key, buf_view(&all));
    buf_free(&all);
    return rc ? err_set(&s->err, ERR_internal, "no memory") : 0;
}

static int find_profile(struct issuance *s, const struct profile **p)
{
    *p = profiles_find(s->a->profiles, s->profile);
    return *p ? 0 : err_set(&s->err, ERR_profile_unknown, "there is no profile \"%s\"", s->profile);
}

static int allows_operation(struct issuance *s, const struct profile *p)
{
    if (profile_allows_operation(p, s->operation))
        return 0;
    return err_set(&s->err, ERR_profile_refused, "profile %s is not open to %s", s->profile,
                   s->operation);
}

/* An operator: in force, with a role that the profile names. */
static int authorise_operator(struct store_tx *tx, struct issuance *s, struct asker *who,
                              const struct profile **p, int64_t now)
{
    if (caller_operator(tx, &s->req.caller, now, &who->op, &s->err) || find_profile(s, p) ||
        allows_operation(s, *p))
        return -1;
    if (profile_roles(*p) == 0)
        return err_set(&s->err, ERR_profile_refused, "profile %s names no role", s->profile);
    return caller_has_role(&who->op, profile_roles(*p), &s->err);
}

/* The device itself: by its own certificate, in force, or expired no longer than the profile says.
 * It gets what that certificate has: subject and profile. */
static int authorise_device(struct store_tx *tx, struct issuance *s, struct asker *who,
                            const struct profile **p, int64_t now)
{
    struct certificate_row *current = &who->current;
    if (caller_certificate(tx, &s->req.caller, current, &s->err))
        return -1;
    if (current->state != STATE_ISSUED)
        return err_set(&s->err, ERR_certificate_revoked, NULL);
    snprintf(s->profile, sizeof s->profile, "%s", current->profile);
    if (find_profile(s, p) || allows_operation(s, *p))
        return -1;
    if (now < current->not_before || now >= current->not_after + profile_renew_expired(*p))
        return err_set(&s->err, ERR_certificate_expired, NULL);
    if (strcmp(s->name, current->name) != 0)
        return err_set(
            &s->err, ERR_name_not_allowed,
            "the CSR's CN is %s, but the certificate's subject is %s; a renewal keeps it", s->name,
            current->name);
    if (profile_renews_same_key(*p) && memcmp(s->row.spki_sha256, current->spki_sha256, 32) != 0)
        return err_set(&s->err, ERR_profile_refused,
                       "profile %s renews a certificate on the key that it has (renew_key = same)",
                       s->profile);
    who->op.id = current->operator_id;
    return 0;
}

/* Who knows an enrolment's password: for what it was made for. */
static int authorise_enrolment(struct store_tx *tx, struct issuance *s, struct asker *who,
                               const struct profile **p, int64_t now)
{
    const struct enrolment_row *e = &who->enrolment;
    if (enrolment_find(tx, &s->req.enrolment, now, &who->enrolment, &who->op, &s->err))
        return -1;
    if (!s->profile[0])
        snprintf(s->profile, sizeof s->profile, "%s", e->profile);
    if (strcmp(s->profile, e->profile) != 0)
        return err_set(&s->err, ERR_profile_refused,
                       "this enrolment is for the profile %s, not for %s", e->profile, s->profile);
    if (find_profile(s, p) || allows_operation(s, *p))
        return -1;
    if (e->mac[0] && strcmp(s->name, e->mac) != 0)
        return err_set(&s->err, ERR_name_not_allowed,
                       "this enrolment is for %s, but the CSR's CN is %s", e->mac, s->name);
    return 0;
}

int rule_authorise(struct store_tx *tx, struct issuance *s, struct asker *who,
                   const struct profile **p, int64_t now)
{
    if (s->req.origin == ISSUE_FOR_CALLER)
        return authorise_operator(tx, s, who, p, now);
    if (s->req.origin == ISSUE_FOR_DEVICE)
        return authorise_device(tx, s, who, p, now);
    if (s->req.origin == ISSUE_FOR_ENROLMENT)
        return authorise_enrolment(tx, s, who, p, now);
    return find_profile(s, p);
}

int rule_store_failed(struct issuance *s)
{
    return err_set(&s->err, ERR_storage_unavailable, NULL);
}

/* The same request again: 1 found (row and repeated set), 0 new, -1 refused. */
int rule_find_repeated(struct store_tx *tx, struct issuance *s, int64_t now)
{
    struct request_row before;
    int rc = tx_request(tx, s->key, &before);
    if (rc)
        return rc < 0 ? rule_store_failed(s) : 0;
    if (s->request_id[0] && memcmp(before.body_sha256, s->body_digest, 32) != 0)
        return err_set(&s->err, ERR_request_id_reused, NULL);
    if (tx_certificate_by_id(tx, before.certificate, &s->row))
        return rule_store_failed(s);
    if (s->row.state != STATE_INTENT && (s->row.state != STATE_ISSUED || s->row.not_after <= now)) {
        return err_set(&s->err, ERR_result_dead, NULL);
    }
    s->repeated = 1;
    s->der.len = 0;
    return buf_add(&s->der, s->row.der.data, s->row.der.len)
               ? err_set(&s->err, ERR_internal, "no memory")
               : 1;
}

int rule_check_uses(struct issuance *s, const struct enrolment_row *e)
{
    if (e->id == 0 || e->uses < e->uses_max)
        return 0;
    return err_set(&s->err, ERR_enrolment_spent, NULL);
}

/* A live one for this board: only who may revoke it may have it replaced, or who had it issued and
 * never saw it on its board. */
static int check_replace(struct issuance *s, const struct operator_row *op,
                         const struct certificate_row *live)
{
    char serial[41];
    issuance_serial_text(serial, live);
    if (s->req.origin == ISSUE_FOR_ENROLMENT)
        return err_set(&s->err, ERR_subject_has_certificate,
                       "%s has a live certificate, serial %s; renew that one, or have it revoked "
                       "first",
                       s->name, serial);
    if (!s->req.replace)
        return err_set(&s->err, ERR_subject_has_certificate,
                       "%s has a live certificate, serial %s; revoke it first, or ask with "
                       "\"replace\": true",
                       s->name, serial);
    if ((op->roles & ROLE_REVOKER) ||
        (live->operator_id == op->id && live->board != BOARD_VERIFIED))
        return 0;
    return err_set(&s->err, ERR_role_refused,
                   "replacing the certificate %s of %s needs the role revoker", serial, s->name);
}

/* Each of them will be revoked: after a renewal there are several. */
static int check_replace_all(struct store_tx *tx, struct issuance *s, const struct operator_row *op)
{
    struct certificate_row live = {0};
    int rc;
    while ((rc = tx_live_of_name(tx, s->name, 0, live.id, &live)) == 0)
        if (strcmp(live.profile, s->profile) == 0 && check_replace(s, op, &live))
            return -1;
    return rc < 0 ? rule_store_failed(s) : 0;
}

/* Key and name against what is certified already. */
int rule_check_conflicts(struct store_tx *tx, struct issuance *s, const struct operator_row *op,
                         int64_t now)
{
    struct certificate_row live;
    int rc = tx_key_of_other(tx, s->row.spki_sha256, s->name, s->profile);
    if (rc <= 0)
        return rc < 0 ? rule_store_failed(s) : err_set(&s->err, ERR_key_of_other_subject, NULL);
    if ((s->req.origin != ISSUE_FOR_CALLER && s->req.origin != ISSUE_FOR_ENROLMENT) || s->sans)
        return 0; /* operators, devices, servers and the listener renew beside the older one */
    rc = tx_live_certificate(tx, s->name, s->profile, now, &live);
    if (rc)
        return rc < 0 ? rule_store_failed(s) : 0;
    if (live.state == STATE_INTENT)
        return err_set(&s->err, ERR_busy, "another request for %s is under way; try again",
                       s->name);
    return check_replace_all(tx, s, op);
}

/* A key that renews without end, in a thief's hands or by a mistake, is no reason to have
 * everyone's cap used up. */
#define RENEWALS_MOST 8

static int check_renewals(struct store_tx *tx, struct issuance *s, int64_t now)
{
    struct certificate_row row = {0};
    int live = 0, rc;
    while ((rc = tx_live_of_name(tx, s->name, now, row.id, &row)) == 0 && live < RENEWALS_MOST)
        live++;
    if (rc < 0)
        return rule_store_failed(s);
    return live < RENEWALS_MOST
               ? 0
               : err_set(&s->err, ERR_too_many,
                         "%s has %d live certificates already; use the newest", s->name, live);
}

int rule_take_from_caps(struct store_tx *tx, struct issuance *s, const struct operator_row *op,
                        int64_t now)
{
    const struct config *config = s->a->config;
    if (s->req.origin == ISSUE_FOR_CALLER)
        return caps_take(tx, config, op, 1, s->req.replace ? 1 : 0, now, &s->err);
    if (s->req.origin == ISSUE_FOR_DEVICE && check_renewals(tx, s, now))
        return -1;
    if (s->req.origin == ISSUE_FOR_DEVICE || s->req.origin == ISSUE_FOR_ENROLMENT)
        return caps_take(tx, config, NULL, 1, 0, now, &s->err);
    return 0;
}

/* signetctl's: the operator's row, made or given its new roles. */
int rule_settle_operator(struct store_tx *tx, struct issuance *s, int64_t now)
{
    struct operator_row op = {0};
    if (s->req.origin != ISSUE_FOR_ADMIN)
        return 0;
    int rc = tx_operator_by_name(tx, s->name, &op);
    if (rc == 0 && op.revoked_at)
        return err_set(&s->err, ERR_already_exists,
                       "operator %s was revoked; a revoked name is not used again", s->name);
    char roles[48];
    roles_text(roles, sizeof roles, s->req.roles);
    if (rc == 1) {
        snprintf(op.name, sizeof op.name, "%s", s->name);
        op.roles = s->req.roles;
        rc = tx_add_operator(tx, &op, now);
    } else if (rc == 0 && op.roles != s->req.roles) {
        op.roles = s->req.roles;
        rc = tx_set_operator(tx, &op);
    } else if (rc == 0) {
        s->row.subject_operator = op.id;
        return 0;
    }
    if (rc || tx_event(tx, now, 0, "operator name=%s roles=%s", s->name, roles))
        return rule_store_failed(s);
    s->row.subject_operator = op.id;
    return 0;
}

/* Policy on the bytes themselves, once more: a front may be in other hands. */
int rule_check_bytes(struct issuance *s, const struct profile *p)
{
    struct key_info info;
    int listens = s->req.origin == ISSUE_FOR_LISTENER; /* its names are the configuration's own */
    return (s->sans && !listens && profile_check_names(p, (const char *const *)s->sans, &s->err)) ||
                   profile_check_name(p, s->name, &s->err) ||
                   key_check(buf_view(&s->spki), profile_keys(p), &info, &s->err)
               ? -1
               : 0;
}
