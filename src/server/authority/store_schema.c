/* The schema: made, compared with what is there, and brought from an earlier one to this. */
#include <stdio.h>

#include "server/authority/store_parts.h"

/* schema.sql and its successors, made into C by the build; each is added to the one before. */
extern const char store_schema_sql[], store_schema_2_sql[];
static const char *const steps[STORE_SCHEMA] = {store_schema_sql, store_schema_2_sql};

static int set_number(sqlite3 *db, int schema)
{
    char sql[160];
    snprintf(sql, sizeof sql,
             "INSERT INTO meta VALUES ('schema', %d)"
             " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
             schema);
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* One transaction: a crash leaves the store as it was. When it fails, closing takes it back. */
int store_raise_schema(sqlite3 *db, int from, int to)
{
    int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    for (int i = from; rc == SQLITE_OK && i < to; i++)
        rc = sqlite3_exec(db, steps[i], NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = set_number(db, to);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : -1;
}

/* Each table and index as the schema of that number makes it, and no trigger or view: who drops an
 * index undoes what it guards. */
int store_same_schema(sqlite3 *db, int schema, char odd[64])
{
    sqlite3 *model = NULL;
    sqlite3_stmt *st = NULL, *own = NULL;
    int step = SQLITE_ERROR, same = 1;
    snprintf(odd, 64, "?");
    if (sqlite3_open(":memory:", &model) || store_raise_schema(model, 0, schema) ||
        sqlite3_prepare_v2(model,
                           "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL UNION ALL "
                           "SELECT 'a trigger or view', NULL",
                           -1, &st, NULL) ||
        sqlite3_prepare_v2(db,
                           "SELECT CASE WHEN ?2 IS NULL THEN NOT EXISTS (SELECT 1 FROM "
                           "sqlite_schema WHERE type IN ('trigger', 'view')) ELSE EXISTS (SELECT 1 "
                           "FROM sqlite_schema WHERE name = ?1 AND sql = ?2) END",
                           -1, &own, NULL))
        same = 0;
    while (same && (step = sqlite3_step(st)) == SQLITE_ROW) {
        row_text(odd, 64, st, 0);
        sqlite3_reset(own);
        same = sqlite3_bind_value(own, 1, sqlite3_column_value(st, 0)) == SQLITE_OK &&
               sqlite3_bind_value(own, 2, sqlite3_column_value(st, 1)) == SQLITE_OK &&
               sqlite3_step(own) == SQLITE_ROW && sqlite3_column_int(own, 0);
    }
    sqlite3_finalize(st);
    sqlite3_finalize(own);
    sqlite3_close(model);
    return same && step == SQLITE_DONE;
}
