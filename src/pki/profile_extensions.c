/* The extensions of a profile: those that do not vary are made here, once. */
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "pki/profile_parts.h"

/* The first error in OpenSSL's queue is the cause; the first that has data tells where it was met,
 * as "section:…,name:…,value:…". */
static int refuse(const char *key, struct err *err)
{
    unsigned long first = ERR_peek_error(), e;
    const char *reason = first ? ERR_reason_error_string(first) : NULL, *data;
    char where[256] = "";
    int flags;
    while ((e = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)))
        if (!*where && flags & ERR_TXT_STRING && *data)
            snprintf(where, sizeof where, " (%s)", data);
    return err_set(err, ERR_field_value, "%s: %s%s", key, reason ? reason : "not valid", where);
}

static int kind_nid(const struct extension *e)
{
    if (e->kind == EXTENSION_KEY_ID)
        return NID_subject_key_identifier;
    if (e->kind == EXTENSION_NAMES)
        return NID_subject_alt_name;
    return NID_undef;
}

/* OpenSSL knows all names of an OID; an OID that it does not know has only one. */
static int same_extension(const struct extension *a, const struct extension *b)
{
    int nid = a->fixed ? OBJ_obj2nid(X509_EXTENSION_get_object(a->fixed)) : kind_nid(a);
    int other = b->fixed ? OBJ_obj2nid(X509_EXTENSION_get_object(b->fixed)) : kind_nid(b);
    if (nid != NID_undef || other != NID_undef)
        return nid == other;
    return OBJ_cmp(X509_EXTENSION_get_object(a->fixed), X509_EXTENSION_get_object(b->fixed)) == 0;
}

/* Takes what is in *e. */
static int append(struct profile *p, struct extension e, const char *key, struct err *err)
{
    const char *why = NULL;
    for (size_t i = 0; i < p->extension_count; i++)
        if (same_extension(&p->extensions[i], &e))
            why = "given twice";
    if (p->extension_count == PROFILE_EXTENSIONS_MAX)
        why = "too many extensions";
    if (why) {
        X509_EXTENSION_free(e.fixed);
        return err_set(err, ERR_field_value, "%s: %s", key, why);
    }
    p->extensions[p->extension_count++] = e;
    return 0;
}

static int append_fixed(struct profile *p, CONF *conf, const struct issuer *issuer, const char *key,
                        const char *value, struct err *err)
{
    X509V3_CTX ctx;
    struct extension e = {EXTENSION_FIXED, 0, NULL};
    ERR_clear_error();
    X509V3_set_ctx(&ctx, issuer_certificate(issuer), NULL, NULL, NULL, 0);
    X509V3_set_nconf(&ctx, conf);
    e.fixed = X509V3_EXT_nconf(conf, &ctx, key, value);
    return e.fixed ? append(p, e, key, err) : refuse(key, err);
}

/* "{names}" or "critical, {names}" */
static int is_names(const char *value, int *critical)
{
    *critical = strncmp(value, "critical,", 9) == 0;
    if (*critical)
        value += 9 + strspn(value + 9, " \t");
    return strcmp(value, "{names}") == 0;
}

int profile_add_extension(struct profile *p, CONF *conf, const struct issuer *issuer,
                          const char *key, const char *value, struct err *err)
{
    struct extension e = {EXTENSION_NAMES, 0, NULL};
    switch (OBJ_txt2nid(key)) {
    case NID_undef:
        if (strncmp(value, "ASN1:", 5) != 0 && strncmp(value, "DER:", 4) != 0 &&
            strncmp(value, "critical,", 9) != 0)
            return err_set(err, ERR_field_value,
                           "%s: neither a key of a profile nor an extension that OpenSSL knows",
                           key);
        break;
    case NID_subject_key_identifier:
        if (strcmp(value, "hash") != 0)
            return err_set(err, ERR_field_value, "%s: must be hash: each key has its own", key);
        return append(p, (struct extension){EXTENSION_KEY_ID, 0, NULL}, key, err);
    case NID_subject_alt_name:
        if (is_names(value, &e.critical))
            return append(p, e, key, err);
        break;
    default:
        break;
    }
    return append_fixed(p, conf, issuer, key, value, err);
}

static int has(const struct profile *p, int nid)
{
    for (size_t i = 0; i < p->extension_count; i++) {
        const struct extension *e = &p->extensions[i];
        int other = e->fixed ? OBJ_obj2nid(X509_EXTENSION_get_object(e->fixed)) : kind_nid(e);
        if (other == nid)
            return 1;
    }
    return 0;
}

static int append_url(struct profile *p, const struct issuer *issuer, const char *key,
                      const char *prefix, const char *url, const char *path, struct err *err)
{
    char value[1024];
    size_t len = strlen(url);
    /* what these values' own syntax (x509v3_config(5ssl)) would take for its own is no URL of ours
     */
    if (strncmp(url, "http://", 7) != 0 || strpbrk(url, ",;@ \t\\\"'"))
        return err_set(err, ERR_field_value, "public_url: \"%s\" is not a plain http:// URL", url);
    while (len && url[len - 1] == '/')
        len--;
    if (snprintf(value, sizeof value, "%s%.*s%s", prefix, (int)len, url, path) >= (int)sizeof value)
        return err_set(err, ERR_field_value, "public_url: too long");
    return append_fixed(p, NULL, issuer, key, value, err);
}

/* Which of the CRLs it names is known when there is a serial. */
static int add_point(struct profile *p, const struct issuer *issuer, const char *public_url,
                     struct err *err)
{
    size_t len = strlen(public_url);
    if (append_url(p, issuer, "crlDistributionPoints", "URI:", public_url, "/crl", err))
        return -1;
    p->extensions[p->extension_count - 1].kind = EXTENSION_POINT;
    while (len && public_url[len - 1] == '/')
        len--;
    p->public_url = strndup(public_url, len);
    return p->public_url ? 0 : err_set(err, ERR_internal, "no memory");
}

static int append_access(struct profile *p, const struct issuer *issuer, const char *url,
                         int has_ocsp, struct err *err)
{
    char path[1024] = "/ca.cer";
    size_t len = strlen(url);
    while (len && url[len - 1] == '/')
        len--;
    if (has_ocsp && snprintf(path, sizeof path, "/ca.cer,OCSP;URI:%.*s/ocsp", (int)len, url) >=
                        (int)sizeof path)
        return err_set(err, ERR_field_value, "public_url: too long");
    return append_url(p, issuer, "authorityInfoAccess", "caIssuers;URI:", url, path, err);
}

int profile_add_defaults(struct profile *p, const struct issuer *issuer, const char *public_url,
                         int has_ocsp, struct err *err)
{
    int url = public_url && *public_url && !has(p, NID_id_pkix_OCSP_noCheck);
    if (!has(p, NID_subject_key_identifier) &&
        profile_add_extension(p, NULL, issuer, "subjectKeyIdentifier", "hash", err))
        return -1;
    if (!has(p, NID_authority_key_identifier) &&
        append_fixed(p, NULL, issuer, "authorityKeyIdentifier", "keyid", err))
        return -1;
    if (url && !has(p, NID_crl_distribution_points) && add_point(p, issuer, public_url, err))
        return -1;
    if (url && !has(p, NID_info_access) && append_access(p, issuer, public_url, has_ocsp, err))
        return -1;
    return 0;
}
