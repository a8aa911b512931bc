/* signet init: the root pinned by its fingerprint, the operator's key and request; and, with
 * --install, the operator's certificate taken into use. */
#include <errno.h>
#include <openssl/x509v3.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/keys.h"
#include "client/session.h"
#include "common/file.h"

#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-"
#define NAME_MAX_LEN 64 /* ub-common-name (RFC 5280 appendix A.1) */

struct setup {
    uint8_t fingerprint[32];
    char name[NAME_MAX_LEN + 1];
    char *folder, *csr; /* paths; the others are in the session's settings */
    struct session session;
};

/* Hex, with or without colons, or the whole line that openssl prints ("sha256 Fingerprint=…"). */
static int parse_fingerprint(uint8_t out[32], const char *text, struct failure *f)
{
    char digits[65];
    size_t n = 0, len = 0;
    const char *p = strchr(text, '=') ? strchr(text, '=') + 1 : text;
    for (; *p && n < 64; p++)
        if (*p != ':')
            digits[n++] = *p;
    digits[n] = '\0';
    if (*p || hex_decode(out, 32, &len, digits) || len != 32)
        return fail(f, EXIT_USAGE, "usage",
                    "\"%s\" is not a SHA-256 fingerprint (32 bytes in hex); on the server: openssl "
                    "x509 -in root.pem -noout -fingerprint -sha256",
                    text);
    return 0;
}

/* user@host, with '-' for what a name must not hold */
static void default_name(char out[NAME_MAX_LEN + 1])
{
    char host[64] = "";
    const struct passwd *user = getpwuid(geteuid());
    if (gethostname(host, sizeof host - 1))
        snprintf(host, sizeof host, "localhost");
    snprintf(out, NAME_MAX_LEN + 1, "%.32s@%.31s", user ? user->pw_name : "operator", host);
    for (char *p = out; *p; p++)
        if (!strchr(NAME_CHARACTERS, *p))
            *p = '-';
}

static int choose_name(char out[NAME_MAX_LEN + 1], const char *name, struct failure *f)
{
    if (!name) {
        default_name(out);
        return 0;
    }
    size_t len = strlen(name);
    if (len == 0 || len > NAME_MAX_LEN || strspn(name, NAME_CHARACTERS) != len)
        return fail(f, EXIT_USAGE, "usage",
                    "name \"%s\" is not 1 to 64 of letters, digits and . _ @ -", name);
    memcpy(out, name, len + 1);
    return 0;
}

/* The four files beside the config file. */
static int choose_paths(struct setup *u, struct failure *f)
{
    struct settings *s = &u->session.settings;
    struct err err;
    char *given = path_folder(s->file);
    int rc = given ? 0 : fail_memory(f);
    if (rc == 0 && file_make_dir(given, 0700, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    /* the config file must hold from any folder */
    if (rc == 0 && !(u->folder = realpath(given, NULL)))
        rc = fail(f, EXIT_LOCAL, "local_file", "cannot find folder %s: %s", given, strerror(errno));
    free(given);
    if (rc)
        return -1;
    u->csr = path_join(u->folder, "operator.csr");
    s->ca = path_join(u->folder, "ca.pem");
    s->cert = path_join(u->folder, "operator.pem");
    s->key = path_join(u->folder, "operator.key");
    return u->csr && s->ca && s->cert && s->key ? 0 : fail_memory(f);
}

static X509 *find_root(STACK_OF(X509) * chain, const uint8_t fingerprint[32])
{
    uint8_t digest[32];
    for (int i = 0; i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);
        if (cert_fingerprint(digest, cert) == 0 && memcmp(digest, fingerprint, 32) == 0 &&
            cert_is_root(cert) && X509_up_ref(cert) == 1)
            return cert;
    }
    return NULL;
}

/* Asks an unproven server for its chain: nothing of it is believed but the certificate that has
 * the pinned fingerprint. */
static int fetch_root(struct setup *u, struct failure *f)
{
    struct session *s = &u->session;
    struct http *unproven = NULL;
    STACK_OF(X509) *chain = NULL;
    int rc = http_open(&unproven, &s->settings, NULL, NULL, f);
    if (rc == 0)
        rc = fetch_chain(unproven, &chain, f) ? fail_at(f, s->settings.server) : 0;
    if (rc == 0 && !(s->root = find_root(chain, u->fingerprint)))
        rc = fail(f, EXIT_VERIFY, "fingerprint_mismatch",
                  "%s has no root with this fingerprint; it is another CA, or somebody is in "
                  "between: compare the fingerprint with the CA's keeper",
                  s->settings.server);
    certs_free(chain);
    http_close(unproven);
    return rc;
}

/* Now anew, with nothing trusted but that root. */
static int prove_server(struct session *s, struct failure *f)
{
    STACK_OF(X509) *chain = NULL;
    if (session_connect(s, NULL, f) || session_chain(s, &chain, f))
        return -1;
    certs_free(chain);
    return 0;
}

static int save_root(const struct setup *u, struct failure *f)
{
    const char *path = u->session.settings.ca;
    struct buf pem = {0};
    struct err err;
    X509 *old = NULL;
    if (access(path, F_OK) == 0) {
        int same = root_load(&old, path, f) == 0 && X509_cmp(old, u->session.root) == 0;
        X509_free(old);
        return same ? 0
                    : fail(f, EXIT_LOCAL, "already_exists",
                           "%s exists and is not this root; it is not overwritten", path);
    }
    int rc = cert_pem(&pem, u->session.root, f);
    if (rc == 0 && file_write(path, buf_view(&pem), 0644, 0, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    buf_free(&pem);
    return rc;
}

/* A key that an interrupted init left is used. */
static int save_key_and_request(const struct setup *u, const char *key_type, struct failure *f)
{
    const char *path = u->session.settings.key;
    EVP_PKEY *key = NULL;
    X509_REQ *csr = NULL;
    int rc;
    if (access(path, F_OK) == 0)
        rc = key_load(&key, path, f);
    else
        rc = key_make(&key, key_type, f) || key_save(key, path, f) ? -1 : 0;
    if (rc == 0)
        rc = csr_make(&csr, key, u->name, f);
    if (rc == 0)
        rc = csr_save(csr, u->csr, 1, f);
    X509_REQ_free(csr);
    EVP_PKEY_free(key);
    return rc;
}

static void print_setup(const struct setup *u, int json)
{
    const struct settings *s = &u->session.settings;
    char hex[65];
    hex_encode(hex, (struct bytes){u->fingerprint, sizeof u->fingerprint});
    if (json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "status", "OK");
        cJSON_AddStringToObject(o, "server", s->server);
        cJSON_AddStringToObject(o, "ca_fingerprint", hex);
        cJSON_AddStringToObject(o, "name", u->name);
        cJSON_AddStringToObject(o, "config", s->file);
        cJSON_AddStringToObject(o, "ca", s->ca);
        cJSON_AddStringToObject(o, "key", s->key);
        cJSON_AddStringToObject(o, "csr", u->csr);
        json_print(o);
        cJSON_Delete(o);
        return;
    }
    printf("%s is proven by the pinned root\n", s->server);
    printf("  root     %s\n  sha256   %s\n  config   %s\n  key      %s\n  request  %s (%s)\n",
           s->ca, hex, s->file, s->key, u->csr, u->name);
    printf("Next, on the server, with that request:\n"
           "  signetctl operator issue --csr operator.csr --role provisioner > operator.pem\n"
           "then here, with what it gave:\n"
           "  signet init --install operator.pem\n");
}

static int set_up(struct setup *u, const char *key_type, int json, struct failure *f)
{
    struct session *s = &u->session;
    if (access(s->settings.file, F_OK) == 0)
        return fail(f, EXIT_LOCAL, "already_exists",
                    "%s exists already; move it away, or choose another one with --config",
                    s->settings.file);
    if (fetch_root(u, f) || prove_server(s, f) || choose_paths(u, f) || save_root(u, f) ||
        save_key_and_request(u, key_type, f) || settings_write(&s->settings, f))
        return -1;
    print_setup(u, json);
    return 0;
}

static int init(const struct options *o, struct failure *f)
{
    struct setup u = {0};
    const char *key_type = o->key_type ? o->key_type : KEY_TYPE_DEFAULT;
    int rc = parse_fingerprint(u.fingerprint, o->ca_fingerprint, f);
    if (rc == 0)
        rc = choose_name(u.name, o->name, f);
    if (rc == 0)
        rc = key_type_check(key_type, f);
    if (rc == 0)
        rc = settings_load(&u.session.settings, o, f);
    if (rc == 0)
        rc = settings_need(u.session.settings.server, "server", &u.session.settings, f);
    if (rc == 0)
        rc = set_up(&u, key_type, o->json, f);
    free(u.folder);
    free(u.csr);
    session_close(&u.session);
    return rc;
}

/* --- --install --- */

/* The first of certs, for our key, up to the root by way of the others and the server's chain. */
static int check_operator_cert(struct session *s, STACK_OF(X509) * certs, const char *path,
                               struct failure *f)
{
    EVP_PKEY *key = NULL;
    STACK_OF(X509) *chain = NULL;
    X509 *cert = sk_X509_value(certs, 0);
    int rc = key_load(&key, s->settings.key, f);
    if (rc == 0 && X509_check_private_key(cert, key) != 1)
        rc = fail(f, EXIT_VERIFY, "certificate_of_other_key",
                  "%s is for another key than %s; it answers another request", path,
                  s->settings.key);
    if (rc == 0 && session_connect(s, NULL, f) == 0 && session_chain(s, &chain, f) == 0) {
        X509_add_certs(chain, certs, X509_ADD_FLAG_UP_REF);
        struct cert_check check = {
            .root = s->root, .chain = chain, .purpose = X509_PURPOSE_SSL_CLIENT};
        rc = cert_verify(cert, &check, NULL, path, f);
    } else {
        rc = -1;
    }
    certs_free(chain);
    EVP_PKEY_free(key);
    return rc;
}

static int save_operator_cert(const struct settings *s, X509 *cert, int json, struct failure *f)
{
    struct buf pem = {0};
    struct err err;
    char until[TIME_TEXT_SIZE];
    int rc = cert_pem(&pem, cert, f);
    if (rc == 0 && file_write(s->cert, buf_view(&pem), 0644, 1, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    buf_free(&pem);
    if (rc)
        return -1;
    time_text(until, X509_get0_notAfter(cert));
    if (json) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "status", "OK");
        cJSON_AddStringToObject(o, "cert", s->cert);
        cJSON_AddStringToObject(o, "not_after", until);
        json_print(o);
        cJSON_Delete(o);
    } else {
        printf("%s is in use until %s\n", s->cert, until);
        printf("Next: signet provision --mac 24:0a:c4:12:34:56\n");
    }
    return 0;
}

static int install(const struct options *o, struct failure *f)
{
    struct session s = {0};
    STACK_OF(X509) *certs = NULL;
    int rc = session_open(&s, o, f);
    if (rc == 0)
        rc = settings_need(s.settings.cert, "cert", &s.settings, f);
    if (rc == 0)
        rc = settings_need(s.settings.key, "key", &s.settings, f);
    if (rc == 0)
        rc = certs_load(&certs, o->install, f);
    if (rc == 0)
        rc = check_operator_cert(&s, certs, o->install, f);
    if (rc == 0)
        rc = save_operator_cert(&s.settings, sk_X509_value(certs, 0), o->json, f);
    certs_free(certs);
    session_close(&s);
    return rc;
}

int cmd_init(const struct options *o, struct failure *f)
{
    if (o->install && o->ca_fingerprint)
        return fail(f, EXIT_USAGE, "usage",
                    "--install comes after the set-up: give it without --ca-fingerprint");
    if (o->install)
        return install(o, f);
    if (!o->ca_fingerprint)
        return fail(f, EXIT_USAGE, "usage",
                    "no --ca-fingerprint, and without it any server could pose as yours; get it "
                    "from the CA's keeper: openssl x509 -in root.pem -noout -fingerprint -sha256");
    return init(o, f);
}
