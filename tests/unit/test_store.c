#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <sys/wait.h>
#include <time.h>

#include "server/authority/store_parts.h"
#include "temp.h"

#define NOW 1800000000

/* ---- a disk that fails on demand: SQLite's own file layer, with some calls put between ---- */

static struct {
    int write_full, sync_fails, sync_fails_of_database;
    int calls_left; /* not 0: the process ends before so many more */
    sqlite3_file *database;
    sqlite3_io_methods methods[2]; /* of the database, of all else: that has no shared memory */
    int (*write)(sqlite3_file *, const void *, int, sqlite3_int64);
    int (*sync)(sqlite3_file *, int);
    int (*open)(sqlite3_vfs *, sqlite3_filename, sqlite3_file *, int, int *);
} disk;

static void disk_count(void)
{
    if (disk.calls_left && --disk.calls_left == 0)
        _exit(9);
}

static int disk_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at)
{
    disk_count();
    return disk.write_full ? SQLITE_FULL : disk.write(f, data, n, at);
}

static int disk_sync(sqlite3_file *f, int flags)
{
    disk_count();
    int fails = disk.sync_fails || (disk.sync_fails_of_database && f == disk.database);
    return fails ? SQLITE_IOERR_FSYNC : disk.sync(f, flags);
}

static int disk_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
    int rc = disk.open(vfs, name, f, flags, out);
    if (rc != SQLITE_OK || !f->pMethods)
        return rc;
    sqlite3_io_methods *own = &disk.methods[!(flags & SQLITE_OPEN_MAIN_DB)];
    if (flags & SQLITE_OPEN_MAIN_DB)
        disk.database = f;
    *own = *f->pMethods;
    disk.write = own->xWrite;
    disk.sync = own->xSync;
    own->xWrite = disk_write;
    own->xSync = disk_sync;
    f->pMethods = own;
    return rc;
}

static int disk_install(void)
{
    static sqlite3_vfs vfs;
    vfs = *sqlite3_vfs_find(NULL);
    disk.open = vfs.xOpen;
    vfs.xOpen = disk_open;
    vfs.zName = "failing";
    return sqlite3_vfs_register(&vfs, 1);
}

/* ---- rounds ---- */

/* One task: what to do, and what became of it. */
struct work {
    int (*decide)(struct store_tx *tx, struct work *w);
    int decided, completed, durable;
    int64_t id;
    uint64_t n;
    uint8_t tag;
};

static int decide(struct store_tx *tx, void *arg)
{
    struct work *w = arg;
    w->decided++;
    return w->decide(tx, w);
}

static void complete(int durable, void *arg)
{
    struct work *w = arg;
    w->completed++;
    w->durable = durable;
}

static void submit(struct store *s, struct work *w)
{
    w->decided = w->completed = 0;
    w->durable = -1;
    assert_int_equal(store_submit(s, decide, complete, w), 0);
}

static int commit(struct store *s, struct work *w)
{
    submit(s, w);
    store_commit(s);
    assert_int_equal(w->completed, 1);
    return w->durable;
}

static int do_it(struct store *s, int (*what)(struct store_tx *tx, struct work *w))
{
    struct work w = {.decide = what};
    return commit(s, &w);
}

static int read_it(struct store *s, int (*what)(struct store_tx *tx, struct work *w),
                   struct work *w)
{
    w->decide = what;
    return store_read(s, decide, w);
}

static int set_a(struct store_tx *tx, struct work *w)
{
    return tx_set_meta(tx, "a", (int64_t)w->n);
}

static int set_b_and_refuse(struct store_tx *tx, struct work *w)
{
    (void)w;
    return tx_set_meta(tx, "b", 1) ? 0 : -1;
}

static int set_c(struct store_tx *tx, struct work *w)
{
    return tx_set_meta(tx, "c", (int64_t)w->n);
}

static int64_t meta(struct store *s, const char *name);

static struct store *opened(const char *state)
{
    struct store *s = NULL;
    struct err err = {0};
    if (store_open(&s, state, &err))
        fail_msg("%s", err.text);
    return s;
}

static struct store *fresh(const char *state)
{
    char path[200];
    static const char *const names[] = {"signet.db", "signet.db-wal", "signet.db-shm"};
    mkdir(state, 0755);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", state, names[i]);
        unlink(path);
    }
    return opened(state);
}

struct question {
    const char *name;
    int64_t value;
    int rc;
};

static int ask_meta(struct store_tx *tx, void *arg)
{
    struct question *q = arg;
    q->rc = tx_meta(tx, q->name, &q->value);
    return q->rc < 0 ? -1 : 0;
}

/* -1: not there */
static int64_t meta(struct store *s, const char *name)
{
    struct question q = {.name = name};
    assert_int_equal(store_read(s, ask_meta, &q), 0);
    return q.rc ? -1 : q.value;
}

/* ---- rows ---- */

static int64_t issuer_of(struct store_tx *tx, uint8_t which)
{
    uint8_t certificate[4] = {which}, name[32] = {which}, spki[32] = {9};
    int64_t id = 0;
    assert_int_equal(tx_issuer(tx, (struct bytes){certificate, sizeof certificate}, name, spki,
                               NOW + 1000, NOW, &id),
                     0);
    return id;
}

static struct certificate_row row_of(struct store_tx *tx, uint8_t tag, const char *name)
{
    struct certificate_row row = {.issuer = issuer_of(tx, 1),
                                  .serial = {tag, 1, 2},
                                  .serial_len = 16,
                                  .profile = "device",
                                  .not_before = NOW - 300,
                                  .not_after = NOW + 1000,
                                  .created_at = NOW,
                                  .spki_sha256 = {tag},
                                  .tbs_sha256 = {tag, tag}};
    snprintf(row.name, sizeof row.name, "%s", name);
    return row;
}

static int64_t add_intent(struct store_tx *tx, uint8_t tag, const char *name)
{
    struct certificate_row row = row_of(tx, tag, name);
    assert_int_equal(tx_add_intent(tx, &row), 0);
    assert_true(row.id > 0);
    return row.id;
}

static int64_t add_issued(struct store_tx *tx, uint8_t tag, const char *name)
{
    uint8_t der[3] = {0x30, tag, 7}, digest[32];
    int64_t id = add_intent(tx, tag, name);
    sha256(digest, (struct bytes){der, sizeof der});
    assert_int_equal(tx_set_issued(tx, id, (struct bytes){der, sizeof der}, digest, NOW + 1), 0);
    return id;
}

/* ---- opening ---- */

static void one_is_made_and_opened_again(void **state)
{
    struct store *s = fresh("s1");
    struct work w = {.decide = set_a, .n = 42};
    struct stat st;
    (void)state;
    assert_int_equal(meta(s, "schema"), 2);
    assert_int_equal(commit(s, &w), 1);
    store_close(s);
    s = opened("s1");
    assert_int_equal(meta(s, "a"), 42);
    store_close(s);
    store_close(NULL);
    assert_int_equal(stat("s1/signet.db", &st), 0);
}

static void assert_no_store(const char *state, const char *why)
{
    struct store *s = NULL;
    struct err err = {0};
    int before = temp_fds();
    assert_int_equal(store_open(&s, state, &err), -1);
    assert_null(s);
    assert_int_equal(err.code, ERR_storage_unavailable);
    if (!strstr(err.text, why))
        fail_msg("\"%s\" is not in \"%s\"", why, err.text);
    assert_int_equal(temp_fds(), before);
}

/* Journal or certificates say that there was one. */
static void a_lost_one_is_not_made_anew(void **state)
{
    (void)state;
    mkdir("lost", 0755);
    temp_write("lost/journal.log", "", 0, 0644);
    assert_no_store("lost", "it is not made anew");
    assert_int_not_equal(access("lost/signet.db", F_OK), 0);
    temp_write("lost/signet.db", "", 0, 0644); /* nor one that somebody touch(1)ed */
    assert_no_store("lost", "signet.db");
    unlink("lost/signet.db");
    unlink("lost/journal.log");
    mkdir("lost/certs", 0755);
    assert_no_store("lost", "it is not made anew");
    rmdir("lost/certs");
    store_close(opened("lost"));
}

/* The very first start was ended before the schema was there: it may try again. */
static void one_half_made_is_made_whole(void **state)
{
    (void)state;
    mkdir("half", 0755);
    temp_write("half/signet.db", "", 0, 0644);
    store_close(opened("half"));
    store_close(fresh("half2"));
    sqlite3 *db;
    unlink("half2/signet.db");
    assert_int_equal(sqlite3_open("half2/signet.db", &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA user_version=0", 0, 0, 0),
                     0);
    sqlite3_close(db);
    struct store *s = opened("half2");
    assert_int_equal(meta(s, "schema"), 2);
    store_close(s);
}

static void a_missing_folder_is_named(void **state)
{
    (void)state;
    assert_no_store("nowhere", "nowhere");
}

/* A state folder on another disk, by a link: the link is the administrator's. */
static void a_link_to_the_folder_is_followed(void **state)
{
    (void)state;
    store_close(fresh("real"));
    assert_int_equal(symlink("real", "linked"), 0);
    store_close(opened("linked"));
    assert_int_equal(mkdir("elsewhere", 0755), 0);
    assert_int_equal(symlink("../real/signet.db", "elsewhere/signet.db"), 0);
    assert_no_store("elsewhere", "signet.db"); /* the file itself must not be one */
}

static void execute(const char *path, const char *sql)
{
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why))
        fail_msg("%s", why);
    sqlite3_close(db);
}

static void another_schema_is_refused(void **state)
{
    (void)state;
    store_close(fresh("schema"));
    execute("schema/signet.db", "UPDATE meta SET value=3 WHERE name='schema'");
    assert_no_store("schema", "has schema 3; this signetd knows 2");
    execute("schema/signet.db", "UPDATE meta SET value=0 WHERE name='schema'");
    assert_no_store("schema", "has schema 0; this signetd knows 2");
    execute("schema/signet.db", "UPDATE meta SET value=1 WHERE name='schema'");
    execute("schema/signet.db", "DROP INDEX certificate_by_key");
    assert_no_store("schema", "not as this signetd makes it (certificate_by_key)");
    execute("schema/signet.db", "DELETE FROM meta");
    assert_no_store("schema", "schema/signet.db");
    execute("schema/signet.db", "DROP TABLE meta");
    assert_no_store("schema", "no such table: meta");
}

/* A store as a release before this one made it. */
extern const char store_schema_sql[];

static void make_schema_1(const char *state)
{
    char path[200];
    mkdir(state, 0755);
    snprintf(path, sizeof path, "%s/signet.db", state);
    execute(path, "PRAGMA journal_mode=WAL");
    execute(path, store_schema_sql);
    execute(path, "INSERT INTO meta VALUES ('schema', 1), ('a', 42);"
                  "INSERT INTO operator VALUES (7, 'kim', 3, 1800000000, NULL)");
}

static void assert_schema_text(const char *path, const char *expected)
{
    char text[65];
    uint8_t digest[32];
    sqlite3 *db;
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT group_concat(sql, ';') FROM (SELECT sql FROM "
                                        "sqlite_schema WHERE sql IS NOT NULL ORDER BY name)",
                                        -1, &st, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    sha256(digest, (struct bytes){sqlite3_column_text(st, 0), (size_t)sqlite3_column_bytes(st, 0)});
    hex_encode(text, (struct bytes){digest, 32});
    assert_string_equal(text, expected);
    sqlite3_finalize(st);
    sqlite3_close(db);
}

#define SCHEMA_1_TEXT "efa094117fcf618f219cb2613536150c2c200ef39c9d1bf5a3e42d283c139911"
#define SCHEMA_2_TEXT "0f197c3cb9169c0450a31335a9d594a2dbc1f5d3ea262618c91941c45498144e"

/* A store of an earlier release is opened only while the text of its schema is still the one that
 * it was made from. */
static void the_schemas_are_frozen(void **state)
{
    (void)state;
    make_schema_1("frozen1");
    assert_schema_text("frozen1/signet.db", SCHEMA_1_TEXT);
    store_close(fresh("frozen2"));
    assert_schema_text("frozen2/signet.db", SCHEMA_2_TEXT);
}

static int find_kim(struct store_tx *tx, struct work *w)
{
    struct operator_row op;
    w->id = tx_operator_by_name(tx, "kim", &op) == 0 ? op.id : 0;
    return 0;
}

static void assert_raised(struct store *s)
{
    struct work w = {0};
    assert_int_equal(meta(s, "schema"), 2);
    assert_int_equal(meta(s, "a"), 42);
    assert_int_equal(read_it(s, find_kim, &w), 0);
    assert_int_equal(w.id, 7);
}

static void an_earlier_schema_is_raised(void **state)
{
    (void)state;
    struct store *s = NULL;
    struct err err = {0};
    make_schema_1("raised");
    assert_int_equal(store_open_read_only(&s, "raised", &err), -1);
    if (!strstr(err.text, "has schema 1, of an earlier release: start signetd once"))
        fail_msg("%s", err.text);
    assert_schema_text("raised/signet.db", SCHEMA_1_TEXT);
    s = opened("raised");
    assert_raised(s);
    store_close(s);
    assert_schema_text("raised/signet.db", SCHEMA_2_TEXT);
    assert_int_equal(store_open_read_only(&s, "raised", &err), 0);
    assert_raised(s);
    store_close(s);
}

/* Ended before its n-th write to the disk, or sync: -1 when it came through. */
static int raise_and_die(const char *state, int n)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct store *s;
        struct err err;
        disk.calls_left = n;
        _exit(store_open(&s, state, &err) ? 2 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 9));
    return WEXITSTATUS(status) == 9 ? 0 : -1;
}

static int is_there(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
    int found = sqlite3_step(st) == SQLITE_ROW;
    sqlite3_finalize(st);
    return found;
}

static void a_crash_while_it_is_raised_leaves_one_or_the_other(void **state)
{
    (void)state;
    int died = 1, before = 0;
    for (int n = 1; died; n++) {
        char folder[32], path[64];
        sqlite3 *db;
        snprintf(folder, sizeof folder, "crash%d", n);
        snprintf(path, sizeof path, "%s/signet.db", folder);
        make_schema_1(folder);
        died = raise_and_die(folder, n) == 0;
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        int raised = is_there(db, "SELECT 1 FROM meta WHERE name='schema' AND value=2");
        int tables = is_there(db, "SELECT 1 FROM sqlite_schema WHERE name='enrolled_by_enrolment'");
        sqlite3_close(db);
        assert_int_equal(raised, tables);
        assert_schema_text(path, raised ? SCHEMA_2_TEXT : SCHEMA_1_TEXT);
        before += died && !raised;
        struct store *s = opened(folder);
        assert_raised(s);
        store_close(s);
    }
    assert_true(before > 2);
}

/* A full disk: refused, nothing changed, and it passes. */
static void a_full_disk_raises_nothing(void **state)
{
    (void)state;
    make_schema_1("full1");
    disk.write_full = 1;
    assert_no_store("full1", "full");
    disk.write_full = 0;
    assert_schema_text("full1/signet.db", SCHEMA_1_TEXT);
    struct store *s = opened("full1");
    assert_raised(s);
    store_close(s);
}

static void scribble(const char *path, off_t at, size_t len)
{
    char junk[4096];
    memset(junk, 'J', sizeof junk);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, junk, len, at), len);
    close(fd);
}

static int add_many(struct store_tx *tx, struct work *w)
{
    (void)w;
    for (int i = 0; i < 200; i++)
        add_issued(tx, (uint8_t)i, "n");
    return 0;
}

static void a_corrupt_one_is_refused_and_left_as_it_is(void **state)
{
    struct stat before, after;
    (void)state;
    struct store *s = fresh("corrupt");
    assert_int_equal(do_it(s, add_many), 1);
    store_close(s); /* the last one out checkpoints: all is in signet.db */
    assert_int_equal(stat("corrupt/signet.db", &before), 0);
    assert_true(before.st_size > 20 * 4096);
    scribble("corrupt/signet.db", before.st_size - 8192, 4096);
    assert_no_store("corrupt", "corrupt/signet.db");
    scribble("corrupt/signet.db", 0, 100); /* not even a database */
    assert_no_store("corrupt", "docs/recovery.md");
    assert_int_equal(stat("corrupt/signet.db", &after), 0);
    assert_int_equal(before.st_size, after.st_size);
    assert_int_equal(truncate("corrupt/signet.db", 4096), 0);
    assert_no_store("corrupt", "corrupt/signet.db");
}

/* ---- rounds ---- */

static void a_decision_that_refuses_takes_back_its_own_writes(void **state)
{
    struct store *s = fresh("rounds");
    struct work a = {.decide = set_a, .n = 1}, b = {.decide = set_b_and_refuse};
    struct work c = {.decide = set_c, .n = 3};
    (void)state;
    assert_false(store_waiting(s));
    store_commit(s); /* nothing to do */
    submit(s, &a);
    submit(s, &b);
    submit(s, &c);
    assert_true(store_waiting(s));
    assert_int_equal(a.decided + b.decided + c.decided, 0); /* not before the round */
    store_commit(s);
    assert_false(store_waiting(s));
    assert_int_equal(a.durable, 1);
    assert_int_equal(b.durable, 0);
    assert_int_equal(c.durable, 1);
    assert_int_equal(a.completed + b.completed + c.completed, 3);
    assert_int_equal(a.decided + b.decided + c.decided, 5); /* a and b anew, each apart */
    assert_int_equal(meta(s, "a"), 1);
    assert_int_equal(meta(s, "b"), -1);
    assert_int_equal(meta(s, "c"), 3);
    assert_null(store_problem(s));
    store_close(s);
}

static int refuse(struct store_tx *tx, struct work *w)
{
    return tx_meta(tx, "b", &w->id) ? -1 : 0;
}

static void a_decision_that_refuses_before_it_writes_costs_the_others_nothing(void **state)
{
    struct store *s = fresh("refusal");
    struct work a = {.decide = set_a, .n = 1}, b = {.decide = refuse};
    struct work c = {.decide = set_c, .n = 3};
    (void)state;
    submit(s, &a);
    submit(s, &b);
    submit(s, &c);
    store_commit(s);
    assert_int_equal(a.durable + c.durable, 2);
    assert_int_equal(b.durable, 0);
    assert_int_equal(a.decided + b.decided + c.decided, 3);
    assert_int_equal(meta(s, "a") + meta(s, "c"), 4);
    store_close(s);
}

static int break_a_rule(struct store_tx *tx, struct work *w)
{
    (void)w;
    struct operator_row op = {.name = "twice", .roles = 1};
    assert_int_equal(tx_add_operator(tx, &op, NOW), 0);
    return tx_add_operator(tx, &op, NOW); /* the name is taken */
}

static void a_broken_constraint_is_that_decision_s_alone(void **state)
{
    struct store *s = fresh("constraint");
    struct work a = {.decide = set_a, .n = 5}, b = {.decide = break_a_rule};
    struct work c = {.decide = set_c, .n = 6};
    (void)state;
    submit(s, &a);
    submit(s, &b);
    submit(s, &c);
    store_commit(s);
    assert_int_equal(a.durable, 1);
    assert_int_equal(b.durable, 0);
    assert_int_equal(c.durable, 1);
    assert_int_equal(meta(s, "a"), 5);
    assert_int_equal(meta(s, "c"), 6);
    assert_null(store_problem(s));
    store_close(s);
}

static int take_a_serial_twice(struct store_tx *tx, struct work *w)
{
    int64_t id = add_intent(tx, 77, "twice");
    struct certificate_row again = row_of(tx, 77, "other"), found;
    struct bytes serial = {again.serial, again.serial_len};
    (void)w;
    assert_true(id);
    assert_int_equal(tx_add_intent(tx, &again), 1);
    assert_int_equal(tx_certificate_by_serial(tx, again.issuer, serial, &found), 0);
    assert_int_equal(found.id, id);
    assert_string_equal(found.name, "twice");
    return 0;
}

static void a_serial_is_taken_once(void **state)
{
    struct store *s = fresh("serial");
    struct work w = {.decide = take_a_serial_twice};
    (void)state;
    submit(s, &w);
    store_commit(s);
    assert_int_equal(w.durable, 1);
    assert_null(store_problem(s));
    store_close(s);
}

/* What a completion asks for is the next round's. */
static struct store *chained;
static struct work second = {.decide = set_c, .n = 2};

static void submit_second(int durable, void *arg)
{
    complete(durable, arg);
    submit(chained, &second);
}

static void a_completion_may_submit(void **state)
{
    struct work first = {.decide = set_a, .n = 1, .durable = -1};
    (void)state;
    chained = fresh("chain");
    assert_int_equal(store_submit(chained, decide, submit_second, &first), 0);
    store_commit(chained);
    assert_int_equal(first.durable, 1);
    assert_true(store_waiting(chained));
    assert_int_equal(second.decided, 0);
    store_commit(chained);
    assert_int_equal(second.durable, 1);
    assert_false(store_waiting(chained));
    store_close(chained);
}

static void closing_with_work_waiting_calls_nobody(void **state)
{
    struct store *s = fresh("closing");
    struct work w = {.decide = set_a};
    (void)state;
    submit(s, &w);
    store_close(s);
    assert_int_equal(w.decided + w.completed, 0);
}

/* ---- whose state is another now ---- */

static struct {
    int calls, before_completion;
    size_t count;
    uint8_t tags[STORE_CHANGES_MAX];
} heard;
static struct work *watched;

static void hear(const struct state_change *list, size_t count, void *arg)
{
    (void)arg;
    heard.calls++;
    heard.count = count;
    heard.before_completion = !watched || !watched->completed;
    assert_true((list == NULL) == (count > STORE_CHANGES_MAX));
    for (size_t i = 0; list && i < count; i++) {
        assert_int_equal(list[i].serial_len, 16);
        assert_true(list[i].issuer > 0);
        heard.tags[i] = list[i].serial[0];
    }
}

static void assert_heard(const char *tags)
{
    assert_int_equal(heard.calls, tags != NULL);
    if (tags) {
        assert_int_equal(heard.count, strlen(tags));
        assert_memory_equal(heard.tags, tags, strlen(tags));
        assert_true(heard.before_completion);
    }
    memset(&heard, 0, sizeof heard);
}

static int64_t id_of(struct store_tx *tx, uint8_t tag)
{
    struct certificate_row row;
    uint8_t serial[16] = {tag, 1, 2};
    int rc = tx_certificate_by_serial(tx, issuer_of(tx, 1), (struct bytes){serial, 16}, &row);
    assert_int_equal(rc, 0);
    return row.id;
}

static int add_three(struct store_tx *tx, struct work *w)
{
    (void)w;
    add_issued(tx, 'a', "a");
    add_issued(tx, 'b', "b");
    add_intent(tx, 'c', "c");
    return 0;
}

static int revoke_it(struct store_tx *tx, struct work *w)
{
    return tx_set_revoked(tx, id_of(tx, w->tag), STATE_REVOKED, NOW, 1);
}

static int revoke_it_and_refuse(struct store_tx *tx, struct work *w)
{
    return revoke_it(tx, w) ? 0 : -1;
}

static int hold_and_lift(struct store_tx *tx, struct work *w)
{
    int64_t id = id_of(tx, w->tag);
    assert_int_equal(tx_set_unheld(tx, id), -1); /* which changes nothing, and tells nothing */
    return tx_set_revoked(tx, id, STATE_HELD, NOW, 6) || tx_set_unheld(tx, id) ? -1 : 0;
}

static int make_orphan_and_find(struct store_tx *tx, struct work *w)
{
    uint8_t der[3] = {0x30, w->tag, 7}, digest[32] = {0};
    struct certificate_row row = row_of(tx, w->tag, "found");
    row.id = id_of(tx, w->tag);
    return tx_set_orphan(tx, row.id, NOW) ||
                   tx_set_found(tx, &row, (struct bytes){der, sizeof der}, digest, NOW)
               ? -1
               : 0;
}

static int make_orphans(struct store_tx *tx, struct work *w)
{
    struct certificate_row row = row_of(tx, 'z', "many");
    for (w->n = 0; w->n < STORE_CHANGES_MAX + 1; w->n++) {
        row.serial[1] = (uint8_t)(w->n >> 8);
        row.serial[2] = (uint8_t)w->n;
        row.tbs_sha256[2] = row.serial[1];
        row.tbs_sha256[3] = row.serial[2];
        snprintf(row.name, sizeof row.name, "many-%d", (int)w->n);
        if (tx_add_intent(tx, &row) || tx_set_orphan(tx, row.id, NOW))
            return -1;
    }
    return 0;
}

static void a_changed_state_is_told_when_durable_and_before_all_else(void **state)
{
    struct store *s = fresh("changes");
    struct work a = {.decide = revoke_it, .tag = 'a'};
    struct work refused = {.decide = revoke_it_and_refuse, .tag = 'b'};
    struct work b = {.decide = hold_and_lift, .tag = 'b'};
    struct work c = {.decide = make_orphan_and_find, .tag = 'c'};
    (void)state;
    store_on_changes(s, hear, NULL);
    assert_int_equal(do_it(s, add_three), 1);
    assert_heard(NULL); /* what is new had no answer before */
    watched = &a;
    submit(s, &a);
    submit(s, &refused);
    submit(s, &b);
    submit(s, &c);
    store_commit(s);
    assert_int_equal(a.durable + refused.durable + b.durable + c.durable, 3);
    assert_heard("abbcc");
    assert_int_equal(do_it(s, set_a), 1);
    assert_heard(NULL);
    assert_int_equal(commit(s, &refused), 0);
    assert_heard(NULL);
    store_close(s);
}

static void a_change_that_is_not_written_is_not_told(void **state)
{
    struct store *s = fresh("unwritten");
    struct work a = {.decide = revoke_it, .tag = 'a'};
    (void)state;
    store_on_changes(s, hear, NULL);
    assert_int_equal(do_it(s, add_three), 1);
    watched = &a;
    disk.write_full = 1;
    assert_int_equal(commit(s, &a), 0);
    disk.write_full = 0;
    assert_heard(NULL);
    assert_int_equal(do_it(s, set_a), 1); /* nor with the round after */
    assert_heard(NULL);
    assert_int_equal(commit(s, &a), 1);
    assert_heard("a");
    store_close(s);
}

static void of_too_many_changes_none_is_named(void **state)
{
    struct store *s = fresh("many-changes");
    struct work w = {.decide = make_orphans};
    (void)state;
    watched = &w;
    store_on_changes(s, hear, NULL);
    assert_int_equal(commit(s, &w), 1);
    assert_int_equal(heard.calls, 1);
    assert_int_equal(heard.count, STORE_CHANGES_MAX + 1);
    memset(&heard, 0, sizeof heard);
    store_close(s);
}

/* ---- disks that fail ---- */

/* All of the round is lost, the reason is told, and service returns by itself. */
static void a_full_disk_is_told_and_passes(void **state)
{
    struct store *s = fresh("full");
    struct work a = {.decide = set_a, .n = 1}, c = {.decide = set_c, .n = 1};
    (void)state;
    disk.write_full = 1;
    submit(s, &a);
    submit(s, &c);
    store_commit(s);
    disk.write_full = 0;
    assert_int_equal(a.durable, 0);
    assert_int_equal(c.durable, 0);
    assert_non_null(store_problem(s));
    assert_non_null(strstr(store_problem(s), "disk is full"));
    assert_int_equal(meta(s, "a"), -1);
    assert_non_null(store_problem(s)); /* reading proves nothing */
    assert_int_equal(commit(s, &a), 1);
    assert_null(store_problem(s));
    assert_int_equal(meta(s, "a"), 1);
    assert_int_equal(meta(s, "c"), -1);
    store_close(s);
}

/* So much in one round that the disk is full before its commit. */
static int add_until_full(struct store_tx *tx, struct work *w)
{
    (void)w;
    for (int i = 0; i < 40000; i++)
        if (tx_event(tx, NOW, 0, "%01000d", i))
            return -1;
    return 0;
}

static void a_disk_that_fills_within_a_round_is_told(void **state)
{
    (void)state;
    assert_int_equal(temp_mount("tmpfs", "size=4m"), 0);
    struct store *s = fresh("tmpfs");
    struct work a = {.decide = set_a, .n = 1}, b = {.decide = add_until_full};
    struct work c = {.decide = set_c, .n = 1};
    submit(s, &a);
    submit(s, &b);
    submit(s, &c);
    store_commit(s);
    assert_int_equal(a.durable + b.durable + c.durable, 0);
    assert_non_null(store_problem(s));
    if (!strstr(store_problem(s), "full") && !strstr(store_problem(s), "I/O"))
        fail_msg("%s", store_problem(s));
    store_close(s);
    s = opened("tmpfs"); /* and it is whole */
    assert_int_equal(meta(s, "a"), -1);
    assert_int_equal(commit(s, &a), 1);
    store_close(s);
    assert_int_equal(umount("tmpfs"), 0);
}

static void a_disk_that_becomes_read_only_is_told_and_passes(void **state)
{
    (void)state;
    assert_int_equal(temp_mount("ro", "size=4m"), 0);
    struct store *s = fresh("ro");
    struct work a = {.decide = set_a, .n = 1};
    assert_int_equal(commit(s, &a), 1);
    store_close(s);
    assert_int_equal(mount("none", "ro", "none", MS_REMOUNT | MS_RDONLY, "size=4m"), 0);
    struct err err;
    int rc = store_open(&s, "ro", &err);
    if (rc == 0) { /* to read it may do; nothing is acknowledged */
        a.n = 2;
        assert_int_equal(commit(s, &a), 0);
        assert_non_null(store_problem(s));
        store_close(s);
    } else {
        assert_non_null(strstr(err.text, "ro/signet.db"));
    }
    assert_int_equal(mount("none", "ro", "none", MS_REMOUNT, "size=4m"), 0);
    s = opened("ro");
    assert_int_equal(meta(s, "a"), 1);
    a.n = 3;
    assert_int_equal(commit(s, &a), 1);
    store_close(s);
    assert_int_equal(umount("ro"), 0);
}

/* In a child, whose standard error is closed; its exit code. */
static int exit_of(void (*what)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO);
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void with_failing_sync(void)
{
    struct store *s = opened("sync");
    struct work w = {.decide = set_a, .n = 2};
    submit(s, &w);
    disk.sync_fails = 1;
    store_commit(s);
}

/* So much that the commit is followed by a checkpoint; its sync of the database fails. */
static void with_failing_checkpoint(void)
{
    struct store *s = opened("sync");
    struct work w = {.decide = add_until_full};
    submit(s, &w);
    disk.sync_fails_of_database = 1;
    store_commit(s);
}

static void a_failed_sync_ends_the_process(void **state)
{
    (void)state;
    store_close(fresh("sync"));
    assert_int_equal(exit_of(with_failing_sync), 70);
    assert_int_equal(exit_of(with_failing_checkpoint), 70);
    store_close(opened("sync"));
}

/* ---- certificates ---- */

static int check_rows(struct store_tx *tx, struct work *w)
{
    struct certificate_row row, by_id;
    uint8_t serial[16] = {5, 1, 2}, other[16] = {6, 1, 2}, digest[32];
    (void)w;
    int64_t issuer = issuer_of(tx, 1), intent = add_intent(tx, 4, "four");
    int64_t id = add_issued(tx, 5, "five");
    assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){serial, 16}, &row), 0);
    assert_true(row.id == id);
    assert_int_equal(row.state, STATE_ISSUED);
    assert_string_equal(row.name, "five");
    assert_string_equal(row.profile, "device");
    assert_int_equal(row.serial_len, 16);
    assert_memory_equal(row.serial, serial, 16);
    assert_int_equal(row.spki_sha256[0], 5);
    assert_int_equal(row.tbs_sha256[1], 5);
    assert_int_equal(row.operator_id + row.subject_operator + row.revoked_at + row.reason, 0);
    assert_true(row.not_before == NOW - 300 && row.not_after == NOW + 1000);
    assert_true(row.created_at == NOW && row.issued_at == NOW + 1);
    assert_int_equal(row.der.len, 3);
    assert_int_equal(row.der.data[1], 5);
    sha256(digest, row.der);
    assert_memory_equal(row.der_sha256, digest, 32);
    assert_int_equal(tx_certificate_by_id(tx, id, &by_id), 0);
    assert_true(by_id.id == id);
    assert_int_equal(tx_certificate_by_id(tx, intent, &by_id), 0);
    assert_int_equal(by_id.state, STATE_INTENT);
    assert_int_equal(by_id.der.len, 0);
    assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){other, 16}, &row), 1);
    assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){serial, 15}, &row), 1);
    assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){NULL, 0}, &row), 1);
    assert_int_equal(tx_certificate_by_serial(tx, issuer + 1, (struct bytes){serial, 16}, &row), 1);
    assert_int_equal(tx_certificate_by_id(tx, id + 1, &row), 1);
    return 0;
}

static void rows_come_back_as_they_went_in(void **state)
{
    struct store *s = fresh("rows");
    (void)state;
    assert_int_equal(do_it(s, check_rows), 1);
    store_close(s);
}

static int check_issuers(struct store_tx *tx, struct work *w)
{
    uint8_t name[32] = {1}, other[32] = {3}, serial[16] = {5, 1, 2};
    int64_t one = issuer_of(tx, 1), two = issuer_of(tx, 2), found = 0;
    (void)w;
    assert_true(one != two);              /* two certificates, though on one key */
    assert_true(issuer_of(tx, 1) == one); /* the same again is the same */
    add_issued(tx, 5, "five");
    struct bytes n = {name, 32}, s = {serial, 16};
    assert_int_equal(tx_issuer_by_name(tx, n, s, &found), 0);
    assert_true(found == one);
    serial[0] = 6;
    assert_int_equal(tx_issuer_by_name(tx, n, s, &found), 1);
    serial[0] = 5;
    assert_int_equal(tx_issuer_by_name(tx, (struct bytes){other, 32}, s, &found), 1);
    assert_int_equal(tx_issuer_by_name(tx, (struct bytes){name, 31}, s, &found), 1);
    assert_int_equal(tx_issuer_by_name(tx, (struct bytes){NULL, 0}, s, &found), 1);
    return 0;
}

static void issuers_are_told_apart(void **state)
{
    struct store *s = fresh("issuers");
    (void)state;
    assert_int_equal(do_it(s, check_issuers), 1);
    store_close(s);
}

/* The same key and name with another certificate is the same CA. */
static int check_renewed_issuer(struct store_tx *tx, struct work *w)
{
    uint8_t certificate[5] = {1, 0, 0, 0, 1}, name[32] = {1}, spki[32] = {9}, key[32] = {8};
    uint8_t serial[16] = {5, 1, 2};
    int64_t one = issuer_of(tx, 1), renewed = 0, other = 0;
    struct bytes kept, now = {certificate, sizeof certificate};
    struct crl_row crl = {.issuer = one, .number = 7}, last;
    struct certificate_row row;
    (void)w;
    add_issued(tx, 5, "five");
    assert_int_equal(tx_add_crl(tx, &crl), 0);
    assert_int_equal(tx_issuer(tx, now, name, spki, NOW + 2000, NOW + 1, &renewed), 0);
    assert_true(renewed == one);
    assert_int_equal(tx_certificate_by_serial(tx, renewed, (struct bytes){serial, 16}, &row), 0);
    assert_int_equal(tx_last_crl(tx, renewed, 0, 0, &last), 0);
    assert_true(last.number == 7);
    assert_int_equal(tx_issuer_by_id(tx, one, &kept), 0);
    assert_true(bytes_equal(kept, now));
    assert_int_equal(tx_issuer(tx, now, name, spki, NOW + 2000, NOW + 2, &other), 0);
    assert_true(other == one); /* at the next start too */
    certificate[4] = 2;        /* a new key is another CA, though of the same name */
    assert_int_equal(tx_issuer(tx, now, name, key, NOW + 2000, NOW + 2, &other), 0);
    assert_true(other != one);
    return 0;
}

static void an_issuer_certified_anew_is_the_same(void **state)
{
    struct store *s = fresh("renewed");
    (void)state;
    assert_int_equal(do_it(s, check_renewed_issuer), 1);
    store_close(s);
}

/* ---- lists ---- */

struct page {
    uint8_t tags[20];
    size_t count;
};

static int note_tag(const struct certificate_row *row, void *arg)
{
    struct page *p = arg;
    p->tags[p->count++] = row->serial[0];
    return 0;
}

static void check_list(struct store_tx *tx, const char *tags, struct list_filter f)
{
    struct page p = {0};
    f.state = -1;
    f.limit = f.limit ? f.limit : 20;
    assert_int_equal(tx_list(tx, &f, note_tag, &p), 0);
    assert_int_equal(p.count, strlen(tags));
    assert_memory_equal(p.tags, tags, p.count);
}

/* The clock was ahead for the third of them. */
static int check_lists(struct store_tx *tx, struct work *w)
{
    static const int64_t at[] = {0, 10, 500, 20, 30, 30};
    (void)w;
    for (uint8_t i = 0; i < 6; i++) {
        struct certificate_row row = row_of(tx, (uint8_t)(i + 1), i % 2 ? "odd" : "even");
        row.created_at = NOW + at[i];
        assert_int_equal(tx_add_intent(tx, &row), 0);
    }
    check_list(tx, "\1\2\3\4\5\6", (struct list_filter){.limit = 6});
    check_list(tx, "\2\4\5\6", (struct list_filter){.from = NOW + 10, .to = NOW + 30});
    check_list(tx, "\2\3\4\5\6", (struct list_filter){.from = NOW + 10});
    check_list(tx, "\1\2\4", (struct list_filter){.to = NOW + 20});
    check_list(tx, "\3", (struct list_filter){.from = NOW + 31});
    check_list(tx, "\4\6", (struct list_filter){.from = NOW + 11, .to = NOW + 400, .name = "odd"});
    check_list(tx, "\4\5",
               (struct list_filter){.from = NOW + 10, .to = NOW + 30, .after = 2, .limit = 2});
    check_list(tx, "", (struct list_filter){.from = NOW + 501});
    check_list(tx, "", (struct list_filter){.to = NOW - 1});
    check_list(tx, "\2\3", (struct list_filter){.after = 1, .last = 3});
    check_list(tx, "",
               (struct list_filter){.board = BOARD_UNREPORTED + 1}); /* they are no devices' */
    int64_t newest;
    assert_int_equal(tx_newest_certificate(tx, &newest), 0);
    check_list(tx, "\6", (struct list_filter){.after = newest - 1});
    check_list(tx, "", (struct list_filter){.after = newest});
    return 0;
}

static void a_list_is_of_the_times_asked_for(void **state)
{
    struct store *s = fresh("lists");
    (void)state;
    assert_int_equal(do_it(s, check_lists), 1);
    store_close(s);
}

/* A state has its ways in: issued only from intent, orphan only from intent. */
static int check_transitions(struct store_tx *tx, struct work *w)
{
    uint8_t digest[32] = {0};
    struct bytes der = {digest, 3};
    (void)w;
    int64_t issued = add_issued(tx, 1, "a"), orphan = add_intent(tx, 2, "b");
    assert_int_equal(tx_set_issued(tx, issued, der, digest, NOW), -1);
    assert_int_equal(tx_set_orphan(tx, issued, NOW), -1);
    assert_int_equal(tx_set_orphan(tx, orphan, NOW), 0);
    assert_int_equal(tx_set_orphan(tx, orphan, NOW), -1);
    assert_int_equal(tx_set_issued(tx, orphan, der, digest, NOW), -1); /* never completed */
    assert_int_equal(tx_set_revoked(tx, 999, STATE_REVOKED, NOW, 1), -1);
    assert_int_equal(tx_set_issued(tx, 999, der, digest, NOW), -1);
    assert_int_equal(tx_set_revoked(tx, issued, STATE_REVOKED, NOW + 5, 4), 0);
    struct certificate_row row;
    assert_int_equal(tx_certificate_by_id(tx, issued, &row), 0);
    assert_int_equal(row.state, STATE_REVOKED);
    assert_true(row.revoked_at == NOW + 5);
    assert_int_equal(row.reason, 4);
    assert_int_equal(row.der.len, 3);
    return 0;
}

static void a_state_is_not_left_backwards(void **state)
{
    struct store *s = fresh("transitions");
    (void)state;
    assert_int_equal(do_it(s, check_transitions), 1);
    store_close(s);
    assert_string_equal(certificate_state_name(STATE_ORPHAN), "orphan");
    assert_string_equal(certificate_state_name((enum certificate_state) - 1), "?");
    assert_string_equal(certificate_state_name((enum certificate_state)5), "?");
}

/* What is reported only rises, and only of what is issued. */
static int check_boards(struct store_tx *tx, struct work *w)
{
    struct certificate_row row;
    (void)w;
    int64_t id = add_issued(tx, 1, "mac"), intent = add_intent(tx, 2, "other");
    assert_int_equal(tx_set_board(tx, id, BOARD_UNREPORTED), -1);
    assert_int_equal(tx_set_board(tx, id, BOARD_FLASHED), 0);
    assert_int_equal(tx_set_board(tx, id, BOARD_FLASHED), -1);
    assert_int_equal(tx_set_board(tx, id, BOARD_VERIFIED), 0);
    assert_int_equal(tx_set_board(tx, id, BOARD_FLASHED), -1);
    assert_int_equal(tx_set_board(tx, intent, BOARD_FLASHED), -1);
    assert_int_equal(tx_set_board(tx, 999, BOARD_FLASHED), -1);
    assert_int_equal(tx_certificate_by_id(tx, id, &row), 0);
    assert_int_equal(row.board, BOARD_VERIFIED);
    id = add_issued(tx, 3, "third");
    assert_int_equal(tx_set_revoked(tx, id, STATE_HELD, NOW, 6), 0);
    assert_int_equal(tx_set_board(tx, id, BOARD_FLASHED), -1);
    return 0;
}

static void a_board_s_state_only_rises(void **state)
{
    struct store *s = fresh("boards");
    (void)state;
    assert_int_equal(do_it(s, check_boards), 1);
    store_close(s);
    assert_string_equal(board_state_name(BOARD_UNREPORTED), "issued");
    assert_string_equal(board_state_name(BOARD_VERIFIED), "verified");
    assert_string_equal(board_state_name((enum board_state)3), "?");
}

static int live(struct store_tx *tx, const char *name, const char *profile, int64_t now)
{
    struct certificate_row row;
    return tx_live_certificate(tx, name, profile, now, &row);
}

static int check_live(struct store_tx *tx, struct work *w)
{
    (void)w;
    int64_t id = add_intent(tx, 1, "mac");
    assert_int_equal(live(tx, "mac", "device", NOW), 0); /* an open intent counts */
    assert_int_equal(live(tx, "MAC", "device", NOW), 1);
    assert_int_equal(live(tx, "mac", "server", NOW), 1);
    tx_set_orphan(tx, id, NOW);
    assert_int_equal(live(tx, "mac", "device", NOW), 1);
    id = add_issued(tx, 2, "mac");
    assert_int_equal(live(tx, "mac", "device", NOW), 0);
    assert_int_equal(live(tx, "mac", "device", NOW + 999), 0);
    assert_int_equal(live(tx, "mac", "device", NOW + 1000), 1); /* expired */
    tx_set_revoked(tx, id, STATE_HELD, NOW, 6);
    assert_int_equal(live(tx, "mac", "device", NOW), 0);
    tx_set_revoked(tx, id, STATE_REVOKED, NOW, 1);
    assert_int_equal(live(tx, "mac", "device", NOW), 1);
    return 0;
}

static void a_live_certificate_is_found(void **state)
{
    struct store *s = fresh("live");
    (void)state;
    assert_int_equal(do_it(s, check_live), 1);
    store_close(s);
}

static int check_keys(struct store_tx *tx, struct work *w)
{
    uint8_t key[32] = {1}, unused[32] = {2};
    (void)w;
    int64_t id = add_issued(tx, 1, "mac");
    assert_int_equal(tx_key_of_other(tx, key, "mac", "device"), 1);
    assert_int_equal(tx_key_of_other(tx, key, "other", "device"), 0);
    assert_int_equal(tx_key_of_other(tx, key, "mac", "server"), 0);
    assert_int_equal(tx_key_of_other(tx, unused, "other", "device"), 1);
    tx_set_revoked(tx, id, STATE_REVOKED, NOW, 1); /* revoked does not free a key */
    assert_int_equal(tx_key_of_other(tx, key, "other", "device"), 0);
    return 0;
}

static void a_key_stays_its_subject_s(void **state)
{
    struct store *s = fresh("keys");
    (void)state;
    assert_int_equal(do_it(s, check_keys), 1);
    store_close(s);
}

static int check_requests(struct store_tx *tx, struct work *w)
{
    uint8_t key[32] = {1}, second_key[32] = {2};
    struct request_row row = {.body_sha256 = {3}}, back = {0};
    (void)w;
    row.certificate = add_intent(tx, 1, "mac");
    row.result = 77;
    assert_int_equal(tx_request(tx, key, &back), 1);
    assert_int_equal(tx_add_request(tx, key, &row, NOW), 0);
    assert_int_equal(tx_add_request(tx, second_key, &row, NOW), 0);
    assert_int_equal(tx_request(tx, key, &back), 0);
    assert_true(back.certificate == row.certificate);
    assert_true(back.result == 77);
    assert_memory_equal(back.body_sha256, row.body_sha256, 32);
    /* an orphan's are forgotten, all of them: a retry starts anew */
    assert_int_equal(tx_set_orphan(tx, row.certificate, NOW), 0);
    assert_int_equal(tx_request(tx, key, &back), 1);
    assert_int_equal(tx_request(tx, second_key, &back), 1);
    row.certificate = 0; /* of several certificates: only the result is kept */
    assert_int_equal(tx_add_request(tx, key, &row, NOW), 0);
    assert_int_equal(tx_request(tx, key, &back), 0);
    assert_true(back.certificate == 0 && back.result == 77);
    return 0;
}

static int request_twice(struct store_tx *tx, struct work *w)
{
    uint8_t key[32] = {1};
    (void)w;
    struct request_row row = {.certificate = add_intent(tx, 9, "mac")};
    return tx_add_request(tx, key, &row, NOW) || tx_add_request(tx, key, &row, NOW);
}

static int request_for_none(struct store_tx *tx, struct work *w)
{
    uint8_t key[32] = {7};
    const struct request_row row = {.certificate = 12345};
    (void)w;
    return tx_add_request(tx, key, &row, NOW);
}

static void an_orphan_forgets_its_requests(void **state)
{
    struct store *s = fresh("requests");
    (void)state;
    assert_int_equal(do_it(s, check_requests), 1);
    store_close(s);
}

static int minus_one_if(int rc)
{
    return rc ? -1 : 0;
}

static int decide_twice(struct store_tx *tx, struct work *w)
{
    return minus_one_if(request_twice(tx, w));
}

static int decide_none(struct store_tx *tx, struct work *w)
{
    return minus_one_if(request_for_none(tx, w));
}

static void one_request_has_one_certificate(void **state)
{
    struct store *s = fresh("requests2");
    (void)state;
    assert_int_equal(do_it(s, decide_twice), 0);
    assert_int_equal(do_it(s, decide_none), 0);
    store_close(s);
}

static int check_intents(struct store_tx *tx, struct work *w)
{
    struct certificate_row row;
    int n = 0;
    (void)w;
    add_issued(tx, 1, "a");
    add_intent(tx, 2, "b");
    add_intent(tx, 3, "c");
    while (tx_open_intent(tx, &row) == 0 && n < 10) {
        assert_int_equal(row.state, STATE_INTENT);
        assert_int_equal(tx_set_orphan(tx, row.id, NOW), 0);
        n++;
    }
    assert_int_equal(n, 2);
    struct store_counts counts;
    add_intent(tx, 4, "d");
    assert_int_equal(tx_set_revoked(tx, add_issued(tx, 5, "e"), STATE_REVOKED, NOW, 1) ||
                         tx_set_revoked(tx, add_issued(tx, 6, "f"), STATE_HELD, NOW, 6),
                     0);
    assert_int_equal(tx_counts(tx, &counts), 0);
    assert_int_equal(counts.issued, 1);
    assert_int_equal(counts.revoked, 2);
    assert_int_equal(counts.orphans, 2);
    assert_int_equal(counts.open, 1);
    return 0;
}

static int check_no_counts(struct store_tx *tx, struct work *w)
{
    struct store_counts counts = {1, 1, 1, 1};
    (void)w;
    assert_int_equal(tx_counts(tx, &counts), 0);
    assert_int_equal(counts.issued + counts.revoked + counts.orphans + counts.open, 0);
    return 0;
}

static void open_intents_and_counts(void **state)
{
    struct store *s = fresh("counts");
    (void)state;
    assert_int_equal(do_it(s, check_no_counts), 1);
    assert_int_equal(do_it(s, check_intents), 1);
    store_close(s);
}

/* ---- operators ---- */

static int check_operators(struct store_tx *tx, struct work *w)
{
    static const char *const names[] = {"bob", "alice", "carol"};
    struct operator_row op = {0}, back;
    (void)w;
    for (size_t i = 0; i < 3; i++) {
        snprintf(op.name, sizeof op.name, "%s", names[i]);
        op.roles = 1u << i;
        assert_int_equal(tx_add_operator(tx, &op, NOW), 0);
    }
    assert_int_equal(tx_operator_by_name(tx, "bob", &back), 0);
    assert_int_equal(back.roles, 1);
    assert_int_equal(back.revoked_at, 0);
    assert_int_equal(tx_operator_by_name(tx, "BOB", &back), 1);
    assert_int_equal(tx_operator_by_name(tx, "bo", &back), 1);
    assert_int_equal(tx_operator_by_id(tx, 999, &back), 1);
    char seen[100] = "", last[65] = "";
    while (tx_operator_after(tx, last, &back) == 0) {
        strcat(strcat(seen, back.name), " ");
        snprintf(last, sizeof last, "%s", back.name);
    }
    assert_string_equal(seen, "alice bob carol ");
    assert_int_equal(tx_operator_by_name(tx, "alice", &op), 0);
    op.roles = 12;
    op.revoked_at = NOW;
    assert_int_equal(tx_set_operator(tx, &op), 0);
    assert_int_equal(tx_operator_by_id(tx, op.id, &back), 0);
    assert_int_equal(back.roles, 12);
    assert_true(back.revoked_at == NOW);
    op.id = 999;
    assert_int_equal(tx_set_operator(tx, &op), -1);
    return 0;
}

static int operator_twice(struct store_tx *tx, struct work *w)
{
    struct operator_row op = {.name = "bob"};
    (void)w;
    return tx_add_operator(tx, &op, NOW);
}

static int check_operator_certificates(struct store_tx *tx, struct work *w)
{
    struct operator_row op = {.name = "dave"};
    struct certificate_row row, found;
    int64_t ids[3];
    (void)w;
    assert_int_equal(tx_add_operator(tx, &op, NOW), 0);
    for (uint8_t i = 0; i < 3; i++) {
        row = row_of(tx, (uint8_t)(50 + i), "dave");
        row.subject_operator = op.id;
        row.operator_id = op.id;
        assert_int_equal(tx_add_intent(tx, &row), 0);
        ids[i] = row.id;
    }
    assert_int_equal(tx_operator_certificate(tx, op.id, INT64_MAX, NOW, &found), 0);
    assert_true(found.id == ids[2]);
    assert_true(found.subject_operator == op.id && found.operator_id == op.id);
    assert_int_equal(tx_operator_certificate(tx, op.id, ids[2], NOW, &found), 0);
    assert_true(found.id == ids[1]);
    assert_int_equal(tx_set_orphan(tx, ids[0], NOW), 0);
    assert_int_equal(tx_operator_certificate(tx, op.id, ids[1], NOW, &found), 1);
    assert_int_equal(tx_operator_certificate(tx, op.id, INT64_MAX, NOW + 1000, &found), 1);
    assert_int_equal(tx_operator_certificate(tx, op.id + 1, INT64_MAX, NOW, &found), 1);
    return 0;
}

static void operators_have_one_name_each(void **state)
{
    struct store *s = fresh("operators");
    (void)state;
    assert_int_equal(do_it(s, check_operators), 1);
    assert_int_equal(do_it(s, operator_twice), 0);
    assert_int_equal(do_it(s, check_operator_certificates), 1);
    store_close(s);
}

/* ---- enrolments ---- */

static int64_t add_enrolment(struct store_tx *tx, const char *user, int64_t uses)
{
    struct operator_row op = {0};
    struct enrolment_row e = {.password_sha256 = {5, 6},
                              .profile = "device",
                              .uses_max = uses,
                              .not_after = NOW + 100,
                              .created_at = NOW};
    snprintf(op.name, sizeof op.name, "enrolment:%s", user);
    snprintf(e.user, sizeof e.user, "%s", user);
    snprintf(e.mac, sizeof e.mac, "%s", uses == 1 ? "24:0a:c4:00:00:01" : "");
    assert_int_equal(tx_add_operator(tx, &op, NOW), 0);
    e.operator_id = op.id;
    assert_int_equal(tx_add_enrolment(tx, &e), 0);
    return e.id;
}

static int64_t uses_of(struct store_tx *tx, const char *user)
{
    struct enrolment_row e;
    assert_int_equal(tx_enrolment_by_user(tx, user, &e), 0);
    return e.uses;
}

static int enrolments_come_back(struct store_tx *tx, struct work *w)
{
    (void)w;
    struct enrolment_row e;
    int64_t one = add_enrolment(tx, "one", 1), two = add_enrolment(tx, "two", 2);
    assert_int_equal(tx_enrolment_by_user(tx, "none", &e), 1);
    assert_int_equal(tx_enrolment_after(tx, "", &e), 0);
    assert_int_equal(e.id, one);
    assert_string_equal(e.mac, "24:0a:c4:00:00:01");
    assert_string_equal(e.profile, "device");
    assert_int_equal(e.password_sha256[1], 6);
    assert_int_equal(e.not_after, NOW + 100);
    assert_int_equal(e.ended_at, 0);
    assert_int_equal(tx_end_enrolment(tx, two, NOW + 1), 0);
    assert_int_equal(tx_end_enrolment(tx, two, NOW + 2), -1); /* once */
    assert_int_equal(tx_enrolment_after(tx, "one", &e), 0);
    assert_string_equal(e.user, "two");
    assert_string_equal(e.mac, "");
    assert_int_equal(e.ended_at, NOW + 1);
    assert_int_equal(tx_enrolment_after(tx, "two", &e), 1);
    return 0;
}

/* As often as was said; what became an orphan gives its use back, and nothing else does. */
static int uses_are_spent_and_given_back(struct store_tx *tx, struct work *w)
{
    struct enrolment_row e;
    int64_t id = add_enrolment(tx, "count", 2);
    int64_t a = add_intent(tx, 50, "24:0a:c4:00:00:50"), b = add_intent(tx, 51, "b");
    int64_t other = add_intent(tx, 52, "c");
    (void)w;
    assert_int_equal(tx_spend_enrolment(tx, id, a), 0);
    assert_int_equal(tx_spend_enrolment(tx, id, b), 0);
    assert_int_equal(tx_spend_enrolment(tx, id, other), -1);
    assert_int_equal(uses_of(tx, "count"), 2);
    assert_int_equal(tx_set_orphan(tx, other, NOW), 0);
    assert_int_equal(uses_of(tx, "count"), 2);
    assert_int_equal(tx_set_orphan(tx, a, NOW), 0);
    assert_int_equal(uses_of(tx, "count"), 1);
    uint8_t der[32] = {1, 2};
    assert_int_equal(tx_set_issued(tx, b, (struct bytes){der, 2}, der, NOW), 0);
    assert_int_equal(tx_set_revoked(tx, b, STATE_REVOKED, NOW, 1), 0);
    assert_int_equal(uses_of(tx, "count"), 1); /* a certificate that was there is spent */
    assert_int_equal(tx_enrolment_miscounted(tx, "", &e), 1);
    return 0;
}

static int find_miscounted(struct store_tx *tx, struct work *w)
{
    struct enrolment_row e;
    w->n = 0;
    e.user[0] = '\0';
    while (tx_enrolment_miscounted(tx, e.user, &e) == 0)
        w->n++;
    return 0;
}

static void enrolments_are_counted(void **state)
{
    (void)state;
    struct store *s = fresh("enrolment");
    assert_int_equal(do_it(s, enrolments_come_back), 1);
    assert_int_equal(do_it(s, uses_are_spent_and_given_back), 1);
    store_close(s);
    execute("enrolment/signet.db", "UPDATE enrolment SET uses=0 WHERE user='count'");
    s = opened("enrolment");
    struct work w = {0};
    assert_int_equal(read_it(s, find_miscounted, &w), 0);
    assert_int_equal(w.n, 1);
    store_close(s);
}

/* ---- journal ---- */

static int add_events(struct store_tx *tx, struct work *w)
{
    (void)w;
    int64_t id = add_issued(tx, 1, "mac");
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    return tx_event(tx, NOW, 0, "start version=%s", "1") ||
           tx_event(tx, NOW + 1, id, "issued serial=%s", "01") ||
           tx_event(tx, NOW + 2, 0, "%s", text);
}

/* By the contract alone: SHA-256 of the hash before and of "seq time text". */
static int recompute(struct store_tx *tx, struct work *w)
{
    uint8_t hash[32] = {0}, head[32];
    struct event_row e;
    uint64_t seq = 0;
    while (tx_event_after(tx, seq, &e) == 0) {
        char hex[65], time[40];
        size_t len = strlen(e.line) - 65;
        struct buf both = {0};
        assert_true(e.seq == seq + 1);
        assert_null(strchr(e.line, '\n'));
        assert_int_equal(e.line[len], ' ');
        assert_int_equal(buf_add(&both, hash, 32) || buf_add(&both, e.line, len), 0);
        sha256(hash, buf_view(&both));
        buf_free(&both);
        hex_encode(hex, (struct bytes){hash, 32});
        assert_string_equal(e.line + len + 1, hex);
        snprintf(time, sizeof time, "%d 2027-01-15T08:00:0%dZ ", (int)e.seq, (int)seq);
        assert_memory_equal(e.line, time, strlen(time));
        assert_int_equal(e.certificate != 0, e.seq == 2);
        seq = e.seq;
    }
    assert_int_equal(tx_journal_head(tx, &w->n, head), 0);
    assert_true(w->n == seq);
    assert_memory_equal(head, hash, 32);
    return 0;
}

static int refused_event(struct store_tx *tx, struct work *w)
{
    (void)w;
    return tx_event(tx, NOW, 0, "refused") ? 0 : -1;
}

static void the_journal_is_a_chain(void **state)
{
    struct store *s = fresh("journal");
    struct work w = {0};
    (void)state;
    assert_int_equal(read_it(s, recompute, &w), 0);
    assert_int_equal(w.n, 0);
    struct work before = {.decide = refused_event}, events = {.decide = add_events};
    struct work behind = {.decide = refused_event};
    submit(s, &before); /* what is refused has no place in it */
    submit(s, &events);
    submit(s, &behind);
    store_commit(s);
    assert_int_equal(events.durable, 1);
    assert_int_equal(do_it(s, refused_event), 0);
    assert_int_equal(read_it(s, recompute, &w), 0);
    assert_int_equal(w.n, 3);
    store_close(s);
    s = opened("journal"); /* and goes on in the next process */
    assert_int_equal(read_it(s, recompute, &w), 0);
    store_close(s);
}

static void a_lost_event_has_no_place_in_it(void **state)
{
    struct store *s = fresh("lost-event");
    struct work w = {0};
    (void)state;
    disk.write_full = 1;
    assert_int_equal(do_it(s, add_events), 0);
    disk.write_full = 0;
    assert_int_equal(do_it(s, add_events), 1);
    assert_int_equal(read_it(s, recompute, &w), 0);
    assert_int_equal(w.n, 3);
    store_close(s);
}

static int forge_event(struct store_tx *tx, struct work *w)
{
    struct event_row e;
    (void)w;
    assert_int_equal(tx_event(tx, NOW, 0, "x\n2 2027-01-15T08:00:00Z forged\r\x1b[2J"), 0);
    assert_int_equal(tx_event_after(tx, 0, &e), 0);
    assert_null(strpbrk(e.line, "\n\r\x1b"));
    return 0;
}

static void an_event_is_one_line(void **state)
{
    struct store *s = fresh("forge");
    (void)state;
    assert_int_equal(do_it(s, forge_event), 1);
    store_close(s);
}

/* ---- CRLs ---- */

static int check_crls(struct store_tx *tx, struct work *w)
{
    int64_t one = issuer_of(tx, 1), two = issuer_of(tx, 2);
    struct crl_row crl = {.issuer = one, .number = 1, .this_update = NOW, .next_update = NOW + 9},
                   back;
    (void)w;
    assert_int_equal(tx_last_crl(tx, one, 0, 0, &back), 1);
    for (crl.number = 1; crl.number <= 12; crl.number++) /* numbers, not texts, are compared */
        assert_int_equal(tx_add_crl(tx, &crl), 0);
    assert_int_equal(tx_last_crl(tx, one, 0, 0, &back), 0);
    assert_true(back.number == 12);
    assert_int_equal(back.published, 0);
    assert_int_equal(tx_last_crl(tx, one, 0, 1, &back), 1);
    crl.number = 9;
    crl.journal_seq = 77;
    memset(crl.sha256, 3, 32);
    assert_int_equal(tx_set_crl_published(tx, &crl), 0);
    assert_int_equal(tx_last_crl(tx, one, 0, 1, &back), 0);
    assert_true(back.number == 9 && back.journal_seq == 77 && back.published);
    assert_true(back.this_update == NOW && back.next_update == NOW + 9);
    assert_memory_equal(back.sha256, crl.sha256, 32);
    assert_int_equal(tx_last_crl(tx, one, 1, 0, &back), 1);
    assert_int_equal(tx_last_crl(tx, two, 0, 0, &back), 1);
    crl.number = 13;
    assert_int_equal(tx_set_crl_published(tx, &crl), -1);
    return 0;
}

static int crl_number_twice(struct store_tx *tx, struct work *w)
{
    struct crl_row crl = {.issuer = issuer_of(tx, 1), .number = 12};
    (void)w;
    return tx_add_crl(tx, &crl);
}

static void a_crl_number_is_used_once(void **state)
{
    struct store *s = fresh("crls");
    (void)state;
    assert_int_equal(do_it(s, check_crls), 1);
    assert_int_equal(do_it(s, crl_number_twice), 0);
    store_close(s);
}

struct list {
    uint8_t tags[300];
    size_t count, stop;
    int sum_of_reasons;
};

static int collect(const struct revoked_row *row, void *arg)
{
    struct list *l = arg;
    assert_int_equal(row->serial.len, 16);
    assert_true(row->revoked_at >= NOW);
    l->tags[l->count++] = row->serial.data[0];
    l->sum_of_reasons += row->reason;
    return l->stop && l->count == l->stop;
}

static int check_revoked(struct store_tx *tx, struct work *w)
{
    struct list l = {0}, some = {.stop = 2}, none = {0}, other = {0};
    int64_t issuer = issuer_of(tx, 1);
    (void)w;
    for (unsigned tag = 250; tag >= 10; tag -= 10) /* against the order of serials */
        add_issued(tx, (uint8_t)tag, "x");
    add_intent(tx, 1, "open");
    tx_set_orphan(tx, add_intent(tx, 3, "orphan"), NOW);
    struct certificate_row row;
    for (uint8_t tag = 250; tag >= 20; tag = (uint8_t)(tag - 20)) {
        uint8_t serial[16] = {tag, 1, 2};
        assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){serial, 16}, &row), 0);
        int held = tag == 250;
        tx_set_revoked(tx, row.id, held ? STATE_HELD : STATE_REVOKED, NOW, held ? 6 : 1);
    }
    static const uint8_t expected[] = {3, 30, 50, 70, 90, 110, 130, 150, 170, 190, 210, 230, 250};
    assert_int_equal(tx_each_revoked(tx, issuer, 0, 0, collect, &l), 0);
    assert_int_equal(l.count, sizeof expected);
    assert_memory_equal(l.tags, expected, sizeof expected);
    assert_int_equal(l.sum_of_reasons, 6 + 11);
    /* all expire at NOW + 1000 */
    l = (struct list){0};
    assert_int_equal(tx_each_revoked(tx, issuer, 0, NOW + 1000, collect, &l), 0);
    assert_int_equal(l.count, sizeof expected);
    assert_int_equal(tx_each_revoked(tx, issuer, 0, NOW + 1001, collect, &none), 0);
    assert_int_equal(tx_each_revoked(tx, issuer, 1, 0, collect, &other), 0);
    assert_int_equal(tx_each_revoked(tx, issuer + 1, 0, 0, collect, &other), 0);
    assert_int_equal(none.count + other.count, 0);
    /* one revoked after its end stands on one CRL too */
    uint8_t late[16] = {10, 1, 2};
    assert_int_equal(tx_certificate_by_serial(tx, issuer, (struct bytes){late, 16}, &row), 0);
    tx_set_revoked(tx, row.id, STATE_REVOKED, NOW + 2000, 1);
    l = (struct list){0};
    assert_int_equal(tx_each_revoked(tx, issuer, 0, NOW + 1500, collect, &l), 0);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.tags[0], 10);
    assert_int_equal(tx_each_revoked(tx, issuer, 0, NOW + 2001, collect, &none), 0);
    assert_int_equal(none.count, 0);
    assert_int_equal(tx_each_revoked(tx, issuer, 0, 0, collect, &some), -1);
    assert_int_equal(some.count, 2);
    return 0;
}

/* Which tables grow without end; a statement that walks through one is as slow as it is long. */
static int walks(const char *plan)
{
    static const char *const grows[] = {"SCAN certificate", "SCAN c ", "SCAN request",
                                        "SCAN journal", "SCAN enrolled"};
    char text[200];
    snprintf(text, sizeof text, "%s ", plan);
    for (size_t i = 0; i < sizeof grows / sizeof *grows; i++)
        if (strncmp(text, grows[i], strlen(grows[i])) == 0)
            return 1;
    return strstr(text, "TEMP B-TREE") != NULL;
}

static void assert_by_index(sqlite3 *db, const char *name, const char *sql)
{
    /* once at the start; the newest event is the first of the walk */
    static const char *const may[] = {"counts", "journal_head", "last_event_time"};
    sqlite3_stmt *st = NULL;
    char explain[2048];
    for (size_t i = 0; i < sizeof may / sizeof *may; i++)
        if (strcmp(name, may[i]) == 0)
            return;
    snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", sql);
    if (sqlite3_prepare_v2(db, explain, -1, &st, NULL))
        fail_msg("%s: %s", name, sqlite3_errmsg(db));
    while (sqlite3_step(st) == SQLITE_ROW)
        if (walks((const char *)sqlite3_column_text(st, 3)))
            fail_msg("%s: %s", name, (const char *)sqlite3_column_text(st, 3));
    sqlite3_finalize(st);
}

static void no_statement_walks_through_what_grows(void **state)
{
    sqlite3 *db;
    (void)state;
    store_close(fresh("plans"));
    assert_int_equal(sqlite3_open("plans/signet.db", &db), SQLITE_OK);
#define ASSERT_BY_INDEX(name, sql) assert_by_index(db, #name, sql);
    STATEMENTS(ASSERT_BY_INDEX)
#undef ASSERT_BY_INDEX
    sqlite3_close(db);
}

static int check_shards(struct store_tx *tx, struct work *w)
{
    static const int shards[] = {2, 0, 1, -1, 2};
    static const uint8_t full[] = {4, 2, 3, 1, 5}, of_two[] = {4, 1, 5};
    int64_t issuer = issuer_of(tx, 1);
    struct certificate_row row;
    struct list l = {0};
    char url[CRL_URL_MAX] = "";
    (void)w;
    for (uint8_t i = 0; i < sizeof shards / sizeof *shards; i++) {
        row = (struct certificate_row){.issuer = issuer,
                                       .serial_len = 16,
                                       .profile = "device",
                                       .name = "x",
                                       .not_after = NOW + 1000,
                                       .shard = shards[i]};
        row.serial[0] = (uint8_t)(i + 1);
        row.spki_sha256[0] = i;
        assert_int_equal(tx_add_intent(tx, &row), 0);
        assert_int_equal(tx_set_revoked(tx, row.id, STATE_REVOKED, NOW, 1), 0);
        assert_int_equal(tx_certificate_by_id(tx, row.id, &row), 0);
        assert_int_equal(row.shard, shards[i]);
    }
    assert_int_equal(tx_each_revoked(tx, issuer, 0, 0, collect, &l), 0);
    assert_int_equal(l.count, sizeof full);
    assert_memory_equal(l.tags, full, sizeof full);
    l = (struct list){0};
    assert_int_equal(tx_each_revoked(tx, issuer, 2, 0, collect, &l), 0);
    assert_int_equal(l.count,
                     sizeof of_two); /* its own, and those of which nobody knows the shard */
    assert_memory_equal(l.tags, of_two, sizeof of_two);
    assert_int_equal(tx_add_crl_url(tx, "http://b"), 0);
    assert_int_equal(tx_add_crl_url(tx, "http://a"), 0);
    assert_int_equal(tx_add_crl_url(tx, "http://b"), 1);
    assert_int_equal(tx_crl_url_after(tx, url), 0);
    assert_string_equal(url, "http://a");
    assert_int_equal(tx_crl_url_after(tx, url), 0);
    assert_string_equal(url, "http://b");
    assert_int_equal(tx_crl_url_after(tx, url), 1);
    return 0;
}

static void a_shard_lists_its_own_and_the_full_crl_all(void **state)
{
    struct store *s = fresh("shards");
    (void)state;
    assert_int_equal(do_it(s, check_shards), 1);
    store_close(s);
}

static void a_crl_lists_by_serial_what_belongs_on_it(void **state)
{
    struct store *s = fresh("revoked");
    (void)state;
    assert_int_equal(do_it(s, check_revoked), 1);
    store_close(s);
}

/* ---- a second connection ---- */

static int add_two(struct store_tx *tx, struct work *w)
{
    add_issued(tx, w->tag, "x");
    add_issued(tx, (uint8_t)(w->tag + 1), "x");
    return 0;
}

static struct store *writer;

/* While it looks, the writer commits; it must see what was there when it began. */
static int look_twice(struct store_tx *tx, struct work *w)
{
    struct store_counts before, after;
    struct work more = {.decide = add_two, .tag = w->tag};
    assert_int_equal(tx_counts(tx, &before), 0);
    assert_int_equal(commit(writer, &more), 1);
    assert_int_equal(tx_counts(tx, &after), 0);
    assert_true(before.issued == after.issued);
    w->n = after.issued;
    return 0;
}

static int count_issued(struct store_tx *tx, struct work *w)
{
    struct store_counts counts;
    assert_int_equal(tx_counts(tx, &counts), 0);
    w->n = counts.issued;
    return 0;
}

static void a_reader_sees_one_snapshot_and_stops_nobody(void **state)
{
    struct work w = {.tag = 10};
    struct store *reader;
    struct err err;
    (void)state;
    writer = fresh("reader");
    assert_int_equal(store_open_read_only(&reader, "reader", &err), 0);
    assert_int_equal(read_it(reader, look_twice, &w), 0);
    assert_int_equal(w.n, 0);
    w.tag = 20;
    assert_int_equal(read_it(reader, look_twice, &w), 0);
    assert_int_equal(w.n, 2);
    assert_int_equal(read_it(reader, count_issued, &w), 0);
    assert_int_equal(w.n, 4);
    store_close(reader);
    store_close(writer);
}

static void a_reader_cannot_write(void **state)
{
    struct work w = {.decide = set_a};
    struct store *reader;
    struct err err;
    (void)state;
    store_close(fresh("reader2"));
    assert_int_equal(store_open_read_only(&reader, "reader2", &err), 0);
    assert_int_equal(commit(reader, &w), 0);
    assert_int_equal(meta(reader, "a"), -1);
    store_close(reader);
    assert_int_equal(store_open_read_only(&reader, "no-such-state", &err), -1);
    assert_int_not_equal(access("no-such-state", F_OK), 0);
}

static int enter(void **state)
{
    return temp_enter(state) || disk_install() ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_is_made_and_opened_again),
        cmocka_unit_test(a_lost_one_is_not_made_anew),
        cmocka_unit_test(one_half_made_is_made_whole),
        cmocka_unit_test(a_missing_folder_is_named),
        cmocka_unit_test(a_link_to_the_folder_is_followed),
        cmocka_unit_test(another_schema_is_refused),
        cmocka_unit_test(the_schemas_are_frozen),
        cmocka_unit_test(an_earlier_schema_is_raised),
        cmocka_unit_test(a_crash_while_it_is_raised_leaves_one_or_the_other),
        cmocka_unit_test(a_full_disk_raises_nothing),
        cmocka_unit_test(a_corrupt_one_is_refused_and_left_as_it_is),
        cmocka_unit_test(a_decision_that_refuses_takes_back_its_own_writes),
        cmocka_unit_test(a_decision_that_refuses_before_it_writes_costs_the_others_nothing),
        cmocka_unit_test(a_broken_constraint_is_that_decision_s_alone),
        cmocka_unit_test(a_serial_is_taken_once),
        cmocka_unit_test(a_completion_may_submit),
        cmocka_unit_test(closing_with_work_waiting_calls_nobody),
        cmocka_unit_test(a_changed_state_is_told_when_durable_and_before_all_else),
        cmocka_unit_test(a_change_that_is_not_written_is_not_told),
        cmocka_unit_test(of_too_many_changes_none_is_named),
        cmocka_unit_test(a_full_disk_is_told_and_passes),
        cmocka_unit_test(a_disk_that_fills_within_a_round_is_told),
        cmocka_unit_test(a_disk_that_becomes_read_only_is_told_and_passes),
        cmocka_unit_test(a_failed_sync_ends_the_process),
        cmocka_unit_test(rows_come_back_as_they_went_in),
        cmocka_unit_test(issuers_are_told_apart),
        cmocka_unit_test(an_issuer_certified_anew_is_the_same),
        cmocka_unit_test(a_list_is_of_the_times_asked_for),
        cmocka_unit_test(a_state_is_not_left_backwards),
        cmocka_unit_test(a_board_s_state_only_rises),
        cmocka_unit_test(a_live_certificate_is_found),
        cmocka_unit_test(a_key_stays_its_subject_s),
        cmocka_unit_test(an_orphan_forgets_its_requests),
        cmocka_unit_test(one_request_has_one_certificate),
        cmocka_unit_test(open_intents_and_counts),
        cmocka_unit_test(operators_have_one_name_each),
        cmocka_unit_test(enrolments_are_counted),
        cmocka_unit_test(the_journal_is_a_chain),
        cmocka_unit_test(a_lost_event_has_no_place_in_it),
        cmocka_unit_test(an_event_is_one_line),
        cmocka_unit_test(a_crl_number_is_used_once),
        cmocka_unit_test(a_crl_lists_by_serial_what_belongs_on_it),
        cmocka_unit_test(a_shard_lists_its_own_and_the_full_crl_all),
        cmocka_unit_test(no_statement_walks_through_what_grows),
        cmocka_unit_test(a_reader_sees_one_snapshot_and_stops_nobody),
        cmocka_unit_test(a_reader_cannot_write),
    };
    return cmocka_run_group_tests(tests, enter, temp_leave);
}
