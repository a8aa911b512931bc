/* signetctl enrolment add | list | end
 *
 * The password is made here and shown once; only its SHA-256 leaves this process otherwise. */
#include <getopt.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pki/mac.h"
#include "server/ctl/ctl.h"

#define USER_LEN 8
#define PASSWORD_SIZE 32 /* 28 characters of 5 bits in four groups, and the NUL */
#define DEFAULT_LIFETIME (7 * 86400)

struct enrolment_options {
    const char *mac, *count, *profile, *until, *name;
};

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: signetctl enrolment add [--mac MAC | --count N] [--profile PROFILE]\n"
            "                               [--until TIME] [--name USER]\n"
            "       signetctl enrolment list\n"
            "       signetctl enrolment end USER\n"
            "\n"
            "A user and a password, with which devices get their first certificate (EST).\n"
            "\n"
            "  --mac MAC          for this one board\n"
            "  --count N          for N certificates, of any boards; default: 1\n"
            "  --profile PROFILE  of these certificates; default: device\n"
            "  --until TIME       +12h, +7d, or a time such as 2026-11-23T12:00:00Z; default: +7d\n"
            "  --name USER        default: a random one\n"
            "\n"
            "The password is shown this once and stored nowhere: the server keeps its SHA-256.\n"
            "end lets nobody use it any more; the certificates that it led to stay. To revoke\n"
            "those: signet revoke --issued-by enrolment:USER\n");
    return code;
}

static int parse(int argc, char **argv, struct enrolment_options *o)
{
    static const struct option options[] = {{"mac", required_argument, NULL, 'm'},
                                            {"count", required_argument, NULL, 'c'},
                                            {"profile", required_argument, NULL, 'p'},
                                            {"until", required_argument, NULL, 'u'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'm':
            o->mac = optarg;
            break;
        case 'c':
            o->count = optarg;
            break;
        case 'p':
            o->profile = optarg;
            break;
        case 'u':
            o->until = optarg;
            break;
        case 'n':
            o->name = optarg;
            break;
        default:
            return option == 'h' ? usage(0) - 1 : usage(EXIT_USAGE);
        }
    }
    if (o->mac && o->count)
        fprintf(stderr, "signetctl: an enrolment is for one --mac or for a --count, not both\n\n");
    return optind < argc || (o->mac && o->count) ? usage(EXIT_USAGE) : 0;
}

/* ---- add ---- */

/* Crockford's base 32: no i, l, o, u; five bits a character. */
static int random_text(char *out, size_t count)
{
    static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
    unsigned char bytes[PASSWORD_SIZE];
    if (count > sizeof bytes || RAND_bytes(bytes, (int)count) != 1)
        return -1;
    for (size_t i = 0; i < count; i++)
        out[i] = alphabet[bytes[i] % 32];
    OPENSSL_cleanse(bytes, sizeof bytes);
    return 0;
}

/* xxxxxxx-xxxxxxx-xxxxxxx-xxxxxxx: 140 bits */
static int make_password(char out[PASSWORD_SIZE])
{
    if (random_text(out, PASSWORD_SIZE - 1))
        return -1;
    for (size_t i = 7; i < PASSWORD_SIZE - 1; i += 8)
        out[i] = '-';
    out[PASSWORD_SIZE - 1] = '\0';
    return 0;
}

static int take_until(struct msg_admin_enrolment_add *m, const char *until, struct err *err)
{
    struct tm tm = {0};
    if (!until)
        m->lifetime = DEFAULT_LIFETIME;
    if (!until)
        return 0;
    if (*until == '+')
        return duration_parse(&m->lifetime, until + 1, err);
    const char *end = strptime(until, "%Y-%m-%dT%H:%M:%SZ", &tm);
    m->not_after = end && !*end ? (int64_t)timegm(&tm) : 0;
    return m->not_after > 0 ? 0
                            : err_set(err, ERR_field_value,
                                      "--until: \"%s\" is not +12h, +7d or a time such as "
                                      "2026-11-23T12:00:00Z",
                                      until);
}

static int take_count(struct msg_admin_enrolment_add *m, const char *count, struct err *err)
{
    char *end;
    unsigned long n = count ? strtoul(count, &end, 10) : 1;
    m->count = (uint32_t)n;
    return count && (*count < '1' || *count > '9' || *end || n > 1000000)
               ? err_set(err, ERR_field_value, "--count: \"%s\" is not a number up to 1000000",
                         count)
               : 0;
}

static int print_added(const struct ctl *c, const struct msg_answer_enrolment *m,
                       const char *password)
{
    char until[32];
    time_text(until, m->not_after);
    setvbuf(stdout, NULL, _IONBF, 0); /* no copy of the password stays behind */
    if (c->json) {
        printf("{\"status\":\"OK\",\"user\":");
        json_string(m->user);
        printf(",\"password\":\"%s\",\"profile\":", password);
        json_string(m->profile);
        printf(",\"mac\":");
        json_string(m->mac);
        printf(",\"uses_max\":%u,\"not_after\":\"%s\"}\n", m->uses_max, until);
    } else {
        printf("user      %s\npassword  %s\n", m->user, password);
        fprintf(stderr, "for %s%s: %u, profile %s, until %s. The password is shown this once\n",
                m->mac[0] ? m->mac : "any board", m->mac[0] ? "" : "s", m->uses_max, m->profile,
                until);
    }
    return ferror(stdout);
}

static int add(struct ctl *c, const struct enrolment_options *o)
{
    char password[PASSWORD_SIZE], user[USER_LEN + 1] = "", mac[MAC_TEXT_SIZE] = "";
    uint8_t digest[32];
    struct msg_answer_enrolment answer;
    struct msg_admin_enrolment_add m = {.user = o->name ? o->name : user,
                                        .password_sha256 = {digest, 32},
                                        .profile = o->profile ? o->profile : "device",
                                        .mac = mac};
    if (take_until(&m, o->until, &c->err) || take_count(&m, o->count, &c->err) ||
        (o->mac && mac_from_text(mac, o->mac, &c->err)))
        return ctl_fail(c, EXIT_USAGE);
    if (random_text(user, USER_LEN) || make_password(password)) {
        err_set(&c->err, ERR_internal, "no random numbers: %s", err_openssl());
        return ctl_fail(c, EXIT_LOCAL);
    }
    sha256(digest, (struct bytes){(const uint8_t *)password, PASSWORD_SIZE - 1});
    int rc = ctl_connect(c, 1);
    if (rc == EXIT_DONE)
        rc = ctl_exchange(c, MSG_admin_enrolment_add, &m, MSG_answer_enrolment, &answer);
    if (rc == EXIT_DONE && print_added(c, &answer, password)) {
        err_set(&c->err, ERR_internal,
                "the password could not be written; signetctl enrolment end %s", answer.user);
        rc = ctl_fail(c, EXIT_LOCAL);
    }
    OPENSSL_cleanse(password, sizeof password);
    return rc;
}

/* ---- list, end ---- */

static void print_enrolment(const struct ctl *c, const struct msg_answer_enrolment *m)
{
    char until[32], uses[32];
    time_text(until, m->not_after);
    snprintf(uses, sizeof uses, "%u/%u", m->uses, m->uses_max);
    if (!c->json) {
        printf("%-16s %-8s %-9s %-20s %-24s %s\n", m->user, m->state, uses, until,
               m->mac[0] ? m->mac : "any", m->profile);
        return;
    }
    printf("{\"user\":");
    json_string(m->user);
    printf(",\"state\":\"%s\",\"uses\":%u,\"uses_max\":%u,\"not_after\":\"%s\",\"mac\":", m->state,
           m->uses, m->uses_max, until);
    json_string(m->mac);
    printf(",\"profile\":");
    json_string(m->profile);
    printf("}\n");
}

/* One page; 1: there are more after *last. */
static int list_page(struct ctl *c, char last[65], int *rc)
{
    struct msg_admin_enrolment_list m = {.after = last};
    struct msg_answer_enrolment row;
    struct msg_answer_end end = {0};
    *rc = ctl_ask(c, MSG_admin_enrolment_list, &m);
    while (*rc == EXIT_DONE && c->in.type == MSG_answer_enrolment &&
           msg_decode(&row, MSG_answer_enrolment, c->in.fields) == 0) {
        print_enrolment(c, &row);
        snprintf(last, 65, "%s", row.user);
        *rc = ctl_next(c);
    }
    if (*rc == EXIT_DONE)
        *rc = ctl_expect(c, MSG_answer_end, &end);
    return *rc == EXIT_DONE && end.more;
}

static int list(struct ctl *c)
{
    char last[65] = "";
    int rc = ctl_connect(c, 1);
    if (rc)
        return rc;
    if (!c->json)
        printf("%-16s %-8s %-9s %-20s %-24s %s\n", "USER", "STATE", "USES", "UNTIL", "MAC",
               "PROFILE");
    while (list_page(c, last, &rc))
        ;
    return rc;
}

static int end(struct ctl *c, const char *user)
{
    struct msg_admin_enrolment_end m = {.user = user};
    struct msg_answer_enrolment answer;
    int rc;
    if ((rc = ctl_connect(c, 1)) ||
        (rc = ctl_exchange(c, MSG_admin_enrolment_end, &m, MSG_answer_enrolment, &answer)))
        return rc;
    if (c->json)
        print_enrolment(c, &answer);
    else
        printf("enrolment %s is ended; %u of %u uses were spent\n", answer.user, answer.uses,
               answer.uses_max);
    return EXIT_DONE;
}

int cmd_enrolment(struct ctl *c, int argc, char **argv)
{
    struct enrolment_options o = {0};
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "--help") == 0 || (argc > 2 && strcmp(argv[argc - 1], "--help") == 0))
        return usage(EXIT_DONE);
    if (strcmp(what, "list") == 0 && argc == 2)
        return list(c);
    if (strcmp(what, "end") == 0 && argc == 3)
        return end(c, argv[2]);
    if (strcmp(what, "add") != 0)
        return usage(EXIT_USAGE);
    int rc = parse(argc - 1, argv + 1, &o);
    return rc ? rc < 0 ? EXIT_DONE : rc : add(c, &o);
}
