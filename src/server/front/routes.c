#include "server/front/routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "server/front/answer.h"
#include "server/front/ask.h"
#include "server/front/est.h"
#include "server/front/v1.h"

int service_set_chain(struct service *s, const struct msg_chain *m)
{
    char *base64 = base64_encode(m->chain_pem);
    struct buf der = {0};
    if (!base64 || buf_add(&der, m->issuer_der.data, m->issuer_der.len) ||
        est_set_chain(s->est, m->chain_pem)) {
        buf_free(&der);
        free(base64);
        return -1;
    }
    service_clear(s);
    s->chain_base64 = base64;
    s->issuer_der = der;
    s->has_ocsp = m->ocsp;
    return 0;
}

void service_clear(struct service *s)
{
    free(s->chain_base64);
    s->chain_base64 = NULL;
    buf_free(&s->issuer_der);
    s->issuer_der = (struct buf){0};
}

/* ---- GET ---- */

static int serve_document(struct service *s, struct exchange *x, struct err *err)
{
    const struct document *doc = documents_find(s->documents, exchange_path(x));
    char modified[32], cache[48];
    if (!doc)
        return err_set(err, ERR_not_found, NULL);
    http_date(modified, doc->modified);
    snprintf(cache, sizeof cache, "public, max-age=%" PRId64, document_max_age(doc, time(NULL)));
    exchange_add_header(x, "ETag", doc->etag);
    exchange_add_header(x, "Last-Modified", modified);
    exchange_add_header(x, "Cache-Control", cache);
    if (document_not_modified(doc, exchange_header(x, "If-None-Match"),
                              exchange_header(x, "If-Modified-Since")))
        exchange_empty(x, HTTP_NOTMODIFIED);
    else
        exchange_blob(x, doc->content_type, doc->body);
    return 0;
}

static void answer_probe_with(struct exchange *x, int ready)
{
    exchange_add_header(x, "Cache-Control", "no-store");
    if (!ready)
        exchange_add_header(x, "Retry-After", "1");
    exchange_json(x, ready ? HTTP_OK : HTTP_SERVUNAVAIL, answer_probe(ready));
}

static void answer_readyz(struct service *s, struct exchange *x, enum msg_type type,
                          const union answer *answer)
{
    (void)s;
    answer_probe_with(x, type == MSG_answer_status && answer->status.ready);
}

static int serve_healthz(struct service *s, struct exchange *x, struct err *err)
{
    (void)s, (void)err;
    answer_probe_with(x, 1);
    return 0;
}

static int serve_readyz(struct service *s, struct exchange *x, struct err *err)
{
    (void)err;
    ask_status(s, x, answer_readyz);
    return 0;
}

/* ---- OCSP ---- */

static int check_ocsp(const struct service *s, struct err *err)
{
    return s->has_ocsp ? 0 : err_set(err, ERR_not_found, "this CA has no OCSP responder");
}

static int serve_ocsp_post(struct service *s, struct exchange *x, struct err *err)
{
    if (check_ocsp(s, err) || route_check_body(x, "application/ocsp-request", err))
        return -1;
    return ocsp_serve_post(s->ocsp, x, err);
}

static int serve_ocsp_get(struct service *s, struct exchange *x, struct err *err)
{
    return check_ocsp(s, err) ? -1 : ocsp_serve_get(s->ocsp, x, err);
}

/* ---- the routes ---- */

/* A path with a '/' at its end stands for all that begin with it. methods 0: serve() looks at them
 * itself, by route_check_method(). */
static const struct route {
    const char *path, *allow;
    unsigned methods; /* enum evhttp_cmd_type, ored */
    int (*serve)(struct service *s, struct exchange *x, struct err *err);
} routes[] = {
    {"/v1", "POST", EVHTTP_REQ_POST, v1_serve},
    {EST_PATH, NULL, 0, est_serve},
    {"/healthz", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_healthz},
    {"/readyz", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_readyz},
    {"/ocsp", "POST", EVHTTP_REQ_POST, serve_ocsp_post},
    {"/ocsp/", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_ocsp_get},
    {NULL, "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_document}, /* any other path */
};

static int is_for(const struct route *r, const char *path)
{
    size_t len = strlen(r->path);
    return r->path[len - 1] == '/' ? strncmp(r->path, path, len) == 0 : strcmp(r->path, path) == 0;
}

static const struct route *find_route(const struct service *s, const char *path)
{
    const struct route *r = routes;
    while (r->path && !is_for(r, path))
        r++;
    return r->path || documents_find(s->documents, path) ? r : NULL;
}

int route_check_method(struct exchange *x, unsigned methods, const char *allow, struct err *err)
{
    if (exchange_method(x) & methods)
        return 0;
    exchange_add_header(x, "Allow", allow);
    return err_set(err, ERR_method_not_allowed, "%s takes %s", exchange_path(x), allow);
}

/* "application/json", with any parameters (RFC 9110 section 8.3.1). */
static int is_of_type(const char *type, const char *wanted)
{
    size_t len = strlen(wanted);
    if (!type || strncasecmp(type, wanted, len) != 0)
        return 0;
    const char *rest = type + len;
    rest += strspn(rest, " \t");
    return *rest == 0 || *rest == ';';
}

int route_check_body(const struct exchange *x, const char *type, struct err *err)
{
    /* A browser adds Origin to what a page sends; no page has business here. */
    if (exchange_header_count(x, "Origin") > 0)
        return err_set(err, ERR_origin_refused, NULL);
    if (!is_of_type(exchange_header(x, "Content-Type"), type))
        return err_set(err, ERR_content_type, "send Content-Type: %s", type);
    if (exchange_header_count(x, "Content-Encoding") > 0)
        return err_set(err, ERR_content_type, "send the body as it is, without Content-Encoding");
    return 0;
}

static int serve(struct service *s, struct exchange *x, struct err *err)
{
    const struct route *r = find_route(s, exchange_path(x));
    if (!r)
        return err_set(err, ERR_not_found, NULL);
    if (r->methods && route_check_method(x, r->methods, r->allow, err))
        return -1;
    return r->serve(s, x, err);
}

void service_request(struct service *s, struct exchange *x)
{
    struct err err = {0};
    if (serve(s, x, &err))
        exchange_refuse(x, &err, 0);
}
