#include "pki/signed.h"

#include <openssl/err.h>
#include <openssl/rsa.h>

#include "pki/der.h"

const EVP_MD *signed_digest(enum sign_alg alg)
{
    return alg == SIGN_ECDSA_SHA384 ? EVP_sha384() : EVP_sha256();
}

EVP_PKEY_CTX *signed_verifier(EVP_PKEY *key, enum sign_alg alg)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    const EVP_MD *md = signed_digest(alg);
    if (!ctx || EVP_PKEY_verify_init(ctx) <= 0 || EVP_PKEY_CTX_set_signature_md(ctx, md) <= 0)
        goto fail;
    if (alg == SIGN_RSA_SHA256 && EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) <= 0)
        goto fail;
    return ctx;
fail:
    EVP_PKEY_CTX_free(ctx);
    return NULL;
}

int signed_verify_with(EVP_PKEY_CTX *verifier, struct bytes digest, struct bytes sig)
{
    int good = EVP_PKEY_verify(verifier, sig.data, sig.len, digest.data, digest.len) == 1;
    if (!good)
        ERR_clear_error();
    return good ? 0 : -1;
}

int signed_verify(EVP_PKEY *key, enum sign_alg alg, struct bytes digest, struct bytes sig)
{
    EVP_PKEY_CTX *ctx = signed_verifier(key, alg);
    int rc = ctx ? signed_verify_with(ctx, digest, sig) : -1;
    EVP_PKEY_CTX_free(ctx);
    if (rc)
        ERR_clear_error();
    return rc;
}

int signed_tail(struct buf *out, enum sign_alg alg, struct bytes signature)
{
    static const uint8_t unused_bits = 0;
    struct bytes algorithm = sign_alg_der(alg);
    if (buf_add(out, algorithm.data, algorithm.len) ||
        der_header(out, 0, V_ASN1_BIT_STRING, V_ASN1_UNIVERSAL, signature.len + 1) ||
        buf_add(out, &unused_bits, 1))
        return -1;
    return buf_add(out, signature.data, signature.len);
}

int signed_head(struct buf *out, enum sign_alg alg, size_t tbs_len, size_t signature_len)
{
    uint8_t zeros[SIGNATURE_MAX] = {0};
    struct buf tail = {0};
    if (signature_len > sizeof zeros)
        return -1;
    int rc = signed_tail(&tail, alg, (struct bytes){zeros, signature_len});
    if (!rc)
        rc = der_header(out, 1, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL, tbs_len + tail.len);
    buf_free(&tail);
    return rc;
}

int signed_wrap(struct buf *out, enum sign_alg alg, struct bytes tbs, struct bytes signature)
{
    if (signed_head(out, alg, tbs.len, signature.len) || buf_add(out, tbs.data, tbs.len))
        return -1;
    return signed_tail(out, alg, signature);
}
