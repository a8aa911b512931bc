#include "client/session.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "client/answer.h"
#include "client/keys.h"

int session_open(struct session *s, const struct options *o, struct failure *f)
{
    if (settings_load(&s->settings, o, f) || settings_need(s->settings.ca, "ca", &s->settings, f))
        return -1;
    return root_load(&s->root, s->settings.ca, f);
}

static int check_pair(const struct settings *s, const char *who, struct failure *f)
{
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    int rc = -1;
    if (cert_load(&cert, s->cert, f) || key_load(&key, s->key, f))
        goto out;
    if (X509_check_private_key(cert, key) == 1)
        rc = 0;
    else
        fail(f, EXIT_LOCAL, "local_file", "the %s's key %s does not belong to %s", who, s->key,
             s->cert);
out:
    EVP_PKEY_free(key);
    X509_free(cert);
    return rc;
}

int session_connect(struct session *s, const char *who, struct failure *f)
{
    const struct settings *set = &s->settings;
    if (settings_need(set->server, "server", set, f))
        return -1;
    if (who && (settings_need(set->cert, "cert", set, f) ||
                settings_need(set->key, "key", set, f) || check_pair(set, who, f)))
        return -1;
    return http_open(&s->http, set, s->root, who, f);
}

void session_close(struct session *s)
{
    http_close(s->http);
    X509_free(s->root);
    settings_free(&s->settings);
}

/* {"operation":NAME} and its answer. */
static int ask(struct http *h, const char *operation, size_t limit, cJSON **answer,
               struct failure *f)
{
    cJSON *request = cJSON_CreateObject();
    int rc = cJSON_AddStringToObject(request, "operation", operation)
                 ? http_call(h, request, limit, answer, f)
                 : fail_memory(f);
    cJSON_Delete(request);
    return rc;
}

int fetch_chain(struct http *h, STACK_OF(X509) * *out, struct failure *f)
{
    cJSON *answer = NULL;
    struct buf pem = {0};
    int rc = ask(h, "get_ca_chain", ANSWER_MAX, &answer, f);
    if (rc == 0)
        rc = answer_bytes(&pem, answer, "chain", f);
    if (rc == 0)
        rc = certs_parse(out, buf_view(&pem), "the server's CA chain", EXIT_VERIFY, f);
    buf_free(&pem);
    cJSON_Delete(answer);
    return rc;
}

int session_chain(struct session *s, STACK_OF(X509) * *out, struct failure *f)
{
    STACK_OF(X509) *chain = NULL;
    if (fetch_chain(s->http, &chain, f))
        return fail_at(f, s->settings.server);
    struct cert_check check = {.root = s->root, .chain = chain};
    X509 *first = sk_X509_value(chain, 0);
    int rc = cert_verify(first, &check, NULL, "the server's CA certificate", f);
    if (rc == 0 && X509_check_ca(first) != 1)
        rc = fail(f, EXIT_VERIFY, "chain_invalid",
                  "the first certificate of the server's CA chain is not a CA's");
    if (rc == 0) {
        *out = chain;
        return 0;
    }
    certs_free(chain);
    return fail_at(f, s->settings.server);
}

int session_crl(struct session *s, X509 *intermediate, X509_CRL **out, struct failure *f)
{
    cJSON *answer = NULL;
    struct buf text = {0};
    X509_CRL *crl = NULL;
    int rc = ask(s->http, "get_crl", CRL_ANSWER_MAX, &answer, f);
    if (rc == 0)
        rc = answer_bytes(&text, answer, "crl", f);
    if (rc == 0)
        rc = crl_parse(&crl, buf_view(&text), "the server's CRL", EXIT_VERIFY, f);
    if (rc == 0)
        rc = crl_verify(crl, intermediate, "the server's CRL", f);
    buf_free(&text);
    cJSON_Delete(answer);
    if (rc == 0) {
        *out = crl;
        return 0;
    }
    X509_CRL_free(crl);
    return fail_at(f, s->settings.server);
}
