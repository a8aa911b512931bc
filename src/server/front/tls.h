/* TLS of the listener (OpenSSL), and who is at the other end of a connection. */
#ifndef SIGNET_FRONT_TLS_H
#define SIGNET_FRONT_TLS_H

#include <openssl/ssl.h>
#include "common/bytes.h"
#include "common/err.h"

/* Who asks, as M_CALLER carries it; made once a connection. */
struct caller {
    enum {
        CALLER_ANONYMOUS, /* no client certificate */
        CALLER_CERTIFICATE,
        CALLER_FOREIGN /* one that this CA cannot have issued: its serial does not fit RFC 5280 */
    } kind;
    uint8_t issuer[32], digest[32]; /* SHA-256 of the issuer name and of the certificate, DER */
    uint8_t serial[20];
    size_t serial_len;
    char address[64]; /* "127.0.0.1:40312", for logs */
};

struct tls; /* opaque */

struct tls *tls_new(void) __attribute__((warn_unused_result)); /* NULL: no memory */
void tls_free(struct tls *t);

/* The listener's certificate with its chain, and its key. New connections use it; those that exist
 * keep what they began with. */
int tls_set_listener(struct tls *t, struct bytes certificate_pem, struct bytes key_pem,
                     struct err *err) __attribute__((warn_unused_result));

/* The CA whose name is sent to clients, so that they choose the right certificate. */
int tls_set_issuer(struct tls *t, struct bytes certificate_der, struct err *err)
    __attribute__((warn_unused_result));

int tls_ready(const struct tls *t); /* listener and issuer are both there */

/* For one accepted connection; the caller's. NULL: no memory, or not ready. */
SSL *tls_connection(const struct tls *t) __attribute__((warn_unused_result));

/* Of an established connection; belongs to it. address is used the first time. NULL: no memory. */
const struct caller *tls_caller(const struct tls *t, SSL *ssl, const char *address);

#endif
