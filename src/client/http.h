/* The wire: one JSON object out, one JSON object in, over HTTPS (POST /v1).
 *
 * TLS 1.2 or later and nothing but the pinned root is trusted; no proxy, no redirect, no other
 * protocol. A request that was cut off after the connection stood, or that was answered 429 or 503
 * with Retry-After, is sent again, byte for byte, within the one total timeout: its request_id
 * makes that safe. */
#ifndef SIGNET_CLIENT_HTTP_H
#define SIGNET_CLIENT_HTTP_H

#include <cjson/cJSON.h>
#include <openssl/x509.h>
#include "client/settings.h"

#define ANSWER_MAX ((size_t)8 * 1024 * 1024)
#define CRL_ANSWER_MAX ((size_t)128 * 1024 * 1024) /* a million entries, in PEM, in base64 */

struct http; /* opaque: one server, one connection kept alive between calls */

/* The settings are borrowed. root NULL: the server is not verified (only for fetching what is then
 * compared with a fingerprint). who: whose certificate and key those of the settings are,
 * "operator" or "device"; NULL: connect without. */
int http_open(struct http **out, const struct settings *s, X509 *root, const char *who,
              struct failure *f) __attribute__((warn_unused_result));
void http_close(struct http *h); /* NULL is fine */

/* The answer has status OK and is to this operation; cJSON_Delete(). Otherwise EXIT_UNREACHABLE,
 * EXIT_REFUSED (with the server's code), EXIT_VERIFY or EXIT_SIGNAL; f->nothing_done says that no
 * request of this call can have been acted on. limit is the largest answer taken. */
int http_call(struct http *h, const cJSON *request, size_t limit, cJSON **answer, struct failure *f)
    __attribute__((warn_unused_result));

/* The same, signed with the key that it connects with (client/signature.h). */
int http_call_signed(struct http *h, const cJSON *request, size_t limit, cJSON **answer,
                     struct failure *f) __attribute__((warn_unused_result));

/* When the last answer was made, by the server's clock (its Date header); 0: not known. */
int64_t http_date(const struct http *h);

#endif
