#include "pki/lint.h"

#include <openssl/objects.h>
#include <string.h>
#include <time.h>

#include "pki/der.h"
#include "pki/lint_parts.h"
#include "pki/profile_parts.h"

#define TAG_INTEGER 0x02
#define TAG_BIT_STRING 0x03
#define TAG_OID 0x06
#define TAG_UTF8 0x0c
#define TAG_PRINTABLE 0x13
#define TAG_IA5 0x16
#define TAG_UTC_TIME 0x17
#define TAG_GENERALIZED_TIME 0x18
#define TAG_SEQUENCE 0x30
#define TAG_SET 0x31
#define TAG_VERSION 0xa0
#define TAG_EXTENSIONS 0xa3

/* TBSCertificate taken apart; contents, but for algorithm, issuer and spki, which are whole. */
struct fields {
    struct bytes version, serial, algorithm, issuer, validity, subject, spki, extensions;
};

int lint_refuse(struct err *err, const char *rule, const char *what)
{
    return err_set(err, ERR_lint_refused, "%s: %s", rule, what);
}

static int expect_sequence(struct bytes *in, struct bytes *whole)
{
    struct der_value v;
    if (der_next(in, &v) || v.tag != TAG_SEQUENCE)
        return -1;
    *whole = v.whole;
    return 0;
}

/* One value with this tag and nothing behind it. */
static int only(struct bytes in, uint8_t tag, struct bytes *content)
{
    return der_expect(&in, tag, content) || in.len ? -1 : 0;
}

static int split(struct fields *f, struct bytes tbs, struct err *err)
{
    struct bytes in, version, extensions;
    if (only(tbs, TAG_SEQUENCE, &in) || der_expect(&in, TAG_VERSION, &version) ||
        only(version, TAG_INTEGER, &f->version) || der_expect(&in, TAG_INTEGER, &f->serial) ||
        expect_sequence(&in, &f->algorithm) || expect_sequence(&in, &f->issuer) ||
        der_expect(&in, TAG_SEQUENCE, &f->validity) || der_expect(&in, TAG_SEQUENCE, &f->subject) ||
        expect_sequence(&in, &f->spki) || der_expect(&in, TAG_EXTENSIONS, &extensions) ||
        only(extensions, TAG_SEQUENCE, &f->extensions) || in.len)
        return lint_refuse(err, "x690-10.1",
                           "it is not a TBSCertificate of version 3 in DER, in the order of RFC "
                           "5280 section 4.1");
    if (f->version.len != 1 || f->version.data[0] != 2)
        return lint_refuse(err, "rfc5280-4.1.2.1", "the version is not 3");
    return 0;
}

/* ---- serial, algorithm, issuer ---- */

/* Of 16 random bytes fewer than four different ones come once in 2^83. */
static int is_poor(struct bytes serial)
{
    uint8_t seen[4] = {0};
    size_t different = 0;
    for (size_t i = 0; i < serial.len && different < sizeof seen; i++)
        if (!memchr(seen, serial.data[i], different))
            seen[different++] = serial.data[i];
    return different < sizeof seen;
}

static int check_serial(struct bytes serial, const struct certificate_request *req, struct err *err)
{
    static const char rule[] = "rfc5280-4.1.2.2";
    if (serial.len == 0 || serial.len > 20)
        return lint_refuse(err, rule, "the serial has not 1 to 20 octets");
    if (serial.data[0] & 0x80 || (serial.data[0] == 0 && serial.len == 1))
        return lint_refuse(err, rule, "the serial is not positive");
    if (serial.len > 1 && serial.data[0] == 0 && !(serial.data[1] & 0x80))
        return lint_refuse(err, "x690-8.3.2", "the serial has an octet too many");
    if (serial.len != SERIAL_LEN || is_poor(serial))
        return lint_refuse(err, rule, "the serial is not 128 random bits");
    if (!bytes_equal(serial, req->serial))
        return lint_refuse(err, rule, "the serial is another than was drawn");
    return 0;
}

static int check_issuer(const struct fields *f, const struct issuer *issuer, struct err *err)
{
    if (!bytes_equal(f->algorithm, sign_alg_der(issuer_alg(issuer))))
        return lint_refuse(err, "rfc5280-4.1.2.3",
                           "the signature algorithm is not that of the issuer's key");
    if (!bytes_equal(f->issuer, issuer_name_der(issuer)))
        return lint_refuse(err, "rfc5280-4.1.2.4", "the issuer is not the CA's subject");
    return 0;
}

/* ---- validity ---- */

/* The number of n digits; -1: others among them. */
static int digits(const uint8_t *text, int n)
{
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = 10 * value + text[i] - '0';
    }
    return value;
}

/* MMDDHHMMSSZ, of a day and time that there are. */
static int read_moment(const uint8_t *text, int year, int64_t *seconds)
{
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = digits(text, 2) - 1,
                    .tm_mday = digits(text + 2, 2),
                    .tm_hour = digits(text + 4, 2),
                    .tm_min = digits(text + 6, 2),
                    .tm_sec = digits(text + 8, 2)};
    struct tm given = tm;
    *seconds = timegm(&tm); /* which puts right what is not */
    return year >= 0 && text[10] == 'Z' && tm.tm_mon == given.tm_mon &&
                   tm.tm_mday == given.tm_mday && tm.tm_hour == given.tm_hour &&
                   tm.tm_min == given.tm_min && tm.tm_sec == given.tm_sec
               ? 0
               : -1;
}

static int read_time(struct bytes *in, int64_t *seconds)
{
    struct der_value v;
    if (der_next(in, &v))
        return -1;
    const uint8_t *text = v.content.data;
    if (v.tag == TAG_UTC_TIME && v.content.len == 13) {
        int year = digits(text, 2);
        return read_moment(text + 2, year < 0 ? -1 : year + (year < 50 ? 2000 : 1900), seconds);
    }
    if (v.tag != TAG_GENERALIZED_TIME || v.content.len != 15)
        return -1;
    int year = digits(text, 4);
    return year >= 1950 && year < 2050 ? -1 : read_moment(text + 4, year, seconds);
}

static int64_t at(const struct moment *m, int64_t now)
{
    return m->absolute ? m->seconds : now + m->seconds;
}

static int64_t end_of(const struct certificate_request *req)
{
    const struct profile *p = req->profile;
    int64_t end = at(&p->not_after, req->now);
    if (req->lifetime > 0 && end > req->now + req->lifetime)
        end = req->now + req->lifetime;
    if (!p->beyond_issuer && end > issuer_not_after(req->issuer))
        end = issuer_not_after(req->issuer);
    return end;
}

static int check_validity(struct bytes validity, const struct certificate_request *req,
                          struct err *err)
{
    int64_t from, to;
    if (read_time(&validity, &from) || read_time(&validity, &to) || validity.len)
        return lint_refuse(err, "rfc5280-4.1.2.5",
                           "a time is not UTCTime through 2049 and GeneralizedTime after, with "
                           "seconds and Z");
    if (to <= from || to <= req->now)
        return lint_refuse(err, "rfc5280-4.1.2.5", "it ends before it begins, or has ended");
    if (from != at(&req->profile->not_before, req->now))
        return lint_refuse(err, "profile", "it does not begin when the profile says");
    if (to != end_of(req))
        return lint_refuse(err, "profile",
                           "it does not end when profile, lifetime and the CA's own end say");
    return 0;
}

/* ---- subject ---- */

/* RFC 5280 appendix A.1: the most characters of attributes under id-at (2.5.4) */
static size_t upper_bound(struct bytes oid)
{
    static const struct {
        uint8_t attribute;
        size_t most;
    } bounds[] = {{3, 64}, {5, 64}, {6, 2}, {7, 128}, {8, 128}, {10, 64}, {11, 64}};
    if (oid.len == 3 && oid.data[0] == 0x55 && oid.data[1] == 4)
        for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
            if (oid.data[2] == bounds[i].attribute)
                return bounds[i].most;
    return SIZE_MAX;
}

static int is_printable(struct bytes text)
{
    static const char others[] = " '()+,-./:=?";
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              memchr(others, c, sizeof others - 1)))
            return 0;
    }
    return 1;
}

static int is_ascii(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] > 0x7f)
            return 0;
    return 1;
}

static int is_text(const struct der_value *v)
{
    return v->content.len > 0 && ((v->tag == TAG_UTF8 && utf8_valid(v->content)) ||
                                  (v->tag == TAG_PRINTABLE && is_printable(v->content)) ||
                                  (v->tag == TAG_IA5 && is_ascii(v->content)));
}

/* Takes what stands at the front of *text. */
static int skip(struct bytes *text, const char *expected, size_t len)
{
    if (text->len < len || memcmp(text->data, expected, len) != 0)
        return -1;
    *text = (struct bytes){text->data + len, text->len - len};
    return 0;
}

/* The template's value with the name in its place. */
static int is_value(struct bytes text, const char *template, const char *name)
{
    const char *hole = strstr(template, "{name}");
    size_t before = hole ? (size_t)(hole - template) : strlen(template);
    if (skip(&text, template, before))
        return 0;
    if (hole && (skip(&text, name, strlen(name)) || skip(&text, hole + 6, strlen(hole + 6))))
        return 0;
    return text.len == 0;
}

static int is_type(struct bytes oid, const char *type)
{
    const ASN1_OBJECT *known = OBJ_nid2obj(OBJ_txt2nid(type));
    return known && bytes_equal(oid, (struct bytes){OBJ_get0_data(known), OBJ_length(known)});
}

static int check_attribute(struct bytes *subject, const struct attribute *a, const char *name,
                           struct err *err)
{
    struct bytes set, pair, oid;
    struct der_value value;
    if (der_expect(subject, TAG_SET, &set) || only(set, TAG_SEQUENCE, &pair) ||
        der_expect(&pair, TAG_OID, &oid) || der_next(&pair, &value) || pair.len)
        return lint_refuse(err, "rfc5280-4.1.2.6", "the subject is not a list of attributes");
    if (!is_text(&value) || value.content.len > upper_bound(oid))
        return lint_refuse(err, "rfc5280-4.1.2.6",
                           "an attribute of the subject is no text, or too long");
    if (!is_type(oid, a->type) || !is_value(value.content, a->value, name))
        return lint_refuse(err, "profile", "the subject is not the profile's with this name");
    return 0;
}

static int check_subject(struct bytes subject, const struct certificate_request *req,
                         struct err *err)
{
    const struct profile *p = req->profile;
    if (subject.len == 0)
        return 0; /* lint_extensions() sees to the names that then are needed */
    for (size_t i = 0; i < p->attributes; i++)
        if (check_attribute(&subject, &p->subject[i], req->name, err))
            return -1;
    return subject.len ? lint_refuse(err, "profile", "the subject has more than the profile's") : 0;
}

/* ---- key ---- */

int lint_spki(struct bytes spki, struct bytes *algorithm, struct bytes *key)
{
    struct bytes in;
    if (only(spki, TAG_SEQUENCE, &in) || expect_sequence(&in, algorithm) ||
        only(in, TAG_BIT_STRING, key) || key->len == 0 || key->data[0] != 0)
        return -1;
    *key = (struct bytes){key->data + 1, key->len - 1};
    return 0;
}

/* Bits of an RSA modulus; 0: none. */
static unsigned modulus_bits(struct bytes key)
{
    struct bytes in, n;
    unsigned bits = 0;
    if (only(key, TAG_SEQUENCE, &in) || der_expect(&in, TAG_INTEGER, &n) || n.len < 2)
        return 0;
    size_t zero = n.data[0] == 0;
    for (unsigned top = n.data[zero]; top; top >>= 1)
        bits++;
    return (unsigned)(n.len - zero - 1) * 8 + bits;
}

/* What key_check() found of all this, the profile's own policy asked once more. */
static int check_key(struct bytes spki, const struct certificate_request *req, struct err *err)
{
    static const uint8_t rsa[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                  0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};
    static const uint8_t p256[] = {0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
                                   0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    static const uint8_t p384[] = {0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d,
                                   0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22};
    const struct key_policy *keys = &req->profile->keys;
    struct bytes algorithm, key;
    int fits = 0;
    if (!bytes_equal(spki, req->spki) || lint_spki(spki, &algorithm, &key))
        return lint_refuse(err, "rfc5280-4.1.2.7", "the key is another than was checked");
    if (bytes_equal(algorithm, (struct bytes){rsa, sizeof rsa})) {
        unsigned bits = modulus_bits(key);
        fits = keys->rsa_max && bits >= keys->rsa_min && bits <= keys->rsa_max;
    } else if (bytes_equal(algorithm, (struct bytes){p256, sizeof p256})) {
        fits = keys->p256 && key.len == 65 && key.data[0] == 4;
    } else if (bytes_equal(algorithm, (struct bytes){p384, sizeof p384})) {
        fits = keys->p384 && key.len == 97 && key.data[0] == 4;
    }
    return fits ? 0 : lint_refuse(err, "profile", "the profile does not take this type of key");
}

/* ---- all of it ---- */

static int lint(struct bytes tbs, const struct certificate_request *req, int sample,
                struct err *err)
{
    struct fields f;
    if (split(&f, tbs, err) || (!sample && check_serial(f.serial, req, err)) ||
        check_issuer(&f, req->issuer, err) || check_validity(f.validity, req, err) ||
        check_subject(f.subject, req, err) || (!sample && check_key(f.spki, req, err)))
        return -1;
    if (lint_extensions(f.extensions, req, f.subject.len == 0, err))
        return -1;
    return f.subject.len || !req->profile->attributes
               ? 0
               : lint_refuse(err, "profile", "the subject is empty, and the profile's is not");
}

int certificate_lint(struct bytes tbs, const struct certificate_request *req, struct err *err)
{
    return lint(tbs, req, 0, err);
}

int certificate_lint_sample(struct bytes tbs, const struct certificate_request *req,
                            struct err *err)
{
    return lint(tbs, req, 1, err);
}

int certificate_lint_signed(struct bytes der, struct bytes tbs, struct err *err)
{
    struct fields f;
    struct bytes in, whole, algorithm, signature;
    if (split(&f, tbs, err))
        return -1;
    if (only(der, TAG_SEQUENCE, &in) || expect_sequence(&in, &whole) ||
        expect_sequence(&in, &algorithm) || only(in, TAG_BIT_STRING, &signature) ||
        signature.len < 2 || signature.data[0] != 0)
        return lint_refuse(err, "x690-10.1", "it is not a Certificate in DER");
    if (!bytes_equal(whole, tbs))
        return lint_refuse(err, "rfc5280-4.1.1.1", "it holds other than was signed");
    if (!bytes_equal(algorithm, f.algorithm))
        return lint_refuse(err, "rfc5280-4.1.1.2",
                           "the signature algorithm outside is not the one inside");
    return 0;
}
