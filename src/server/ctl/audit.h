/* What the parts of signetctl audit share. Each part looks at one thing and reports findings; what
 * it learns of a certificate is kept in its struct fact, where the parts are compared. */
#ifndef SIGNET_AUDIT_H
#define SIGNET_AUDIT_H

#include "server/ctl/crl_file.h"
#include "server/ctl/ctl.h"

/* One serial, as the journal tells it, and as the CRL does. */
struct fact {
    uint8_t serial[20];
    size_t serial_len;

    /* by the journal, to its end; known 0: it has no event of it */
    int known;
    enum certificate_state state;
    int64_t revoked_at;
    int reason;
    enum board_state board;
    int has_certificate;
    uint8_t sha256[32];
    uint8_t name_sha256[32];
    uint64_t file_seq; /* the event that made its file */

    /* by the journal, at the event that the CRL anchors */
    int anchored, anchored_reason, changed_since;
    int64_t anchored_at;

    /* by the CRL; explained: the journal has that very revocation */
    int listed, listed_reason, explained;
    int64_t listed_at;

    /* by the store */
    int in_store, shard; /* shard -1: unknown, so of all */
    int64_t not_after;

    /* by the journal: the last event that changed its state; by the CRL of its shard */
    uint64_t changed_seq;
    int shard_listed, shard_reason; /* shard_listed: the shard whose CRL was read last */
    int64_t shard_listed_at;
};

/* The CRL of one shard, by its file, its rows and the journal. */
struct shard_audit {
    struct crl_file crl; /* .list NULL: there is none */
    uint64_t newest;     /* published, by its row */
    int found;           /* the file's number has a row */
    struct crl_row row;  /* that row */
    uint64_t told;       /* by the journal */
    uint8_t told_sha256[32];
};

enum area { AREA_JOURNAL, AREA_CRL, AREA_STORE, AREA_FILES, AREA_COUNT };

struct audit {
    struct ctl *c;
    struct store *store;
    struct store_tx *tx;
    struct issuer *issuer;
    X509 *root;
    struct crl_file crl; /* .list NULL: there is none */
    void *facts;         /* tsearch(3), by serial */
    uint64_t head, projected, restored_at, told_at;
    uint64_t filed; /* up to which each certificate must have its file */
    uint64_t events, certificates, files;
    uint64_t findings[AREA_COUNT];
    int failed; /* the audit itself could not go on */
    int retry;  /* the CRL was exchanged meanwhile */
    int crl_tries;
    uint64_t newest_crl; /* published, by its row; 0: none */
    struct {
        uint64_t number;
        uint8_t sha256[32];
    } told; /* the last CRL that the journal tells of; 0: none */
    unsigned shard_count;
    struct shard_audit shards[1 + CRL_SHARDS_MAX]; /* from 1 on */
};

/* One line on stdout; the first few of each area are shown, the rest counted. */
void finding(struct audit *a, enum area area, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The fact of this serial, made when it is new; NULL: no memory (then a->failed is set). */
struct fact *fact_of(struct audit *a, struct bytes serial);
struct fact *fact_find(const struct audit *a, struct bytes serial);
const char *serial_text(char out[41], const struct fact *f);

/* In this order, in one snapshot. -1: the store cannot be read. */
int audit_crl_read(struct audit *a);
int audit_journal(struct audit *a);
int audit_certificates(struct audit *a);
int audit_crl_compare(struct audit *a);
/* The same of the shards' CRLs: with audit_crl_read() the files, one row, at the end the whole. */
int audit_shards_read(struct audit *a);
void audit_shards_row(struct audit *a, const struct crl_row *row);
int audit_shards_newer(const struct audit *a); /* than the snapshot: another look is needed */
void audit_shards_compare(struct audit *a);
void audit_shards_free(struct audit *a);
/* After the snapshot: files of certificates that nobody knows. */
int audit_extra_files(struct audit *a);

#endif
