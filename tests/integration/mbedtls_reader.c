/* The library that ESP-IDF reads credentials with, given the items of an image as they stand there:
 *     mbedtls_reader CA KEY CERT [INTERMEDIATE...]
 * 0 when the key parses, is the certificate's, and the chain leads to the CA. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/pk.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#include <stdio.h>
#include <stdlib.h>

struct item {
    unsigned char data[16384];
    size_t len;
};

static struct item load(const char *path)
{
    struct item item = {.len = 0};
    FILE *f = fopen(path, "rb");
    if (!f)
        exit(2);
    item.len = fread(item.data, 1, sizeof item.data, f);
    fclose(f);
    return item;
}

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "%s: -0x%04x\n", what, (unsigned)-rc);
    exit(1);
}

int main(int argc, char **argv)
{
    mbedtls_x509_crt ca, chain;
    mbedtls_pk_context key;
    mbedtls_entropy_context entropy;
    mbedtls_ctr_drbg_context random;
    uint32_t flags;
    if (argc < 4)
        return 2;
    mbedtls_x509_crt_init(&ca);
    mbedtls_x509_crt_init(&chain);
    mbedtls_pk_init(&key);
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random);
    check(mbedtls_ctr_drbg_seed(&random, mbedtls_entropy_func, &entropy, NULL, 0), "random");
    struct item item = load(argv[1]);
    check(mbedtls_x509_crt_parse(&ca, item.data, item.len), "CA");
    for (int i = 3; i < argc; i++) {
        item = load(argv[i]);
        check(mbedtls_x509_crt_parse(&chain, item.data, item.len), argv[i]);
    }
    item = load(argv[2]);
#if MBEDTLS_VERSION_MAJOR >= 3
    check(
        mbedtls_pk_parse_key(&key, item.data, item.len, NULL, 0, mbedtls_ctr_drbg_random, &random),
        "key");
    check(mbedtls_pk_check_pair(&chain.pk, &key, mbedtls_ctr_drbg_random, &random), "pair");
#else
    check(mbedtls_pk_parse_key(&key, item.data, item.len, NULL, 0), "key");
    check(mbedtls_pk_check_pair(&chain.pk, &key), "pair");
#endif
    check(mbedtls_x509_crt_verify(&chain, &ca, NULL, NULL, &flags, NULL, NULL), "chain");
    return 0;
}
