/* A profile says what a certificate holds and who may ask for it. In the configuration it is a
 * section [profile NAME] in OpenSSL's x509v3_config syntax plus a few keys of ours:
 *
 *   operations = req_client_cert        which wire operations may use it (none: signetd alone)
 *   roles      = provisioner            any of: provisioner, revoker, admin, auditor
 *   keys       = rsa:2048-4096, ec:p256 allowed key types
 *   subject    = CN={name}              template; {name} is the MAC, or a server's or operator's
 * name; attributes separated by ", " in encoding order name       = mac | hostname | label what
 * {name} must be not_before = -5m                    relative (s m h d y) or absolute
 * 19700101000000Z not_after  = +825d                  relative or absolute (99991231235959Z)
 *   allowed_names = .example.com, mqtt.example.org, 10.0.0.0/8
 *                                       which names a CSR may ask for: a host, everything below a
 *                                       domain, an address or a range; none when it is not given
 *   renew_expired = 30d                 renew_client_cert also so long after the end; default: not
 *   renew_key = any                     same: a renewal is on the same key, and on no other
 *   beyond_issuer = no                  yes: notAfter may exceed the issuer's; no: it is cut to it
 *
 * Every other key is an extension. `subjectAltName = {names}` takes the caller's checked list.
 * subjectKeyIdentifier = hash and authorityKeyIdentifier = keyid are added when not given; CDP and
 * AIA from public_url likewise, but not beside noCheck (RFC 6960 section 4.2.2.2.1). What would
 * make a CA is refused, and an OCSP responder in any profile but `ocsp`, which signetd alone can
 * use. A section of the configuration replaces the shipped one (profiles.cnf) of its name.
 */
#ifndef SIGNET_PROFILE_H
#define SIGNET_PROFILE_H

#include <openssl/conf.h>
#include "pki/issuer.h"
#include "pki/key.h"

enum profile_name_kind { NAME_MAC, NAME_HOSTNAME, NAME_LABEL };

#define PROFILE_OCSP "ocsp" /* the OCSP responder's own */

struct profile;  /* opaque */
struct profiles; /* the set, opaque */

/* Loads the shipped profiles and those of conf (may be NULL), and builds a sample of each with
 * this issuer; a mistake fails with the profile's name, the key and OpenSSL's reason.
 * public_url NULL or empty: no CDP and AIA are added; has_ocsp: AIA names the OCSP responder too.
 * The issuer is borrowed and must outlive it. */
int profiles_load(struct profiles **out, CONF *conf, const struct issuer *issuer,
                  const char *public_url, int has_ocsp, struct err *err)
    __attribute__((warn_unused_result));
void profiles_free(struct profiles *p);

const struct profile *profiles_find(const struct profiles *p, const char *name); /* or NULL */

/* The one after p, in no order; p NULL: the first. NULL: there is none. */
const struct profile *profiles_next(const struct profiles *all, const struct profile *p);

const char *profile_name(const struct profile *p);
const struct key_policy *profile_keys(const struct profile *p);
enum profile_name_kind profile_name_kind(const struct profile *p);
int profile_takes_names(const struct profile *p); /* has subjectAltName = {names} */
int profile_takes_shard(const struct profile *p); /* its CRL distribution point is public_url's */
int profile_allows_operation(const struct profile *p, const char *operation);
unsigned profile_roles(const struct profile *p); /* bits of enum role */

/* The roles of operators; bits, stored in the operator's row. */
enum role { ROLE_PROVISIONER = 1, ROLE_REVOKER = 2, ROLE_ADMIN = 4, ROLE_AUDITOR = 8 };
/* "provisioner,revoker" to bits; 0 with error field_value when empty or unknown. */
unsigned roles_parse(const char *text, struct err *err);
/* Bits to "provisioner,revoker"; out holds at least 48. */
void roles_text(char *out, size_t size, unsigned roles);

/* How long after its notAfter a certificate may still be renewed, in seconds. */
int64_t profile_renew_expired(const struct profile *p);
int profile_renews_same_key(const struct profile *p); /* and on no other */

/* Names that a CSR asks for, "DNS:…" and "IP:…", NULL-terminated: well formed, no wildcards, and on
 * the profile's allow-list. Error: name_not_allowed. */
int profile_check_names(const struct profile *p, const char *const *names, struct err *err)
    __attribute__((warn_unused_result));

/* The {name} of a profile: MAC in canonical form; host name by RFC 1123 or an IP address; label:
 * 1 to 64 of [A-Za-z0-9._@-]. Errors: csr_cn_not_mac, mac_not_unicast, csr_cn_invalid. */
int profile_check_name(const struct profile *p, const char *name, struct err *err)
    __attribute__((warn_unused_result));

#endif
