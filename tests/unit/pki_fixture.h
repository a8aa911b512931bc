/* What the tests of src/pki share: a CA with a software key in place of the token, keys and
 * requests made by OpenSSL, a folder of their own, other programs run for a second opinion. */
#ifndef SIGNET_PKI_FIXTURE_H
#define SIGNET_PKI_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "pki/issuer.h"

#define UNUSED __attribute__((unused))
#define DAY (24 * 3600)

struct ca {
    EVP_PKEY *key;
    X509 *certificate;
    char *pem;
    struct issuer *issuer;
};

static UNUSED struct bytes text_bytes(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

/* "rsa:2048", "P-256", "P-384" */
static UNUSED EVP_PKEY *make_key(const char *type)
{
    EVP_PKEY *key =
        strncmp(type, "rsa:", 4) ? EVP_EC_gen(type) : EVP_RSA_gen((unsigned)atoi(type + 4));
    assert_non_null(key);
    return key;
}

static UNUSED void add_extension(X509 *x, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(x, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static UNUSED X509 *make_certificate(EVP_PKEY *key, int days)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    assert_true(X509_set_version(x, X509_VERSION_3));
    assert_true(ASN1_INTEGER_set(X509_get_serialNumber(x), 7));
    assert_true(X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)"Test",
                                           -1, -1, 0));
    assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                           (const unsigned char *)"Test CA", -1, -1, 0));
    assert_true(X509_set_issuer_name(x, name));
    X509_time_adj_ex(X509_getm_notBefore(x), -1, 0, NULL);
    X509_time_adj_ex(X509_getm_notAfter(x), days, 0, NULL);
    assert_true(X509_set_pubkey(x, key));
    return x;
}

/* PEM text; free() */
static UNUSED char *to_pem(X509 *x)
{
    char *data, *text;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_true(PEM_write_bio_X509(bio, x));
    long len = BIO_get_mem_data(bio, &data);
    text = strndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static UNUSED struct ca ca_make(const char *type, int days)
{
    struct ca ca = {0};
    struct err err;
    ca.key = make_key(type);
    ca.certificate = make_certificate(ca.key, days);
    add_extension(ca.certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca.certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    add_extension(ca.certificate, NID_subject_key_identifier, "hash");
    assert_true(X509_sign(ca.certificate, ca.key, EVP_sha256()));
    ca.pem = to_pem(ca.certificate);
    if (issuer_from_pem(&ca.issuer, text_bytes(ca.pem), &err))
        fail_msg("%s", err.text);
    return ca;
}

static UNUSED void ca_free(struct ca *ca)
{
    issuer_free(ca->issuer);
    free(ca->pem);
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
}

/* As the token signs: a digest, nothing else. */
static UNUSED struct bytes ca_sign(const struct ca *ca, struct bytes digest,
                                   uint8_t out[SIGNATURE_MAX])
{
    size_t len = SIGNATURE_MAX;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(ca->key, NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    if (EVP_PKEY_is_a(ca->key, "RSA"))
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING), 1);
    assert_int_equal(
        EVP_PKEY_CTX_set_signature_md(ctx, digest.len == 48 ? EVP_sha384() : EVP_sha256()), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, out, &len, digest.data, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    return (struct bytes){out, len};
}

static UNUSED struct bytes ca_sign_data(const struct ca *ca, struct bytes data,
                                        uint8_t out[SIGNATURE_MAX])
{
    uint8_t digest[DIGEST_MAX];
    size_t len = sign_digest(issuer_alg(ca->issuer), data, digest);
    return ca_sign(ca, (struct bytes){digest, len}, out);
}

/* SubjectPublicKeyInfo of a key; buf_free() */
static UNUSED struct buf make_spki(const EVP_PKEY *key)
{
    unsigned char *der = NULL;
    struct buf out = {0};
    int len = i2d_PUBKEY(key, &der);
    assert_true(len > 0);
    assert_int_equal(buf_add(&out, der, (size_t)len), 0);
    OPENSSL_free(der);
    return out;
}

/* A folder of the test's own, and files in it. */
static UNUSED char *make_folder(void)
{
    static char path[64];
    snprintf(path, sizeof path, "/tmp/signet-unit-XXXXXX");
    assert_non_null(mkdtemp(path));
    return path;
}

static UNUSED void put_file(const char *folder, const char *name, struct bytes data)
{
    char path[256];
    struct err err;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (file_write(path, data, 0600, 1, &err))
        fail_msg("%s", err.text);
}

/* Runs a shell command in the folder; its exit status, and what it printed (cut) in output. */
static UNUSED int run(const char *folder, char *output, size_t size, const char *command)
{
    char line[1024];
    size_t len = 0;
    snprintf(line, sizeof line, "cd %s && timeout 60 sh -c '%s' 2>&1", folder, command);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (len + 1 < size)
            len += (size_t)snprintf(output + len, size - len, "%s", line);
    output[len < size ? len : size - 1] = '\0';
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static UNUSED void check_run(const char *folder, const char *command, const char *expected)
{
    static char output[64 * 1024];
    int status = run(folder, output, sizeof output, command);
    if (status != 0 || !strstr(output, expected))
        fail_msg("%s: exit status %d, no \"%s\" in:\n%.2000s", command, status, expected, output);
}

static UNUSED void remove_folder(const char *folder)
{
    char output[64];
    assert_int_equal(run("/", output, sizeof output, "true"), 0);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
    closedir(d);
    assert_int_equal(rmdir(folder), 0);
}

/* Calls check(bytes, file's name, "code" of its name) for each file of a corpus; their number. */
static UNUSED int each_file(const char *corpus,
                            void (*check)(struct bytes data, const char *name, const char *code))
{
    int n = 0;
    DIR *d = opendir(corpus);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512], code[64];
        struct buf data = {0};
        struct err err;
        const char *end = strstr(e->d_name, "--");
        if (!end)
            continue;
        snprintf(code, sizeof code, "%.*s", (int)(end - e->d_name), e->d_name);
        snprintf(path, sizeof path, "%s/%s", corpus, e->d_name);
        if (file_read(&data, path, 1 << 20, &err))
            fail_msg("%s", err.text);
        check(buf_view(&data), e->d_name, code);
        buf_free(&data);
        n++;
    }
    closedir(d);
    return n;
}

#endif
