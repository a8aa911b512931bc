/* signetctl operator issue | list | revoke */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "pki/certificate.h"
#include "pki/crl.h"
#include "pki/csr.h"
#include "server/ctl/ctl.h"

struct operator_options {
    const char *csr, *roles, *name, *out, *reason;
};

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: signetctl operator issue --csr FILE --role ROLES [--name NAME] [--out FILE]\n"
            "       signetctl operator list\n"
            "       signetctl operator revoke --name NAME [--reason REASON]\n"
            "\n"
            "  --csr FILE       the request that `signet init` made\n"
            "  --role ROLES     provisioner, revoker, admin, auditor; several with commas\n"
            "  --name NAME      the operator's name; default: the request's CN\n"
            "  --out FILE       where the certificate goes; default: standard output\n"
            "  --reason REASON  keyCompromise, cessationOfOperation, … (RFC 5280 section 5.3.1)\n"
            "\n"
            "The same name again renews that operator's certificate; the older one stays in force\n"
            "until it ends. A revoked name is not used again.\n");
    return code;
}

static int parse(int argc, char **argv, struct operator_options *o)
{
    static const struct option options[] = {{"csr", required_argument, NULL, 'c'},
                                            {"role", required_argument, NULL, 'r'},
                                            {"name", required_argument, NULL, 'n'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"reason", required_argument, NULL, 'e'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            o->csr = optarg;
            break;
        case 'r':
            o->roles = optarg;
            break;
        case 'n':
            o->name = optarg;
            break;
        case 'o':
            o->out = optarg;
            break;
        case 'e':
            o->reason = optarg;
            break;
        default:
            return option == 'h' ? usage(0) - 1 : usage(EXIT_USAGE);
        }
    }
    return optind < argc ? usage(EXIT_USAGE) : 0;
}

/* ---- issue ---- */

static int print_certificate(struct ctl *c, const struct operator_options *o, const char *name,
                             const struct msg_answer_certificate *m)
{
    char serial[41];
    char *pem = certificate_pem(m->der);
    hex_encode(serial, m->serial);
    if (!pem) {
        err_set(&c->err, ERR_internal, "no memory");
        return ctl_fail(c, EXIT_LOCAL);
    }
    int rc = EXIT_DONE;
    if (o->out &&
        file_write(o->out, (struct bytes){(const uint8_t *)pem, strlen(pem)}, 0644, 0, &c->err)) {
        rc = ctl_fail(c, EXIT_LOCAL);
    } else if (c->json) {
        printf("{\"status\":\"OK\",\"operator\":");
        json_string(name);
        printf(",\"serial\":\"%s\",\"certificate\":", serial);
        json_string(pem);
        printf("}\n");
    } else {
        if (!o->out)
            fputs(pem, stdout);
        fprintf(stderr, "operator %s, serial %s%s%s\n", name, serial, o->out ? ": " : "",
                o->out ? o->out : "");
    }
    free(pem);
    return rc;
}

/* The request's own claims are checked here as a front would: proof of possession, key. */
static int read_csr(struct ctl *c, const char *path, struct csr **csr)
{
    static const struct key_policy any = {2048, 4096, 1, 1};
    struct key_info info;
    struct buf text;
    if (file_read(&text, path, CSR_SIZE_MAX, &c->err))
        return -1;
    int rc = csr_parse(csr, buf_view(&text), &c->err);
    buf_free(&text);
    if (rc == 0)
        rc = key_check(csr_spki(*csr), &any, &info, &c->err) || csr_verify(*csr, &c->err) ? -1 : 0;
    return rc ? err_prefix(&c->err, "%s", path) : 0;
}

static int issue(struct ctl *c, const struct operator_options *o)
{
    struct csr *csr = NULL;
    struct msg_answer_certificate answer;
    uint8_t digest[32];
    int rc;
    if (!o->csr || !o->roles)
        return usage(EXIT_USAGE);
    unsigned roles = roles_parse(o->roles, &c->err);
    if (!roles)
        return ctl_fail(c, EXIT_USAGE);
    if (read_csr(c, o->csr, &csr)) {
        rc = ctl_fail(c, EXIT_LOCAL);
        goto out;
    }
    sha256(digest, csr_der(csr));
    struct msg_admin_operator_issue m = {.name = o->name ? o->name : csr_cn(csr),
                                         .roles = roles,
                                         .csr_digest = {digest, 32},
                                         .spki = csr_spki(csr)};
    if ((rc = ctl_connect(c, 1)) == EXIT_DONE &&
        (rc = ctl_exchange(c, MSG_admin_operator_issue, &m, MSG_answer_certificate, &answer)) ==
            EXIT_DONE)
        rc = print_certificate(c, o, m.name, &answer);
out:
    csr_free(csr);
    return rc;
}

/* ---- list ---- */

static void print_operator(const struct ctl *c, const struct msg_answer_operator *m)
{
    char serial[41], until[32], roles[48];
    hex_encode(serial, m->serial);
    roles_text(roles, sizeof roles, m->roles);
    time_text(until, m->not_after);
    if (!c->json) {
        printf("%-24s %-28s %-15s %-20s %s\n", m->name, roles, m->state, until,
               serial[0] ? serial : "-");
        return;
    }
    printf("{\"operator\":");
    json_string(m->name);
    printf(",\"roles\":\"%s\",\"state\":\"%s\",\"not_after\":\"%s\",\"serial\":\"%s\"}\n", roles,
           m->state, until, serial);
}

/* One page; 1: there are more after *last. */
static int list_page(struct ctl *c, char last[65], int *rc)
{
    struct msg_admin_operator_list m = {.after = last};
    struct msg_answer_operator row;
    struct msg_answer_end end = {0};
    *rc = ctl_ask(c, MSG_admin_operator_list, &m);
    while (*rc == EXIT_DONE && c->in.type == MSG_answer_operator &&
           msg_decode(&row, MSG_answer_operator, c->in.fields) == 0) {
        print_operator(c, &row);
        snprintf(last, 65, "%s", row.name);
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
        printf("%-24s %-28s %-15s %-20s %s\n", "OPERATOR", "ROLES", "STATE", "UNTIL", "SERIAL");
    while (list_page(c, last, &rc))
        ;
    return rc;
}

/* ---- revoke ---- */

static int revoke(struct ctl *c, const struct operator_options *o)
{
    struct msg_answer_end end = {0};
    int reason = o->reason ? crl_reason_from_name(o->reason) : REASON_PRIVILEGE_WITHDRAWN, rc;
    if (!o->name)
        return usage(EXIT_USAGE);
    if (reason < 0 || reason == REASON_HOLD) {
        err_set(&c->err, ERR_field_value, "\"%s\" is not a reason for a revocation", o->reason);
        return ctl_fail(c, EXIT_USAGE);
    }
    struct msg_admin_operator_revoke m = {.name = o->name, .reason = (uint8_t)reason};
    if ((rc = ctl_connect(c, 1)) ||
        (rc = ctl_exchange(c, MSG_admin_operator_revoke, &m, MSG_answer_end, &end)))
        return rc;
    if (c->json) {
        printf("{\"status\":\"OK\",\"operator\":");
        json_string(o->name);
        printf(",\"certificates_revoked\":%u}\n", end.count);
    } else {
        printf("operator %s is revoked, with %u certificate%s\n", o->name, end.count,
               end.count == 1 ? "" : "s");
    }
    return EXIT_DONE;
}

int cmd_operator(struct ctl *c, int argc, char **argv)
{
    struct operator_options o = {0};
    if (argc >= 2 && strcmp(argv[1], "--help") == 0)
        return usage(0);
    if (argc < 2)
        return usage(EXIT_USAGE);
    int rc = parse(argc - 1, argv + 1, &o);
    if (rc)
        return rc < 0 ? EXIT_DONE : rc;
    if (strcmp(argv[1], "issue") == 0)
        return issue(c, &o);
    if (strcmp(argv[1], "list") == 0)
        return list(c);
    if (strcmp(argv[1], "revoke") == 0)
        return revoke(c, &o);
    return usage(EXIT_USAGE);
}
