#include "client/device_image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client/certs.h"
#include "client/device_dir.h"
#include "client/device_mark.h"
#include "client/keys.h"
#include "client/settings.h"

/* ---- the folder ---- */

static int load_key(struct credentials *c, const char *path, struct failure *f)
{
    char *folder = path_folder(path);
    int on_board = folder && !device_has(folder, DEVICE_KEY) && device_has(folder, DEVICE_MARK);
    free(folder);
    if (on_board)
        return fail(f, EXIT_LOCAL, "key_on_board",
                    "%s is not there: the key is on its board alone since it was flashed, so no "
                    "image can be made of it",
                    path);
    return key_load(&c->key, path, f);
}

static int load_cert(struct credentials *c, const char *path, struct failure *f)
{
    return cert_load(&c->cert, path, f);
}

static int load_chain(struct credentials *c, const char *path, struct failure *f)
{
    return certs_load(&c->chain, path, f);
}

static int load_ca(struct credentials *c, const char *path, struct failure *f)
{
    return root_load(&c->ca, path, f);
}

int device_credentials_load(struct credentials *out, const char *folder, struct failure *f)
{
    static const struct {
        const char *name;
        int (*load)(struct credentials *c, const char *path, struct failure *f);
    } files[] = {{DEVICE_KEY, load_key},
                 {DEVICE_CERT, load_cert},
                 {DEVICE_CHAIN, load_chain},
                 {DEVICE_CA, load_ca}};
    *out = (struct credentials){0};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = path_join(folder, files[i].name);
        int rc = path ? files[i].load(out, path, f) : fail_memory(f);
        free(path);
        if (rc)
            return -1;
    }
    return 0;
}

void device_credentials_free(struct credentials *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    certs_free(c->chain);
    X509_free(c->ca);
    *c = (struct credentials){0};
}

/* ---- the options ---- */

int flash_number(size_t *out, const char *text, const char *option, struct failure *f)
{
    char *end = NULL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    unsigned shift = strcmp(end, "K") == 0 ? 10 : strcmp(end, "M") == 0 ? 20 : 0;
    if (*text >= '0' && *text <= '9' && errno == 0 && end != text && (!*end || shift) &&
        n <= UINT32_MAX >> shift) {
        *out = (size_t)n << shift;
        return 0;
    }
    return fail(f, EXIT_USAGE, "usage",
                "%s \"%s\" is no number of bytes such as 0x6000, 24576, 24K or 1M", option, text);
}

static int take_format(struct image_options *out, const struct options *o, struct failure *f)
{
    if (o->format && strcmp(o->format, "nvs") == 0)
        out->format = IMAGE_NVS;
    else if (o->format && strcmp(o->format, "secure-cert") == 0)
        out->format = IMAGE_SECURE_CERT;
    else
        return fail(f, EXIT_USAGE, "usage", "--format \"%s\" is not one of nvs, secure-cert",
                    o->format ? o->format : "");
    return 0;
}

int encoding_take(enum encoding *out, const struct options *o, struct failure *f)
{
    *out = o->encoding && strcmp(o->encoding, "der") == 0 ? ENCODING_DER : ENCODING_PEM;
    if (!o->encoding || *out == ENCODING_DER || strcmp(o->encoding, "pem") == 0)
        return 0;
    return fail(f, EXIT_USAGE, "usage", "--encoding \"%s\" is not pem or der", o->encoding);
}

int image_options_take(struct image_options *out, const struct options *o, struct failure *f)
{
    *out = (struct image_options){
        .names = {o->space, o->key_name, o->cert_name, o->chain_name, o->ca_name}};
    if (take_format(out, o, f) || encoding_take(&out->encoding, o, f))
        return -1;
    if (out->format != IMAGE_NVS &&
        (o->space || o->key_name || o->cert_name || o->chain_name || o->ca_name))
        return fail(f, EXIT_USAGE, "usage", "only nvs has a namespace and names");
    return o->size ? flash_number(&out->size, o->size, "--size", f) : 0;
}

int fail_image(struct failure *f, const struct err *err)
{
    return fail_err(f, err->code == ERR_field_value ? EXIT_USAGE : EXIT_LOCAL, err);
}
