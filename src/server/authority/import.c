#include "server/authority/import.h"

#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "pki/point.h"
#include "pki/profile.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"
#include "server/authority/publish.h"

struct import {
    struct authority *a;
    struct question *q;
    struct buf der;
    struct certificate_row row;
    struct err err;
    int is_new, was_orphan;
};

/* ---- what the certificate says ---- */

static int take_time(int64_t *out, const ASN1_TIME *t)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return -1;
    *out = timegm(&tm);
    return 0;
}

static int take_serial(struct certificate_row *row, const X509 *x)
{
    BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL);
    int len = n ? BN_num_bytes(n) : 0;
    int ok = len > 0 && len <= (int)sizeof row->serial && !BN_is_negative(n) && BN_num_bits(n) % 8;
    if (ok)
        row->serial_len = (size_t)BN_bn2bin(n, row->serial);
    BN_free(n);
    return ok ? 0 : -1;
}

static int take_digests(struct certificate_row *row, X509 *x)
{
    unsigned char *tbs = NULL, *spki = NULL;
    int t = i2d_re_X509_tbs(x, &tbs), k = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &spki);
    if (t > 0)
        sha256(row->tbs_sha256, (struct bytes){tbs, (size_t)t});
    if (k > 0)
        sha256(row->spki_sha256, (struct bytes){spki, (size_t)k});
    OPENSSL_free(tbs);
    OPENSSL_free(spki);
    return t > 0 && k > 0 ? 0 : -1;
}

/* Its CN is the name that the store knows it by. */
static int take_name(struct certificate_row *row, const X509 *x)
{
    int n = X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, row->name,
                                      sizeof row->name);
    return n > 0 && (size_t)n == strlen(row->name) ? 0 : -1;
}

/* Only what the CA's own key signed is taken. */
static int read_certificate(struct import *im, struct bytes der)
{
    const unsigned char *p = der.data;
    X509 *x = d2i_X509(NULL, &p, (long)der.len);
    EVP_PKEY *ca = X509_get0_pubkey(issuer_certificate(im->a->issuer));
    int ok = x && p == der.data + der.len && X509_verify(x, ca) == 1;
    ERR_clear_error();
    if (!ok) {
        X509_free(x);
        return err_set(&im->err, ERR_certificate_unknown, "this CA's key did not sign it");
    }
    ok = take_serial(&im->row, x) == 0 && take_name(&im->row, x) == 0 &&
         take_digests(&im->row, x) == 0 &&
         take_time(&im->row.not_before, X509_get0_notBefore(x)) == 0 &&
         take_time(&im->row.not_after, X509_get0_notAfter(x)) == 0;
    im->row.shard = (int)point_shard(x);
    X509_free(x);
    return ok ? 0 : err_set(&im->err, ERR_field_value, "its serial, name or dates are unusual");
}

/* ---- into the store ---- */

/* operator 0 would make it nobody's and so not revocable over the wire: it belongs to the operator
 * "import", who has no certificate and no right. */
static int import_operator(struct store_tx *tx, struct import *im, int64_t now)
{
    struct operator_row op;
    int rc = tx_operator_by_name(tx, "import", &op);
    if (rc == 1) {
        op = (struct operator_row){.name = "import"};
        rc = tx_add_operator(tx, &op, now);
    }
    im->row.operator_id = op.id;
    return rc;
}

/* A row that has no certificate, only a revocation (an orphan, or taken from a CRL by a restore),
 * takes this one and stays revoked; else it is a new row. */
static int add(struct store_tx *tx, struct import *im, const struct certificate_row *known,
               const uint8_t digest[32], int64_t now)
{
    im->is_new = known == NULL;
    im->was_orphan = known && known->state == STATE_ORPHAN;
    if (known) {
        im->row.id = known->id;
        return tx_set_found(tx, &im->row, buf_view(&im->der), digest, now);
    }
    return tx_add_intent(tx, &im->row) ||
                   tx_set_issued(tx, im->row.id, buf_view(&im->der), digest, now)
               ? -1
               : 0;
}

static int decide(struct store_tx *tx, void *arg)
{
    struct import *im = arg;
    struct certificate_row known;
    uint8_t digest[32];
    char serial[41], hex[65];
    int64_t now = clock_now(im->a->clock);
    struct bytes number = {im->row.serial, im->row.serial_len};
    im->is_new = im->was_orphan = 0;
    sha256(digest, buf_view(&im->der));
    int rc = tx_certificate_by_serial(tx, im->a->issuer_id, number, &known);
    if (rc < 0)
        return err_set(&im->err, ERR_storage_unavailable, NULL);
    if (rc == 0 && memcmp(known.der_sha256, digest, 32) == 0)
        return 0;
    if (rc == 0 && (known.der.len || known.state < STATE_REVOKED))
        return err_set(&im->err, ERR_already_exists,
                       "the store knows another certificate of this serial");
    const struct profile *p = profiles_find(im->a->profiles, im->row.profile);
    if (!p || profile_check_name(p, im->row.name, &im->err))
        return -1;
    im->row.issuer = im->a->issuer_id;
    im->row.created_at = now;
    hex_encode(serial, number);
    hex_encode(hex, (struct bytes){digest, 32});
    if (import_operator(tx, im, now) || publish_keep_shards(tx, (unsigned)im->row.shard) ||
        add(tx, im, rc == 0 ? &known : NULL, digest, now) ||
        tx_event(tx, now, im->row.id, "imported serial=%s profile=%s name=%s sha256=%s", serial,
                 im->row.profile, im->row.name, hex))
        return err_set(&im->err, ERR_storage_unavailable, NULL);
    return 0;
}

static void after(int durable, void *arg)
{
    struct import *im = arg;
    if (durable) {
        struct msg_answer_certificate m = {.serial = {im->row.serial, im->row.serial_len},
                                           .der = buf_view(&im->der)};
        im->a->counts.issued += (uint64_t)im->is_new;
        im->a->counts.orphans -= (uint64_t)im->was_orphan;
        im->a->counts.revoked += (uint64_t)im->was_orphan;
        projection_wanted(im->a->projection);
        publish_know_shard(im->a->publishing, (unsigned)im->row.shard);
        question_answer(im->q, MSG_answer_certificate, &m);
    } else {
        if (im->err.code == ERR_none)
            err_set(&im->err, ERR_storage_unavailable, NULL);
        question_refuse(im->q, &im->err);
    }
    buf_free(&im->der);
    free(im);
}

void import_certificate(struct authority *a, const struct msg_admin_import *m, struct question *q)
{
    struct import *im = calloc(1, sizeof *im);
    if (!im || buf_add(&im->der, m->der.data, m->der.len))
        fatal("no memory for an import");
    im->a = a;
    im->q = q;
    snprintf(im->row.profile, sizeof im->row.profile, "%s", m->profile);
    const struct profile *p = profiles_find(a->profiles, m->profile);
    int rc = p ? read_certificate(im, m->der)
               : err_set(&im->err, ERR_profile_unknown, "there is no profile \"%s\"", m->profile);
    if (rc) {
        question_refuse(q, &im->err);
        buf_free(&im->der);
        free(im);
        return;
    }
    if (store_submit(a->store, decide, after, im))
        fatal("no memory for an import");
}
