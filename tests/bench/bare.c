/* bench-bare: certificates in one process with no server around it: the server's own functions
 * parse and verify the CSR, check its key, build, sign in the token, verify and encode. Nothing is
 * stored and nothing sent. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pki/certificate.h"
#include "pki/csr.h"
#include "pki/mac.h"
#include "pool.h"
#include "stats.h"
#include "token_settings.h"
#include "wire.h"

struct maker {
    struct token_settings settings;
    struct profiles *profiles;
    const struct profile *profile;
    struct token *token;
};

static void prepare(struct maker *m, const char *config)
{
    struct err err;
    token_settings_read(&m->settings, config);
    const struct config *c = m->settings.config;
    if (profiles_load(&m->profiles, c->conf, m->settings.issuer, c->public_url, config_has_ocsp(c),
                      &err))
        die("%s", err.text);
    m->profile = profiles_find(m->profiles, "device");
    m->token = token_settings_open(&m->settings);
}

static int build(struct buf *tbs, const struct maker *m, const struct csr *csr, struct err *err)
{
    uint8_t serial[SERIAL_LEN];
    struct certificate_request request = {.issuer = m->settings.issuer,
                                          .profile = m->profile,
                                          .serial = {serial, sizeof serial},
                                          .spki = csr_spki(csr),
                                          .name = csr_cn(csr),
                                          .now = time(NULL)};
    return serial_make(serial, err) || certificate_build(tbs, &request, NULL, NULL, err);
}

static int sign(struct buf *der, const struct maker *m, struct bytes tbs, struct err *err)
{
    enum sign_alg alg = issuer_alg(m->settings.issuer);
    uint8_t digest[DIGEST_MAX], signature[SIGNATURE_MAX];
    size_t digest_len = sign_digest(alg, tbs, digest), len = sizeof signature;
    return token_sign(m->token, TOKEN_KEY_CA, alg, (struct bytes){digest, digest_len}, signature,
                      &len, err) ||
           certificate_assemble(der, m->settings.issuer, tbs, (struct bytes){signature, len}, err);
}

static void make(const struct maker *m, struct bytes request)
{
    struct err err = {.text = "no memory"};
    struct csr *csr;
    struct key_info info;
    struct buf tbs = {0}, der = {0};
    if (csr_parse(&csr, request, &err) ||
        key_check(csr_spki(csr), profile_keys(m->profile), &info, &err) || csr_verify(csr, &err) ||
        mac_check(csr_cn(csr), &err) || build(&tbs, m, csr, &err) ||
        sign(&der, m, buf_view(&tbs), &err))
        die("%s", err.text);
    char *pem = certificate_pem(buf_view(&der));
    char *text = pem ? base64_encode((struct bytes){(uint8_t *)pem, strlen(pem)}) : NULL;
    if (!text)
        die("no memory");
    free(text);
    free(pem);
    buf_free(&tbs);
    buf_free(&der);
    csr_free(csr);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"config", 1, NULL, 'c'},
                                          {"pool", 1, NULL, 'p'},
                                          {"count", 1, NULL, 'n'},
                                          {NULL, 0, NULL, 0}};
    const char *config = NULL, *path = NULL;
    size_t count = 0;
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'c')
            config = optarg;
        else if (c == 'p')
            path = optarg;
        else if (c == 'n')
            count = (size_t)atol(optarg);
    }
    if (!config || !path || !count) {
        fputs("usage: bench-bare --config signet.conf --pool FILE --count N\n", stderr);
        return 2;
    }
    struct maker m = {0};
    struct pool pool;
    struct stats times;
    alarm(300);
    prepare(&m, config);
    pool_load(&pool, path);
    stats_init(&times, count);
    make(&m, pool.csrs[0]);
    double begun = now_seconds(), cpu = cpu_seconds(), last = begun;
    for (size_t i = 0; i < count; i++) {
        make(&m, pool.csrs[i % pool.count]);
        double now = now_seconds();
        stats_add(&times, now - last);
        last = now;
    }
    cpu = cpu_seconds() - cpu;
    printf("{\"count\":%zu,\"rate\":%.2f,\"cpu_us\":%.3f,", count, (double)count / (last - begun),
           cpu / (double)count * 1e6);
    stats_print(&times);
    puts("}");
    stats_free(&times);
    pool_free(&pool);
    token_close(m.token);
    profiles_free(m.profiles);
    token_settings_free(&m.settings);
    return 0;
}
