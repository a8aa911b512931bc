/* load issue: certificates by the JSON interface, over kept-alive connections. */
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "load.h"
#include "pki/csr.h"
#include "pool.h"
#include "stats.h"

struct issue {
    const struct options *o;
    struct pool pool;
    struct buf *requests; /* whole HTTP requests, in the order of the pool from first on */
    char **answers;       /* bodies; NULL: none */
    size_t total, next, limit, done, open, errors;
    double until; /* now_seconds(); 0: until all are done */
    struct stats times;
};

/* ---- before the clock: requests ---- */

static char *csr_pem_base64(struct bytes der)
{
    char *data, *text;
    BIO *bio = BIO_new(BIO_s_mem());
    if (!bio || PEM_write_bio(bio, "CERTIFICATE REQUEST", "", der.data, (long)der.len) <= 0)
        die("no memory");
    long len = BIO_get_mem_data(bio, &data);
    if (!(text = base64_encode((struct bytes){(uint8_t *)data, (size_t)len})))
        die("no memory");
    BIO_free(bio);
    return text;
}

/* As `signet` asks: the CSR as PEM, and a request_id. */
static void make_request(struct buf *out, const struct issue *s, size_t number)
{
    static const char body[] =
        "{\"operation\":\"req_client_cert\",\"csr\":\"%s\",\"request_id\":\"bench-%08zx\"}";
    char *csr = csr_pem_base64(s->pool.csrs[number]), head[256], *text;
    int len = asprintf(&text, body, csr, number);
    snprintf(head, sizeof head,
             "POST /v1 HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
             "Content-Length: %d\r\n\r\n",
             s->o->server, len);
    if (len < 0 || buf_add(out, head, strlen(head)) || buf_add(out, text, (size_t)len))
        die("no memory");
    free(text);
    free(csr);
}

static void prepare(struct issue *s, const struct options *o)
{
    *s = (struct issue){.o = o, .total = o->warm + o->count};
    pool_load(&s->pool, o->pool);
    if (o->first + s->total > s->pool.count)
        die("%s has %zu CSRs, not %zu", o->pool, s->pool.count, o->first + s->total);
    s->requests = calloc(s->total, sizeof *s->requests);
    s->answers = calloc(s->total, sizeof *s->answers);
    if (!s->requests || !s->answers)
        die("no memory");
    for (size_t i = 0; i < s->total; i++)
        make_request(&s->requests[i], s, o->first + i);
    stats_init(&s->times, o->count);
}

/* ---- with the clock running ---- */

static void ask_next(struct link *l)
{
    struct issue *s = wire_arg(l->wire);
    if (s->until > 0 && now_seconds() > s->until)
        s->limit = s->next;
    if (s->next < s->limit) {
        l->number = s->next++;
        link_ask(l, buf_view(&s->requests[l->number]));
    } else if (s->done == s->limit) {
        wire_stop(l->wire);
    }
}

static void on_answer(struct link *l, struct bytes body)
{
    struct issue *s = wire_arg(l->wire);
    if (l->number >= s->o->warm)
        stats_add(&s->times, now_seconds() - l->begun);
    if (l->status == 200)
        s->answers[l->number] = strndup((const char *)body.data, body.len);
    else if (s->errors++ == 0)
        fprintf(stderr, "load: answer %d: %.*s\n", l->status, (int)body.len,
                (const char *)body.data);
    s->done++;
    ask_next(l);
}

static void on_open(struct link *l)
{
    struct issue *s = wire_arg(l->wire);
    if (++s->open == s->o->connections)
        wire_stop(l->wire);
}

static void on_lost(struct link *l)
{
    (void)l;
    die("a connection was lost");
}

static void run_to(struct issue *s, struct wire *w, size_t limit)
{
    s->limit = limit;
    for (size_t i = 0; i < s->o->connections && s->next < limit; i++)
        ask_next(wire_link(w, i));
    if (s->done < limit)
        wire_run(w, 0);
}

/* ---- with the clock stopped: is each answer right? ---- */

/* The value of "certificate" in the answer, from base64 and PEM. */
static X509 *certificate_in(const char *answer)
{
    static const char name[] = "\"certificate\":\"";
    const char *from = strstr(answer, name), *to = from ? strchr(from + strlen(name), '"') : NULL;
    size_t len;
    if (!to)
        return NULL;
    from += strlen(name);
    uint8_t *pem = base64_decode(from, (size_t)(to - from), &len);
    BIO *bio = pem ? BIO_new_mem_buf(pem, (int)len) : NULL;
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    free(pem);
    return x;
}

static int is_right(X509 *x, EVP_PKEY *issuer, struct bytes csr_der)
{
    const uint8_t *at = csr_der.data;
    char cn[2][64] = {"", "-"};
    X509_REQ *csr = d2i_X509_REQ(NULL, &at, (long)csr_der.len);
    if (!x || !csr)
        die("no certificate, or a broken pool");
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn[0], 64);
    X509_NAME_get_text_by_NID(X509_REQ_get_subject_name(csr), NID_commonName, cn[1], 64);
    int right = X509_verify(x, issuer) == 1 && strcmp(cn[0], cn[1]) == 0 &&
                X509_PUBKEY_eq(X509_get_X509_PUBKEY(x), X509_REQ_get_X509_PUBKEY(csr)) == 1;
    X509_REQ_free(csr);
    X509_free(x);
    return right;
}

static EVP_PKEY *issuer_key(const char *path)
{
    BIO *bio = BIO_new_file(path, "r");
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *key = x ? X509_get_pubkey(x) : NULL;
    if (!key)
        die("%s: not a certificate", path);
    X509_free(x);
    BIO_free(bio);
    return key;
}

static size_t check_all(struct issue *s)
{
    EVP_PKEY *issuer = issuer_key(s->o->issuer);
    size_t checked = 0;
    for (size_t i = 0; i < s->total; i++) {
        if (!s->answers[i])
            continue;
        if (!is_right(certificate_in(s->answers[i]), issuer, s->pool.csrs[s->o->first + i]))
            die("answer %zu: not the certificate that was asked for, or a bad signature", i);
        checked += i >= s->o->warm;
    }
    EVP_PKEY_free(issuer);
    return checked;
}

static void finish(struct issue *s)
{
    for (size_t i = 0; i < s->total; i++) {
        buf_free(&s->requests[i]);
        free(s->answers[i]);
    }
    free(s->requests);
    free(s->answers);
    stats_free(&s->times);
    pool_free(&s->pool);
}

void mode_issue(const struct options *o)
{
    static const struct wire_events events = {on_open, on_answer, on_lost, on_lost};
    struct issue s;
    prepare(&s, o);
    SSL_CTX *ctx = options_context(o);
    struct wire *w = wire_new(o->server, ctx, o->connections, &events, &s);
    for (size_t i = 0; i < o->connections; i++)
        link_open(wire_link(w, i));
    wire_run(w, 0);
    run_to(&s, w, o->warm);
    sync_point("ready");
    double begun = now_seconds(), cpu = cpu_seconds();
    s.until = o->seconds > 0 ? begun + o->seconds : 0;
    run_to(&s, w, s.total);
    double took = now_seconds() - begun;
    cpu = cpu_seconds() - cpu;
    tell("stopped");
    size_t checked = check_all(&s);
    printf("{\"count\":%zu,\"errors\":%zu,\"seconds\":%.6f,\"rate\":%.2f,\"load_cpu_us\":%.2f,",
           checked, s.errors, took, (double)checked / took,
           checked ? cpu / (double)checked * 1e6 : 0);
    stats_print(&s.times);
    puts("}");
    wire_free(w);
    SSL_CTX_free(ctx);
    finish(&s);
}
