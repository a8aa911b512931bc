#include "image/image.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/content.h"
#include "image/nvs.h"
#include "image/secure_cert.h"

/* ---- building ---- */

struct plan {
    struct credential_items items;
    struct image_value values[CREDENTIAL_ITEMS_MAX];
    const char *space;
};

static const char *or_default(const char *name, const char *otherwise)
{
    return name ? name : otherwise;
}

static int check_name(const char *name, const char *what, size_t max, struct err *err)
{
    size_t len = strlen(name);
    if (len == 0 || len > max)
        return err_set(err, ERR_field_value, "the %s \"%s\" has %zu characters, not 1 to %zu (NVS)",
                       what, name, len, max);
    for (const char *p = name; *p; p++)
        if (*p <= ' ' || *p > '~')
            return err_set(err, ERR_field_value,
                           "the %s has a character that is not printable ASCII", what);
    return 0;
}

/* The key name of an item; a number stands behind that of an intermediate. */
static int nvs_name(char out[24], const struct credential_item *item, const struct nvs_names *names,
                    struct err *err)
{
    static const char *const defaults[] = {"client_key", "client_cert", "client_chain", "ca_cert"};
    const char *const given[] = {names->key, names->cert, names->chain, names->ca};
    const char *name = or_default(given[item->what], defaults[item->what]);
    int is_chain = item->what == CREDENTIAL_CHAIN;
    size_t digits = !is_chain ? 0 : item->number < 10 ? 1 : 2;
    if (check_name(name, "key name", NVS_NAME_MAX - digits, err))
        return -1;
    if (is_chain)
        snprintf(out, 24, "%s%u", name, item->number);
    else
        snprintf(out, 24, "%s", name);
    return 0;
}

static int check_different(const struct plan *p, struct err *err)
{
    for (size_t i = 0; i < p->items.count; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(p->values[i].name, p->values[j].name) == 0)
                return err_set(err, ERR_field_value, "two items have the key name \"%s\"",
                               p->values[i].name);
    return 0;
}

static int plan_nvs(struct plan *p, const struct image_options *o, struct err *err)
{
    p->space = or_default(o->names.space, "signet");
    if (check_name(p->space, "namespace", NVS_NAME_MAX, err))
        return -1;
    for (size_t i = 0; i < p->items.count; i++) {
        struct image_value *v = &p->values[i];
        if (nvs_name(v->name, &p->items.item[i], &o->names, err))
            return -1;
        int is_string = o->encoding == ENCODING_PEM && v->data.len <= NVS_STRING_MAX;
        v->type = is_string ? NVS_STRING : NVS_BLOB_DATA;
    }
    return check_different(p, err);
}

static void plan_secure_cert(struct plan *p)
{
    static const struct {
        const char *name;
        uint8_t type;
    } kinds[] = {
        [CREDENTIAL_KEY] = {"the private key", SECURE_CERT_KEY},
        [CREDENTIAL_CERT] = {"the device certificate", SECURE_CERT_CERT},
        [CREDENTIAL_CHAIN] = {"an intermediate", SECURE_CERT_CERT},
        [CREDENTIAL_CA] = {"the CA certificate", SECURE_CERT_CA},
    };
    for (size_t i = 0; i < p->items.count; i++) {
        const struct credential_item *item = &p->items.item[i];
        struct image_value *v = &p->values[i];
        snprintf(v->name, sizeof v->name, "%s", kinds[item->what].name);
        v->type = kinds[item->what].type;
        v->subtype = (uint8_t)(item->what == CREDENTIAL_CHAIN ? item->number + 1 : 0);
    }
}

/* plan_free() also after a failure. */
static int plan_make(struct plan *p, const struct credentials *c, const struct image_options *o,
                     struct err *err)
{
    *p = (struct plan){0};
    if (credential_items_make(&p->items, c, o->encoding, err))
        return -1;
    for (size_t i = 0; i < p->items.count; i++)
        p->values[i].data = buf_view(&p->items.item[i].data);
    if (o->format == IMAGE_NVS)
        return plan_nvs(p, o, err);
    plan_secure_cert(p);
    return 0;
}

static void plan_free(struct plan *p)
{
    credential_items_free(&p->items);
}

static int check_options(const struct image_options *o, struct err *err)
{
    if (o->size % NVS_SECTOR || o->size == 0 || o->size > IMAGE_SIZE_MAX)
        return err_set(err, ERR_field_value,
                       "a partition of 0x%zx bytes: not a multiple of 0x%x up to 0x%x", o->size,
                       NVS_SECTOR, IMAGE_SIZE_MAX);
    if (o->format != IMAGE_NVS && o->nvs_keys)
        return err_set(
            err, ERR_field_value,
            "only nvs is encrypted by its own keys; esp_secure_cert by flash encryption");
    return 0;
}

int image_build(struct buf *out, const struct credentials *c, const struct image_options *o,
                struct err *err)
{
    struct plan p;
    if (check_options(o, err))
        return -1;
    int rc = plan_make(&p, c, o, err);
    if (rc == 0)
        rc = o->format == IMAGE_NVS
                 ? nvs_build(out, p.space, p.values, p.items.count, o->size, o->nvs_keys, err)
                 : secure_cert_build(out, p.values, p.items.count, o->size, err);
    plan_free(&p);
    if (rc)
        buf_wipe(out);
    return rc;
}

/* ---- reading ---- */

/* Also a page with one damaged byte in its header. */
static int is_nvs_page(const uint8_t *page)
{
    int version_known = page[8] == NVS_VERSION_1 || page[8] == NVS_VERSION_2;
    return nvs_header_crc(page) == get32(page + 28) ||
           ((get32(page) | 0xFF) == 0xFFFFFFFF && (version_known || is_blank(page + 9, 19)));
}

enum image_format image_recognize(struct bytes in)
{
    if (in.len >= 4 && get32(in.data) == SECURE_CERT_MAGIC)
        return IMAGE_SECURE_CERT;
    for (size_t at = 0; in.len - at >= NVS_FIRST; at += NVS_SECTOR) {
        if (!is_blank(in.data + at, NVS_FIRST) && is_nvs_page(in.data + at))
            return IMAGE_NVS;
        if (in.len - at < NVS_SECTOR)
            break;
    }
    return IMAGE_UNKNOWN;
}

int image_read(struct image *out, struct bytes in, const uint8_t *nvs_keys, struct err *err)
{
    *out = (struct image){.size = in.len};
    if (in.len > IMAGE_SIZE_MAX)
        return err_set(err, ERR_internal, "an image of %zu bytes is larger than 0x%x", in.len,
                       IMAGE_SIZE_MAX);
    switch (image_recognize(in)) {
    case IMAGE_NVS:
        return nvs_read(out, in, nvs_keys, err);
    case IMAGE_SECURE_CERT:
        return secure_cert_read(out, in, err);
    default:
        return err_set(err, ERR_internal,
                       in.len && is_blank(in.data, in.len)
                           ? "nothing is written there: all bytes are FF"
                           : "neither an NVS nor an esp_secure_cert partition: no page header, no "
                             "entry's magic");
    }
}

void image_free(struct image *image)
{
    for (size_t i = 0; i < image->count; i++)
        buf_wipe(&image->items[i].data);
    free(image->items);
    image->items = NULL;
    image->count = 0;
}

/* ---- the credentials in an image ---- */

static int push(STACK_OF(X509) * to, X509 *cert)
{
    if (!X509_up_ref(cert))
        return -1;
    if (sk_X509_push(to, cert) > 0)
        return 0;
    X509_free(cert);
    return -1;
}

static int take_certs(struct image_credentials *c, const struct content *content)
{
    for (int i = 0; i < sk_X509_num(content->certs); i++) {
        X509 *cert = sk_X509_value(content->certs, i);
        if (push(X509_self_signed(cert, 0) == 1 ? c->roots : c->chain, cert))
            return -1;
        c->certs++;
    }
    return 0;
}

static int take_content(struct image_credentials *c, struct content *content)
{
    if (content->kind == CONTENT_CERTS)
        return take_certs(c, content);
    if (content->kind != CONTENT_KEY)
        return 0;
    if (c->keys++ == 0) {
        c->key = content->key;
        content->key = NULL;
    }
    return 0;
}

/* By the key; without one, by being no CA. */
static int is_leaf(X509 *cert, const EVP_PKEY *key)
{
    return key ? EVP_PKEY_eq(X509_get0_pubkey(cert), key) == 1 : X509_check_ca(cert) == 0;
}

/* The leaf out of the others; a self-signed one that the key fits is one too. */
static void choose_leaf(struct image_credentials *c)
{
    STACK_OF(X509) *const from[] = {c->chain, c->roots};
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < sk_X509_num(from[s]) && !c->cert; i++)
            if (is_leaf(sk_X509_value(from[s], i), c->key))
                c->cert = sk_X509_delete(from[s], i);
    if (!c->cert && sk_X509_num(c->chain) > 0 && c->key)
        c->cert = sk_X509_shift(c->chain); /* of another key: shown as what it should be */
}

int image_credentials(struct image_credentials *out, const struct image *image, struct err *err)
{
    *out = (struct image_credentials){.chain = sk_X509_new_null(), .roots = sk_X509_new_null()};
    int rc = out->chain && out->roots ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < image->count; i++) {
        struct content content;
        content_parse(&content, buf_view(&image->items[i].data));
        rc = take_content(out, &content);
        content_free(&content);
    }
    if (rc)
        return err_set(err, ERR_internal, "out of memory");
    choose_leaf(out);
    return 0;
}

void image_credentials_free(struct image_credentials *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    sk_X509_pop_free(c->chain, X509_free);
    sk_X509_pop_free(c->roots, X509_free);
    *c = (struct image_credentials){0};
}

/* ---- a flash read back ---- */

static const struct image_item *find_item(const struct image *image, const struct plan *p,
                                          const struct image_value *v)
{
    for (size_t i = 0; i < image->count; i++) {
        const struct image_item *item = &image->items[i];
        if (item->type == v->type &&
            (p->space ? strcmp(item->space, p->space) == 0 && strcmp(item->name, v->name) == 0
                      : item->subtype == v->subtype))
            return item;
    }
    return NULL;
}

static int compare(const struct image *image, const struct plan *p, struct err *err)
{
    if (image->problem_count)
        return err_set(err, ERR_internal, "%s", image->problems[0].text);
    if ((p->space != NULL) != (image->format == IMAGE_NVS))
        return err_set(err, ERR_internal, "the image is of another format");
    for (size_t i = 0; i < p->items.count; i++) {
        const struct image_value *v = &p->values[i];
        const struct image_item *item = find_item(image, p, v);
        if (!item)
            return err_set(err, ERR_internal, "%s is not there", v->name);
        if (!bytes_equal(buf_view(&item->data), v->data))
            return err_set(err, ERR_internal, "%s (at 0x%zx) is another", v->name, item->offset);
    }
    return 0;
}

int image_verify(struct bytes in, const struct credentials *c, const struct image_options *o,
                 struct err *err)
{
    struct image image = {0};
    struct plan p;
    int rc = plan_make(&p, c, o, err);
    if (rc == 0)
        rc = image_read(&image, in, o->nvs_keys, err);
    if (rc == 0)
        rc = compare(&image, &p, err);
    image_free(&image);
    plan_free(&p);
    return rc;
}
