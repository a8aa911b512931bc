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
    int many; /* a struct values */
};

/* Commands of one kind. */
#define AS_OPERATOR                                                                                \
    (FOR_PROVISION | FOR_BATCH | FOR_STATION | FOR_SERVER_CERT | FOR_REVOKE | FOR_HOLD |           \
     FOR_UNHOLD | FOR_LIST | FOR_SHOW | FOR_DOCTOR)
#define REVOKING (FOR_REVOKE | FOR_HOLD | FOR_UNHOLD)
#define WITH_OPERAND (FOR_VERIFY | FOR_RENEW | FOR_SHOW | FOR_BATCH | FOR_IMAGE)
#define FLASHING (FOR_PROVISION | FOR_BATCH | FOR_STATION)
#define MAKING_IMAGE (FLASHING | FOR_IMAGE)
#define WITH_SERVER (FOR_ALL & ~FOR_IMAGE)

#define AT(field) offsetof(struct options, field)
static const struct row rows[] = {
    {"ca-fingerprint", "SHA256", AT(ca_fingerprint), FOR_INIT,
     "SHA-256 fingerprint of the root certificate, in hex", 0},
    {"name", "NAME", AT(name), FOR_INIT, "the operator's name (default: user@host)", 0},
    {"install", "FILE", AT(install), FOR_INIT, "take the operator certificate into use", 0},
    {"csr", "FILE", AT(csr), FOR_SERVER_CERT, "the request (PEM); its subjectAltName is certified",
     0},
    {"name", "HOST", AT(names), FOR_SERVER_CERT, "a host name or IP address; give it for each one",
     1},
    {"out-key", "FILE", AT(out_key), FOR_SERVER_CERT,
     "with --name: the key; made when it is not there", 0},
    {"mac", "MAC", AT(mac), FOR_PROVISION | FOR_VERIFY | FOR_RENEW | REVOKING | FOR_LIST | FOR_SHOW,
     "the board, as 24:0a:c4:12:34:56", 0},
    {"port", "PORT", AT(port), FOR_PROVISION,
     "the serial port that the board is at; its MAC is read", 0},
    {"flash", NULL, AT(flash), FOR_PROVISION,
     "write key and certificate to the board, and read them back", 0},
    {"flash", NULL, AT(flash), FOR_BATCH,
     "write key and certificate to the boards at ports, and read them back", 0},
    {"ports", "PATTERN", AT(ports), FOR_STATION,
     "the ports to watch, or their folder (default: USB serial ports)", 0},
    {"firmware", "OFFSET=FILE", AT(firmware), FLASHING,
     "flashing: write this too, before; give it for each file", 1},
    {"format", "FORMAT", AT(format), FLASHING, "flashing: nvs (default) or secure-cert", 0},
    {"partition", "NAME", AT(partition), FLASHING,
     "flashing: the partition, when there are several of its kind", 0},
    {"keep-key", NULL, AT(keep_key), FLASHING, "flashing: keep device.key here too", 0},
    {"baud", "SPEED", AT(baud), FLASHING, "of the port, such as 460800", 0},
    {"esptool", "PROGRAM", AT(esptool), FLASHING | FOR_DOCTOR,
     "esptool, 4.7 to 5.x (default: the one in the PATH)", 0},
    {"replace", NULL, AT(replace), FOR_PROVISION, "also when the board has a certificate", 0},
    {"new-key", NULL, AT(new_key), FOR_RENEW, "make a new key too", 0},
    {"profile", "NAME", AT(profile), FOR_PROVISION | FOR_STATION,
     "the certificate's profile (default: device)", 0},
    {"limit", "N", AT(limit), FOR_STATION, "end after N boards, passed or failed", 0},
    {"results", "FILE", AT(results), FOR_STATION, "a line a board (default: DIR/station-DATE.csv)",
     0},
    {"profile", "NAME", AT(profile), FOR_BATCH,
     "of the boards whose line says none (default: device)", 0},
    {"jobs", "N", AT(jobs), FOR_BATCH, "keys made at once (default: as many as processors)", 0},
    {"results", "FILE", AT(results), FOR_BATCH, "a line a board (default: NAME.results.csv)", 0},
    {"profile", "NAME", AT(profile), FOR_SERVER_CERT, "its profile (default: server)", 0},
    {"key-type", "TYPE", AT(key_type), FOR_INIT | FLASHING | FOR_SERVER_CERT,
     "rsa:2048 (default), rsa:3072, rsa:4096, ec:p256, ec:p384", 0},
    {"key-type", "TYPE", AT(key_type), FOR_RENEW, "with --new-key (default: as the one before)", 0},
    {"serial", "HEX", AT(serial), REVOKING | FOR_SHOW, "the certificate, by its serial number", 0},
    {"certificate", "FILE", AT(certificate), REVOKING, "the certificate, by its file", 0},
    {"serials", "FILE", AT(serials), REVOKING,
     "by a file with a serial number a line; -: standard input", 0},
    {"issued-by", "OPERATOR", AT(issued_by), FOR_REVOKE, "all that this operator had issued", 0},
    {"state", "STATE", AT(state), FOR_LIST, "issued, revoked, held or orphan", 0},
    {"board", "STATE", AT(board), FOR_LIST, "issued (not flashed), flashed or verified", 0},
    {"operator", "NAME", AT(operator_name), FOR_LIST, "the operator who had it issued", 0},
    {"from", "TIME", AT(from), FOR_REVOKE | FOR_LIST,
     "issued then or later: 2026-11-23 or 2026-11-23T12:00:00Z (UTC)", 0},
    {"to", "TIME", AT(to), FOR_REVOKE | FOR_LIST, "issued then or earlier; a date: that whole day",
     0},
    {"limit", "N", AT(limit), FOR_LIST, "at most so many (default: all)", 0},
    {"reason", "REASON", AT(reason), FOR_REVOKE,
     "keyCompromise, superseded, cessationOfOperation, … (RFC 5280)", 0},
    {"crl", "FILE", AT(crl), FOR_VERIFY, "check revocation by this CRL, not the server's", 0},
    {"offline", NULL, AT(offline), FOR_VERIFY, "do not ask the server for its CRL", 0},
    {"out", "DIR", AT(out), FLASHING | FOR_VERIFY | FOR_RENEW | FOR_DOCTOR,
     "where the devices' folders are (default: here)", 0},
    {"out", "FILE", AT(out), FOR_CRL, "save the CRL here (default: standard output)", 0},
    {"out", "FILE", AT(out), FOR_SERVER_CERT, "save certificate and intermediates here", 0},
    {"inspect", "FILE", AT(inspect), FOR_IMAGE, "read an image instead, also one made by others",
     0},
    {"format", "FORMAT", AT(format), FOR_IMAGE, "nvs, secure-cert or raw", 0},
    {"encoding", "ENCODING", AT(encoding), MAKING_IMAGE, "pem (default) or der", 0},
    {"size", "BYTES", AT(size), FOR_IMAGE,
     "the partition's, as 0x6000, 24576 or 24K (secure-cert: 0x2000)", 0},
    {"namespace", "NAME", AT(space), MAKING_IMAGE, "nvs: the namespace (default: signet)", 0},
    {"key-name", "NAME", AT(key_name), MAKING_IMAGE, "nvs: the key's name (default: client_key)",
     0},
    {"cert-name", "NAME", AT(cert_name), MAKING_IMAGE,
     "nvs: the certificate's name (default: client_cert)", 0},
    {"chain-name", "NAME", AT(chain_name), MAKING_IMAGE,
     "nvs, der: of intermediates, a number behind it (default: client_chain)", 0},
    {"ca-name", "NAME", AT(ca_name), MAKING_IMAGE, "nvs: the CA's name (default: ca_cert)", 0},
    {"encrypt", NULL, AT(encrypt), FOR_IMAGE, "nvs: encrypt; with --keys-out or --keys", 0},
    {"keys-out", "FILE", AT(keys_out), FOR_IMAGE,
     "nvs: save new keys here, for the partition nvs_keys", 0},
    {"keys", "FILE", AT(keys), FOR_IMAGE, "nvs: the keys of an encrypted partition", 0},
    {"out", "FILE", AT(out), FOR_IMAGE, "save the image here; raw: a new folder", 0},
    {"server", "URL", AT(server), WITH_SERVER, "the server, https://host:port", 0},
    {"ca", "FILE", AT(ca), WITH_SERVER & ~FOR_INIT,
     "the root certificate that everything must lead to", 0},
    {"cert", "FILE", AT(cert), AS_OPERATOR, "the operator's certificate", 0},
    {"key", "FILE", AT(key), AS_OPERATOR, "the operator's key", 0},
    {"config", "FILE", AT(config), WITH_SERVER,
     "default: $SIGNET_CONFIG, or ~/.config/signet/signet.conf", 0},
    {"connect-timeout", "SECONDS", AT(connect_timeout), WITH_SERVER, "to connect (default: 5)", 0},
    {"timeout", "SECONDS", AT(timeout), WITH_SERVER, "for a request with its retries (default: 30)",
     0},
    {"json", NULL, AT(json), FOR_ALL, "print one JSON object a line", 0},
    {"help", NULL, AT(help), FOR_ALL, "this text", 0},
};
enum { ROWS = sizeof rows / sizeof rows[0], FIRST = 256 /* behind all characters, such as '?' */ };

/* The command's part of the table in getopt_long()'s form; val is FIRST and the row's index. */
static void long_options(struct option out[ROWS + 1], const struct command *c)
{
    size_t n = 0;
    for (int i = 0; i < ROWS; i++)
        if (rows[i].commands & (unsigned)c->bit)
            out[n++] = (struct option){
                rows[i].name, rows[i].value ? required_argument : no_argument, NULL, FIRST + i};
    out[n] = (struct option){0};
}

static int add_value(struct values *all, const char *value, const struct row *row,
                     struct failure *f)
{
    if (all->count == VALUES_MAX)
        return fail(f, EXIT_USAGE, "usage", "--%s may be given %d times", row->name, VALUES_MAX);
    all->value[all->count++] = value;
    return 0;
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
    if (row->many)
        return add_value((struct values *)(void *)field, value, row, f);
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
        if (store(o, &rows[i - FIRST], c, f))
            return -1;
    }
    if (optind < argc && ((unsigned)c->bit & (unsigned)(WITH_OPERAND)))
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
    printf("\nExamples:\n%s\n", c->examples);
    printf("\nExit codes: 0 done, 2 usage, 3 unreachable or timed out, 4 refused by the server,\n"
           "5 local file or device, 6 verification failed. More: man signet\n");
}
