#include "server/front/v1.h"

#include <stdlib.h>
#include <string.h>
#include "pki/crl.h"
#include "pki/mac.h"
#include "server/front/answer.h"
#include "server/front/ask.h"
#include "server/front/enrolment.h"
#include "server/request/request.h"

/* ---- operations: each asks or answers, or returns -1 with err ---- */

/* The text of a field, "" or what stands for it when it was not sent. */
static const char *text_or(const struct request *r, const char *name, const char *otherwise)
{
    const char *text = request_text(r, name);
    return text ? text : otherwise;
}

static int take_csr(struct enrolment *e, struct exchange *x, const struct request *r,
                    struct err *err)
{
    size_t len;
    const char *base64 = request_text(r, "csr");
    if (require_certificate(x, err))
        return -1;
    uint8_t *bytes = base64_decode(base64, strlen(base64), &len);
    if (!bytes)
        return err_set(err, ERR_csr_base64, NULL);
    int rc = enrolment_take(e, x, (struct bytes){bytes, len}, err);
    free(bytes);
    return rc;
}

static int req_client_cert(struct service *s, struct exchange *x, const struct request *r,
                           struct err *err)
{
    struct enrolment e;
    if (take_csr(&e, x, r, err))
        return -1;
    e.profile = text_or(r, "profile", "device");
    e.request_id = text_or(r, "request_id", "");
    e.replace = request_bool(r, "replace");
    enrolment_issue(&e, s, x, NULL);
    return 0;
}

static int renew_client_cert(struct service *s, struct exchange *x, const struct request *r,
                             struct err *err)
{
    struct enrolment e;
    if (take_csr(&e, x, r, err))
        return -1;
    e.request_id = text_or(r, "request_id", "");
    enrolment_renew(&e, s, x, NULL);
    return 0;
}

/* ---- requests that the operator signs: the authority reads them itself ---- */

#define SIGNATURE_HEADER "Signet-Signature"

static int is_signed(const struct exchange *x)
{
    return exchange_header_count(x, SIGNATURE_HEADER) > 0;
}

static int pass_signed(struct service *s, struct exchange *x, struct err *err)
{
    const char *text = exchange_header(x, SIGNATURE_HEADER);
    size_t len;
    if (require_certificate(x, err))
        return -1;
    if (!text)
        return err_set(err, ERR_signature_required, NULL);
    uint8_t *cms = exchange_header_count(x, SIGNATURE_HEADER) == 1
                       ? base64_decode(text, strlen(text), &len)
                       : NULL;
    if (!cms)
        return err_set(err, ERR_signature_invalid,
                       "the header Signet-Signature must hold one CMS signature in base64");
    struct msg_signed_request m = {.body = exchange_body(x), .signature = {cms, len}};
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_signed_request, &m, NULL);
    free(cms);
    return 0;
}

static int req_server_cert(struct service *s, struct exchange *x, const struct request *r,
                           struct err *err)
{
    (void)r;
    return pass_signed(s, x, err);
}

static int take_reason(uint8_t *out, const char *name, struct err *err)
{
    int reason = crl_reason_from_name(name);
    if (reason < 0 || reason > 255)
        return err_set(err, ERR_field_value,
                       "the field \"reason\" must be one of unspecified, keyCompromise, "
                       "CACompromise, affiliationChanged, superseded, cessationOfOperation, "
                       "certificateHold, removeFromCRL, privilegeWithdrawn");
    *out = (uint8_t)reason;
    return 0;
}

static int take_serial(struct bytes *out, uint8_t bytes[20], const struct request *r,
                       struct err *err)
{
    size_t len;
    if (hex_decode(bytes, 20, &len, request_text(r, "serial")))
        return err_set(err, ERR_field_value, "the field \"serial\" is not a serial number");
    *out = (struct bytes){bytes, len};
    return 0;
}

/* What names one certificate may go without a signature. */
static int take_one(struct msg_revoke *m, uint8_t serial[20], const struct request *r,
                    struct err *err)
{
    const char *mac = request_text(r, "mac");
    if ((mac != NULL) + request_has(r, "serial") != 1 || request_has(r, "from") ||
        request_has(r, "to"))
        return err_set(err, ERR_field_missing,
                       "revoke_cert needs one of \"serial\", \"mac\", \"serials\", \"issued_by\"");
    if (!mac)
        return take_serial(&m->serial, serial, r, err);
    m->name = mac;
    return mac_check(mac, err);
}

static int revoke_cert(struct service *s, struct exchange *x, const struct request *r,
                       struct err *err)
{
    uint8_t serial[20], body_digest[32];
    struct msg_revoke m = {.request_id = text_or(r, "request_id", "")};
    if (require_certificate(x, err) ||
        take_reason(&m.reason, text_or(r, "reason", "unspecified"), err))
        return -1;
    if (is_signed(x) || request_has(r, "serials") || request_has(r, "issued_by"))
        return pass_signed(s, x, err);
    if (take_one(&m, serial, r, err))
        return -1;
    sha256(body_digest, exchange_body(x));
    m.body_digest = (struct bytes){body_digest, sizeof body_digest};
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_revoke, &m, NULL);
    return 0;
}

/* Which of the names it is; n: none. */
static uint8_t name_index(const char *const names[], uint8_t n, const char *name)
{
    uint8_t i = 0;
    while (i < n && strcmp(names[i], name) != 0)
        i++;
    return i;
}

/* enum board_state */
static const char *const board_names[] = {"issued", "flashed", "verified"};
#define BOARD_NAMES (sizeof board_names / sizeof *board_names)

/* That it was issued the server knows by itself. */
static int take_report(uint8_t *out, const char *name, struct err *err)
{
    *out = name_index(board_names, BOARD_NAMES, name);
    if (*out > 0 && *out < BOARD_NAMES)
        return 0;
    return err_set(err, ERR_field_value, "the field \"state\" must be flashed or verified");
}

static int report_device(struct service *s, struct exchange *x, const struct request *r,
                         struct err *err)
{
    uint8_t serial[20];
    struct msg_report m = {0};
    if (require_certificate(x, err) || take_serial(&m.serial, serial, r, err) ||
        take_report(&m.board, request_text(r, "state"), err))
        return -1;
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_report, &m, NULL);
    return 0;
}

static int get_cert(struct service *s, struct exchange *x, const struct request *r, struct err *err)
{
    uint8_t serial[20];
    struct msg_get m = {0};
    if (require_certificate(x, err) || take_serial(&m.serial, serial, r, err))
        return -1;
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_get, &m, NULL);
    return 0;
}

/* The states that a certificate can be looked for in, as enum certificate_state + 1; 0: any. */
static int take_state(uint8_t *out, const char *name, struct err *err)
{
    static const char *const names[] = {"", "intent", "issued", "revoked", "held", "orphan"};
    *out = name_index(names, sizeof names / sizeof *names, name);
    if (*out < sizeof names / sizeof *names)
        return 0;
    return err_set(err, ERR_field_value,
                   "the field \"state\" must be one of issued, revoked, held, orphan, intent");
}

/* As enum board_state + 1; 0: any. */
static int take_board(uint8_t *out, const char *name, struct err *err)
{
    *out = *name ? (uint8_t)(name_index(board_names, BOARD_NAMES, name) + 1) : 0;
    if (*out <= BOARD_NAMES)
        return 0;
    return err_set(err, ERR_field_value,
                   "the field \"board\" must be one of issued, flashed, verified");
}

static int take_after(uint64_t *out, const char *text, struct err *err)
{
    char *end;
    *out = strtoull(text, &end, 10);
    if (strspn(text, "0123456789") == strlen(text) && strlen(text) <= 18 && *end == 0)
        return 0;
    return err_set(err, ERR_field_value, "the field \"after\" must be a page's \"next\"");
}

static int list_certs(struct service *s, struct exchange *x, const struct request *r,
                      struct err *err)
{
    struct msg_list m = {
        .name = text_or(r, "mac", ""),
        .operator_name = text_or(r, "operator", ""),
        .from = request_time(r, "from", 0),
        .to = request_time(r, "to", 0),
        .limit = request_number(r, "limit", 100),
    };
    if (require_certificate(x, err) || take_state(&m.state, text_or(r, "state", ""), err) ||
        take_board(&m.board, text_or(r, "board", ""), err) ||
        take_after(&m.after, text_or(r, "after", "0"), err))
        return -1;
    SET_CALLER(&m, exchange_caller(x));
    ask(s, x, MSG_list, &m, NULL);
    return 0;
}

static int get_ca_chain(struct service *s, struct exchange *x, const struct request *r,
                        struct err *err)
{
    (void)r, (void)err;
    exchange_json(x, HTTP_OK, answer_chain(buf_view(&s->issuer_der), s->chain_base64));
    return 0;
}

static int get_crl(struct service *s, struct exchange *x, const struct request *r, struct err *err)
{
    (void)r;
    struct blob *answer = documents_crl_answer(s->documents, err);
    if (!answer)
        return -1;
    exchange_blob(x, "application/json", answer);
    return 0;
}

static int get_status(struct service *s, struct exchange *x, const struct request *r,
                      struct err *err)
{
    (void)r, (void)err;
    ask_status(s, x, NULL);
    return 0;
}

static int (*const operations[OP_NONE])(struct service *s, struct exchange *x,
                                        const struct request *r, struct err *err) = {
    [OP_REQ_CLIENT_CERT] = req_client_cert,
    [OP_REQ_SERVER_CERT] = req_server_cert,
    [OP_RENEW_CLIENT_CERT] = renew_client_cert,
    [OP_REVOKE_CERT] = revoke_cert,
    [OP_REPORT_DEVICE] = report_device,
    [OP_GET_CERT] = get_cert,
    [OP_LIST_CERTS] = list_certs,
    [OP_GET_CA_CHAIN] = get_ca_chain,
    [OP_GET_CRL] = get_crl,
    [OP_GET_STATUS] = get_status,
};

/* ---- POST /v1 ---- */

static int operate(struct service *s, struct exchange *x, struct err *err)
{
    struct request *r = NULL;
    enum operation op;
    int rc = request_parse(&r, &op, exchange_body(x), err);
    exchange_set_operation(x, op);
    if (rc == 0 && is_signed(x) && op != OP_REQ_SERVER_CERT && op != OP_REVOKE_CERT)
        rc = err_set(err, ERR_signature_invalid, "%s takes no signature", operation_name(op));
    if (rc == 0)
        rc = operations[op](s, x, r, err);
    request_free(r);
    return rc;
}

int v1_serve(struct service *s, struct exchange *x, struct err *err)
{
    if (!exchange_is_tls(x))
        return err_set(err, ERR_not_found, "requests go to POST /v1 on the HTTPS port");
    exchange_add_header(x, "Cache-Control", "no-store");
    return route_check_body(x, "application/json", err) ? -1 : operate(s, x, err);
}
