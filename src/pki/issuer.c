#include "pki/issuer.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "pki/der.h"
#include "pki/key.h"
#include "pki/signed.h"

struct issuer {
    X509 *certificate;
    struct buf der, name, spki;
    uint8_t spki_sha256[32];
    int64_t not_after;
    enum sign_alg alg;
    EVP_PKEY_CTX *verifier; /* set up once: that takes a quarter of what an RSA one then does */
};

static X509 *read_pem(struct bytes pem)
{
    BIO *bio = pem.len <= INT_MAX ? BIO_new_mem_buf(pem.data, (int)pem.len) : NULL;
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return x;
}

static int check_is_ca(X509 *x, struct err *err)
{
    uint32_t usage = X509_get_key_usage(x);
    if (X509_check_ca(x) != 1)
        return err_set(err, ERR_field_value, "the CA certificate is not one: it lacks CA:TRUE");
    if (usage == UINT32_MAX || !(usage & X509v3_KU_KEY_CERT_SIGN) || !(usage & X509v3_KU_CRL_SIGN))
        return err_set(err, ERR_field_value,
                       "the CA certificate lacks keyUsage keyCertSign and cRLSign");
    if (!X509_get0_subject_key_id(x))
        return err_set(err, ERR_field_value, "the CA certificate lacks subjectKeyIdentifier");
    return 0;
}

int sign_alg_of(enum sign_alg *out, struct bytes spki, struct err *err)
{
    static const struct key_policy any = {2048, 4096, 1, 1};
    static const enum sign_alg alg[] = {[KEY_RSA] = SIGN_RSA_SHA256,
                                        [KEY_P256] = SIGN_ECDSA_SHA256,
                                        [KEY_P384] = SIGN_ECDSA_SHA384};
    struct key_info info;
    if (key_check(spki, &any, &info, err))
        return -1;
    *out = alg[info.kind];
    return 0;
}

static int check_key(struct issuer *i, struct err *err)
{
    if (sign_alg_of(&i->alg, buf_view(&i->spki), err))
        return err_prefix(err, "the CA certificate's key");
    i->verifier = signed_verifier(X509_get0_pubkey(i->certificate), i->alg);
    return i->verifier ? 0 : err_set(err, ERR_internal, "the CA's key: %s", err_openssl());
}

static int take_time(struct issuer *i)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(X509_get0_notAfter(i->certificate), &tm) != 1)
        return -1;
    i->not_after = timegm(&tm);
    return 0;
}

static int derive(struct issuer *i, struct err *err)
{
    X509 *x = i->certificate;
    if (der_encode(&i->der, x, ASN1_ITEM_rptr(X509)) ||
        der_encode(&i->name, X509_get_subject_name(x), ASN1_ITEM_rptr(X509_NAME)) ||
        der_encode(&i->spki, X509_get_X509_PUBKEY(x), ASN1_ITEM_rptr(X509_PUBKEY)) || take_time(i))
        return err_set(err, ERR_internal, "the CA certificate: %s", err_openssl());
    sha256(i->spki_sha256, buf_view(&i->spki));
    return 0;
}

int issuer_from_pem(struct issuer **out, struct bytes pem, struct err *err)
{
    struct issuer *i = calloc(1, sizeof *i);
    if (!i)
        return err_set(err, ERR_internal, "no memory");
    i->certificate = read_pem(pem);
    if (!i->certificate)
        err_set(err, ERR_field_value, "there is no certificate in PEM: %s", err_openssl());
    else if (!derive(i, err) && !check_is_ca(i->certificate, err) && !check_key(i, err)) {
        *out = i;
        return 0;
    }
    issuer_free(i);
    return -1;
}

void issuer_free(struct issuer *i)
{
    if (!i)
        return;
    EVP_PKEY_CTX_free(i->verifier);
    X509_free(i->certificate);
    buf_free(&i->der);
    buf_free(&i->name);
    buf_free(&i->spki);
    free(i);
}

X509 *issuer_certificate(const struct issuer *i)
{
    return i->certificate;
}

struct bytes issuer_certificate_der(const struct issuer *i)
{
    return buf_view(&i->der);
}

struct bytes issuer_name_der(const struct issuer *i)
{
    return buf_view(&i->name);
}

struct bytes issuer_spki(const struct issuer *i)
{
    return buf_view(&i->spki);
}

const uint8_t *issuer_spki_sha256(const struct issuer *i)
{
    return i->spki_sha256;
}

struct bytes issuer_key_id(const struct issuer *i)
{
    return der_string(X509_get0_subject_key_id(i->certificate));
}

int64_t issuer_not_after(const struct issuer *i)
{
    return i->not_after;
}

enum sign_alg issuer_alg(const struct issuer *i)
{
    return i->alg;
}

size_t sign_digest(enum sign_alg alg, struct bytes data, uint8_t out[DIGEST_MAX])
{
    unsigned len = 0;
    if (alg != SIGN_ECDSA_SHA384) {
        sha256(out, data);
        return 32;
    }
    if (EVP_Digest(data.data, data.len, out, &len, signed_digest(alg), NULL) != 1)
        fatal("libcrypto cannot make a digest: %s", err_openssl());
    return len;
}

struct bytes sign_alg_der(enum sign_alg alg)
{
    static const uint8_t rsa_sha256[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                         0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00};
    static const uint8_t ecdsa_sha256[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                           0x48, 0xce, 0x3d, 0x04, 0x03, 0x02};
    static const uint8_t ecdsa_sha384[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                           0x48, 0xce, 0x3d, 0x04, 0x03, 0x03};
    switch (alg) {
    case SIGN_ECDSA_SHA256:
        return (struct bytes){ecdsa_sha256, sizeof ecdsa_sha256};
    case SIGN_ECDSA_SHA384:
        return (struct bytes){ecdsa_sha384, sizeof ecdsa_sha384};
    default:
        return (struct bytes){rsa_sha256, sizeof rsa_sha256};
    }
}

int issuer_verify(const struct issuer *i, struct bytes digest, struct bytes sig)
{
    return signed_verify_with(i->verifier, digest, sig);
}
