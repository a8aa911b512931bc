#include "pki/profile.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pki/certificate.h"
#include "pki/lint.h"
#include "pki/profile_parts.h"
#include "pki/signed.h"

static const uint8_t shipped[] = {
#include "profiles.inc"
};

struct profiles {
    struct profile *first;
};

struct source {
    CONF *conf;
    const struct issuer *issuer;
    const char *public_url;
    int has_ocsp;
};

static void profile_free(struct profile *p)
{
    for (size_t i = 0; i < p->attributes; i++) {
        free(p->subject[i].type);
        free(p->subject[i].value);
    }
    for (size_t i = 0; i < p->extension_count; i++)
        X509_EXTENSION_free(p->extensions[i].fixed);
    free(p->operations);
    free(p->public_url);
    free(p->allowed_names);
    free(p->name);
    free(p);
}

/* Who has such a certificate says what is revoked: signetd alone, by the profile that it uses. */
static int check_delegate(const struct profile *p, X509 *x, struct err *err)
{
    int own = strcmp(p->name, PROFILE_OCSP) == 0;
    uint32_t eku = X509_get_extended_key_usage(x);
    int signs = eku != UINT32_MAX && eku & XKU_OCSP_SIGN;
    if (signs && !own)
        return err_set(err, ERR_field_value,
                       "extendedKeyUsage: OCSPSigning is for the profile " PROFILE_OCSP " alone");
    if (own && (eku != XKU_OCSP_SIGN || p->name_kind != NAME_LABEL || p->operations))
        return err_set(err, ERR_field_value,
                       "it is the OCSP responder's own: it has extendedKeyUsage = OCSPSigning, "
                       "name = label and no operations");
    return 0;
}

/* What no profile may make of this CA, whatever its section says: another CA, or another's OCSP
 * responder. */
static int check_certificate(const struct profile *p, const struct buf *der, struct err *err)
{
    const unsigned char *at = der->data;
    X509 *x = d2i_X509(NULL, &at, (long)der->len);
    uint32_t usage = x && X509_get_extension_flags(x) & EXFLAG_KUSAGE ? X509_get_key_usage(x) : 0;
    int rc = 0;
    if (!x)
        rc = err_set(err, ERR_field_value, "its certificates do not parse: %s", err_openssl());
    else if (usage & (X509v3_KU_KEY_CERT_SIGN | X509v3_KU_CRL_SIGN))
        rc = err_set(err, ERR_field_value, "keyUsage: keyCertSign and cRLSign are for CAs");
    else if (X509_check_ca(x) || X509_get_extension_flags(x) & EXFLAG_CA)
        rc = err_set(err, ERR_field_value,
                     "its certificates would be CAs; say basicConstraints = critical, CA:FALSE");
    else if (X509_get_extension_flags(x) & EXFLAG_INVALID)
        rc = err_set(err, ERR_field_value, "OpenSSL finds an extension of it invalid");
    else
        rc = check_delegate(p, x, err);
    X509_free(x);
    return rc;
}

/* Of now, or of the issuer's last second: one that has expired may still serve its CRL. */
static int check_sample(const struct profile *p, const struct issuer *issuer, struct err *err)
{
    static const char *const names[] = {[NAME_MAC] = "02:00:00:00:00:01",
                                        [NAME_HOSTNAME] = "sample.example",
                                        [NAME_LABEL] = "sample"};
    static const char *const sans[] = {"DNS:sample.example", "IP:192.0.2.1", NULL};
    static const uint8_t serial[SERIAL_LEN] = {1}, signature[1] = {0};
    struct certificate_request req = {.issuer = issuer,
                                      .profile = p,
                                      .serial = {serial, sizeof serial},
                                      .spki = issuer_spki(issuer),
                                      .name = names[p->name_kind],
                                      .sans = profile_takes_names(p) ? sans : NULL,
                                      .now = time(NULL)};
    struct buf tbs = {0}, der = {0};
    int rc = -1;
    if (req.now >= issuer_not_after(issuer))
        req.now = issuer_not_after(issuer) - 1;
    if (certificate_build(&tbs, &req, NULL, NULL, err))
        goto out;
    if (signed_wrap(&der, issuer_alg(issuer), buf_view(&tbs),
                    (struct bytes){signature, sizeof signature}))
        err_set(err, ERR_internal, "no memory");
    else
        rc = check_certificate(p, &der, err) || certificate_lint_sample(buf_view(&tbs), &req, err)
                 ? -1
                 : 0;
out:
    buf_free(&tbs);
    buf_free(&der);
    return rc;
}

static int fill(struct profile *p, const char *section, const struct source *from, struct err *err)
{
    STACK_OF(CONF_VALUE) *values = NCONF_get_section(from->conf, section);
    for (int i = 0; i < sk_CONF_VALUE_num(values); i++) {
        const CONF_VALUE *v = sk_CONF_VALUE_value(values, i);
        int taken = profile_set(p, v->name, v->value, err);
        if (taken < 0)
            return -1;
        if (!taken && profile_add_extension(p, from->conf, from->issuer, v->name, v->value, err))
            return -1;
    }
    if (profile_complete(p, err) ||
        profile_add_defaults(p, from->issuer, from->public_url, from->has_ocsp, err))
        return -1;
    return check_sample(p, from->issuer, err);
}

static void remove_named(struct profiles *all, const char *name)
{
    for (struct profile **at = &all->first; *at; at = &(*at)->next) {
        struct profile *p = *at;
        if (strcmp(p->name, name) != 0)
            continue;
        *at = p->next;
        profile_free(p);
        return;
    }
}

static int add(struct profiles *all, const char *section, const char *name,
               const struct source *from, struct err *err)
{
    struct profile *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strdup(name))) {
        free(p);
        return err_set(err, ERR_internal, "no memory");
    }
    if (fill(p, section, from, err)) {
        profile_free(p);
        return err_prefix(err, "[%s]", section);
    }
    remove_named(all, name);
    p->next = all->first;
    all->first = p;
    return 0;
}

/* "device" of "profile device"; NULL: another section. */
static const char *profile_of_section(const char *section)
{
    size_t word = strlen("profile");
    if (strncmp(section, "profile", word) != 0)
        return NULL;
    size_t space = strspn(section + word, " \t");
    return space ? section + word + space : NULL;
}

static int check_profile_name(const char *name, struct err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789_-";
    if (*name && strlen(name) <= 32 && !name[strspn(name, allowed)])
        return 0;
    return err_set(err, ERR_field_value,
                   "[profile %s]: a profile's name has 1 to 32 of a-z, 0-9, _ and -", name);
}

static int add_all(struct profiles *all, const struct source *from, struct err *err)
{
    STACK_OF(OPENSSL_CSTRING) *sections = NCONF_get_section_names(from->conf);
    int rc = sections ? 0 : err_set(err, ERR_internal, "profiles: %s", err_openssl());
    for (int i = 0; !rc && i < sk_OPENSSL_CSTRING_num(sections); i++) {
        const char *section = sk_OPENSSL_CSTRING_value(sections, i);
        const char *name = profile_of_section(section);
        if (name)
            rc = check_profile_name(name, err) ? -1 : add(all, section, name, from, err);
    }
    sk_OPENSSL_CSTRING_free(sections);
    return rc;
}

static CONF *read_shipped(struct err *err)
{
    CONF *conf = NCONF_new(NULL);
    BIO *bio = BIO_new_mem_buf(shipped, sizeof shipped);
    if (!conf || !bio || NCONF_load_bio(conf, bio, NULL) != 1) {
        err_set(err, ERR_internal, "the shipped profiles: %s", err_openssl());
        NCONF_free(conf);
        conf = NULL;
    }
    BIO_free(bio);
    return conf;
}

int profiles_load(struct profiles **out, CONF *conf, const struct issuer *issuer,
                  const char *public_url, int has_ocsp, struct err *err)
{
    struct profiles *all = calloc(1, sizeof *all);
    CONF *own = read_shipped(err);
    int rc = -1;
    if (!all)
        err_set(err, ERR_internal, "no memory");
    if (!all || !own)
        goto out;
    if (add_all(all, &(struct source){own, issuer, public_url, has_ocsp}, err) ||
        (conf && add_all(all, &(struct source){conf, issuer, public_url, has_ocsp}, err)))
        goto out;
    *out = all;
    all = NULL;
    rc = 0;
out:
    NCONF_free(own);
    profiles_free(all);
    ERR_clear_error(); /* names that OpenSSL does not know */
    return rc;
}

void profiles_free(struct profiles *all)
{
    if (!all)
        return;
    while (all->first) {
        struct profile *p = all->first;
        all->first = p->next;
        profile_free(p);
    }
    free(all);
}

const struct profile *profiles_find(const struct profiles *all, const char *name)
{
    for (const struct profile *p = all->first; p; p = p->next)
        if (!strcmp(p->name, name))
            return p;
    return NULL;
}

const struct profile *profiles_next(const struct profiles *all, const struct profile *p)
{
    return p ? p->next : all->first;
}

const char *profile_name(const struct profile *p)
{
    return p->name;
}

const struct key_policy *profile_keys(const struct profile *p)
{
    return &p->keys;
}

enum profile_name_kind profile_name_kind(const struct profile *p)
{
    return p->name_kind;
}

int profile_takes_names(const struct profile *p)
{
    for (size_t i = 0; i < p->extension_count; i++)
        if (p->extensions[i].kind == EXTENSION_NAMES)
            return 1;
    return 0;
}

int profile_takes_shard(const struct profile *p)
{
    return p->public_url != NULL;
}

int profile_allows_operation(const struct profile *p, const char *operation)
{
    static const char separators[] = ", \t";
    size_t len = strlen(operation);
    const char *at = p->operations ? p->operations : "";
    while (*(at += strspn(at, separators))) {
        size_t word = strcspn(at, separators);
        if (word == len && strncmp(at, operation, len) == 0)
            return 1;
        at += word;
    }
    return 0;
}

int64_t profile_renew_expired(const struct profile *p)
{
    return p->renew_expired;
}

int profile_renews_same_key(const struct profile *p)
{
    return p->renew_same_key;
}

unsigned profile_roles(const struct profile *p)
{
    return p->roles;
}
