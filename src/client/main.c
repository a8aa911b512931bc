/* signet: the client, on the operator's laptop.
 *
 * Holds: the operator's key (from its file, for TLS) and, while it makes it, a device's key.
 * Who may talk to it: nobody. It connects to the one server of its settings and believes only what
 * verifies up to the pinned root.
 * Never sees: a CA key, a token, a PIN. */
#include <curl/curl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "client/commands.h"
#include "client/interrupt.h"

static const struct command commands[] = {
    {"init", FOR_INIT, cmd_init,
     "--server URL --ca-fingerprint SHA256 [--name NAME]\n       signet init --install FILE",
     "set up: pin the root, make the operator's key and request",
     "Pins the server's root by its fingerprint, proves the server against it, and makes the\n"
     "operator's key and request. --install takes the certificate that answers the request."},
    {"provision", FOR_PROVISION, cmd_provision, "--mac MAC [--profile NAME] [--out DIR]",
     "make a device's key and get its certificate",
     "Makes the key and a request for it, has the server sign it, verifies the certificate and\n"
     "saves DIR/<mac>/ with device.key, device.csr, device.crt, chain.pem and ca.pem. After an\n"
     "interruption, the same command goes on with the same key."},
    {"revoke", FOR_REVOKE, cmd_revoke, "--serial HEX | --certificate FILE [--reason REASON]",
     "revoke a certificate", "Revokes one certificate, for a reason of RFC 5280 section 5.3.1."},
    {"verify", FOR_VERIFY, cmd_verify, "FILE | DIR | --mac MAC [--crl FILE | --offline]",
     "check a certificate or a device's folder",
     "Verifies chain, key and revocation. The CRL is the server's unless --crl or --offline."},
    {"crl", FOR_CRL, cmd_crl, "[--out FILE]", "fetch the CRL",
     "Fetches the CRL and verifies it. A newer one in FILE is never replaced by an older one."},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void help(FILE *to)
{
    fprintf(to, "Usage: signet COMMAND [OPTION]...\n\n"
                "Device keys and certificates from a Signet certificate authority.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\nsignet COMMAND --help describes each; signet --version; man signet\n");
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int asks_for_json(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            return 1;
    return 0;
}

static int run(const struct command *c, int argc, char **argv)
{
    struct options o;
    struct failure f = {0};
    if (options_parse(&o, c, argc, argv, &f))
        return failure_report(&f, asks_for_json(argc, argv));
    if (o.help) {
        options_help(c);
        return EXIT_DONE;
    }
    if (c->run(&o, &f))
        return failure_report(&f, o.json);
    if (fflush(stdout) == 0)
        return EXIT_DONE;
    fail(&f, EXIT_LOCAL, "local_file", "done, but cannot write to standard output");
    return failure_report(&f, 0);
}

static int run_named(int argc, char **argv)
{
    const struct command *c = find_command(argv[1]);
    if (c)
        return run(c, argc - 1, argv + 1);
    struct failure f = {0};
    fail(&f, EXIT_USAGE, "usage", "\"%s\" is not a command; see signet --help", argv[1]);
    return failure_report(&f, asks_for_json(argc, argv));
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0) {
        help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("signet " SIGNET_VERSION "\n");
        return EXIT_DONE;
    }
    interrupt_catch();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int code = run_named(argc, argv);
    curl_global_cleanup();
    return code;
}
