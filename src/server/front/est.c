#include "server/front/est.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "pki/est.h"
#include "server/front/enrolment.h"

#define CERTS_ONLY "application/pkcs7-mime; smime-type=certs-only"
#define NAME_MAX_LEN 64 /* of a label, which is a profile's name, and of a user */
#define DEFAULT_LABEL "device"

struct label {
    char name[NAME_MAX_LEN + 1];
    struct buf csrattrs;
};

struct est {
    struct buf cacerts;
    struct label *labels;
    size_t count;
};

struct est *est_new(void)
{
    return calloc(1, sizeof(struct est));
}

void est_free(struct est *e)
{
    if (!e)
        return;
    for (size_t i = 0; i < e->count; i++)
        buf_free(&e->labels[i].csrattrs);
    free(e->labels);
    buf_free(&e->cacerts);
    free(e);
}

int est_set_chain(struct est *e, struct bytes pem)
{
    struct buf made = {0};
    if (est_chain(&made, pem)) {
        buf_free(&made);
        return -1;
    }
    buf_free(&e->cacerts);
    e->cacerts = made;
    return 0;
}

static struct label *find_label(const struct est *e, const char *name)
{
    for (size_t i = 0; i < e->count; i++)
        if (strcmp(e->labels[i].name, name) == 0)
            return &e->labels[i];
    return NULL;
}

static struct label *add_label(struct est *e, const char *name)
{
    struct label *more = realloc(e->labels, (e->count + 1) * sizeof *more);
    if (!more)
        return NULL;
    e->labels = more;
    more[e->count] = (struct label){0};
    snprintf(more[e->count].name, sizeof more->name, "%s", name);
    return &more[e->count++];
}

int est_set_label(struct est *e, const struct msg_est_label *m)
{
    struct label *label = find_label(e, m->label);
    if (!label && !(label = add_label(e, m->label)))
        return -1;
    label->csrattrs.len = 0;
    return buf_add(&label->csrattrs, m->csrattrs.data, m->csrattrs.len);
}

/* ---- answers ---- */

/* libest decodes by OpenSSL's BIO_f_base64 without the flag for data of one line, and so finds
 * nothing in a long one (its issue 100 and pull request 114, both open). It calls itself "libest
 * client 1.0", "libest 3.2.0" or, as built by Cisco, "Cisco EST client 2.0 …" (its est_locl.h). The
 * other clients known take one line; strongSwan's takes nothing else. */
static int wants_lines(const struct exchange *x)
{
    const char *agent = exchange_header(x, "User-Agent");
    return agent && (strncasecmp(agent, "libest", 6) == 0 ||
                     strncasecmp(agent, "Cisco EST client", 16) == 0);
}

static void refuse_internal(struct exchange *x)
{
    struct err err;
    err_set(&err, ERR_internal, "out of memory");
    exchange_refuse(x, &err, 0);
}

static void answer_der(struct exchange *x, const char *type, const struct buf *der)
{
    char *text = est_encode(buf_view(der), wants_lines(x));
    if (!text) {
        refuse_internal(x);
        return;
    }
    exchange_add_header(x, "Content-Transfer-Encoding", "base64");
    exchange_text(x, HTTP_OK, type, text);
}

/* RFC 7030 section 4.2.3: the certificate alone; the chain is what /cacerts is for. */
static void answer_enrolled(struct service *s, struct exchange *x, enum msg_type type,
                            const union answer *answer)
{
    struct buf pkcs7 = {0};
    (void)s;
    if (type != MSG_answer_certificate)
        answer_refusal(x, &answer->error);
    else if (est_certificate(&pkcs7, answer->certificate.der))
        refuse_internal(x);
    else
        answer_der(x, CERTS_ONLY, &pkcs7);
    buf_free(&pkcs7);
}

/* ---- who asks ---- */

/* An enrolment's user and password (RFC 7617 section 2), where they were sent. */
struct login {
    int by_password;
    char user[NAME_MAX_LEN + 1];
    uint8_t password_sha256[32];
};

static int take_user(struct login *l, struct bytes user, struct err *err)
{
    if (user.len < 1 || user.len > NAME_MAX_LEN)
        return err_set(err, ERR_http_malformed, "a user's name has 1 to %d characters",
                       NAME_MAX_LEN);
    for (size_t i = 0; i < user.len; i++)
        if (user.data[i] < ' ' || user.data[i] > '~')
            return err_set(err, ERR_http_malformed, "a user's name is of printable ASCII");
    memcpy(l->user, user.data, user.len);
    return 0;
}

static int take_pair(struct login *l, struct bytes pair, struct err *err)
{
    const uint8_t *colon = pair.len ? memchr(pair.data, ':', pair.len) : NULL;
    if (!colon)
        return err_set(err, ERR_http_malformed,
                       "the Authorization header has no user:password (RFC 7617)");
    size_t user = (size_t)(colon - pair.data);
    if (take_user(l, (struct bytes){pair.data, user}, err))
        return -1;
    sha256(l->password_sha256, (struct bytes){colon + 1, pair.len - user - 1});
    l->by_password = 1;
    return 0;
}

static int take_authorization(struct login *l, const char *text, struct err *err)
{
    static const char basic[] = "Basic ";
    size_t len;
    if (!text)
        return err_set(err, ERR_http_malformed, "more than one Authorization header");
    if (strncasecmp(text, basic, sizeof basic - 1) != 0)
        return err_set(err, ERR_credentials_required, "of HTTP's logins, Basic alone is taken");
    text += strspn(text + sizeof basic - 1, " ") + sizeof basic - 1;
    uint8_t *pair = base64_decode(text, strlen(text), &len);
    if (!pair)
        return err_set(err, ERR_http_malformed, "the Authorization header is not base64");
    int rc = take_pair(l, (struct bytes){pair, len}, err);
    OPENSSL_cleanse(pair, len);
    free(pair);
    return rc;
}

/* A password that is sent is what counts: it came with this request, on purpose, while a
 * certificate belongs to the connection and may be any that the device has (its maker's, or one
 * that expired). */
static int take_login(struct login *l, struct exchange *x, struct err *err)
{
    *l = (struct login){0};
    if (exchange_header_count(x, "Authorization") > 0) {
        int rc = take_authorization(l, exchange_header(x, "Authorization"), err);
        exchange_wipe_header(x, "Authorization");
        return rc;
    }
    if (exchange_caller(x)->kind == CALLER_ANONYMOUS)
        return err_set(err, ERR_credentials_required, NULL);
    return require_certificate(x, err);
}

/* ---- operations: each asks or answers, or returns -1 with err. label NULL: none was named ---- */

static int take_csr(struct enrolment *e, struct exchange *x, struct err *err)
{
    size_t len;
    uint8_t *der = est_decode(exchange_body(x), &len);
    if (!der)
        return err_set(err, ERR_csr_base64, NULL);
    int rc = enrolment_take(e, x, (struct bytes){der, len}, err);
    free(der);
    return rc;
}

static int simpleenroll(struct service *s, struct exchange *x, const struct label *label,
                        struct err *err)
{
    struct enrolment e;
    struct login login;
    exchange_set_operation(x, OP_REQ_CLIENT_CERT);
    if (route_check_body(x, "application/pkcs10", err) || take_login(&login, x, err) ||
        take_csr(&e, x, err))
        return -1;
    e.profile = label ? label->name : "";
    if (login.by_password) {
        enrolment_by_password(&e, s, x, login.user, login.password_sha256, answer_enrolled);
        return 0;
    }
    if (!label)
        e.profile = DEFAULT_LABEL;
    enrolment_issue(&e, s, x, answer_enrolled);
    return 0;
}

/* By the device's own certificate, whose subject and profile stay; a password that comes with it
 * says nothing. */
static int simplereenroll(struct service *s, struct exchange *x, const struct label *label,
                          struct err *err)
{
    struct enrolment e;
    (void)label;
    exchange_wipe_header(x, "Authorization");
    exchange_set_operation(x, OP_RENEW_CLIENT_CERT);
    if (route_check_body(x, "application/pkcs10", err) || require_certificate(x, err) ||
        take_csr(&e, x, err))
        return -1;
    enrolment_renew(&e, s, x, answer_enrolled);
    return 0;
}

static int cacerts(struct service *s, struct exchange *x, const struct label *label,
                   struct err *err)
{
    (void)label, (void)err;
    answer_der(x, CERTS_ONLY, &s->est->cacerts);
    return 0;
}

static int csrattrs(struct service *s, struct exchange *x, const struct label *label,
                    struct err *err)
{
    if (!label && !(label = find_label(s->est, DEFAULT_LABEL)))
        return err_set(err, ERR_not_found, "the profile " DEFAULT_LABEL " cannot be enrolled by");
    answer_der(x, "application/csrattrs", &label->csrattrs);
    return 0;
}

static const struct est_operation {
    const char *name, *allow;
    unsigned methods;
    int (*serve)(struct service *s, struct exchange *x, const struct label *label, struct err *err);
} operations[] = {
    {"cacerts", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, cacerts},
    {"csrattrs", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, csrattrs},
    {"simpleenroll", "POST", EVHTTP_REQ_POST, simpleenroll},
    {"simplereenroll", "POST", EVHTTP_REQ_POST, simplereenroll},
};

static const struct est_operation *find_operation(const char *name)
{
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strcmp(operations[i].name, name) == 0)
            return &operations[i];
    return NULL;
}

/* [LABEL/]operation; -1: there is no such label. */
static int take_label(const struct label **label, const char **rest, const struct est *e)
{
    char name[NAME_MAX_LEN + 1];
    const char *slash = strchr(*rest, '/');
    *label = NULL;
    if (!slash)
        return 0;
    size_t len = (size_t)(slash - *rest);
    if (len >= sizeof name)
        return -1;
    snprintf(name, sizeof name, "%.*s", (int)len, *rest);
    *rest = slash + 1;
    return (*label = find_label(e, name)) ? 0 : -1;
}

int est_serve(struct service *s, struct exchange *x, struct err *err)
{
    const char *rest = exchange_path(x) + strlen(EST_PATH);
    const struct est_operation *op;
    const struct label *label;
    if (!exchange_is_tls(x))
        return err_set(err, ERR_not_found, "EST is spoken on the HTTPS port");
    exchange_errors_as_text(x);
    exchange_add_header(x, "Cache-Control", "no-store");
    if (take_label(&label, &rest, s->est))
        return err_set(err, ERR_not_found, "there is no profile of this name to be enrolled by");
    if (!(op = find_operation(rest)))
        return err_set(err, ERR_not_found,
                       "of EST there are cacerts, csrattrs, simpleenroll and simplereenroll");
    if (route_check_method(x, op->methods, op->allow, err))
        return -1;
    return op->serve(s, x, label, err);
}
