/* Images of flash partitions that hold a device's credentials: built, read back, compared.
 * Pure functions over bytes. Two formats share this interface; each has a file that knows it:
 *
 *   nvs.h           ESP-IDF's key-value partition (version 2), plain or AES-256-XTS
 *   secure_cert.h   esp_secure_cert's TLV partition
 *
 * An error's code is field_value when an option is not valid, internal otherwise. */
#ifndef SIGNET_IMAGE_H
#define SIGNET_IMAGE_H

#include "image/credentials.h"

enum image_format { IMAGE_UNKNOWN, IMAGE_NVS, IMAGE_SECURE_CERT };

#define NVS_SECTOR 4096
#define NVS_NAME_MAX 15  /* characters of a namespace or key */
#define NVS_KEYS_SIZE 64 /* AES key, tweak key */
#define SECURE_CERT_SIZE_DEFAULT 0x2000
#define IMAGE_SIZE_MAX (1u << 20) /* of a partition that is built or read */

/* How NVS names things; NULL: the default. */
struct nvs_names {
    const char *space; /* the namespace: signet */
    const char *key;   /* client_key */
    const char *cert;  /* client_cert */
    const char *chain; /* DER: client_chain, and a digit behind it: client_chain0, … */
    const char *ca;    /* ca_cert */
};

struct image_options {
    enum image_format format;
    enum encoding encoding;
    size_t size; /* the partition's, in bytes: the image has exactly this length */
    struct nvs_names names;
    const uint8_t *nvs_keys; /* NVS_KEYS_SIZE bytes: encrypt with them; NULL: plain */
};

/* The image, options.size bytes, every one of them written (FF where there is nothing). *out
 * starts {0} and holds the key: buf_wipe(). Refused, with the item, its size and what fits, when
 * it does not fit. */
int image_build(struct buf *out, const struct credentials *c, const struct image_options *o,
                struct err *err) __attribute__((warn_unused_result));

/* ---- reading ---- */

struct image_item {
    char space[NVS_NAME_MAX + 1]; /* nvs: the namespace; "": secure-cert */
    char name[24];                /* nvs: the key; secure-cert: "private key", "type 51", … */
    uint8_t type, subtype;        /* nvs: 21 string, 42 blob, 01 u8, …; secure-cert: the TLV's */
    uint8_t flags;                /* secure-cert: not 0: only the board can read it */
    size_t offset;                /* where its entry begins */
    struct buf data;              /* numbers: as they stand, little-endian */
};

/* What is wrong with an image, with the place. */
struct image_problem {
    size_t offset;
    char text[200]; /* "page 0, entry 3: the data's CRC is …, not …" */
};

#define IMAGE_PROBLEMS_MAX 64

struct image {
    enum image_format format;
    size_t size, used; /* in bytes */
    struct image_item *items;
    size_t count;
    struct image_problem problems[IMAGE_PROBLEMS_MAX];
    size_t problem_count; /* all, also those that had no place */
};

/* Which format is this? By page headers, or the first TLV's magic. */
enum image_format image_recognize(struct bytes in);

/* Reads the bytes of a whole partition. 0 also when the image is damaged: what is whole is in
 * items, what is not is in problems alone. Whether an item is a good key or certificate is not
 * looked at: content.h. nvs_keys: NULL when it is plain. -1: no memory, too large, or neither
 * format. image_free() also after a failure. */
int image_read(struct image *out, struct bytes in, const uint8_t *nvs_keys, struct err *err)
    __attribute__((warn_unused_result));
/* Wipes and frees. */
void image_free(struct image *image);

/* What of a device's credentials is among the items, told by what is in them: the private key, the
 * certificate that it fits (without a key: the first that is no CA), and what else there is. */
struct image_credentials {
    EVP_PKEY *key;
    X509 *cert;             /* the leaf */
    STACK_OF(X509) * chain; /* the other certificates that are not self-signed */
    STACK_OF(X509) * roots; /* the self-signed ones */
    size_t keys, certs;     /* how many there are in all */
};

/* What is not there stays NULL, stacks are empty. image_credentials_free() always. */
int image_credentials(struct image_credentials *out, const struct image *image, struct err *err)
    __attribute__((warn_unused_result));
void image_credentials_free(struct image_credentials *c);

/* Does a flash read back hold these credentials, as image_build() with the same options puts them
 * there: readable without a problem, each item there and the same? -1 with the first difference. */
int image_verify(struct bytes in, const struct credentials *c, const struct image_options *o,
                 struct err *err) __attribute__((warn_unused_result));

/* ---- the key partition of an encrypted NVS ---- */

/* New keys, from the CSPRNG; the caller wipes them. */
int nvs_keys_make(uint8_t out[NVS_KEYS_SIZE], struct err *err) __attribute__((warn_unused_result));
/* NVS_SECTOR bytes for the partition nvs_keys; buf_wipe(). */
int nvs_keys_build(struct buf *out, const uint8_t keys[NVS_KEYS_SIZE], struct err *err)
    __attribute__((warn_unused_result));
/* The keys of such bytes, when their CRC is right. */
int nvs_keys_read(uint8_t out[NVS_KEYS_SIZE], struct bytes in, struct err *err)
    __attribute__((warn_unused_result));

#endif
