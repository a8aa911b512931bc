#include <arpa/inet.h>
#include <openssl/objects.h>
#include <string.h>

#include "pki/crl.h"
#include "pki/der.h"
#include "pki/lint_parts.h"
#include "pki/profile_parts.h"

#define TAG_BOOLEAN 0x01
#define TAG_BIT_STRING 0x03
#define TAG_OCTET_STRING 0x04
#define TAG_OID 0x06
#define TAG_SEQUENCE 0x30
#define TAG_CONTEXT 0x80     /* [0] */
#define TAG_DNS_NAME 0x82    /* [2] of GeneralName */
#define TAG_URI 0x86         /* [6] of GeneralName */
#define TAG_IP_ADDRESS 0x87  /* [7] of GeneralName */
#define TAG_CONSTRUCTED 0xa0 /* [0], constructed */
#define KEY_ID_LEN 20

struct found {
    struct bytes oid, value;
    int critical;
};

static int only(struct bytes in, uint8_t tag, struct bytes *content)
{
    return der_expect(&in, tag, content) || in.len ? -1 : 0;
}

/* ---- what RFC 5280 says of each, whatever the profile ---- */

static int is_key_id(struct bytes id, struct bytes spki)
{
    uint8_t digest[32];
    struct bytes algorithm, key;
    if (id.len != KEY_ID_LEN || lint_spki(spki, &algorithm, &key))
        return 0;
    sha256(digest, key);
    return memcmp(id.data, digest, KEY_ID_LEN) == 0;
}

/* RFC 7093 section 2, method 1 */
static int check_key_id(struct bytes value, const struct certificate_request *req, struct err *err)
{
    struct bytes id;
    if (only(value, TAG_OCTET_STRING, &id) || !is_key_id(id, req->spki))
        return lint_refuse(err, "rfc5280-4.2.1.2",
                           "subjectKeyIdentifier is not derived from the key");
    return 0;
}

static int check_authority_key_id(struct bytes value, const struct certificate_request *req,
                                  struct err *err)
{
    struct bytes in, id;
    if (only(value, TAG_SEQUENCE, &in) || der_expect(&in, TAG_CONTEXT, &id) ||
        !bytes_equal(id, issuer_key_id(req->issuer)))
        return lint_refuse(err, "rfc5280-4.2.1.1",
                           "authorityKeyIdentifier is not the CA's subjectKeyIdentifier");
    return 0;
}

/* CA:FALSE, the default, is not encoded, and there is no path length without a CA. */
static int check_constraints(struct bytes value, const struct certificate_request *req,
                             struct err *err)
{
    struct bytes in;
    (void)req;
    if (only(value, TAG_SEQUENCE, &in) || in.len)
        return lint_refuse(err, "rfc5280-4.2.1.9", "basicConstraints is not CA:FALSE");
    return 0;
}

#define KEY_CERT_SIGN 0x04 /* bit 5 of the first octet */
#define CRL_SIGN 0x02

/* A named bit list: no zero bits at its end (X.690 section 11.2.2), and one bit at the least. */
static int check_usage(struct bytes value, const struct certificate_request *req, struct err *err)
{
    struct bytes bits;
    (void)req;
    if (only(value, TAG_BIT_STRING, &bits) || bits.len < 2 || bits.len > 3 || bits.data[0] > 7 ||
        (bits.data[bits.len - 1] & ((2u << bits.data[0]) - 1)) != 1u << bits.data[0])
        return lint_refuse(err, "rfc5280-4.2.1.3", "keyUsage is no list of bits in DER");
    if (bits.data[1] & (KEY_CERT_SIGN | CRL_SIGN))
        return lint_refuse(err, "rfc5280-4.2.1.3", "keyUsage has keyCertSign or cRLSign");
    return 0;
}

static int check_purposes(struct bytes value, const struct certificate_request *req,
                          struct err *err)
{
    static const uint8_t ocsp_signing[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09};
    struct bytes in, purpose;
    int signs = 0;
    if (only(value, TAG_SEQUENCE, &in) || in.len == 0)
        return lint_refuse(err, "rfc5280-4.2.1.12", "extendedKeyUsage names no purpose");
    while (in.len) {
        if (der_expect(&in, TAG_OID, &purpose))
            return lint_refuse(err, "rfc5280-4.2.1.12", "extendedKeyUsage holds no purpose");
        signs |= bytes_equal(purpose, (struct bytes){ocsp_signing, sizeof ocsp_signing});
    }
    if (signs && strcmp(req->profile->name, PROFILE_OCSP) != 0)
        return lint_refuse(err, "rfc6960-4.2.2.2", "OCSPSigning is the responder's alone");
    return 0;
}

static int is_good_name(const struct der_value *name)
{
    char text[254];
    if (name->tag == TAG_IP_ADDRESS)
        return name->content.len == 4 || name->content.len == 16;
    if (name->tag != TAG_DNS_NAME)
        return name->content.len > 0;
    if (name->content.len >= sizeof text || memchr(name->content.data, 0, name->content.len))
        return 0;
    memcpy(text, name->content.data, name->content.len);
    text[name->content.len] = '\0';
    return name_is_host(strncmp(text, "*.", 2) ? text : text + 2); /* of a profile's own list */
}

static int check_names(struct bytes value, const struct certificate_request *req, struct err *err)
{
    struct bytes in;
    struct der_value name;
    (void)req;
    if (only(value, TAG_SEQUENCE, &in) || in.len == 0)
        return lint_refuse(err, "rfc5280-4.2.1.6", "subjectAltName holds no name");
    while (in.len)
        if (der_next(&in, &name) || !is_good_name(&name))
            return lint_refuse(err, "rfc5280-4.2.1.6", "subjectAltName holds what is no name");
    return 0;
}

static int check_points(struct bytes value, const struct certificate_request *req, struct err *err)
{
    struct bytes in;
    (void)req;
    if (only(value, TAG_SEQUENCE, &in) || in.len == 0)
        return lint_refuse(err, "rfc5280-4.2.1.13", "crlDistributionPoints names none");
    return 0;
}

static int refuse_of_ca(struct bytes value, const struct certificate_request *req, struct err *err)
{
    (void)value, (void)req;
    return lint_refuse(err, "rfc5280-4.2.1", "it has an extension that is for CAs alone");
}

#define OID_KEY_ID "\x55\x1d\x0e"
#define OID_NAMES "\x55\x1d\x11"

enum { EITHER, NOT_CRITICAL };

static const struct {
    const char *oid; /* content octets */
    int critical;
    int (*check)(struct bytes value, const struct certificate_request *req, struct err *err);
} known[] = {{OID_KEY_ID, NOT_CRITICAL, check_key_id},
             {"\x55\x1d\x23", NOT_CRITICAL, check_authority_key_id},
             {"\x55\x1d\x13", EITHER, check_constraints},
             {"\x55\x1d\x0f", EITHER, check_usage},
             {"\x55\x1d\x25", EITHER, check_purposes},
             {OID_NAMES, EITHER, check_names},
             {"\x55\x1d\x1f", EITHER, check_points},
             {"\x2b\x06\x01\x05\x05\x07\x01\x01", NOT_CRITICAL, NULL}, /* authorityInfoAccess */
             {"\x55\x1d\x09", NOT_CRITICAL, NULL},    /* subjectDirectoryAttributes */
             {"\x55\x1d\x2e", NOT_CRITICAL, NULL},    /* freshestCRL */
             {"\x55\x1d\x1e", EITHER, refuse_of_ca},  /* nameConstraints */
             {"\x55\x1d\x21", EITHER, refuse_of_ca},  /* policyMappings */
             {"\x55\x1d\x24", EITHER, refuse_of_ca},  /* policyConstraints */
             {"\x55\x1d\x36", EITHER, refuse_of_ca}}; /* inhibitAnyPolicy */

static int is_oid(struct bytes oid, const char *octets)
{
    return bytes_equal(oid, (struct bytes){(const uint8_t *)octets, strlen(octets)});
}

static int check_by_rfc(const struct found *f, const struct certificate_request *req,
                        struct err *err)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!is_oid(f->oid, known[i].oid))
            continue;
        if (known[i].critical == NOT_CRITICAL && f->critical)
            return lint_refuse(err, "rfc5280-4.2", "an extension is critical that must not be");
        return known[i].check ? known[i].check(f->value, req, err) : 0;
    }
    return 0;
}

/* ---- what the profile says ---- */

static int is_name(const struct der_value *name, const char *san)
{
    uint8_t address[16];
    int six = strchr(san, ':') != strrchr(san, ':');
    if (strncmp(san, "DNS:", 4) == 0)
        return name->tag == TAG_DNS_NAME &&
               bytes_equal(name->content,
                           (struct bytes){(const uint8_t *)san + 4, strlen(san + 4)});
    return name->tag == TAG_IP_ADDRESS && strncmp(san, "IP:", 3) == 0 &&
           inet_pton(six ? AF_INET6 : AF_INET, san + 3, address) == 1 &&
           bytes_equal(name->content, (struct bytes){address, six ? 16 : 4});
}

static int are_names(struct bytes value, const char *const *sans)
{
    struct bytes in;
    struct der_value name;
    if (!sans || only(value, TAG_SEQUENCE, &in))
        return 0;
    for (; *sans; sans++)
        if (der_next(&in, &name) || !is_name(&name, *sans))
            return 0;
    return in.len == 0;
}

/* One point with one URL: that of the request's shard. */
static int is_point(struct bytes value, const struct certificate_request *req)
{
    char path[CRL_NAME_MAX];
    struct bytes in, url;
    const char *base = req->profile->public_url;
    size_t n = strlen(base);
    if (only(value, TAG_SEQUENCE, &in) || only(in, TAG_SEQUENCE, &in) ||
        only(in, TAG_CONSTRUCTED, &in) || only(in, TAG_CONSTRUCTED, &in) || only(in, TAG_URI, &url))
        return 0;
    return url.len >= n && memcmp(url.data, base, n) == 0 &&
           is_oid((struct bytes){url.data + n, url.len - n}, crl_url_path(path, req->shard));
}

static int is_fixed(const struct found *f, X509_EXTENSION *fixed)
{
    const ASN1_OBJECT *oid = X509_EXTENSION_get_object(fixed);
    return bytes_equal(f->oid, (struct bytes){OBJ_get0_data(oid), OBJ_length(oid)}) &&
           f->critical == (X509_EXTENSION_get_critical(fixed) > 0);
}

static int check_by_profile(const struct found *f, const struct extension *e,
                            const struct certificate_request *req, struct err *err)
{
    int same = 0;
    if (e->kind == EXTENSION_KEY_ID)
        same = is_oid(f->oid, OID_KEY_ID); /* its value is checked above */
    else if (e->kind == EXTENSION_NAMES)
        same = is_oid(f->oid, OID_NAMES) && f->critical == e->critical &&
               are_names(f->value, req->sans);
    else if (e->kind == EXTENSION_POINT)
        same = is_fixed(f, e->fixed) && is_point(f->value, req);
    else
        same = is_fixed(f, e->fixed) &&
               bytes_equal(f->value, der_string(X509_EXTENSION_get_data(e->fixed)));
    return same ? 0 : lint_refuse(err, "profile", "an extension is not the profile's");
}

/* ---- the list ---- */

/* extnID, critical where it is TRUE (a default is not encoded), extnValue */
static int read_extension(struct bytes *list, struct found *f)
{
    struct bytes in, flag;
    if (der_expect(list, TAG_SEQUENCE, &in) || der_expect(&in, TAG_OID, &f->oid))
        return -1;
    f->critical = der_expect(&in, TAG_BOOLEAN, &flag) == 0;
    if (f->critical && (flag.len != 1 || flag.data[0] != 0xff))
        return -1;
    return only(in, TAG_OCTET_STRING, &f->value);
}

static int check_once(const struct found *all, size_t n, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (bytes_equal(all[i].oid, all[n].oid))
            return lint_refuse(err, "rfc5280-4.2", "an extension is there twice");
    return 0;
}

/* What must be there, whatever the profile. */
static int check_present(const struct found *all, size_t n, int subject_empty, struct err *err)
{
    int issuer_named = 0, named = 0;
    for (size_t i = 0; i < n; i++) {
        issuer_named |= is_oid(all[i].oid, "\x55\x1d\x23");
        named |= is_oid(all[i].oid, OID_NAMES) && all[i].critical;
    }
    if (!issuer_named)
        return lint_refuse(err, "rfc5280-4.2.1.1", "authorityKeyIdentifier is not there");
    if (subject_empty && !named)
        return lint_refuse(err, "rfc5280-4.1.2.6",
                           "the subject is empty, and no critical subjectAltName is there");
    return 0;
}

int lint_extensions(struct bytes list, const struct certificate_request *req, int subject_empty,
                    struct err *err)
{
    const struct profile *p = req->profile;
    struct found all[PROFILE_EXTENSIONS_MAX];
    size_t n = 0;
    for (; list.len; n++) {
        if (n == PROFILE_EXTENSIONS_MAX || read_extension(&list, &all[n]))
            return lint_refuse(err, "x690-10.1", "the extensions are not a list in DER");
        if (check_once(all, n, err) || check_by_rfc(&all[n], req, err))
            return -1;
    }
    if (check_present(all, n, subject_empty, err))
        return -1;
    if (n != p->extension_count)
        return lint_refuse(err, "profile", "it has more or fewer extensions than the profile");
    for (size_t i = 0; i < n; i++)
        if (check_by_profile(&all[i], &p->extensions[i], req, err))
            return -1;
    return 0;
}
