#include "pool.h"

#include <openssl/ec.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "wire.h"

#define POOL_MAX ((size_t)1 << 30)

static X509_REQ *make_csr(size_t number)
{
    char mac[18];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_REQ *csr = X509_REQ_new();
    snprintf(mac, sizeof mac, "24:0a:c4:%02zx:%02zx:%02zx", number >> 16 & 255, number >> 8 & 255,
             number & 255);
    if (!key || !csr ||
        X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(csr), "CN", MBSTRING_ASC,
                                   (unsigned char *)mac, -1, -1, 0) != 1 ||
        X509_REQ_set_pubkey(csr, key) != 1 || X509_REQ_sign(csr, key, EVP_sha256()) <= 0)
        die("cannot make a CSR");
    EVP_PKEY_free(key);
    return csr;
}

void pool_make(const char *path, size_t count)
{
    FILE *out = fopen(path, "wb");
    if (!out)
        die("%s: cannot be written", path);
    for (size_t i = 0; i < count; i++) {
        unsigned char *der = NULL;
        X509_REQ *csr = make_csr(i);
        int len = i2d_X509_REQ(csr, &der);
        unsigned char size[4] = {0, 0, (unsigned char)(len >> 8), (unsigned char)len};
        if (len <= 0 || len > 65535 || fwrite(size, sizeof size, 1, out) != 1 ||
            fwrite(der, (size_t)len, 1, out) != 1)
            die("%s: cannot be written", path);
        OPENSSL_free(der);
        X509_REQ_free(csr);
    }
    if (fclose(out))
        die("%s: cannot be written", path);
}

static size_t size_at(const struct pool *p, size_t at)
{
    const uint8_t *b = p->file.data + at;
    return p->file.len - at < 4
               ? SIZE_MAX
               : (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
}

void pool_load(struct pool *p, const char *path)
{
    struct err err;
    *p = (struct pool){0};
    if (file_read(&p->file, path, POOL_MAX, &err))
        die("%s", err.text);
    p->csrs = calloc(p->file.len / 100 + 1, sizeof *p->csrs);
    for (size_t at = 0; p->csrs && at < p->file.len; p->count++) {
        size_t size = size_at(p, at);
        if (size < 100 || size > p->file.len - at - 4)
            die("%s: broken", path);
        p->csrs[p->count] = (struct bytes){p->file.data + at + 4, size};
        at += 4 + size;
    }
}

void pool_free(struct pool *p)
{
    free(p->csrs);
    buf_free(&p->file);
}
