/* The command line. One table holds every option, which commands take it, and its line of help. */
#ifndef SIGNET_CLIENT_OPTIONS_H
#define SIGNET_CLIENT_OPTIONS_H

#include "client/failure.h"

/* Which commands an option is for. */
enum command_bit {
    FOR_INIT = 1,
    FOR_PROVISION = 2,
    FOR_REVOKE = 4,
    FOR_VERIFY = 8,
    FOR_CRL = 16,
    FOR_RENEW = 32,
    FOR_SERVER_CERT = 64,
    FOR_HOLD = 128,
    FOR_UNHOLD = 256,
    FOR_LIST = 512,
    FOR_SHOW = 1024,
    FOR_DOCTOR = 2048,
    FOR_BATCH = 4096,
    FOR_IMAGE = 8192,
    FOR_STATION = 16384,
    FOR_ALL = 32767
};

/* An option that may be given several times. */
#define VALUES_MAX 32
struct values {
    size_t count;
    const char *value[VALUES_MAX];
};

/* What was given; NULL or 0 where it was not. The strings are argv's. */
struct options {
    const char *config, *server, *ca, *cert, *key;
    const char *connect_timeout, *timeout;
    const char *ca_fingerprint, *name, *install;
    const char *mac, *profile, *out, *key_type;
    const char *serial, *serials, *certificate, *issued_by, *reason;
    const char *from, *to, *state, *board, *operator_name, *limit;
    const char *csr, *out_key;
    const char *crl;
    const char *jobs, *results;
    const char *format, *encoding, *size, *space, *key_name, *cert_name, *chain_name, *ca_name;
    const char *keys, *keys_out, *inspect;
    const char *port, *ports, *baud, *esptool, *partition;
    struct values names, firmware;
    const char *operand; /* the one argument that is not an option */
    int replace, new_key, offline, encrypt, flash, keep_key, json, help;
};

struct command {
    const char *name;
    enum command_bit bit;
    int (*run)(const struct options *o, struct failure *f); /* 0 or -1 */
    const char *synopsis;                                   /* after the name */
    const char *summary;                                    /* one line */
    const char *detail;                                     /* paragraphs for --help */
    const char *examples;                                   /* lines for --help */
};

/* argv[0] is the command's name. 0, or -1 with EXIT_USAGE. */
int options_parse(struct options *o, const struct command *c, int argc, char **argv,
                  struct failure *f) __attribute__((warn_unused_result));

/* The command's help, on stdout. */
void options_help(const struct command *c);

#endif
