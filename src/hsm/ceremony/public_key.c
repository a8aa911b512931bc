/* The public half of a key in the token, from the attributes of its CKO_PUBLIC_KEY. */
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

#include "hsm/ceremony/ceremony.h"

static const struct curve {
    const char *name;
    size_t point; /* bytes of the uncompressed point */
    uint8_t oid[10];
    size_t oid_len;
} curves[] = {
    {"P-256", 65, {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, 10},
    {"P-384", 97, {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}, 7},
};

static EVP_PKEY *key_from_params(const char *type, OSSL_PARAM_BLD *build)
{
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    ERR_clear_error();
    return key;
}

/* CKA_EC_POINT is the point in an OCTET STRING (PKCS#11 v2.40 section 2.3.3); some give it bare. */
static EVP_PKEY *ec_key(struct p11 *p, CK_OBJECT_HANDLE object)
{
    uint8_t oid[64], room[128], *point = room;
    size_t oid_len, len;
    const struct curve *c = NULL;
    if (p11_bytes(p, object, CKA_EC_PARAMS, oid, sizeof oid, &oid_len) ||
        p11_bytes(p, object, CKA_EC_POINT, room, sizeof room, &len))
        return NULL;
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
        if (curves[i].oid_len == oid_len && memcmp(curves[i].oid, oid, oid_len) == 0)
            c = &curves[i];
    if (c && len == c->point + 2 && room[0] == 0x04 && room[1] == c->point) {
        point += 2;
        len -= 2;
    }
    if (!c || len != c->point)
        return NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (build && OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, c->name, 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, len))
        key = key_from_params("EC", build);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static EVP_PKEY *rsa_key(struct p11 *p, CK_OBJECT_HANDLE object)
{
    uint8_t modulus[1024], exponent[16];
    size_t n_len, e_len;
    if (p11_bytes(p, object, CKA_MODULUS, modulus, sizeof modulus, &n_len) ||
        p11_bytes(p, object, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent, &e_len) || !n_len)
        return NULL;
    BIGNUM *n = BN_bin2bn(modulus, (int)n_len, NULL), *e = BN_bin2bn(exponent, (int)e_len, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (n && e && build && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e))
        key = key_from_params("RSA", build);
    OSSL_PARAM_BLD_free(build);
    BN_free(n);
    BN_free(e);
    return key;
}

EVP_PKEY *ceremony_public_key(struct p11 *p, const struct p11_key *key)
{
    CK_OBJECT_CLASS public = CKO_PUBLIC_KEY;
    CK_ATTRIBUTE match[3] = {{CKA_CLASS, &public, sizeof public}};
    CK_ULONG n = 1, type;
    if (*key->label)
        match[n++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)key->label, strlen(key->label)};
    if (key->id_len)
        match[n++] = (CK_ATTRIBUTE){CKA_ID, (void *)(uintptr_t)key->id, key->id_len};
    CK_OBJECT_HANDLE object;
    CK_RV rv;
    if (p11_find(p, match, n, &object, 1, &rv) != 1 || p11_ulong(p, object, CKA_KEY_TYPE, &type))
        return NULL;
    return type == CKK_RSA ? rsa_key(p, object) : type == CKK_EC ? ec_key(p, object) : NULL;
}

void key_type_text(char out[16], EVP_PKEY *key)
{
    if (EVP_PKEY_is_a(key, "RSA"))
        snprintf(out, 16, "rsa:%d", EVP_PKEY_get_bits(key));
    else
        snprintf(out, 16, "ec:p%d", EVP_PKEY_get_bits(key));
}
