#include "server/front/routes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "server/front/ask.h"
#include "server/front/v1.h"

int service_set_chain(struct service *s, const struct msg_chain *m)
{
    char *base64 = base64_encode(m->chain_pem);
    struct buf der = {0};
    if (!base64 || buf_add(&der, m->issuer_der.data, m->issuer_der.len)) {
        free(base64);
        return -1;
    }
    service_clear(s);
    s->chain_base64 = base64;
    s->issuer_der = der;
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

static int serve_healthz(struct service *s, struct exchange *x, struct err *err)
{
    (void)s, (void)err;
    answer_probe_with(x, 1);
    return 0;
}

static int serve_readyz(struct service *s, struct exchange *x, struct err *err)
{
    (void)err;
    ask_status(s, x, 1);
    return 0;
}

/* ---- the routes ---- */

static const struct route {
    const char *path, *allow;
    unsigned methods; /* enum evhttp_cmd_type, ored */
    int (*serve)(struct service *s, struct exchange *x, struct err *err);
} routes[] = {
    {"/v1", "POST", EVHTTP_REQ_POST, v1_serve},
    {"/healthz", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_healthz},
    {"/readyz", "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_readyz},
    {NULL, "GET, HEAD", EVHTTP_REQ_GET | EVHTTP_REQ_HEAD, serve_document}, /* any other path */
};

static const struct route *find_route(const struct service *s, const char *path)
{
    const struct route *r = routes;
    while (r->path && strcmp(r->path, path) != 0)
        r++;
    return r->path || documents_find(s->documents, path) ? r : NULL;
}

static int serve(struct service *s, struct exchange *x, struct err *err)
{
    const struct route *r = find_route(s, exchange_path(x));
    if (!r)
        return err_set(err, ERR_not_found, NULL);
    if (!(exchange_method(x) & r->methods)) {
        exchange_add_header(x, "Allow", r->allow);
        return err_set(err, ERR_method_not_allowed, "%s takes %s", exchange_path(x), r->allow);
    }
    return r->serve(s, x, err);
}

void service_request(struct service *s, struct exchange *x)
{
    struct err err = {0};
    if (serve(s, x, &err))
        exchange_refuse(x, &err, 0);
}
