/* The one table of error codes, and the one way in which a function of Signet says why it failed.
 *
 * A code is stable: clients program against it, docs/errors.md is made from this table. The HTTP
 * status belongs to the code, so that status and body can never disagree (RFC 9110 section 15).
 * The message is the default; err_set() gives the particulars.
 */
#ifndef SIGNET_ERR_H
#define SIGNET_ERR_H

#include <stddef.h>

/*    name                      HTTP  what was wrong, and what to do */
#define ERR_TABLE(X)                                                                               \
    X(body_not_json, 400, "the body is not one JSON object; send exactly one")                     \
    X(body_invalid_utf8, 400, "the body is not valid UTF-8")                                       \
    X(body_nul, 400, "the body holds a NUL character; take it out")                                \
    X(body_trailing, 400, "bytes follow the JSON object; send exactly one")                        \
    X(body_duplicate_name, 400, "a name occurs twice in one object; send it once")                 \
    X(body_too_deep, 400, "the JSON is nested too deeply")                                         \
    X(body_too_large, 413, "the request is larger than 64 KiB")                                    \
    X(content_type, 415, "send Content-Type: application/json")                                    \
    X(origin_refused, 403, "requests from web pages of other origins are refused")                 \
    X(http_malformed, 400, "the HTTP request is malformed")                                        \
    X(header_too_large, 431, "the HTTP header is larger than 8 KiB")                               \
    X(request_timeout, 408, "the request did not arrive within 30 s; send it again")               \
    X(not_found, 404, "there is nothing here; requests go to POST /v1")                            \
    X(method_not_allowed, 405, "this method is not allowed here")                                  \
    X(field_unknown, 400, "a field is not known for this operation; take it out")                  \
    X(field_missing, 400, "a required field is missing")                                           \
    X(field_type, 400, "a field has the wrong type")                                               \
    X(field_value, 400, "a field's value is not valid")                                            \
    X(operation_unknown, 400, "the operation is not known")                                        \
    X(csr_base64, 400, "the CSR is not canonical base64 (RFC 4648 section 4)")                     \
    X(csr_malformed, 400, "the CSR is not a valid PKCS#10 request (RFC 2986)")                     \
    X(csr_signature_invalid, 422, "the CSR's signature does not verify with its own key")          \
    X(csr_cn_not_mac, 422, "the CSR's CN must be the board's MAC as 24:0a:c4:12:34:56")            \
    X(csr_cn_invalid, 422, "the CSR's CN is not a valid name for this profile")                    \
    X(mac_not_unicast, 422, "a zero, broadcast or multicast MAC is refused")                       \
    X(key_type_refused, 422, "this type or size of key is not allowed by the profile")             \
    X(key_invalid, 422, "the public key is malformed")                                             \
    X(key_exponent, 422, "the RSA exponent must be 65537")                                         \
    X(key_weak, 422, "the RSA key is weak; make a new one with a current OpenSSL")                 \
    X(key_curve, 422, "the EC key must be on a named curve, as an uncompressed point")             \
    X(key_of_other_subject, 409,                                                                   \
      "this key is already certified for another subject; make a new key")                         \
    X(subject_has_certificate, 409,                                                                \
      "a live certificate for this MAC and another key exists; revoke it first")                   \
    X(request_id_reused, 409, "this request_id was used with another body; choose a new one")      \
    X(result_dead, 409,                                                                            \
      "this request's certificate is revoked or expired; make a new key and CSR")                  \
    X(profile_unknown, 422, "there is no such profile")                                            \
    X(profile_refused, 403, "this profile is not open to this operation or role")                  \
    X(credentials_required, 401,                                                                   \
      "connect with a client certificate, or send an enrolment's password by HTTP Basic")          \
    X(certificate_required, 401, "connect with your operator's client certificate")                \
    X(certificate_unknown, 401, "the client certificate was not issued by this CA")                \
    X(certificate_expired, 401, "the client certificate has expired; have a new one issued")       \
    X(certificate_revoked, 401, "the client certificate is revoked")                               \
    X(enrolment_refused, 401,                                                                      \
      "no enrolment in force has this user and password; have one made (signetctl enrolment add)") \
    X(enrolment_spent, 403, "this enrolment's password is used up; have a new one made")           \
    X(enrolment_unknown, 404, "there is no such enrolment")                                        \
    X(role_refused, 403, "your role does not allow this operation")                                \
    X(signature_required, 403,                                                                     \
      "this request needs the operator's CMS signature (Signet-Signature)")                        \
    X(signature_invalid, 403, "the Signet-Signature is not this operator's over this body")        \
    X(request_id_required, 400, "a signed request needs a request_id, so that it works once")      \
    X(name_not_allowed, 422, "the profile does not allow this name")                               \
    X(names_missing, 422, "the CSR has no subjectAltName; a server certificate needs one")         \
    X(too_many, 429, "the hour's or day's cap is reached; try again later")                        \
    X(clock_suspect, 503, "the server's clock is not to be trusted; see signetctl clock accept")   \
    X(not_on_hold, 409, "the certificate is not on hold")                                          \
    X(serial_unknown, 404, "no certificate of this CA has this serial")                            \
    X(already_revoked, 409, "the certificate is already revoked, for another reason")              \
    X(already_exists, 409, "it exists already")                                                    \
    X(crl_too_large, 413,                                                                          \
      "the CRL is too large for a JSON answer; fetch /crl on the plain-HTTP port")                 \
    X(operator_unknown, 404, "there is no such operator")                                          \
    X(busy, 503, "the server is busy; try again shortly")                                          \
    X(token_unavailable, 503, "the signing token is not available; try again later")               \
    X(storage_unavailable, 503, "the server cannot write its state; try again later")              \
    X(draining, 503, "the server is stopping; try again shortly")                                  \
    X(random_broken, 503,                                                                          \
      "the server's random generator fails, so nothing is signed; see signetctl status")           \
    X(lint_refused, 500,                                                                           \
      "the certificate would break RFC 5280 or its profile, and was not signed; see the server's " \
      "log")                                                                                       \
    X(too_old, 500, "the CA certificate ends too soon for this request; renew the intermediate")   \
    X(internal, 500, "an internal error; the server's log has the detail")

enum err_code {
    ERR_none = 0,
#define ERR_ENUM(name, http, text) ERR_##name,
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
        ERR_COUNT
};

/* Filled by the function that fails; text is never empty afterwards and has no secrets in it. */
struct err {
    enum err_code code;
    char text[512];
};

/* Sets code and text (printf style, cut at the end of text; NULL takes the table's message).
 * Always returns -1, so that a refusal is one statement: return err_set(err, ERR_busy, NULL);
 * err may be NULL. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the text already there; returns -1. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The stable name, HTTP status and default message; for a code outside the table, those of
 * `internal`. */
const char *err_name(enum err_code code);
int err_http_status(enum err_code code);
const char *err_message(enum err_code code);

/* The newest OpenSSL error as text, the queue emptied; "no reason given" if there is none.
 * The string is valid until the next call (one thread a process). */
const char *err_openssl(void);

#endif
