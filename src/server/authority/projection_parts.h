/* The projection from inside: for projection.c (what is due, when, in which process),
 * projection_journal.c (opening the journal) and projection_files.c (how a batch gets to the disk).
 */
#ifndef SIGNET_PROJECTION_PARTS_H
#define SIGNET_PROJECTION_PARTS_H

#include <sys/types.h>

#include "common/bytes.h"
#include "common/err.h"
#include "server/authority/store.h"

/* How far journal and files are. */
struct progress {
    uint64_t journal; /* the last event in it */
    uint64_t files;   /* the last event up to which each certificate has its file */
};

enum batch_for { FOR_BOTH, FOR_JOURNAL, FOR_FILES };

/* Committed events, out of the store, in memory. */
struct batch {
    enum batch_for for_what;
    struct buf lines;         /* for the journal */
    struct buf certificates;  /* each: struct file_head, then its DER */
    size_t count, file_count; /* of events; of certificates */
    uint64_t last;            /* the sequence up to which it goes */
};

int batch_add_line(struct batch *b, const char *line) __attribute__((warn_unused_result));
int batch_add_certificate(struct batch *b, struct bytes serial, struct bytes der)
    __attribute__((warn_unused_result));
/* Nothing in it, and nothing kept. */
void batch_clear(struct batch *b);

struct files {
    char *state;        /* the folder */
    int journal, certs; /* the file; the folder, -1 when no files are wanted */
    off_t end;          /* of the journal, as far as it was written by us */
};

/* What errno says; -1. */
int files_failed(const char *doing, struct err *err);

/* Opens f->state's journal, if there is one (else f->journal is -1), and checks its last line
 * against the store: *recorded is what the store says is on disk, *in_file the last event that the
 * file has. Half a line behind it is cut off. */
int journal_open(struct files *f, struct store *store, struct progress *recorded, uint64_t *in_file,
                 struct err *err) __attribute__((warn_unused_result));
/* An empty one. */
int journal_make(struct files *f, struct err *err) __attribute__((warn_unused_result));

enum files_rc {
    FILES_DONE,
    FILES_NOT_WRITTEN, /* the journal is as before, or ends with some of the batch: try again */
    FILES_BROKEN       /* what is on the disk nobody knows: the process has to end */
};

/* Certificates first, then the journal; end is moved on. */
enum files_rc files_write(struct files *f, const struct batch *b, struct err *err)
    __attribute__((warn_unused_result));
/* The certificates alone. */
enum files_rc files_write_certificates(const struct files *f, const struct batch *b,
                                       struct err *err) __attribute__((warn_unused_result));
/* Journal and what was written of b; all: more certificates were, before it. */
enum files_rc files_sync(const struct files *f, const struct batch *b, int all, struct err *err)
    __attribute__((warn_unused_result));
/* A file or a folder, by its name. */
int files_sync_path(int folder, const char *path) __attribute__((warn_unused_result));

#endif
