#include "server/authority/caps.h"

static int over(uint64_t used, unsigned more, unsigned cap)
{
    return cap && used + more > cap;
}

/* caps: certificates an hour and a day, revocations an hour and a day. */
static int check(struct store_tx *tx, int64_t operator_id, const char *who, const unsigned caps[4],
                 unsigned certificates, unsigned revocations, int64_t now, struct err *err)
{
    struct usage u;
    if (tx_usage(tx, operator_id, now, &u))
        return err_set(err, ERR_storage_unavailable, NULL);
    const char *what =
        certificates && over(u.issued_hour, certificates, caps[0])  ? "certificates an hour"
        : certificates && over(u.issued_day, certificates, caps[1]) ? "certificates a day"
        : revocations && over(u.revoked_hour, revocations, caps[2]) ? "revocations an hour"
        : revocations && over(u.revoked_day, revocations, caps[3])  ? "revocations a day"
                                                                    : NULL;
    if (!what)
        return 0;
    return err_set(err, ERR_too_many,
                   "the cap of %s for %s is reached; try again later, or have it raised ([caps])",
                   what, who);
}

int caps_take(struct store_tx *tx, const struct config *c, const struct operator_row *op,
              unsigned certificates, unsigned revocations, int64_t now, struct err *err)
{
    const unsigned each[] = {c->operator_caps.certificates_hour, c->operator_caps.certificates_day,
                             c->operator_caps.revocations_hour, c->operator_caps.revocations_day};
    const unsigned all[] = {c->all_caps.certificates_hour, c->all_caps.certificates_day,
                            c->all_caps.revocations_hour, c->all_caps.revocations_day};
    if ((op && check(tx, op->id, op->name, each, certificates, revocations, now, err)) ||
        check(tx, 0, "all operators together", all, certificates, revocations, now, err))
        return -1;
    return tx_add_usage(tx, op ? op->id : 0, now, certificates, revocations)
               ? err_set(err, ERR_storage_unavailable, NULL)
               : 0;
}
