/* What a root's ceremonies wrote down, which the next one reads. Seeds: ../corpus/root_index */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "folder.h"
#include "hsm/ceremony/ceremony.h"
#include "hsm/ceremony/index.h"
#include "pki/crl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* of ceremony/common.c, which would need a token; nothing is written here */
void time_text(char out[32], int64_t when)
{
    snprintf(out, 32, "%lld", (long long)when);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct index *x = NULL;
    struct err err = {0};
    char root[128];
    size_t count;
    fuzz_file("root.pem.index", data, size);
    snprintf(root, sizeof root, "%s/root.pem", fuzz_folder());
    if (index_open(&x, root, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    const struct revocation *r = index_revocations(x, &count);
    for (size_t i = 0; i < count; i++)
        if (!crl_reason_name(r[i].reason) || !index_is_revoked(x, r[i].serial))
            abort();
    if (index_crl_number(x) > INT64_MAX)
        abort(); /* there is a next one */
    index_free(x);
    return 0;
}
