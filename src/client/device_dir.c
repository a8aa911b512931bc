#include "client/device_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/certs.h"
#include "client/device_mark.h"
#include "client/keys.h"
#include "client/settings.h"
#include "common/file.h"

char *device_dir_path(const char *dir, const char *mac)
{
    char digits[24], *p = digits;
    for (; *mac; mac++)
        if (*mac != ':')
            *p++ = *mac;
    *p = '\0';
    return path_join(dir, digits);
}

int device_has(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    int there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}

/* Nothing, or an empty folder, may be where the finished one goes. */
static int refuse_existing(const char *path, struct failure *f)
{
    struct stat st;
    if (lstat(path, &st)) {
        if (errno == ENOENT)
            return 0;
        return fail(f, EXIT_LOCAL, "local_file", "cannot look at %s: %s", path, strerror(errno));
    }
    int entries = 0;
    DIR *folder = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    while (folder && readdir(folder))
        entries++;
    if (folder)
        closedir(folder);
    if (folder && entries <= 2) /* "." and ".." */
        return 0;
    return fail(
        f, EXIT_LOCAL, "already_exists",
        "%s exists already and is never overwritten; --replace keeps it under another name, or "
        "give another --out",
        path);
}

/* Between open() and flock() another run may have renamed it. */
static int is_still(const char *path, int fd)
{
    struct stat by_name, held;
    return stat(path, &by_name) == 0 && fstat(fd, &held) == 0 && by_name.st_dev == held.st_dev &&
           by_name.st_ino == held.st_ino;
}

int device_dir_lock(const char *folder, struct failure *f)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail(f, EXIT_LOCAL, "local_file", "cannot open folder %s: %s", folder,
                    strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still(folder, fd))
        return fd;
    close(fd);
    return fail(f, EXIT_LOCAL, "busy", "another signet is at work in %s right now", folder);
}

/* The complete folder that is to be replaced, and its name afterwards. Who flashes or renews it is
 * not to find another's key there. */
static int plan_aside(struct device_dir *d, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    X509 *old = NULL;
    char *cert = path_join(d->final, DEVICE_CERT);
    int rc = cert ? cert_load(&old, cert, f) : fail_memory(f);
    free(cert);
    if (rc)
        return fail_add(f, "%s is not a device's folder that could be replaced; move it away",
                        d->final);
    if ((d->old = device_dir_lock(d->final, f)) < 0) {
        X509_free(old);
        return -1;
    }
    serial_text(serial, X509_get0_serialNumber(old));
    X509_free(old);
    if (asprintf(&d->aside, "%s.replaced-%.8s", d->final, serial) < 0) {
        d->aside = NULL;
        return fail_memory(f);
    }
    if (refuse_existing(d->aside, f) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "already_exists",
                "%s exists already, so %s cannot be kept under that name; move one of them away",
                d->aside, d->final);
}

static int check_final(struct device_dir *d, int replace, struct failure *f)
{
    if (refuse_existing(d->final, f) == 0)
        return 0;
    return replace && strcmp(f->code, "already_exists") == 0 ? plan_aside(d, f) : -1;
}

static int lock_pending(struct device_dir *d, struct failure *f)
{
    d->lock = open(d->pending, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->lock < 0)
        return fail(f, EXIT_LOCAL, "local_file", "cannot open folder %s: %s", d->pending,
                    strerror(errno));
    if (flock(d->lock, LOCK_EX | LOCK_NB) == 0 && is_still(d->pending, d->lock))
        return 0;
    close(d->lock);
    d->lock = -1;
    return fail(f, EXIT_LOCAL, "busy", "another signet is provisioning %s in %s right now", d->mac,
                d->pending);
}

void device_dir_sweep(const char *folder)
{
    static const char *const names[] = {DEVICE_KEY, DEVICE_CSR,  DEVICE_CERT, DEVICE_CHAIN,
                                        DEVICE_CA,  DEVICE_MARK, NULL};
    file_sweep(folder, names);
}

/* path of a file in the pending folder */
static int in_pending(char path[4096], const struct device_dir *d, const char *name,
                      struct failure *f)
{
    int n = snprintf(path, 4096, "%s/%s", d->pending, name);
    return n > 0 && n < 4096
               ? 0
               : fail(f, EXIT_LOCAL, "local_file", "the path of %s is too long", d->pending);
}

static int make_or_find(struct device_dir *d, const char *key_type, struct failure *f)
{
    char key[4096], csr[4096];
    if (in_pending(key, d, DEVICE_KEY, f) || in_pending(csr, d, DEVICE_CSR, f))
        return -1;
    d->resumed = access(key, F_OK) == 0 || access(csr, F_OK) == 0;
    if (d->resumed) {
        if (key_load(&d->key, key, f))
            return -1;
    } else if (key_make(&d->key, key_type, f) || key_save(d->key, key, f)) {
        return -1;
    }
    if (access(csr, F_OK) == 0)
        return csr_load(&d->csr, csr, d->key, d->mac, f);
    if (csr_make(&d->csr, d->key, d->mac, f))
        return -1;
    return csr_save(d->csr, csr, 0, f);
}

int device_dir_open(struct device_dir *d, const char *dir, const char *mac, const char *key_type,
                    int replace, struct failure *f)
{
    struct err err;
    *d = (struct device_dir){.lock = -1, .old = -1};
    snprintf(d->mac, sizeof d->mac, "%s", mac);
    d->final = device_dir_path(dir, mac);
    if (!d->final || asprintf(&d->pending, "%s.pending", d->final) < 0) {
        d->pending = NULL;
        return fail_memory(f);
    }
    if (check_final(d, replace, f))
        return -1;
    if (file_make_dir(d->pending, 0700, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    if (lock_pending(d, f))
        return -1;
    device_dir_sweep(d->pending);
    if (make_or_find(d, key_type, f) == 0)
        return 0;
    device_dir_discard(d);
    return -1;
}

static int save_certs(const struct device_dir *d, const char *name, X509 *one,
                      STACK_OF(X509) * many, struct failure *f)
{
    char path[4096];
    return in_pending(path, d, name, f) || certs_save(path, one, many, f) ? -1 : 0;
}

static int rename_failed(const char *from, const char *to, struct failure *f)
{
    return fail(f, EXIT_LOCAL, "local_file", "cannot rename %s to %s: %s", from, to,
                strerror(errno));
}

int device_dir_finish(struct device_dir *d, X509 *cert, STACK_OF(X509) * between, X509 *root,
                      struct failure *f)
{
    if (save_certs(d, DEVICE_CA, root, NULL, f) || save_certs(d, DEVICE_CHAIN, NULL, between, f) ||
        save_certs(d, DEVICE_CERT, cert, NULL, f))
        return -1;
    if (d->aside && rename(d->final, d->aside))
        return rename_failed(d->final, d->aside, f);
    if (refuse_existing(d->final, f))
        return -1;
    if (rename(d->pending, d->final) || file_sync_parent(d->final, NULL)) {
        rename_failed(d->pending, d->final, f);
        return d->aside ? fail_add(f, "the older folder is %s now", d->aside) : -1;
    }
    return 0;
}

void device_dir_discard(struct device_dir *d)
{
    static const char *const names[] = {DEVICE_CSR, DEVICE_KEY};
    if (d->lock < 0 || d->resumed)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlinkat(d->lock, names[i], 0);
    rmdir(d->pending);
}

void device_dir_close(struct device_dir *d)
{
    if (d->lock >= 0)
        close(d->lock);
    if (d->old >= 0)
        close(d->old);
    EVP_PKEY_free(d->key);
    X509_REQ_free(d->csr);
    free(d->final);
    free(d->pending);
    free(d->aside);
}
