#include "server/authority/projection.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "server/authority/projection_parts.h"

/* Events read from the store in one go, while requests wait; and at most written in one. */
#define SLICE 100
#define BATCH_MAX 5000
#define OLD_BATCH_MAX 1000 /* of files that are behind, for which new events wait */

/* What a child has to say beside its exit code. */
struct report {
    off_t end;
    struct err err;
};

struct projection {
    struct authority *a;
    struct files files;
    struct progress written, recorded; /* recorded: what the store says is on disk */
    struct event *timer, *child_ended;
    int scheduled, again;  /* the timer is set; once more when the child has ended */
    struct batch batch;    /* behind what is written, as far as it was read */
    pid_t child;           /* that writes and syncs the batch; 0: none */
    int old_files_next;    /* new events and files that are behind take turns */
    int all;               /* more files may be unsynced than the batch has */
    struct report *report; /* of the child, in memory that it shares */
    enum batch_for problem_of;
    char problem[512];
};

/* ---- out of the store ---- */

struct reading {
    struct batch *b;
    size_t most;
    uint64_t until; /* the last event that is wanted */
    int all;        /* all that there was */
    struct err err;
};

static int add(struct store_tx *tx, struct batch *b, const struct event_row *e)
{
    struct certificate_row row;
    int64_t certificate = e->certificate;
    if (b->for_what != FOR_FILES && batch_add_line(b, e->line))
        return 1;
    if (!certificate || b->for_what == FOR_JOURNAL)
        return 0;
    if (tx_certificate_by_id(tx, certificate, &row))
        return -1;
    return batch_add_certificate(b, (struct bytes){row.serial, row.serial_len}, row.der) ? 1 : 0;
}

/* A slice, in one snapshot. */
static int read_slice(struct store_tx *tx, void *arg)
{
    struct reading *r = arg;
    struct batch *b = r->b;
    struct event_row e;
    int rc = 0;
    for (size_t i = 0; i < r->most && b->last < r->until; i++) {
        if ((rc = tx_event_after(tx, b->last, &e)))
            break;
        uint64_t seq = e.seq;
        if ((rc = add(tx, b, &e)))
            return rc > 0 ? err_set(&r->err, ERR_internal, "no memory") : -1;
        b->last = seq;
        b->count++;
    }
    r->all = rc > 0 || b->last >= r->until;
    return rc < 0 ? -1 : 0;
}

static int files_are_behind(const struct projection *p)
{
    return p->files.certs >= 0 && p->written.files < p->written.journal;
}

/* The next batch: of new events, with their files if those of all before are there. What is behind
 * gets batches of its own, so that the journal waits for no old file. */
static void begin_batch(struct projection *p, enum batch_for for_what)
{
    if (for_what == FOR_BOTH && (p->files.certs < 0 || files_are_behind(p)))
        for_what = FOR_JOURNAL;
    p->batch.for_what = for_what;
    p->batch.last = for_what == FOR_FILES ? p->written.files : p->written.journal;
}

/* *more says whether there may be others. What cannot be read whole is read anew. */
static int gather(struct projection *p, size_t most, int *more, struct err *err)
{
    struct reading r = {.b = &p->batch,
                        .most = most,
                        .until = p->batch.for_what == FOR_FILES ? p->written.journal : UINT64_MAX};
    err_set(&r.err, ERR_storage_unavailable, "the store cannot be read");
    int rc = store_read(p->a->store, read_slice, &r);
    if (rc) {
        batch_clear(&p->batch);
        *err = r.err;
    }
    *more = !r.all;
    return rc;
}

/* ---- how far journal and files are ---- */

static int record(struct store_tx *tx, void *arg)
{
    struct projection *p = arg;
    return tx_set_meta(tx, "projected", (int64_t)p->recorded.journal) ||
                   tx_set_meta(tx, "filed", (int64_t)p->recorded.files)
               ? -1
               : 0;
}

static void recorded(int durable, void *arg)
{
    (void)arg;
    if (!durable)
        log_warn("the store did not take how far the files are; they are written again at start");
}

static int is_synced(struct projection *p)
{
    p->recorded = p->written;
    p->all = 0;
    return store_submit(p->a->store, record, recorded, p);
}

static void is_written(struct projection *p, off_t end)
{
    const struct batch *b = &p->batch;
    p->files.end = end;
    if (b->for_what != FOR_FILES)
        p->written.journal = b->last;
    if (b->for_what != FOR_JOURNAL)
        p->written.files = b->last;
    batch_clear(&p->batch);
}

static void note_problem(struct projection *p, const struct err *err)
{
    if (!p->problem[0])
        log_error("%s; it is tried again", err->text);
    snprintf(p->problem, sizeof p->problem, "%s", err->text);
    p->problem_of = p->batch.for_what;
    if (p->batch.for_what == FOR_FILES)
        batch_clear(&p->batch); /* the journal does not wait for them */
    projection_wanted(p);
}

static void note_success(struct projection *p)
{
    if (files_are_behind(p) && p->problem_of != p->batch.for_what)
        return;
    if (p->problem[0])
        log_info("journal and files are complete again");
    p->problem[0] = '\0';
}

/* ---- the folder, as [server] certificate_files has it now ---- */

static void say_behind(const struct projection *p)
{
    if (files_are_behind(p))
        log_info("certs: the files of events %llu to %llu are written while requests go on",
                 (unsigned long long)p->written.files + 1, (unsigned long long)p->written.journal);
}

static int open_certs(struct projection *p, struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/certs", p->a->config->state);
    int missing = p->written.files > 0 && access(path, F_OK) && errno == ENOENT;
    if (missing)
        log_warn("%s is missing: each certificate's file is written anew from the store", path);
    if (file_make_dir(path, 0755, err))
        return -1;
    p->files.certs = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->files.certs < 0)
        return files_failed(path, err);
    if (missing) {
        p->written.files = p->recorded.files = 0;
        return store_submit(p->a->store, record, recorded, p)
                   ? err_set(err, ERR_internal, "no memory")
                   : 0;
    }
    return 0;
}

/* A batch that was begun under the other setting is read anew. */
static int take_setting(struct projection *p, struct err *err)
{
    if (config_has_files(p->a->config) == (p->files.certs >= 0))
        return 0;
    batch_clear(&p->batch);
    if (p->files.certs < 0)
        return open_certs(p, err);
    close(p->files.certs);
    p->files.certs = -1;
    return 0;
}

/* ---- while requests go on: in a child ---- */

/* Files take a millisecond each on a busy disk, and a sync takes seconds: a child waits. It keeps
 * only the two descriptors, so that no peer takes it for the authority. */
_Noreturn static void work_in_child(struct projection *p)
{
    struct report *r = p->report;
    struct files f = {.state = p->files.state, .journal = 0, .certs = -1, .end = p->files.end};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (p->files.certs >= 0)
        f.certs = dup2(p->files.certs, 1);
    if (dup2(p->files.journal, 0) != 0 || f.certs != (p->files.certs < 0 ? -1 : 1) ||
        close_range(2, ~0u, 0)) {
        files_failed("no descriptors for a sync", &r->err);
        _exit(FILES_NOT_WRITTEN);
    }
    enum files_rc rc = files_write(&f, &p->batch, &r->err);
    if (rc == FILES_DONE)
        rc = files_sync(&f, &p->batch, p->all, &r->err);
    r->end = f.end;
    _exit((int)rc);
}

static void start_child(struct projection *p)
{
    struct err err;
    p->child = fork();
    if (p->child == 0)
        work_in_child(p);
    if (p->child < 0) {
        p->child = 0;
        files_failed("no process to write journal and files", &err);
        note_problem(p, &err);
    }
}

static void take_end(struct projection *p, int status)
{
    p->child = 0;
    if (!WIFEXITED(status)) {
        p->all = 1; /* ended from outside: nobody knows how far it came */
        projection_wanted(p);
    } else if (WEXITSTATUS(status) == FILES_NOT_WRITTEN) {
        p->all = 1;
        note_problem(p, &p->report->err);
    } else if (WEXITSTATUS(status) != FILES_DONE) {
        fatal("%s", p->report->err.text);
    } else {
        is_written(p, p->report->end);
        note_success(p);
        if (p->batch.for_what == FOR_FILES && !files_are_behind(p))
            log_info("certs: each certificate has its file");
        if (is_synced(p))
            log_warn("no memory to record how far the files are");
    }
}

static void on_child_ended(evutil_socket_t number, short what, void *arg)
{
    (void)number, (void)what;
    struct projection *p = arg;
    int status;
    if (!p->child || waitpid(p->child, &status, WNOHANG) != p->child)
        return;
    take_end(p, status);
    if (p->again)
        projection_wanted(p);
    p->again = 0;
}

static void begin_next(struct projection *p)
{
    int old_files = files_are_behind(p) && p->old_files_next;
    p->old_files_next = !p->old_files_next;
    begin_batch(p, old_files ? FOR_FILES : FOR_BOTH);
}

static void schedule(struct projection *p, long microseconds)
{
    struct timeval later = {0, microseconds};
    if (p->scheduled)
        return;
    p->scheduled = 1;
    evtimer_add(p->timer, &later);
}

static int is_full(const struct batch *b)
{
    return b->count >= (b->for_what == FOR_FILES ? OLD_BATCH_MAX : BATCH_MAX);
}

static void take_batch(struct projection *p)
{
    p->again = is_full(&p->batch) || files_are_behind(p);
    if (p->batch.count)
        start_child(p);
    else
        note_success(p);
}

/* A slice at a time, and other work between them; then a child takes what was read. */
static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct projection *p = arg;
    struct err err;
    int more = 0;
    p->scheduled = 0;
    if (p->child) {
        p->again = 1;
        return;
    }
    if (take_setting(p, &err)) {
        note_problem(p, &err);
        return;
    }
    if (p->batch.count == 0)
        begin_next(p);
    if (!is_full(&p->batch) && gather(p, SLICE, &more, &err))
        note_problem(p, &err);
    else if ((more && !is_full(&p->batch)) || (!p->batch.count && files_are_behind(p)))
        schedule(p, 0);
    else
        take_batch(p);
}

void projection_wanted(struct projection *p)
{
    schedule(p, 250000);
}

const char *projection_problem(const struct projection *p)
{
    return p->problem[0] ? p->problem : NULL;
}

/* ---- at the start and at the end: at once, in this process ---- */

static int write_here(struct projection *p, int more, struct err *err)
{
    enum files_rc rc = files_write(&p->files, &p->batch, err);
    if (rc == FILES_DONE && !more)
        rc = files_sync(&p->files, &p->batch, p->all, err);
    if (rc == FILES_BROKEN)
        fatal("%s", err->text);
    if (rc != FILES_DONE)
        return -1;
    p->all |= p->batch.file_count > 0;
    is_written(p, p->files.end);
    return 0;
}

static int nothing_new(const struct projection *p)
{
    return p->batch.count == 0 && p->written.journal == p->recorded.journal &&
           p->written.files == p->recorded.files;
}

/* Of old files one batch: the others follow while requests go on. */
static int flush(struct projection *p, enum batch_for for_what, struct err *err)
{
    int more = 1;
    while (more) {
        if (p->batch.count == 0)
            begin_batch(p, for_what);
        if (gather(p, SLICE, &more, err))
            return -1;
        if (more && p->batch.count < BATCH_MAX)
            continue;
        more = more && for_what != FOR_FILES;
        if (nothing_new(p))
            return 0;
        if (write_here(p, more, err))
            return -1;
    }
    return is_synced(p) ? err_set(err, ERR_internal, "no memory") : 0;
}

int projection_flush(struct projection *p, struct err *err)
{
    int status;
    if (p->child && waitpid(p->child, &status, 0) == p->child)
        take_end(p, status);
    if (p->batch.for_what == FOR_FILES)
        batch_clear(&p->batch);
    return flush(p, FOR_BOTH, err);
}

/* ---- opening ---- */

/* What the journal has is not written twice; a file that is not known to be on disk is. */
static int catch_up(struct projection *p, uint64_t in_file, struct err *err)
{
    if (in_file > p->written.journal)
        p->written.journal = in_file;
    if (flush(p, FOR_JOURNAL, err) || (files_are_behind(p) && flush(p, FOR_FILES, err)))
        return -1;
    say_behind(p);
    return 0;
}

int projection_open(struct projection **out, struct authority *a, struct err *err)
{
    struct projection *p = calloc(1, sizeof *p);
    char path[PATH_MAX];
    uint64_t in_file;
    void *report =
        mmap(NULL, sizeof *p->report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!p || report == MAP_FAILED || !(p->files.state = strdup(a->config->state)) ||
        !(p->timer = evtimer_new(a->base, on_timer, p)) ||
        !(p->child_ended = evsignal_new(a->base, SIGCHLD, on_child_ended, p)) ||
        evsignal_add(p->child_ended, NULL))
        fatal("no memory");
    p->a = a;
    p->report = report;
    p->files.journal = p->files.certs = -1;
    if (journal_open(&p->files, a->store, &p->recorded, &in_file, err))
        goto fail;
    p->written = p->recorded;
    if (take_setting(p, err) || (p->files.journal < 0 && journal_make(&p->files, err)))
        goto fail;
    snprintf(path, sizeof path, "%s/.", a->config->state); /* the folder may be a link */
    if (files_sync_path(AT_FDCWD, path)) {
        files_failed(path, err);
        goto fail;
    }
    if (catch_up(p, in_file, err)) /* a full disk is no reason to serve nothing */
        note_problem(p, err);
    store_commit(
        a->store); /* a round of its own: on a full disk it is no other decision's affair */
    *out = p;
    return 0;
fail:
    projection_close(p);
    return -1;
}

void projection_close(struct projection *p)
{
    if (!p)
        return;
    event_free(p->timer);
    event_free(p->child_ended);
    if (p->child)
        waitpid(p->child, NULL, 0);
    batch_clear(&p->batch);
    munmap(p->report, sizeof *p->report);
    free(p->files.state);
    if (p->files.journal >= 0)
        close(p->files.journal);
    if (p->files.certs >= 0)
        close(p->files.certs);
    free(p);
}
