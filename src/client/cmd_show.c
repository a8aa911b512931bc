/* signet show: one certificate as the CA knows it, and what there is to do. */
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/keys.h"
#include "client/listing.h"
#include "client/session.h"
#include "client/when.h"
#include "pki/mac.h"

#define SOON_DAYS 30

struct shown {
    char serial[SERIAL_TEXT_SIZE], mac[MAC_TEXT_SIZE];
    X509 *file; /* the one to compare with; NULL: none */
    char name[80], state[16], board[16], profile[80], operator_name[80], reason[48];
    char not_before[TIME_TEXT_SIZE], not_after[TIME_TEXT_SIZE], issued_at[TIME_TEXT_SIZE],
        revoked_at[TIME_TEXT_SIZE];
    int expired;
    int64_t days; /* until not_after, or negative since then */
    X509 *cert;   /* NULL: the server has none (an orphan) */
    int older;    /* how many others this MAC has */
};

/* ---- which one ---- */

static int check_usage(const struct options *o, struct failure *f)
{
    if ((o->serial != NULL) + (o->mac != NULL) + (o->operand != NULL) == 1)
        return 0;
    return fail(f, EXIT_USAGE, "usage",
                "which certificate? give one of --serial HEX, --mac MAC, or its file");
}

static int from_file(struct shown *w, const char *path, struct failure *f)
{
    if (cert_load(&w->file, path, f))
        return -1;
    serial_text(w->serial, X509_get0_serialNumber(w->file));
    return *w->serial ? 0
                      : fail(f, EXIT_LOCAL, "local_file",
                             "%s: its serial is not positive (RFC 5280)", path);
}

/* How much a state matters to one who asks for a board. */
static int rank(const cJSON *row)
{
    char state[16];
    row_text(state, sizeof state, row, "state");
    return strcmp(state, "issued") == 0 ? 2 : strcmp(state, "held") == 0;
}

/* The newest that is live, else the newest. Rows come oldest first. */
static const cJSON *choose(const cJSON *rows)
{
    const cJSON *row, *best = NULL;
    cJSON_ArrayForEach (row, rows)
        if (!best || rank(row) >= rank(best))
            best = row;
    return best;
}

static int from_mac(struct shown *w, struct session *s, struct failure *f)
{
    cJSON *request = cJSON_CreateObject(), *answer = NULL;
    int good = cJSON_AddStringToObject(request, "operation", "list_certs") &&
               cJSON_AddStringToObject(request, "mac", w->mac) &&
               cJSON_AddNumberToObject(request, "limit", 500);
    int rc = good ? http_call(s->http, request, ANSWER_MAX, &answer, f) : fail_memory(f);
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(answer, "certificates");
    const cJSON *row = choose(rows);
    const char *serial;
    if (rc == 0 && !row)
        rc = fail(f, EXIT_REFUSED, "serial_unknown",
                  "%s has no certificate of this CA; signet provision --mac %s gets one", w->mac,
                  w->mac);
    if (rc == 0)
        rc = answer_text(&serial, row, "serial", f);
    if (rc == 0)
        rc = serial_from_text(w->serial, serial, f) ? fail(f, EXIT_VERIFY, "answer_not_understood",
                                                           "the server's list has a serial that is "
                                                           "none")
                                                    : 0;
    w->older = cJSON_GetArraySize(rows) - 1;
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc;
}

/* ---- what the server knows ---- */

static int check_serial(X509 *cert, const struct shown *w, struct failure *f)
{
    char found[SERIAL_TEXT_SIZE];
    serial_text(found, X509_get0_serialNumber(cert));
    if (strcmp(found, w->serial) != 0)
        return fail(f, EXIT_VERIFY, "serial_mismatch",
                    "the server sent another certificate than that of serial %s", w->serial);
    if (w->file && X509_cmp(w->file, cert) != 0)
        return fail(f, EXIT_VERIFY, "certificate_of_other_ca",
                    "the file's certificate is not the one that this CA issued with serial %s",
                    w->serial);
    return 0;
}

/* Its issuer must have signed it. Dates and revocation are what is shown, so not looked at here. */
static int check_issuer(X509 *cert, struct session *s, struct failure *f)
{
    STACK_OF(X509) *chain = NULL;
    if (session_chain(s, &chain, f))
        return -1;
    X509 *issuer = sk_X509_value(chain, 0);
    int good = X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(issuer)) == 0 &&
               X509_verify(cert, X509_get0_pubkey(issuer)) == 1;
    certs_free(chain);
    return good ? 0
                : fail(f, EXIT_VERIFY, "chain_invalid",
                       "the server sent a certificate that its CA has not signed");
}

static int take_certificate(struct shown *w, const cJSON *answer, struct session *s,
                            struct failure *f)
{
    struct buf pem = {0};
    STACK_OF(X509) *certs = NULL;
    if (!cJSON_GetObjectItemCaseSensitive(answer, "certificate"))
        return 0;
    int rc = answer_bytes(&pem, answer, "certificate", f);
    if (rc == 0)
        rc = certs_parse(&certs, buf_view(&pem), "the server's certificate", EXIT_VERIFY, f);
    if (rc == 0) {
        w->cert = sk_X509_shift(certs);
        rc = check_serial(w->cert, w, f) || check_issuer(w->cert, s, f) ? -1 : 0;
    }
    certs_free(certs);
    buf_free(&pem);
    return rc;
}

static void take_texts(struct shown *w, const cJSON *answer)
{
    row_text(w->name, sizeof w->name, answer, "name");
    row_text(w->state, sizeof w->state, answer, "state");
    row_text(w->board, sizeof w->board, answer, "board");
    row_text(w->profile, sizeof w->profile, answer, "profile");
    row_text(w->operator_name, sizeof w->operator_name, answer, "operator");
    row_text(w->reason, sizeof w->reason, answer, "reason");
    row_text(w->not_before, sizeof w->not_before, answer, "not_before");
    row_text(w->not_after, sizeof w->not_after, answer, "not_after");
    row_text(w->issued_at, sizeof w->issued_at, answer, "issued_at");
    row_text(w->revoked_at, sizeof w->revoked_at, answer, "revoked_at");
    int64_t end = when_seconds(w->not_after), left = end - (int64_t)time(NULL);
    w->expired = left <= 0;
    w->days = left / 86400;
}

static int get(struct shown *w, struct session *s, cJSON **answer, struct failure *f)
{
    cJSON *request = cJSON_CreateObject();
    int good = cJSON_AddStringToObject(request, "operation", "get_cert") &&
               cJSON_AddStringToObject(request, "serial", w->serial);
    int rc = good ? http_call(s->http, request, ANSWER_MAX, answer, f) : fail_memory(f);
    cJSON_Delete(request);
    if (rc == 0)
        rc = take_certificate(w, *answer, s, f);
    if (rc == 0)
        take_texts(w, *answer);
    return rc ? fail_at(f, s->settings.server) : 0;
}

/* ---- printing ---- */

static void print_key_and_digest(X509 *cert)
{
    uint8_t digest[32];
    char hex[65];
    EVP_PKEY *key = X509_get0_pubkey(cert);
    if (!key || cert_fingerprint(digest, cert))
        return;
    hex_encode(hex, (struct bytes){digest, sizeof digest});
    const char *type = key_type_of(key);
    printf("  key       %s\n  sha256    %s\n", type ? type : "of another kind", hex);
}

/* What its operator reported; of other certificates than devices' there is nothing to say. */
static void print_board(const struct shown *w)
{
    static const char *const words[][2] = {{"issued", "no flashing is reported"},
                                           {"flashed", "its flash was not verified"},
                                           {"verified", "flashed, read back, compared"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(w->board, words[i][0]) == 0)
            printf("  board     %s (%s)\n", w->board, words[i][1]);
}

static void print_end(const struct shown *w)
{
    printf("  valid     %s to %s", w->not_before, w->not_after);
    if (w->expired)
        printf(" (ended %lld days ago)\n", (long long)-w->days);
    else if (strncmp(w->not_after, "9999", 4) == 0)
        printf(" (without an end)\n");
    else
        printf(" (%lld days left)\n", (long long)w->days);
}

/* A device's folder exists where its key was made; other certificates are renewed elsewhere. */
static void advise_live(const struct shown *w)
{
    struct err err;
    int device = mac_check(w->name, &err) == 0;
    if (w->days >= SOON_DAYS)
        printf("Nothing to do. Out of use: signet revoke --serial %s (or hold, for now)\n",
               w->serial);
    else if (device && w->expired)
        printf("It has expired. On the machine with its folder: signet renew --mac %s, as long as "
               "the\nprofile allows it; else signet provision --mac %s\n",
               w->name, w->name);
    else if (device)
        printf("It ends soon. On the machine with its folder: signet renew --mac %s\n", w->name);
    else
        printf("It %s: have a new one issued\n", w->expired ? "has expired" : "ends soon");
}

static void advise(const struct shown *w)
{
    printf("\n");
    if (strcmp(w->state, "held") == 0)
        printf("On hold: signet unhold --serial %s lifts it; signet revoke --serial %s is for "
               "good\n",
               w->serial, w->serial);
    else if (strcmp(w->state, "revoked") == 0)
        printf("Revoked for good. A new one for the board: signet provision --mac MAC (new key)\n");
    else if (strcmp(w->state, "orphan") == 0)
        printf("Never handed out: a failure came in between, and it is on the CRL to be safe. "
               "Nothing to do.\n");
    else
        advise_live(w);
    if (w->older > 0)
        printf("%s has %d more: signet list --mac %s\n", w->mac, w->older, w->mac);
}

static void print(const struct shown *w)
{
    static const char *const words[][2] = {{"issued", "is issued and not revoked"},
                                           {"revoked", "is revoked"},
                                           {"held", "is on hold"},
                                           {"orphan", "was never handed out"}};
    const char *is = "is in a state that this signet does not know";
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(w->state, words[i][0]) == 0)
            is = words[i][1];
    if (strcmp(w->state, "issued") == 0 && w->expired)
        is = "has expired";
    printf("the certificate of %s %s\n", w->name, is);
    printf("  serial    %s\n  state     %s\n  profile   %s\n", w->serial, w->state, w->profile);
    printf("  operator  %s (who asked for it)\n  issued    %s\n", w->operator_name, w->issued_at);
    if (strcmp(w->revoked_at, "-") != 0)
        printf("  %s   %s (%s)\n", strcmp(w->state, "held") == 0 ? "held   " : "revoked",
               w->revoked_at, w->reason);
    print_board(w);
    print_end(w);
    if (w->cert)
        print_key_and_digest(w->cert);
    advise(w);
}

static int show(struct shown *w, struct session *s, const struct options *o, struct failure *f)
{
    cJSON *answer = NULL;
    int rc = o->mac ? from_mac(w, s, f) : 0;
    if (rc == 0)
        rc = get(w, s, &answer, f);
    if (rc == 0 && o->json)
        json_print(answer);
    else if (rc == 0)
        print(w);
    cJSON_Delete(answer);
    return rc;
}

int cmd_show(const struct options *o, struct failure *f)
{
    struct session s = {0};
    struct shown w = {0};
    struct err err;
    int rc = check_usage(o, f);
    if (rc == 0 && o->serial)
        rc = serial_from_text(w.serial, o->serial, f);
    if (rc == 0 && o->operand)
        rc = from_file(&w, o->operand, f);
    if (rc == 0 && o->mac && mac_from_text(w.mac, o->mac, &err))
        rc = fail_err(f, EXIT_USAGE, &err);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = show(&w, &s, o, f);
    X509_free(w.cert);
    X509_free(w.file);
    session_close(&s);
    return rc;
}
