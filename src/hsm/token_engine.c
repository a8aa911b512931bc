/* The token through libp11's OpenSSL engine: the one file of Signet that knows ENGINE.
 *
 * Everything that can go wrong with a module is tried first by raw PKCS#11 (pkcs11.c), whose
 * session stays open: libp11 0.4.12 waits for ever when no session can be had, and tries a wrong
 * PIN again. The engine then finds the module initialized and the token logged in.
 *
 * The engine never becomes a default (ENGINE_set_default): a TPM's module would call itself.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* ENGINE is deprecated since OpenSSL 3.0 */

#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/ui.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hsm/pkcs11.h"
#include "pki/key.h"

/* The name under which libp11 registers the CKR codes; the number depends on what else registered
 * before it (130 or 131 were seen). */
#define CKR_LIBRARY "PKCS#11 module"

struct token {
    struct p11 p11;
    struct p11_key names;
    unsigned custody;
    ENGINE *engine;
    EVP_PKEY *key;
    struct key_info kind;
    unsigned device_errors; /* in a row */
};

/* Empties the error queue. The CKR code in it, or CKR_OK when it holds none: later versions of the
 * engine leave the queue empty. */
static CK_RV take_reason(void)
{
    CK_RV rv = CKR_OK;
    unsigned long e;
    while ((e = ERR_get_error())) {
        const char *library = ERR_lib_error_string(e);
        if (library && strcmp(library, CKR_LIBRARY) == 0 && rv == CKR_OK)
            rv = (CK_RV)ERR_GET_REASON(e);
    }
    return rv;
}

static enum token_fault engine_fault(const char *doing, struct err *err)
{
    CK_RV rv = take_reason();
    enum token_fault fault = rv == CKR_OK ? TOKEN_LOST : p11_fault(rv);
    return FAULT(fault, err, "the token fails to %s (%s)", doing,
                 rv == CKR_OK ? "no reason given" : p11_rv_name(rv));
}

/* While opening, one failure is enough to begin anew. */
static enum token_fault opening(enum token_fault fault)
{
    return fault == TOKEN_TRANSIENT ? TOKEN_LOST : fault;
}

static int refuse_prompt(UI *ui)
{
    (void)ui;
    return 0;
}

/* The engine must never ask on a terminal. */
static UI_METHOD *no_prompt(void)
{
    UI_METHOD *m = UI_create_method("signet: no prompt");
    if (m && UI_method_set_opener(m, refuse_prompt) == 0)
        return m;
    UI_destroy_method(m);
    return NULL;
}

static int command(ENGINE *e, const char *name, const char *value)
{
    return ENGINE_ctrl_cmd_string(e, name, value, 0) == 1 ? 0 : -1;
}

/* "pkcs11:token=…;object=…;id=…", every byte percent-encoded (RFC 7512): nothing in a label can
 * end its attribute. No PIN: an error of libp11 prints the URI. */
static int add_encoded(struct buf *uri, const char *name, struct bytes value)
{
    char piece[4];
    if (!value.len)
        return 0;
    if (buf_add(uri, name, strlen(name)))
        return -1;
    for (size_t i = 0; i < value.len; i++) {
        snprintf(piece, sizeof piece, "%%%02x", value.data[i]);
        if (buf_add(uri, piece, 3))
            return -1;
    }
    return 0;
}

static struct bytes text_view(const char *text)
{
    return (struct bytes){(const uint8_t *)text, strlen(text)};
}

static int make_uri(struct buf *uri, const char *label, const struct p11_key *key)
{
    if (add_encoded(uri, "pkcs11:token=", text_view(label)) ||
        add_encoded(uri, ";object=", text_view(key->label)) ||
        add_encoded(uri, ";id=", (struct bytes){key->id, key->id_len}) || buf_add(uri, "", 1))
        return -1;
    return 0;
}

static int engine_start(struct token *t, const struct token_config *config,
                        const struct secret *pin)
{
    /* no openssl.cnf: what it names would be loaded into this process */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_ENGINE_DYNAMIC, NULL) != 1 ||
        !(t->engine = ENGINE_by_id("pkcs11")))
        return -1;
    ENGINE *e = t->engine;
    if (command(e, "QUIET", NULL) || command(e, "MODULE_PATH", config->module) ||
        (config->init_args && command(e, "INIT_ARGS", config->init_args)) ||
        command(e, "PIN", secret_bytes(pin, NULL)) || ENGINE_init(e) != 1)
        return -1;
    return 0;
}

static enum token_fault engine_load(struct token *t, const struct token_config *config,
                                    const struct secret *pin, struct err *err)
{
    struct buf uri = {0};
    UI_METHOD *ui = no_prompt();
    enum token_fault fault = TOKEN_OK;
    ERR_clear_error();
    if (!ui || make_uri(&uri, config->label, &t->names))
        fault = FAULT(TOKEN_LOST, err, "no memory");
    else if (engine_start(t, config, pin))
        fault = FAULT(TOKEN_MODULE, err,
                      "OpenSSL's pkcs11 engine does not start: %s; install "
                      "libengine-pkcs11-openssl",
                      err_openssl());
    else if (!(t->key = ENGINE_load_private_key(t->engine, (const char *)uri.data, ui, NULL)))
        fault = opening(engine_fault("give its key to the engine; its public half must be in the "
                                     "token beside it, with the same label and id",
                                     err));
    if (t->engine && command(t->engine, "PIN", "")) /* the engine wipes the copy that it had */
        ERR_clear_error();
    UI_destroy_method(ui);
    buf_free(&uri);
    return fault;
}

/* The public half as the engine has it, and whether it is a kind that Signet uses. */
static enum token_fault check_kind(struct token *t, struct buf *spki, struct err *err)
{
    static const struct key_policy any = {.rsa_min = 2048, .rsa_max = 4096, .p256 = 1, .p384 = 1};
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(t->key, &der);
    if (len <= 0 || buf_add(spki, der, (size_t)len)) {
        OPENSSL_free(der);
        ERR_clear_error();
        return FAULT(TOKEN_KEY_MISSING, err, "the key's public half cannot be read from the token");
    }
    OPENSSL_free(der);
    struct err why;
    if (key_check(buf_view(spki), &any, &t->kind, &why) == 0)
        return TOKEN_OK;
    ERR_clear_error();
    return FAULT(TOKEN_KEY_MISMATCH, err,
                 "the key in the token cannot be a CA's: %s; it must be RSA 2048 to 4096, P-256 "
                 "or P-384",
                 why.text);
}

static enum sign_alg own_alg(const struct token *t)
{
    return t->kind.kind == KEY_RSA    ? SIGN_RSA_SHA256
           : t->kind.kind == KEY_P256 ? SIGN_ECDSA_SHA256
                                      : SIGN_ECDSA_SHA384;
}

static int key_takes(const struct token *t, enum sign_alg alg)
{
    int rsa = t->kind.kind == KEY_RSA;
    return alg == SIGN_RSA_SHA256 ? rsa
                                  : !rsa && (alg == SIGN_ECDSA_SHA256 || alg == SIGN_ECDSA_SHA384);
}

static EVP_PKEY_CTX *context(EVP_PKEY *key, enum sign_alg alg, int verify)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    int ok = ctx && (verify ? EVP_PKEY_verify_init(ctx) : EVP_PKEY_sign_init(ctx)) == 1;
    if (ok && alg == SIGN_RSA_SHA256)
        ok = EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1;
    const EVP_MD *md = alg == SIGN_ECDSA_SHA384 ? EVP_sha384() : EVP_sha256();
    if (ok && EVP_PKEY_CTX_set_signature_md(ctx, md) == 1)
        return ctx;
    EVP_PKEY_CTX_free(ctx);
    return NULL;
}

static int verifies(struct bytes spki, enum sign_alg alg, struct bytes digest, struct bytes sig)
{
    EVP_PKEY *key = key_from_spki(spki);
    EVP_PKEY_CTX *ctx = key ? context(key, alg, 1) : NULL;
    int ok = ctx && EVP_PKEY_verify(ctx, sig.data, sig.len, digest.data, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return ok;
}

/* A key without CKA_ID can be paired with another key's public half, and a module can answer
 * rubbish: only a signature that verifies with the CA's key shows that this is its private half.
 * What is signed is no certificate: it begins with text, and holds random bytes. */
static enum token_fault prove(struct token *t, struct bytes spki, struct err *err)
{
    char trial[] = "Signet's trial signature, of no meaning: ................";
    uint8_t digest[DIGEST_MAX], sig[SIGNATURE_MAX];
    size_t sig_len;
    if (RAND_bytes((unsigned char *)trial + sizeof trial - 17, 16) != 1)
        return FAULT(TOKEN_LOST, err, "no random bytes: %s", err_openssl());
    enum sign_alg alg = own_alg(t);
    struct bytes d = {digest,
                      sign_digest(alg, (struct bytes){(uint8_t *)trial, sizeof trial}, digest)};
    enum token_fault fault = token_sign(t, alg, d, sig, &sig_len, err);
    if (fault)
        return opening(fault);
    if (!verifies(spki, alg, d, (struct bytes){sig, sig_len}))
        return FAULT(TOKEN_KEY_MISMATCH, err,
                     "the key \"%s\" in the token does not belong to the CA's certificate: a trial "
                     "signature does not verify with it",
                     t->names.label);
    return TOKEN_OK;
}

static enum token_fault raw_open(struct token *t, const struct token_config *c,
                                 const struct secret *pin, unsigned waiver, struct err *err)
{
    struct p11 *p = &t->p11;
    enum token_fault fault = p11_load(p, c->module, c->init_args, err);
    if (!fault)
        fault = p11_find_token(p, c->label, err);
    if (!fault)
        fault = p11_session(p, 0, err);
    if (!fault)
        fault = p11_login(p, CKU_USER, pin, err);
    if (!fault)
        fault = p11_find_key(p, c->key_label, c->key_id, &t->names, err);
    if (!fault)
        fault = p11_check_custody(p, &t->names, waiver, &t->custody, err);
    return fault;
}

enum token_fault token_open(struct token **out, const struct token_config *config,
                            const struct secret *pin, struct bytes ca_spki, unsigned waiver,
                            struct err *err)
{
    struct buf spki = {0};
    struct token *t = calloc(1, sizeof *t);
    if (!t)
        return FAULT(TOKEN_LOST, err, "no memory");
    enum token_fault fault = raw_open(t, config, pin, waiver, err);
    if (!fault)
        fault = engine_load(t, config, pin, err);
    if (!fault)
        fault = check_kind(t, &spki, err);
    if (!fault && config->trial_limit)
        alarm(config->trial_limit);
    if (!fault)
        fault = prove(t, ca_spki.len ? ca_spki : buf_view(&spki), err);
    buf_free(&spki);
    if (fault) {
        err_prefix(err, "module %s, token \"%s\"", config->module, config->label);
        token_close(t);
        return fault;
    }
    *out = t;
    return TOKEN_OK;
}

unsigned token_custody(const struct token *t)
{
    return t->custody;
}

const char *token_description(const struct token *t)
{
    return t->p11.description;
}

EVP_PKEY *token_private_key(const struct token *t)
{
    return t->key;
}

/* One DEVICE_ERROR heals by itself, a second does not. */
static enum token_fault count_fault(struct token *t, enum token_fault fault)
{
    t->device_errors = fault == TOKEN_TRANSIENT ? t->device_errors + 1 : 0;
    return t->device_errors > 1 ? TOKEN_LOST : fault;
}

enum token_fault token_sign(struct token *t, enum sign_alg alg, struct bytes digest, uint8_t *sig,
                            size_t *sig_len, struct err *err)
{
    if (!key_takes(t, alg) || digest.len != (alg == SIGN_ECDSA_SHA384 ? 48 : 32))
        return FAULT(TOKEN_KEY_MISMATCH, err,
                     "algorithm %d with a digest of %zu bytes is none for this key", (int)alg,
                     digest.len);
    ERR_clear_error();
    *sig_len = SIGNATURE_MAX;
    EVP_PKEY_CTX *ctx = context(t->key, alg, 0);
    int ok = ctx && EVP_PKEY_sign(ctx, sig, sig_len, digest.data, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    enum token_fault fault = ok ? TOKEN_OK : engine_fault("sign", err);
    ERR_clear_error();
    return count_fault(t, fault);
}

void token_close(struct token *t)
{
    if (!t)
        return;
    EVP_PKEY_free(t->key);
    if (t->engine) { /* it finalizes the module */
        p11_close(&t->p11);
        ENGINE_finish(t->engine);
        ENGINE_free(t->engine);
    } else {
        p11_end(&t->p11);
    }
    ERR_clear_error();
    free(t);
}
