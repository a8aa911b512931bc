#include "server/authority/listener.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/file.h"
#include "common/log.h"
#include "pki/certificate.h"
#include "server/authority/clock.h"
#include "server/authority/fronts.h"
#include "server/authority/issue.h"
#include "server/authority/signers.h"

#define LIFE (7 * 86400)
#define FILE_MAX (64 * 1024)

struct listener {
    struct authority *a;
    struct buf certificate, key; /* PEM, in use */
    struct buf new_key;          /* of the request under way */
    int64_t not_before, not_after;
    int64_t not_again_before; /* in seconds of a clock that nobody sets */
    int busy;
    int unsaved; /* in use, but not on disk */
    struct event *timer;
    char problem[512];
};

static int64_t monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec;
}

static void wipe(struct buf *b)
{
    if (b->data)
        OPENSSL_cleanse(b->data, b->cap);
    buf_free(b);
}

static void path_of(char out[PATH_MAX], const struct listener *l, const char *name)
{
    snprintf(out, PATH_MAX, "%s/%s", l->a->config->state, name);
}

/* ---- what is there ---- */

static int covers_names(X509 *x, char *const *names)
{
    for (; *names; names++) {
        const char *value = strchr(*names, ':') + 1;
        int ok = strncmp(*names, "IP:", 3) == 0 ? X509_check_ip_asc(x, value, 0)
                                                : X509_check_host(x, value, 0, 0, NULL);
        if (ok != 1)
            return 0;
    }
    return 1;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    int days = 0, seconds = 0;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int ok = epoch && ASN1_TIME_diff(&days, &seconds, epoch, t);
    ASN1_TIME_free(epoch);
    return ok ? (int64_t)days * 86400 + seconds : 0;
}

/* Ours (this issuer, this key, these names); sets the times. */
static int matches(struct listener *l, struct bytes certificate, struct bytes key)
{
    BIO *c = BIO_new_mem_buf(certificate.data, (int)certificate.len);
    BIO *k = BIO_new_mem_buf(key.data, (int)key.len);
    X509 *x = c ? PEM_read_bio_X509(c, NULL, NULL, NULL) : NULL;
    EVP_PKEY *pkey = k ? PEM_read_bio_PrivateKey(k, NULL, NULL, NULL) : NULL;
    EVP_PKEY *ca = X509_get0_pubkey(issuer_certificate(l->a->issuer));
    int ok = x && pkey && X509_check_private_key(x, pkey) == 1 && X509_verify(x, ca) == 1 &&
             covers_names(x, l->a->config->names);
    if (ok) {
        l->not_before = seconds_of(X509_get0_notBefore(x));
        l->not_after = seconds_of(X509_get0_notAfter(x));
    }
    ERR_clear_error();
    X509_free(x);
    EVP_PKEY_free(pkey);
    BIO_free(c);
    BIO_free(k);
    return ok;
}

/* 0, or why the files are of no use; a key that others could read is one that others may have. */
static const char *read_files(struct listener *l, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    path_of(path, l, "listener.pem");
    if (file_read(&l->certificate, path, FILE_MAX, err))
        return err->text;
    path_of(path, l, "listener-key.pem");
    if (file_read(&l->key, path, FILE_MAX, err))
        return err->text;
    if (stat(path, &st) || st.st_mode & 077)
        return "others can read listener-key.pem";
    if (!matches(l, buf_view(&l->certificate), buf_view(&l->key)))
        return "listener.pem and listener-key.pem are not of this CA, each other and [server] "
               "names";
    return l->not_after > clock_now(l->a->clock) ? NULL : "it has expired";
}

static void load(struct listener *l)
{
    static const char *const names[] = {"listener-key.pem", "listener.pem", NULL};
    struct err err;
    file_sweep(l->a->config->state, names);
    const char *why = read_files(l, &err);
    if (!why)
        return;
    if (l->a->counts.issued) /* not the very first start */
        log_warn("the listener's certificate: %s; a new one is made", why);
    buf_free(&l->certificate);
    wipe(&l->key);
}

/* ---- a new one ---- */

static int key_pem(EVP_PKEY *pkey, struct buf *out)
{
    BIO *b = BIO_new(BIO_s_secmem());
    char *data = NULL;
    int rc = -1;
    if (b && PEM_write_bio_PKCS8PrivateKey(b, pkey, NULL, NULL, 0, NULL, NULL)) {
        long n = BIO_get_mem_data(b, &data);
        rc = n > 0 ? buf_add(out, data, (size_t)n) : -1;
    }
    BIO_free(b);
    return rc;
}

static int add_chain(struct buf *out, const struct listener *l, struct bytes der)
{
    char *pem = certificate_pem(der), *own = certificate_pem(issuer_certificate_der(l->a->issuer));
    int rc = pem && own ? buf_add(out, pem, strlen(pem)) || buf_add(out, own, strlen(own)) : 1;
    free(pem);
    free(own);
    return rc ? -1 : 0;
}

/* Key first, then certificate: after a crash between them the two do not match, and load() has
 * them made anew. What cannot be written is in use all the same: TLS needs no disk. */
static void save(struct listener *l)
{
    char path[PATH_MAX];
    struct err err;
    path_of(path, l, "listener-key.pem");
    int rc = file_write(path, buf_view(&l->key), 0600, 1, &err);
    path_of(path, l, "listener.pem");
    rc = rc ? rc : file_write(path, buf_view(&l->certificate), 0644, 1, &err);
    if (rc && !l->problem[0])
        log_error("the listener's certificate is in use, but not saved: %s; it is tried again",
                  err.text);
    if (rc)
        snprintf(l->problem, sizeof l->problem, "the listener's certificate is not saved: %s",
                 err.text);
    else
        l->problem[0] = '\0';
    l->unsaved = rc != 0;
    l->not_again_before = monotonic_seconds() + 5;
}

static void on_issued(void *arg, struct bytes serial, struct bytes der, const struct err *why)
{
    (void)serial;
    struct listener *l = arg;
    struct buf pem = {0};
    struct err err = *why;
    l->busy = 0;
    int rc = why->code ? -1 : 0;
    if (rc == 0 && add_chain(&pem, l, der))
        rc = err_set(&err, ERR_internal, "no memory");
    if (rc == 0 && !matches(l, buf_view(&pem), buf_view(&l->new_key)))
        rc = err_set(&err, ERR_internal, "the new certificate does not match its key or names");
    if (rc) {
        log_error("the listener's certificate: %s; it is tried again", err.text);
        buf_free(&pem);
        wipe(&l->new_key);
        return;
    }
    buf_free(&l->certificate);
    wipe(&l->key);
    l->certificate = pem;
    l->key = l->new_key;
    l->new_key = (struct buf){0};
    save(l);
    fronts_send_listener(l->a->fronts);
}

static int spki_of(EVP_PKEY *pkey, struct buf *out)
{
    unsigned char *der = NULL;
    int n = i2d_PUBKEY(pkey, &der), rc = n > 0 ? buf_add(out, der, (size_t)n) : -1;
    OPENSSL_free(der);
    return rc;
}

static void ask(struct listener *l)
{
    struct buf spki = {0};
    const char *name = strchr(l->a->config->names[0], ':') + 1;
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    l->not_again_before = monotonic_seconds() + 5;
    if (!pkey || key_pem(pkey, &l->new_key) || spki_of(pkey, &spki)) {
        log_error("the listener's key cannot be made: %s", err_openssl());
        wipe(&l->new_key);
        goto out;
    }
    struct issue_request req = {
        .origin = ISSUE_FOR_LISTENER,
        .operation = "listener",
        .profile = "server",
        .name = name,
        .spki = buf_view(&spki),
        .sans = (const char *const *)l->a->config->names,
        .lifetime = LIFE,
    };
    l->busy = 1;
    issue(l->a, &req, on_issued, l);
out:
    buf_free(&spki);
    EVP_PKEY_free(pkey);
}

static void on_timer(evutil_socket_t socket, short what, void *arg)
{
    (void)socket, (void)what;
    struct listener *l = arg;
    int64_t now = now_seconds(), half = l->not_before + (l->not_after - l->not_before) / 2;
    if (l->unsaved && l->certificate.len && monotonic_seconds() >= l->not_again_before)
        save(l);
    if (clock_problem(l->a->clock))
        return;
    if (l->certificate.len && now >= l->not_after) {
        log_error("the listener's certificate has expired; no new one could be made");
        buf_free(&l->certificate);
    }
    if (l->busy || l->a->stopping || (l->certificate.len && now >= l->not_before && now < half) ||
        monotonic_seconds() < l->not_again_before || signers_usable(l->a->signers, NULL))
        return;
    ask(l);
}

struct listener *listener_new(struct authority *a)
{
    struct listener *l = calloc(1, sizeof *l);
    if (!l || !(l->timer = evtimer_new(a->base, on_timer, l)))
        fatal("no memory");
    l->a = a;
    load(l);
    return l;
}

void listener_look(struct listener *l)
{
    event_active(l->timer, EV_TIMEOUT, 0);
}

const char *listener_problem(const struct listener *l)
{
    return l->problem[0] ? l->problem : NULL;
}

struct bytes listener_certificate(const struct listener *l)
{
    return buf_view(&l->certificate);
}

int64_t listener_not_after(const struct listener *l)
{
    return l->certificate.len ? l->not_after : 0;
}

void listener_check_names(struct listener *l)
{
    if (!matches(l, buf_view(&l->certificate), buf_view(&l->key)))
        l->not_before = l->not_after - 2 * LIFE; /* past half of its life: due */
    listener_look(l);
}

struct bytes listener_key(const struct listener *l)
{
    return buf_view(&l->key);
}

void listener_free(struct listener *l)
{
    if (!l)
        return;
    event_free(l->timer);
    buf_free(&l->certificate);
    wipe(&l->key);
    wipe(&l->new_key);
    free(l);
}
