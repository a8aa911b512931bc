/* The root's own record: one line an event, only ever appended, in a text file beside the root's
 * certificate (ROOT.pem.index). The offline root has no database: from this file a later ceremony
 * knows what it issued, what is revoked, and the last CRL number.
 *
 *     issued SERIAL notBefore notAfter SUBJECT
 *     revoked SERIAL when REASON
 *     crl NUMBER thisUpdate nextUpdate
 */
#ifndef SIGNET_INDEX_H
#define SIGNET_INDEX_H

#include <stdint.h>
#include "common/err.h"

struct index; /* opaque; locked against other ceremonies while it is open */

#define INDEX_SERIAL 41 /* 20 bytes as hex, and the NUL */

struct revocation {
    char serial[INDEX_SERIAL];
    int64_t when;
    int reason; /* enum crl_reason */
};

int index_open(struct index **out, const char *root_certificate, struct err *err)
    __attribute__((warn_unused_result));
void index_free(struct index *x);

/* Each is written and synced before it returns: before the token is asked to sign. */
int index_issued(struct index *x, const char *serial, int64_t not_before, int64_t not_after,
                 const char *subject, struct err *err) __attribute__((warn_unused_result));
int index_revoked(struct index *x, const struct revocation *r, struct err *err)
    __attribute__((warn_unused_result));
int index_crl(struct index *x, uint64_t number, int64_t this_update, int64_t next_update,
              struct err *err) __attribute__((warn_unused_result));

uint64_t index_crl_number(const struct index *x); /* the highest used; 0: none */
const struct revocation *index_revocations(const struct index *x, size_t *count);
int index_is_revoked(const struct index *x, const char *serial);
const char *index_path(const struct index *x);

#endif
