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

/* One of the keys. */
struct held {
    struct p11_key names;
    unsigned custody;
    EVP_PKEY *key;
    struct buf spki; /* as the token's public half of it says */
    enum sign_alg alg;
};

struct token {
    struct p11 p11;
    ENGINE *engine;
    struct held ca, responder; /* responder.names.handle 0: there is none */
    unsigned device_errors;    /* in a row, with either key */
};

/* NULL: there is no such key. */
static const struct held *held(const struct token *t, enum token_key key)
{
    if (key == TOKEN_KEY_CA)
        return &t->ca;
    return key == TOKEN_KEY_RESPONDER && t->responder.key ? &t->responder : NULL;
}

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

static enum token_fault load_key(struct token *t, const struct token_config *config, struct held *h,
                                 struct err *err)
{
    struct buf uri = {0};
    UI_METHOD *ui = no_prompt();
    enum token_fault fault = TOKEN_OK;
    if (!ui || make_uri(&uri, config->label, &h->names))
        fault = FAULT(TOKEN_LOST, err, "no memory");
    else if (!(h->key = ENGINE_load_private_key(t->engine, (const char *)uri.data, ui, NULL)))
        fault = opening(engine_fault("give its key to the engine; its public half must be in the "
                                     "token beside it, with the same label and id",
                                     err));
    UI_destroy_method(ui);
    buf_free(&uri);
    return fault;
}

/* What is wrong with this one is no fault of the CA's. */
static enum token_fault about_responder(enum token_fault fault, struct err *err)
{
    if (!fault)
        return TOKEN_OK;
    size_t used = strlen(err->text);
    if (fault == TOKEN_KEY_MISSING || fault == TOKEN_KEY_MISMATCH)
        snprintf(err->text + used, sizeof err->text - used,
                 "; hsm-setup/intermediate.sh --ocsp-key makes one");
    err_prefix(err, "the OCSP responder's key");
    return fault;
}

static enum token_fault engine_load(struct token *t, const struct token_config *config,
                                    const struct secret *pin, struct err *err)
{
    enum token_fault fault = TOKEN_OK;
    ERR_clear_error();
    if (engine_start(t, config, pin))
        fault = FAULT(TOKEN_MODULE, err,
                      "OpenSSL's pkcs11 engine does not start: %s; install "
                      "libengine-pkcs11-openssl",
                      err_openssl());
    if (!fault)
        fault = load_key(t, config, &t->ca, err);
    if (!fault && t->responder.names.handle)
        fault = about_responder(load_key(t, config, &t->responder, err), err);
    if (t->engine && command(t->engine, "PIN", "")) /* the engine wipes the copy that it had */
        ERR_clear_error();
    return fault;
}

/* The public half as the engine has it, and whether it is a kind that Signet uses. */
static enum token_fault check_kind(struct held *h, struct err *err)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(h->key, &der);
    if (len <= 0 || buf_add(&h->spki, der, (size_t)len)) {
        OPENSSL_free(der);
        ERR_clear_error();
        return FAULT(TOKEN_KEY_MISSING, err, "the key's public half cannot be read from the token");
    }
    OPENSSL_free(der);
    struct err why;
    if (sign_alg_of(&h->alg, buf_view(&h->spki), &why) == 0)
        return TOKEN_OK;
    ERR_clear_error();
    return FAULT(TOKEN_KEY_MISMATCH, err,
                 "the key \"%s\" in the token cannot be a CA's or its responder's: %s; it must be "
                 "RSA 2048 to 4096, P-256 or P-384",
                 h->names.label, why.text);
}

static int key_takes(const struct held *h, enum sign_alg alg)
{
    int rsa = h->alg == SIGN_RSA_SHA256;
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
 * rubbish: only a signature that verifies with the public key shows that this is its private half.
 * What is signed is no certificate: it begins with text, and holds random bytes. */
static enum token_fault prove(struct token *t, enum token_key key, struct bytes spki,
                              const char *whose, struct err *err)
{
    char trial[] = "Signet's trial signature, of no meaning: ................";
    uint8_t digest[DIGEST_MAX], sig[SIGNATURE_MAX];
    size_t sig_len;
    const struct held *h = held(t, key);
    if (RAND_bytes((unsigned char *)trial + sizeof trial - 17, 16) != 1)
        return FAULT(TOKEN_LOST, err, "no random bytes: %s", err_openssl());
    struct bytes d = {digest,
                      sign_digest(h->alg, (struct bytes){(uint8_t *)trial, sizeof trial}, digest)};
    enum token_fault fault = token_sign(t, key, h->alg, d, sig, &sig_len, err);
    if (fault)
        return opening(fault);
    if (!verifies(spki, h->alg, d, (struct bytes){sig, sig_len}))
        return FAULT(
            TOKEN_KEY_MISMATCH, err,
            "the key \"%s\" in the token does not belong to %s: a trial signature does not "
            "verify with it",
            h->names.label, whose);
    return TOKEN_OK;
}

/* Which key an exception is for is seen once its public half is known. */
static enum token_fault find_key(struct token *t, const struct token_key_names *names,
                                 struct held *h, struct err *err)
{
    unsigned waiver = names->custody_exception ? CUSTODY_ALL & ~(unsigned)CUSTODY_ABSOLUTE : 0;
    enum token_fault fault = p11_find_key(&t->p11, names->label, names->id, &h->names, err);
    return fault ? fault : p11_check_custody(&t->p11, &h->names, waiver, &h->custody, err);
}

static enum token_fault raw_open(struct token *t, const struct token_config *c,
                                 const struct secret *pin, struct err *err)
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
        fault = find_key(t, &c->ca, &t->ca, err);
    if (!fault && (c->responder.label || c->responder.id.len))
        fault = about_responder(find_key(t, &c->responder, &t->responder, err), err);
    return fault;
}

static enum token_fault check_exception(const char *setting, const struct token_key_names *names,
                                        struct bytes spki, struct err *err)
{
    uint8_t hash[32];
    sha256(hash, spki);
    return custody_check_exception(setting, names->custody_exception, hash, err) ? TOKEN_CUSTODY
                                                                                 : TOKEN_OK;
}

static enum token_fault check_ca(struct token *t, const struct token_config *c,
                                 struct bytes ca_spki, struct err *err)
{
    enum token_fault fault = check_kind(&t->ca, err);
    struct bytes spki = ca_spki.len ? ca_spki : buf_view(&t->ca.spki);
    if (!fault)
        fault = check_exception("custody_exception", &c->ca, spki, err);
    if (!fault && c->trial_limit)
        alarm(c->trial_limit);
    return fault ? fault : prove(t, TOKEN_KEY_CA, spki, "the CA's certificate", err);
}

/* The CA's own key would make each OCSP answer one more use of it, and the answers no delegate's.
 */
static enum token_fault check_responder(struct token *t, const struct token_config *c,
                                        struct err *err)
{
    struct held *h = &t->responder;
    if (!h->key)
        return TOKEN_OK;
    enum token_fault fault = check_kind(h, err);
    if (!fault && bytes_equal(buf_view(&h->spki), buf_view(&t->ca.spki)))
        fault = FAULT(TOKEN_KEY_MISMATCH, err, "the key \"%s\" is the CA's own; it needs another",
                      h->names.label);
    if (!fault)
        fault = check_exception("ocsp_custody_exception", &c->responder, buf_view(&h->spki), err);
    if (!fault && c->trial_limit)
        alarm(c->trial_limit);
    if (!fault)
        fault = prove(t, TOKEN_KEY_RESPONDER, buf_view(&h->spki), "the public key beside it there",
                      err);
    return about_responder(fault, err);
}

enum token_fault token_open(struct token **out, const struct token_config *config,
                            const struct secret *pin, struct bytes ca_spki, struct err *err)
{
    struct token *t = calloc(1, sizeof *t);
    if (!t)
        return FAULT(TOKEN_LOST, err, "no memory");
    enum token_fault fault = raw_open(t, config, pin, err);
    if (!fault)
        fault = engine_load(t, config, pin, err);
    if (!fault)
        fault = check_ca(t, config, ca_spki, err);
    if (!fault)
        fault = check_responder(t, config, err);
    if (fault) {
        err_prefix(err, "module %s, token \"%s\"", config->module, config->label);
        token_close(t);
        return fault;
    }
    *out = t;
    return TOKEN_OK;
}

unsigned token_custody(const struct token *t, enum token_key key)
{
    return key == TOKEN_KEY_RESPONDER ? t->responder.custody : t->ca.custody;
}

struct bytes token_responder_spki(const struct token *t)
{
    return buf_view(&t->responder.spki);
}

const char *token_description(const struct token *t)
{
    return t->p11.description;
}

EVP_PKEY *token_private_key(const struct token *t)
{
    return t->ca.key;
}

/* One DEVICE_ERROR heals by itself, a second does not. */
static enum token_fault count_fault(struct token *t, enum token_fault fault)
{
    t->device_errors = fault == TOKEN_TRANSIENT ? t->device_errors + 1 : 0;
    return t->device_errors > 1 ? TOKEN_LOST : fault;
}

enum token_fault token_sign(struct token *t, enum token_key key, enum sign_alg alg,
                            struct bytes digest, uint8_t *sig, size_t *sig_len, struct err *err)
{
    const struct held *h = held(t, key);
    if (!h || !key_takes(h, alg) || digest.len != (alg == SIGN_ECDSA_SHA384 ? 48 : 32))
        return FAULT(TOKEN_KEY_MISMATCH, err,
                     "key %d, algorithm %d with a digest of %zu bytes: there is no such key, or it "
                     "does not sign so",
                     (int)key, (int)alg, digest.len);
    ERR_clear_error();
    *sig_len = SIGNATURE_MAX;
    EVP_PKEY_CTX *ctx = context(h->key, alg, 0);
    int ok = ctx && EVP_PKEY_sign(ctx, sig, sig_len, digest.data, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    enum token_fault fault = ok ? TOKEN_OK : engine_fault("sign", err);
    ERR_clear_error();
    return count_fault(t, fault);
}

static void let_go(struct held *h)
{
    EVP_PKEY_free(h->key);
    buf_free(&h->spki);
}

void token_close(struct token *t)
{
    if (!t)
        return;
    let_go(&t->responder);
    let_go(&t->ca);
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
