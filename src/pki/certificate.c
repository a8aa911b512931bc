#include "pki/certificate.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "pki/der.h"
#include "pki/crl.h"
#include "pki/key.h"
#include "pki/lint.h"
#include "pki/point.h"
#include "pki/profile_parts.h"
#include "pki/signed.h"

/* ASN.1 templates, to be read as the ASN.1 is. */
/* clang-format off */

/* RFC 5280 section 4.1. SubjectPublicKeyInfo, AlgorithmIdentifier and the issuer's name are copied
 * as they are. */
typedef struct {
    ASN1_TIME *not_before, *not_after;
} VALIDITY;

ASN1_SEQUENCE(VALIDITY) = {
    ASN1_SIMPLE(VALIDITY, not_before, ASN1_TIME),
    ASN1_SIMPLE(VALIDITY, not_after, ASN1_TIME)
} static_ASN1_SEQUENCE_END(VALIDITY);

typedef struct {
    ASN1_INTEGER *version, *serial;
    ASN1_TYPE *algorithm;
    ASN1_TYPE *issuer;
    VALIDITY *validity;
    X509_NAME *subject;
    ASN1_TYPE *spki;
    STACK_OF(X509_EXTENSION) *extensions;
} TBS;

ASN1_SEQUENCE(TBS) = {
    ASN1_EXP(TBS, version, ASN1_INTEGER, 0),
    ASN1_SIMPLE(TBS, serial, ASN1_INTEGER),
    ASN1_SIMPLE(TBS, algorithm, ASN1_ANY),
    ASN1_SIMPLE(TBS, issuer, ASN1_ANY),
    ASN1_SIMPLE(TBS, validity, VALIDITY),
    ASN1_SIMPLE(TBS, subject, X509_NAME),
    ASN1_SIMPLE(TBS, spki, ASN1_ANY),
    ASN1_EXP_SEQUENCE_OF(TBS, extensions, X509_EXTENSION, 3)
} static_ASN1_SEQUENCE_END(TBS);

/* clang-format on */

/* 16 equal bytes happen once in 2^120, and the same 16 again not in our time: it is the generator
 * that is broken. Keeps them for the next look. */
static const char *look_at(const uint8_t bytes[SERIAL_LEN], uint8_t last[SERIAL_LEN])
{
    int repeated = memcmp(bytes, last, SERIAL_LEN) == 0, different = 0;
    memcpy(last, bytes, SERIAL_LEN);
    for (int i = 1; i < SERIAL_LEN; i++)
        different |= bytes[i] != bytes[0];
    return !different ? "gives one byte again and again" : repeated ? "repeats itself" : NULL;
}

/* What OpenSSL's generator is seeded from: behind it one would not see that this is broken. */
static const char *look_at_source(void)
{
    static uint8_t last[SERIAL_LEN];
    uint8_t bytes[SERIAL_LEN];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return "fails";
    return look_at(bytes, last);
}

static const char *draw(uint8_t out[SERIAL_LEN])
{
    static uint8_t last[SERIAL_LEN];
    return RAND_bytes(out, SERIAL_LEN) == 1 ? look_at(out, last) : "fails";
}

int serial_make(uint8_t out[SERIAL_LEN], struct err *err)
{
    const char *why = look_at_source();
    if (why)
        return err_set(err, ERR_random_broken, "the kernel's random generator %s", why);
    for (int tries = 0; tries < 32 && !why; tries++) {
        why = draw(out);
        out[0] &= 0x7f;
        if (!why && out[0])
            return 0;
    }
    return err_set(err, ERR_random_broken, "the random generator %s (%s)",
                   why ? why : "begins each number with 0", err_openssl());
}

static int64_t at(const struct moment *m, int64_t now)
{
    return m->absolute ? m->seconds : now + m->seconds;
}

static int validity(int64_t *from, int64_t *to, const struct certificate_request *req,
                    struct err *err)
{
    const struct profile *p = req->profile;
    int64_t end = issuer_not_after(req->issuer);
    if (end <= req->now)
        return err_set(err, ERR_too_old, "the CA certificate has ended; renew the intermediate");
    *from = at(&p->not_before, req->now);
    *to = at(&p->not_after, req->now);
    if (req->lifetime > 0 && *to > req->now + req->lifetime)
        *to = req->now + req->lifetime;
    if (!p->beyond_issuer && *to > end)
        *to = end;
    if (*to <= *from || *to <= req->now)
        return err_set(err, ERR_too_old, "a certificate of profile %s would have ended already",
                       p->name);
    return 0;
}

/* ASN1_TIME_set() takes UTCTime through 2049 and GeneralizedTime after (RFC 5280 4.1.2.5). */
static VALIDITY *make_validity(int64_t from, int64_t to)
{
    VALIDITY *v = (VALIDITY *)ASN1_item_new(ASN1_ITEM_rptr(VALIDITY));
    if (v && ASN1_TIME_set(v->not_before, from) && ASN1_TIME_set(v->not_after, to))
        return v;
    ASN1_item_free((ASN1_VALUE *)v, ASN1_ITEM_rptr(VALIDITY));
    return NULL;
}

/* value with its {name}, if it has one, filled in; free() */
static char *fill_in(const char *value, const char *name)
{
    char *text = NULL;
    const char *hole = strstr(value, "{name}");
    int n = hole ? asprintf(&text, "%.*s%s%s", (int)(hole - value), value, name, hole + 6)
                 : asprintf(&text, "%s", value);
    return n < 0 ? NULL : text;
}

static X509_NAME *make_subject(const struct profile *p, const char *name, struct err *err)
{
    X509_NAME *subject = X509_NAME_new();
    int ok = subject != NULL;
    for (size_t i = 0; ok && i < p->attributes; i++) {
        const struct attribute *a = &p->subject[i];
        char *value = fill_in(a->value, name);
        ok = value && X509_NAME_add_entry_by_txt(subject, a->type, MBSTRING_UTF8,
                                                 (const unsigned char *)value, -1, -1, 0) == 1;
        if (!ok)
            err_set(err, ERR_csr_cn_invalid, "subject: %s=%s: %s", a->type, value ? value : "",
                    err_openssl());
        free(value);
    }
    if (ok)
        return subject;
    X509_NAME_free(subject);
    return NULL;
}

/* RFC 7093 section 2, method 1: the leftmost 160 bits of the SHA-256 of the key. */
static X509_EXTENSION *make_key_id(struct bytes spki, struct err *err)
{
    uint8_t digest[32];
    X509_EXTENSION *ext = NULL;
    ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
    if (key_sha256(digest, spki))
        err_set(err, ERR_key_invalid, NULL);
    else if (!id || !ASN1_OCTET_STRING_set(id, digest, 20) ||
             !(ext = X509V3_EXT_i2d(NID_subject_key_identifier, 0, id)))
        err_set(err, ERR_internal, "subjectKeyIdentifier: %s", err_openssl());
    ASN1_OCTET_STRING_free(id);
    return ext;
}

static GENERAL_NAME *make_name(const char *san)
{
    if (!strncmp(san, "DNS:", 4) && name_is_host(san + 4))
        return a2i_GENERAL_NAME(NULL, NULL, NULL, GEN_DNS, san + 4, 0);
    if (!strncmp(san, "IP:", 3) && name_is_address(san + 3))
        return a2i_GENERAL_NAME(NULL, NULL, NULL, GEN_IPADD, san + 3, 0);
    return NULL;
}

static GENERAL_NAMES *make_name_list(const char *const *sans, struct err *err)
{
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    for (; names && *sans; sans++) {
        GENERAL_NAME *name = make_name(*sans);
        if (name && sk_GENERAL_NAME_push(names, name))
            continue;
        GENERAL_NAME_free(name);
        GENERAL_NAMES_free(names);
        err_set(err, ERR_field_value, "\"%s\" is no DNS:host or IP:address", *sans);
        return NULL;
    }
    return names;
}

static X509_EXTENSION *make_names(const char *const *sans, int critical, struct err *err)
{
    if (!sans || !*sans) {
        err_set(err, ERR_field_missing, "the profile needs at least one name: DNS: or IP:");
        return NULL;
    }
    GENERAL_NAMES *names = make_name_list(sans, err);
    if (!names)
        return NULL;
    X509_EXTENSION *ext = X509V3_EXT_i2d(NID_subject_alt_name, critical, names);
    if (!ext)
        err_set(err, ERR_internal, "subjectAltName: %s", err_openssl());
    GENERAL_NAMES_free(names);
    return ext;
}

/* The distribution point fixes the shard for the certificate's life. */
static X509_EXTENSION *make_point(const struct extension *e, const struct certificate_request *req,
                                  struct err *err)
{
    char path[CRL_NAME_MAX], *url;
    if (req->shard == 0)
        return e->fixed;
    if (asprintf(&url, "%s%s", req->profile->public_url, crl_url_path(path, req->shard)) < 0)
        return NULL;
    X509_EXTENSION *ext = point_extension(url);
    if (!ext)
        err_set(err, ERR_internal, "crlDistributionPoints: %s", err_openssl());
    free(url);
    return ext;
}

static X509_EXTENSION *make_extension(const struct extension *e,
                                      const struct certificate_request *req, struct err *err)
{
    switch (e->kind) {
    case EXTENSION_KEY_ID:
        return make_key_id(req->spki, err);
    case EXTENSION_NAMES:
        return make_names(req->sans, e->critical, err);
    case EXTENSION_POINT:
        return make_point(e, req, err);
    default:
        return e->fixed;
    }
}

/* What is fixed stays the profile's: the list only borrows it. */
static void free_extensions(STACK_OF(X509_EXTENSION) * all, const struct profile *p)
{
    for (int i = 0; i < sk_X509_EXTENSION_num(all); i++) {
        X509_EXTENSION *ext = sk_X509_EXTENSION_value(all, i);
        if (ext != p->extensions[i].fixed)
            X509_EXTENSION_free(ext);
    }
    sk_X509_EXTENSION_free(all);
}

static STACK_OF(X509_EXTENSION) *
    make_extensions(const struct certificate_request *req, struct err *err)
{
    STACK_OF(X509_EXTENSION) *all = sk_X509_EXTENSION_new_null();
    for (size_t i = 0; all && i < req->profile->extension_count; i++) {
        X509_EXTENSION *ext = make_extension(&req->profile->extensions[i], req, err);
        if (ext && sk_X509_EXTENSION_push(all, ext))
            continue;
        if (ext != req->profile->extensions[i].fixed)
            X509_EXTENSION_free(ext);
        free_extensions(all, req->profile);
        return NULL;
    }
    return all;
}

static int check_request(const struct certificate_request *req, struct err *err)
{
    if (req->serial.len != SERIAL_LEN || req->serial.data[0] == 0 || req->serial.data[0] > 0x7f)
        return err_set(err, ERR_internal, "not a serial of serial_make()");
    if (req->sans && !profile_takes_names(req->profile))
        return err_set(err, ERR_internal, "profile %s takes no names", req->profile->name);
    return 0;
}

static int fill(TBS *t, const struct certificate_request *req, int64_t from, int64_t to,
                struct err *err)
{
    err_set(err, ERR_internal, "no memory"); /* unless something below knows better */
    t->version = ASN1_INTEGER_new();
    t->serial = ASN1_INTEGER_new();
    t->algorithm = der_opaque_new(sign_alg_der(issuer_alg(req->issuer)));
    t->issuer = der_opaque_new(issuer_name_der(req->issuer));
    t->validity = make_validity(from, to);
    t->spki = der_opaque_new(req->spki);
    if (!t->version || !t->serial || !t->algorithm || !t->issuer || !t->validity || !t->spki ||
        !ASN1_INTEGER_set(t->version, X509_VERSION_3) ||
        !ASN1_STRING_set(t->serial, req->serial.data, SERIAL_LEN))
        return -1;
    t->subject = make_subject(req->profile, req->name, err);
    t->extensions = t->subject ? make_extensions(req, err) : NULL;
    return t->extensions ? 0 : -1;
}

int certificate_build(struct buf *tbs, const struct certificate_request *req, int64_t *not_before,
                      int64_t *not_after, struct err *err)
{
    int64_t from = 0, to = 0;
    if (check_request(req, err) || validity(&from, &to, req, err))
        return -1;
    TBS *t = OPENSSL_zalloc(sizeof *t);
    if (!t)
        return err_set(err, ERR_internal, "no memory");
    int rc = fill(t, req, from, to, err);
    if (!rc && der_encode(tbs, t, ASN1_ITEM_rptr(TBS)))
        rc = err_set(err, ERR_internal, "the certificate cannot be encoded: %s", err_openssl());
    if (!rc && not_before)
        *not_before = from;
    if (!rc && not_after)
        *not_after = to;
    free_extensions(t->extensions, req->profile);
    t->extensions = NULL;
    ASN1_item_free((ASN1_VALUE *)t, ASN1_ITEM_rptr(TBS));
    return rc;
}

int certificate_assemble(struct buf *der, const struct issuer *issuer, struct bytes tbs,
                         struct bytes signature, struct err *err)
{
    uint8_t digest[DIGEST_MAX];
    size_t len = sign_digest(issuer_alg(issuer), tbs, digest);
    if (issuer_verify(issuer, (struct bytes){digest, len}, signature))
        return err_set(err, ERR_internal, "the token's signature does not verify");
    if (signed_wrap(der, issuer_alg(issuer), tbs, signature)) {
        buf_free(der);
        return err_set(err, ERR_internal, "no memory");
    }
    if (certificate_lint_signed(buf_view(der), tbs, err)) {
        buf_free(der);
        return -1;
    }
    return 0;
}

char *certificate_pem(struct bytes der)
{
    char *text = NULL, *data;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && der.len <= LONG_MAX &&
        PEM_write_bio(bio, PEM_STRING_X509, "", der.data, (long)der.len) > 0) {
        long len = BIO_get_mem_data(bio, &data);
        text = strndup(data, (size_t)len);
    }
    BIO_free(bio);
    return text;
}
