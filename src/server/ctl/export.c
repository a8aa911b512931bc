/* signetctl export: every certificate, as CSV (RFC 4180) or JSON lines. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pki/crl.h"
#include "pki/mac.h"
#include "server/ctl/ctl.h"

struct export
{
    struct ctl *c;
    struct store_tx *tx;
    FILE *to;
    int jsonl;
    uint64_t done, total;
    struct operator_row operator_; /* the last one looked up; most rows share one */
};

static const char *const columns[] = {"serial",     "name",      "profile",    "state",
                                      "operator",   "issued_at", "not_before", "not_after",
                                      "revoked_at", "reason",    "sha256",     "board"};
#define COLUMNS (sizeof columns / sizeof *columns)

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: signetctl export [--format csv|jsonl] [--out FILE]\n"
            "\n"
            "Every certificate that the store knows: serial, name, profile, state, operator, "
            "dates,\nreason, SHA-256, board (issued, flashed, verified). Reads the database beside "
            "a running signetd.\n"
            "\n"
            "  --format FORMAT  csv (default) or jsonl, one JSON object a line (also by --json)\n"
            "  --out FILE       default: standard output\n");
    return code;
}

/* ---- a row ---- */

/* Quoted where it must be. */
static void write_csv(FILE *to, const char *text)
{
    if (!strpbrk(text, "\",\r\n")) {
        fputs(text, to);
        return;
    }
    putc('"', to);
    for (; *text; text++) {
        if (*text == '"')
            putc('"', to);
        putc(*text, to);
    }
    putc('"', to);
}

static void write_row(const struct export *e, const char *const values[COLUMNS])
{
    for (size_t i = 0; i < COLUMNS; i++) {
        if (!e->jsonl) {
            if (i)
                putc(',', e->to);
            write_csv(e->to, values[i]);
        } else if (values[i][0]) {
            fprintf(e->to, "%s\"%s\":", i ? "," : "{", columns[i]);
            json_write(e->to, values[i]);
        }
    }
    fputs(e->jsonl ? "}\n" : "\r\n", e->to);
}

static const char *when(char out[32], int64_t seconds)
{
    time_text(out, seconds);
    return seconds ? out : "";
}

static int on_certificate(const struct certificate_row *row, void *arg)
{
    struct export *e = arg;
    char serial[41], sha[65], issued[32], from[32], until[32], revoked[32];
    const char *operator_ = "", *reason = "";
    int is_device = mac_check(row->name, NULL) == 0;
    if (row->operator_id && row->operator_id != e->operator_.id &&
        tx_operator_by_id(e->tx, row->operator_id, &e->operator_))
        return -1;
    if (row->operator_id)
        operator_ = e->operator_.name;
    if (row->revoked_at && crl_reason_name(row->reason))
        reason = crl_reason_name(row->reason);
    hex_encode(serial, (struct bytes){row->serial, row->serial_len});
    hex_encode(sha, (struct bytes){row->der_sha256, 32});
    const char *const values[COLUMNS] = {serial,
                                         row->name,
                                         row->profile,
                                         certificate_state_name(row->state),
                                         operator_,
                                         when(issued, row->issued_at),
                                         when(from, row->not_before),
                                         when(until, row->not_after),
                                         when(revoked, row->revoked_at),
                                         reason,
                                         row->der.len ? sha : "",
                                         is_device ? board_state_name(row->board) : ""};
    write_row(e, values);
    if (e->to != stdout)
        ctl_progress(e->c, "exporting", ++e->done, e->total);
    return ferror(e->to) ? -1 : 0;
}

static int write_all(struct store_tx *tx, void *arg)
{
    struct export *e = arg;
    struct store_counts n;
    struct list_filter all = {.state = -1, .limit = UINT_MAX};
    e->tx = tx;
    if (tx_counts(tx, &n))
        return -1;
    e->total = n.issued + n.revoked + n.orphans + n.open;
    for (size_t i = 0; !e->jsonl && i < COLUMNS; i++)
        fprintf(e->to, "%s%s", columns[i], i + 1 < COLUMNS ? "," : "\r\n");
    return tx_list(tx, &all, on_certificate, e);
}

/* ---- where to ---- */

/* Under a temporary name until it is whole. */
static int to_file(struct export *e, struct store *s, const char *path)
{
    char tmp[PATH_MAX];
    int fd = snprintf(tmp, sizeof tmp, "%s.XXXXXX", path) < (int)sizeof tmp ? mkstemp(tmp) : -1;
    e->to = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!e->to)
        return err_set(&e->c->err, ERR_internal, "%s: %s", path, strerror(errno));
    int rc = store_read(s, write_all, e);
    if (rc == 0 && (fflush(e->to) || fchmod(fd, 0644) || fsync(fd) || rename(tmp, path)))
        rc = -1;
    if (rc)
        err_set(&e->c->err, ERR_internal, "%s: %s", path,
                ferror(e->to) ? strerror(errno) : "the store cannot be read");
    fclose(e->to);
    if (rc)
        unlink(tmp);
    return rc;
}

static int to_stdout(struct export *e, struct store *s)
{
    e->to = stdout;
    if (store_read(s, write_all, e) || fflush(stdout))
        return err_set(&e->c->err, ERR_internal, "the store cannot be read, or the output ended");
    return 0;
}

int cmd_export(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"format", required_argument, NULL, 'f'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct export e = {.c = c, .jsonl = c->json};
    const char *out = NULL;
    struct store *s;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'f' && (strcmp(optarg, "csv") == 0 || strcmp(optarg, "jsonl") == 0))
            e.jsonl = strcmp(optarg, "jsonl") == 0;
        else if (option == 'o')
            out = optarg;
        else
            return usage(option == 'h' ? EXIT_DONE : EXIT_USAGE);
    }
    if (optind < argc)
        return usage(EXIT_USAGE);
    if (ctl_store(c, &s))
        return ctl_fail(c, EXIT_LOCAL);
    int rc = out ? to_file(&e, s, out) : to_stdout(&e, s);
    store_close(s);
    ctl_progress_end(c);
    if (rc)
        return ctl_fail(c, EXIT_LOCAL);
    if (out && !c->json)
        printf("%llu certificates: %s\n", (unsigned long long)e.done, out);
    return EXIT_DONE;
}
