/* A file of CSRs with distinct P-256 keys and distinct MACs, made before any clock starts and used
 * again in later runs: each CSR as DER behind its length (32 bits, big-endian). */
#ifndef SIGNET_BENCH_POOL_H
#define SIGNET_BENCH_POOL_H

#include "common/bytes.h"

struct pool {
    struct buf file;
    struct bytes *csrs;
    size_t count;
};

/* count requests, for the MACs from 24:0a:c4:00:00:00 on; no private key is kept. */
void pool_make(const char *path, size_t count);
void pool_load(struct pool *p, const char *path);
void pool_free(struct pool *p);

#endif
