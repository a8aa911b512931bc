#include "server/front/answer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cjson/cJSON.h>
#include "hsm/token.h"
#include "pki/certificate.h"
#include "pki/crl.h"
#include "pki/profile.h"

/* Frees the tree. */
static char *print_line(cJSON *root)
{
    char *line = NULL;
    char *text = root ? cJSON_PrintUnformatted(root) : NULL;
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    cJSON_Delete(root);
    return line;
}

/* The members that all answers begin with. */
static cJSON *begin(const char *status, enum operation op)
{
    cJSON *root = cJSON_CreateObject();
    if (root && cJSON_AddStringToObject(root, "status", status) &&
        cJSON_AddStringToObject(root, "operation", operation_name(op)))
        return root;
    cJSON_Delete(root);
    return NULL;
}

static int add_text(cJSON *o, const char *name, const char *text)
{
    return o && text && cJSON_AddStringToObject(o, name, text);
}

/* Written out: a double, which is what cJSON has for numbers, is exact only up to 2^53. */
static int add_number(cJSON *o, const char *name, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return o && cJSON_AddRawToObject(o, name, text);
}

/* RFC 3339, UTC; 0 stands for "not yet" and is null. */
static int add_time(cJSON *o, const char *name, int64_t when)
{
    char text[40];
    time_t t = (time_t)when;
    struct tm tm;
    if (when == 0)
        return o && cJSON_AddNullToObject(o, name);
    if (!gmtime_r(&t, &tm) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
        return 0;
    return add_text(o, name, text);
}

static int add_serial(cJSON *o, struct bytes serial)
{
    char hex[41] = "";
    if (serial.len > 20)
        return 0;
    hex_encode(hex, serial);
    return add_text(o, "serial", hex);
}

/* base64 of the certificate's PEM */
static int add_certificate(cJSON *o, struct bytes der)
{
    char *pem = certificate_pem(der);
    char *base64 = pem ? base64_encode((struct bytes){(const uint8_t *)pem, strlen(pem)}) : NULL;
    int ok = add_text(o, "certificate", base64);
    free(base64);
    free(pem);
    return ok;
}

static char *finish(cJSON *root, int ok)
{
    if (ok)
        return print_line(root);
    cJSON_Delete(root);
    return NULL;
}

char *answer_error(enum operation op, enum err_code code, const char *text)
{
    cJSON *root = begin("ERROR", op);
    cJSON *error = root ? cJSON_AddObjectToObject(root, "error") : NULL;
    return finish(root, add_text(error, "code", err_name(code)) &&
                            add_text(error, "message", text && *text ? text : err_message(code)));
}

char *answer_issued(enum operation op, const struct msg_answer_certificate *m,
                    const char *chain_base64)
{
    cJSON *root = begin("OK", op);
    return finish(root, add_serial(root, m->serial) && add_certificate(root, m->der) &&
                            add_text(root, "chain", chain_base64));
}

/* Of one certificate, or of how many. */
char *answer_revoked(const struct msg_answer_revoked *m)
{
    cJSON *root = begin("OK", OP_REVOKE_CERT);
    int ok = m->serial.len
                 ? add_serial(root, m->serial) && add_time(root, "revoked_at", m->revoked_at)
                 : add_number(root, "count", m->count);
    return finish(root, ok && add_text(root, "reason", crl_reason_name(m->reason)));
}

char *answer_reported(const struct msg_answer_reported *m)
{
    cJSON *root = begin("OK", OP_REPORT_DEVICE);
    return finish(root, add_serial(root, m->serial) && add_text(root, "state", m->board));
}

/* ---- certificates that were asked for ---- */

static int add_row(cJSON *o, const struct msg_answer_row *m)
{
    int revoked = m->revoked_at != 0;
    return add_serial(o, m->serial) && add_text(o, "state", m->state) &&
           (!m->board[0] || add_text(o, "board", m->board)) && add_text(o, "name", m->name) &&
           add_text(o, "profile", m->profile) && add_text(o, "operator", m->operator_name) &&
           add_time(o, "not_before", m->not_before) && add_time(o, "not_after", m->not_after) &&
           add_time(o, "issued_at", m->issued_at) &&
           (!revoked || (add_time(o, "revoked_at", m->revoked_at) &&
                         add_text(o, "reason", crl_reason_name(m->reason))));
}

char *answer_found(const struct msg_answer_row *m)
{
    cJSON *root = begin("OK", OP_GET_CERT);
    return finish(root, add_row(root, m) && (!m->der.len || add_certificate(root, m->der)));
}

struct answer_list {
    cJSON *root, *rows;
};

struct answer_list *answer_list_new(void)
{
    struct answer_list *list = calloc(1, sizeof *list);
    if (!list)
        return NULL;
    list->root = begin("OK", OP_LIST_CERTS);
    list->rows = list->root ? cJSON_AddArrayToObject(list->root, "certificates") : NULL;
    if (list->rows)
        return list;
    answer_list_free(list);
    return NULL;
}

int answer_list_add(struct answer_list *list, const struct msg_answer_row *m)
{
    cJSON *row = cJSON_CreateObject();
    if (add_row(row, m) && cJSON_AddItemToArray(list->rows, row))
        return 0;
    cJSON_Delete(row);
    return -1;
}

/* "next" is what "after" of the next request says; without it there is no more. */
char *answer_list_finish(struct answer_list *list, const struct msg_answer_page *m)
{
    char next[24];
    snprintf(next, sizeof next, "%" PRIu64, m->next);
    char *line = finish(list->root, !m->next || add_text(list->root, "next", next));
    free(list);
    return line;
}

void answer_list_free(struct answer_list *list)
{
    if (!list)
        return;
    cJSON_Delete(list->root);
    free(list);
}

char *answer_chain(struct bytes issuer_der, const char *chain_base64)
{
    cJSON *root = begin("OK", OP_GET_CA_CHAIN);
    return finish(root, add_certificate(root, issuer_der) && add_text(root, "chain", chain_base64));
}

/* enum token_fault; the names are the protocol's, so they stand here and not in hsm/. */
static const char *fault_name(unsigned fault)
{
    static const char *const names[] = {
        [TOKEN_OK] = "ok",
        [TOKEN_ABSENT] = "absent",
        [TOKEN_MODULE] = "module_failed",
        [TOKEN_PIN_REFUSED] = "pin_refused",
        [TOKEN_PIN_LAST] = "pin_last_try",
        [TOKEN_KEY_MISSING] = "key_missing",
        [TOKEN_KEY_DOUBLED] = "key_doubled",
        [TOKEN_CUSTODY] = "custody_refused",
        [TOKEN_TRANSIENT] = "transient",
        [TOKEN_LOST] = "lost",
        [TOKEN_KEY_MISMATCH] = "key_mismatch",
    };
    return fault < sizeof names / sizeof *names ? names[fault] : "lost";
}

static int add_token(cJSON *root, const struct msg_answer_status *m)
{
    cJSON *signers = cJSON_AddObjectToObject(root, "signers");
    cJSON *token = cJSON_AddObjectToObject(root, "token");
    return add_number(signers, "ready", m->signers_ready) &&
           add_number(signers, "wanted", m->signers_wanted) &&
           add_text(token, "state", fault_name(m->token_fault)) &&
           add_text(token, "detail", m->token_detail) && add_text(token, "custody", m->custody);
}

static int add_store(cJSON *root, const struct msg_answer_status *m)
{
    cJSON *certificates = cJSON_AddObjectToObject(root, "certificates");
    return add_number(certificates, "issued", m->issued) &&
           add_number(certificates, "revoked", m->revoked) &&
           add_number(certificates, "orphans", m->orphans) &&
           add_number(certificates, "pending", m->pending) &&
           add_number(root, "journal_sequence", m->journal_seq);
}

static int add_crl(cJSON *root, const struct msg_answer_status *m)
{
    cJSON *crl = cJSON_AddObjectToObject(root, "crl");
    return add_number(crl, "number", m->crl_number) &&
           add_time(crl, "this_update", m->crl_this_update) &&
           add_time(crl, "next_update", m->crl_next_update);
}

/* Who asks, and what that operator may do. */
static int add_operator(cJSON *root, const struct msg_answer_status *m)
{
    char roles[48];
    cJSON *op = cJSON_AddObjectToObject(root, "operator");
    roles_text(roles, sizeof roles, m->roles);
    return add_text(op, "name", m->operator_name ? m->operator_name : "") &&
           add_text(op, "roles", roles);
}

char *answer_status(const struct msg_answer_status *m)
{
    cJSON *root = begin("OK", OP_GET_STATUS);
    int ok = root && cJSON_AddBoolToObject(root, "ready", m->ready != 0) &&
             add_text(root, "version", SIGNET_VERSION);
    if (ok && m->detailed)
        ok = add_token(root, m) && add_store(root, m) && add_crl(root, m) &&
             add_time(root, "issuer_not_after", m->issuer_not_after) &&
             add_time(root, "listener_not_after", m->listener_not_after) &&
             add_time(root, "ocsp_not_after", m->responder_not_after) &&
             add_time(root, "started_at", m->started_at) && add_time(root, "time", m->time) &&
             add_text(root, "problem", m->problem) && add_operator(root, m);
    return finish(root, ok);
}

char *answer_probe(int ready)
{
    return strdup(ready ? "{\"status\":\"OK\",\"ready\":true}\n"
                        : "{\"status\":\"ERROR\",\"ready\":false}\n");
}
