/* The operations of POST /v1 and the fields that each one takes: one table. docs/protocol.md says
 * what they mean. */
#ifndef SIGNET_FRONT_OPERATIONS_H
#define SIGNET_FRONT_OPERATIONS_H

enum operation {
    OP_REQ_CLIENT_CERT,
    OP_REVOKE_CERT,
    OP_GET_CA_CHAIN,
    OP_GET_CRL,
    OP_GET_STATUS,
    OP_NONE /* not known (yet) */
};

/* All fields are JSON strings; the kind says what may stand in them. */
enum field_kind {
    FIELD_END,
    FIELD_OPERATION, /* the operation itself */
    FIELD_BASE64,    /* not empty; decoded, and so checked, by its user */
    FIELD_SERIAL,    /* hex digits, an even number of them, 2 to 40 */
    FIELD_TOKEN      /* 1 to 64 of [A-Za-z0-9._:-]: names, ids */
};

struct field {
    const char *name;
    enum field_kind kind;
    int required;
};

struct shape {
    const char *operation;
    struct field fields[6]; /* FIELD_END ends them */
};

extern const struct shape operation_shapes[OP_NONE];

/* "" for OP_NONE. */
const char *operation_name(enum operation op);

/* OP_NONE: there is no such operation. */
enum operation operation_find(const char *name);

#endif
