#include "server/authority/fronts.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "common/shared_count.h"
#include "server/authority/issue.h"
#include "server/authority/listener.h"
#include "pki/crl.h"
#include "pki/est.h"
#include "pki/mac.h"
#include "server/authority/ocsp.h"
#include "server/authority/publish.h"
#include "server/authority/query.h"
#include "server/authority/report.h"
#include "server/authority/revoke.h"
#include "server/authority/signed.h"
#include "server/authority/status.h"
#include "server/authority/violation.h"

struct front {
    LIST_ENTRY(front) next;
    struct authority *a;
    unsigned number;
    struct channel *channel;
    struct peer *peer;
    unsigned credits; /* as it was told */
    const char *why;  /* what it did, when that is more than bad fields */
};

struct fronts {
    struct authority *a;
    LIST_HEAD(, front) list;
    struct shared_count *told; /* of ocsp_forget */
};

/* ---- what a front is given ---- */

static void send_listener(struct front *f)
{
    struct msg_listener m = {.credits = f->credits,
                             .certificate_pem = listener_certificate(f->a->listener),
                             .key_pem = listener_key(f->a->listener)};
    if (m.certificate_pem.len)
        channel_send(f->channel, MSG_listener, 0, &m, -1);
}

static void send_chain(struct front *f)
{
    struct msg_chain m = {.issuer_der = issuer_certificate_der(f->a->issuer),
                          .chain_pem = buf_view(&f->a->chain),
                          .ocsp = config_has_ocsp(f->a->config) != 0};
    channel_send(f->channel, MSG_chain, 0, &m, -1);
}

static void send_document(struct front *f, const char *path, const char *type, int fd,
                          int64_t expires, const uint8_t digest[32])
{
    struct stat st;
    if (fstat(fd, &st))
        return;
    struct msg_document m = {.path = path,
                             .content_type = type,
                             .modified = st.st_mtime,
                             .expires = expires,
                             .digest = {digest, 32}};
    channel_send(f->channel, MSG_document, 0, &m, fd);
}

static void send_crl(struct front *f, unsigned scope)
{
    char path[CRL_NAME_MAX];
    const struct crl_row *crl = publish_current(f->a->publishing, scope);
    int fd = publish_file(f->a->publishing, scope);
    if (fd >= 0)
        send_document(f, crl_url_path(path, scope), "application/pkix-crl", fd, crl->next_update,
                      crl->sha256);
}

/* A document that does not change, from bytes that are in memory. */
static void send_bytes(struct front *f, const char *path, const char *type, struct bytes data)
{
    uint8_t digest[32];
    int fd = memfd_create("document", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return;
    sha256(digest, data);
    if (write(fd, data.data, data.len) == (ssize_t)data.len &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0)
        send_document(f, path, type, fd, 0, digest);
    close(fd);
}

static int is_of_root(const struct authority *a, struct bytes der)
{
    const unsigned char *list = der.data, *root = a->root.data;
    X509_CRL *crl = d2i_X509_CRL(NULL, &list, (long)der.len);
    X509 *x = d2i_X509(NULL, &root, (long)a->root.len);
    int ok =
        crl && x && list == der.data + der.len && X509_CRL_verify(crl, X509_get0_pubkey(x)) == 1;
    X509_CRL_free(crl);
    X509_free(x);
    ERR_clear_error();
    return ok;
}

/* The root's certificate and CRL come from the ceremony; what is not there is not served. */
static void send_root(struct front *f)
{
    char path[PATH_MAX];
    struct buf crl;
    struct err err = {0};
    struct stat st;
    snprintf(path, sizeof path, "%s/root-crl.der", f->a->config->state);
    if (file_read(&crl, path, 16 * 1024 * 1024, &err) == 0) {
        if (is_of_root(f->a, buf_view(&crl)))
            send_bytes(f, "/root-crl", "application/pkix-crl", buf_view(&crl));
        else
            err_set(&err, ERR_field_value, "%s: the root did not sign it", path);
        buf_free(&crl);
    }
    if (err.code && lstat(path, &st) == 0)
        log_error("%s; /root-crl is not served: bring it anew with intermediate.sh --crl",
                  err.text);
    send_bytes(f, "/root.cer", "application/pkix-cert", buf_view(&f->a->root));
}

static void send_est_label(struct front *f, const struct profile *p)
{
    struct buf csrattrs = {0};
    if (est_csrattrs(&csrattrs, profile_keys(p), profile_name_kind(p) == NAME_MAC))
        fatal("no memory for a front");
    struct msg_est_label m = {.label = profile_name(p), .csrattrs = buf_view(&csrattrs)};
    channel_send(f->channel, MSG_est_label, 0, &m, -1);
    buf_free(&csrattrs);
}

static void send_est_labels(struct front *f)
{
    const struct profile *p = NULL;
    while ((p = profiles_next(f->a->profiles, p)))
        if (profile_allows_operation(p, "req_client_cert") ||
            profile_allows_operation(p, "renew_client_cert"))
            send_est_label(f, p);
}

void fronts_send_crl(struct fronts *all, unsigned scope)
{
    struct front *f;
    LIST_FOREACH (f, &all->list, next)
        send_crl(f, scope);
}

void fronts_send_listener(struct fronts *all)
{
    struct front *f;
    LIST_FOREACH (f, &all->list, next)
        send_listener(f);
}

#define FORGET_MOST 4096 /* bytes of a message's */

static int pack_serials(struct buf *out, const struct state_change *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t len = (uint8_t)list[i].serial_len;
        if (buf_add(out, &len, 1) || buf_add(out, list[i].serial, len))
            return -1;
    }
    return out->len <= FORGET_MOST ? 0 : -1;
}

static void send_told(struct front *f, const struct shared_count *told)
{
    struct msg_ocsp_told m = {.count = shared_count_get(told)};
    channel_send(f->channel, MSG_ocsp_told, 0, &m, shared_count_fd(told));
}

void fronts_forget(struct fronts *all, const struct state_change *list, size_t count)
{
    struct buf serials = {0};
    struct msg_ocsp_forget m = {0}; /* of all, unless they can be named */
    struct front *f;
    if (list && pack_serials(&serials, list, count) == 0)
        m.serials = buf_view(&serials);
    shared_count_raise(all->told); /* who is late for the message sees that */
    LIST_FOREACH (f, &all->list, next)
        channel_send(f->channel, MSG_ocsp_forget, 0, &m, -1);
    buf_free(&serials);
}

/* ---- what a front asks ---- */

static int on_issue(struct front *f, uint64_t id, const struct msg_issue *m)
{
    if (m->body_digest.len != 32 || m->csr_digest.len != 32)
        return -1;
    struct issue_request req = {
        .origin = ISSUE_FOR_CALLER,
        .operation = m->operation,
        .profile = m->profile,
        .request_id = m->request_id,
        .name = m->name,
        .body_digest = m->body_digest.data,
        .csr_digest = m->csr_digest.data,
        .spki = m->spki,
        .replace = m->replace,
    };
    caller_copy(&req.caller, m->caller_issuer, m->caller_serial, m->caller_digest,
                m->caller_address);
    /* only what needs no signature of the operator's comes this way */
    if (strcmp(m->operation, "req_client_cert") != 0)
        return -1;
    issue(f->a, &req, issue_answer, question_new(f->peer, id));
    return 0;
}

static int on_renew(struct front *f, uint64_t id, const struct msg_renew *m)
{
    if (m->body_digest.len != 32 || m->csr_digest.len != 32)
        return -1;
    struct issue_request req = {
        .origin = ISSUE_FOR_DEVICE,
        .operation = "renew_client_cert",
        .profile = "",
        .request_id = m->request_id,
        .name = m->name,
        .body_digest = m->body_digest.data,
        .csr_digest = m->csr_digest.data,
        .spki = m->spki,
    };
    caller_copy(&req.caller, m->caller_issuer, m->caller_serial, m->caller_digest,
                m->caller_address);
    issue(f->a, &req, issue_answer, question_new(f->peer, id));
    return 0;
}

static int on_enrol(struct front *f, uint64_t id, const struct msg_enrol *m)
{
    if (m->body_digest.len != 32 || m->csr_digest.len != 32 || m->password_sha256.len != 32)
        return -1;
    struct issue_request req = {
        .origin = ISSUE_FOR_ENROLMENT,
        .operation = "req_client_cert",
        .profile = m->profile,
        .name = m->name,
        .body_digest = m->body_digest.data,
        .csr_digest = m->csr_digest.data,
        .spki = m->spki,
    };
    snprintf(req.enrolment.user, sizeof req.enrolment.user, "%s", m->user);
    memcpy(req.enrolment.password_sha256, m->password_sha256.data, 32);
    issue(f->a, &req, issue_answer, question_new(f->peer, id));
    return 0;
}

static int on_revoke(struct front *f, uint64_t id, const struct msg_revoke *m)
{
    struct err err;
    struct question *q;
    struct revoke_request req = {.reason = m->reason};
    if (m->body_digest.len != 32 || (m->serial.len == 0) == (m->name[0] == '\0'))
        return -1;
    q = question_new(f->peer, id);
    caller_copy(&req.caller, m->caller_issuer, m->caller_serial, m->caller_digest,
                m->caller_address);
    snprintf(req.request_id, sizeof req.request_id, "%s", m->request_id);
    snprintf(req.name, sizeof req.name, "%s", m->name);
    memcpy(req.body_digest, m->body_digest.data, 32);
    req.selector = m->serial.len ? REVOKE_SERIALS : REVOKE_NAME;
    if (!crl_reason_name(m->reason) || (m->name[0] && mac_check(m->name, NULL))) {
        err_set(&err, ERR_field_value, NULL);
        question_refuse(q, &err);
        return 0;
    }
    if (m->serial.len) {
        if (!(req.serials = calloc(1, sizeof *req.serials)))
            fatal("no memory for a revocation");
        memcpy(req.serials->bytes, m->serial.data, m->serial.len);
        req.serials->len = m->serial.len;
        req.serial_count = 1;
    }
    revoke_certificates(f->a, &req, q);
    return 0;
}

static int on_report(struct front *f, uint64_t id, const struct msg_report *m)
{
    if (m->serial.len == 0 || (m->board != BOARD_FLASHED && m->board != BOARD_VERIFIED))
        return -1;
    report_device(f->a, m, question_new(f->peer, id));
    return 0;
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct front *f = arg;
    union {
        struct msg_issue issue;
        struct msg_revoke revoke;
        struct msg_status status;
        struct msg_renew renew;
        struct msg_get get;
        struct msg_list list;
        struct msg_signed_request signed_request;
        struct msg_report report;
        struct msg_ocsp ocsp;
        struct msg_enrol enrol;
    } body;
    if (m->fd >= 0 || msg_decode(&body, m->type, m->fields))
        return -1;
    if ((unsigned)f->peer->open >= f->credits) {
        f->why = "it asks beyond its credits";
        return -1;
    }
    switch (m->type) {
    case MSG_issue:
        return on_issue(f, m->id, &body.issue);
    case MSG_renew:
        return on_renew(f, m->id, &body.renew);
    case MSG_enrol:
        return on_enrol(f, m->id, &body.enrol);
    case MSG_revoke:
        return on_revoke(f, m->id, &body.revoke);
    case MSG_report:
        return on_report(f, m->id, &body.report);
    case MSG_ocsp:
        return ocsp_question(f->a, &body.ocsp, f->peer, m->id);
    case MSG_status:
        status_answer(f->a, &body.status, question_new(f->peer, m->id));
        return 0;
    case MSG_get:
        query_get(f->a, &body.get, question_new(f->peer, m->id));
        return 0;
    case MSG_list:
        query_list(f->a, &body.list, question_new(f->peer, m->id));
        return 0;
    case MSG_signed_request:
        signed_request(f->a, &body.signed_request, question_new(f->peer, m->id));
        return 0;
    default:
        return -1;
    }
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct front *f = arg;
    if (why && f->why)
        why = f->why;
    /* also one that hung up and lives: it must not go on serving without us */
    struct msg_peer_end m = {.role = PROC_FRONT, .number = f->number, .why = why ? why : "hung up"};
    if (why) {
        log_error("front %u is ended: %s", f->number, why);
        violation_journal(f->a, PROC_FRONT, f->number, why);
    }
    channel_send(f->a->supervisor, MSG_peer_end, 0, &m, -1);
    LIST_REMOVE(f, next);
    peer_gone(f->peer);
    channel_free(c);
    free(f);
}

void fronts_add(struct fronts *all, unsigned number, int socket)
{
    static const struct channel_handlers handlers = {on_message, on_end};
    struct front *f = calloc(1, sizeof *f);
    struct peer *peer = calloc(1, sizeof *peer);
    if (!f || !peer)
        fatal("no memory for a front");
    f->a = all->a;
    f->number = number;
    f->credits = all->a->config->credits;
    f->peer = peer;
    f->channel = channel_new(all->a->base, socket, PROC_AUTHORITY, PROC_FRONT, &handlers, f);
    if (!f->channel)
        fatal("no memory for a front's channel");
    peer->channel = f->channel;
    LIST_INSERT_HEAD(&all->list, f, next);
    send_bytes(f, "/ca.cer", "application/pkix-cert", issuer_certificate_der(f->a->issuer));
    send_root(f);
    for (unsigned i = 0; i <= publish_shards(f->a->publishing); i++)
        send_crl(f, i);
    send_est_labels(f);
    send_told(f, all->told);
    send_chain(f); /* with it a front begins to serve: what it serves is there by then */
    send_listener(f);
}

struct fronts *fronts_new(struct authority *a)
{
    struct fronts *all = calloc(1, sizeof *all);
    if (!all)
        fatal("no memory");
    all->a = a;
    LIST_INIT(&all->list);
    if (!(all->told = shared_count_new()))
        fatal("no memory to share with the fronts (Linux 5.1 or later is needed)");
    return all;
}

int fronts_any(const struct fronts *all)
{
    return !LIST_EMPTY(&all->list);
}

void fronts_free(struct fronts *all)
{
    struct front *f;
    while (all && (f = LIST_FIRST(&all->list))) {
        LIST_REMOVE(f, next);
        channel_free(f->channel);
        peer_gone(f->peer);
        free(f);
    }
    if (all)
        shared_count_free(all->told);
    free(all);
}
