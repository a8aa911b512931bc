#include "pki/key.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "pki/der.h"
#include "pki/key_weak.h"

/* ASN.1 templates, to be read as the ASN.1 is. */
/* clang-format off */

/* RFC 5280 section 4.1 */
typedef struct {
    X509_ALGOR *algorithm;
    ASN1_BIT_STRING *key;
} SPKI;

ASN1_SEQUENCE(SPKI) = {
    ASN1_SIMPLE(SPKI, algorithm, X509_ALGOR),
    ASN1_SIMPLE(SPKI, key, ASN1_BIT_STRING)
} static_ASN1_SEQUENCE_END(SPKI);

/* RFC 8017 appendix A.1.1 */
typedef struct {
    BIGNUM *n, *e;
} RSA_NUMBERS;

ASN1_SEQUENCE(RSA_NUMBERS) = {
    ASN1_SIMPLE(RSA_NUMBERS, n, BIGNUM),
    ASN1_SIMPLE(RSA_NUMBERS, e, BIGNUM)
} static_ASN1_SEQUENCE_END(RSA_NUMBERS);

/* clang-format on */

/* The curves, with what libcrypto makes of them once. */
static struct curve {
    int nid;
    const char *name;
    enum key_kind kind;
    unsigned bits;
    EC_GROUP *group;
    EVP_PKEY *parameters;
} curves[] = {{NID_X9_62_prime256v1, "P-256", KEY_P256, 256, NULL, NULL},
              {NID_secp384r1, "P-384", KEY_P384, 384, NULL, NULL}};

static SPKI *spki_decode(struct bytes spki)
{
    SPKI *s = der_decode(spki, ASN1_ITEM_rptr(SPKI));
    /* The key is whole bytes: the count of unused bits stands before them, and they end it all. */
    if (s && spki.data[spki.len - der_string(s->key).len - 1] != 0) {
        ASN1_item_free((ASN1_VALUE *)s, ASN1_ITEM_rptr(SPKI));
        return NULL;
    }
    return s;
}

static void spki_free(SPKI *s)
{
    ASN1_item_free((ASN1_VALUE *)s, ASN1_ITEM_rptr(SPKI));
}

static RSA_NUMBERS *rsa_decode(const SPKI *s)
{
    int type;
    X509_ALGOR_get0(NULL, &type, NULL, s->algorithm);
    return type == V_ASN1_NULL ? der_decode(der_string(s->key), ASN1_ITEM_rptr(RSA_NUMBERS)) : NULL;
}

static void rsa_free(RSA_NUMBERS *rsa)
{
    ASN1_item_free((ASN1_VALUE *)rsa, ASN1_ITEM_rptr(RSA_NUMBERS));
}

static int check_rsa_numbers(const RSA_NUMBERS *rsa, const struct key_policy *policy,
                             struct key_info *info, struct err *err)
{
    unsigned bits = (unsigned)BN_num_bits(rsa->n);
    if (policy->rsa_max == 0)
        return err_set(err, ERR_key_type_refused, "the profile takes no RSA keys");
    if (bits < 2048 || bits > 4096 || bits < policy->rsa_min || bits > policy->rsa_max)
        return err_set(err, ERR_key_type_refused,
                       "the RSA key has %u bits; the profile takes %u to %u", bits, policy->rsa_min,
                       policy->rsa_max);
    if (!BN_is_word(rsa->e, 65537))
        return err_set(err, ERR_key_exponent, NULL);
    const char *weakness = BN_is_odd(rsa->n) ? key_weakness(rsa->n) : "its modulus is even";
    if (weakness)
        return err_set(err, ERR_key_weak, "the RSA key is weak: %s; make a new one", weakness);
    *info = (struct key_info){KEY_RSA, bits};
    return 0;
}

static int check_rsa(const SPKI *s, const struct key_policy *policy, struct key_info *info,
                     struct err *err)
{
    RSA_NUMBERS *rsa = rsa_decode(s);
    if (!rsa)
        return err_set(err, ERR_key_invalid, "the RSA key is not exact DER (RFC 3279 2.3.1)");
    int rc = check_rsa_numbers(rsa, policy, info, err);
    rsa_free(rsa);
    return rc;
}

/* NULL: no curve by name, or not one of ours; *named says which. */
static struct curve *curve_of(const SPKI *s, int *named)
{
    int type;
    const void *parameter;
    X509_ALGOR_get0(NULL, &type, &parameter, s->algorithm);
    *named = type == V_ASN1_OBJECT;
    for (size_t i = 0; *named && i < sizeof curves / sizeof *curves; i++)
        if (OBJ_obj2nid(parameter) == curves[i].nid)
            return &curves[i];
    return NULL;
}

static int is_on_curve(struct curve *c, struct bytes point)
{
    if (!c->group)
        c->group = EC_GROUP_new_by_curve_name(c->nid);
    EC_POINT *p = c->group ? EC_POINT_new(c->group) : NULL;
    /* coordinates below p and on the curve; both curves have cofactor 1 */
    int on = p && EC_POINT_oct2point(c->group, p, point.data, point.len, NULL) == 1;
    EC_POINT_free(p);
    ERR_clear_error();
    return on;
}

static int check_ec(const SPKI *s, const struct key_policy *policy, struct key_info *info,
                    struct err *err)
{
    int named;
    struct curve *c = curve_of(s, &named);
    if (!named) /* RFC 5480 section 2.1.1: implicitCurve and specifiedCurve must not be used */
        return err_set(err, ERR_key_curve, "the EC key's curve is not given by name");
    if (!c || !(c->kind == KEY_P256 ? policy->p256 : policy->p384))
        return err_set(err, ERR_key_type_refused, "the profile does not take this EC curve%s%s",
                       c ? ", " : "", c ? c->name : "");
    struct bytes point = der_string(s->key);
    if (point.len != 1 + 2 * c->bits / 8 || point.data[0] != POINT_CONVERSION_UNCOMPRESSED)
        return err_set(err, ERR_key_curve, "the EC key is not an uncompressed %s point", c->name);
    if (!is_on_curve(c, point))
        return err_set(err, ERR_key_invalid, "the EC key's point is not on %s", c->name);
    *info = (struct key_info){c->kind, c->bits};
    return 0;
}

static int algorithm_of(const SPKI *s)
{
    const ASN1_OBJECT *oid;
    X509_ALGOR_get0(&oid, NULL, NULL, s->algorithm);
    return OBJ_obj2nid(oid);
}

int key_check(struct bytes spki, const struct key_policy *policy, struct key_info *info,
              struct err *err)
{
    SPKI *s = spki_decode(spki);
    if (!s)
        return err_set(err, ERR_key_invalid, "the public key is not exact DER (RFC 5280 4.1.2.7)");
    int rc, algorithm = algorithm_of(s);
    if (algorithm == NID_rsaEncryption)
        rc = check_rsa(s, policy, info, err);
    else if (algorithm == NID_X9_62_id_ecPublicKey)
        rc = check_ec(s, policy, info, err);
    else
        rc = err_set(err, ERR_key_type_refused, "the key is neither RSA nor EC");
    spki_free(s);
    return rc;
}

static EVP_PKEY *key_from_params(const char *type, int selection, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!ctx || EVP_PKEY_fromdata_init(ctx) <= 0 ||
        EVP_PKEY_fromdata(ctx, &key, selection, params) <= 0)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}

/* fromdata wants numbers as the machine has them. */
static int native_number(unsigned char *out, size_t size, const BIGNUM *n)
{
    return BN_num_bytes(n) <= (int)size && BN_bn2nativepad(n, out, (int)size) >= 0 ? 0 : -1;
}

static EVP_PKEY *rsa_key(const SPKI *s)
{
    unsigned char n[512], e[8];
    EVP_PKEY *key = NULL;
    RSA_NUMBERS *rsa = rsa_decode(s);
    if (rsa && !native_number(n, sizeof n, rsa->n) && !native_number(e, sizeof e, rsa->e)) {
        OSSL_PARAM params[] = {OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, n, sizeof n),
                               OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_E, e, sizeof e),
                               OSSL_PARAM_END};
        key = key_from_params("RSA", EVP_PKEY_PUBLIC_KEY, params);
    }
    rsa_free(rsa);
    return key;
}

static EVP_PKEY *curve_parameters(struct curve *c)
{
    char name[16];
    snprintf(name, sizeof name, "%s", c->name);
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, 0),
                           OSSL_PARAM_END};
    if (!c->parameters)
        c->parameters = key_from_params("EC", EVP_PKEY_KEY_PARAMETERS, params);
    return c->parameters;
}

/* From a template with the parameters: a third of the time that fromdata takes. */
static EVP_PKEY *ec_key(const SPKI *s)
{
    int named;
    struct bytes point = der_string(s->key);
    struct curve *c = curve_of(s, &named);
    EVP_PKEY *parameters = c ? curve_parameters(c) : NULL;
    EVP_PKEY *key = parameters ? EVP_PKEY_new() : NULL;
    if (key && EVP_PKEY_copy_parameters(key, parameters) == 1 &&
        EVP_PKEY_set1_encoded_public_key(key, point.data, point.len) == 1)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

EVP_PKEY *key_from_spki(struct bytes spki)
{
    EVP_PKEY *key = NULL;
    SPKI *s = spki_decode(spki);
    if (s && algorithm_of(s) == NID_rsaEncryption)
        key = rsa_key(s);
    else if (s && algorithm_of(s) == NID_X9_62_id_ecPublicKey)
        key = ec_key(s);
    spki_free(s);
    if (!key)
        ERR_clear_error();
    return key;
}

int key_sha256(uint8_t out[32], struct bytes spki)
{
    SPKI *s = spki_decode(spki);
    if (!s)
        return -1;
    sha256(out, der_string(s->key));
    spki_free(s);
    return 0;
}

static int policy_rsa(struct key_policy *out, const char *item)
{
    int end = 0;
    unsigned least, most;
    if (sscanf(item, "rsa:%4u-%4u%n", &least, &most, &end) != 2 || item[end])
        return -1;
    if (least < 2048 || most > 4096 || least > most)
        return -1;
    out->rsa_min = least;
    out->rsa_max = most;
    return 0;
}

static int policy_item(struct key_policy *out, const char *item)
{
    if (!strcmp(item, "ec:p256"))
        return out->p256 = 1, 0;
    if (!strcmp(item, "ec:p384"))
        return out->p384 = 1, 0;
    return policy_rsa(out, item);
}

int key_policy_parse(struct key_policy *out, const char *text, struct err *err)
{
    char copy[256], *rest = copy, *item;
    *out = (struct key_policy){0};
    if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
        return err_set(err, ERR_field_value, "the list of key types is too long");
    while ((item = strsep(&rest, ","))) {
        item += strspn(item, " \t");
        item[strcspn(item, " \t")] = '\0';
        if (policy_item(out, item))
            return err_set(err, ERR_field_value,
                           "\"%s\" is not a key type; write rsa:2048-4096 (within these), ec:p256 "
                           "or ec:p384, separated by commas",
                           item);
    }
    return 0;
}
