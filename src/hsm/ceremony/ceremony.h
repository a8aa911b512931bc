/* What the parts of signet-ceremony share: its options, its commands, and how it opens a token. */
#ifndef SIGNET_CEREMONY_H
#define SIGNET_CEREMONY_H

#include <openssl/x509.h>
#include "hsm/pkcs11.h"

struct options {
    const char *module, *token, *pin_file, *so_pin_file, *init_args;
    const char *key_label, *key_type, *custody_exception;
    uint8_t key_id_room[255];
    struct bytes key_id;
    const char *subject, *out, *root_certificate, *csr, *certificate, *label;
    const char *public_url, *revoke, *reason;
    long years, months, slot;
    int json;
};

/* 0 or -1; each prints what it made. */
int command_init_token(const struct options *o, struct err *err);
int command_generate_key(const struct options *o, struct err *err);
int command_put_certificate(const struct options *o, struct err *err);
int command_show(const struct options *o, struct err *err);
int command_check(const struct options *o, struct err *err);
int command_csr(const struct options *o, struct err *err);
int command_root_certificate(const struct options *o, struct err *err);
int command_sign_intermediate(const struct options *o, struct err *err);
int command_root_crl(const struct options *o, struct err *err);

/* The PIN from file ("-": standard input), or asked for when it is NULL. */
int ceremony_pin(struct secret **out, const char *file, const char *whose, struct err *err)
    __attribute__((warn_unused_result));

/* A raw session with the token; login: with the user's PIN. p11_end() ends it, also on failure.
 */
int ceremony_session(struct p11 *p, const struct options *o, int write, int login, struct err *err)
    __attribute__((warn_unused_result));

/* The key of a token as OpenSSL signs with it, and its public half in software, which verifies
 * what the token signed. */
struct signing {
    struct token *token;
    EVP_PKEY *private; /* borrowed from token */
    EVP_PKEY *public;
    const EVP_MD *md;
};

/* ca_spki: what the key must be (empty: whatever the token has). signing_close() also on failure.
 */
int signing_open(struct signing *s, const struct options *o, struct bytes ca_spki, struct err *err)
    __attribute__((warn_unused_result));
void signing_close(struct signing *s);

/* The same with a CA certificate (o->root_certificate, PEM), whose key the token's must be. */
int open_root(struct signing *s, struct issuer **root, const struct options *o, struct err *err)
    __attribute__((warn_unused_result));

/* The public half of a key in the token, by label and id, in software. NULL: not there, or of a
 * kind that Signet does not use. */
EVP_PKEY *ceremony_public_key(struct p11 *p, const struct p11_key *key);

/* SHA-256 of the SubjectPublicKeyInfo as hex. */
int spki_hash(char out[65], EVP_PKEY *key) __attribute__((warn_unused_result));

/* "rsa:3072", "ec:p256" of a public key. */
void key_type_text(char out[16], EVP_PKEY *key);

/* Certificates: from a PEM file; to PEM and DER files. */
X509 *read_certificate(const char *path, struct err *err) __attribute__((warn_unused_result));
int write_certificate(const char *path, const X509 *x, struct err *err)
    __attribute__((warn_unused_result));

/* -1 when the file is there already: asked before the token signs something that could then not be
 * written. */
int refuse_existing(const char *path, struct err *err) __attribute__((warn_unused_result));

/* "CN=Name, O=Maker": attributes in encoding order; a backslash keeps a comma. */
X509_NAME *name_parse(const char *text, struct err *err) __attribute__((warn_unused_result));

/* The subject on one line (RFC 2253); the caller's, OPENSSL_free(). */
char *subject_text(const X509_NAME *name);

/* "2036-01-31T12:00:00Z" */
void time_text(char out[32], int64_t t);

#endif
