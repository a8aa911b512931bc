/* An OCSP request, as a front takes it from a stranger; and the CertIDs between front and
 * authority, which must come out of it as they went in. Seeds: ../corpus/ocsp */
#include <stdlib.h>
#include "pki/ocsp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int same(const struct ocsp_certid *a, const struct ocsp_certid *b)
{
    return bytes_equal((struct bytes){a->serial, a->serial_len},
                       (struct bytes){b->serial, b->serial_len}) &&
           bytes_equal((struct bytes){a->issuer_key_hash, a->hash_len},
                       (struct bytes){b->issuer_key_hash, b->hash_len});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ocsp_request req;
    struct ocsp_certid ids[OCSP_CERTIDS_MAX];
    size_t count;
    struct buf packed = {0};
    if (!ocsp_unpack(ids, &count, (struct bytes){data, size}) &&
        (ocsp_pack(&packed, ids, count) ||
         !bytes_equal(buf_view(&packed), (struct bytes){data, size})))
        abort();
    packed.len = 0;
    if (!ocsp_request_parse(&req, (struct bytes){data, size})) {
        if (ocsp_pack(&packed, req.certids, req.count) ||
            ocsp_unpack(ids, &count, buf_view(&packed)) || count != req.count)
            abort();
        for (size_t i = 0; i < count; i++)
            if (!same(&ids[i], &req.certids[i]))
                abort();
    }
    buf_free(&packed);
    return 0;
}
