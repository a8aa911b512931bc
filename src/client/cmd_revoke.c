/* signet revoke, hold and unhold: certificates taken out of use, for good or for now.
 *
 * What can concern more than one certificate is signed with the operator's key: by MAC (a board may
 * have several live ones), by list, and all that one operator had issued. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/obtain.h"
#include "client/when.h"
#include "common/file.h"
#include "pki/crl.h"
#include "pki/mac.h"

#define SERIALS_MAX 1000 /* what one request may name: they are revoked as one */
#define LIST_SIZE_MAX (1024 * 1024)

/* Which certificates. */
struct selection {
    char serial[SERIAL_TEXT_SIZE]; /* one; empty: not by serial */
    char mac[MAC_TEXT_SIZE];
    cJSON *serials;
    const char *issued_by;
    char from[WHEN_SIZE], to[WHEN_SIZE];
};

/* ---- which ones ---- */

static int is_listed(const cJSON *list, const char *serial)
{
    const cJSON *element;
    cJSON_ArrayForEach (element, list)
        if (strcmp(element->valuestring, serial) == 0)
            return 1;
    return 0;
}

static int add_line(cJSON *list, char *line, const char *path, int number, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    line += strspn(line, " \t\r");
    line[strcspn(line, " \t\r,#")] = '\0';
    if (!*line)
        return 0;
    if (serial_from_text(serial, line, f)) {
        char why[256];
        snprintf(why, sizeof why, "%.250s", f->text);
        return fail(f, EXIT_USAGE, "usage", "%s: line %d: %s", path, number, why);
    }
    if (!is_listed(list, serial) && !cJSON_AddItemToArray(list, cJSON_CreateString(serial)))
        return fail_memory(f);
    return 0;
}

/* A serial a line; blank lines and what follows '#' do not count. */
static int parse_list(cJSON *list, char *text, const char *path, struct failure *f)
{
    char *line;
    for (int number = 1; (line = strsep(&text, "\n")); number++)
        if (add_line(list, line, path, number, f))
            return -1;
    int n = cJSON_GetArraySize(list);
    if (n == 0)
        return fail(f, EXIT_USAGE, "usage", "%s holds no serial numbers; one a line is wanted",
                    path);
    if (n > SERIALS_MAX)
        return fail(
            f, EXIT_USAGE, "usage",
            "%s holds %d serial numbers; at most %d go at once, because they are revoked as "
            "one: split the file",
            path, n, SERIALS_MAX);
    return 0;
}

static int read_input(struct buf *text, struct failure *f)
{
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, stdin)) > 0)
        if (text->len + n > LIST_SIZE_MAX || buf_add(text, chunk, n))
            return fail(f, EXIT_LOCAL, "local_file", "standard input holds too much");
    return buf_add(text, "", 1) ? fail_memory(f) : 0;
}

static int read_list(cJSON **out, const char *path, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    int rc = 0, piped = strcmp(path, "-") == 0;
    *out = cJSON_CreateArray();
    if (!*out)
        rc = fail_memory(f);
    else if (piped)
        rc = read_input(&text, f);
    else if (file_read(&text, path, LIST_SIZE_MAX, &err))
        rc = fail_err(f, EXIT_LOCAL, &err);
    if (rc == 0)
        rc = parse_list(*out, (char *)text.data, piped ? "standard input" : path, f);
    buf_free(&text);
    return rc;
}

static int read_certificate(char out[SERIAL_TEXT_SIZE], const char *path, struct failure *f)
{
    X509 *cert = NULL;
    if (cert_load(&cert, path, f))
        return -1;
    serial_text(out, X509_get0_serialNumber(cert));
    X509_free(cert);
    return *out ? 0
                : fail(f, EXIT_LOCAL, "local_file", "%s: its serial is not positive (RFC 5280)",
                       path);
}

static int check_usage(const struct options *o, int by_operator, struct failure *f)
{
    int given = (o->serial != NULL) + (o->certificate != NULL) + (o->mac != NULL) +
                (o->serials != NULL) + (o->issued_by != NULL);
    if (given != 1)
        return fail(f, EXIT_USAGE, "usage",
                    "which certificate? give one of --serial HEX, --certificate FILE, --mac MAC, "
                    "--serials FILE%s",
                    by_operator ? ", --issued-by OPERATOR" : "");
    if ((o->from || o->to) && !o->issued_by)
        return fail(f, EXIT_USAGE, "usage", "--from and --to go with --issued-by");
    return 0;
}

static int choose(struct selection *c, const struct options *o, struct failure *f)
{
    struct err err;
    if (o->serial)
        return serial_from_text(c->serial, o->serial, f);
    if (o->certificate)
        return read_certificate(c->serial, o->certificate, f);
    if (o->serials)
        return read_list(&c->serials, o->serials, f);
    if (o->mac)
        return mac_from_text(c->mac, o->mac, &err) ? fail_err(f, EXIT_USAGE, &err) : 0;
    c->issued_by = o->issued_by;
    if ((o->from && when_from_text(c->from, "--from", o->from, 0, f)) ||
        (o->to && when_from_text(c->to, "--to", o->to, 1, f)))
        return -1;
    return 0;
}

/* ---- the request ---- */

static int add(cJSON *request, const char *name, const char *value)
{
    return !value || !*value || cJSON_AddStringToObject(request, name, value);
}

static int make_request(cJSON **out, struct selection *c, const char *reason, struct failure *f)
{
    char id[33];
    /* not made from the request: the same serial may rightly be put on hold again later, and the
     * old answer must not come back then */
    if (request_id_new(id, f))
        return -1;
    cJSON *request = cJSON_CreateObject();
    int good = add(request, "operation", "revoke_cert") && add(request, "serial", c->serial) &&
               add(request, "mac", c->mac) && add(request, "issued_by", c->issued_by) &&
               add(request, "from", c->from) && add(request, "to", c->to) &&
               add(request, "reason", reason) && add(request, "request_id", id);
    if (good && c->serials) {
        good = cJSON_AddItemToObject(request, "serials", c->serials);
        c->serials = good ? NULL : c->serials; /* the request's now */
    }
    if (good) {
        *out = request;
        return 0;
    }
    cJSON_Delete(request);
    return fail_memory(f);
}

/* ---- the answer ---- */

/* Of the one that was meant? */
static int check_serial(const cJSON *answer, const struct selection *c, struct failure *f)
{
    const char *serial;
    if (!*c->serial)
        return 0;
    if (answer_text(&serial, answer, "serial", f))
        return -1;
    if (strcmp(serial, c->serial) == 0)
        return 0;
    return fail(f, EXIT_VERIFY, "serial_mismatch",
                "the server says that it revoked another certificate than %s; look at its list",
                c->serial);
}

static void print_next(void)
{
    printf("  verifiers learn of it from the next CRL: signet crl --out FILE\n");
}

static int print_one(const cJSON *answer, const char *reason, struct failure *f)
{
    const char *serial, *at, *said;
    char clean_serial[SERIAL_TEXT_SIZE], clean_at[TIME_TEXT_SIZE], clean_reason[48];
    if (answer_text(&serial, answer, "serial", f) || answer_text(&at, answer, "revoked_at", f) ||
        answer_text(&said, answer, "reason", f))
        return -1;
    printable(clean_serial, sizeof clean_serial, serial);
    printable(clean_at, sizeof clean_at, at);
    printable(clean_reason, sizeof clean_reason, said);
    if (strcmp(reason, "removeFromCRL") == 0)
        printf("%s is good again: its hold is lifted\n", clean_serial);
    else if (strcmp(reason, "certificateHold") == 0)
        printf("%s is on hold since %s; signet unhold --serial %s lifts it\n", clean_serial,
               clean_at, clean_serial);
    else
        printf("%s is revoked since %s (%s)\n", clean_serial, clean_at, clean_reason);
    print_next();
    return 0;
}

static int print_several(const cJSON *answer, const char *reason, struct failure *f)
{
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(answer, "count");
    if (!cJSON_IsNumber(count) || count->valuedouble < 0)
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "the server's answer has neither a \"serial\" nor a \"count\"; is it a Signet "
                    "server of this version?");
    if (count->valuedouble < 1) {
        printf("nothing has changed: there is none that was not so already\n");
        return 0;
    }
    const char *one = count->valuedouble < 2 ? "certificate is" : "certificates are";
    if (strcmp(reason, "removeFromCRL") == 0)
        printf("%.0f %s good again: the hold is lifted\n", count->valuedouble, one);
    else if (strcmp(reason, "certificateHold") == 0)
        printf("%.0f %s on hold now; signet list --state held shows them\n", count->valuedouble,
               one);
    else
        printf("%.0f %s revoked now (%s)\n", count->valuedouble, one, reason);
    print_next();
    return 0;
}

static int print(const cJSON *answer, const struct selection *c, const char *reason, int json,
                 struct failure *f)
{
    if (check_serial(answer, c, f))
        return -1;
    if (json) {
        json_print(answer);
        return 0;
    }
    int one = cJSON_GetObjectItemCaseSensitive(answer, "serial") != NULL;
    return one ? print_one(answer, reason, f) : print_several(answer, reason, f);
}

/* ---- the commands ---- */

static int send(struct session *s, struct selection *c, const char *reason, int json,
                struct failure *f)
{
    cJSON *request = NULL, *answer = NULL;
    int sign = !*c->serial;
    if (make_request(&request, c, reason, f))
        return -1;
    int rc = sign ? http_call_signed(s->http, request, ANSWER_MAX, &answer, f)
                  : http_call(s->http, request, ANSWER_MAX, &answer, f);
    if (rc == 0)
        rc = print(answer, c, reason, json, f);
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc ? fail_at(f, s->settings.server) : 0;
}

static int change(const struct options *o, const char *reason, int by_operator, struct failure *f)
{
    struct selection c = {0};
    struct session s = {0};
    int rc = check_usage(o, by_operator, f);
    if (rc == 0)
        rc = choose(&c, o, f);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = send(&s, &c, reason, o->json, f);
    cJSON_Delete(c.serials);
    session_close(&s);
    return rc;
}

int cmd_revoke(const struct options *o, struct failure *f)
{
    const char *reason = o->reason ? o->reason : "unspecified";
    if (crl_reason_from_name(reason) < 0)
        return fail(f, EXIT_USAGE, "usage",
                    "reason \"%s\" is not one of unspecified, keyCompromise, CACompromise, "
                    "affiliationChanged, superseded, cessationOfOperation, certificateHold, "
                    "privilegeWithdrawn",
                    reason);
    return change(o, reason, 1, f);
}

int cmd_hold(const struct options *o, struct failure *f)
{
    return change(o, "certificateHold", 0, f);
}

int cmd_unhold(const struct options *o, struct failure *f)
{
    return change(o, "removeFromCRL", 0, f);
}
