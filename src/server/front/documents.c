#include "server/front/documents.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>
#include <openssl/pem.h>

#define DOCUMENT_MAX ((off_t)1024 * 1024 * 1024)

struct blob {
    size_t refs;
    uint8_t *data;
    size_t len;
    int mapped;
    struct documents *retired_in; /* replaced, and still being sent */
    TAILQ_ENTRY(blob) next;
};

struct documents {
    struct document list[DOCUMENTS_MAX];
    size_t count;
    struct blob *crl_answer; /* of the present /crl */

    TAILQ_HEAD(blobs, blob) retired; /* the oldest first */
    size_t retired_bytes;
    void (*give_up)(struct blob *body, void *arg);
    void *give_up_arg;
};

static struct blob *blob_new(uint8_t *data, size_t len, int mapped)
{
    struct blob *b = calloc(1, sizeof *b);
    if (b)
        *b = (struct blob){.refs = 1, .data = data, .len = len, .mapped = mapped};
    return b;
}

struct blob *blob_take(char *data, size_t len)
{
    struct blob *b = blob_new((uint8_t *)data, len, 0);
    if (!b)
        free(data);
    return b;
}

/* NULL: not a memfd (which alone has seals) of a sensible size, or no memory. fstat(2) would look
 * at any path, so a front may not do it. */
static struct blob *blob_map(int fd)
{
    off_t size = fcntl(fd, F_GET_SEALS) < 0 ? 0 : lseek(fd, 0, SEEK_END);
    if (size <= 0 || size > DOCUMENT_MAX)
        return NULL;
    size_t len = (size_t)size;
    void *data = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return NULL;
    struct blob *b = blob_new(data, len, 1);
    if (!b)
        munmap(data, len);
    return b;
}

struct bytes blob_view(const struct blob *b)
{
    return (struct bytes){b->data, b->len};
}

struct blob *blob_ref(struct blob *b)
{
    b->refs++;
    return b;
}

static void forget_retired(struct blob *b)
{
    if (!b->retired_in)
        return;
    b->retired_in->retired_bytes -= b->len;
    TAILQ_REMOVE(&b->retired_in->retired, b, next);
    b->retired_in = NULL;
}

void blob_unref(struct blob *b)
{
    if (!b || --b->refs > 0)
        return;
    forget_retired(b);
    if (b->mapped)
        munmap(b->data, b->len);
    else
        free(b->data);
    free(b);
}

struct documents *documents_new(void)
{
    struct documents *d = calloc(1, sizeof *d);
    if (d)
        TAILQ_INIT(&d->retired);
    return d;
}

void documents_on_late(struct documents *d, void (*give_up)(struct blob *body, void *arg),
                       void *arg)
{
    d->give_up = give_up;
    d->give_up_arg = arg;
}

/* It has another in its place. Who reads it may go on; but a CRL has forty megabytes, there is one
 * after the other, and who reads slowly must not keep them all. */
static void retire(struct documents *d, struct blob *b)
{
    struct blob *oldest;
    if (b && b->refs > 1) {
        b->retired_in = d;
        d->retired_bytes += b->len;
        TAILQ_INSERT_TAIL(&d->retired, b, next);
    }
    blob_unref(b);
    while (d->retired_bytes > RETIRED_MAX && d->give_up &&
           (oldest = TAILQ_FIRST(&d->retired)) != TAILQ_LAST(&d->retired, blobs)) {
        forget_retired(oldest);
        d->give_up(oldest, d->give_up_arg);
    }
}

void documents_free(struct documents *d)
{
    struct blob *b;
    if (!d)
        return;
    while ((b = TAILQ_FIRST(&d->retired)))
        forget_retired(b);
    for (size_t i = 0; i < d->count; i++)
        blob_unref(d->list[i].body);
    blob_unref(d->crl_answer);
    free(d);
}

static struct document *find(struct documents *d, const char *path)
{
    for (size_t i = 0; i < d->count; i++)
        if (strcmp(d->list[i].path, path) == 0)
            return &d->list[i];
    return NULL;
}

const struct document *documents_find(const struct documents *d, const char *path)
{
    return find((struct documents *)d, path);
}

static void describe(struct document *doc, const struct msg_document *m)
{
    char hex[33];
    /* half of the SHA-256 tells two documents apart as well as all of it */
    hex_encode(hex, (struct bytes){m->digest.data, 16});
    snprintf(doc->path, sizeof doc->path, "%s", m->path);
    snprintf(doc->content_type, sizeof doc->content_type, "%s", m->content_type);
    snprintf(doc->etag, sizeof doc->etag, "\"%s\"", hex);
    doc->modified = m->modified;
    doc->expires = m->expires;
}

static int is_header_value(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return 0;
    return 1;
}

static int store(struct documents *d, const struct msg_document *m, struct blob *body,
                 struct err *err)
{
    struct document *doc = find(d, m->path);
    if (!doc) {
        if (d->count == DOCUMENTS_MAX)
            return err_set(err, ERR_internal, "more than %d documents", DOCUMENTS_MAX);
        doc = &d->list[d->count++];
    }
    struct blob *older = doc->body, *older_answer = NULL;
    doc->body = body;
    doc->date_tells = !older || doc->modified != m->modified;
    describe(doc, m);
    if (strcmp(doc->path, "/crl") == 0) {
        older_answer = d->crl_answer;
        d->crl_answer = NULL;
    }
    retire(d, older);
    retire(d, older_answer);
    return 0;
}

int documents_put(struct documents *d, const struct msg_document *m, int fd, struct err *err)
{
    struct blob *body = NULL;
    int rc = -1;
    if (m->path[0] != '/' || m->digest.len != 32 || !is_header_value(m->content_type))
        err_set(err, ERR_internal, "a document with bad fields");
    else if (fd < 0 || !(body = blob_map(fd)))
        err_set(err, ERR_internal, "the document %s cannot be mapped", m->path);
    else
        rc = store(d, m, body, err);
    if (rc)
        blob_unref(body);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* {"status":"OK","operation":"get_crl","crl":"<base64 of the PEM>"} and a newline. Put together by
 * hand: cJSON would copy its megabytes three times. */
static struct blob *make_crl_answer(struct bytes der)
{
    static const char head[] = "{\"status\":\"OK\",\"operation\":\"get_crl\",\"crl\":\"";
    struct blob *answer = NULL;
    char *pem = NULL, *base64 = NULL, *text = NULL;
    BIO *out = BIO_new(BIO_s_mem());
    if (!out || PEM_write_bio(out, PEM_STRING_X509_CRL, "", der.data, (long)der.len) <= 0)
        goto out;
    long pem_len = BIO_get_mem_data(out, &pem);
    base64 = base64_encode((struct bytes){(const uint8_t *)pem, (size_t)pem_len});
    int len = base64 ? asprintf(&text, "%s%s\"}\n", head, base64) : -1;
    if (len > 0)
        answer = blob_take(text, (size_t)len);
out:
    free(base64);
    BIO_free(out);
    return answer;
}

struct blob *documents_crl_answer(struct documents *d, struct err *err)
{
    const struct document *crl = find(d, "/crl");
    if (!crl) {
        err_set(err, ERR_busy, "no CRL has been published yet; try again shortly");
        return NULL;
    }
    struct bytes der = blob_view(crl->body);
    if (der.len > CRL_ANSWER_MAX) {
        err_set(err, ERR_crl_too_large, NULL);
        return NULL;
    }
    if (!d->crl_answer && !(d->crl_answer = make_crl_answer(der)))
        err_set(err, ERR_internal, "out of memory");
    return d->crl_answer;
}

/* If-None-Match: "*" or a list of entity tags, compared weakly (RFC 9110 section 13.1.2). */
static int etag_listed(const char *list, const char *etag)
{
    size_t len = strlen(etag);
    for (const char *p = list; *p;) {
        p += strspn(p, " \t,");
        size_t n = strcspn(p, ",");
        const char *next = p + n;
        while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t'))
            n--;
        if (n == 1 && *p == '*')
            return 1;
        if (n > 2 && p[0] == 'W' && p[1] == '/')
            p += 2, n -= 2;
        if (n == len && memcmp(p, etag, len) == 0)
            return 1;
        p = next;
    }
    return 0;
}

int document_not_modified(const struct document *doc, const char *if_none_match,
                          const char *if_modified_since)
{
    struct tm tm = {0};
    if (if_none_match)
        return etag_listed(if_none_match, doc->etag);
    if (!if_modified_since || !doc->date_tells)
        return 0;
    const char *end = strptime(if_modified_since, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    return end && !*end && doc->modified == (int64_t)timegm(&tm);
}

int64_t document_max_age(const struct document *doc, int64_t now)
{
    if (doc->expires == 0)
        return 24 * 3600;
    if (now < doc->modified) /* the clock is behind */
        now = doc->modified;
    return doc->expires > now ? doc->expires - now : 0;
}

void http_date(char out[32], int64_t when)
{
    time_t t = (time_t)when;
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    /* no setlocale() is called, so the names are English as they must be */
    if (!strftime(out, 32, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        out[0] = 0;
}
