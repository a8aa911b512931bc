/* signet: the client, on the operator's laptop.
 *
 * Holds: the operator's key (from its file, for TLS) and, while it makes it, a device's key.
 * Who may talk to it: nobody. It connects to the one server of its settings and believes only what
 * verifies up to the pinned root.
 * Never sees: a CA key, a token, a PIN. */
#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/commands.h"
#include "client/interrupt.h"

static const struct command commands[] = {
    {"init", FOR_INIT, cmd_init,
     "--server URL --ca-fingerprint SHA256 [--name NAME]\n       signet init --install FILE",
     "set up: pin the root, make the operator's key and request",
     "Pins the server's root by its fingerprint, proves the server against it, and makes the\n"
     "operator's key and request. --install takes the certificate that answers the request.\n\n"
     "The fingerprint comes from the CA's keeper, not from the server:\n"
     "  openssl x509 -in root.pem -noout -fingerprint -sha256",
     "  signet init --server https://ca.example:8443 --ca-fingerprint 5E:41:…:9B\n"
     "  signet init --install operator.pem\n"
     "  signet doctor                                    is all as it must be?"},
    {"provision", FOR_PROVISION, cmd_provision,
     "--mac MAC | --port PORT [--replace] [--profile NAME] [--out DIR]\n"
     "       signet provision --port PORT --flash [--firmware OFFSET=FILE]... [--format FORMAT]",
     "make a device's key and get its certificate; flash it",
     "Makes the key and a request for it, has the server sign it, verifies the certificate and\n"
     "saves DIR/<mac>/ with device.key, device.csr, device.crt, chain.pem and ca.pem. After an\n"
     "interruption, the same command goes on with the same key. A folder is never overwritten.\n\n"
     "A board that has a live certificate gets another one only with --replace: the server then\n"
     "revokes the older one (superseded), and a complete folder is kept as\n"
     "<mac>.replaced-<start of its serial> once the new certificate is verified. It needs the "
     "role\n"
     "revoker, unless the older certificate was yours and never verified on its board.\n\n"
     "--flash writes key and certificates to the board at the port, whose MAC esptool reads: into "
     "the\n"
     "partition that its table names, read back and compared. Then device.key is removed here, "
     "unless\n"
     "--keep-key. Stopped anywhere, the same command goes on and puts it right.",
     "  signet provision --mac 24:0a:c4:12:34:56 --out devices\n"
     "  signet provision --mac 24:0a:c4:12:34:56 --out devices --replace\n"
     "  signet provision --port /dev/ttyUSB0 --flash --firmware 0x10000=app.bin"},
    {"batch", FOR_BATCH, cmd_batch,
     "FILE.csv [--jobs N] [--results FILE] [--profile NAME] [--out DIR]\n"
     "       signet batch FILE.csv --flash [--firmware OFFSET=FILE]... [--format FORMAT]",
     "provision all boards of a CSV file; flash those at a port",
     "Provisions each board of the file as signet provision does. The first line names the "
     "columns:\n"
     "mac or port or both, profile (may be missing or empty), and any others, which are carried to "
     "the\n"
     "results. Bad lines are all named before anything is sent.\n\n"
     "A line with a port is for the board that is there, one after the other: its MAC is read (and "
     "must\n"
     "be the line's, if that has one), and with --flash it is flashed, read back and compared. A "
     "board\n"
     "that is at the port of a line that was done with another one is left alone and fails.\n\n"
     "Stopped in any way and given again, the same command goes on where it was, and no board "
     "gets\n"
     "two certificates. A board that is refused does not stop the others; the same command tries "
     "it\n"
     "again. The results, FILE.results.csv, have a line a board, each on the disk before the next.",
     "  signet batch devices.csv --out devices --jobs 4\n"
     "  signet batch devices.csv --json | jq -r 'select(.status == \"ERROR\")'\n"
     "  signet batch rack.csv --out devices --flash --firmware 0x10000=app.bin\n"
     "A file:\n"
     "  mac,profile,site                        port,mac,site\n"
     "  24:0a:c4:12:34:56,device,hall 7         /dev/ttyUSB0,,hall 7"},
    {"station", FOR_STATION, cmd_station,
     "[--limit N] [--firmware OFFSET=FILE]... [--profile NAME] [--out DIR]\n"
     "                      [--ports PATTERN]",
     "provision and flash board after board",
     "Waits for a board on a new serial port, does what signet provision --flash does, and shows "
     "PASS\n"
     "or FAIL, the MAC and the reason. The board must be taken off before the next is begun; of "
     "two\n"
     "that are plugged in, one is done after the other. A board that was done before is asked "
     "about\n"
     "(or, without a terminal, fails). A port that is there at the start is left alone.\n\n"
     "Ctrl-C ends after the board that is under way, a second one at once; the same board plugged "
     "in\n"
     "again goes on where it was. While the server is away boards fail, and the station goes on.",
     "  signet station --out devices --firmware 0x10000=app.bin --limit 50\n"
     "  signet station --out devices --ports '/dev/serial/by-id/*CP2102*'\n"
     "  signet station --out devices --json </dev/null | jq -r '[.result, .mac] | @csv'"},
    {"renew", FOR_RENEW, cmd_renew, "DIR | --mac MAC [--new-key] [--out DIR]",
     "get a device's next certificate, by its present one",
     "Connects with the device's own key and certificate, so that no operator is needed, and asks "
     "for\n"
     "the next certificate: same subject, same profile. It is verified and put in place; the "
     "older\n"
     "one is kept as device.crt.<start of its serial>, and stays valid until its end. The key "
     "stays\n"
     "the same; --new-key makes a new one. After an interruption, the same command goes on.\n\n"
     "An expired certificate renews for as long as its profile says (device: 30 days), a revoked "
     "one\n"
     "never: then it is signet provision --replace.",
     "  signet renew devices/240ac4123456\n"
     "  signet renew --mac 24:0a:c4:12:34:56 --out devices --new-key"},
    {"server-cert", FOR_SERVER_CERT, cmd_server_cert,
     "--csr FILE --out FILE\n"
     "       signet server-cert --name HOST [--name HOST]... --out-key FILE --out FILE",
     "get a certificate for a server, such as a broker",
     "With --csr, certifies the names of the request's subjectAltName; with --name, makes key "
     "(0600)\n"
     "and request here. --out gets the certificate and the intermediates behind it, as servers "
     "want\n"
     "it. The role admin is needed, and the server's profile must allow the names (allowed_names); "
     "the\n"
     "request is signed with the operator's key.\n\n"
     "For the next one, a year later: move FILE away and give the same command; a key that is "
     "there\n"
     "is used again.",
     "  signet server-cert --name mqtt.example.org --out-key mqtt.key --out mqtt.crt\n"
     "  signet server-cert --csr mqtt.csr --out mqtt.crt"},
    {"revoke", FOR_REVOKE, cmd_revoke,
     "--serial HEX | --certificate FILE | --mac MAC | --serials FILE |\n"
     "                     --issued-by OPERATOR [--from TIME] [--to TIME] [--reason REASON]",
     "revoke certificates, for good",
     "Revokes one certificate, all live ones of a board, those of a list (at most 1000), or all "
     "that an\n"
     "operator had issued, within the times given: together or not at all, with one new CRL. What "
     "can\n"
     "be more than one is signed with the operator's key. The role revoker is needed.\n\n"
     "REASON is unspecified, keyCompromise, CACompromise, affiliationChanged, superseded,\n"
     "cessationOfOperation, privilegeWithdrawn, or certificateHold (as signet hold).",
     "  signet revoke --certificate devices/240ac4123456/device.crt --reason keyCompromise\n"
     "  signet revoke --mac 24:0a:c4:12:34:56 --reason cessationOfOperation\n"
     "A lost laptop: its operator (on the server), then what was issued with it; look first\n"
     "  signetctl operator revoke --name kim@bench-2\n"
     "  signet list --operator kim@bench-2 --from 2026-11-20 --state issued\n"
     "  signet revoke --issued-by kim@bench-2 --from 2026-11-20 --reason keyCompromise"},
    {"hold", FOR_HOLD, cmd_hold, "--serial HEX | --certificate FILE | --mac MAC | --serials FILE",
     "take certificates out of use for now",
     "Puts certificates on the CRL as certificateHold: verifiers refuse them until signet unhold, "
     "or\n"
     "for good after signet revoke. The role revoker is needed.",
     "  signet hold --mac 24:0a:c4:12:34:56\n"
     "  signet list --state held"},
    {"unhold", FOR_UNHOLD, cmd_unhold,
     "--serial HEX | --certificate FILE | --mac MAC | --serials FILE", "lift a hold",
     "Takes certificates that are on hold off the CRL. What is revoked stays revoked.",
     "  signet unhold --mac 24:0a:c4:12:34:56\n"
     "  signet list --state held --json | jq -r .serial | signet unhold --serials -"},
    {"list", FOR_LIST, cmd_list,
     "[--mac MAC] [--state STATE] [--board STATE] [--operator NAME]\n                   "
     "[--from TIME] [--to TIME] [--limit N]",
     "list certificates",
     "Lists what the CA has issued, oldest first. STATE is issued, revoked, held, or orphan "
     "(never\n"
     "handed out; on the CRL to be safe); a board's is issued (nobody reported it flashed), "
     "flashed "
     "or\nverified. Times are UTC and those of the issuing.",
     "  signet list --mac 24:0a:c4:12:34:56\n"
     "  signet list --operator kim@bench-2 --from 2026-11-20 --to 2026-11-23\n"
     "  signet list --state issued --board issued\n"
     "  signet list --state revoked --json | jq -r '[.serial, .name, .reason] | @csv'"},
    {"show", FOR_SHOW, cmd_show, "--serial HEX | --mac MAC | FILE",
     "show a certificate as the CA knows it",
     "Shows one certificate with its state, and what there is to do. By MAC it is the newest live "
     "one.\n"
     "--json gives the certificate as well.",
     "  signet show --mac 24:0a:c4:12:34:56\n"
     "  signet show devices/240ac4123456/device.crt\n"
     "  signet show --serial 4f1d… --json | jq -r .certificate | base64 -d > device.crt"},
    {"verify", FOR_VERIFY, cmd_verify, "FILE | DIR | --mac MAC [--crl FILE | --offline]",
     "check a certificate or a device's folder",
     "Verifies chain, key and revocation. The CRL is the server's unless --crl or --offline.",
     "  signet verify devices/240ac4123456\n"
     "  signet verify --mac 24:0a:c4:12:34:56 --out devices --crl crl.pem"},
    {"crl", FOR_CRL, cmd_crl, "[--out FILE]", "fetch the CRL",
     "Fetches the CRL and verifies it. A newer one in FILE is never replaced by an older one.",
     "  signet crl --out /etc/mosquitto/crl.pem"},
    {"image", FOR_IMAGE, cmd_image,
     "DIR --format nvs|secure-cert|raw --out FILE [--encoding pem|der] [--size BYTES]\n"
     "       signet image --inspect FILE [--keys FILE]",
     "make or read an image for a board's flash",
     "Makes an image of a flash partition from a device's folder, without the server: key, "
     "certificate\n"
     "with its chain (the leaf first), and CA, for NVS (plain or encrypted), for esp_secure_cert, "
     "or as\n"
     "plain files and a C header. The image is as long as the partition, so nothing older "
     "survives. "
     "An\n"
     "existing file is not overwritten.\n\n"
     "--inspect says what is in an image and what is wrong with it: exit code 6 when it is "
     "damaged, or\n"
     "key and certificate are no pair, 5 when it is no image. It never prints the key.",
     "  signet image devices/240ac4123456 --format nvs --size 0x6000 --out nvs.bin\n"
     "  signet image devices/240ac4123456 --format nvs --size 24K --encrypt --keys-out keys.bin "
     "\\\n"
     "               --out nvs.bin\n"
     "  signet image devices/240ac4123456 --format secure-cert --out esp_secure_cert.bin\n"
     "  signet image --inspect esp_secure_cert.bin"},
    {"doctor", FOR_DOCTOR, cmd_doctor, "[--out DIR]", "check the set-up, line by line",
     "Checks config file, root, operator certificate and key, the server, its clock and "
     "readiness,\n"
     "whether it accepts the operator, the CRL, esptool and the output folder, and says for each "
     "what\n"
     "is to be done. Changes nothing. The exit code is that of the first FAIL; a warning is none.",
     "  signet doctor\n"
     "  signet doctor --json | jq -r 'select(.result == \"fail\") | .check'"},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static void help(FILE *to)
{
    fprintf(to, "Usage: signet COMMAND [OPTION]...\n\n"
                "Device keys and certificates from a Signet certificate authority.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(to,
            "\nFrom nothing to a device:\n"
            "  signet init --server https://ca.example:8443 --ca-fingerprint SHA256\n"
            "  signet init --install operator.pem        (what the CA's keeper answered)\n"
            "  signet doctor\n"
            "  signet provision --mac 24:0a:c4:12:34:56\n\n"
            "Settings are in ~/.config/signet/signet.conf, which init writes. Every command takes\n"
            "--json. signet COMMAND --help describes each, with examples; signet --version;\n"
            "man signet\n");
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

/* Keys are in memory here, and in what this process starts: no core of either. And no file may get
 * the number of a standard one that is closed, or answers would be written into it. */
static int prepare(void)
{
    const struct rlimit no_core = {0, 0};
    int fd = 0;
    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd < 0)
        return -1;
    close(fd);
    return setrlimit(RLIMIT_CORE, &no_core);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("signet " SIGNET_VERSION "\n");
        return EXIT_DONE;
    }
    if (prepare())
        return EXIT_LOCAL;
    interrupt_catch();
    curl_global_init(CURL_GLOBAL_DEFAULT);
    int code = run_named(argc, argv);
    curl_global_cleanup();
    return code;
}
