/* Runs a harness over files, and over each file cut short and with single bits flipped: what every
 * build can do without a fuzzer. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PLACES_MAX 1000 /* of a file, for each of the two */

static size_t inputs;

/* In memory of exactly this size, so that the sanitizer sees one byte too many. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    if (!exact)
        abort();
    if (size)
        memcpy(exact, data, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
}

static int run_file(const char *path)
{
    struct buf b;
    struct err err;
    if (file_read(&b, path, 1 << 20, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    run(b.data, b.len);
    for (size_t i = 0; i < b.len; i += 1 + b.len / PLACES_MAX) {
        run(b.data, i);
        b.data[i] ^= (uint8_t)(1 << i % 8);
        run(b.data, b.len);
        b.data[i] ^= (uint8_t)(1 << i % 8);
    }
    buf_free(&b);
    return 0;
}

static int run_folder(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int rc = d ? 0 : -1;
    if (!d)
        perror(path);
    while (rc == 0 && (e = readdir(d))) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.')
            rc = run_file(file);
    }
    if (d)
        closedir(d);
    return rc;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (run_folder(argv[i]))
            return 1;
    printf("%zu inputs\n", inputs);
    return inputs ? 0 : 1;
}
