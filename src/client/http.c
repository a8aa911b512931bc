#include "client/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/answer.h"
#include "client/certs.h"
#include "client/interrupt.h"
#include "client/notice.h"
#include "client/signature.h"

struct http {
    CURL *curl;
    const struct settings *settings;
    const char *who;             /* whose certificate it connects with; NULL: none */
    int64_t date;                /* of the last answer */
    struct notice notice;        /* while a call lasts */
    char error[CURL_ERROR_SIZE]; /* libcurl's own words */

    /* of the attempt under way */
    struct buf body;
    size_t limit;
    int too_large;
    curl_off_t seen; /* bytes received, and when the last of them came */
    int64_t seen_at;
    int64_t silence_max; /* ms */
    int silent;
};

/* One call: its attempts share the deadline. */
struct call {
    const char *operation;
    int64_t deadline;
    unsigned attempt; /* from 0 */
    int maybe_done;   /* an attempt may have reached the server */
    CURLcode result;  /* of the last attempt */
    long status;      /* HTTP */
    long retry_after; /* seconds; -1: not said */
};

static size_t receive(char *data, size_t one, size_t len, void *arg)
{
    struct http *h = arg;
    (void)one;
    if (len > h->limit - h->body.len) {
        h->too_large = 1;
        return CURL_WRITEFUNC_ERROR;
    }
    return buf_add(&h->body, data, len) ? CURL_WRITEFUNC_ERROR : len;
}

/* Could the server have seen a whole request? Before the TLS handshake's end it could not. */
static int may_have_arrived(const struct http *h)
{
    curl_off_t handshake_done = 0, sent = 0;
    curl_easy_getinfo(h->curl, CURLINFO_APPCONNECT_TIME_T, &handshake_done);
    curl_easy_getinfo(h->curl, CURLINFO_SIZE_UPLOAD_T, &sent);
    return handshake_done > 0 || sent > 0;
}

/* Called several times a second at work, once a second at rest: ends an attempt at which nothing
 * comes any more, while there is time for another one, and on Ctrl-C. */
static int progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t up_total,
                    curl_off_t up_now)
{
    struct http *h = arg;
    (void)total, (void)up_total, (void)up_now;
    if (now != h->seen) {
        h->seen = now;
        h->seen_at = now_ms();
    }
    notice_tick(&h->notice, "waiting for %s", h->settings->server);
    h->silent = now_ms() - h->seen_at > h->silence_max && may_have_arrived(h);
    return interrupted() || h->silent;
}

static CURLcode set_plain(struct http *h)
{
    CURL *c = h->curl;
    CURLcode rc = curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
#define SET(option, value)                                                                         \
    if (rc == CURLE_OK)                                                                            \
    rc = curl_easy_setopt(c, option, value)
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_USERAGENT, "signet/" SIGNET_VERSION);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_NOPROGRESS, 0L);
    SET(CURLOPT_XFERINFOFUNCTION, progress);
    SET(CURLOPT_XFERINFODATA, h);
    SET(CURLOPT_WRITEFUNCTION, receive);
    SET(CURLOPT_WRITEDATA, h);
    SET(CURLOPT_ERRORBUFFER, h->error);
    return rc;
}

/* The pinned root alone: libcurl's compiled-in file and folder of roots are taken out. */
static CURLcode set_trust(struct http *h, struct bytes root_pem)
{
    CURL *c = h->curl;
    struct curl_blob root = {(void *)(uintptr_t)root_pem.data, root_pem.len, CURL_BLOB_COPY};
    CURLcode rc = curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
    SET(CURLOPT_CAINFO, NULL);
    if (root_pem.len) {
        SET(CURLOPT_CAINFO_BLOB, &root);
    }
    SET(CURLOPT_SSL_VERIFYPEER, root_pem.len ? 1L : 0L);
    SET(CURLOPT_SSL_VERIFYHOST, root_pem.len ? 2L : 0L);
    return rc;
}

static CURLcode set_certificate(struct http *h)
{
    CURL *c = h->curl;
    CURLcode rc = curl_easy_setopt(c, CURLOPT_SSLCERT, h->settings->cert);
    SET(CURLOPT_SSLKEY, h->settings->key);
    return rc;
}

static CURLcode set_url(struct http *h)
{
    char url[1024];
    int n = snprintf(url, sizeof url, "%s/v1", h->settings->server);
    if (n < 0 || (size_t)n >= sizeof url)
        return CURLE_URL_MALFORMAT;
    return curl_easy_setopt(h->curl, CURLOPT_URL, url);
}

int http_open(struct http **out, const struct settings *s, X509 *root, const char *who,
              struct failure *f)
{
    struct buf pem = {0};
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return fail_memory(f);
    h->settings = s;
    h->who = who;
    h->curl = curl_easy_init();
    if (!h->curl || (root && cert_pem(&pem, root, f)) || set_plain(h) || set_url(h) ||
        set_trust(h, buf_view(&pem)) || (who && set_certificate(h))) {
        buf_free(&pem);
        http_close(h);
        return fail(f, EXIT_LOCAL, "libcurl", "this libcurl lacks what signet needs: %s",
                    curl_version());
    }
    buf_free(&pem);
    *out = h;
    return 0;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    curl_easy_cleanup(h->curl);
    buf_free(&h->body);
    free(h);
}

static void read_head(struct http *h, struct call *c)
{
    struct curl_header *header;
    curl_off_t seconds = 0;
    curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &c->status);
    c->retry_after = -1;
    if (curl_easy_header(h->curl, "Retry-After", 0, CURLH_HEADER, -1, &header) == CURLHE_OK &&
        curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &seconds) == CURLE_OK)
        c->retry_after = seconds > 86400 ? 86400 : (long)seconds;
    if (curl_easy_header(h->curl, "Date", 0, CURLH_HEADER, -1, &header) == CURLHE_OK)
        h->date = curl_getdate(header->value, NULL);
}

/* A TLS alert after the handshake: with TLS 1.3 that is how a client certificate is refused. */
static int got_alert(const struct http *h, const struct call *c)
{
    return (c->result == CURLE_RECV_ERROR || c->result == CURLE_SEND_ERROR) &&
           strstr(h->error, "alert") != NULL;
}

/* An answer that says that nothing was done. */
static int was_refused(const struct http *h, const struct call *c)
{
    return got_alert(h, c) || (c->result == CURLE_OK && c->status / 100 == 4);
}

static void attempt(struct http *h, struct call *c)
{
    int64_t left = c->deadline - now_ms();
    h->body.len = 0;
    h->too_large = h->silent = 0;
    h->seen = 0;
    h->seen_at = now_ms();
    /* half of the time for a server that says nothing, so that a lost answer can be asked again */
    h->silence_max = c->attempt == 0 ? left / 2 : left;
    h->error[0] = '\0';
    c->status = 0;
    curl_easy_setopt(h->curl, CURLOPT_CONNECTTIMEOUT_MS, h->settings->connect_timeout_ms);
    curl_easy_setopt(h->curl, CURLOPT_TIMEOUT_MS, left > 1 ? (long)left : 1L);
    c->result = curl_easy_perform(h->curl);
    c->attempt++;
    if (c->result == CURLE_OK)
        read_head(h, c);
    if (may_have_arrived(h) && !was_refused(h, c))
        c->maybe_done = 1;
}

/* Cut off after the connection stood? (A server that refuses the connection is not waited for.) */
static int was_cut(const struct http *h, const struct call *c)
{
    switch (c->result) {
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        return strstr(h->error, "alert") ==
               NULL; /* a TLS alert is an answer, and will not change */
    case CURLE_ABORTED_BY_CALLBACK:
        return h->silent;
    default:
        return 0;
    }
}

/* How long to wait before the next attempt, in ms; -1: there is none. */
static int64_t pause_before_retry(const struct http *h, const struct call *c)
{
    int asked =
        c->result == CURLE_OK && (c->status == 503 || c->status == 429) && c->retry_after >= 0;
    if (!asked && !was_cut(h, c))
        return -1;
    uint16_t random = 0;
    if (RAND_bytes((unsigned char *)&random, sizeof random) != 1)
        random = 0;
    int64_t backoff = INT64_C(250) << (c->attempt < 6 ? c->attempt - 1 : 5);
    int64_t jittered = backoff / 2 + backoff * random / 65536; /* 0.5 to 1.5 of it */
    int64_t wait = asked ? c->retry_after * 1000 + jittered / 4 : jittered;
    return now_ms() + wait < c->deadline ? wait : -1;
}

/* --- what went wrong, in words --- */

static int unreachable(const struct http *h, const char *code, struct failure *f, const char *cause,
                       const char *next)
{
    return fail(f, EXIT_UNREACHABLE, code, "cannot reach %s: %s; %s", h->settings->server, cause,
                next);
}

static int fail_connect(const struct http *h, struct failure *f)
{
    long number = 0;
    curl_easy_getinfo(h->curl, CURLINFO_OS_ERRNO, &number);
    return unreachable(h, "unreachable", f, number ? strerror((int)number) : h->error,
                       "check that signetd runs there and that --server has its address and port");
}

static int fail_timeout(const struct http *h, struct failure *f)
{
    const struct settings *s = h->settings;
    char cause[64];
    if (may_have_arrived(h))
        return fail(f, EXIT_UNREACHABLE, "timeout",
                    "%s gave no complete answer within %g s; try again: the same request is sent, "
                    "or raise --timeout",
                    s->server, (double)s->timeout_ms / 1000);
    long ms = s->connect_timeout_ms < s->timeout_ms ? s->connect_timeout_ms : s->timeout_ms;
    snprintf(cause, sizeof cause, "no TLS connection within %g s", (double)ms / 1000);
    return unreachable(h, "timeout", f, cause,
                       "check --server and the network, or raise --connect-timeout");
}

/* A certificate outside of its time: as likely as not it is this machine's clock. */
static int add_clock(long error, struct failure *f)
{
    char text[32];
    time_t now = time(NULL);
    struct tm tm;
    if ((error != X509_V_ERR_CERT_NOT_YET_VALID && error != X509_V_ERR_CERT_HAS_EXPIRED) ||
        !gmtime_r(&now, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        return -1;
    return fail_add(f, "this machine's clock says %s: is it right?", text);
}

static int fail_server_certificate(const struct http *h, struct failure *f)
{
    long error = 0;
    curl_easy_getinfo(h->curl, CURLINFO_SSL_VERIFYRESULT, &error);
    fail(f, EXIT_VERIFY, "server_certificate",
         "%s is not the server that was pinned: %s; nothing was sent to it", h->settings->server,
         error > X509_V_ERR_UNSPECIFIED ? X509_verify_cert_error_string(error)
                                        : "its certificate is for another host name");
    return add_clock(error, f);
}

static int fail_handshake(const struct http *h, struct failure *f)
{
    if (strstr(h->error, "SSL_ERROR_SYSCALL") || strstr(h->error, "reset") ||
        strstr(h->error, "Broken pipe"))
        return unreachable(h, "connection_lost", f, "the connection broke in the TLS handshake",
                           "try again");
    return fail(f, EXIT_VERIFY, "tls", "%s does not speak TLS as it must: %s; check --server",
                h->settings->server, h->error);
}

static int fail_lost(const struct http *h, struct failure *f)
{
    return fail(f, EXIT_UNREACHABLE, "connection_lost",
                "%s broke the connection before its answer was complete (%s); try again: the same "
                "request is sent",
                h->settings->server, h->error);
}

static int fail_transport(const struct http *h, const struct call *c, struct failure *f)
{
    if (interrupted())
        return fail_interrupted(f);
    if (h->too_large)
        return fail(f, EXIT_VERIFY, "answer_too_large",
                    "%s answered more than %zu bytes; that is "
                    "no answer of a Signet server",
                    h->settings->server, h->limit);
    if (got_alert(h, c))
        return fail(f, EXIT_REFUSED, "tls_alert", "%s refused the connection (%s)%s%s%s",
                    h->settings->server, h->error, h->who ? "; is the " : "", h->who ? h->who : "",
                    h->who ? " certificate of this CA?" : "");
    switch (c->result) {
    case CURLE_COULDNT_RESOLVE_HOST:
        return unreachable(h, "unreachable", f, "its host name is not known", "check --server");
    case CURLE_COULDNT_CONNECT:
        return fail_connect(h, f);
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_ABORTED_BY_CALLBACK:
        return fail_timeout(h, f);
    case CURLE_PEER_FAILED_VERIFICATION:
        return fail_server_certificate(h, f);
    case CURLE_SSL_CONNECT_ERROR:
        return fail_handshake(h, f);
    case CURLE_SSL_CERTPROBLEM:
        return fail(f, EXIT_LOCAL, "local_file", "cannot use the %s certificate %s: %s", h->who,
                    h->settings->cert, h->error);
    case CURLE_OUT_OF_MEMORY:
        return fail_memory(f);
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_WEIRD_SERVER_REPLY:
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "%s does not answer in HTTP (%s); "
                    "check --server",
                    h->settings->server, h->error);
    default:
        return fail_lost(h, f);
    }
}

/* A wait that did not fit into the timeout: until when, by this machine's clock. */
static int add_when(long seconds, struct failure *f)
{
    char text[32];
    time_t when = time(NULL) + seconds;
    struct tm tm;
    if (!localtime_r(&when, &tm) || !strftime(text, sizeof text, "%H:%M:%S", &tm))
        return -1;
    if (seconds < 120)
        return fail_add(f, "it takes requests again in %ld s (at %s)", seconds, text);
    return fail_add(f, "it takes requests again in %ld min (at %s)", (seconds + 59) / 60, text);
}

static int fail_not_json(const struct http *h, const struct call *c, struct failure *f)
{
    return fail(f, EXIT_VERIFY, "answer_not_understood",
                "%s answered %s with HTTP %ld and something that is not a Signet answer in JSON; "
                "check --server",
                h->settings->server, c->operation, c->status);
}

/* {"status":"ERROR",…,"error":{"code":"…","message":"…"}} */
static int fail_refused(const struct http *h, const struct call *c, const cJSON *answer,
                        struct failure *f)
{
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(answer, "error");
    const char *code, *message;
    char clean_code[sizeof f->code], clean_message[512];
    if (answer_text(&code, error, "code", f) || answer_text(&message, error, "message", f))
        return fail_at(f, h->settings->server);
    if (!*code) /* programs go by it */
        return fail_not_json(h, c, f);
    printable(clean_code, sizeof clean_code, code);
    printable(clean_message, sizeof clean_message, message);
    fail(f, EXIT_REFUSED, clean_code, "%s refused %s: %s (%s)", h->settings->server, c->operation,
         clean_message, clean_code);
    return c->retry_after > 0 ? add_when(c->retry_after, f) : -1;
}

/* OK goes with HTTP 200 and names the operation; everything else is a refusal or not understood. */
static int check_answer(const struct http *h, const struct call *c, const cJSON *answer,
                        struct failure *f)
{
    const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "status"));
    const char *operation =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "operation"));
    if (status && strcmp(status, "ERROR") == 0 && c->status >= 400)
        return fail_refused(h, c, answer, f);
    if (status && strcmp(status, "OK") == 0 && c->status == 200 && operation &&
        strcmp(operation, c->operation) == 0)
        return 0;
    return fail_not_json(h, c, f);
}

static int read_answer(const struct http *h, const struct call *c, cJSON **answer,
                       struct failure *f)
{
    cJSON *object = h->body.len ? json_parse(buf_view(&h->body)) : NULL;
    if (!object)
        return fail_not_json(h, c, f);
    if (check_answer(h, c, object, f)) {
        cJSON_Delete(object);
        return -1;
    }
    *answer = object;
    return 0;
}

static int send_until_answered(struct http *h, struct call *c)
{
    for (;;) {
        attempt(h, c);
        int64_t wait = interrupted() ? -1 : pause_before_retry(h, c);
        if (wait < 0 || interrupt_sleep((long)wait))
            return c->result == CURLE_OK && !interrupted() ? 0 : -1;
    }
}

/* more: another header, or NULL */
static int exchange(struct http *h, const char *operation, const char *body, const char *more,
                    cJSON **answer, struct failure *f)
{
    struct call c = {.operation = operation, .deadline = now_ms() + h->settings->timeout_ms};
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (!headers || (more && !curl_slist_append(headers, more))) {
        curl_slist_free_all(headers);
        return fail_memory(f);
    }
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(h->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(h->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    notice_begin(&h->notice);
    int rc = send_until_answered(h, &c);
    notice_end(&h->notice);
    rc = rc ? fail_transport(h, &c, f) : read_answer(h, &c, answer, f);
    if (rc)
        f->nothing_done = !c.maybe_done;
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return rc;
}

static int print_and_call(struct http *h, const cJSON *request, size_t limit, int sign,
                          cJSON **answer, struct failure *f)
{
    char *body = cJSON_PrintUnformatted(request), *header = NULL;
    if (!body)
        return fail_memory(f);
    int rc = sign ? signature_header(&header, (struct bytes){(uint8_t *)body, strlen(body)},
                                     h->settings->cert, h->settings->key, f)
                  : 0;
    h->limit = limit;
    if (rc == 0)
        rc = exchange(h,
                      cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "operation")),
                      body, header, answer, f);
    free(header);
    cJSON_free(body);
    return rc;
}

int http_call(struct http *h, const cJSON *request, size_t limit, cJSON **answer, struct failure *f)
{
    return print_and_call(h, request, limit, 0, answer, f);
}

int http_call_signed(struct http *h, const cJSON *request, size_t limit, cJSON **answer,
                     struct failure *f)
{
    return print_and_call(h, request, limit, 1, answer, f);
}

int64_t http_date(const struct http *h)
{
    return h->date > 0 ? h->date : 0;
}
