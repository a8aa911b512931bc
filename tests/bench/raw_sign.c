#include "raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* DigestInfo of SHA-256 (RFC 8017 section 9.2). */
static const uint8_t sha256_info[] = {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20};

void raw_open(struct raw *r, const struct token_settings *s)
{
    struct err err;
    const struct config *c = s->config;
    *r = (struct raw){0};
    if (p11_load(&r->token, c->module, c->init_args, &err) ||
        p11_find_token(&r->token, c->token_label, &err) || p11_session(&r->token, 0, &err) ||
        p11_login(&r->token, CKU_USER, s->pin, &err) ||
        p11_find_key(&r->token, c->key_label, buf_view(&c->key_id), &r->key, &err)) {
        fprintf(stderr, "bench-raw: %s\n", err.text);
        _exit(1);
    }
    int is_rsa = issuer_alg(s->issuer) == SIGN_RSA_SHA256;
    r->how.mechanism = is_rsa ? CKM_RSA_PKCS : CKM_ECDSA;
    r->prefix = is_rsa ? (struct bytes){sha256_info, sizeof sha256_info} : (struct bytes){0};
}

void raw_sign(struct raw *r, unsigned n)
{
    uint8_t data[64] = {0}, signature[SIGNATURE_MAX];
    CK_ULONG len = sizeof signature;
    if (r->prefix.len)
        memcpy(data, r->prefix.data, r->prefix.len);
    memcpy(data + r->prefix.len, &n, sizeof n);
    CK_RV rv = r->token.f->C_SignInit(r->token.session, &r->how, r->key.handle);
    if (!rv)
        rv = r->token.f->C_Sign(r->token.session, data, r->prefix.len + 32, signature, &len);
    if (rv) {
        fprintf(stderr, "bench-raw: no signature: %s\n", p11_rv_name(rv));
        _exit(1);
    }
}
