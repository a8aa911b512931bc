/* signet provision: a device's key and certificate. */
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/device_dir.h"
#include "client/keys.h"
#include "client/session.h"
#include "pki/mac.h"

/* What the server sent, verified. */
struct issued {
    X509 *cert;
    STACK_OF(X509) * between;
};

/* The same request has the same id, also in a later run: it is made from the request itself. Thus
 * whatever became of an earlier answer, asking again gives the same certificate. */
static int request_id(char out[33], const char *profile, X509_REQ *csr)
{
    unsigned char *der = NULL;
    uint8_t digest[32];
    struct buf in = {0};
    int len = i2d_X509_REQ(csr, &der);
    int rc =
        len < 0 || buf_add(&in, profile, strlen(profile) + 1) || buf_add(&in, der, (size_t)len);
    if (rc == 0) {
        sha256(digest, buf_view(&in));
        hex_encode(out, (struct bytes){digest, 16});
    }
    OPENSSL_free(der);
    buf_free(&in);
    return rc ? -1 : 0;
}

static int make_request(cJSON **out, const char *profile, X509_REQ *csr, struct failure *f)
{
    struct buf pem = {0};
    char id[33];
    if (csr_pem(&pem, csr, f))
        return -1;
    char *text = base64_encode(buf_view(&pem));
    cJSON *request = cJSON_CreateObject();
    int good = text && request_id(id, profile, csr) == 0 &&
               cJSON_AddStringToObject(request, "operation", "req_client_cert") &&
               cJSON_AddStringToObject(request, "csr", text) &&
               cJSON_AddStringToObject(request, "profile", profile) &&
               cJSON_AddStringToObject(request, "request_id", id);
    free(text);
    buf_free(&pem);
    if (good) {
        *out = request;
        return 0;
    }
    cJSON_Delete(request);
    return fail_memory(f);
}

static int answer_certs(STACK_OF(X509) * *out, const cJSON *answer, const char *name,
                        struct failure *f)
{
    char what[64];
    struct buf pem = {0};
    if (answer_bytes(&pem, answer, name, f))
        return -1;
    snprintf(what, sizeof what, "the answer's %s", name);
    int rc = certs_parse(out, buf_view(&pem), what, EXIT_VERIFY, f);
    buf_free(&pem);
    return rc;
}

/* It must be ours: this key, this MAC, the serial that was announced. */
static int check_identity(X509 *cert, const struct device_dir *d, const char *serial,
                          struct failure *f)
{
    char found[SERIAL_TEXT_SIZE];
    char *cn = name_cn(X509_get_subject_name(cert));
    int rc = 0;
    serial_text(found, X509_get0_serialNumber(cert));
    if (X509_check_private_key(cert, d->key) != 1)
        rc = fail(f, EXIT_VERIFY, "certificate_of_other_key",
                  "the certificate is for another key than the one made for %s", d->mac);
    else if (!cn || strcmp(cn, d->mac) != 0)
        rc = fail(f, EXIT_VERIFY, "certificate_of_other_mac",
                  "the certificate is for another MAC than %s", d->mac);
    else if (!*found || strcmp(found, serial) != 0)
        rc = fail(f, EXIT_VERIFY, "serial_mismatch",
                  "the certificate's serial %s is not the announced one", found);
    OPENSSL_free(cn);
    return rc;
}

static int verify_answer(struct issued *out, const cJSON *answer, const struct device_dir *d,
                         X509 *root, struct failure *f)
{
    STACK_OF(X509) *certs = NULL, *chain = NULL;
    const char *serial;
    int rc = -1;
    if (answer_text(&serial, answer, "serial", f) ||
        answer_certs(&certs, answer, "certificate", f) || answer_certs(&chain, answer, "chain", f))
        goto out;
    struct cert_check check = {.root = root, .chain = chain, .purpose = X509_PURPOSE_SSL_CLIENT};
    X509 *cert = sk_X509_value(certs, 0);
    if (check_identity(cert, d, serial, f) ||
        cert_verify(cert, &check, &out->between, "the certificate", f))
        goto out;
    out->cert = sk_X509_shift(certs);
    rc = 0;
out:
    certs_free(certs);
    certs_free(chain);
    return rc;
}

/* Sends the request and verifies what comes back. */
static int obtain(struct issued *out, struct session *s, const struct device_dir *d,
                  const char *profile, struct failure *f)
{
    cJSON *request = NULL, *answer = NULL;
    if (make_request(&request, profile, d->csr, f))
        return -1;
    int rc = http_call(s->http, request, ANSWER_MAX, &answer, f);
    if (rc == 0 && verify_answer(out, answer, d, s->root, f)) {
        char why[sizeof f->text];
        snprintf(why, sizeof why, "%s", f->text);
        rc = fail(f, f->exit, f->code, "%s sent what does not verify: %s; nothing of it was saved",
                  s->settings.server, why);
    }
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc;
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
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = path_join(d->final, files[i][1]);
        if (path)
            cJSON_AddStringToObject(o, files[i][0], path);
        free(path);
    }
    json_print(o);
    cJSON_Delete(o);
}

static void print(const struct device_dir *d, X509 *cert, int json)
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
    if (device_dir_open(&d, s->settings.out ? s->settings.out : ".", mac, key_type, f)) {
        if (f->exit > EXIT_SIGNAL)
            fail_add(f, "nothing was sent and nothing is left");
        goto out;
    }
    if (obtain(&issued, s, &d, o->profile ? o->profile : "device", f) ||
        device_dir_finish(&d, issued.cert, issued.between, s->root, f)) {
        leave(&d, f);
        goto out;
    }
    print(&d, issued.cert, o->json);
    rc = 0;
out:
    X509_free(issued.cert);
    certs_free(issued.between);
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
        rc = session_connect(&s, 1, f);
    if (rc == 0)
        rc = provision(&s, o, mac, key_type, f);
    session_close(&s);
    return rc;
}
