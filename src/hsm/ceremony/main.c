/* signet-ceremony: makes tokens, keys and CA certificates; the tool behind hsm-setup/.
 *
 * Holds: a session with one token, for one command; its PIN, until the login.
 * Talks to: the person at the keyboard, the PKCS#11 module, and the files named to it.
 * Never sees: the network, a server's state, another token than the one named.
 */
#include <getopt.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "hsm/ceremony/ceremony.h"

static const char usage[] =
    "signet-ceremony COMMAND --module M --token LABEL [options]\n"
    "\n"
    "Commands\n"
    "  init-token         initialize a blank token and set its PIN\n"
    "  generate-key       make a key in the token, sign-only, never extractable\n"
    "  csr                a certification request for the key, signed by it\n"
    "  root-certificate   a self-signed root certificate for the key\n"
    "  sign-intermediate  sign an intermediate's request with the root key\n"
    "  root-crl           sign the root's CRL, or a newer one; revoke an intermediate\n"
    "  put-certificate    store a certificate in the token\n"
    "  show               what the token holds, and what it says of its keys\n"
    "  check              open the token as the server would, and sign once\n"
    "\n"
    "The token\n"
    "  --module FILE            the PKCS#11 module (.so) of the token's maker\n"
    "  --token LABEL            the token's label\n"
    "  --pin-file FILE          its PIN, in a file of mode 0600; - is standard input;\n"
    "                           without it the PIN is asked for\n"
    "  --so-pin-file FILE       the SO PIN (init-token)\n"
    "  --init-args TEXT         what the module wants at C_Initialize\n"
    "  --slot N                 the slot to initialize (init-token; else the first blank one)\n"
    "  --key-label LABEL, --key-id HEX   the key; one of the two is enough when it is unique\n"
    "  --custody-exception \"SHA256, REASON\"   accept a key that the token does not fully guard\n"
    "\n"
    "What is made\n"
    "  --key-type rsa:2048|rsa:3072|rsa:4096|ec:p256|ec:p384   (generate-key)\n"
    "  --subject \"CN=Name, O=Maker\"                           (csr, root-certificate)\n"
    "  --years N        validity; default 20 for a root, 10 for an intermediate\n"
    "  --root-certificate FILE, --csr FILE                     (sign-intermediate, root-crl)\n"
    "  --public-url http://HOST[:PORT]   where verifiers fetch the root's CRL and certificate\n"
    "  --months N       life of the root's CRL; default 12\n"
    "  --revoke FILE [--reason R]        an intermediate's certificate (root-crl)\n"
    "  --certificate FILE                (put-certificate, check)\n"
    "  --label LABEL    for a certificate that is not the key's own, as the root's\n"
    "  --out FILE       the file to write; an existing one is never overwritten\n"
    "  --json           show as JSON\n"
    "  --help, --version\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 it is there already and was left as it is\n";

/* Every option has a letter; a command names those that it needs and those that it takes. */
static const struct option long_options[] = {
    {"module", required_argument, NULL, 'm'},
    {"token", required_argument, NULL, 't'},
    {"pin-file", required_argument, NULL, 'p'},
    {"so-pin-file", required_argument, NULL, 'S'},
    {"init-args", required_argument, NULL, 'a'},
    {"slot", required_argument, NULL, 'n'},
    {"key-label", required_argument, NULL, 'l'},
    {"key-id", required_argument, NULL, 'i'},
    {"custody-exception", required_argument, NULL, 'x'},
    {"key-type", required_argument, NULL, 'k'},
    {"subject", required_argument, NULL, 's'},
    {"years", required_argument, NULL, 'y'},
    {"months", required_argument, NULL, 'M'},
    {"root-certificate", required_argument, NULL, 'r'},
    {"csr", required_argument, NULL, 'c'},
    {"public-url", required_argument, NULL, 'u'},
    {"revoke", required_argument, NULL, 'R'},
    {"reason", required_argument, NULL, 'e'},
    {"certificate", required_argument, NULL, 'C'},
    {"label", required_argument, NULL, 'L'},
    {"out", required_argument, NULL, 'o'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static const struct command {
    const char *name;
    int (*run)(const struct options *o, struct err *err);
    const char *needs, *takes;
} commands[] = {
    {"init-token", command_init_token, "mt", "apSn"},
    {"generate-key", command_generate_key, "mtlk", "api"},
    {"csr", command_csr, "mtso", "aplix"},
    {"root-certificate", command_root_certificate, "mtso", "aplixy"},
    {"sign-intermediate", command_sign_intermediate, "mtrco", "aplixyu"},
    {"root-crl", command_root_crl, "mtro", "aplixMRe"},
    {"put-certificate", command_put_certificate, "mtC", "apliL"},
    {"show", command_show, "mt", "apj"},
    {"check", command_check, "mt", "aplixC"},
};

_Noreturn static void misuse(const char *what, const char *name)
{
    fprintf(stderr, "signet-ceremony: %s%s; see signet-ceremony --help\n", what, name);
    exit(2);
}

static const char *option_name(int letter)
{
    for (const struct option *o = long_options; o->name; o++)
        if (o->val == letter)
            return o->name;
    return "?";
}

static long number(const char *text, long most)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (!*text || *end || n < 0 || n > most)
        misuse("not a number in range: ", text);
    return n;
}

static void set_key_id(struct options *o, const char *hex)
{
    if (strncmp(hex, "0x", 2) == 0)
        hex += 2;
    if (hex_decode(o->key_id_room, sizeof o->key_id_room, &o->key_id.len, hex) ||
        o->key_id.len == 0)
        misuse("--key-id is not hex: ", hex);
    o->key_id.data = o->key_id_room;
}

static void set_option(struct options *o, int letter, const char *value)
{
    const char **texts[128] = {
        ['m'] = &o->module,
        ['t'] = &o->token,
        ['p'] = &o->pin_file,
        ['S'] = &o->so_pin_file,
        ['a'] = &o->init_args,
        ['l'] = &o->key_label,
        ['x'] = &o->custody_exception,
        ['k'] = &o->key_type,
        ['s'] = &o->subject,
        ['r'] = &o->root_certificate,
        ['c'] = &o->csr,
        ['u'] = &o->public_url,
        ['R'] = &o->revoke,
        ['e'] = &o->reason,
        ['C'] = &o->certificate,
        ['L'] = &o->label,
        ['o'] = &o->out,
    };
    if (letter == 'n')
        o->slot = number(value, LONG_MAX);
    else if (letter == 'y')
        o->years = number(value, 100);
    else if (letter == 'M')
        o->months = number(value, 120);
    else if (letter == 'i')
        set_key_id(o, value);
    else if (letter == 'j')
        o->json = 1;
    else if (!*value)
        misuse("empty value for --", option_name(letter));
    else
        *texts[letter] = value;
}

static void read_options(struct options *o, const struct command *c, int argc, char **argv)
{
    char seen[128] = "";
    int letter;
    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (letter == '?')
            exit(2);
        if (!strchr(c->needs, letter) && !strchr(c->takes, letter))
            misuse("this command does not take --", option_name(letter));
        seen[letter] = 1;
        set_option(o, letter, optarg);
    }
    if (optind < argc)
        misuse("not understood: ", argv[optind]);
    for (const char *need = c->needs; *need; need++)
        if (!seen[(int)*need])
            misuse("this command needs --", option_name(*need));
}

static const struct command *find_command(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            name = argv[i];
    if (strcmp(name, "--help") == 0 || strcmp(name, "--version") == 0) {
        fputs(name[2] == 'h' ? usage : "signet-ceremony " SIGNET_VERSION "\n", stdout);
        exit(argc > 1 ? 0 : 2);
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    misuse("there is no command ", name);
}

int main(int argc, char **argv)
{
    struct options o = {.slot = -1};
    struct err err = {0};
    const struct command *c = find_command(argc, argv);
    read_options(&o, c, argc - 1, argv + 1);
    prctl(PR_SET_DUMPABLE, 0); /* it holds a PIN: no core */
    signal(SIGPIPE, SIG_IGN);  /* a remoted module that loses its connection raises it */
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    int failed = c->run(&o, &err);
    if (failed)
        fprintf(stderr, "signet-ceremony %s: %s\n", c->name, err.text);
    if (fflush(stdout) && !failed) {
        fprintf(stderr, "signet-ceremony: cannot write the output\n");
        failed = 1;
    }
    /* not exit(): some modules crash in their exit handlers */
    _exit(!failed ? 0 : err.code == ERR_already_exists ? 3 : 1);
}
