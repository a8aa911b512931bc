#include "client/provision.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/keys.h"
#include "client/obtain.h"

int board_settings(struct board *b, const struct session *s, struct failure *f)
{
    b->key_type = s->settings.key_type ? s->settings.key_type : KEY_TYPE_DEFAULT;
    b->out = s->settings.out ? s->settings.out : ".";
    return key_type_check(b->key_type, f);
}

/* Asks for it, also once more after an interruption: the same request has the same id. With
 * replace it is another request, so it has another one. */
static int ask(struct issued *out, struct session *s, const struct device_dir *d,
               const struct board *b, struct failure *f)
{
    char id[33], context[128];
    const char *profile = b->profile ? b->profile : PROFILE_DEFAULT;
    snprintf(context, sizeof context, "%s%s", profile, b->replace ? " replace" : "");
    struct wanted w = {.operation = "req_client_cert",
                       .csr = d->csr,
                       .profile = profile,
                       .request_id = id,
                       .replace = b->replace,
                       .name = d->mac,
                       .purpose = X509_PURPOSE_SSL_CLIENT};
    if (request_id_of(id, context, d->csr))
        return fail_memory(f);
    if (obtain(out, s, &w, f) == 0)
        return 0;
    if (strcmp(f->code, "subject_has_certificate") == 0)
        fail_add(f, "with this client: signet provision --mac %s --replace", d->mac);
    return -1;
}

/* A failure leaves either nothing or what the next run goes on with; says which. */
static int leave(struct device_dir *d, struct failure *f)
{
    if (d->resumed || !f->nothing_done)
        return fail_add(f, "the key waits in %s: the same command goes on with it", d->pending);
    device_dir_discard(d);
    return f->exit > EXIT_SIGNAL ? fail_add(f, "nothing was sent and nothing is left") : -1;
}

static void describe(struct provisioned *out, struct device_dir *d, X509 *cert)
{
    snprintf(out->mac, sizeof out->mac, "%s", d->mac);
    serial_text(out->serial, X509_get0_serialNumber(cert));
    time_text(out->not_before, X509_get0_notBefore(cert));
    time_text(out->not_after, X509_get0_notAfter(cert));
    out->folder = d->final;
    out->aside = d->aside;
    out->resumed = d->resumed;
    d->final = d->aside = NULL;
}

int provision(struct provisioned *out, struct session *s, const struct board *b, struct failure *f)
{
    struct device_dir d;
    struct issued issued = {0};
    int rc = -1;
    *out = (struct provisioned){0};
    if (device_dir_open(&d, b->out, b->mac, b->key_type, b->replace, f)) {
        if (f->exit > EXIT_SIGNAL)
            fail_add(f, "nothing was sent and nothing is left");
        goto out;
    }
    if (ask(&issued, s, &d, b, f) ||
        device_dir_finish(&d, issued.cert, issued.between, s->root, f)) {
        leave(&d, f);
        goto out;
    }
    describe(out, &d, issued.cert);
    rc = 0;
out:
    issued_free(&issued);
    device_dir_close(&d);
    return rc;
}

void provisioned_free(struct provisioned *p)
{
    free(p->folder);
    free(p->aside);
}
