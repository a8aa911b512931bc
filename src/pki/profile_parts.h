/* A profile from inside: for profile*.c, which make it, and certificate.c, which follows it. */
#ifndef SIGNET_PROFILE_PARTS_H
#define SIGNET_PROFILE_PARTS_H

#include <openssl/x509v3.h>
#include "pki/profile.h"

#define PROFILE_ATTRIBUTES_MAX 16
#define PROFILE_EXTENSIONS_MAX 48

struct moment {
    int absolute; /* else an offset from now */
    int64_t seconds;
};

struct attribute {
    char *type, *value; /* value may hold {name} */
};

/* EXTENSION_POINT: the CRL's URL that was added; fixed is that of the full one */
enum extension_kind { EXTENSION_FIXED, EXTENSION_KEY_ID, EXTENSION_NAMES, EXTENSION_POINT };

struct extension {
    enum extension_kind kind;
    int critical;
    X509_EXTENSION *fixed; /* made once, at load; NULL for the other kinds */
};

struct profile {
    struct profile *next;
    char *name;
    char *operations; /* separated by commas or spaces; may be NULL */
    unsigned roles;
    struct key_policy keys;
    enum profile_name_kind name_kind;
    struct attribute subject[PROFILE_ATTRIBUTES_MAX];
    size_t attributes;
    struct moment not_before, not_after;
    int beyond_issuer;
    char *public_url;      /* of the distribution point that was added; NULL: none was */
    char *allowed_names;   /* separated by commas or spaces; NULL: none */
    int64_t renew_expired; /* seconds after notAfter that a renewal may still come */
    int renew_same_key;
    struct extension extensions[PROFILE_EXTENSIONS_MAX];
    size_t extension_count;
    unsigned seen; /* which of our keys the section has */
};

/* One key of the section: 1 taken, 0 not one of ours, -1. */
int profile_set(struct profile *p, const char *key, const char *value, struct err *err);
/* Fails when a required key is missing. */
int profile_complete(const struct profile *p, struct err *err);

/* One key of the section that is not ours. */
int profile_add_extension(struct profile *p, CONF *conf, const struct issuer *issuer,
                          const char *key, const char *value, struct err *err);
/* What is added when the section does not give it. */
int profile_add_defaults(struct profile *p, const struct issuer *issuer, const char *public_url,
                         int has_ocsp, struct err *err);

/* Every pattern of an allow-list is well formed. */
int profile_check_allow_list(const char *text, struct err *err);

/* "example.org" by RFC 1123 section 2.1; "192.0.2.1" or "2001:db8::1". */
int name_is_host(const char *name);
int name_is_address(const char *name);

#endif
