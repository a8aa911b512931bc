#include "pki_fixture.h"

#include <openssl/ocsp.h>

#include "pki/crl.h"
#include "pki/ocsp.h"

/* A CA, and a responder whose certificate it issued. The verdicts are OpenSSL's. */
struct site {
    struct ca ca, key; /* key.certificate is the responder's; no issuer */
    struct responder *responder;
    struct buf der;
    int64_t now;
};

static struct buf to_der(X509 *x)
{
    unsigned char *der = NULL;
    struct buf out = {0};
    int len = i2d_X509(x, &der);
    assert_int_equal(buf_add(&out, der, (size_t)len), 0);
    OPENSSL_free(der);
    return out;
}

static X509 *responder_certificate(struct ca *ca, EVP_PKEY *key, const char *usage)
{
    X509 *x = make_certificate(key, 7);
    X509_NAME *name = X509_NAME_new();
    assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"OCSP",
                                           -1, -1, 0));
    assert_true(X509_set_subject_name(x, name));
    X509_NAME_free(name);
    if (usage)
        add_extension(x, NID_ext_key_usage, usage);
    assert_true(X509_sign(x, ca->key, EVP_sha256()));
    return x;
}

static struct site site_make(const char *type)
{
    struct site s = {.now = time(NULL)};
    struct err err;
    s.ca = ca_make("P-256", 100);
    s.key.key = make_key(type);
    s.key.certificate = responder_certificate(&s.ca, s.key.key, "OCSPSigning");
    s.der = to_der(s.key.certificate);
    if (responder_new(&s.responder, buf_view(&s.der), &err))
        fail_msg("%s", err.text);
    return s;
}

static void site_free(struct site *s)
{
    responder_free(s->responder);
    buf_free(&s->der);
    X509_free(s->key.certificate);
    EVP_PKEY_free(s->key.key);
    ca_free(&s->ca);
}

static ASN1_INTEGER *make_serial(const char *hex)
{
    BIGNUM *n = NULL;
    assert_true(BN_hex2bn(&n, hex));
    ASN1_INTEGER *serial = BN_to_ASN1_INTEGER(n, NULL);
    BN_free(n);
    return serial;
}

static OCSP_CERTID *make_id(struct site *s, const EVP_MD *md, const char *hex)
{
    ASN1_INTEGER *serial = make_serial(hex);
    OCSP_CERTID *id = OCSP_cert_id_new(md, X509_get_subject_name(s->ca.certificate),
                                       X509_get0_pubkey_bitstr(s->ca.certificate), serial);
    assert_non_null(id);
    ASN1_INTEGER_free(serial);
    return id;
}

static struct ocsp_request parse(OCSP_REQUEST *req, int expected)
{
    unsigned char *der = NULL;
    struct ocsp_request out;
    int len = i2d_OCSP_REQUEST(req, &der);
    assert_int_equal(ocsp_request_parse(&out, (struct bytes){der, (size_t)len}), expected);
    OPENSSL_free(der);
    return out;
}

static struct buf respond(struct site *s, const struct ocsp_single *singles,
                          const struct ocsp_request *req)
{
    uint8_t digest[DIGEST_MAX], raw[SIGNATURE_MAX];
    struct buf tbs = {0}, out = {0};
    struct err err;
    struct ocsp_answer answer = {.responder = s->responder,
                                 .singles = singles,
                                 .count = req->count,
                                 .nonce = {req->nonce, req->nonce_len},
                                 .produced_at = s->now,
                                 .this_update = s->now - 60,
                                 .next_update = s->now + 3600};
    if (ocsp_build(&tbs, &answer, &err))
        fail_msg("%s", err.text);
    size_t len = sign_digest(responder_alg(s->responder), buf_view(&tbs), digest);
    struct bytes signature = ca_sign(&s->key, (struct bytes){digest, len}, raw);
    if (ocsp_assemble(&out, s->responder, buf_view(&tbs), signature, &err))
        fail_msg("%s", err.text);
    buf_free(&tbs);
    return out;
}

static OCSP_BASICRESP *verified(struct site *s, struct bytes der)
{
    const unsigned char *at = der.data;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &at, (long)der.len);
    X509_STORE *trusted = X509_STORE_new();
    assert_non_null(response);
    assert_ptr_equal(at, der.data + der.len);
    assert_int_equal(OCSP_response_status(response), OCSP_RESPONSE_STATUS_SUCCESSFUL);
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
    assert_non_null(basic);
    assert_true(X509_STORE_add_cert(trusted, s->ca.certificate));
    if (OCSP_basic_verify(basic, NULL, trusted, 0) != 1)
        fail_msg("%s", err_openssl());
    X509_STORE_free(trusted);
    OCSP_RESPONSE_free(response);
    return basic;
}

static void check_status(OCSP_BASICRESP *basic, OCSP_CERTID *id, const struct ocsp_single *s)
{
    static const int expected[] = {V_OCSP_CERTSTATUS_GOOD, V_OCSP_CERTSTATUS_REVOKED,
                                   V_OCSP_CERTSTATUS_UNKNOWN};
    int status, reason;
    ASN1_GENERALIZEDTIME *at, *from, *to;
    assert_int_equal(OCSP_resp_find_status(basic, id, &status, &reason, &at, &from, &to), 1);
    assert_int_equal(status, expected[s->status]);
    assert_int_equal(OCSP_check_validity(from, to, 5, -1), 1);
    if (s->status != OCSP_STATUS_REVOKED)
        return;
    assert_int_equal(ASN1_TIME_cmp_time_t(at, s->revoked_at), 0);
    assert_int_equal(reason, s->reason ? s->reason : -1);
}

/* ---- there and back ---- */

static void each_key_signs(void **state)
{
    (void)state;
    static const char *const types[] = {"P-256", "P-384", "rsa:2048"};
    for (size_t i = 0; i < 3; i++) {
        struct site s = site_make(types[i]);
        OCSP_REQUEST *req = OCSP_REQUEST_new();
        OCSP_CERTID *id = make_id(&s, EVP_sha1(), "112233445566778899AABBCCDDEEFF00");
        OCSP_request_add0_id(req, OCSP_CERTID_dup(id));
        struct ocsp_request in = parse(req, 0);
        struct ocsp_single single = {.certid = in.certids[0]};
        struct buf der = respond(&s, &single, &in);
        OCSP_BASICRESP *basic = verified(&s, buf_view(&der));
        check_status(basic, id, &single);
        assert_int_equal(OCSP_check_nonce(req, basic), 2); /* in neither */
        OCSP_BASICRESP_free(basic);
        buf_free(&der);
        OCSP_CERTID_free(id);
        OCSP_REQUEST_free(req);
        site_free(&s);
    }
}

static void every_status_serial_and_hash(void **state)
{
    (void)state;
    static const char *const serials[] = {"01",
                                          "7F",
                                          "80",
                                          "00FF",
                                          "7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF",
                                          "FF112233445566778899AABBCCDDEEFF00112233",
                                          "00",
                                          "1234"};
    struct site s = site_make("P-256");
    OCSP_REQUEST *req = OCSP_REQUEST_new();
    OCSP_CERTID *ids[8];
    struct ocsp_single singles[8];
    for (int i = 0; i < 8; i++) {
        ids[i] = make_id(&s, i % 2 ? EVP_sha256() : EVP_sha1(), serials[i]);
        OCSP_request_add0_id(req, OCSP_CERTID_dup(ids[i]));
    }
    assert_int_equal(OCSP_request_add1_nonce(req, NULL, 32), 1);
    struct ocsp_request in = parse(req, 0);
    assert_int_equal(in.count, 8);
    assert_int_equal(in.nonce_len, 34);
    for (int i = 0; i < 8; i++)
        singles[i] = (struct ocsp_single){in.certids[i], (enum ocsp_status)(i % 3), s.now - 100 * i,
                                          i == 4 ? 0 : REASON_HOLD};
    struct buf der = respond(&s, singles, &in);
    OCSP_BASICRESP *basic = verified(&s, buf_view(&der));
    for (int i = 0; i < 8; i++) {
        check_status(basic, ids[i], &singles[i]);
        OCSP_CERTID_free(ids[i]);
    }
    assert_int_equal(OCSP_check_nonce(req, basic), 1); /* equal */
    OCSP_BASICRESP_free(basic);
    buf_free(&der);
    OCSP_REQUEST_free(req);
    site_free(&s);
}

/* ---- nonces ---- */

static int nonce_of(struct site *s, struct bytes value, struct ocsp_request *out, int critical)
{
    unsigned char *der = NULL;
    OCSP_REQUEST *req = OCSP_REQUEST_new();
    ASN1_OCTET_STRING *octets = ASN1_OCTET_STRING_new();
    OCSP_request_add0_id(req, make_id(s, EVP_sha1(), "1234"));
    assert_true(ASN1_OCTET_STRING_set(octets, value.data, (int)value.len));
    X509_EXTENSION *ext =
        X509_EXTENSION_create_by_NID(NULL, NID_id_pkix_OCSP_Nonce, critical, octets);
    assert_true(OCSP_REQUEST_add_ext(req, ext, -1));
    int len = i2d_OCSP_REQUEST(req, &der);
    int rc = ocsp_request_parse(out, (struct bytes){der, (size_t)len});
    OPENSSL_free(der);
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(octets);
    OCSP_REQUEST_free(req);
    return rc;
}

static void nonces_of_either_encoding(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 16, 32, 127, 128, 129};
    struct site s = site_make("P-256");
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t raw[256], wrapped[256];
        struct ocsp_request in;
        size_t n = lengths[i], head = n > 127 ? 3 : 2;
        int expected = n >= 1 && n <= 128 ? 0 : -1;
        memset(raw, 0xa5, sizeof raw);
        memset(wrapped, 0xa5, sizeof wrapped);
        wrapped[0] = 4;
        wrapped[1] = 0x81;
        wrapped[head - 1] = (uint8_t)n;
        assert_int_equal(nonce_of(&s, (struct bytes){raw, n}, &in, 0), expected);
        if (!expected) {
            assert_int_equal(in.nonce_len, n);
            assert_memory_equal(in.nonce, raw, n);
        }
        assert_int_equal(nonce_of(&s, (struct bytes){wrapped, head + n}, &in, 1), expected);
        if (!expected) {
            assert_int_equal(in.nonce_len, head + n);
            assert_memory_equal(in.nonce, wrapped, head + n);
        }
    }
    site_free(&s);
}

/* ---- what is refused ---- */

static void refused_requests(void **state)
{
    (void)state;
    struct site s = site_make("P-256");
    OCSP_REQUEST *req = OCSP_REQUEST_new();
    parse(req, -1); /* none */
    for (int i = 0; i < 8; i++)
        OCSP_request_add0_id(req, make_id(&s, EVP_sha1(), "1234"));
    parse(req, 0);
    OCSP_request_add0_id(req, make_id(&s, EVP_sha1(), "1234"));
    parse(req, -1); /* nine */
    OCSP_REQUEST_free(req);
    static const char *const serials[] = {"-01", "0100000000000000000000000000000000000000FF"};
    for (int i = 0; i < 4; i++) {
        req = OCSP_REQUEST_new();
        OCSP_request_add0_id(req, make_id(&s,
                                          i == 3   ? EVP_sha512()
                                          : i == 2 ? EVP_md5()
                                                   : EVP_sha1(),
                                          serials[i % 2]));
        parse(req, -1);
        OCSP_REQUEST_free(req);
    }
    site_free(&s);
}

static void refused_responders(void **state)
{
    (void)state;
    static const char *const usages[] = {NULL, "serverAuth", "OCSPSigning,clientAuth"};
    struct site s = site_make("P-256");
    struct responder *r;
    struct err err;
    for (size_t i = 0; i < 3; i++) {
        X509 *x = responder_certificate(&s.ca, s.key.key, usages[i]);
        struct buf der = to_der(x);
        assert_int_equal(responder_new(&r, buf_view(&der), &err), -1);
        buf_free(&der);
        X509_free(x);
    }
    assert_int_equal(responder_new(&r, text_bytes("no certificate"), &err), -1);
    site_free(&s);
}

static void refused_answers(void **state)
{
    (void)state;
    struct site s = site_make("P-256");
    struct ocsp_single single = {.certid = {.hash_len = 20, .serial = {1}, .serial_len = 1}};
    const struct ocsp_answer good = {s.responder, &single, 1, {0}, s.now, s.now - 1, s.now + 1};
    struct ocsp_answer bad[] = {good, good, good, good};
    struct buf tbs = {0};
    struct err err;
    bad[0].count = 0;
    bad[1].next_update = s.now - 1;
    bad[2].produced_at = s.now - 2;
    bad[3].nonce = (struct bytes){s.der.data, OCSP_NONCE_MAX + 1};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(ocsp_build(&tbs, &bad[i], &err), -1);
    single.certid.serial_len = 21;
    assert_int_equal(ocsp_build(&tbs, &good, &err), -1);
    single.certid.serial_len = 1;
    single.status = OCSP_STATUS_REVOKED;
    single.reason = 7; /* RFC 5280 has none */
    assert_int_equal(ocsp_build(&tbs, &good, &err), -1);
    single.reason = 1;
    assert_int_equal(ocsp_build(&tbs, &good, &err), 0);
    assert_int_equal(
        ocsp_assemble(&s.der, s.responder, buf_view(&tbs), text_bytes("not one"), &err), -1);
    buf_free(&tbs);
    site_free(&s);
}

/* ---- the wire between front and authority ---- */

static void packed_and_back(void **state)
{
    (void)state;
    struct ocsp_certid ids[OCSP_CERTIDS_MAX + 1], out[OCSP_CERTIDS_MAX];
    struct buf b = {0};
    size_t n;
    memset(ids, 0, sizeof ids);
    for (size_t i = 0; i <= OCSP_CERTIDS_MAX; i++) {
        ids[i].hash_len = i % 2 ? 32 : 20;
        ids[i].serial_len = i == 3 ? 20 : i + 1;
        memset(ids[i].issuer_name_hash, (int)i, ids[i].hash_len);
        memset(ids[i].issuer_key_hash, 0x10 + (int)i, ids[i].hash_len);
        memset(ids[i].serial, 0x20 + (int)i, ids[i].serial_len);
    }
    assert_int_equal(ocsp_pack(&b, ids, OCSP_CERTIDS_MAX + 1), -1);
    b.len = 0;
    assert_int_equal(ocsp_pack(&b, ids, OCSP_CERTIDS_MAX), 0);
    assert_true(b.len <= OCSP_PACKED_MAX);
    assert_int_equal(ocsp_unpack(out, &n, buf_view(&b)), 0);
    assert_int_equal(n, OCSP_CERTIDS_MAX);
    assert_memory_equal(out, ids, sizeof out);
    /* cut anywhere: the whole ones before, or refused */
    for (size_t cut = 0; cut < b.len; cut++)
        if (!ocsp_unpack(out, &n, (struct bytes){b.data, cut}))
            assert_memory_equal(out, ids, n * sizeof *out);
    for (int length = 0; length < 256; length++) {
        b.data[0] = (uint8_t)length;
        assert_int_equal(ocsp_unpack(out, &n, buf_view(&b)), length == 20 ? 0 : -1);
    }
    buf_free(&b);
}

static void errors_are_openssls(void **state)
{
    (void)state;
    static const int codes[] = {OCSP_MALFORMED_REQUEST, OCSP_INTERNAL_ERROR, OCSP_TRY_LATER,
                                OCSP_UNAUTHORIZED};
    for (size_t i = 0; i < 4; i++) {
        unsigned char *der = NULL;
        OCSP_RESPONSE *r = OCSP_response_create(codes[i], NULL);
        int len = i2d_OCSP_RESPONSE(r, &der);
        assert_true(bytes_equal((struct bytes){der, (size_t)len},
                                ocsp_error_response((enum ocsp_error)codes[i])));
        OPENSSL_free(der);
        OCSP_RESPONSE_free(r);
    }
}

static int seen;

static void check_file(struct bytes data, const char *name, const char *code)
{
    struct ocsp_request out;
    int rc = ocsp_request_parse(&out, data);
    if (rc != (strcmp(code, "ok") ? -1 : 0))
        fail_msg("%s: %d", name, rc);
    seen += rc == 0;
}

static void corpus(void **state)
{
    (void)state;
    assert_true(each_file(CORPUS "/ocsp", check_file) > 80);
    assert_true(seen > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_key_signs),
        cmocka_unit_test(every_status_serial_and_hash),
        cmocka_unit_test(refused_requests),
        cmocka_unit_test(nonces_of_either_encoding),
        cmocka_unit_test(refused_responders),
        cmocka_unit_test(refused_answers),
        cmocka_unit_test(packed_and_back),
        cmocka_unit_test(errors_are_openssls),
        cmocka_unit_test(corpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
