/* CRLs (RFC 5280 section 5), streamed: a list of a million entries never stands in memory.
 *
 * The caller walks its entries twice, in the same order: first to count (crl_count), then to write
 * (crl_add). Between the two comes crl_begin(), which knows all lengths by then; after the second
 * crl_digest(), the token's signature, and crl_finish(), which verifies and writes.
 *
 *     crl_new → crl_count × n → crl_begin → crl_add × n → crl_digest → crl_finish → crl_free
 */
#ifndef SIGNET_CRL_H
#define SIGNET_CRL_H

#include "pki/issuer.h"

/* RFC 5280 section 5.3.1. The numbers are the standard's; 7 and aACompromise are not used. */
enum crl_reason {
    REASON_UNSPECIFIED = 0,
    REASON_KEY_COMPROMISE = 1,
    REASON_CA_COMPROMISE = 2,
    REASON_AFFILIATION_CHANGED = 3,
    REASON_SUPERSEDED = 4,
    REASON_CESSATION = 5,
    REASON_HOLD = 6,
    REASON_REMOVE_FROM_CRL = 8, /* lifts a hold; on a full CRL it never stands */
    REASON_PRIVILEGE_WITHDRAWN = 9
};

/* "keyCompromise" and so on, as openssl spells them; -1 / NULL when unknown. */
int crl_reason_from_name(const char *name);
const char *crl_reason_name(int reason);

/* A CA's CRLs: scope 0 lists all that is revoked; scope 1 to CRL_SHARDS_MAX, a shard, what was
 * issued with this shard as its distribution point. */
#define CRL_SHARDS_MAX 64
/* Which of so many shards a certificate of this serial is given at issuance; 0: of none. */
unsigned crl_shard_of(struct bytes serial, unsigned shards);
/* Where a scope is found: "crl.der" or "crl-7.der" in the state, "/crl" or "/crl/7" behind the
 * URL. */
#define CRL_NAME_MAX 16
const char *crl_file_name(char out[CRL_NAME_MAX], unsigned scope);
const char *crl_url_path(char out[CRL_NAME_MAX], unsigned scope);

struct crl_head {
    const struct issuer *issuer;
    uint64_t number; /* CRL number, 1 and up */
    int64_t this_update;
    int64_t next_update;      /* cut to the issuer's notAfter */
    uint64_t journal_seq;     /* the anchor: a non-critical extension that holds the journal's */
    uint8_t journal_hash[32]; /* sequence and head hash (OCTET STRING, u64 big-endian + hash)  */
    /* of a shard: the URLs by which its certificates name it, NULL-terminated, for the critical
     * issuingDistributionPoint (RFC 5280 section 5.2.5); NULL: the full CRL has none */
    const char *const *points;
};

/* The OID of the anchor, from a random UUID in 16 and 24 bit pieces under the arc that Microsoft
 * opened for OIDs made that way. The 2.25 arc (X.667) would put all 128 bits into one number:
 * GnuTLS (libtasn1) then refuses the whole CRL, and so do parsers with 31 bit OID numbers, such as
 * Go's. */
extern const char CRL_ANCHOR_OID[];

struct crl_entry {
    struct bytes serial;
    int64_t revoked_at;
    int reason; /* unspecified is left out, as RFC 5280 says */
};

struct crl; /* opaque */

/* Writes the TBS to fd (an empty file, read and write, position 0; borrowed). */
int crl_new(struct crl **out, const struct crl_head *head, int fd, struct err *err)
    __attribute__((warn_unused_result));
int crl_count(struct crl *c, const struct crl_entry *e, struct err *err)
    __attribute__((warn_unused_result));
int crl_begin(struct crl *c, struct err *err) __attribute__((warn_unused_result));
int crl_add(struct crl *c, const struct crl_entry *e, struct err *err)
    __attribute__((warn_unused_result));
/* The TBS is complete; its digest for the signer. Fails when the two walks differed. */
int crl_digest(struct crl *c, uint8_t digest[DIGEST_MAX], size_t *len, struct err *err)
    __attribute__((warn_unused_result));
/* Verifies signature over the digest of what is in the file, read back, and writes the
 * CertificateList DER to out_fd (empty, position 0). No sync here. */
int crl_finish(struct crl *c, struct bytes signature, int out_fd, struct err *err)
    __attribute__((warn_unused_result));
void crl_free(struct crl *c);

/* The CRL number of the issuer's CRL in these bytes; 0: they are none, or have none. Its entries
 * are passed over: OpenSSL's own d2i_X509_CRL() takes ten times the size of der for them. */
uint64_t crl_number(struct bytes der, const struct issuer *issuer);

#endif
