/* What some harnesses share: keys that are the same in each run, and CAs of them, so that seeds in
 * ../corpus (make_answer.py) can be signed by them; a folder for those that read files. */
#ifndef SIGNET_FUZZ_CA_H
#define SIGNET_FUZZ_CA_H

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"

#define UNUSED __attribute__((unused))

/* A finding says which. */
#define must(good) ((good) ? (void)0 : not_as_it_must(__FILE__, __LINE__, #good))

static UNUSED _Noreturn void not_as_it_must(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

/* The key on P-256 whose private number is this byte 32 times. */
static UNUSED EVP_PKEY *key_of(uint8_t byte)
{
    static const uint8_t head[] = {0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20};
    static const uint8_t p256[] = {0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                   0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    uint8_t der[sizeof head + 32 + sizeof p256];
    const unsigned char *at = der;
    memcpy(der, head, sizeof head);
    memset(der + sizeof head, byte, 32);
    memcpy(der + sizeof head + 32, p256, sizeof p256);
    EVP_PKEY *key = d2i_PrivateKey(EVP_PKEY_EC, NULL, &at, sizeof der);
    must(key != NULL);
    return key;
}

static UNUSED void set_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    must(e && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

/* A CA certificate without end; issuer NULL: its own. */
static UNUSED X509 *ca_of(const char *cn, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    must(X509_set_version(x, X509_VERSION_3) && ASN1_INTEGER_set(X509_get_serialNumber(x), 7) &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1,
                                    0) &&
         X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : name) &&
         ASN1_TIME_set_string(X509_getm_notBefore(x), "20200101000000Z") &&
         ASN1_TIME_set_string(X509_getm_notAfter(x), "99991231235959Z") && X509_set_pubkey(x, key));
    set_extension(x, issuer ? issuer : x, NID_basic_constraints, "critical,CA:TRUE");
    set_extension(x, issuer ? issuer : x, NID_key_usage, "critical,keyCertSign,cRLSign");
    set_extension(x, issuer ? issuer : x, NID_subject_key_identifier, "hash");
    must(X509_sign(x, issuer_key, EVP_sha256()) > 0);
    return x;
}

static UNUSED struct buf pem_of(X509 *x)
{
    char *text;
    struct buf out = {0};
    BIO *bio = BIO_new(BIO_s_mem());
    must(bio && PEM_write_bio_X509(bio, x));
    long len = BIO_get_mem_data(bio, &text);
    must(!buf_add(&out, text, (size_t)len));
    BIO_free(bio);
    return out;
}

#endif
