/* What a server, or one in its place, answers to the laptop: the JSON of an answer, the certificate
 * and chain in it, up to the pinned root; the CA's chain; the CRL. What is taken for a certificate
 * is for the key and name that were asked for. Seeds: ../corpus/answer, made by make_answer.py with
 * the keys of ca.h. */
#include <openssl/err.h>
#include <stdio.h>

/* the ends of http.c at which the network is */
#define http_call call_over_network
#define http_call_signed call_signed_over_network
#include "client/http.c"
#undef http_call
#undef http_call_signed

#include "ca.h"
#include "client/keys.h"
#include "client/obtain.h"
#include "client/session.h"

#define NAME "24:0a:c4:00:00:01"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct settings settings = {.server = (char *)(uintptr_t) "https://ca.example:8443"};
static struct http http = {.settings = &settings};
static X509 *root;
static X509_REQ *csr;

static int answer_of_input(const cJSON *request, long status, cJSON **answer, struct failure *f)
{
    struct call c = {.status = status, .retry_after = 30};
    c.operation = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "operation"));
    return read_answer(&http, &c, answer, f);
}

int http_call(struct http *h, const cJSON *request, size_t limit, cJSON **answer, struct failure *f)
{
    (void)h, (void)limit;
    return answer_of_input(request, 200, answer, f);
}

int http_call_signed(struct http *h, const cJSON *request, size_t limit, cJSON **answer,
                     struct failure *f)
{
    return http_call(h, request, limit, answer, f);
}

/* session_open() and session_connect() are not called */
int settings_load(struct settings *s, const struct options *o, struct failure *f)
{
    (void)s, (void)o;
    return fail_memory(f);
}

int settings_need(const char *value, const char *name, const struct settings *s, struct failure *f)
{
    (void)value, (void)name, (void)s;
    return fail_memory(f);
}

void settings_free(struct settings *s)
{
    (void)s;
}

static void set_up(void)
{
    struct failure f;
    if (root)
        return;
    EVP_PKEY *root_key = key_of(0x11), *device = key_of(0x33);
    root = ca_of("Fuzz Root", root_key, NULL, root_key);
    must(!csr_make(&csr, device, NAME, &f));
    EVP_PKEY_free(root_key);
    EVP_PKEY_free(device);
}

/* A failure is told: an exit code, and text that is fit for a terminal. */
static void check_told(const struct failure *f)
{
    must(f->exit != 0 && f->code[0] && f->text[0]);
    for (const char *p = f->code; *p; p++)
        must(*p >= ' ' && *p <= '~');
}

static void certificate(struct session *s)
{
    const struct wanted w = {.operation = "req_client_cert",
                             .csr = csr,
                             .request_id = "fuzz",
                             .name = NAME,
                             .purpose = X509_PURPOSE_SSL_CLIENT};
    struct issued issued = {0};
    struct failure f = {0};
    if (obtain(&issued, s, &w, &f)) {
        check_told(&f);
    } else {
        char *cn = name_cn(X509_get_subject_name(issued.cert));
        must(cn && strcmp(cn, NAME) == 0 &&
             EVP_PKEY_eq(X509_get0_pubkey(issued.cert), X509_REQ_get0_pubkey(csr)) == 1);
        OPENSSL_free(cn);
    }
    issued_free(&issued);
}

static void chain_and_crl(struct session *s)
{
    STACK_OF(X509) *chain = NULL;
    X509_CRL *crl = NULL;
    struct failure f = {0};
    if (session_chain(s, &chain, &f)) {
        check_told(&f);
        return;
    }
    must(sk_X509_num(chain) > 0);
    certs_free(chain);
    must(session_crl(s, root, &crl, &f) != 0); /* it is the same answer: to another question */
}

static void refusal(void)
{
    cJSON *request = cJSON_CreateObject(), *answer = NULL;
    struct failure f = {0};
    must(cJSON_AddStringToObject(request, "operation", "req_client_cert") != NULL);
    must(answer_of_input(request, 403, &answer, &f) != 0);
    check_told(&f);
    for (const char *p = f.text; *p; p++)
        must(*p >= ' ' && *p <= '~');
    cJSON_Delete(request);
}

static void crl_alone(struct session *s)
{
    X509_CRL *crl = NULL;
    struct failure f = {0};
    if (session_crl(s, root, &crl, &f))
        check_told(&f);
    X509_CRL_free(crl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    set_up();
    struct session s = {.settings = settings, .root = root, .http = &http};
    http.body.len = 0;
    must(!buf_add(&http.body, data, size));
    certificate(&s);
    chain_and_crl(&s);
    crl_alone(&s);
    refusal();
    ERR_clear_error();
    return 0;
}
