/* OCSP (RFC 6960; RFC 5019, its lightweight profile; RFC 9654, the nonce): requests taken apart,
 * responses put together, in the two steps that a key in a token asks for. Pure; fed with hostile
 * bytes. */
#ifndef SIGNET_OCSP_H
#define SIGNET_OCSP_H

#include "pki/issuer.h"

#define OCSP_REQUEST_MAX 4096
#define OCSP_CERTIDS_MAX 8 /* of one request */
/* The nonce extension's value as the client sent it: 1 to 128 bytes (RFC 9654 section 2.1) with the
 * header of an OCTET STRING, or without, as some clients do; they get back what they sent. */
#define OCSP_NONCE_MAX 131
#define OCSP_PACKED_MAX 1024

/* CertID (RFC 6960 section 4.1.1). Hashes by SHA-1 (20 bytes) or SHA-256 (32 bytes). */
struct ocsp_certid {
    uint8_t issuer_name_hash[32], issuer_key_hash[32];
    size_t hash_len; /* 20 or 32, which tells the algorithm */
    uint8_t serial[20];
    size_t serial_len;
};

struct ocsp_request {
    struct ocsp_certid certids[OCSP_CERTIDS_MAX];
    size_t count;
    uint8_t nonce[OCSP_NONCE_MAX];
    size_t nonce_len; /* 0: none */
};

/* From DER. A requestor's signature is not looked at; unknown extensions are passed over unless
 * critical; a hash of another algorithm, no CertID or more than OCSP_CERTIDS_MAX, trailing bytes:
 * -1 (the answer is then malformedRequest). */
int ocsp_request_parse(struct ocsp_request *out, struct bytes der)
    __attribute__((warn_unused_result));

/* CertIDs for the wire between front and authority: each hash_len u8, serial_len u8, name hash, key
 * hash, serial. unpack: -1 when malformed in any way. */
int ocsp_pack(struct buf *out, const struct ocsp_certid *certids, size_t count)
    __attribute__((warn_unused_result));
int ocsp_unpack(struct ocsp_certid out[OCSP_CERTIDS_MAX], size_t *count, struct bytes packed)
    __attribute__((warn_unused_result));

/* The responses that are not signed (RFC 6960 section 4.2.1): DER, static, one of these. */
enum ocsp_error {
    OCSP_MALFORMED_REQUEST = 1,
    OCSP_INTERNAL_ERROR = 2,
    OCSP_TRY_LATER = 3,
    OCSP_UNAUTHORIZED = 6
};
struct bytes ocsp_error_response(enum ocsp_error e);

enum ocsp_status { OCSP_STATUS_GOOD, OCSP_STATUS_REVOKED, OCSP_STATUS_UNKNOWN };

struct ocsp_single {
    struct ocsp_certid certid;
    enum ocsp_status status;
    int64_t revoked_at;
    int reason; /* RFC 5280 section 5.3.1; 0 is left out, as on the CRL */
};

struct responder; /* opaque: the responder's certificate, and what is derived from it once */
/* der: its certificate; its key's algorithm (RSA or P-256: SHA-256; P-384: SHA-384). */
int responder_new(struct responder **out, struct bytes der, struct err *err)
    __attribute__((warn_unused_result));
void responder_free(struct responder *r);
enum sign_alg responder_alg(const struct responder *r);
int64_t responder_not_after(const struct responder *r);

struct ocsp_answer {
    const struct responder *responder;
    const struct ocsp_single *singles;
    size_t count;
    struct bytes nonce; /* empty: none */
    int64_t produced_at, this_update, next_update;
};

/* ResponseData DER (RFC 6960 section 4.2.1), byKey, GeneralizedTime without fractions. */
int ocsp_build(struct buf *tbs, const struct ocsp_answer *answer, struct err *err)
    __attribute__((warn_unused_result));

/* A whole OCSPResponse from these bytes and the raw signature, with the responder's certificate,
 * after the signature was verified with that certificate's key: or nothing comes out. */
int ocsp_assemble(struct buf *der, const struct responder *r, struct bytes tbs,
                  struct bytes signature, struct err *err) __attribute__((warn_unused_result));

#endif
