/* signet server-cert: a certificate for a server that the devices connect to, such as a broker. */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/keys.h"
#include "client/obtain.h"
#include "common/file.h"
#include "pki/csr.h"

#define CN_MAX 64 /* ub-common-name (RFC 5280 appendix A.1) */

struct order {
    X509_REQ *csr;
    char **names; /* "DNS:…", "IP:…", NULL-terminated; one allocation */
    int key_made;
};

static int check_usage(const struct options *o, struct failure *f)
{
    if (!o->csr == !o->names.count)
        return fail(f, EXIT_USAGE, "usage",
                    "for which server? give --csr FILE, or --name HOST and --out-key FILE");
    if (!o->names.count != !o->out_key)
        return fail(f, EXIT_USAGE, "usage",
                    "--name and --out-key go together: the key is made and saved there");
    if (o->csr && o->key_type)
        return fail(f, EXIT_USAGE, "usage", "--key-type is for a key made here: give --name");
    if (!o->out)
        return fail(f, EXIT_USAGE, "usage", "where is the certificate to go? give --out FILE");
    for (size_t i = 0; i < o->names.count; i++) {
        const char *name = o->names.value[i];
        if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:-") !=
                strlen(name) ||
            strlen(name) > 253 || (i == 0 && strlen(name) > CN_MAX))
            return fail(f, EXIT_USAGE, "usage",
                        "\"%s\" is not a host name or IP address (without wildcards; the first one "
                        "of at most %d characters)",
                        name, CN_MAX);
    }
    return 0;
}

/* Before anything is asked: nothing is overwritten, and there is room for the answer. */
static int check_out(const char *path, struct failure *f)
{
    char *folder = path_folder(path);
    int rc = folder ? 0 : fail_memory(f);
    if (rc == 0 && access(path, F_OK) == 0)
        rc = fail(f, EXIT_LOCAL, "already_exists",
                  "%s exists already and is never overwritten; move it away, or give another --out",
                  path);
    if (rc == 0 && access(folder, W_OK))
        rc = fail(f, EXIT_LOCAL, "local_file", "cannot write in %s: %s", folder, strerror(errno));
    free(folder);
    return rc;
}

static int is_address(const char *name)
{
    unsigned char bytes[16];
    return inet_pton(AF_INET, name, bytes) == 1 || inet_pton(AF_INET6, name, bytes) == 1;
}

static int name_all(struct order *u, const struct options *o, struct failure *f)
{
    struct {
        char *list[VALUES_MAX + 1];
        char text[VALUES_MAX][260];
    } *room = calloc(1, sizeof *room);
    if (!room)
        return fail_memory(f);
    for (size_t i = 0; i < o->names.count; i++) {
        const char *name = o->names.value[i];
        snprintf(room->text[i], sizeof room->text[i], "%s:%s", is_address(name) ? "IP" : "DNS",
                 name);
        room->list[i] = room->text[i];
    }
    u->names = room->list;
    return 0;
}

/* A key that is there already is used again: for the certificate that follows this one. */
static int make_request(struct order *u, const struct options *o, const char *key_type,
                        struct failure *f)
{
    EVP_PKEY *key = NULL;
    u->key_made = access(o->out_key, F_OK) != 0;
    int rc = name_all(u, o, f);
    if (rc == 0 && u->key_made)
        rc = key_make(&key, key_type, f) || key_save(key, o->out_key, f) ? -1 : 0;
    else if (rc == 0)
        rc = key_load(&key, o->out_key, f);
    if (rc == 0)
        rc = csr_make_for_names(&u->csr, key, o->names.value[0], (const char *const *)u->names, f);
    EVP_PKEY_free(key);
    return rc;
}

/* The names are read from the request, to find them in the certificate again. */
static int read_request(struct order *u, const char *path, struct failure *f)
{
    struct csr *csr = NULL;
    struct buf text = {0};
    struct err err;
    int rc = file_read(&text, path, CSR_SIZE_MAX, &err);
    if (rc == 0)
        rc = csr_parse(&csr, buf_view(&text), &err) || csr_names(csr, &u->names, &err);
    if (rc)
        fail(f, EXIT_LOCAL, "local_file", "%s: %s", path, err.text);
    else
        rc = csr_read(&u->csr, path, f);
    csr_free(csr);
    buf_free(&text);
    return rc ? -1 : 0;
}

static int save(const char *path, const struct issued *i, struct failure *f)
{
    struct buf pem = {0};
    struct err err;
    int rc = cert_pem(&pem, i->cert, f);
    for (int n = 0; rc == 0 && n < sk_X509_num(i->between); n++)
        rc = cert_pem(&pem, sk_X509_value(i->between, n), f);
    if (rc == 0 && file_write(path, buf_view(&pem), 0644, 0, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    buf_free(&pem);
    return rc;
}

static void print(const struct order *u, X509 *cert, const char *ca, const struct options *o)
{
    char serial[SERIAL_TEXT_SIZE], from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE];
    serial_text(serial, X509_get0_serialNumber(cert));
    time_text(from, X509_get0_notBefore(cert));
    time_text(to, X509_get0_notAfter(cert));
    if (o->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "status", "OK");
        cJSON_AddStringToObject(object, "serial", serial);
        cJSON *names = cJSON_AddArrayToObject(object, "names");
        for (size_t i = 0; u->names[i]; i++)
            cJSON_AddItemToArray(names, cJSON_CreateString(u->names[i]));
        cJSON_AddStringToObject(object, "not_before", from);
        cJSON_AddStringToObject(object, "not_after", to);
        cJSON_AddStringToObject(object, "certificate", o->out);
        if (o->out_key)
            cJSON_AddStringToObject(object, "key", o->out_key);
        json_print(object);
        cJSON_Delete(object);
        return;
    }
    printf("%s is the server's certificate, with the intermediates behind it\n  names   ", o->out);
    for (size_t i = 0; u->names[i]; i++)
        printf("%s%s", i ? ", " : "", u->names[i]);
    printf("\n  serial  %s\n  valid   %s to %s\n", serial, from, to);
    if (o->out_key)
        printf("  key     %s%s: keep it secret\n", o->out_key,
               u->key_made ? "" : " (the one that was there)");
    printf("  its clients must trust the root: %s\n", ca);
}

static int certify(const struct order *u, struct session *s, const struct options *o,
                   struct failure *f)
{
    char id[33];
    struct issued issued = {0};
    struct wanted w = {.operation = "req_server_cert",
                       .csr = u->csr,
                       .profile = o->profile,
                       .request_id = id,
                       .sign = 1,
                       .names = (const char *const *)u->names,
                       .purpose = X509_PURPOSE_SSL_SERVER};
    int rc = request_id_new(id, f);
    if (rc == 0)
        rc = obtain(&issued, s, &w, f);
    if (rc && u->key_made)
        fail_add(f, "the key %s stays: the same command uses it", o->out_key);
    if (rc == 0 && save(o->out, &issued, f)) {
        char serial[SERIAL_TEXT_SIZE];
        serial_text(serial, X509_get0_serialNumber(issued.cert));
        rc = fail_add(f, "it was issued: signet show --serial %s --json gives it again", serial);
    }
    if (rc == 0)
        print(u, issued.cert, s->settings.ca, o);
    issued_free(&issued);
    return rc;
}

int cmd_server_cert(const struct options *o, struct failure *f)
{
    struct session s = {0};
    struct order u = {0};
    const char *key_type = o->key_type ? o->key_type : KEY_TYPE_DEFAULT;
    int rc = check_usage(o, f);
    if (rc == 0)
        rc = key_type_check(key_type, f);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = check_out(o->out, f);
    if (rc == 0)
        rc = o->csr ? read_request(&u, o->csr, f) : make_request(&u, o, key_type, f);
    if (rc == 0)
        rc = certify(&u, &s, o, f);
    X509_REQ_free(u.csr);
    free(u.names);
    session_close(&s);
    return rc;
}
