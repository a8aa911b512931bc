/* The operations of POST /v1 and the fields that each one takes: one table. docs/protocol.md says
 * what they mean. */
#ifndef SIGNET_OPERATIONS_H
#define SIGNET_OPERATIONS_H

enum operation {
    OP_REQ_CLIENT_CERT,
    OP_REQ_SERVER_CERT,
    OP_RENEW_CLIENT_CERT,
    OP_REVOKE_CERT,
    OP_REPORT_DEVICE,
    OP_GET_CERT,
    OP_LIST_CERTS,
    OP_GET_CA_CHAIN,
    OP_GET_CRL,
    OP_GET_STATUS,
    OP_NONE /* not known (yet) */
};

/* What may stand in a field. */
enum field_kind {
    FIELD_END,
    FIELD_OPERATION, /* a string: the operation itself */
    FIELD_BASE64,    /* a string, not empty; decoded, and so checked, by its user */
    FIELD_SERIAL,    /* a string: hex digits, an even number of them, 2 to 40 */
    FIELD_SERIALS,   /* an array of 1 to SERIALS_MAX of these */
    FIELD_TOKEN,     /* a string: 1 to 64 of [A-Za-z0-9._:@-]: names, ids */
    FIELD_TIME,      /* a string: "2026-11-23T12:00:00Z" (RFC 3339, UTC) */
    FIELD_BOOL,      /* true or false */
    FIELD_COUNT      /* a whole number, 1 to 500 */
};

#define SERIALS_MAX 1000

struct field {
    const char *name;
    enum field_kind kind;
    int required;
};

struct shape {
    const char *operation;
    struct field fields[10]; /* FIELD_END ends them */
};

extern const struct shape operation_shapes[OP_NONE];

/* "" for OP_NONE. */
const char *operation_name(enum operation op);

/* OP_NONE: there is no such operation. */
enum operation operation_find(const char *name);

#endif
