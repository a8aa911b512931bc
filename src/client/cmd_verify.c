/* signet verify: a certificate or a device's folder, against the pinned root and a CRL. */
#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/device_dir.h"
#include "client/keys.h"
#include "client/session.h"
#include "common/file.h"
#include "pki/mac.h"

/* What is verified, and what was found out. */
struct subject {
    char *folder, *path;     /* of the certificate */
    int is_device;           /* a device's folder: the key beside it, and fit for a TLS client */
    char mac[MAC_TEXT_SIZE]; /* empty: not said */
    X509 *cert;
    STACK_OF(X509) * candidates, *between;
    const char *key;        /* "matches" or "absent" */
    const char *revocation; /* "good" or "not checked" */
    char *crl_number;
};

static int from_mac(struct subject *v, const struct options *o, const char *out, struct failure *f)
{
    struct err err;
    if (mac_from_text(v->mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    v->is_device = 1;
    v->folder = device_dir_path(out ? out : ".", v->mac);
    v->path = v->folder ? path_join(v->folder, DEVICE_CERT) : NULL;
    return v->path ? 0 : fail_memory(f);
}

static int from_operand(struct subject *v, const char *operand, struct failure *f)
{
    struct stat st;
    if (stat(operand, &st))
        return fail(f, EXIT_LOCAL, "local_file", "cannot open %s: %s", operand, strerror(errno));
    v->is_device = S_ISDIR(st.st_mode);
    v->folder = v->is_device ? strdup(operand) : path_folder(operand);
    v->path = v->is_device ? path_join(operand, DEVICE_CERT) : strdup(operand);
    return v->folder && v->path ? 0 : fail_memory(f);
}

/* The file's other certificates and those of chain.pem beside it: candidates, not trusted. */
static int load_certs(struct subject *v, struct failure *f)
{
    STACK_OF(X509) *more = NULL;
    if (certs_load(&v->candidates, v->path, f))
        return -1;
    v->cert = sk_X509_shift(v->candidates);
    char *chain = path_join(v->folder, DEVICE_CHAIN);
    if (!chain)
        return fail_memory(f);
    int rc = access(chain, F_OK) == 0 ? certs_load(&more, chain, f) : 0;
    free(chain);
    if (rc == 0 && more && !X509_add_certs(v->candidates, more, X509_ADD_FLAG_UP_REF))
        rc = fail_memory(f);
    certs_free(more);
    return rc;
}

static int check_mac(const struct subject *v, struct failure *f)
{
    char *cn = *v->mac ? name_cn(X509_get_subject_name(v->cert)) : NULL;
    int wrong = *v->mac && (!cn || strcmp(cn, v->mac) != 0);
    OPENSSL_free(cn);
    return wrong ? fail(f, EXIT_VERIFY, "certificate_of_other_mac", "%s is for another MAC than %s",
                        v->path, v->mac)
                 : 0;
}

static int check_key(struct subject *v, struct failure *f)
{
    EVP_PKEY *key = NULL;
    char *path = path_join(v->folder, DEVICE_KEY);
    int rc = path ? 0 : fail_memory(f);
    v->key = "absent";
    if (rc == 0 && v->is_device && access(path, F_OK) == 0) {
        rc = key_load(&key, path, f);
        v->key = "matches";
        if (rc == 0 && X509_check_private_key(v->cert, key) != 1)
            rc = fail(f, EXIT_VERIFY, "certificate_of_other_key", "%s is for another key than %s",
                      v->path, path);
    }
    EVP_PKEY_free(key);
    free(path);
    return rc;
}

static int check_chain(struct subject *v, X509 *root, X509_CRL *crl, struct failure *f)
{
    struct cert_check check = {.root = root,
                               .chain = v->candidates,
                               .purpose = v->is_device ? X509_PURPOSE_SSL_CLIENT : 0,
                               .crl = crl};
    return cert_verify(v->cert, &check, v->between ? NULL : &v->between, v->path, f);
}

static int load_crl(X509_CRL **out, const char *path, X509 *issuer, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    if (file_read(&text, path, CRL_ANSWER_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int rc = crl_parse(out, buf_view(&text), path, EXIT_LOCAL, f);
    buf_free(&text);
    return rc ? -1 : crl_verify(*out, issuer, path, f);
}

static int get_crl(X509_CRL **out, struct session *s, const struct options *o, X509 *issuer,
                   struct failure *f)
{
    if (o->crl)
        return load_crl(out, o->crl, issuer, f);
    if (session_connect(s, NULL, f) == 0 && session_crl(s, issuer, out, f) == 0)
        return 0;
    return fail_add(f, "without the server: --crl FILE, or --offline to leave revocation out");
}

static int refuse_revoked(const struct subject *v, X509_CRL *crl, struct failure *f)
{
    char since[TIME_TEXT_SIZE] = "";
    X509_REVOKED *entry = NULL;
    if (X509_CRL_get0_by_cert(crl, &entry, v->cert) == 1)
        time_text(since, X509_REVOKED_get0_revocationDate(entry));
    return fail(f, EXIT_VERIFY, "revoked", "%s is revoked since %s", v->path, since);
}

static int check_revocation(struct subject *v, struct session *s, const struct options *o,
                            struct failure *f)
{
    X509_CRL *crl = NULL;
    v->revocation = "not checked";
    if (o->offline)
        return 0;
    X509 *issuer = sk_X509_num(v->between) > 0 ? sk_X509_value(v->between, 0) : s->root;
    int rc = get_crl(&crl, s, o, issuer, f);
    if (rc == 0 && check_chain(v, s->root, crl, f))
        rc = strcmp(f->code, "revoked") == 0 ? refuse_revoked(v, crl, f) : -1;
    if (rc == 0) {
        v->revocation = "good";
        v->crl_number = crl_number_text(crl);
    }
    X509_CRL_free(crl);
    return rc;
}

static void print_json(const struct subject *v, const char *cn, const char *serial,
                       const char *from, const char *to)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "status", "OK");
    cJSON_AddStringToObject(o, "certificate", v->path);
    cJSON_AddStringToObject(o, "subject", cn);
    cJSON_AddStringToObject(o, "serial", serial);
    cJSON_AddStringToObject(o, "not_before", from);
    cJSON_AddStringToObject(o, "not_after", to);
    cJSON_AddStringToObject(o, "key", v->key);
    cJSON_AddStringToObject(o, "revocation", v->revocation);
    if (v->crl_number)
        cJSON_AddStringToObject(o, "crl_number", v->crl_number);
    json_print(o);
    cJSON_Delete(o);
}

static void print(const struct subject *v, int json)
{
    char serial[SERIAL_TEXT_SIZE], from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE], name[128] = "";
    char *cn = name_cn(X509_get_subject_name(v->cert));
    printable(name, sizeof name, cn ? cn : "");
    OPENSSL_free(cn);
    serial_text(serial, X509_get0_serialNumber(v->cert));
    time_text(from, X509_get0_notBefore(v->cert));
    time_text(to, X509_get0_notAfter(v->cert));
    if (json) {
        print_json(v, name, serial, from, to);
        return;
    }
    printf("%s is good: it leads to the pinned root\n", v->path);
    printf("  subject     %s\n  serial      %s\n  valid       %s to %s\n", name, serial, from, to);
    printf("  key         %s\n  revocation  ", v->key);
    if (v->crl_number)
        printf("not revoked (CRL %s)\n", v->crl_number);
    else
        printf("%s\n", strcmp(v->revocation, "good") == 0 ? "not revoked" : v->revocation);
}

static int verify(struct subject *v, struct session *s, const struct options *o, struct failure *f)
{
    if (load_certs(v, f) || check_mac(v, f) || check_chain(v, s->root, NULL, f) ||
        check_key(v, f) || check_revocation(v, s, o, f))
        return -1;
    print(v, o->json);
    return 0;
}

static int check_usage(const struct options *o, struct failure *f)
{
    if (!o->operand == !o->mac)
        return fail(f, EXIT_USAGE, "usage",
                    "what is to be verified? give a file, a folder, or --mac MAC");
    if (o->offline && o->crl)
        return fail(f, EXIT_USAGE, "usage",
                    "--offline leaves revocation out, --crl checks it: give one");
    return 0;
}

int cmd_verify(const struct options *o, struct failure *f)
{
    struct session s = {0};
    struct subject v = {0};
    int rc = check_usage(o, f);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = o->mac ? from_mac(&v, o, s.settings.out, f) : from_operand(&v, o->operand, f);
    if (rc == 0)
        rc = verify(&v, &s, o, f);
    OPENSSL_free(v.crl_number);
    X509_free(v.cert);
    certs_free(v.candidates);
    certs_free(v.between);
    free(v.path);
    free(v.folder);
    session_close(&s);
    return rc;
}
