/* signet crl: the CRL, verified, to a file or standard output. */
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/session.h"
#include "common/file.h"

/* A CRL that is there must be this CA's, and not newer: an old CRL hides revocations. */
static int check_older(const char *path, X509_CRL *crl, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    X509_CRL *old = NULL;
    if (access(path, F_OK) && errno == ENOENT)
        return 0;
    if (file_read(&text, path, CRL_ANSWER_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int rc = crl_parse(&old, buf_view(&text), path, EXIT_LOCAL, f);
    buf_free(&text);
    if (rc)
        return fail_add(f, "it is not overwritten");
    if (X509_NAME_cmp(X509_CRL_get_issuer(old), X509_CRL_get_issuer(crl)) != 0)
        rc = fail(f, EXIT_LOCAL, "already_exists",
                  "%s is the CRL of another CA; it is not overwritten", path);
    else if (crl_number_compare(old, crl) > 0)
        rc = fail(f, EXIT_VERIFY, "crl_older",
                  "%s has a higher CRL number than the server's CRL; it is kept; ask why the "
                  "server went back",
                  path);
    X509_CRL_free(old);
    return rc;
}

static int save(const char *path, X509_CRL *crl, struct bytes pem, struct failure *f)
{
    struct err err;
    if (check_older(path, crl, f))
        return -1;
    return file_write(path, pem, 0644, 1, &err) ? fail_err(f, EXIT_LOCAL, &err) : 0;
}

static void print(X509_CRL *crl, struct bytes pem, const struct options *o)
{
    char from[TIME_TEXT_SIZE], to[TIME_TEXT_SIZE];
    char *number = crl_number_text(crl);
    int revoked = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl));
    revoked = revoked < 0 ? 0 : revoked;
    time_text(from, X509_CRL_get0_lastUpdate(crl));
    time_text(to, X509_CRL_get0_nextUpdate(crl));
    if (o->json) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "status", "OK");
        cJSON_AddStringToObject(object, "number", number ? number : "");
        cJSON_AddStringToObject(object, "this_update", from);
        cJSON_AddStringToObject(object, "next_update", to);
        cJSON_AddNumberToObject(object, "revoked", revoked);
        cJSON_AddStringToObject(object, o->out ? "file" : "crl",
                                o->out ? o->out : (const char *)pem.data);
        json_print(object);
        cJSON_Delete(object);
    } else {
        printf("CRL %s is in %s\n  revoked %d\n  valid   %s to %s\n", number ? number : "?", o->out,
               revoked, from, to);
    }
    OPENSSL_free(number);
}

static int deliver(X509_CRL *crl, struct bytes pem, const struct options *o, struct failure *f)
{
    if (o->out && save(o->out, crl, pem, f))
        return -1;
    if (o->out || o->json) {
        print(crl, pem, o);
        return 0;
    }
    if (fwrite(pem.data, 1, pem.len, stdout) != pem.len)
        return fail(f, EXIT_LOCAL, "local_file", "cannot write the CRL to standard output");
    return 0;
}

int cmd_crl(const struct options *o, struct failure *f)
{
    struct session s = {0};
    STACK_OF(X509) *chain = NULL;
    X509_CRL *crl = NULL;
    struct buf pem = {0};
    int rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, NULL, f);
    if (rc == 0)
        rc = session_chain(&s, &chain, f);
    if (rc == 0)
        rc = session_crl(&s, sk_X509_value(chain, 0), &crl, f);
    if (rc == 0)
        rc = crl_pem(&pem, crl, f);
    if (rc == 0)
        rc = deliver(crl, buf_view(&pem), o, f);
    buf_free(&pem);
    X509_CRL_free(crl);
    certs_free(chain);
    session_close(&s);
    return rc;
}
