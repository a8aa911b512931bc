/* The store's enrolments: passwords by which devices get certificates, and where each use went. */
#include "server/authority/store_parts.h"

static int found_enrolment(struct store_tx *tx, int rc, struct enrolment_row *e)
{
    sqlite3_stmt *row = of(tx)->row;
    if (rc)
        return rc;
    *e = (struct enrolment_row){.id = sqlite3_column_int64(row, 0),
                                .operator_id = sqlite3_column_int64(row, 1),
                                .uses_max = sqlite3_column_int64(row, 6),
                                .uses = sqlite3_column_int64(row, 7),
                                .not_after = sqlite3_column_int64(row, 8),
                                .created_at = sqlite3_column_int64(row, 9),
                                .ended_at = sqlite3_column_int64(row, 10)};
    row_text(e->user, sizeof e->user, row, 2);
    row_fixed(e->password_sha256, 32, row, 3);
    row_text(e->profile, sizeof e->profile, row, 4);
    if (sqlite3_column_type(row, 5) != SQLITE_NULL)
        row_text(e->mac, sizeof e->mac, row, 5);
    return 0;
}

int tx_enrolment_by_user(struct store_tx *tx, const char *user, struct enrolment_row *e)
{
    return found_enrolment(tx, store_query(of(tx), NULL, S_enrolment_by_user, "t", user), e);
}

int tx_enrolment_after(struct store_tx *tx, const char *user, struct enrolment_row *e)
{
    return found_enrolment(tx, store_query(of(tx), NULL, S_enrolment_after, "t", user), e);
}

int tx_add_enrolment(struct store_tx *tx, struct enrolment_row *e)
{
    if (run(of(tx), S_add_enrolment, "itdttiii", e->operator_id, e->user, e->password_sha256,
            e->profile, e->mac, e->uses_max, e->not_after, e->created_at))
        return -1;
    e->id = sqlite3_last_insert_rowid(of(tx)->db);
    return 0;
}

int tx_end_enrolment(struct store_tx *tx, int64_t id, int64_t at)
{
    return store_changed_one(tx, run(of(tx), S_end_enrolment, "ii", at, id));
}

int tx_spend_enrolment(struct store_tx *tx, int64_t id, int64_t certificate)
{
    if (store_changed_one(tx, run(of(tx), S_spend_enrolment, "i", id)))
        return -1;
    return run(of(tx), S_add_enrolled, "ii", certificate, id);
}

int tx_enrolment_miscounted(struct store_tx *tx, const char *after, struct enrolment_row *e)
{
    return found_enrolment(tx, store_query(of(tx), NULL, S_enrolment_miscounted, "t", after), e);
}

/* Of most certificates none was spent. */
int store_give_back_use(struct store *s, int64_t certificate)
{
    return run(s, S_give_back_use, "i", certificate) || run(s, S_forget_enrolled, "i", certificate)
               ? -1
               : 0;
}
