/* The modes of the load program: each one file. */
#ifndef SIGNET_BENCH_LOAD_H
#define SIGNET_BENCH_LOAD_H

#include <openssl/ssl.h>

#include "wire.h"

struct options {
    const char *server; /* address:port */
    const char *ca, *cert, *key, *issuer, *pool, *path, *body, *type;
    size_t connections, count, first, warm;
    double seconds;
    int plain;
};

void mode_issue(const struct options *o);      /* load_issue.c */
void mode_handshakes(const struct options *o); /* load_modes.c, and the next ones */
void mode_idle(const struct options *o);
void mode_get(const struct options *o);

/* The context of the options; NULL with --plain. */
SSL_CTX *options_context(const struct options *o);

/* Tells the driver where things stand ("ready", "stopped") on standard output. sync_point: and
 * waits for a line, or the end, on standard input. */
void tell(const char *what);
void sync_point(const char *what);

#endif
