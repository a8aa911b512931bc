/* signet provision: a device's key and certificate. */
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/device_dir.h"
#include "client/keys.h"
#include "client/obtain.h"
#include "pki/mac.h"

/* Asks for it, also once more after an interruption: the same request has the same id. With
 * --replace it is another request, so it has another one. */
static int ask(struct issued *out, struct session *s, const struct device_dir *d,
               const struct options *o, struct failure *f)
{
    char id[33], context[128];
    const char *profile = o->profile ? o->profile : "device";
    snprintf(context, sizeof context, "%s%s", profile, o->replace ? " replace" : "");
    struct wanted w = {.operation = "req_client_cert",
                       .csr = d->csr,
                       .profile = profile,
                       .request_id = id,
                       .replace = o->replace,
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

static void print_json(const struct device_dir *d, const char *serial, const char *from,
                       const char *to)
{
    static const char *const files[][2] = {{"key", DEVICE_KEY},
                                           {"certificate", DEVICE_CERT},
                                           {"chain", DEVICE_CHAIN},
                                           {"ca", DEVICE_CA}};
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "status", "OK");
    cJSON_AddStringToObject(o, "mac", d->mac);
    cJSON_AddStringToObject(o, "serial", serial);
    cJSON_AddStringToObject(o, "not_before", from);
    cJSON_AddStringToObject(o, "not_after", to);
    cJSON_AddBoolToObject(o, "resumed", d->resumed);
    cJSON_AddStringToObject(o, "folder", d->final);
    if (d->aside)
        cJSON_AddStringToObject(o, "older_folder", d->aside);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = path_join(d->final, files[i][1]);
        if (path)
            cJSON_AddStringToObject(o, files[i][0], path);
        free(path);
    }
    json_print(o);
    cJSON_Delete(o);
}

static void print(const struct device_dir *d, X509 *cert, int replaced, int json)
{
    char serial[SERIAL_TEXT_SIZE], from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE];
    serial_text(serial, X509_get0_serialNumber(cert));
    time_text(from, X509_get0_notBefore(cert));
    time_text(to, X509_get0_notAfter(cert));
    if (json) {
        print_json(d, serial, from, to);
        return;
    }
    printf("%s has its certificate%s\n", d->mac,
           d->resumed ? " (for the key of an earlier, interrupted run)" : "");
    printf("  folder  %s\n  serial  %s\n  valid   %s to %s\n", d->final, serial, from, to);
    printf("  key     %s: keep it secret; no copy was sent anywhere\n", DEVICE_KEY);
    if (d->aside)
        printf("  older   %s: the folder from before, kept\n", d->aside);
    if (replaced)
        printf("  the board's older certificate, if it was live, is revoked now (superseded)\n");
}

/* A failure leaves either nothing or what the next run goes on with; says which. */
static int leave(struct device_dir *d, struct failure *f)
{
    if (d->resumed || !f->nothing_done)
        return fail_add(f, "the key waits in %s: the same command goes on with it", d->pending);
    device_dir_discard(d);
    return f->exit > EXIT_SIGNAL ? fail_add(f, "nothing was sent and nothing is left") : -1;
}

static int provision(struct session *s, const struct options *o, const char *mac,
                     const char *key_type, struct failure *f)
{
    struct device_dir d;
    struct issued issued = {0};
    int rc = -1;
    if (device_dir_open(&d, s->settings.out ? s->settings.out : ".", mac, key_type, o->replace,
                        f)) {
        if (f->exit > EXIT_SIGNAL)
            fail_add(f, "nothing was sent and nothing is left");
        goto out;
    }
    if (ask(&issued, s, &d, o, f) ||
        device_dir_finish(&d, issued.cert, issued.between, s->root, f)) {
        leave(&d, f);
        goto out;
    }
    print(&d, issued.cert, o->replace, o->json);
    rc = 0;
out:
    issued_free(&issued);
    device_dir_close(&d);
    return rc;
}

int cmd_provision(const struct options *o, struct failure *f)
{
    char mac[MAC_TEXT_SIZE];
    struct err err;
    struct session s = {0};
    if (!o->mac)
        return fail(f, EXIT_USAGE, "usage", "which board? give --mac, such as 24:0a:c4:12:34:56");
    if (mac_from_text(mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    int rc = session_open(&s, o, f);
    const char *key_type = s.settings.key_type ? s.settings.key_type : KEY_TYPE_DEFAULT;
    if (rc == 0)
        rc = key_type_check(key_type, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = provision(&s, o, mac, key_type, f);
    session_close(&s);
    return rc;
}
