#include "server/front/operations.h"

#include <string.h>

#define OPERATION                                                                                  \
    {                                                                                              \
        "operation", FIELD_OPERATION, 1                                                            \
    }

const struct shape operation_shapes[OP_NONE] = {
    [OP_REQ_CLIENT_CERT] = {"req_client_cert",
                            {OPERATION,
                             {"csr", FIELD_BASE64, 1},
                             {"profile", FIELD_TOKEN, 0},
                             {"request_id", FIELD_TOKEN, 0}}},
    [OP_REVOKE_CERT] = {"revoke_cert",
                        {OPERATION,
                         {"serial", FIELD_SERIAL, 1},
                         {"reason", FIELD_TOKEN, 0},
                         {"request_id", FIELD_TOKEN, 0}}},
    [OP_GET_CA_CHAIN] = {"get_ca_chain", {OPERATION}},
    [OP_GET_CRL] = {"get_crl", {OPERATION}},
    [OP_GET_STATUS] = {"get_status", {OPERATION}},
};

const char *operation_name(enum operation op)
{
    return op < OP_NONE ? operation_shapes[op].operation : "";
}

enum operation operation_find(const char *name)
{
    int op = 0;
    while (op < OP_NONE && strcmp(operation_shapes[op].operation, name) != 0)
        op++;
    return (enum operation)op;
}
