/* A CRL, as the laptop gets it from a server, and as signetctl reads it from a file or a backup.
 * Nobody who fuzzes has the CA's key: what parses is signed by it and goes through once more.
 * Seeds: ../corpus/crl */
#include <openssl/err.h>
#include <stdio.h>

#include "ca.h"
#include "client/certs.h"
#include "folder.h"
#include "pki/crl.h"
#include "server/ctl/crl_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *key;
static X509 *ca;
static struct issuer *issuer;

static void set_up(void)
{
    struct err err;
    if (issuer)
        return;
    key = key_of(0x22);
    ca = ca_of("Fuzz CA", key, NULL, key);
    struct buf pem = pem_of(ca);
    must(!issuer_from_pem(&issuer, buf_view(&pem), &err));
    buf_free(&pem);
}

static int on_entry(const struct crl_entry *e, void *arg)
{
    (void)arg;
    must(e->serial.len >= 1 && e->serial.len <= 20 && crl_reason_name(e->reason));
    return 0;
}

static void read_file(struct bytes crl)
{
    struct crl_file file;
    struct err err = {0};
    char path[128];
    fuzz_file("crl.der", crl.data, crl.len);
    snprintf(path, sizeof path, "%s/crl.der", fuzz_folder());
    if (crl_file_read(&file, path, issuer, &err)) {
        must(err.text[0] != 0);
        return;
    }
    if (crl_file_each(&file, on_entry, NULL) == 0)
        must(crl_file_count(&file) < crl.len);
    crl_file_free(&file);
}

static void read_sealed(X509_CRL *crl)
{
    unsigned char *der = NULL;
    if (!X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca)) ||
        X509_CRL_sign(crl, key, EVP_sha256()) <= 0)
        return;
    int len = i2d_X509_CRL(crl, &der);
    if (len > 0) {
        struct bytes sealed = {der, (size_t)len};
        crl_number(sealed, issuer);
        read_file(sealed);
    }
    OPENSSL_free(der);
}

static void read_as_client(struct bytes in)
{
    X509_CRL *crl = NULL;
    struct failure f = {0};
    struct buf pem = {0};
    if (crl_parse(&crl, in, "the fuzzer's CRL", EXIT_VERIFY, &f)) {
        must(f.exit == EXIT_VERIFY);
        return;
    }
    char *number = crl_number_text(crl);
    must(crl_number_compare(crl, crl) == 0);
    must(crl_verify(crl, ca, "the fuzzer's CRL", &f) == 0 || f.exit == EXIT_VERIFY);
    must(!crl_pem(&pem, crl, &f) && pem.len > 0);
    buf_free(&pem);
    OPENSSL_free(number);
    read_sealed(crl);
    X509_CRL_free(crl);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes in = {data, size};
    set_up();
    read_as_client(in);
    crl_number(in, issuer);
    read_file(in);
    ERR_clear_error();
    return 0;
}
