/* The JSON of POST /v1. What parses has an operation, and its fields keep to their kinds. */
#include <stdlib.h>
#include "server/request/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request *r;
    enum operation op;
    struct err err = {0};
    int rc = request_parse(&r, &op, (struct bytes){data, size}, &err);
    if ((rc == 0) != (r != NULL) || (rc && !err.text[0]) || (!rc && op == OP_NONE))
        abort();
    request_free(r);
    return 0;
}
