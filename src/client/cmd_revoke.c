/* signet revoke: one certificate, by serial. */
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/session.h"
#include "pki/crl.h"

static int which_serial(char out[SERIAL_TEXT_SIZE], const struct options *o, struct failure *f)
{
    if (!o->serial == !o->certificate)
        return fail(f, EXIT_USAGE, "usage",
                    "which certificate? give one of --serial HEX and --certificate FILE");
    if (o->serial)
        return serial_from_text(out, o->serial, f);
    X509 *cert = NULL;
    if (cert_load(&cert, o->certificate, f))
        return -1;
    serial_text(out, X509_get0_serialNumber(cert));
    X509_free(cert);
    return *out ? 0
                : fail(f, EXIT_LOCAL, "local_file", "%s: its serial is not positive (RFC 5280)",
                       o->certificate);
}

/* A new one for each run, not made from the request: the same serial may rightly be put on hold
 * again later, and the old answer must not come back then. */
static int new_request_id(char out[33], struct failure *f)
{
    uint8_t random[16];
    if (RAND_bytes(random, sizeof random) != 1)
        return fail(f, EXIT_LOCAL, "openssl", "no random numbers: %s", err_openssl());
    hex_encode(out, (struct bytes){random, sizeof random});
    return 0;
}

static int make_request(cJSON **out, const char *serial, const char *reason, struct failure *f)
{
    char id[33];
    if (new_request_id(id, f))
        return -1;
    cJSON *request = cJSON_CreateObject();
    if (cJSON_AddStringToObject(request, "operation", "revoke_cert") &&
        cJSON_AddStringToObject(request, "serial", serial) &&
        cJSON_AddStringToObject(request, "reason", reason) &&
        cJSON_AddStringToObject(request, "request_id", id)) {
        *out = request;
        return 0;
    }
    cJSON_Delete(request);
    return fail_memory(f);
}

static int print(const cJSON *answer, const char *serial, int json, struct failure *f)
{
    const char *found, *at, *reason;
    char clean_at[TIME_TEXT_SIZE], clean_reason[48];
    if (answer_text(&found, answer, "serial", f) || answer_text(&at, answer, "revoked_at", f) ||
        answer_text(&reason, answer, "reason", f))
        return -1;
    if (strcmp(found, serial) != 0)
        return fail(f, EXIT_VERIFY, "serial_mismatch",
                    "the server says that it revoked another certificate than %s; look at its list",
                    serial);
    if (json) {
        json_print(answer);
        return 0;
    }
    printable(clean_at, sizeof clean_at, at);
    printable(clean_reason, sizeof clean_reason, reason);
    printf("%s is revoked since %s (%s)\n", serial, clean_at, clean_reason);
    printf("  verifiers learn of it from the next CRL: signet crl --out FILE\n");
    return 0;
}

static int revoke(struct session *s, const char *serial, const char *reason, int json,
                  struct failure *f)
{
    cJSON *request = NULL, *answer = NULL;
    if (make_request(&request, serial, reason, f))
        return -1;
    int rc = http_call(s->http, request, ANSWER_MAX, &answer, f);
    if (rc == 0)
        rc = print(answer, serial, json, f);
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc ? fail_at(f, s->settings.server) : 0;
}

int cmd_revoke(const struct options *o, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    const char *reason = o->reason ? o->reason : "unspecified";
    struct session s = {0};
    if (which_serial(serial, o, f))
        return -1;
    if (crl_reason_from_name(reason) < 0)
        return fail(f, EXIT_USAGE, "usage",
                    "reason \"%s\" is not one of unspecified, keyCompromise, CACompromise, "
                    "affiliationChanged, superseded, cessationOfOperation, certificateHold, "
                    "privilegeWithdrawn",
                    reason);
    int rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, 1, f);
    if (rc == 0)
        rc = revoke(&s, serial, reason, o->json, f);
    session_close(&s);
    return rc;
}
