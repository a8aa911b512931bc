#include "server/front/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/crypto.h>
#include <openssl/pem.h>
#include "common/log.h"

/* Enough for a client certificate and its chain; OpenSSL's default is 100 KiB. */
#define CLIENT_CHAIN_MAX (24 * 1024)
#define CLIENT_KEY_BITS_MAX 4096
/* Of keys in use: 128 bytes, P-521, for each connection that may be in a handshake, four times. */
#define KEYS_MAX (2 * 1024 * 1024)
#define KEY_LEAST 32

struct tls {
    SSL_CTX *ctx; /* NULL until listener and issuer are there */
    X509 *certificate, *issuer;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    int caller_index; /* of the struct caller in an SSL's ex_data */
};

static void free_caller(void *parent, void *caller, CRYPTO_EX_DATA *data, int index, long l,
                        void *p)
{
    (void)parent, (void)data, (void)index, (void)l, (void)p;
    free(caller);
}

/* Private keys, the listener's and those of handshakes under way, lie where no swap and no core
 * takes them. Not openssl.cnf: what it names would be loaded into this process. */
static void set_up_openssl(void)
{
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    if (CRYPTO_secure_malloc_init(KEYS_MAX, KEY_LEAST) != 1)
        log_warn("the memory of private keys is not locked: raise RLIMIT_MEMLOCK to 8 MiB");
}

struct tls *tls_new(void)
{
    set_up_openssl();
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->caller_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_caller);
    if (t->caller_index < 0) {
        free(t);
        return NULL;
    }
    return t;
}

static void drop_listener(struct tls *t)
{
    X509_free(t->certificate);
    sk_X509_pop_free(t->chain, X509_free);
    EVP_PKEY_free(t->key);
    t->certificate = NULL;
    t->chain = NULL;
    t->key = NULL;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->ctx);
    drop_listener(t);
    X509_free(t->issuer);
    free(t);
}

/* Any client certificate passes here, and that is right: TLS has proven that the client holds its
 * key (RFC 8446 section 4.4.3), and the authority, which trusts no front, decides by the exact
 * certificate as it stands in its store: issuer name, serial and digest of the DER. A chain built
 * here would add nothing to that, and a revocation would be known later here than there. Only a
 * key that would be slow to verify with is refused, before it is used. */
static int accept_client(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    EVP_PKEY *key = X509_get0_pubkey(X509_STORE_CTX_get0_cert(store));
    if (!key || (EVP_PKEY_is_a(key, "RSA") && EVP_PKEY_get_bits(key) > CLIENT_KEY_BITS_MAX)) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
        return 0;
    }
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

/* Not finite fields, whose largest group costs a hundred times as much as X25519, and a stranger
 * chooses; the first, against quantum computers, where OpenSSL (3.5) has it. */
static int set_groups(SSL_CTX *ctx)
{
    int ok = SSL_CTX_set1_groups_list(ctx, "X25519MLKEM768:X25519:P-256:P-384") == 1 ||
             SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1;
    ERR_clear_error();
    return ok ? 0 : -1;
}

static int set_protocol(SSL_CTX *ctx)
{
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS); /* 49 to 31 KB an idle connection */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ctx, CLIENT_CHAIN_MAX);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(ctx, accept_client, NULL);
    SSL_CTX_set_security_level(ctx, 2); /* 112 bits, no SHA-1; Debian's default, not OpenSSL's */
    return SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 && set_groups(ctx) == 0 &&
                   SSL_CTX_set_num_tickets(ctx, 0) == 1 &&
                   SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20:!PSK:!aNULL") == 1
               ? 0
               : -1;
}

static int set_identity(const struct tls *t, SSL_CTX *ctx)
{
    return SSL_CTX_use_certificate(ctx, t->certificate) == 1 &&
                   SSL_CTX_use_PrivateKey(ctx, t->key) == 1 &&
                   SSL_CTX_set1_chain(ctx, t->chain) == 1 && SSL_CTX_check_private_key(ctx) == 1 &&
                   SSL_CTX_add_client_CA(ctx, t->issuer) == 1
               ? 0
               : -1;
}

/* The old context lives on in the connections that hold it. */
static int renew_context(struct tls *t, struct err *err)
{
    if (!t->certificate || !t->issuer)
        return 0;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx || set_protocol(ctx) || set_identity(t, ctx)) {
        SSL_CTX_free(ctx);
        return err_set(err, ERR_internal, "the listener's certificate: %s", err_openssl());
    }
    SSL_CTX_free(t->ctx);
    t->ctx = ctx;
    return 0;
}

/* An encrypted key would make OpenSSL ask on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *arg)
{
    (void)out, (void)size, (void)writing, (void)arg;
    return -1;
}

static int read_certificates(struct tls *t, struct bytes pem)
{
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *next;
    if (!in)
        return -1;
    t->certificate = PEM_read_bio_X509(in, NULL, no_passphrase, NULL);
    t->chain = sk_X509_new_null();
    while (t->chain && (next = PEM_read_bio_X509(in, NULL, no_passphrase, NULL)))
        if (!sk_X509_push(t->chain, next)) {
            X509_free(next);
            break;
        }
    ERR_clear_error(); /* the end of the file is an error in OpenSSL's view */
    BIO_free(in);
    return t->certificate && t->chain ? 0 : -1;
}

static int read_key(struct tls *t, struct bytes pem)
{
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    if (!in)
        return -1;
    t->key = PEM_read_bio_PrivateKey(in, NULL, no_passphrase, NULL);
    BIO_free(in);
    return t->key ? 0 : -1;
}

int tls_set_listener(struct tls *t, struct bytes certificate_pem, struct bytes key_pem,
                     struct err *err)
{
    drop_listener(t);
    if (read_certificates(t, certificate_pem) || read_key(t, key_pem)) {
        drop_listener(t);
        return err_set(err, ERR_internal, "the listener's certificate or key does not parse: %s",
                       err_openssl());
    }
    return renew_context(t, err);
}

int tls_set_issuer(struct tls *t, struct bytes certificate_der, struct err *err)
{
    const unsigned char *p = certificate_der.data;
    X509 *issuer = d2i_X509(NULL, &p, (long)certificate_der.len);
    if (!issuer)
        return err_set(err, ERR_internal, "the CA certificate does not parse: %s", err_openssl());
    X509_free(t->issuer);
    t->issuer = issuer;
    return renew_context(t, err);
}

int tls_ready(const struct tls *t)
{
    return t->ctx != NULL;
}

SSL *tls_connection(const struct tls *t)
{
    return t->ctx ? SSL_new(t->ctx) : NULL;
}

/* The magnitude's bytes; RFC 5280 section 4.1.2.2 wants it positive and of at most 20. */
static int take_serial(struct caller *c, const X509 *certificate)
{
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    int len = ASN1_STRING_length(serial);
    if (ASN1_STRING_type(serial) != V_ASN1_INTEGER || len < 1 || len > (int)sizeof c->serial)
        return -1;
    memcpy(c->serial, ASN1_STRING_get0_data(serial), (size_t)len);
    c->serial_len = (size_t)len;
    return 0;
}

static void describe(struct caller *c, const X509 *certificate)
{
    unsigned char *name = NULL;
    unsigned len = 0;
    int name_len = i2d_X509_NAME(X509_get_issuer_name(certificate), &name);
    if (name_len > 0 && take_serial(c, certificate) == 0 &&
        X509_digest(certificate, EVP_sha256(), c->digest, &len) == 1) {
        sha256(c->issuer, (struct bytes){name, (size_t)name_len});
        c->kind = CALLER_CERTIFICATE;
    } else {
        c->kind = CALLER_FOREIGN;
    }
    OPENSSL_free(name);
}

const struct caller *tls_caller(const struct tls *t, SSL *ssl, const char *address)
{
    struct caller *c = SSL_get_ex_data(ssl, t->caller_index);
    if (c)
        return c;
    if (!(c = calloc(1, sizeof *c)))
        return NULL;
    snprintf(c->address, sizeof c->address, "%s", address);
    const X509 *certificate = SSL_get0_peer_certificate(ssl);
    if (certificate)
        describe(c, certificate);
    if (!SSL_set_ex_data(ssl, t->caller_index, c)) {
        free(c);
        return NULL;
    }
    return c;
}
