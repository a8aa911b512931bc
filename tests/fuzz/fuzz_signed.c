/* A request that an operator signed (CMS), as the authority takes it from a front: two bytes of
 * length, the signature, the body. An intruder in a front has no operator's key; so the body goes
 * through once more, signed rightly, and its fields, CSR and names must come as the form wants
 * them. Seeds: ../corpus/signed */
#include <openssl/cms.h>
#include <openssl/err.h>

#include "ca.h"
#include "pki/crl.h"
#include "pki/mac.h"
#include "server/authority/clock.h"
#include "server/authority/issue.h"
#include "server/authority/revoke.h"
#include "server/authority/signed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *key;
static X509 *certificate;
static struct buf certificate_der;
static int answers; /* to the one request */

/* ---- what stands around it in the authority ---- */

int store_read(struct store *s, store_decision reader, void *arg)
{
    (void)s;
    return reader(NULL, arg);
}

int64_t clock_now(struct clock_watch *w)
{
    (void)w;
    return 0;
}

void caller_copy(struct caller *c, struct bytes issuer, struct bytes serial, struct bytes digest,
                 const char *address)
{
    (void)issuer, (void)serial, (void)digest, (void)address;
    *c = (struct caller){0};
}

int caller_operator(struct store_tx *tx, const struct caller *c, int64_t now,
                    struct operator_row *operator_row, struct err *err)
{
    (void)tx, (void)c, (void)now, (void)err;
    *operator_row = (struct operator_row){.id = 1};
    return 0;
}

int caller_certificate(struct store_tx *tx, const struct caller *c, struct certificate_row *row,
                       struct err *err)
{
    (void)tx, (void)c, (void)err;
    *row = (struct certificate_row){.der = buf_view(&certificate_der)};
    return 0;
}

void question_refuse(struct question *q, const struct err *err)
{
    (void)q;
    must(err->code != ERR_none && err->text[0]);
    answers++;
}

void issue_answer(void *question, struct bytes serial, struct bytes der, const struct err *err)
{
    (void)question, (void)serial, (void)der, (void)err;
    abort();
}

void issue(struct authority *a, const struct issue_request *req, issue_done done, void *arg)
{
    (void)a, (void)arg;
    must(done == issue_answer && req->origin == ISSUE_FOR_CALLER && req->request_id[0] &&
         req->name[0] && strlen(req->name) <= 64 && req->profile[0] && req->spki.len > 0 &&
         req->sans && req->sans[0]);
    answers++;
}

void revoke_certificates(struct authority *a, const struct revoke_request *req, struct question *q)
{
    (void)a, (void)q;
    must(req->is_signed && crl_reason_name(req->reason) && req->request_id[0]);
    if (req->selector == REVOKE_SERIALS)
        must(req->serial_count > 0);
    else if (req->selector == REVOKE_NAME)
        must(mac_check(req->name, NULL) == 0);
    for (size_t i = 0; i < req->serial_count; i++)
        must(req->serials[i].len <= sizeof req->serials[i].bytes);
    free(req->serials);
    answers++;
}

/* ---- one input ---- */

static void set_up(void)
{
    unsigned char *der = NULL;
    if (key)
        return;
    key = key_of(0x33);
    certificate = ca_of("operator", key, NULL, key);
    int len = i2d_X509(certificate, &der);
    must(len > 0 && !buf_add(&certificate_der, der, (size_t)len));
    OPENSSL_free(der);
}

static void ask(struct bytes signature, struct bytes body)
{
    static struct authority authority;
    const struct msg_signed_request m = {
        .caller_address = "192.0.2.1:1", .body = body, .signature = signature};
    answers = 0;
    signed_request(&authority, &m, NULL);
    must(answers == 1);
    must(ERR_peek_error() == 0);
}

static void ask_signed(struct bytes body)
{
    unsigned char *der = NULL;
    const unsigned flags = CMS_DETACHED | CMS_BINARY | CMS_NOCERTS | CMS_NOSMIMECAP;
    BIO *content = BIO_new_mem_buf(body.data, (int)body.len);
    CMS_ContentInfo *cms = CMS_sign(certificate, key, NULL, content, flags);
    int len = cms ? i2d_CMS_ContentInfo(cms, &der) : -1;
    must(len > 0);
    ERR_clear_error();
    ask((struct bytes){der, (size_t)len}, body);
    OPENSSL_free(der);
    CMS_ContentInfo_free(cms);
    BIO_free(content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    set_up();
    if (size < 2)
        return 0;
    size_t len = (size_t)data[0] << 8 | data[1];
    len = len < size - 2 ? len : size - 2;
    struct bytes body = {data + 2 + len, size - 2 - len};
    ask((struct bytes){data + 2, len}, body);
    ask_signed(body);
    return 0;
}
