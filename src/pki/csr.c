#include "pki/csr.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pki/der.h"
#include "pki/key.h"

#define PEM_BEGIN "-----BEGIN CERTIFICATE REQUEST-----"

/* ASN.1 templates, to be read as the ASN.1 is. */
/* clang-format off */

/* RFC 2986 section 4.2, with the info left as it came: the signature is over those bytes. */
typedef struct {
    ASN1_TYPE *info;
    X509_ALGOR *algorithm;
    ASN1_BIT_STRING *signature;
} REQUEST;

ASN1_SEQUENCE(REQUEST) = {
    ASN1_SIMPLE(REQUEST, info, ASN1_ANY),
    ASN1_SIMPLE(REQUEST, algorithm, X509_ALGOR),
    ASN1_SIMPLE(REQUEST, signature, ASN1_BIT_STRING)
} static_ASN1_SEQUENCE_END(REQUEST);

/* RFC 5280 section 4.1.2.4. Our own, because X509_NAME keeps what is not DER as it came. */
typedef STACK_OF(X509_NAME_ENTRY) RDN;
DEFINE_STACK_OF(RDN)

ASN1_ITEM_TEMPLATE(RDN) =
    ASN1_EX_TEMPLATE_TYPE(ASN1_TFLG_SET_OF, 0, RDN, X509_NAME_ENTRY)
static_ASN1_ITEM_TEMPLATE_END(RDN);

/* RFC 2986 section 4.1, with the key left as it came: nothing decodes it before key_check().
 * Attributes are not optional there, but some leave them out where there are none. */
typedef struct {
    ASN1_INTEGER *version;
    STACK_OF(RDN) *subject;
    ASN1_TYPE *spki;
    STACK_OF(X509_ATTRIBUTE) *attributes;
} INFO;

ASN1_SEQUENCE(INFO) = {
    ASN1_SIMPLE(INFO, version, ASN1_INTEGER),
    ASN1_SEQUENCE_OF(INFO, subject, RDN),
    ASN1_SIMPLE(INFO, spki, ASN1_ANY),
    ASN1_IMP_SET_OF_OPT(INFO, attributes, X509_ATTRIBUTE, 0)
} static_ASN1_SEQUENCE_END(INFO);

/* clang-format on */

struct csr {
    struct buf der;
    REQUEST *request;
    INFO *info;
    char cn[CSR_CN_SIZE];
};

static int malformed(struct err *err, const char *why)
{
    ERR_clear_error();
    return err_set(err, ERR_csr_malformed, "the CSR is not valid: %s", why);
}

static int is_space(struct bytes in)
{
    for (size_t i = 0; i < in.len; i++)
        if (!isspace(in.data[i]))
            return 0;
    return 1;
}

/* One block and nothing but white space around it; PEM_read_bio() alone skips what is before. */
static int decode_pem(struct buf *der, struct bytes in, struct err *err)
{
    char *name = NULL, *header = NULL;
    unsigned char *data = NULL;
    char *rest;
    long len = 0;
    int rc = -1;
    BIO *bio = BIO_new_mem_buf(in.data, (int)in.len);
    if (!bio)
        return err_set(err, ERR_internal, "no memory");
    if (in.len < strlen(PEM_BEGIN) || memcmp(in.data, PEM_BEGIN, strlen(PEM_BEGIN)) != 0 ||
        PEM_read_bio(bio, &name, &header, &data, &len) != 1 || *header || len <= 0) {
        malformed(err, "not one PEM block " PEM_BEGIN);
        goto out;
    }
    long left = BIO_get_mem_data(bio, &rest);
    if (left < 0 || !is_space((struct bytes){(uint8_t *)rest, (size_t)left})) {
        malformed(err, "bytes follow the PEM block");
        goto out;
    }
    rc = buf_add(der, data, (size_t)len) ? err_set(err, ERR_internal, "no memory") : 0;
out:
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    BIO_free(bio);
    return rc;
}

static int read_der(struct buf *der, struct bytes in, struct err *err)
{
    struct bytes text = in;
    if (in.len == 0 || in.len > CSR_SIZE_MAX)
        return malformed(err, "it is empty or too long");
    while (text.len && isspace(*text.data))
        text = (struct bytes){text.data + 1, text.len - 1};
    if (text.len && *text.data == '-')
        return decode_pem(der, text, err);
    return buf_add(der, in.data, in.len) ? err_set(err, ERR_internal, "no memory") : 0;
}

/* Parsed as what it claims to be; an unknown one as any single value. An empty SEQUENCE says
 * nothing in any extension but basicConstraints, where it is CA:FALSE, and has crashed others. */
static int extension_parses(X509_EXTENSION *ext)
{
    const X509V3_EXT_METHOD *method = X509V3_EXT_get(ext);
    const ASN1_ITEM *item =
        method && method->it ? ASN1_ITEM_ptr(method->it) : ASN1_ITEM_rptr(ASN1_ANY);
    struct bytes value = der_string(X509_EXTENSION_get_data(ext));
    if (value.len == 2 && value.data[0] == 0x30 &&
        OBJ_obj2nid(X509_EXTENSION_get_object(ext)) != NID_basic_constraints)
        return 0;
    void *decoded = der_decode(value, item);
    ASN1_item_free(decoded, item);
    return decoded != NULL;
}

static int check_extensions(struct bytes der, struct err *err)
{
    const char *why = NULL;
    STACK_OF(X509_EXTENSION) *all = der_decode(der, ASN1_ITEM_rptr(X509_EXTENSIONS));
    if (!all || sk_X509_EXTENSION_num(all) == 0)
        why = "its extensionRequest is malformed (RFC 2985 5.4.2)";
    for (int i = 0; !why && i < sk_X509_EXTENSION_num(all); i++) {
        X509_EXTENSION *ext = sk_X509_EXTENSION_value(all, i);
        if (!extension_parses(ext))
            why = "a requested extension is malformed";
        else if (X509v3_get_ext_by_OBJ(all, X509_EXTENSION_get_object(ext), i) >= 0)
            why = "an extension is requested twice (RFC 5280 4.2)";
    }
    sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    return why ? malformed(err, why) : 0;
}

static int check_attributes(const INFO *info, struct err *err)
{
    int requests = 0;
    for (int i = 0; i < sk_X509_ATTRIBUTE_num(info->attributes); i++) {
        X509_ATTRIBUTE *attr = sk_X509_ATTRIBUTE_value(info->attributes, i);
        int nid = OBJ_obj2nid(X509_ATTRIBUTE_get0_object(attr));
        if (nid != NID_ext_req && nid != NID_ms_ext_req)
            continue;
        if (requests++ || X509_ATTRIBUTE_count(attr) != 1)
            return malformed(err, "more than one extensionRequest (RFC 2985 5.4.2)");
        if (check_extensions(der_opaque(X509_ATTRIBUTE_get0_type(attr, 0)), err))
            return -1;
    }
    return 0;
}

static int copy_cn(struct csr *csr, const ASN1_STRING *value, struct err *err)
{
    int type = ASN1_STRING_type(value);
    struct bytes text = der_string(value);
    if (type != V_ASN1_UTF8STRING && type != V_ASN1_PRINTABLESTRING && type != V_ASN1_IA5STRING)
        return err_set(err, ERR_csr_cn_invalid, "the CSR's CN has an unusual string type");
    if (text.len == 0 || text.len >= CSR_CN_SIZE)
        return err_set(err, ERR_csr_cn_invalid, "the CSR's CN must have 1 to 64 characters");
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < 0x20 || text.data[i] > 0x7e)
            return err_set(err, ERR_csr_cn_invalid, "the CSR's CN is not printable ASCII");
        csr->cn[i] = (char)text.data[i];
    }
    return 0;
}

static int find_cn(struct csr *csr, struct err *err)
{
    int found = 0;
    for (int i = 0; i < sk_RDN_num(csr->info->subject); i++) {
        const RDN *rdn = sk_RDN_value(csr->info->subject, i);
        for (int j = 0; j < sk_X509_NAME_ENTRY_num(rdn); j++) {
            const X509_NAME_ENTRY *entry = sk_X509_NAME_ENTRY_value(rdn, j);
            if (OBJ_obj2nid(X509_NAME_ENTRY_get_object(entry)) != NID_commonName)
                continue;
            if (found++)
                return err_set(err, ERR_csr_cn_invalid, "the CSR's subject has two CNs");
            if (copy_cn(csr, X509_NAME_ENTRY_get_data(entry), err))
                return -1;
        }
    }
    return found ? 0 : err_set(err, ERR_csr_cn_invalid, "the CSR's subject has no CN");
}

static int decode(struct csr *csr, struct err *err)
{
    struct bytes der = buf_view(&csr->der);
    csr->request = der_decode(der, ASN1_ITEM_rptr(REQUEST));
    if (!csr->request)
        return malformed(err, "not exact DER (RFC 2986 4.2), or bytes follow it");
    struct bytes signature = der_string(csr->request->signature);
    if (der.data[der.len - signature.len - 1] != 0)
        return malformed(err, "its signature is not whole bytes");
    csr->info = der_decode(der_opaque(csr->request->info), ASN1_ITEM_rptr(INFO));
    if (!csr->info || !csr_spki(csr).len)
        return malformed(err, "its CertificationRequestInfo is not exact DER (RFC 2986 4.1)");
    if (ASN1_INTEGER_get(csr->info->version) != 0)
        return malformed(err, "it is not version 1 (RFC 2986 4.1)");
    return check_attributes(csr->info, err);
}

int csr_parse(struct csr **out, struct bytes in, struct err *err)
{
    struct csr *csr = calloc(1, sizeof *csr);
    if (!csr)
        return err_set(err, ERR_internal, "no memory");
    if (read_der(&csr->der, in, err) || decode(csr, err) || find_cn(csr, err)) {
        csr_free(csr);
        return -1;
    }
    *out = csr;
    return 0;
}

/* ---- requested names ---- */

static GENERAL_NAMES *requested_names(const struct csr *csr)
{
    GENERAL_NAMES *names = NULL;
    for (int i = 0; i < sk_X509_ATTRIBUTE_num(csr->info->attributes) && !names; i++) {
        X509_ATTRIBUTE *attr = sk_X509_ATTRIBUTE_value(csr->info->attributes, i);
        int nid = OBJ_obj2nid(X509_ATTRIBUTE_get0_object(attr));
        if (nid != NID_ext_req && nid != NID_ms_ext_req)
            continue;
        struct bytes der = der_opaque(X509_ATTRIBUTE_get0_type(attr, 0));
        STACK_OF(X509_EXTENSION) *all = der_decode(der, ASN1_ITEM_rptr(X509_EXTENSIONS));
        names = X509V3_get_d2i(all, NID_subject_alt_name, NULL, NULL);
        sk_X509_EXTENSION_pop_free(all, X509_EXTENSION_free);
    }
    return names;
}

#define NAME_ROOM 264 /* "DNS:", 253 characters, NUL */

static int name_text(char out[NAME_ROOM], const GENERAL_NAME *name)
{
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    char address[INET6_ADDRSTRLEN];
    if (type == GEN_DNS) {
        struct bytes text = der_string(value);
        if (text.len == 0 || text.len > 253 || memchr(text.data, 0, text.len))
            return -1;
        snprintf(out, NAME_ROOM, "DNS:%.*s", (int)text.len, (const char *)text.data);
        return 0;
    }
    if (type != GEN_IPADD)
        return -1;
    struct bytes ip = der_string(value);
    if ((ip.len != 4 && ip.len != 16) ||
        !inet_ntop(ip.len == 4 ? AF_INET : AF_INET6, ip.data, address, sizeof address))
        return -1;
    snprintf(out, NAME_ROOM, "IP:%s", address);
    return 0;
}

int csr_names(const struct csr *csr, char ***out, struct err *err)
{
    GENERAL_NAMES *names = requested_names(csr);
    int n = sk_GENERAL_NAME_num(names), rc = 0;
    struct {
        char *list[CSR_NAMES_MAX + 1];
        char text[CSR_NAMES_MAX][NAME_ROOM];
    } *room = n > 0 && n <= CSR_NAMES_MAX ? calloc(1, sizeof *room) : NULL;
    if (n <= 0)
        rc = err_set(err, ERR_names_missing, NULL);
    else if (n > CSR_NAMES_MAX)
        rc = err_set(err, ERR_name_not_allowed, "more than %d names", CSR_NAMES_MAX);
    else if (!room)
        rc = err_set(err, ERR_internal, "no memory");
    for (int i = 0; i < n && rc == 0; i++) {
        room->list[i] = room->text[i];
        if (name_text(room->text[i], sk_GENERAL_NAME_value(names, i)))
            rc = err_set(err, ERR_name_not_allowed,
                         "only host names and IP addresses are certified (dNSName, iPAddress)");
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
    if (rc)
        free(room);
    else
        *out = room->list;
    return rc;
}

/* ---- proof of possession ---- */

/* The digest of a signature algorithm that fits the key; NULL: none that we take. */
static const EVP_MD *signature_digest(const X509_ALGOR *algorithm, const EVP_PKEY *key)
{
    const ASN1_OBJECT *oid;
    int parameter;
    X509_ALGOR_get0(&oid, &parameter, NULL, algorithm);
    /* RFC 4055 section 5: NULL, but also absent; RFC 5758 section 3.2: absent */
    int absent = parameter == V_ASN1_UNDEF, rsa = EVP_PKEY_is_a(key, "RSA");
    if (!absent && !(rsa && parameter == V_ASN1_NULL))
        return NULL;
    switch (OBJ_obj2nid(oid)) {
    case NID_sha256WithRSAEncryption:
        return rsa ? EVP_sha256() : NULL;
    case NID_sha384WithRSAEncryption:
        return rsa ? EVP_sha384() : NULL;
    case NID_sha512WithRSAEncryption:
        return rsa ? EVP_sha512() : NULL;
    case NID_ecdsa_with_SHA256:
        return rsa ? NULL : EVP_sha256();
    case NID_ecdsa_with_SHA384:
        return rsa ? NULL : EVP_sha384();
    case NID_ecdsa_with_SHA512:
        return rsa ? NULL : EVP_sha512();
    default:
        return NULL;
    }
}

int csr_verify(const struct csr *csr, struct err *err)
{
    struct bytes info = der_opaque(csr->request->info);
    struct bytes signature = der_string(csr->request->signature);
    EVP_PKEY *key = key_from_spki(csr_spki(csr));
    const EVP_MD *digest = key ? signature_digest(csr->request->algorithm, key) : NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int rc = 0;
    if (!digest)
        rc = err_set(err, ERR_csr_signature_invalid,
                     "the CSR must be signed with its own key, by SHA-256, SHA-384 or SHA-512");
    else if (!ctx || EVP_DigestVerifyInit(ctx, NULL, digest, NULL, key) != 1 ||
             EVP_DigestVerify(ctx, signature.data, signature.len, info.data, info.len) != 1)
        rc = err_set(err, ERR_csr_signature_invalid, NULL);
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    if (rc)
        ERR_clear_error();
    return rc;
}

struct bytes csr_spki(const struct csr *csr)
{
    return der_opaque(csr->info->spki);
}

struct bytes csr_der(const struct csr *csr)
{
    return buf_view(&csr->der);
}

const char *csr_cn(const struct csr *csr)
{
    return csr->cn;
}

void csr_free(struct csr *csr)
{
    if (!csr)
        return;
    ASN1_item_free((ASN1_VALUE *)csr->info, ASN1_ITEM_rptr(INFO));
    ASN1_item_free((ASN1_VALUE *)csr->request, ASN1_ITEM_rptr(REQUEST));
    buf_free(&csr->der);
    free(csr);
}
