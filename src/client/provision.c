#include "client/provision.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/device_mark.h"
#include "client/keys.h"
#include "client/obtain.h"

int board_settings(struct board *b, const struct session *s, struct failure *f)
{
    b->key_type = s->settings.key_type ? s->settings.key_type : KEY_TYPE_DEFAULT;
    b->out = s->settings.out ? s->settings.out : ".";
    return key_type_check(b->key_type, f);
}

/* Asks for it, also once more after an interruption: the same request has the same id. With
 * replace it is another request, so it has another one. */
static int ask(struct issued *out, struct session *s, const struct device_dir *d,
               const struct board *b, struct failure *f)
{
    char id[33], context[128];
    const char *profile = b->profile ? b->profile : PROFILE_DEFAULT;
    snprintf(context, sizeof context, "%s%s", profile, b->replace ? " replace" : "");
    struct wanted w = {.operation = "req_client_cert",
                       .csr = d->csr,
                       .profile = profile,
                       .request_id = id,
                       .replace = b->replace,
                       .name = d->mac,
                       .purpose = X509_PURPOSE_SSL_CLIENT};
    if (request_id_of(id, context, d->csr))
        return fail_memory(f);
    if (obtain(out, s, &w, f) == 0)
        return 0;
    if (strcmp(f->code, "subject_has_certificate") == 0)
        fail_add(f, "with this client: signet provision --mac %s --replace", d->mac);
    return -1;
}

/* A failure leaves either nothing or what the next run goes on with; says which. */
static int leave(struct device_dir *d, struct failure *f)
{
    if (d->resumed || !f->nothing_done)
        return fail_add(f, "the key waits in %s: the same command goes on with it", d->pending);
    device_dir_discard(d);
    return f->exit > EXIT_SIGNAL ? fail_add(f, "nothing was sent and nothing is left") : -1;
}

static void describe(struct provisioned *out, const char *mac, X509 *cert)
{
    snprintf(out->mac, sizeof out->mac, "%s", mac);
    serial_text(out->serial, X509_get0_serialNumber(cert));
    time_text(out->not_before, X509_get0_notBefore(cert));
    time_text(out->not_after, X509_get0_notAfter(cert));
}

static void take_folders(struct provisioned *out, struct device_dir *d)
{
    out->folder = d->final;
    out->aside = d->aside;
    out->resumed = d->resumed;
    d->final = d->aside = NULL;
}

static int mark(const struct device_dir *d, const struct board *b, struct failure *f)
{
    struct board_mark m = {.replacing = b->replace};
    return b->flash ? board_mark_save(&m, d->pending, f) : 0;
}

int provision(struct provisioned *out, struct session *s, const struct board *b, struct failure *f)
{
    struct device_dir d;
    struct issued issued = {0};
    int rc = -1;
    *out = (struct provisioned){0};
    if (device_dir_open(&d, b->out, b->mac, b->key_type, b->replace, f)) {
        if (f->exit > EXIT_SIGNAL)
            fail_add(f, "nothing was sent and nothing is left");
        goto out;
    }
    if (ask(&issued, s, &d, b, f) || mark(&d, b, f) ||
        device_dir_finish(&d, issued.cert, issued.between, s->root, f)) {
        leave(&d, f);
        goto out;
    }
    describe(out, d.mac, issued.cert);
    take_folders(out, &d);
    rc = 0;
out:
    issued_free(&issued);
    device_dir_close(&d);
    return rc;
}

int provision_key(const struct board *b, int *resumed, struct failure *f)
{
    struct device_dir d;
    int rc = device_dir_open(&d, b->out, b->mac, b->key_type, b->replace, f);
    *resumed = d.resumed;
    device_dir_close(&d);
    return rc;
}

/* The key of a verified board is taken away, and half of it may be gone: it is not looked at. */
static int needs_key(int *out, const char *folder, X509 *cert, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    struct board_mark m;
    if (board_mark_load(&m, folder, f))
        return -1;
    serial_text(serial, X509_get0_serialNumber(cert));
    int goes = m.done == STEP_VERIFIED && !m.keep_key && strcmp(m.serial, serial) == 0;
    *out = !goes && (device_has(folder, DEVICE_KEY) || !device_has(folder, DEVICE_MARK));
    return 0;
}

static int load(const char *folder, X509 **cert, STACK_OF(X509) * *chain, EVP_PKEY **key,
                struct failure *f)
{
    int with_key = 0;
    char *at_cert = path_join(folder, DEVICE_CERT), *at_chain = path_join(folder, DEVICE_CHAIN),
         *at_key = path_join(folder, DEVICE_KEY);
    int rc = !at_cert || !at_chain || !at_key ? fail_memory(f)
             : cert_load(cert, at_cert, f) || certs_load(chain, at_chain, f) ||
                     needs_key(&with_key, folder, *cert, f) ||
                     (with_key && key_load(key, at_key, f))
                 ? -1
                 : 0;
    free(at_cert);
    free(at_chain);
    free(at_key);
    return rc;
}

static int check_owner(X509 *cert, EVP_PKEY *key, const struct board *b, struct failure *f)
{
    char *cn = name_cn(X509_get_subject_name(cert));
    int same = cn && strcmp(cn, b->mac) == 0;
    OPENSSL_free(cn);
    if (!same)
        return fail(f, EXIT_VERIFY, "certificate_of_other_mac",
                    "the certificate is for another MAC than %s", b->mac);
    return !key || X509_check_private_key(cert, key) == 1
               ? 0
               : fail(f, EXIT_VERIFY, "certificate_of_other_key",
                      "the certificate is for another key than the one beside it");
}

int provision_find(struct provisioned *out, X509 *root, const struct board *b, struct failure *f)
{
    X509 *cert = NULL;
    STACK_OF(X509) *chain = NULL;
    EVP_PKEY *key = NULL;
    *out = (struct provisioned){.folder = device_dir_path(b->out, b->mac)};
    int rc = out->folder ? load(out->folder, &cert, &chain, &key, f) : fail_memory(f);
    struct cert_check check = {.root = root, .chain = chain, .purpose = X509_PURPOSE_SSL_CLIENT};
    if (rc == 0 && check_owner(cert, key, b, f) == 0)
        rc = cert_verify(cert, &check, NULL, "the certificate", f);
    else
        rc = -1;
    if (rc == 0)
        describe(out, b->mac, cert);
    X509_free(cert);
    certs_free(chain);
    EVP_PKEY_free(key);
    return rc;
}

cJSON *provisioned_json(const struct provisioned *p)
{
    static const char *const files[][2] = {{"key", DEVICE_KEY},
                                           {"certificate", DEVICE_CERT},
                                           {"chain", DEVICE_CHAIN},
                                           {"ca", DEVICE_CA}};
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "status", "OK");
    cJSON_AddStringToObject(o, "mac", p->mac);
    cJSON_AddStringToObject(o, "serial", p->serial);
    cJSON_AddStringToObject(o, "not_before", p->not_before);
    cJSON_AddStringToObject(o, "not_after", p->not_after);
    cJSON_AddBoolToObject(o, "resumed", p->resumed);
    cJSON_AddStringToObject(o, "folder", p->folder);
    if (p->aside)
        cJSON_AddStringToObject(o, "older_folder", p->aside);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = device_has(p->folder, files[i][1]) ? path_join(p->folder, files[i][1]) : NULL;
        if (path)
            cJSON_AddStringToObject(o, files[i][0], path);
        free(path);
    }
    return o;
}

void provisioned_free(struct provisioned *p)
{
    free(p->folder);
    free(p->aside);
}
