#include "server/request/operations.h"

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
                             {"replace", FIELD_BOOL, 0},
                             {"request_id", FIELD_TOKEN, 0}}},
    [OP_REQ_SERVER_CERT] = {"req_server_cert",
                            {OPERATION,
                             {"csr", FIELD_BASE64, 1},
                             {"profile", FIELD_TOKEN, 0},
                             {"request_id", FIELD_TOKEN, 0}}},
    [OP_RENEW_CLIENT_CERT] = {"renew_client_cert",
                              {OPERATION,
                               {"csr", FIELD_BASE64, 1},
                               {"request_id", FIELD_TOKEN, 0}}},
    [OP_REVOKE_CERT] = {"revoke_cert",
                        {OPERATION,
                         {"serial", FIELD_SERIAL, 0},
                         {"serials", FIELD_SERIALS, 0},
                         {"mac", FIELD_TOKEN, 0},
                         {"issued_by", FIELD_TOKEN, 0},
                         {"from", FIELD_TIME, 0},
                         {"to", FIELD_TIME, 0},
                         {"reason", FIELD_TOKEN, 0},
                         {"request_id", FIELD_TOKEN, 0}}},
    [OP_REPORT_DEVICE] = {"report_device",
                          {OPERATION, {"serial", FIELD_SERIAL, 1}, {"state", FIELD_TOKEN, 1}}},
    [OP_GET_CERT] = {"get_cert", {OPERATION, {"serial", FIELD_SERIAL, 1}}},
    [OP_LIST_CERTS] = {"list_certs",
                       {OPERATION,
                        {"mac", FIELD_TOKEN, 0},
                        {"state", FIELD_TOKEN, 0},
                        {"board", FIELD_TOKEN, 0},
                        {"operator", FIELD_TOKEN, 0},
                        {"from", FIELD_TIME, 0},
                        {"to", FIELD_TIME, 0},
                        {"after", FIELD_TOKEN, 0},
                        {"limit", FIELD_COUNT, 0}}},
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
