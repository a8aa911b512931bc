/* A certification request, as a front takes it from a stranger. Seeds: ../corpus/csr */
#include "pki/csr.h"
#include "pki/key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct key_policy any = {2048, 4096, 1, 1};
    struct csr *csr = NULL;
    struct key_info info;
    struct err err;
    if (csr_parse(&csr, (struct bytes){data, size}, &err))
        return 0;
    if (!key_check(csr_spki(csr), &any, &info, &err) && !csr_verify(csr, &err))
        csr_cn(csr);
    csr_free(csr);
    return 0;
}
