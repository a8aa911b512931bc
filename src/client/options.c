#include "client/options.h"

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct row {
    const char *name;
    const char *value; /* what stands for the value in the help; NULL: a switch */
    size_t offset;     /* in struct options */
    unsigned commands;
    const char *help;
};

#define AT(field) offsetof(struct options, field)
static const struct row rows[] = {
    {"server", "URL", AT(server), FOR_ALL, "the server, https://host:port"},
    {"ca-fingerprint", "SHA256", AT(ca_fingerprint), FOR_INIT,
     "SHA-256 fingerprint of the root certificate, in hex"},
    {"name", "NAME", AT(name), FOR_INIT, "the operator's name (default: user@host)"},
    {"install", "FILE", AT(install), FOR_INIT, "take the operator certificate into use"},
    {"mac", "MAC", AT(mac), FOR_PROVISION | FOR_VERIFY, "the board, as 24:0a:c4:12:34:56"},
    {"profile", "NAME", AT(profile), FOR_PROVISION, "the certificate's profile (default: device)"},
    {"key-type", "TYPE", AT(key_type), FOR_INIT | FOR_PROVISION,
     "rsa:2048 (default), rsa:3072, rsa:4096, ec:p256, ec:p384"},
    {"serial", "HEX", AT(serial), FOR_REVOKE, "the certificate, by its serial number"},
    {"certificate", "FILE", AT(certificate), FOR_REVOKE, "the certificate, by its file"},
    {"reason", "REASON", AT(reason), FOR_REVOKE,
     "keyCompromise, superseded, cessationOfOperation, … (RFC 5280)"},
    {"crl", "FILE", AT(crl), FOR_VERIFY, "check revocation by this CRL, not the server's"},
    {"offline", NULL, AT(offline), FOR_VERIFY, "do not ask the server for its CRL"},
    {"out", "DIR", AT(out), FOR_PROVISION | FOR_VERIFY,
     "where the devices' folders are (default: here)"},
    {"out", "FILE", AT(out), FOR_CRL, "save the CRL here (default: standard output)"},
    {"ca", "FILE", AT(ca), FOR_ALL & ~FOR_INIT,
     "the root certificate that everything must lead to"},
    {"cert", "FILE", AT(cert), FOR_PROVISION | FOR_REVOKE, "the operator's certificate"},
    {"key", "FILE", AT(key), FOR_PROVISION | FOR_REVOKE, "the operator's key"},
    {"config", "FILE", AT(config), FOR_ALL,
     "default: $SIGNET_CONFIG, or ~/.config/signet/signet.conf"},
    {"connect-timeout", "SECONDS", AT(connect_timeout), FOR_ALL, "to connect (default: 5)"},
    {"timeout", "SECONDS", AT(timeout), FOR_ALL, "for a request with its retries (default: 30)"},
    {"json", NULL, AT(json), FOR_ALL, "print one JSON object a line"},
    {"help", NULL, AT(help), FOR_ALL, "this text"},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* The command's part of the table in getopt_long()'s form; val is the row's index. */
static void long_options(struct option out[ROWS + 1], const struct command *c)
{
    size_t n = 0;
    for (int i = 0; i < ROWS; i++)
        if (rows[i].commands & (unsigned)c->bit)
            out[n++] = (struct option){
                rows[i].name, rows[i].value ? required_argument : no_argument, NULL, i + 1};
    out[n] = (struct option){0};
}

static int store(struct options *o, const struct row *row, const struct command *c,
                 struct failure *f)
{
    char *field = (char *)o + row->offset;
    if (!row->value) {
        int yes = 1;
        memcpy(field, &yes, sizeof yes);
        return 0;
    }
    if (!*optarg)
        return fail(f, EXIT_USAGE, "usage", "--%s is empty; see signet %s --help", row->name,
                    c->name);
    const char *value = optarg;
    memcpy(field, &value, sizeof value);
    return 0;
}

static int refuse_option(const struct command *c, char *arg, struct failure *f)
{
    return fail(f, EXIT_USAGE, "usage",
                "\"%s\" is not an option of signet %s, is ambiguous, or lacks its value; see "
                "signet %s --help",
                arg, c->name, c->name);
}

int options_parse(struct options *o, const struct command *c, int argc, char **argv,
                  struct failure *f)
{
    struct option table[ROWS + 1];
    long_options(table, c);
    *o = (struct options){0};
    opterr = 0;
    for (;;) {
        int at = optind ? optind : 1;
        int i = getopt_long(argc, argv, "", table, NULL);
        if (i == -1)
            break;
        if (i == '?')
            return refuse_option(c, argv[at], f);
        if (store(o, &rows[i - 1], c, f))
            return -1;
    }
    if (optind < argc && c->bit == FOR_VERIFY)
        o->operand = argv[optind++];
    if (optind < argc)
        return fail(f, EXIT_USAGE, "usage", "\"%s\" is one argument too many; see signet %s --help",
                    argv[optind], c->name);
    return 0;
}

void options_help(const struct command *c)
{
    printf("Usage: signet %s %s\n\n%s\n\n", c->name, c->synopsis, c->detail);
    for (int i = 0; i < ROWS; i++) {
        if (!(rows[i].commands & (unsigned)c->bit))
            continue;
        char left[40];
        snprintf(left, sizeof left, "--%s %s", rows[i].name, rows[i].value ? rows[i].value : "");
        printf("  %-26s %s\n", left, rows[i].help);
    }
    printf("\nExit codes: 0 done, 2 usage, 3 unreachable or timed out, 4 refused by the server,\n"
           "5 local file or device, 6 verification failed. More: man signet\n");
}
