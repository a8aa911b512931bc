/* A record from a peer. What opens and decodes encodes to the same bytes again. */
#include <stdlib.h>
#include <string.h>
#include "common/msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union {
#define MSG(name, ...) struct msg_##name m_##name;
#include "common/msg_fields.h"
#undef MSG
    } body;
    struct bytes record = {data, size}, fields;
    struct buf again = {0};
    unsigned type;
    uint64_t id;
    if (msg_open(record, &type, &id, &fields) || msg_decode(&body, (enum msg_type)type, fields))
        return 0;
    if (size <= MSG_MAX && (msg_encode(&again, (enum msg_type)type, id, &body) ||
                            !bytes_equal(buf_view(&again), record)))
        abort();
    buf_free(&again);
    return 0;
}
