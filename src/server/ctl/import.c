/* signetctl import: certificates that this CA issued and the store does not know (after a restore),
 * from what the laptops kept. signetd verifies each; here only what is plainly not one is left. */
#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/file.h"
#include "pki/issuer.h"
#include "server/ctl/ctl.h"

#define FILE_MAX (256 * 1024)

struct import {
    struct ctl *c;
    const char *profile;
    struct issuer *issuer;
    uint64_t files, taken, others, refused;
    int rc;
};

static int usage(int code)
{
    fprintf(
        code ? stderr : stdout,
        "usage: signetctl import [--profile PROFILE] FILE|FOLDER …\n"
        "\n"
        "After a restore: tells signetd of certificates that were issued after the backup. PEM\n"
        "files, or folders: every .crt and .pem below is looked at, so a laptop's folder of\n"
        "devices or an old STATE/certs is taken whole. What this CA did not sign is passed "
        "over,\nwhat the store knows already is no error.\n"
        "\n"
        "  --profile PROFILE  by which they were issued (default: device)\n");
    return code;
}

/* ---- one certificate ---- */

static int is_ours(const struct import *im, X509 *x)
{
    int ours = X509_verify(x, X509_get0_pubkey(issuer_certificate(im->issuer))) == 1;
    ERR_clear_error();
    return ours;
}

static void say_refused(struct import *im, const char *path)
{
    im->refused++;
    if (im->c->json) {
        printf("{\"status\":\"ERROR\",\"file\":");
        json_string(path);
        printf(",\"error\":{\"code\":\"%s\",\"message\":", err_name(im->c->err.code));
        json_string(im->c->err.text);
        printf("}}\n");
    } else {
        ctl_progress_end(im->c);
        fprintf(stderr, "%s: %s\n", path, im->c->err.text);
    }
}

/* 0, or the exit code that ends it all: a refusal of one does not. */
static int send_one(struct import *im, const char *path, X509 *x)
{
    struct msg_answer_certificate answer;
    unsigned char *der = NULL;
    int n = i2d_X509(x, &der);
    if (n <= 0)
        return 0;
    struct msg_admin_import m = {.profile = im->profile, .name = "", .der = {der, (size_t)n}};
    int rc = ctl_try(im->c, MSG_admin_import, &m);
    OPENSSL_free(der);
    if (rc == EXIT_REFUSED)
        say_refused(im, path);
    if (rc == EXIT_DONE && (rc = ctl_expect(im->c, MSG_answer_certificate, &answer)) == EXIT_DONE)
        im->taken++;
    return rc == EXIT_REFUSED ? EXIT_DONE : rc;
}

/* ---- files and folders ---- */

/* The first certificate of a file: what follows is its chain. */
static X509 *first_certificate(struct bytes pem)
{
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    X509 *x = in ? PEM_read_bio_X509(in, NULL, NULL, NULL) : NULL;
    BIO_free(in);
    ERR_clear_error();
    return x;
}

static int take_file(struct import *im, const char *path, int is_named)
{
    struct buf text;
    if (file_read(&text, path, FILE_MAX, &im->c->err)) {
        if (is_named)
            say_refused(im, path);
        else
            im->others++;
        return 0;
    }
    X509 *x = first_certificate(buf_view(&text));
    int rc = 0;
    im->files++;
    if (x && is_ours(im, x)) {
        rc = send_one(im, path, x);
    } else if (is_named) {
        err_set(&im->c->err, ERR_certificate_unknown,
                x ? "this CA's key did not sign it" : "there is no PEM certificate in it");
        say_refused(im, path);
    } else {
        im->others++;
    }
    X509_free(x);
    buf_free(&text);
    ctl_progress(im->c, "importing, files so far", im->files, 0);
    return rc;
}

static struct import *walking; /* nftw() passes no argument */

static int on_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    const char *dot = strrchr(path + at->base, '.');
    if (type != FTW_F || !dot || (strcmp(dot, ".crt") != 0 && strcmp(dot, ".pem") != 0))
        return 0;
    walking->rc = take_file(walking, path, 0);
    return walking->rc ? 1 : 0;
}

static int take_path(struct import *im, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        walking = im;
        im->rc = 0;
        if (nftw(path, on_entry, 16, FTW_PHYS) >= 0)
            return im->rc;
        err_set(&im->c->err, ERR_internal, "%s: %s", path, strerror(errno));
        return ctl_fail(im->c, EXIT_LOCAL);
    }
    return take_file(im, path, 1);
}

/* ---- the command ---- */

static int finish(struct import *im)
{
    ctl_progress_end(im->c);
    if (im->c->json)
        printf(
            "{\"status\":\"%s\",\"imported_or_known\":%llu,\"passed_over\":%llu,\"refused\":%llu}"
            "\n",
            im->refused ? "ERROR" : "OK", (unsigned long long)im->taken,
            (unsigned long long)im->others, (unsigned long long)im->refused);
    else
        printf("%llu certificates are in the store; %llu files of others were passed over; %llu "
               "refused\n",
               (unsigned long long)im->taken, (unsigned long long)im->others,
               (unsigned long long)im->refused);
    return im->refused ? EXIT_REFUSED : EXIT_DONE;
}

int cmd_import(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"profile", required_argument, NULL, 'p'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct import im = {.c = c, .profile = "device"};
    int option, rc;
    optind = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'p')
            return usage(option == 'h' ? EXIT_DONE : EXIT_USAGE);
        im.profile = optarg;
    }
    if (optind == argc)
        return usage(EXIT_USAGE);
    if (ctl_issuer(c, c->config->certificate, &im.issuer))
        return ctl_fail(c, EXIT_LOCAL);
    rc = ctl_connect(c, 1);
    for (; rc == EXIT_DONE && optind < argc; optind++)
        rc = take_path(&im, argv[optind]);
    issuer_free(im.issuer);
    return rc ? rc : finish(&im);
}
