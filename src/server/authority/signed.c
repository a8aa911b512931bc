#include "server/authority/signed.h"

#include <openssl/cms.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/crl.h"
#include "pki/csr.h"
#include "pki/mac.h"
#include "server/authority/caller.h"
#include "server/authority/clock.h"
#include "server/authority/issue.h"
#include "server/authority/revoke.h"
#include "server/request/request.h"

/* ---- the signature ---- */

struct signer_lookup {
    struct authority *a;
    struct caller caller;
    struct err err;
    X509 *certificate;
};

/* The caller's certificate, out of the store: the one whose key must have signed. */
static int find_certificate(struct store_tx *tx, void *arg)
{
    struct signer_lookup *l = arg;
    struct operator_row op;
    struct certificate_row row;
    if (caller_operator(tx, &l->caller, clock_now(l->a->clock), &op, &l->err) ||
        caller_certificate(tx, &l->caller, &row, &l->err))
        return -1;
    const unsigned char *p = row.der.data;
    l->certificate = d2i_X509(NULL, &p, (long)row.der.len);
    return l->certificate ? 0 : err_set(&l->err, ERR_internal, "a stored certificate is malformed");
}

/* Whose certificate the signer's is was settled by the store: CMS checks the signature alone. */
static int cms_verifies(struct bytes signature, struct bytes body, X509 *certificate)
{
    const unsigned char *p = signature.data;
    CMS_ContentInfo *cms = d2i_CMS_ContentInfo(NULL, &p, (long)signature.len);
    STACK_OF(X509) *signers = sk_X509_new_null();
    BIO *content = BIO_new_mem_buf(body.data, (int)body.len);
    unsigned flags = CMS_DETACHED | CMS_BINARY | CMS_NOINTERN | CMS_NO_SIGNER_CERT_VERIFY;
    int ok = cms && p == signature.data + signature.len && CMS_is_detached(cms) == 1 && signers &&
             content && sk_X509_push(signers, certificate) &&
             CMS_verify(cms, signers, NULL, content, NULL, flags) == 1;
    ERR_clear_error();
    BIO_free(content);
    sk_X509_free(signers);
    CMS_ContentInfo_free(cms);
    return ok;
}

static int check_signature(struct authority *a, const struct msg_signed_request *m,
                           struct caller *caller, struct err *err)
{
    struct signer_lookup l = {.a = a};
    caller_copy(caller, m->caller_issuer, m->caller_serial, m->caller_digest, m->caller_address);
    l.caller = *caller;
    err_set(&l.err, ERR_storage_unavailable, NULL);
    if (store_read(a->store, find_certificate, &l)) {
        *err = l.err;
        return -1;
    }
    int rc = m->signature.len == 0 ? err_set(err, ERR_signature_required, NULL)
             : cms_verifies(m->signature, m->body, l.certificate)
                 ? 0
                 : err_set(err, ERR_signature_invalid, NULL);
    X509_free(l.certificate);
    return rc;
}

/* ---- req_server_cert ---- */

static int read_csr(struct csr **csr, const struct request *r, struct err *err)
{
    static const struct key_policy widest = {2048, 4096, 1, 1};
    struct key_info info;
    const char *text = request_text(r, "csr");
    size_t len;
    uint8_t *bytes = base64_decode(text, strlen(text), &len);
    if (!bytes)
        return err_set(err, ERR_csr_base64, NULL);
    int rc = csr_parse(csr, (struct bytes){bytes, len}, err);
    free(bytes);
    if (rc == 0)
        rc = key_check(csr_spki(*csr), &widest, &info, err) || csr_verify(*csr, err) ? -1 : 0;
    return rc;
}

/* The first name that fits a CN (ub-common-name, RFC 5280 appendix A.1); none is ever cut. */
static const char *common_name(char *const *names)
{
    for (; *names; names++)
        if (strlen(strchr(*names, ':') + 1) <= 64)
            return strchr(*names, ':') + 1;
    return NULL;
}

static int server_certificate(struct authority *a, const struct request *r,
                              const struct caller *caller, const uint8_t body_digest[32],
                              struct question *q, struct err *err)
{
    struct csr *csr = NULL;
    char **names = NULL;
    uint8_t csr_digest[32];
    const char *profile = request_text(r, "profile");
    if (read_csr(&csr, r, err) || csr_names(csr, &names, err)) {
        csr_free(csr);
        return -1;
    }
    const char *name = common_name(names);
    if (!name) {
        free(names);
        csr_free(csr);
        return err_set(err, ERR_name_not_allowed,
                       "one name of at most 64 characters is needed, for the CN");
    }
    sha256(csr_digest, csr_der(csr));
    struct issue_request req = {
        .origin = ISSUE_FOR_CALLER,
        .caller = *caller,
        .operation = "req_server_cert",
        .profile = profile ? profile : "server",
        .request_id = request_text(r, "request_id"),
        .name = name,
        .body_digest = body_digest,
        .csr_digest = csr_digest,
        .spki = csr_spki(csr),
        .sans = (const char *const *)names,
    };
    issue(a, &req, issue_answer, q);
    free(names);
    csr_free(csr);
    return 0;
}

/* ---- revoke_cert ---- */

static int take_serials(struct revoke_request *req, const struct request *r, struct err *err)
{
    size_t n = request_count(r, "serials");
    req->serials = calloc(n ? n : 1, sizeof *req->serials);
    if (!req->serials)
        return err_set(err, ERR_internal, "no memory");
    for (; req->serial_count < n; req->serial_count++) {
        struct revoke_serial *s = &req->serials[req->serial_count];
        if (hex_decode(s->bytes, sizeof s->bytes, &s->len,
                       request_element(r, "serials", req->serial_count)))
            return err_set(err, ERR_field_value, "\"serials\" must be serial numbers");
    }
    return 0;
}

static int take_one_serial(struct revoke_request *req, const char *text, struct err *err)
{
    req->serials = calloc(1, sizeof *req->serials);
    if (!req->serials)
        return err_set(err, ERR_internal, "no memory");
    req->serial_count = 1;
    return hex_decode(req->serials->bytes, sizeof req->serials->bytes, &req->serials->len, text)
               ? err_set(err, ERR_field_value, "\"serial\" is not a serial number")
               : 0;
}

static void set_name(struct revoke_request *req, const char *name)
{
    snprintf(req->name, sizeof req->name, "%s", name);
}

/* Exactly one way of saying which. */
static int take_selector(struct revoke_request *req, const struct request *r, struct err *err)
{
    const char *serial = request_text(r, "serial"), *mac = request_text(r, "mac");
    const char *by = request_text(r, "issued_by");
    if ((serial != NULL) + (mac != NULL) + (by != NULL) + request_has(r, "serials") != 1)
        return err_set(err, ERR_field_missing,
                       "revoke_cert needs one of \"serial\", \"mac\", \"serials\", \"issued_by\"");
    if (request_has(r, "serials"))
        return take_serials(req, r, err);
    if (serial)
        return take_one_serial(req, serial, err);
    req->selector = mac ? REVOKE_NAME : REVOKE_ISSUED_BY;
    set_name(req, mac ? mac : by);
    if (mac)
        return mac_check(mac, err);
    req->from = request_time(r, "from", 0);
    req->to = request_time(r, "to", INT64_MAX);
    return 0;
}

static int revocation(struct authority *a, const struct request *r, const struct caller *caller,
                      const uint8_t body_digest[32], struct question *q, struct err *err)
{
    struct revoke_request req = {.selector = REVOKE_SERIALS, .caller = *caller, .is_signed = 1};
    const char *reason = request_text(r, "reason");
    req.reason = reason ? crl_reason_from_name(reason) : REASON_UNSPECIFIED;
    memcpy(req.body_digest, body_digest, 32);
    snprintf(req.request_id, sizeof req.request_id, "%s", request_text(r, "request_id"));
    if (req.reason < 0)
        return err_set(err, ERR_field_value, "there is no reason \"%s\"", reason);
    if (take_selector(&req, r, err)) {
        free(req.serials);
        return -1;
    }
    revoke_certificates(a, &req, q);
    return 0;
}

/* ---- what the body says ---- */

static int dispatch(struct authority *a, const struct msg_signed_request *m,
                    const struct caller *caller, struct question *q, struct err *err)
{
    struct request *r = NULL;
    enum operation op;
    uint8_t digest[32];
    if (request_parse(&r, &op, m->body, err))
        return -1;
    int rc;
    sha256(digest, m->body);
    if (!request_text(r, "request_id"))
        rc = err_set(err, ERR_request_id_required, NULL);
    else if (op == OP_REQ_SERVER_CERT)
        rc = server_certificate(a, r, caller, digest, q, err);
    else if (op == OP_REVOKE_CERT)
        rc = revocation(a, r, caller, digest, q, err);
    else
        rc = err_set(err, ERR_signature_invalid, "%s takes no signature", operation_name(op));
    request_free(r);
    return rc;
}

void signed_request(struct authority *a, const struct msg_signed_request *m, struct question *q)
{
    struct caller caller;
    struct err err;
    if (check_signature(a, m, &caller, &err) || dispatch(a, m, &caller, q, &err))
        question_refuse(q, &err);
}
