/* signet renew: a device's next certificate, asked for with its present one.
 *
 * The folder is changed in place, so that what else stands in it stays. Everything new is made in
 * DIR/renewal.pending; its device.crt comes last and is verified first: from then on the renewal is
 * decided, and a run that finds it there finishes it without asking the server. The older files are
 * kept as device.crt.<start of its serial>. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/device_dir.h"
#include "client/device_mark.h"
#include "client/keys.h"
#include "client/obtain.h"
#include "common/file.h"
#include "pki/mac.h"

#define PENDING "renewal.pending"

struct renewal {
    char *folder, *pending; /* paths */
    int dir, sub;           /* descriptors of them; -1: not open */
    char *key_path, *cert_path;
    EVP_PKEY *key; /* the present one's, or the new one's */
    X509 *old;
    char old_serial[SERIAL_TEXT_SIZE];
    char *cn;
    X509_REQ *csr;
    int new_key, resumed, finished_only;
    X509 *cert; /* the new one */
};

/* ---- the folder ---- */

static int name_folder(struct renewal *r, const struct options *o, const char *out,
                       struct failure *f)
{
    char mac[MAC_TEXT_SIZE];
    struct err err;
    if (!o->operand == !o->mac)
        return fail(f, EXIT_USAGE, "usage",
                    "which device? give its folder, or --mac MAC (and --out, where the folders "
                    "are)");
    if (o->mac && mac_from_text(mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    r->folder = o->mac ? device_dir_path(out ? out : ".", mac) : strdup(o->operand);
    r->pending = r->folder ? path_join(r->folder, PENDING) : NULL;
    r->key_path = r->folder ? path_join(r->folder, DEVICE_KEY) : NULL;
    r->cert_path = r->folder ? path_join(r->folder, DEVICE_CERT) : NULL;
    return r->pending && r->key_path && r->cert_path ? 0 : fail_memory(f);
}

static int lock_folder(struct renewal *r, struct failure *f)
{
    r->dir = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir < 0)
        return fail(f, EXIT_LOCAL, "local_file",
                    "cannot open the device's folder %s: %s; signet provision makes one", r->folder,
                    strerror(errno));
    if (flock(r->dir, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "busy", "another signet is at work in %s right now", r->folder);
}

static int has(int dir, const char *name)
{
    return faccessat(dir, name, F_OK, 0) == 0;
}

static int load_present(struct renewal *r, struct failure *f)
{
    struct err err;
    if (!has(r->dir, DEVICE_KEY) && has(r->dir, DEVICE_MARK))
        return fail(f, EXIT_LOCAL, "key_on_board",
                    "the key for %s is on its board alone, which renews its certificate itself; "
                    "signet provision --flash --replace gives it a new key",
                    r->folder);
    if (cert_load(&r->old, r->cert_path, f))
        return -1;
    serial_text(r->old_serial, X509_get0_serialNumber(r->old));
    r->cn = name_cn(X509_get_subject_name(r->old));
    if (r->cn && mac_check(r->cn, &err) == 0 && strlen(r->old_serial) >= 8)
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "%s is not a device's certificate", r->cert_path);
}

/* ---- what waits in the pending folder ---- */

static int in_pending(char path[4096], const struct renewal *r, const char *name, struct failure *f)
{
    int n = snprintf(path, 4096, "%s/%s", r->pending, name);
    return n > 0 && n < 4096
               ? 0
               : fail(f, EXIT_LOCAL, "local_file", "the path of %s is too long", r->pending);
}

static void discard(struct renewal *r)
{
    static const char *const names[] = {DEVICE_CERT, DEVICE_CHAIN, DEVICE_CSR, DEVICE_KEY};
    for (size_t i = 0; r->sub >= 0 && i < sizeof names / sizeof names[0]; i++)
        unlinkat(r->sub, names[i], 0);
    unlinkat(r->dir, PENDING, AT_REMOVEDIR);
}

static int open_pending(struct renewal *r, struct failure *f)
{
    struct err err;
    if (file_make_dir(r->pending, 0700, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    device_dir_sweep(r->pending);
    r->sub = open(r->pending, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return r->sub >= 0 ? 0
                       : fail(f, EXIT_LOCAL, "local_file", "cannot open %s: %s", r->pending,
                              strerror(errno));
}

static int load_pending(struct renewal *r, struct failure *f)
{
    char key[4096], csr[4096];
    r->new_key = has(r->sub, DEVICE_KEY);
    r->resumed = 1;
    if (in_pending(key, r, DEVICE_KEY, f) || in_pending(csr, r, DEVICE_CSR, f))
        return -1;
    return key_load(&r->key, r->new_key ? key : r->key_path, f) ||
                   csr_load(&r->csr, csr, r->key, r->cn, f)
               ? -1
               : 0;
}

static int make_pending(struct renewal *r, const struct options *o, struct failure *f)
{
    char key[4096], csr[4096];
    EVP_PKEY *old = NULL;
    if (in_pending(key, r, DEVICE_KEY, f) || in_pending(csr, r, DEVICE_CSR, f) ||
        key_load(&old, r->key_path, f))
        return -1;
    const char *type = o->key_type ? o->key_type : key_type_of(old);
    int rc = 0;
    if (r->new_key) {
        EVP_PKEY_free(old);
        type = type ? type : KEY_TYPE_DEFAULT;
        rc = key_make(&r->key, type, f) || key_save(r->key, key, f) ? -1 : 0;
    } else {
        r->key = old;
    }
    return rc || csr_make(&r->csr, r->key, r->cn, f) || csr_save(r->csr, csr, 0, f) ? -1 : 0;
}

/* An interrupted run's request is asked again, unless it was for the other kind of key: that
 * renewal is forgotten, the server minds no second one. */
static int make_or_find(struct renewal *r, const struct options *o, struct failure *f)
{
    if (has(r->sub, DEVICE_CSR) && has(r->sub, DEVICE_KEY) == o->new_key)
        return load_pending(r, f);
    discard(r);
    close(r->sub);
    r->sub = -1;
    r->new_key = o->new_key;
    if (open_pending(r, f))
        return -1;
    if (make_pending(r, o, f) == 0)
        return 0;
    discard(r);
    return f->exit > EXIT_SIGNAL ? fail_add(f, "nothing was sent and nothing has changed") : -1;
}

/* ---- asking ---- */

static int save_pem(const struct renewal *r, const char *name, X509 *one, STACK_OF(X509) * many,
                    struct failure *f)
{
    char path[4096];
    return in_pending(path, r, name, f) || certs_save(path, one, many, f) ? -1 : 0;
}

/* The certificate last: once it is there, the renewal is decided. */
static int take(struct renewal *r, struct issued *i, struct session *s, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    serial_text(serial, X509_get0_serialNumber(i->cert));
    if (strcmp(serial, r->old_serial) == 0)
        return fail(f, EXIT_VERIFY, "not_renewed",
                    "%s answered with the certificate that was to be renewed; nothing has changed",
                    s->settings.server);
    if (save_pem(r, DEVICE_CHAIN, NULL, i->between, f) ||
        save_pem(r, DEVICE_CERT, i->cert, NULL, f))
        return -1;
    r->cert = i->cert;
    i->cert = NULL;
    return 0;
}

/* These do not become another answer by asking again. */
static int is_final(const struct failure *f)
{
    return strcmp(f->code, "result_dead") == 0 || strcmp(f->code, "request_id_reused") == 0 ||
           strcmp(f->code, "not_renewed") == 0;
}

static int leave(struct renewal *r, struct failure *f)
{
    if (!is_final(f) && (r->resumed || !f->nothing_done))
        return fail_add(f, "%s stays: the same command goes on with it", r->pending);
    discard(r);
    if (strcmp(f->code, "certificate_revoked") == 0 || strcmp(f->code, "certificate_expired") == 0)
        fail_add(f, "a new key and certificate: signet provision --mac %s --replace", r->cn);
    return -1;
}

static int ask(struct renewal *r, struct session *s, struct failure *f)
{
    char id[33], context[64];
    struct issued issued = {0};
    struct wanted w = {.operation = "renew_client_cert",
                       .csr = r->csr,
                       .request_id = id,
                       .name = r->cn,
                       .subject = X509_get_subject_name(r->old),
                       .purpose = X509_PURPOSE_SSL_CLIENT};
    snprintf(context, sizeof context, "renew %s", r->old_serial);
    int rc = request_id_of(id, context, r->csr) ? fail_memory(f) : obtain(&issued, s, &w, f);
    if (rc == 0)
        rc = take(r, &issued, s, f);
    issued_free(&issued);
    return rc ? leave(r, f) : 0;
}

/* ---- putting it in place ---- */

/* Whatever waits there must be this device's, with the key that it waits or stands with. */
static int check_decided(struct renewal *r, struct failure *f)
{
    char waiting[4096];
    EVP_PKEY *key = NULL;
    char *cn = name_cn(X509_get_subject_name(r->cert));
    r->new_key = has(r->sub, DEVICE_KEY);
    int rc = in_pending(waiting, r, DEVICE_KEY, f);
    if (rc == 0)
        rc = key_load(&key, r->new_key ? waiting : r->key_path, f);
    if (rc == 0 && X509_check_private_key(r->cert, key) != 1)
        rc = fail(f, EXIT_VERIFY, "certificate_of_other_key",
                  "%s holds a certificate for another key; move that folder away", r->pending);
    if (rc == 0 && (!cn || strcmp(cn, r->cn) != 0))
        rc = fail(f, EXIT_VERIFY, "certificate_of_other_mac",
                  "%s holds a certificate for another MAC; move that folder away", r->pending);
    OPENSSL_free(cn);
    EVP_PKEY_free(key);
    return rc;
}

/* What an interrupted run had verified and saved; verified again. */
static int load_decided(struct renewal *r, struct session *s, struct failure *f)
{
    char path[4096], chain_path[4096];
    STACK_OF(X509) *chain = NULL;
    int rc = in_pending(path, r, DEVICE_CERT, f) || in_pending(chain_path, r, DEVICE_CHAIN, f);
    /* chain.pem goes into place before the certificate does */
    char *placed = path_join(r->folder, DEVICE_CHAIN);
    if (rc == 0 && !placed)
        rc = fail_memory(f);
    if (rc == 0)
        rc = cert_load(&r->cert, path, f) ||
             certs_load(&chain, has(r->sub, DEVICE_CHAIN) ? chain_path : placed, f);
    struct cert_check check = {.root = s->root, .chain = chain, .purpose = X509_PURPOSE_SSL_CLIENT};
    if (rc == 0)
        rc = cert_verify(r->cert, &check, NULL, path, f);
    if (rc == 0)
        rc = check_decided(r, f);
    certs_free(chain);
    free(placed);
    r->finished_only = 1;
    return rc ? -1 : 0;
}

/* A second name for the older file; a copy where the file system has no hard links. */
static int keep(const struct renewal *r, const char *name, mode_t mode, struct failure *f)
{
    char from[4096], to[4096];
    struct buf text = {0};
    struct err err;
    if (snprintf(from, sizeof from, "%s/%s", r->folder, name) >= (int)sizeof from ||
        snprintf(to, sizeof to, "%s.%.8s", from, r->old_serial) >= (int)sizeof to)
        return fail(f, EXIT_LOCAL, "local_file", "the path of %s is too long", r->folder);
    if (link(from, to) == 0 || errno == EEXIST)
        return 0;
    int rc =
        file_read(&text, from, 1024 * 1024, &err) || file_write(to, buf_view(&text), mode, 0, &err)
            ? fail_err(f, EXIT_LOCAL, &err)
            : 0;
    if (text.data)
        OPENSSL_cleanse(text.data, text.len);
    buf_free(&text);
    return rc;
}

static int place(const struct renewal *r, const char *name, struct failure *f)
{
    if (renameat(r->sub, name, r->dir, name) == 0 || errno == ENOENT) /* an earlier run did it */
        return 0;
    return fail(f, EXIT_LOCAL, "local_file", "cannot put %s into %s: %s; run the command again",
                name, r->folder, strerror(errno));
}

static int put_in_place(struct renewal *r, struct failure *f)
{
    if (keep(r, DEVICE_CERT, 0644, f) || (r->new_key && keep(r, DEVICE_KEY, 0600, f)) ||
        place(r, DEVICE_CHAIN, f) || place(r, DEVICE_CSR, f) || place(r, DEVICE_KEY, f) ||
        place(r, DEVICE_CERT, f))
        return -1;
    if (fsync(r->dir))
        return fail(f, EXIT_LOCAL, "local_file", "cannot sync %s: %s", r->folder, strerror(errno));
    unlinkat(r->dir, PENDING, AT_REMOVEDIR);
    return 0;
}

static void print(const struct renewal *r, int json)
{
    char serial[SERIAL_TEXT_SIZE], from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE], old[TIME_TEXT_SIZE];
    serial_text(serial, X509_get0_serialNumber(r->cert));
    time_text(from, X509_get0_notBefore(r->cert));
    time_text(to, X509_get0_notAfter(r->cert));
    time_text(old, X509_get0_notAfter(r->old));
    if (json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "status", "OK");
        cJSON_AddStringToObject(o, "mac", r->cn);
        cJSON_AddStringToObject(o, "serial", serial);
        cJSON_AddStringToObject(o, "not_before", from);
        cJSON_AddStringToObject(o, "not_after", to);
        cJSON_AddBoolToObject(o, "new_key", r->new_key);
        cJSON_AddBoolToObject(o, "resumed", r->resumed || r->finished_only);
        cJSON_AddStringToObject(o, "folder", r->folder);
        cJSON_AddStringToObject(o, "older_serial", r->old_serial);
        json_print(o);
        cJSON_Delete(o);
        return;
    }
    printf("%s has its next certificate%s\n", r->cn,
           r->finished_only ? " (of an earlier run, which was interrupted)" : "");
    printf("  folder  %s\n  serial  %s\n  valid   %s to %s\n  key     %s\n", r->folder, serial,
           from, to, r->new_key ? "a new one" : "the same");
    printf("  older   kept as %s.%.8s%s; it stays valid until %s\n", DEVICE_CERT, r->old_serial,
           r->new_key ? ", and its key likewise" : "", old);
    printf("Next, when the board has the new one:\n"
           "  signet revoke --serial %s --reason superseded\n",
           r->old_serial);
}

/* ---- the command ---- */

/* It connects as the device: with the present key and certificate. */
static int connect_as_device(const struct renewal *r, struct session *s, struct failure *f)
{
    free(s->settings.cert);
    free(s->settings.key);
    s->settings.cert = strdup(r->cert_path);
    s->settings.key = strdup(r->key_path);
    return s->settings.cert && s->settings.key ? session_connect(s, "device", f) : fail_memory(f);
}

static int renew(struct renewal *r, struct session *s, const struct options *o, struct failure *f)
{
    if (lock_folder(r, f) || load_present(r, f))
        return -1;
    int was_there = has(r->dir, PENDING);
    if (was_there && open_pending(r, f))
        return -1;
    int decided = was_there && has(r->sub, DEVICE_CERT);
    /* before anything is made: the key must be readable and the certificate's */
    if (!decided && connect_as_device(r, s, f))
        return -1;
    if (!was_there && open_pending(r, f))
        return -1;
    if (decided ? load_decided(r, s, f) : make_or_find(r, o, f) || ask(r, s, f))
        return -1;
    if (put_in_place(r, f))
        return -1;
    print(r, o->json);
    return 0;
}

static void close_all(struct renewal *r)
{
    if (r->sub >= 0)
        close(r->sub);
    if (r->dir >= 0)
        close(r->dir);
    X509_free(r->cert);
    X509_free(r->old);
    X509_REQ_free(r->csr);
    EVP_PKEY_free(r->key);
    OPENSSL_free(r->cn);
    free(r->folder);
    free(r->pending);
    free(r->key_path);
    free(r->cert_path);
}

int cmd_renew(const struct options *o, struct failure *f)
{
    struct session s = {0};
    struct renewal r = {.dir = -1, .sub = -1};
    int rc = o->key_type ? key_type_check(o->key_type, f) : 0;
    if (rc == 0 && o->key_type && !o->new_key)
        rc = fail(f, EXIT_USAGE, "usage", "--key-type is for a new key: give --new-key as well");
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = name_folder(&r, o, s.settings.out, f);
    if (rc == 0)
        rc = renew(&r, &s, o, f);
    close_all(&r);
    session_close(&s);
    return rc;
}
