/* Who asks. A front says which exact certificate it saw at TLS; only the store's row of that very
 * certificate gives a role. */
#ifndef SIGNET_CALLER_H
#define SIGNET_CALLER_H

#include "common/msg.h"
#include "server/authority/store.h"

/* Copied out of a message, since a decision runs later. */
struct caller {
    uint8_t issuer[32], digest[32], serial[20];
    size_t issuer_len, digest_len, serial_len;
    char address[65];
};

void caller_copy(struct caller *c, struct bytes issuer, struct bytes serial, struct bytes digest,
                 const char *address);

/* The row of exactly this certificate, whatever its state: certificate_required or
 * certificate_unknown otherwise. */
int caller_certificate(struct store_tx *tx, const struct caller *c, struct certificate_row *row,
                       struct err *err) __attribute__((warn_unused_result));

/* The operator behind the certificate: it is in the store byte for byte, issued, not revoked, not
 * expired, and an operator's that is in force. 0, or -1 with certificate_required,
 * certificate_unknown, certificate_expired, certificate_revoked, role_refused. */
int caller_operator(struct store_tx *tx, const struct caller *c, int64_t now,
                    struct operator_row *operator_row, struct err *err)
    __attribute__((warn_unused_result));

/* One of these roles (bits; 0: any), or role_refused. */
int caller_has_role(const struct operator_row *operator_row, unsigned roles, struct err *err)
    __attribute__((warn_unused_result));

/* Both. */
int caller_with_role(struct store_tx *tx, const struct caller *c, int64_t now, unsigned roles,
                     struct operator_row *operator_row, struct err *err)
    __attribute__((warn_unused_result));

#endif
