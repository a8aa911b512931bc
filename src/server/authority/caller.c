#include "server/authority/caller.h"

#include <stdio.h>
#include <string.h>

#include "pki/profile.h"

static void copy(uint8_t *out, size_t *out_len, size_t size, struct bytes in)
{
    *out_len = in.len <= size ? in.len : 0;
    if (*out_len)
        memcpy(out, in.data, *out_len);
}

void caller_copy(struct caller *c, struct bytes issuer, struct bytes serial, struct bytes digest,
                 const char *address)
{
    copy(c->issuer, &c->issuer_len, sizeof c->issuer, issuer);
    copy(c->serial, &c->serial_len, sizeof c->serial, serial);
    copy(c->digest, &c->digest_len, sizeof c->digest, digest);
    snprintf(c->address, sizeof c->address, "%s", address);
}

static int store_failed(struct err *err)
{
    return err_set(err, ERR_storage_unavailable, NULL);
}

int caller_certificate(struct store_tx *tx, const struct caller *c, struct certificate_row *row,
                       struct err *err)
{
    if (c->digest_len == 0)
        return err_set(err, ERR_certificate_required, NULL);
    struct bytes name = {c->issuer, c->issuer_len}, serial = {c->serial, c->serial_len};
    int64_t issuer;
    int rc = tx_issuer_by_name(tx, name, serial, &issuer);
    if (rc == 0)
        rc = tx_certificate_by_serial(tx, issuer, serial, row);
    if (rc < 0)
        return store_failed(err);
    if (rc || row->der.len == 0 || c->digest_len != 32 ||
        memcmp(c->digest, row->der_sha256, 32) != 0)
        return err_set(err, ERR_certificate_unknown, NULL);
    return 0;
}

int caller_operator(struct store_tx *tx, const struct caller *c, int64_t now,
                    struct operator_row *op, struct err *err)
{
    struct certificate_row row;
    if (caller_certificate(tx, c, &row, err))
        return -1;
    if (row.state != STATE_ISSUED)
        return err_set(err, ERR_certificate_revoked, NULL);
    if (now >= row.not_after || now < row.not_before)
        return err_set(err, ERR_certificate_expired, NULL);
    if (row.subject_operator == 0)
        return err_set(err, ERR_role_refused, "this is not an operator's certificate");
    if (tx_operator_by_id(tx, row.subject_operator, op))
        return store_failed(err);
    if (op->revoked_at)
        return err_set(err, ERR_certificate_revoked, "operator %s is revoked", op->name);
    return 0;
}

int caller_has_role(const struct operator_row *op, unsigned roles, struct err *err)
{
    if (roles == 0 || (op->roles & roles))
        return 0;
    char has[48], wants[48];
    roles_text(has, sizeof has, op->roles);
    roles_text(wants, sizeof wants, roles);
    return err_set(err, ERR_role_refused, "operator %s has the role %s; this needs %s", op->name,
                   has, wants);
}

int caller_with_role(struct store_tx *tx, const struct caller *c, int64_t now, unsigned roles,
                     struct operator_row *op, struct err *err)
{
    return caller_operator(tx, c, now, op, err) || caller_has_role(op, roles, err) ? -1 : 0;
}
