/* Profiles of a configuration, whose samples are built as at the start. The input stands behind the
 * least that a configuration needs. Seeds: ../corpus/profile */
#include "ca.h"
#include "common/config.h"
#include "pki/profile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char head[] = "[server]\nstate = /tmp\nnames = DNS:localhost\n"
                           "[token]\nmodule = /m\nlabel = t\nkey_label = k\n";

static struct issuer *the_issuer(void)
{
    static struct issuer *issuer;
    struct err err;
    if (issuer)
        return issuer;
    EVP_PKEY *key = key_of(0x22);
    X509 *ca = ca_of("Fuzz CA", key, NULL, key);
    struct buf pem = pem_of(ca);
    must(!issuer_from_pem(&issuer, buf_view(&pem), &err));
    buf_free(&pem);
    X509_free(ca);
    EVP_PKEY_free(key);
    return issuer;
}

/* What every profile that is taken has. */
static void check(const struct profile *p)
{
    static const char *const names[] = {"DNS:mqtt.example.org", "IP:192.0.2.1", NULL};
    struct err err;
    const struct key_policy *keys = profile_keys(p);
    must(*profile_name(p) && (keys->rsa_min || keys->p256 || keys->p384));
    if (profile_check_names(p, names, &err) == 0)
        must(profile_check_name(p, "mqtt.example.org", &err) == 0 ||
             profile_name_kind(p) != NAME_HOSTNAME);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    struct profiles *all = NULL;
    struct buf text = {0};
    struct err err = {0};
    must(!buf_add(&text, head, sizeof head - 1) && !buf_add(&text, data, size));
    if (config_parse(&c, buf_view(&text), "fuzz.conf", &err) == 0 &&
        profiles_load(&all, c->conf, the_issuer(), c->public_url, 0, &err) == 0)
        for (const struct profile *p = NULL; (p = profiles_next(all, p));)
            check(p);
    else
        must(err.text[0]);
    profiles_free(all);
    config_free(c);
    buf_free(&text);
    return 0;
}
