#include "client/signature.h"

#include <openssl/cms.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/certs.h"
#include "client/keys.h"

/* DER. No certificate inside: the server knows whose it is by the connection. */
static int sign(unsigned char **der, X509 *cert, EVP_PKEY *key, struct bytes body)
{
    const unsigned flags = CMS_DETACHED | CMS_BINARY | CMS_NOCERTS | CMS_NOSMIMECAP;
    BIO *content = BIO_new_mem_buf(body.data, (int)body.len);
    CMS_ContentInfo *cms = CMS_sign(NULL, NULL, NULL, NULL, flags | CMS_PARTIAL);
    int len = -1;
    if (content && cms && CMS_add1_signer(cms, cert, key, EVP_sha256(), flags) &&
        CMS_final(cms, content, NULL, flags) == 1)
        len = i2d_CMS_ContentInfo(cms, der);
    CMS_ContentInfo_free(cms);
    BIO_free(content);
    return len;
}

int signature_header(char **out, struct bytes body, const char *cert_path, const char *key_path,
                     struct failure *f)
{
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    unsigned char *der = NULL;
    char *base64 = NULL;
    int rc = cert_load(&cert, cert_path, f) || key_load(&key, key_path, f) ? -1 : 0;
    int len = rc ? -1 : sign(&der, cert, key, body);
    if (rc == 0 && len < 0)
        rc = fail(f, EXIT_LOCAL, "openssl", "cannot sign the request with %s: %s", key_path,
                  err_openssl());
    if (rc == 0 && (!(base64 = base64_encode((struct bytes){der, (size_t)len})) ||
                    asprintf(out, "Signet-Signature: %s", base64) < 0))
        rc = fail_memory(f);
    free(base64);
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    X509_free(cert);
    return rc;
}
