/* Sessions, PINs, keys and files, as the ceremony's commands use them. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/file.h"
#include "hsm/ceremony/ceremony.h"
#include "pki/certificate.h"
#include "pki/key.h"

#define PEM_SIZE_MAX (64 * 1024)

int ceremony_pin(struct secret **out, const char *file, const char *whose, struct err *err)
{
    char prompt[128];
    if (file)
        return secret_from_file(out, file, err);
    snprintf(prompt, sizeof prompt, "%s: ", whose);
    return secret_from_prompt(out, prompt, err);
}

int ceremony_session(struct p11 *p, const struct options *o, int write, int login, struct err *err)
{
    struct secret *pin = NULL;
    *p = (struct p11){0};
    if (login && ceremony_pin(&pin, o->pin_file, "PIN of the token", err))
        return -1;
    enum token_fault fault = p11_load(p, o->module, o->init_args, err);
    if (!fault)
        fault = p11_find_token(p, o->token, err);
    if (!fault)
        fault = p11_session(p, write, err);
    if (!fault && login)
        fault = p11_login(p, CKU_USER, pin, err);
    secret_free(pin);
    return fault ? -1 : 0;
}

static struct bytes spki_der(EVP_PKEY *key, unsigned char **der)
{
    *der = NULL;
    int len = i2d_PUBKEY(key, der);
    return (struct bytes){*der, len > 0 ? (size_t)len : 0};
}

int spki_hash(char out[65], EVP_PKEY *key)
{
    unsigned char *der;
    uint8_t hash[32];
    struct bytes spki = spki_der(key, &der);
    if (spki.len) {
        sha256(hash, spki);
        hex_encode(out, (struct bytes){hash, sizeof hash});
    }
    OPENSSL_free(der);
    return spki.len ? 0 : -1;
}

int signing_open(struct signing *s, const struct options *o, struct bytes ca_spki, struct err *err)
{
    struct token_config config = {.module = o->module,
                                  .init_args = o->init_args,
                                  .label = o->token,
                                  .ca = {o->key_label, o->key_id, o->custody_exception}};
    struct secret *pin = NULL;
    unsigned char *der = NULL;
    int rc = -1;
    *s = (struct signing){0};
    if (!o->key_label && !o->key_id.len)
        return err_set(err, ERR_field_missing, "name the key: --key-label or --key-id");
    if (ceremony_pin(&pin, o->pin_file, "PIN of the token", err))
        return -1;
    if (token_open(&s->token, &config, pin, ca_spki, err))
        goto out;
    s->private = token_private_key(s->token);
    struct bytes spki = spki_der(s->private, &der);
    s->public = key_from_spki(spki);
    s->md = s->public && EVP_PKEY_get_bits(s->public) == 384 ? EVP_sha384() : EVP_sha256();
    if (!s->public)
        err_set(err, ERR_internal, "the public key is not readable: %s", err_openssl());
    else
        rc = 0;
out:
    OPENSSL_free(der);
    secret_free(pin);
    return rc;
}

void signing_close(struct signing *s)
{
    EVP_PKEY_free(s->public);
    token_close(s->token);
}

int open_root(struct signing *s, struct issuer **root, const struct options *o, struct err *err)
{
    struct buf pem;
    if (file_read(&pem, o->root_certificate, 64 * 1024, err))
        return -1;
    int rc = issuer_from_pem(root, buf_view(&pem), err);
    if (rc)
        err_prefix(err, "%s", o->root_certificate);
    buf_free(&pem);
    return rc ? rc : signing_open(s, o, issuer_spki(*root), err);
}

X509 *read_certificate(const char *path, struct err *err)
{
    struct buf pem;
    if (file_read(&pem, path, PEM_SIZE_MAX, err))
        return NULL;
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    BIO_free(in);
    buf_free(&pem);
    if (!x)
        err_set(err, ERR_internal, "%s: not a certificate in PEM: %s", path, err_openssl());
    return x;
}

int write_certificate(const char *path, const X509 *x, struct err *err)
{
    unsigned char *der = NULL;
    int len = i2d_X509(x, &der), rc = -1;
    char *pem = len > 0 ? certificate_pem((struct bytes){der, (size_t)len}) : NULL;
    if (pem)
        rc = file_write(path, (struct bytes){(uint8_t *)pem, strlen(pem)}, 0644, 0, err);
    else
        err_set(err, ERR_internal, "%s: cannot encode it: %s", path, err_openssl());
    free(pem);
    OPENSSL_free(der);
    return rc;
}

int refuse_existing(const char *path, struct err *err)
{
    if (access(path, F_OK) == 0)
        return err_set(err, ERR_already_exists, "%s exists already; it is not overwritten", path);
    return errno == ENOENT
               ? 0
               : err_set(err, ERR_internal, "cannot look at %s: %s", path, strerror(errno));
}

/* Cuts one attribute off the text, in place; a backslash takes the next character as it is. */
static char *cut_attribute(char **text)
{
    char *from = *text + strspn(*text, " "), *start = from, *to = from;
    while (*from && *from != ',') {
        if (*from == '\\' && from[1])
            from++;
        *to++ = *from++;
    }
    *text = *from ? from + 1 : from;
    while (to > start && to[-1] == ' ')
        to--;
    *to = '\0';
    return start;
}

X509_NAME *name_parse(const char *text, struct err *err)
{
    char *copy = strdup(text), *rest = copy;
    X509_NAME *name = X509_NAME_new();
    int ok = copy && name && *text;
    while (ok && *rest) {
        char *type = cut_attribute(&rest), *value = strchr(type, '=');
        if (value)
            *value++ = '\0';
        ok = value && *value &&
             X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8, (unsigned char *)value, -1, -1,
                                        0) == 1;
    }
    free(copy);
    if (ok && X509_NAME_get_index_by_NID(name, NID_commonName, -1) >= 0)
        return name;
    X509_NAME_free(name);
    ERR_clear_error();
    err_set(err, ERR_field_value, "the subject \"%s\" is not like \"CN=Name, O=Maker, C=DE\"",
            text);
    return NULL;
}

char *subject_text(const X509_NAME *name)
{
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL, *data;
    if (out && X509_NAME_print_ex(out, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        long len = BIO_get_mem_data(out, &data);
        text = OPENSSL_strndup(data, len > 0 ? (size_t)len : 0);
    }
    BIO_free(out);
    return text;
}

void time_text(char out[32], int64_t t)
{
    struct tm tm;
    time_t at = (time_t)t;
    gmtime_r(&at, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}
