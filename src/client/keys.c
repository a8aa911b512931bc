#include "client/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/interrupt.h"
#include "client/notice.h"
#include "common/file.h"

static const struct key_type {
    const char *name;
    int rsa_bits;
    const char *group;
} types[] = {
    {"rsa:2048", 2048, NULL}, {"rsa:3072", 3072, NULL}, {"rsa:4096", 4096, NULL},
    {"ec:p256", 0, "P-256"},  {"ec:p384", 0, "P-384"},
};

static const struct key_type *find_type(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

int key_type_check(const char *type, struct failure *f)
{
    if (find_type(type))
        return 0;
    return fail(f, EXIT_USAGE, "usage",
                "key type \"%s\" is not one of rsa:2048, rsa:3072, rsa:4096, ec:p256, ec:p384",
                type);
}

const char *key_type_of(const EVP_PKEY *key)
{
    char group[32] = "";
    EVP_PKEY_get_group_name(key, group, sizeof group, NULL);
    const char *named = strcmp(group, "prime256v1") == 0  ? "P-256"
                        : strcmp(group, "secp384r1") == 0 ? "P-384"
                                                          : group;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].group
                ? strcmp(types[i].group, named) == 0
                : EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) == types[i].rsa_bits)
            return types[i].name;
    return NULL;
}

static int openssl_failed(struct failure *f, const char *doing)
{
    return fail(f, EXIT_LOCAL, "openssl", "cannot %s: %s", doing, err_openssl());
}

static int go_on(EVP_PKEY_CTX *ctx)
{
    notice_tick(EVP_PKEY_CTX_get_app_data(ctx), "making the key");
    return !interrupted();
}

int key_make(EVP_PKEY **out, const char *type, struct failure *f)
{
    const struct key_type *t = find_type(type);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, t->group ? "EC" : "RSA", NULL);
    int good = ctx && EVP_PKEY_keygen_init(ctx) == 1 &&
               (t->group ? EVP_PKEY_CTX_set_group_name(ctx, t->group)
                         : EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, t->rsa_bits)) == 1;
    if (good) {
        struct notice notice;
        notice_begin(&notice);
        EVP_PKEY_CTX_set_app_data(ctx, &notice);
        EVP_PKEY_CTX_set_cb(ctx, go_on);
        good = EVP_PKEY_generate(ctx, out) == 1;
        notice_end(&notice);
    }
    EVP_PKEY_CTX_free(ctx);
    if (good)
        return 0;
    return interrupted() ? fail_interrupted(f) : openssl_failed(f, "make a key");
}

/* Writes what a memory BIO holds. */
static int bio_save(BIO *bio, const char *path, mode_t mode, struct failure *f)
{
    char *text = NULL;
    struct err err;
    long len = BIO_get_mem_data(bio, &text);
    if (file_write(path, (struct bytes){(const uint8_t *)text, (size_t)len}, mode, 0, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    return 0;
}

int key_save(EVP_PKEY *key, const char *path, struct failure *f)
{
    BIO *bio = BIO_new(BIO_s_mem()); /* wipes its memory when it grows and when it is freed */
    int rc = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1
                 ? bio_save(bio, path, 0600, f)
                 : openssl_failed(f, "encode the key");
    BIO_free(bio);
    return rc;
}

int key_load(EVP_PKEY **out, const char *path, struct failure *f)
{
    BIO *bio = BIO_new_file(path, "r");
    if (!bio)
        return fail(f, EXIT_LOCAL, "local_file", "cannot open the key %s: %s", path,
                    strerror(errno));
    *out = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    if (*out)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "%s holds no readable private key (PEM): %s", path,
                err_openssl());
}

static int overwrite(int fd)
{
    static const char zeros[4096];
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        return -1;
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = write(fd, zeros, left < (off_t)sizeof zeros ? (size_t)left : sizeof zeros);
        if (n < 0 && errno != EINTR)
            return -1;
        left -= n > 0 ? n : 0;
    }
    return fsync(fd);
}

int key_remove(const char *path, struct failure *f)
{
    int fd = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    int rc = fd < 0 ? -1 : overwrite(fd);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && unlink(path) == 0 && file_sync_parent(path, NULL) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot remove the key %s: %s", path, strerror(errno));
}

static int add_names(X509_REQ *csr, const char *const *names)
{
    struct buf text = {0};
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    int good = list != NULL;
    for (size_t i = 0; good && names[i]; i++)
        good = buf_add(&text, i ? "," : "", i != 0) == 0 &&
               buf_add(&text, names[i], strlen(names[i])) == 0;
    good = good && buf_add(&text, "", 1) == 0;
    X509_EXTENSION *san =
        good ? X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, (const char *)text.data)
             : NULL;
    good = san && sk_X509_EXTENSION_push(list, san) > 0;
    if (san && !good)
        X509_EXTENSION_free(san);
    good = good && X509_REQ_add_extensions(csr, list) == 1;
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    buf_free(&text);
    return good;
}

int csr_make_for_names(X509_REQ **out, EVP_PKEY *key, const char *name, const char *const *names,
                       struct failure *f)
{
    const EVP_MD *md =
        EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_bits(key) > 256 ? EVP_sha384() : EVP_sha256();
    X509_REQ *csr = X509_REQ_new();
    if (csr && X509_REQ_set_version(csr, X509_REQ_VERSION_1) == 1 &&
        X509_NAME_add_entry_by_NID(X509_REQ_get_subject_name(csr), NID_commonName, MBSTRING_UTF8,
                                   (const unsigned char *)name, -1, -1, 0) == 1 &&
        (!names || add_names(csr, names)) && X509_REQ_set_pubkey(csr, key) == 1 &&
        X509_REQ_sign(csr, key, md) > 0) {
        *out = csr;
        return 0;
    }
    X509_REQ_free(csr);
    return openssl_failed(f, "make the request");
}

int csr_make(X509_REQ **out, EVP_PKEY *key, const char *name, struct failure *f)
{
    return csr_make_for_names(out, key, name, NULL, f);
}

static int csr_fits(X509_REQ *csr, EVP_PKEY *key, const char *name)
{
    char *cn = name_cn(X509_REQ_get_subject_name(csr));
    int fits = cn && strcmp(cn, name) == 0 && X509_REQ_verify(csr, key) == 1;
    OPENSSL_free(cn);
    return fits;
}

int csr_read(X509_REQ **out, const char *path, struct failure *f)
{
    BIO *bio = BIO_new_file(path, "r");
    if (!bio)
        return fail(f, EXIT_LOCAL, "local_file", "cannot open the request %s: %s", path,
                    strerror(errno));
    *out = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return *out ? 0
                : fail(f, EXIT_LOCAL, "local_file", "%s is not a certificate request in PEM: %s",
                       path, err_openssl());
}

int csr_load(X509_REQ **out, const char *path, EVP_PKEY *key, const char *name, struct failure *f)
{
    X509_REQ *csr = NULL;
    if (csr_read(&csr, path, f) == 0 && csr_fits(csr, key, name)) {
        *out = csr;
        return 0;
    }
    X509_REQ_free(csr);
    return fail(f, EXIT_LOCAL, "local_file",
                "%s is not a request of the key beside it for %s; move that folder away", path,
                name);
}

int csr_pem(struct buf *out, X509_REQ *csr, struct failure *f)
{
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    int good = bio && PEM_write_bio_X509_REQ(bio, csr) == 1;
    long len = good ? BIO_get_mem_data(bio, &text) : 0;
    good = good && buf_add(out, text, (size_t)len) == 0;
    BIO_free(bio);
    return good ? 0 : fail_memory(f);
}

int csr_save(X509_REQ *csr, const char *path, int replace, struct failure *f)
{
    struct buf pem = {0};
    struct err err;
    int rc = csr_pem(&pem, csr, f);
    if (rc == 0 && file_write(path, buf_view(&pem), 0644, replace, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    buf_free(&pem);
    return rc;
}

char *name_cn(const X509_NAME *name)
{
    unsigned char *text = NULL;
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0)
        return NULL;
    int len = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (len >= 0 && strlen((char *)text) == (size_t)len)
        return (char *)text;
    if (len >= 0)
        OPENSSL_free(text);
    return NULL;
}
