#include "server/ctl/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/file.h"
#include "pki/crl.h"

#define SUMS "SHA256SUMS"
#define SUMS_MAX 16384

static const struct known {
    const char *name;
    int needed;
} known[] = {{"signet.db", 1}, {"intermediate.pem", 1}, {"ca-chain.pem", 1}, {"root-crl.der", 0},
             {"crl.der", 0},   {"signet.conf", 0},      {"backup.txt", 0}};
#define NAMED (sizeof known / sizeof *known)
#define KNOWN (NAMED + CRL_SHARDS_MAX) /* behind them the CRLs of the shards */

static struct known known_file(size_t i, char shard[CRL_NAME_MAX])
{
    return i < NAMED ? known[i]
                     : (struct known){crl_file_name(shard, (unsigned)(i - NAMED) + 1), 0};
}

static int digest_fd(int fd, char hex[65])
{
    uint8_t chunk[65536], digest[32];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    ssize_t n = -1;
    int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    while (ok && (n = read(fd, chunk, sizeof chunk)) > 0)
        ok = EVP_DigestUpdate(ctx, chunk, (size_t)n);
    ok = ok && n == 0 && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    if (ok)
        hex_encode(hex, (struct bytes){digest, 32});
    return ok ? 0 : -1;
}

/* 0, 1: it is not there, -1. */
static int digest_file(const char *folder, const char *name, char hex[65], struct err *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return 1;
    int rc = fd < 0 || digest_fd(fd, hex)
                 ? err_set(err, ERR_internal, "%s: cannot be read: %s", path, strerror(errno))
                 : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

int manifest_write(const char *folder, struct err *err)
{
    char path[PATH_MAX], hex[65], text[SUMS_MAX], shard[CRL_NAME_MAX];
    size_t len = 0;
    for (size_t i = 0; i < KNOWN; i++) {
        struct known k = known_file(i, shard);
        int rc = digest_file(folder, k.name, hex, err);
        if (rc < 0)
            return -1;
        if (rc == 0)
            len += (size_t)snprintf(text + len, sizeof text - len, "%s  %s\n", hex, k.name);
    }
    snprintf(path, sizeof path, "%s/" SUMS, folder);
    return file_write(path, (struct bytes){(const uint8_t *)text, len}, 0600, 0, err);
}

static int check_line(const char *folder, const char *line, int seen[KNOWN], struct err *err)
{
    char stated[65], name[32], hex[65], shard[CRL_NAME_MAX];
    if (sscanf(line, "%64[0-9a-f]  %31s", stated, name) != 2 || strlen(stated) != 64)
        return err_set(err, ERR_field_value, "%s/" SUMS ": a line is not understood", folder);
    for (size_t i = 0; i < KNOWN; i++) {
        if (strcmp(name, known_file(i, shard).name) != 0)
            continue;
        int rc = digest_file(folder, name, hex, err);
        if (rc < 0)
            return -1;
        seen[i] = 1;
        return rc == 0 && strcmp(hex, stated) == 0
                   ? 0
                   : err_set(err, ERR_field_value,
                             "%s/%s is %s; take another copy of this backup, or another backup",
                             folder, name, rc ? "missing" : "not as it was when it was made");
    }
    return err_set(err, ERR_field_value, "%s/" SUMS " names %s, which is in no backup", folder,
                   name);
}

int manifest_check(const char *folder, struct err *err)
{
    char path[PATH_MAX], *rest;
    int seen[KNOWN] = {0}, rc = 0;
    struct buf text;
    snprintf(path, sizeof path, "%s/" SUMS, folder);
    if (file_read(&text, path, SUMS_MAX, err))
        return err_prefix(err, "this is no folder that signetctl backup made");
    for (char *line = strtok_r((char *)text.data, "\n", &rest); line && rc == 0;
         line = strtok_r(NULL, "\n", &rest))
        rc = check_line(folder, line, seen, err);
    buf_free(&text);
    for (size_t i = 0; i < NAMED && rc == 0; i++)
        if (known[i].needed && !seen[i])
            rc = err_set(err, ERR_field_value, "%s does not list %s", path, known[i].name);
    return rc;
}

void manifest_remove(const char *folder)
{
    static const char *const others[] = {SUMS, "signet.db-wal", "signet.db-shm",
                                         "signet.db-journal"};
    char path[PATH_MAX], shard[CRL_NAME_MAX];
    for (size_t i = 0; i < KNOWN; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, known_file(i, shard).name);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, others[i]);
        unlink(path);
    }
    rmdir(folder);
}

int sync_path(const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd)
                 ? err_set(err, ERR_storage_unavailable, "%s: %s", path, strerror(errno))
                 : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}
