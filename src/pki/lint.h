/* The last look at a certificate before the token is asked for its signature: what is about to be
 * signed is read again from its bytes, by other code than made them, and held against RFC 5280 and
 * the profile. What this refuses is a fault of ours (or of libcrypto, or of memory), and is never
 * signed.
 *
 * On refusal err->text is "RULE: what is wrong", where RULE has no spaces: "rfc5280-4.1.2.2" (the
 * section that asks for it), "x690-10.1" or "profile". err->code is lint_refused. */
#ifndef SIGNET_LINT_H
#define SIGNET_LINT_H

#include "pki/certificate.h"

/* The TBSCertificate for this request:
 *   encoding    DER throughout, fields in their order, none that is not asked for
 *   version     3
 *   serial      the request's: positive, 16 bytes, not of a few values only
 *   signature   the algorithm of the issuer's key
 *   issuer      the CA's subject, byte for byte
 *   validity    UTCTime through 2049, GeneralizedTime after, with seconds and Z; the begin
 *               and end that profile, lifetime and (where it binds) the CA's own end say
 *   subject     the profile's template with the name; strings of fit type and length
 *   key         the request's, byte for byte, and of a type and size that the profile takes
 *   extensions  the profile's, each once, in their order and criticality, each with its value; none
 *               that makes a CA, or an OCSP responder that is not signetd's own */
int certificate_lint(struct bytes tbs, const struct certificate_request *req, struct err *err)
    __attribute__((warn_unused_result));

/* The same but for serial and key: for the sample that a profile is tried with. */
int certificate_lint_sample(struct bytes tbs, const struct certificate_request *req,
                            struct err *err) __attribute__((warn_unused_result));

/* The certificate around this TBS: it holds exactly that, and names outside the algorithm that
 * stands inside (RFC 5280 section 4.1.1.2). */
int certificate_lint_signed(struct bytes der, struct bytes tbs, struct err *err)
    __attribute__((warn_unused_result));

#endif
