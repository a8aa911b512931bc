/* A front as strangers see it: bytes on a connection, through evhttp and what looks after it, the
 * routes, EST, OCSP, the JSON. The first byte of the input says who is connected ('0' nobody known,
 * '1' a certificate of this CA, '2' a foreign one; 'e' a certificate, and the authority refuses).
 * TLS and the authority are stood in for here; what is asked of the latter must be what a message
 * can carry. Seeds: ../corpus/http, made by make_http.py */
#include <openssl/err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ca.h"
#include "common/log.h"
#include "server/front/est.h"
#include "server/front/routes.h"

#define INPUT_MAX ((size_t)96 * 1024) /* what a socket takes at once */
#define QUIET_ROUNDS 4                /* of the loop, and nothing more happens */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct event_base *base;
static struct http *http;
static struct service service;
static struct buf issuer_der;
static struct caller caller = {.address = "192.0.2.1:1"};
static int refuses;
static unsigned requests;

/* ---- TLS ---- */

int __wrap_exchange_is_tls(const struct exchange *x);
const struct caller *__wrap_exchange_caller(const struct exchange *x);

int __wrap_exchange_is_tls(const struct exchange *x)
{
    (void)x;
    return 1;
}

const struct caller *__wrap_exchange_caller(const struct exchange *x)
{
    (void)x;
    return &caller;
}

SSL *tls_connection(const struct tls *t)
{
    (void)t;
    return NULL;
}

const struct caller *tls_caller(const struct tls *t, SSL *ssl, const char *address)
{
    (void)t, (void)ssl, (void)address;
    return NULL;
}

/* ---- the authority ---- */

struct question {
    LIST_ENTRY(question) next;
    enum msg_type type;
    void (*answered)(enum msg_type type, const union answer *answer, void *arg);
    void *arg;
};
static LIST_HEAD(, question) questions;

/* What is asked fits its message, and is the same behind it. */
static int fits(enum msg_type type, const void *body)
{
    union {
#define MSG(name, ...) struct msg_##name m_##name;
#include "common/msg_fields.h"
#undef MSG
    } read;
    struct buf record = {0};
    struct bytes fields;
    unsigned got;
    uint64_t id;
    int fit = msg_encode(&record, type, 1, body) == 0;
    if (fit)
        must(msg_allowed(type, PROC_FRONT, PROC_AUTHORITY) &&
             !msg_open(buf_view(&record), &got, &id, &fields) && got == type &&
             !msg_decode(&read, type, fields));
    buf_free(&record);
    return fit;
}

int authority_ask(struct authority *a, enum msg_type type, const void *body, int anonymous,
                  void (*answered)(enum msg_type type, const union answer *answer, void *arg),
                  void *arg, struct question **out, struct err *err)
{
    (void)a, (void)anonymous;
    struct question *q = fits(type, body) ? malloc(sizeof *q) : NULL;
    if (!q)
        return err_set(err, ERR_busy, NULL);
    *q = (struct question){.type = type, .answered = answered, .arg = arg};
    LIST_INSERT_HEAD(&questions, q, next);
    *out = q;
    return 0;
}

void question_forget(struct question *q)
{
    q->answered = NULL;
}

int authority_catch_up(struct authority *a)
{
    (void)a;
    return 0;
}

int authority_is_behind(const struct authority *a)
{
    (void)a;
    return 0;
}

static enum msg_type answer_to(const struct question *q, union answer *a)
{
    static const uint8_t serial[20] = {0x4f, 1};
    const struct bytes number = {serial, sizeof serial};
    int64_t now = (int64_t)time(NULL);
    switch (refuses ? MSG_none : q->type) {
    case MSG_issue:
    case MSG_renew:
    case MSG_enrol:
    case MSG_signed_request:
        a->certificate = (struct msg_answer_certificate){number, buf_view(&issuer_der)};
        return MSG_answer_certificate;
    case MSG_revoke:
        a->revoked = (struct msg_answer_revoked){.serial = number, .reason = 1, .count = 1};
        return MSG_answer_revoked;
    case MSG_report:
        a->reported = (struct msg_answer_reported){number, "verified"};
        return MSG_answer_reported;
    case MSG_get:
        a->row = (struct msg_answer_row){.id = 1,
                                         .serial = number,
                                         .state = "issued",
                                         .board = "",
                                         .profile = "device",
                                         .name = "24:0a:c4:00:00:01",
                                         .operator_name = "anna",
                                         .der = buf_view(&issuer_der)};
        return MSG_answer_row;
    case MSG_list:
        a->page = (struct msg_answer_page){0, 0};
        return MSG_answer_page;
    case MSG_ocsp:
        a->ocsp = (struct msg_answer_ocsp){buf_view(&issuer_der), now - 60, now + 3600};
        return MSG_answer_ocsp;
    case MSG_status:
        a->status = (struct msg_answer_status){
            .ready = 1, .token_detail = "", .custody = "", .problem = "", .operator_name = ""};
        return MSG_answer_status;
    default:
        a->error = (struct msg_answer_error){ERR_busy, 7, ""};
        return MSG_answer_error;
    }
}

static void answer_all(void)
{
    struct question *q;
    while ((q = LIST_FIRST(&questions))) {
        union answer a;
        enum msg_type type = answer_to(q, &a);
        LIST_REMOVE(q, next);
        if (q->answered)
            q->answered(type, &a, q->arg);
        free(q);
    }
}

/* ---- set up once ---- */

static void on_request(struct exchange *x, void *arg)
{
    (void)arg;
    requests++;
    service_request(&service, x);
}

static void on_drained(void *arg)
{
    (void)arg;
}

static struct sockaddr_in address; /* of the front */

static void listen_to(struct err *err)
{
    socklen_t len = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    must(s >= 0 && !bind(s, (struct sockaddr *)&address, len) && !listen(s, 8) &&
         !getsockname(s, (struct sockaddr *)&address, &len));
    must(!http_accept(http, s, err));
}

/* It leaves no port behind that has to wait. */
static int connect_to(void)
{
    const struct linger at_once = {1, 0};
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(s >= 0 && !setsockopt(s, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) &&
         !connect(s, (struct sockaddr *)&address, sizeof address));
    return s;
}

static void put_document(const char *path)
{
    struct msg_document m = {path, "application/pkix-crl", 1, 0, {issuer_der.data, 32}};
    struct err err;
    int fd = memfd_create("document", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must(fd >= 0 && write(fd, issuer_der.data, issuer_der.len) == (ssize_t)issuer_der.len);
    must(!documents_put(service.documents, &m, fd, &err));
}

static void set_chain(void)
{
    EVP_PKEY *key = key_of(0x22);
    X509 *ca = ca_of("Fuzz CA", key, NULL, key);
    struct buf pem = pem_of(ca);
    unsigned char *der = NULL;
    int len = i2d_X509(ca, &der);
    must(len > 0 && !buf_add(&issuer_der, der, (size_t)len));
    struct msg_chain m = {buf_view(&issuer_der), buf_view(&pem), 1};
    must(!service_set_chain(&service, &m));
    OPENSSL_free(der);
    buf_free(&pem);
    X509_free(ca);
    EVP_PKEY_free(key);
}

static void set_up(void)
{
    static const struct http_handlers handlers = {on_request, on_drained};
    static const struct msg_est_label label = {"device", {(const uint8_t *)"\x30\x00", 2}};
    struct err err;
    if (base)
        return;
    log_open("fuzz", LOG_ERROR);
    must((base = event_base_new()) && (http = http_new(base, NULL, &handlers, NULL)));
    service.documents = documents_new();
    service.est = est_new();
    service.ocsp = ocsp_new(base, NULL);
    must(service.documents && service.est && service.ocsp);
    set_chain();
    must(!est_set_label(service.est, &label));
    put_document("/crl");
    put_document("/ca.cer");
    listen_to(&err);
}

/* ---- one input ---- */

static void set_caller(uint8_t who)
{
    refuses = who == 'e';
    caller.kind = who == '0' ? CALLER_ANONYMOUS : who == '2' ? CALLER_FOREIGN : CALLER_CERTIFICATE;
    caller.serial_len = 8;
}

static size_t count_replies(const char *text, size_t len)
{
    size_t n = 0;
    for (const char *p = text; p && (p = memmem(p, len - (size_t)(p - text), "HTTP/", 5)); p += 5)
        n++;
    return n;
}

/* What came by now; 1: there was something. */
static int read_some(int s, struct buf *out)
{
    char chunk[16384];
    ssize_t n = recv(s, chunk, sizeof chunk, MSG_DONTWAIT);
    must(n <= 0 || !buf_add(out, chunk, (size_t)n));
    return n > 0;
}

static void talk(int s, const uint8_t *data, size_t size, struct buf *out)
{
    must(send(s, data, size, MSG_NOSIGNAL) == (ssize_t)size);
    for (int quiet = 0; quiet < QUIET_ROUNDS; quiet++) {
        unsigned before = requests;
        event_base_loop(base, EVLOOP_NONBLOCK);
        int asked = LIST_FIRST(&questions) != NULL;
        answer_all();
        if (read_some(s, out) || asked || requests != before)
            quiet = -1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf out = {0};
    set_up();
    if (size < 2 || size > INPUT_MAX)
        return 0;
    int s = connect_to();
    set_caller(data[0]);
    requests = 0;
    time_t began = time(NULL);
    talk(s, data + 1, size - 1, &out);
    if (out.len)
        must(out.len > 12 && memcmp(out.data, "HTTP/", 5) == 0);
    /* each was answered, unless the fuzzer was stopped for so long that a deadline passed */
    must(requests <= count_replies((char *)out.data, out.len) || time(NULL) - began > 10);
    close(s);
    for (int i = 0; i < QUIET_ROUNDS; i++)
        event_base_loop(base, EVLOOP_NONBLOCK);
    must(http_in_flight(http) == 0 && !LIST_FIRST(&questions) && ERR_peek_error() == 0);
    buf_free(&out);
    return 0;
}
