/* put-certificate and show: the token's public contents. */
#include <cjson/cJSON.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hsm/ceremony/ceremony.h"

#define OBJECTS_MAX 256
#define DER_MAX (16 * 1024)

/* What a certificate is stored by: the key's names, or for another's certificate its own. */
struct names {
    const char *label;
    struct bytes id;
};

static int find_certificates(struct p11 *p, CK_ATTRIBUTE name, CK_OBJECT_HANDLE *out, int max)
{
    CK_OBJECT_CLASS class = CKO_CERTIFICATE;
    CK_ATTRIBUTE match[] = {{CKA_CLASS, &class, sizeof class}, name};
    CK_RV rv;
    return p11_find(p, match, name.ulValueLen ? 2 : 1, out, max, &rv);
}

/* 1: this very certificate is there; 0: none; -1: another is in its place. */
static int look_for(struct p11 *p, const struct names *n, struct bytes der, struct err *err)
{
    uint8_t there[DER_MAX];
    size_t len;
    CK_OBJECT_HANDLE found;
    CK_ATTRIBUTE id = {CKA_ID, (void *)(uintptr_t)n->id.data, n->id.len};
    int count = find_certificates(p, id, &found, 1);
    if (count == 0)
        return 0;
    if (count == 1 && p11_bytes(p, found, CKA_VALUE, there, sizeof there, &len) == 0 &&
        bytes_equal((struct bytes){there, len}, der))
        return 1;
    return err_set(err, ERR_already_exists,
                   "the token has another certificate with this id; remove that one first, by the "
                   "maker's tool or pkcs11-tool --delete-object --type cert");
}

/* der is set by the call that gave len. */
static CK_ATTRIBUTE der_attribute(CK_ATTRIBUTE_TYPE type, unsigned char *const *der, int len)
{
    return (CK_ATTRIBUTE){type, *der, len > 0 ? (CK_ULONG)len : 0};
}

static int store(struct p11 *p, X509 *x, const struct names *n, struct bytes value, struct err *err)
{
    CK_OBJECT_CLASS class = CKO_CERTIFICATE;
    CK_CERTIFICATE_TYPE type = CKC_X_509;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    unsigned char *subject = NULL, *issuer = NULL, *serial = NULL;
    CK_ATTRIBUTE a[] = {
        {CKA_CLASS, &class, sizeof class},
        {CKA_CERTIFICATE_TYPE, &type, sizeof type},
        {CKA_TOKEN, &yes, sizeof yes},
        {CKA_PRIVATE, &no, sizeof no},
        {CKA_LABEL, (void *)(uintptr_t)n->label, strlen(n->label)},
        {CKA_ID, (void *)(uintptr_t)n->id.data, n->id.len},
        {CKA_VALUE, (void *)(uintptr_t)value.data, value.len},
        der_attribute(CKA_SUBJECT, &subject, i2d_X509_NAME(X509_get_subject_name(x), &subject)),
        der_attribute(CKA_ISSUER, &issuer, i2d_X509_NAME(X509_get_issuer_name(x), &issuer)),
        der_attribute(CKA_SERIAL_NUMBER, &serial,
                      i2d_ASN1_INTEGER(X509_get0_serialNumber(x), &serial)),
    };
    CK_OBJECT_HANDLE made;
    CK_RV rv = p->f->C_CreateObject(p->session, a, sizeof a / sizeof *a, &made);
    OPENSSL_free(subject);
    OPENSSL_free(issuer);
    OPENSSL_free(serial);
    if (rv == CKR_OK)
        return 0;
    return err_set(err, ERR_token_unavailable, "the token refuses to store the certificate (%s)",
                   p11_rv_name(rv));
}

/* The key's own certificate takes the key's names, any other those given. */
static int choose_names(struct p11 *p, const struct options *o, X509 *x, struct p11_key *key,
                        struct names *n, struct err *err)
{
    if (o->label) {
        const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(x);
        if (!ski)
            return err_set(err, ERR_field_value, "the certificate has no subject key identifier");
        *n =
            (struct names){o->label, {ASN1_STRING_get0_data(ski), (size_t)ASN1_STRING_length(ski)}};
        return 0;
    }
    if (!o->key_label && !o->key_id.len)
        return err_set(err, ERR_field_missing,
                       "name its key (--key-label or --key-id), or give another's certificate a "
                       "--label");
    if (p11_find_key(p, o->key_label, o->key_id, key, err))
        return -1;
    EVP_PKEY *own = ceremony_public_key(p, key);
    int same = own && X509_get0_pubkey(x) && EVP_PKEY_eq(own, X509_get0_pubkey(x)) == 1;
    EVP_PKEY_free(own);
    *n = (struct names){*key->label ? key->label : "certificate", {key->id, key->id_len}};
    return same ? 0
                : err_set(err, ERR_key_invalid, "the certificate is not for the key in the token");
}

int command_put_certificate(const struct options *o, struct err *err)
{
    struct p11 p = {0};
    struct p11_key key;
    struct names names = {0};
    unsigned char *der = NULL;
    X509 *x = read_certificate(o->certificate, err);
    int len = x ? i2d_X509(x, &der) : 0, rc = -1, there = 0;
    struct bytes value = {der, len > 0 ? (size_t)len : 0};
    if (!x || ceremony_session(&p, o, 1, 1, err) || choose_names(&p, o, x, &key, &names, err) ||
        (there = look_for(&p, &names, value, err)) < 0)
        goto out;
    rc = there ? 0 : store(&p, x, &names, value, err);
    if (rc == 0)
        printf("certificate %s %s in token \"%s\" as \"%s\"\n", o->certificate,
               there ? "is already" : "stored", o->token, names.label);
out:
    p11_end(&p);
    OPENSSL_free(der);
    X509_free(x);
    ERR_clear_error();
    return rc;
}

static void add_hex(cJSON *to, const char *name, const uint8_t *bytes, size_t len)
{
    char hex[511];
    hex_encode(hex, (struct bytes){bytes, len});
    cJSON_AddStringToObject(to, name, hex);
}

static cJSON *show_key(struct p11 *p, CK_OBJECT_HANDLE handle)
{
    struct p11_key key = {.handle = handle};
    char text[160], hash[65], type[16];
    size_t len;
    if (p11_bytes(p, handle, CKA_LABEL, (uint8_t *)key.label, sizeof key.label - 1, &len) == 0)
        key.label[len] = '\0';
    if (p11_bytes(p, handle, CKA_ID, key.id, sizeof key.id, &key.id_len))
        key.id_len = 0;
    unsigned bits = p11_custody(p, &key);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "label", key.label);
    add_hex(out, "id", key.id, key.id_len);
    EVP_PKEY *public = ceremony_public_key(p, &key);
    if (public && spki_hash(hash, public) == 0) {
        key_type_text(type, public);
        cJSON_AddStringToObject(out, "type", type);
        cJSON_AddStringToObject(out, "spki_sha256", hash);
    }
    EVP_PKEY_free(public);
    custody_text(text, sizeof text, bits & CUSTODY_ALL);
    cJSON_AddStringToObject(out, "claimed", text);
    custody_text(text, sizeof text, CUSTODY_ALL & ~bits);
    cJSON_AddStringToObject(out, "missing", text);
    custody_text(text, sizeof text, bits & ~(unsigned)CUSTODY_ALL);
    cJSON_AddStringToObject(out, "also_allows", text);
    return out;
}

static cJSON *show_certificate(struct p11 *p, CK_OBJECT_HANDLE handle)
{
    uint8_t label[256], id[255], der[DER_MAX];
    size_t len;
    cJSON *out = cJSON_CreateObject();
    if (p11_bytes(p, handle, CKA_LABEL, label, sizeof label - 1, &len))
        len = 0;
    label[len] = '\0';
    cJSON_AddStringToObject(out, "label", (char *)label);
    add_hex(out, "id", id, p11_bytes(p, handle, CKA_ID, id, sizeof id, &len) ? 0 : len);
    const unsigned char *at = der;
    X509 *x = p11_bytes(p, handle, CKA_VALUE, der, sizeof der, &len)
                  ? NULL
                  : d2i_X509(NULL, &at, (long)len);
    char *subject = x ? subject_text(X509_get_subject_name(x)) : NULL;
    cJSON_AddStringToObject(out, "subject", subject ? subject : "");
    OPENSSL_free(subject);
    X509_free(x);
    ERR_clear_error();
    return out;
}

static cJSON *show_class(struct p11 *p, CK_OBJECT_CLASS class,
                         cJSON *(*show)(struct p11 *, CK_OBJECT_HANDLE))
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_ATTRIBUTE match = {CKA_CLASS, &class, sizeof class};
    CK_RV rv;
    cJSON *list = cJSON_CreateArray();
    int count = p11_find(p, &match, 1, found, OBJECTS_MAX, &rv);
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(list, show(p, found[i]));
    return list;
}

static const char *pin_state(CK_FLAGS flags)
{
    return flags & CKF_USER_PIN_LOCKED           ? "locked"
           : flags & CKF_USER_PIN_FINAL_TRY      ? "last try"
           : flags & CKF_USER_PIN_COUNT_LOW      ? "wrong tries since the last login"
           : !(flags & CKF_USER_PIN_INITIALIZED) ? "not set"
                                                 : "good";
}

static cJSON *show_token(struct p11 *p, const struct options *o)
{
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "token", o->token);
    cJSON_AddStringToObject(out, "description", p->description);
    cJSON_AddStringToObject(out, "pin", pin_state(p->info.flags));
    cJSON_AddBoolToObject(out, "logged_in", o->pin_file != NULL);
    cJSON_AddItemToObject(out, "keys", show_class(p, CKO_PRIVATE_KEY, show_key));
    cJSON_AddItemToObject(out, "certificates", show_class(p, CKO_CERTIFICATE, show_certificate));
    return out;
}

static const char *text_of(const cJSON *o, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));
    return text ? text : "";
}

static void print_key(const cJSON *k)
{
    printf("key \"%s\", id %s, %s\n    claimed: %s\n", text_of(k, "label"), text_of(k, "id"),
           *text_of(k, "type") ? text_of(k, "type") : "type not used by Signet, or no public half",
           text_of(k, "claimed"));
    if (*text_of(k, "missing"))
        printf("    missing: %s\n", text_of(k, "missing"));
    if (*text_of(k, "also_allows"))
        printf("    also allows: %s\n", text_of(k, "also_allows"));
    if (*text_of(k, "spki_sha256"))
        printf("    SubjectPublicKeyInfo SHA-256: %s\n", text_of(k, "spki_sha256"));
}

static void print_token(const cJSON *t)
{
    const cJSON *i;
    printf("token \"%s\": %s\nPIN: %s\n", text_of(t, "token"), text_of(t, "description"),
           text_of(t, "pin"));
    cJSON_ArrayForEach (i, cJSON_GetObjectItemCaseSensitive(t, "keys"))
        print_key(i);
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(t, "logged_in")))
        printf("private keys: give --pin-file to see them\n");
    cJSON_ArrayForEach (i, cJSON_GetObjectItemCaseSensitive(t, "certificates"))
        printf("certificate \"%s\", id %s, %s\n", text_of(i, "label"), text_of(i, "id"),
               text_of(i, "subject"));
}

int command_show(const struct options *o, struct err *err)
{
    struct p11 p;
    if (ceremony_session(&p, o, 0, o->pin_file != NULL, err)) {
        p11_end(&p);
        return -1;
    }
    cJSON *token = show_token(&p, o);
    p11_end(&p);
    char *json = o->json ? cJSON_PrintUnformatted(token) : NULL;
    if (json)
        puts(json);
    else
        print_token(token);
    cJSON_free(json);
    cJSON_Delete(token);
    return 0;
}
