#include "server/authority/admin.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "pki/crl.h"
#include "server/authority/clock.h"
#include "server/authority/enrolment.h"
#include "server/authority/import.h"
#include "server/authority/issue.h"
#include "server/authority/publish.h"
#include "server/authority/revoke.h"
#include "server/authority/status.h"

#define PEERS_MAX 16

struct caller_end {
    LIST_ENTRY(caller_end) next;
    struct admin *admin;
    struct channel *channel;
    struct peer *peer;
};

struct admin {
    struct authority *a;
    int folder, socket;
    gid_t group;
    struct event *readable;
    LIST_HEAD(, caller_end) list;
    int count;
};

#define NO_GROUP ((gid_t)-1)

/* ---- operations ---- */

static int operator_issue(struct authority *a, const struct msg_admin_operator_issue *m,
                          struct question *q)
{
    struct err err;
    if (m->csr_digest.len != 32 || m->roles == 0 ||
        m->roles & ~(uint32_t)(ROLE_PROVISIONER | ROLE_REVOKER | ROLE_ADMIN | ROLE_AUDITOR)) {
        err_set(&err, ERR_field_value, "the CSR's digest or the roles are not valid");
        question_refuse(q, &err);
        return 0;
    }
    struct issue_request req = {
        .origin = ISSUE_FOR_ADMIN,
        .operation = "operator_issue",
        .profile = "operator",
        .name = m->name,
        .body_digest = m->csr_digest.data,
        .csr_digest = m->csr_digest.data,
        .spki = m->spki,
        .roles = m->roles,
    };
    issue(a, &req, issue_answer, q);
    return 0;
}

struct listing {
    struct peer *peer;
    uint64_t id;
    int64_t now;
    char after[65];
    unsigned count;
    int more;
};

#define PAGE 100

static int send_operator(struct store_tx *tx, struct listing *l, const struct operator_row *op)
{
    struct certificate_row row = {0};
    struct msg_answer_operator m = {.name = op->name,
                                    .roles = op->roles,
                                    .state = op->revoked_at ? "revoked" : "no certificate"};
    int rc = op->revoked_at ? 1 : tx_operator_certificate(tx, op->id, INT64_MAX, l->now, &row);
    if (rc == 0) {
        m.state = "in force";
        m.serial = (struct bytes){row.serial, row.serial_len};
        m.not_after = row.not_after;
    }
    return rc < 0 ? -1 : channel_send(l->peer->channel, MSG_answer_operator, l->id, &m, -1);
}

static int list_page(struct store_tx *tx, void *arg)
{
    struct listing *l = arg;
    struct operator_row op;
    int rc;
    while ((rc = tx_operator_after(tx, l->after, &op)) == 0) {
        if (l->count == PAGE) {
            l->more = 1;
            return 0;
        }
        if (strncmp(op.name, ENROLMENT_OPERATOR, strlen(ENROLMENT_OPERATOR)) == 0) {
            snprintf(l->after, sizeof l->after, "%s", BEHIND_ENROLMENT_OPERATORS);
            continue; /* nobody's, and there may be many: signetctl enrolment list has them */
        }
        if (send_operator(tx, l, &op))
            return -1;
        snprintf(l->after, sizeof l->after, "%s", op.name);
        l->count++;
    }
    return rc < 0 ? -1 : 0;
}

static void operator_list(struct authority *a, const char *after, struct question *q)
{
    struct listing l = {.peer = q->peer, .id = q->id, .now = clock_now(a->clock)};
    struct err err;
    snprintf(l.after, sizeof l.after, "%s", after);
    if (store_read(a->store, list_page, &l)) {
        err_set(&err, ERR_storage_unavailable, NULL);
        question_refuse(q, &err);
        return;
    }
    struct msg_answer_end m = {.count = l.count, .more = (uint8_t)l.more};
    question_answer(q, MSG_answer_end, &m);
}

static void operator_revoke(struct authority *a, const struct msg_admin_operator_revoke *m,
                            struct question *q)
{
    struct revoke_request req = {.selector = REVOKE_OPERATOR, .reason = m->reason};
    struct err err;
    snprintf(req.name, sizeof req.name, "%s", m->name);
    if (!crl_reason_name(m->reason) || m->reason == REASON_HOLD ||
        m->reason == REASON_REMOVE_FROM_CRL) {
        err_set(&err, ERR_field_value, "this is not a reason for revoking an operator");
        question_refuse(q, &err);
        return;
    }
    revoke_certificates(a, &req, q);
}

static void crl_rebuild(struct authority *a, struct question *q)
{
    struct msg_answer_end m = {.count = (uint32_t)publish_older(a->publishing)};
    publish_rebuild(a->publishing);
    question_answer(q, MSG_answer_end, &m);
}

static void pin_retry(struct authority *a, struct question *q)
{
    struct msg_pin_retry m = {0};
    struct msg_answer_end done = {0};
    struct err err;
    if (channel_send(a->supervisor, MSG_pin_retry, 0, &m, -1)) {
        err_set(&err, ERR_internal, "the supervisor does not answer");
        question_refuse(q, &err);
        return;
    }
    question_answer(q, MSG_answer_end, &done);
}

static void answer_status(struct authority *a, struct question *q)
{
    struct msg_answer_status m;
    status_fill(a, &m, 1);
    question_answer(q, MSG_answer_status, &m);
}

static int on_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c;
    struct caller_end *e = arg;
    struct authority *a = e->admin->a;
    union {
        struct msg_admin_operator_issue issue;
        struct msg_admin_operator_revoke revoke;
        struct msg_admin_operator_list list;
        struct msg_admin_status status;
        struct msg_admin_pin_retry retry;
        struct msg_admin_clock_accept accept;
        struct msg_admin_crl_rebuild rebuild;
        struct msg_admin_import import;
        struct msg_admin_enrolment_add enrolment;
        struct msg_admin_enrolment_list enrolments;
        struct msg_admin_enrolment_end ending;
    } body;
    if (m->fd >= 0 || msg_decode(&body, m->type, m->fields) || e->peer->open >= 4)
        return -1;
    struct question *q = question_new(e->peer, m->id);
    switch (m->type) {
    case MSG_admin_operator_issue:
        return operator_issue(a, &body.issue, q);
    case MSG_admin_operator_revoke:
        operator_revoke(a, &body.revoke, q);
        return 0;
    case MSG_admin_operator_list:
        operator_list(a, body.list.after, q);
        return 0;
    case MSG_admin_status:
        answer_status(a, q);
        return 0;
    case MSG_admin_pin_retry:
        pin_retry(a, q);
        return 0;
    case MSG_admin_clock_accept:
        clock_accept(a->clock, q);
        return 0;
    case MSG_admin_crl_rebuild:
        crl_rebuild(a, q);
        return 0;
    case MSG_admin_import:
        import_certificate(a, &body.import, q);
        return 0;
    case MSG_admin_enrolment_add:
        enrolment_add(a, &body.enrolment, q);
        return 0;
    case MSG_admin_enrolment_list:
        enrolment_list(a, body.enrolments.after, q);
        return 0;
    case MSG_admin_enrolment_end:
        enrolment_end(a, body.ending.user, q);
        return 0;
    default:
        break;
    }
    struct err err;
    err_set(&err, ERR_operation_unknown, NULL);
    question_refuse(q, &err);
    return 0;
}

/* ---- who may come in ---- */

static int in_group(int socket, gid_t primary, gid_t group)
{
    gid_t groups[256];
    socklen_t len = sizeof groups;
    if (group == NO_GROUP)
        return 0;
    if (primary == group)
        return 1;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &len))
        return 0;
    for (size_t i = 0; i < len / sizeof *groups; i++)
        if (groups[i] == group)
            return 1;
    return 0;
}

static int may_enter(const struct admin *ad, int socket)
{
    struct ucred who;
    socklen_t len = sizeof who;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &len))
        return 0;
    if (who.uid == 0 || who.uid == geteuid() || in_group(socket, who.gid, ad->group))
        return 1;
    log_warn("admin.sock: user %u (process %d) is refused", who.uid, (int)who.pid);
    return 0;
}

static void on_end(struct channel *c, const char *why, void *arg)
{
    struct caller_end *e = arg;
    if (why)
        log_warn("admin.sock: a caller is ended: %s", why);
    LIST_REMOVE(e, next);
    e->admin->count--;
    peer_gone(e->peer);
    channel_free(c);
    free(e);
}

static void admit(struct admin *ad, int socket)
{
    static const struct channel_handlers handlers = {on_message, on_end};
    struct caller_end *e = calloc(1, sizeof *e);
    struct peer *peer = calloc(1, sizeof *peer);
    if (!e || !peer)
        goto fail;
    e->admin = ad;
    e->peer = peer;
    e->channel = channel_new(ad->a->base, socket, PROC_AUTHORITY, PROC_ADMIN, &handlers, e);
    if (!e->channel)
        goto fail;
    peer->channel = e->channel;
    LIST_INSERT_HEAD(&ad->list, e, next);
    ad->count++;
    return;
fail:
    free(e);
    free(peer);
    close(socket);
}

static void on_connection(evutil_socket_t socket, short what, void *arg)
{
    (void)what;
    struct admin *ad = arg;
    /* cppcheck-suppress nullPointer; it knows accept4(2) as one that wants the address */
    int fd = accept4(socket, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (ad->count >= PEERS_MAX || !may_enter(ad, fd))
        close(fd);
    else
        admit(ad, fd);
}

/* ---- the socket ---- */

/* By the folder's descriptor: the state's path may be longer than a socket address takes. */
static int bind_socket(struct admin *ad, const char *state, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    ad->folder = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ad->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/admin.sock", ad->folder);
    if (ad->folder < 0 || ad->socket < 0 ||
        (unlinkat(ad->folder, "admin.sock", 0) && errno != ENOENT))
        return err_set(err, ERR_storage_unavailable, "%s/admin.sock: %s", state, strerror(errno));
    mode_t old = umask(0117);
    int rc = bind(ad->socket, (struct sockaddr *)&at, sizeof at);
    umask(old);
    if (rc || listen(ad->socket, 16) ||
        (ad->group != NO_GROUP && fchownat(ad->folder, "admin.sock", (uid_t)-1, ad->group, 0)))
        return err_set(err, ERR_storage_unavailable, "%s/admin.sock: %s", state, strerror(errno));
    return 0;
}

int admin_open(struct admin **out, struct authority *a, struct err *err)
{
    struct admin *ad = calloc(1, sizeof *ad);
    if (!ad)
        fatal("no memory");
    ad->a = a;
    ad->folder = ad->socket = -1;
    ad->group = NO_GROUP;
    LIST_INIT(&ad->list);
    if (a->config->admin_group) {
        struct group *g = getgrnam(a->config->admin_group);
        if (!g) {
            err_set(err, ERR_field_value, "admin_group: there is no group \"%s\"",
                    a->config->admin_group);
            goto fail;
        }
        ad->group = g->gr_gid;
    }
    if (bind_socket(ad, a->config->state, err))
        goto fail;
    ad->readable = event_new(a->base, ad->socket, EV_READ | EV_PERSIST, on_connection, ad);
    if (!ad->readable || event_add(ad->readable, NULL))
        fatal("no memory");
    *out = ad;
    return 0;
fail:
    admin_close(ad);
    return -1;
}

void admin_close(struct admin *ad)
{
    struct caller_end *e;
    if (!ad)
        return;
    while ((e = LIST_FIRST(&ad->list))) {
        LIST_REMOVE(e, next);
        channel_free(e->channel);
        peer_gone(e->peer);
        free(e);
    }
    if (ad->readable)
        event_free(ad->readable);
    if (ad->folder >= 0) {
        unlinkat(ad->folder, "admin.sock", 0);
        close(ad->folder);
    }
    if (ad->socket >= 0)
        close(ad->socket);
    free(ad);
}
