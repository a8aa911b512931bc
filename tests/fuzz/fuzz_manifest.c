/* SHA256SUMS of a backup that is to be restored. Seeds: ../corpus/manifest, for these files. */
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "server/ctl/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const files[] = {"signet.db", "intermediate.pem", "ca-chain.pem", "crl-7.der"};

static void make_files(void)
{
    static int made;
    for (size_t i = 0; !made && i < sizeof files / sizeof *files; i++)
        fuzz_file(files[i], (const uint8_t *)files[i], strlen(files[i]));
    made = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    make_files();
    fuzz_file("SHA256SUMS", data, size);
    if (manifest_check(fuzz_folder(), &err)) {
        if (!err.text[0])
            abort(); /* it says why */
        return 0;
    }
    for (size_t i = 0; i < 3; i++) /* what a restore cannot be without was listed */
        if (!memmem(data, size, files[i], strlen(files[i])))
            abort();
    return 0;
}
