/* signetctl: the server's own administration, beside signetd on its machine.
 *
 * It speaks to the authority over STATE/admin.sock, which lets in root, the server's user and
 * members of admin_group. It holds no key and never sees the PIN. audit, export
 * and backup read the database over a read-only connection of their own; restore alone writes one,
 * where there is none and no signetd runs.
 */
#include <getopt.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "server/ctl/ctl.h"

static const struct command {
    const char *name;
    int (*run)(struct ctl *c, int argc, char **argv);
    const char *help;
} commands[] = {
    {"status", cmd_status, "READY or not, what ends soon, what to do next"},
    {"operator", cmd_operator, "issue, list and revoke operators' certificates"},
    {"enrolment", cmd_enrolment, "add, list and end passwords for devices' first certificates"},
    {"audit", cmd_audit, "journal, CRL, store and files: do they agree?"},
    {"export", cmd_export, "every certificate, as CSV or JSON lines"},
    {"backup", cmd_backup, "a consistent copy, while signetd runs"},
    {"restore", cmd_restore, "a backup and the newest CRL become a state again"},
    {"import", cmd_import, "certificates that a restored store does not know"},
    {"crl", cmd_crl, "rebuild: a new CRL now"},
    {"clock", cmd_clock, "accept: take the clock as it is, after it was set right"},
    {"pin", cmd_pin, "retry: let signetd try a corrected PIN"},
};

static int usage(int code)
{
    FILE *to = code ? stderr : stdout;
    fprintf(to, "usage: signetctl [--config FILE] [--json] COMMAND …\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(
        to,
        "\n"
        "  --config FILE  signetd's configuration (default %s)\n"
        "  --json         print one JSON object a line; also behind the command\n"
        "  --version      print the version\n"
        "\n"
        "signetctl COMMAND --help tells more. Exit codes: 0 done, 2 usage, 3 signetd cannot be\n"
        "reached, 4 refused (or not ready), 5 a local file, 6 the audit found something.\n",
        CONFIG_DEFAULT_PATH);
    return code;
}

static int load_config(struct ctl *c)
{
    struct buf text;
    if (file_read(&text, c->config_path, CONFIG_SIZE_MAX, &c->err)) {
        err_prefix(&c->err, "configuration (--config)");
        return ctl_fail(c, EXIT_LOCAL);
    }
    int rc = config_parse(&c->config, buf_view(&text), c->config_path, &c->err);
    buf_free(&text);
    return rc ? ctl_fail(c, EXIT_LOCAL) : EXIT_DONE;
}

static int run(struct ctl *c, int argc, char **argv)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (strcmp(argv[0], commands[i].name) != 0)
            continue;
        int asks_help = argc > 1 && strcmp(argv[argc - 1], "--help") == 0;
        int rc = asks_help ? EXIT_DONE : load_config(c);
        return rc ? rc : commands[i].run(c, argc, argv);
    }
    fprintf(stderr, "signetctl: there is no command \"%s\"\n", argv[0]);
    return usage(EXIT_USAGE);
}

/* Behind the command it may stand as well: the arguments that are left. */
static int take_json(struct ctl *c, int argc, char **argv)
{
    int kept = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0)
            c->json = 1;
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    return kept;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    static struct ctl c = {.config_path = CONFIG_DEFAULT_PATH, .socket = -1};
    int option;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (option == 'c')
            c.config_path = optarg;
        else if (option == 'j')
            c.json = 1;
        else if (option == 'v')
            return printf("signetctl %s\n", SIGNET_VERSION) < 0;
        else
            return usage(option == 'h' ? 0 : EXIT_USAGE);
    }
    if (optind == argc)
        return usage(EXIT_USAGE);
    log_open("signetctl", LOG_WARN);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    int rc = run(&c, take_json(&c, argc - optind, argv + optind), argv + optind);
    if (c.socket >= 0)
        close(c.socket);
    config_free(c.config);
    return rc;
}
