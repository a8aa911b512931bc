/* Private keys and their requests. Made here by OpenSSL, kept 0600 as PKCS#8 PEM. */
#ifndef SIGNET_CLIENT_KEYS_H
#define SIGNET_CLIENT_KEYS_H

#include <openssl/x509.h>
#include "client/failure.h"
#include "common/bytes.h"

#define KEY_TYPE_DEFAULT "rsa:2048"

/* rsa:2048, rsa:3072, rsa:4096, ec:p256 or ec:p384? EXIT_USAGE if not. */
int key_type_check(const char *type, struct failure *f) __attribute__((warn_unused_result));

/* The type of a key; NULL: none of these. */
const char *key_type_of(const EVP_PKEY *key);

/* A new key, of a type that passed key_type_check(); EVP_PKEY_free(). Ctrl-C ends it. */
int key_make(EVP_PKEY **out, const char *type, struct failure *f)
    __attribute__((warn_unused_result));

/* A file that must not exist yet, 0600, durable on return. */
int key_save(EVP_PKEY *key, const char *path, struct failure *f)
    __attribute__((warn_unused_result));
int key_load(EVP_PKEY **out, const char *path, struct failure *f)
    __attribute__((warn_unused_result));

/* Overwrites the file, as far as its file system overwrites in place, and removes it, durably. Not
 * there: nothing is to be done. */
int key_remove(const char *path, struct failure *f) __attribute__((warn_unused_result));

/* A PKCS#10 request (RFC 2986) whose subject is CN=name; X509_REQ_free(). */
int csr_make(X509_REQ **out, EVP_PKEY *key, const char *name, struct failure *f)
    __attribute__((warn_unused_result));
/* For a server: CN and the subjectAltName "DNS:host", "IP:192.0.2.1", …; NULL-terminated. */
int csr_make_for_names(X509_REQ **out, EVP_PKEY *key, const char *name, const char *const *names,
                       struct failure *f) __attribute__((warn_unused_result));
/* Loads one; whose it is, is not looked at. */
int csr_read(X509_REQ **out, const char *path, struct failure *f)
    __attribute__((warn_unused_result));
/* Loads one and checks that it is for this key and name: EXIT_LOCAL with the path if not. */
int csr_load(X509_REQ **out, const char *path, EVP_PKEY *key, const char *name, struct failure *f)
    __attribute__((warn_unused_result));
/* PEM; *out starts {0} and is the caller's, buf_free(). */
int csr_pem(struct buf *out, X509_REQ *csr, struct failure *f) __attribute__((warn_unused_result));
/* replace 0: the file must not exist yet. */
int csr_save(X509_REQ *csr, const char *path, int replace, struct failure *f)
    __attribute__((warn_unused_result));

/* The CN of a name when there is exactly one; OPENSSL_free(). NULL: not one, or not text. */
char *name_cn(const X509_NAME *name) __attribute__((warn_unused_result));

#endif
