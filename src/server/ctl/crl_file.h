/* A published CRL, read from a file and verified: for audit and restore. */
#ifndef SIGNET_CRL_FILE_H
#define SIGNET_CRL_FILE_H

#include "pki/crl.h"

struct crl_file {
    X509_CRL *list;
    uint64_t number;
    int64_t this_update, next_update;
    uint8_t sha256[32]; /* of the DER */
    int has_anchor;
    uint64_t journal_seq;
    uint8_t journal_hash[32];
};

/* DER or PEM; its signature must verify with issuer's key. */
int crl_file_read(struct crl_file *out, const char *path, const struct issuer *issuer,
                  struct err *err) __attribute__((warn_unused_result));
void crl_file_free(struct crl_file *f);

size_t crl_file_count(const struct crl_file *f);
/* In the order of the file; each returns non-zero to stop with -1. -1 also for an entry that is no
 * entry of this CA's. */
int crl_file_each(const struct crl_file *f, int (*each)(const struct crl_entry *entry, void *arg),
                  void *arg);

#endif
