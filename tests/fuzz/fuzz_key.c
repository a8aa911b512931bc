/* A SubjectPublicKeyInfo, as the authority takes it from a front. Seeds: ../corpus/key */
#include <stdlib.h>

#include "pki/key.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct key_policy any = {2048, 4096, 1, 1};
    struct key_info info;
    struct err err;
    EVP_PKEY *key = key_from_spki((struct bytes){data, size});
    if (!key_check((struct bytes){data, size}, &any, &info, &err) && !key)
        abort(); /* what is good enough must be usable */
    EVP_PKEY_free(key);
    return 0;
}
