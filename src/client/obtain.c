#include "client/obtain.h"

#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/keys.h"

int request_id_of(char out[33], const char *context, X509_REQ *csr)
{
    unsigned char *der = NULL;
    uint8_t digest[32];
    struct buf in = {0};
    int len = i2d_X509_REQ(csr, &der);
    int rc =
        len < 0 || buf_add(&in, context, strlen(context) + 1) || buf_add(&in, der, (size_t)len);
    if (rc == 0) {
        sha256(digest, buf_view(&in));
        hex_encode(out, (struct bytes){digest, 16});
    }
    OPENSSL_free(der);
    buf_free(&in);
    return rc ? -1 : 0;
}

int request_id_new(char out[33], struct failure *f)
{
    uint8_t random[16];
    if (RAND_bytes(random, sizeof random) != 1)
        return fail(f, EXIT_LOCAL, "openssl", "no random numbers: %s", err_openssl());
    hex_encode(out, (struct bytes){random, sizeof random});
    return 0;
}

static int make_request(cJSON **out, const struct wanted *w, struct failure *f)
{
    struct buf pem = {0};
    if (csr_pem(&pem, w->csr, f))
        return -1;
    char *text = base64_encode(buf_view(&pem));
    cJSON *request = cJSON_CreateObject();
    int good = text && cJSON_AddStringToObject(request, "operation", w->operation) &&
               cJSON_AddStringToObject(request, "csr", text) &&
               (!w->profile || cJSON_AddStringToObject(request, "profile", w->profile)) &&
               (!w->replace || cJSON_AddTrueToObject(request, "replace")) &&
               cJSON_AddStringToObject(request, "request_id", w->request_id);
    free(text);
    buf_free(&pem);
    if (good) {
        *out = request;
        return 0;
    }
    cJSON_Delete(request);
    return fail_memory(f);
}

static int answer_certs(STACK_OF(X509) * *out, const cJSON *answer, const char *name,
                        struct failure *f)
{
    char what[64];
    struct buf pem = {0};
    if (answer_bytes(&pem, answer, name, f))
        return -1;
    snprintf(what, sizeof what, "the answer's %s", name);
    int rc = certs_parse(out, buf_view(&pem), what, EXIT_VERIFY, f);
    buf_free(&pem);
    return rc;
}

static int has_name(X509 *cert, const char *name)
{
    if (strncmp(name, "IP:", 3) == 0)
        return X509_check_ip_asc(cert, name + 3, 0) == 1;
    return X509_check_host(cert, name + 4, 0,
                           X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT,
                           NULL) == 1;
}

static int check_name(X509 *cert, const char *name, struct failure *f)
{
    char *cn = name_cn(X509_get_subject_name(cert));
    int same = cn && strcmp(cn, name) == 0;
    OPENSSL_free(cn);
    return same ? 0
                : fail(f, EXIT_VERIFY, "certificate_of_other_mac",
                       "the certificate is for another MAC than %s", name);
}

static int check_names(X509 *cert, const struct wanted *w, struct failure *f)
{
    if (w->name && check_name(cert, w->name, f))
        return -1;
    if (w->subject && X509_NAME_cmp(X509_get_subject_name(cert), w->subject) != 0)
        return fail(f, EXIT_VERIFY, "subject_changed",
                    "the certificate's subject is not that of the one to be renewed");
    for (size_t i = 0; w->names && w->names[i]; i++)
        if (!has_name(cert, w->names[i]))
            return fail(f, EXIT_VERIFY, "name_missing", "the certificate is not for %s",
                        w->names[i]);
    return 0;
}

/* It must be ours: this key, these names, the serial that was announced. */
static int check_identity(X509 *cert, const struct wanted *w, const char *serial, struct failure *f)
{
    char found[SERIAL_TEXT_SIZE];
    serial_text(found, X509_get0_serialNumber(cert));
    EVP_PKEY *asked = X509_REQ_get0_pubkey(w->csr), *got = X509_get0_pubkey(cert);
    if (!asked || !got || EVP_PKEY_eq(asked, got) != 1)
        return fail(f, EXIT_VERIFY, "certificate_of_other_key",
                    "the certificate is for another key than the request's");
    if (check_names(cert, w, f))
        return -1;
    if (!*found || strcmp(found, serial) != 0)
        return fail(f, EXIT_VERIFY, "serial_mismatch",
                    "the certificate's serial %s is not the announced one", found);
    return 0;
}

static int verify_answer(struct issued *out, const cJSON *answer, const struct wanted *w,
                         X509 *root, struct failure *f)
{
    STACK_OF(X509) *certs = NULL, *chain = NULL;
    const char *serial;
    int rc = -1;
    if (answer_text(&serial, answer, "serial", f) ||
        answer_certs(&certs, answer, "certificate", f) || answer_certs(&chain, answer, "chain", f))
        goto out;
    struct cert_check check = {.root = root, .chain = chain, .purpose = w->purpose};
    X509 *cert = sk_X509_value(certs, 0);
    if (check_identity(cert, w, serial, f) ||
        cert_verify(cert, &check, &out->between, "the certificate", f))
        goto out;
    out->cert = sk_X509_shift(certs);
    rc = 0;
out:
    certs_free(certs);
    certs_free(chain);
    return rc;
}

int obtain(struct issued *out, struct session *s, const struct wanted *w, struct failure *f)
{
    cJSON *request = NULL, *answer = NULL;
    if (make_request(&request, w, f))
        return -1;
    int rc = w->sign ? http_call_signed(s->http, request, ANSWER_MAX, &answer, f)
                     : http_call(s->http, request, ANSWER_MAX, &answer, f);
    if (rc == 0 && verify_answer(out, answer, w, s->root, f)) {
        char why[sizeof f->text];
        snprintf(why, sizeof why, "%s", f->text);
        rc = fail(f, f->exit, f->code, "%s sent what does not verify: %s; nothing of it was saved",
                  s->settings.server, why);
    }
    cJSON_Delete(answer);
    cJSON_Delete(request);
    return rc;
}

void issued_free(struct issued *i)
{
    X509_free(i->cert);
    certs_free(i->between);
}
