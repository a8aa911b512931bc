#include "pki_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "pki/crl.h"

struct list {
    struct ca *ca;
    struct crl_head head;
    struct crl *crl;
    char *folder;
    int tbs, out;
};

static int open_file(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static struct list list_new(struct ca *ca)
{
    struct list l = {.ca = ca, .folder = make_folder()};
    struct err err;
    l.head = (struct crl_head){.issuer = ca->issuer,
                               .number = 0x1234567890,
                               .this_update = time(NULL) - 60,
                               .next_update = time(NULL) + 7 * DAY,
                               .journal_seq = 0x0102030405060708,
                               .journal_hash = {0xaa, 0xbb, [31] = 0xcc}};
    l.tbs = open_file(l.folder, "tbs");
    l.out = open_file(l.folder, "crl.der");
    if (crl_new(&l.crl, &l.head, l.tbs, &err))
        fail_msg("%s", err.text);
    put_file(l.folder, "ca.pem", text_bytes(ca->pem));
    return l;
}

static void list_free(struct list *l)
{
    crl_free(l->crl);
    close(l->tbs);
    close(l->out);
    remove_folder(l->folder);
}

/* The nth entry of a list: all reasons by turns, serials of several lengths, times past 2049 too.
 */
static struct crl_entry entry(size_t n)
{
    static const int reasons[] = {0, 1, 2, 3, 4, 5, 6, 9};
    static uint8_t serial[16];
    serial[0] = 0x7f;
    for (int i = 0; i < 4; i++)
        serial[1 + i] = (uint8_t)(n >> (24 - 8 * i));
    return (struct crl_entry){{serial, n % 3 ? 16 : 5},
                              n % 1000 == 999 ? 2524608000 + (int64_t)n : 1700000000 + (int64_t)n,
                              reasons[n % 8]};
}

static void walk(struct list *l, size_t n,
                 int (*step)(struct crl *, const struct crl_entry *, struct err *))
{
    struct err err;
    for (size_t i = 0; i < n; i++) {
        struct crl_entry e = entry(i);
        if (step(l->crl, &e, &err))
            fail_msg("entry %zu: %s", i, err.text);
    }
}

static struct bytes write_tbs(struct list *l, size_t n, uint8_t digest[DIGEST_MAX])
{
    size_t len;
    struct err err;
    walk(l, n, crl_count);
    assert_int_equal(crl_begin(l->crl, &err), 0);
    walk(l, n, crl_add);
    assert_int_equal(crl_digest(l->crl, digest, &len, &err), 0);
    return (struct bytes){digest, len};
}

static void write_list(struct list *l, size_t n)
{
    uint8_t digest[DIGEST_MAX], signature[SIGNATURE_MAX];
    struct err err;
    struct bytes made = ca_sign(l->ca, write_tbs(l, n, digest), signature);
    if (crl_finish(l->crl, made, l->out, &err))
        fail_msg("%s", err.text);
}

static X509_CRL *read_list(const struct list *l, struct buf *der)
{
    char path[256];
    struct err err;
    snprintf(path, sizeof path, "%s/crl.der", l->folder);
    assert_int_equal(file_read(der, path, 1 << 26, &err), 0);
    const unsigned char *at = der->data;
    X509_CRL *crl = d2i_X509_CRL(NULL, &at, (long)der->len);
    assert_non_null(crl);
    assert_ptr_equal(at, der->data + der->len);
    return crl;
}

static void compare_entry(X509_REVOKED *revoked, const struct crl_entry *e)
{
    struct tm tm;
    BIGNUM *expected = BN_bin2bn(e->serial.data, (int)e->serial.len, NULL);
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_REVOKED_get0_serialNumber(revoked), NULL);
    assert_int_equal(BN_cmp(serial, expected), 0);
    BN_free(serial);
    BN_free(expected);
    const ASN1_TIME *at = X509_REVOKED_get0_revocationDate(revoked);
    assert_int_equal(ASN1_TIME_to_tm(at, &tm), 1);
    assert_int_equal(timegm(&tm), e->revoked_at);
    assert_int_equal(ASN1_STRING_type(at),
                     e->revoked_at < 2524608000 ? V_ASN1_UTCTIME : V_ASN1_GENERALIZEDTIME);
    ASN1_ENUMERATED *reason = X509_REVOKED_get_ext_d2i(revoked, NID_crl_reason, NULL, NULL);
    assert_int_equal(reason ? ASN1_ENUMERATED_get(reason) : 0, e->reason);
    assert_int_equal(reason != NULL, e->reason != 0);
    ASN1_ENUMERATED_free(reason);
}

/* Entry by entry; and OpenSSL, encoding it anew, must give the same bytes. */
static void compare_list(const struct list *l, size_t n)
{
    struct buf der = {0};
    X509_CRL *crl = read_list(l, &der);
    STACK_OF(X509_REVOKED) *revoked = X509_CRL_get_REVOKED(crl);
    unsigned char *tbs = NULL;
    if (n == 0)
        assert_null(revoked); /* RFC 5280 section 5.1.2.6 */
    else
        assert_int_equal(sk_X509_REVOKED_num(revoked), n);
    for (size_t i = 0; i < n; i++) {
        struct crl_entry e = entry(i);
        compare_entry(sk_X509_REVOKED_value(revoked, (int)i), &e);
    }
    assert_int_equal(X509_CRL_verify(crl, l->ca->key), 1);
    int len = i2d_re_X509_CRL_tbs(crl, &tbs);
    assert_true(len > 0);
    assert_non_null(memmem(der.data, der.len, tbs, (size_t)len));
    OPENSSL_free(tbs);
    X509_CRL_free(crl);
    buf_free(&der);
}

static void judge(const struct list *l, size_t n)
{
    check_run(l->folder, "openssl crl -inform DER -in crl.der -CAfile ca.pem -out crl.pem",
              "verify OK");
    if (n <= 2000) /* GnuTLS 3.7 takes minutes for 100000: quadratic */
        check_run(l->folder,
                  "certtool --verify-crl --load-ca-certificate ca.pem --infile crl.pem | tail -n 4",
                  "Verification output: Verified");
}

static void openssl_and_gnutls_agree(void **state)
{
    static const char *const cas[] = {"rsa:2048", "P-256", "P-384"};
    static const size_t counts[] = {0, 1, 2, 1500};
    (void)state;
    for (size_t i = 0; i < sizeof cas / sizeof *cas; i++) {
        struct ca ca = ca_make(cas[i], 30);
        for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
            struct list l = list_new(&ca);
            write_list(&l, counts[k]);
            compare_list(&l, counts[k]);
            judge(&l, counts[k]);
            list_free(&l);
        }
        ca_free(&ca);
    }
}

static void a_hundred_thousand_entries(void **state)
{
    static const char *const cas[] = {"rsa:2048", "P-384"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct ca ca = ca_make(cas[i], 30);
        struct list l = list_new(&ca);
        clock_t start = clock();
        write_list(&l, 100000);
        print_message("%s: 100000 entries, %.2f us each\n", cas[i],
                      (double)(clock() - start) * 1e6 / CLOCKS_PER_SEC / 100000);
        compare_list(&l, 100000);
        judge(&l, 100000);
        list_free(&l);
        ca_free(&ca);
    }
}

static void the_head_is_as_given(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct list l = list_new(&ca);
    struct buf der = {0};
    struct tm tm;
    (void)state;
    write_list(&l, 3);
    X509_CRL *crl = read_list(&l, &der);
    assert_int_equal(X509_CRL_get_version(crl), X509_CRL_VERSION_2);
    assert_int_equal(X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(ca.certificate)),
                     0);
    assert_int_equal(ASN1_TIME_to_tm(X509_CRL_get0_lastUpdate(crl), &tm), 1);
    assert_int_equal(timegm(&tm), l.head.this_update);
    assert_int_equal(ASN1_TIME_to_tm(X509_CRL_get0_nextUpdate(crl), &tm), 1);
    assert_int_equal(timegm(&tm), l.head.next_update);

    uint64_t number;
    ASN1_INTEGER *n = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
    assert_int_equal(ASN1_INTEGER_get_uint64(&number, n), 1);
    assert_int_equal(number, l.head.number);
    ASN1_INTEGER_free(n);
    AUTHORITY_KEYID *aki = X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, NULL, NULL);
    assert_int_equal(ASN1_OCTET_STRING_cmp(aki->keyid, X509_get0_subject_key_id(ca.certificate)),
                     0);
    AUTHORITY_KEYID_free(aki);
    X509_CRL_free(crl);
    buf_free(&der);
    list_free(&l);
    ca_free(&ca);
}

static void the_anchor_is_readable_by_all(void **state)
{
    static const uint8_t expected[] = {4, 40, 1, 2, 3, 4, 5, 6, 7, 8, 0xaa, 0xbb, [41] = 0xcc};
    struct ca ca = ca_make("P-256", 30);
    struct list l = list_new(&ca);
    struct buf der = {0};
    (void)state;
    write_list(&l, 1);
    X509_CRL *crl = read_list(&l, &der);
    ASN1_OBJECT *oid = OBJ_txt2obj(CRL_ANCHOR_OID, 1);
    X509_EXTENSION *ext = X509_CRL_get_ext(crl, X509_CRL_get_ext_by_OBJ(crl, oid, -1));
    assert_non_null(ext);
    assert_int_equal(X509_EXTENSION_get_critical(ext), 0);
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(ext);
    assert_int_equal(ASN1_STRING_length(value), sizeof expected);
    assert_memory_equal(ASN1_STRING_get0_data(value), expected, sizeof expected);
    ASN1_OBJECT_free(oid);
    X509_CRL_free(crl);
    buf_free(&der);
    /* libtasn1 refuses a whole CRL for one number in an OID of more than 64 bits */
    check_run(l.folder, "certtool --crl-info --inder --infile crl.der", CRL_ANCHOR_OID);
    for (const char *arc = CRL_ANCHOR_OID; arc;
         arc = strchr(arc, '.') ? strchr(arc, '.') + 1 : NULL)
        assert_true(strtoull(arc, NULL, 10) < 1ull << 28); /* Go's cryptobyte reads no more */
    list_free(&l);
    ca_free(&ca);
}

static void a_shard_names_its_points(void **state)
{
    static const char *const points[] = {"http://ca.example/crl/7", "http://old.example/crl/7",
                                         NULL};
    struct ca ca = ca_make("P-256", 30);
    struct list l = list_new(&ca);
    struct buf der = {0};
    struct err err;
    (void)state;
    crl_free(l.crl);
    l.head.points = points;
    assert_int_equal(crl_new(&l.crl, &l.head, l.tbs, &err), 0);
    write_list(&l, 3);
    X509_CRL *crl = read_list(&l, &der);
    int critical;
    ISSUING_DIST_POINT *p =
        X509_CRL_get_ext_d2i(crl, NID_issuing_distribution_point, &critical, NULL);
    assert_non_null(p);
    assert_int_equal(critical, 1);
    assert_int_equal(sk_GENERAL_NAME_num(p->distpoint->name.fullname), 2);
    ISSUING_DIST_POINT_free(p);
    X509_CRL_free(crl);
    buf_free(&der);
    check_run(l.folder, "openssl crl -inform DER -in crl.der -noout -text",
              "Issuing Distribution Point: critical");
    check_run(l.folder, "openssl crl -inform DER -in crl.der -noout -text",
              "URI:http://old.example/crl/7");
    list_free(&l);
    ca_free(&ca);
}

static void shards_are_by_the_end_of_the_serial(void **state)
{
    char name[CRL_NAME_MAX];
    unsigned counts[1 + CRL_SHARDS_MAX] = {0};
    (void)state;
    for (unsigned n = 0; n < 6400; n++) {
        const uint8_t serial[16] = {0x11, [14] = (uint8_t)(n >> 8), [15] = (uint8_t)n};
        struct bytes s = {serial, sizeof serial};
        assert_int_equal(crl_shard_of(s, 0), 0);
        assert_int_equal(crl_shard_of(s, 1), 1);
        counts[crl_shard_of(s, CRL_SHARDS_MAX)]++;
    }
    assert_int_equal(counts[0], 0);
    for (unsigned i = 1; i <= CRL_SHARDS_MAX; i++)
        assert_int_equal(counts[i], 100);
    assert_string_equal(crl_file_name(name, 0), "crl.der");
    assert_string_equal(crl_file_name(name, 64), "crl-64.der");
    assert_string_equal(crl_url_path(name, 0), "/crl");
    assert_string_equal(crl_url_path(name, 64), "/crl/64");
}

static void next_update_ends_with_the_issuer(void **state)
{
    struct ca ca = ca_make("P-256", 3);
    struct list l = list_new(&ca); /* asks for 7 days */
    struct buf der = {0};
    struct tm tm;
    (void)state;
    write_list(&l, 1);
    X509_CRL *crl = read_list(&l, &der);
    assert_int_equal(ASN1_TIME_to_tm(X509_CRL_get0_nextUpdate(crl), &tm), 1);
    assert_int_equal(timegm(&tm), issuer_not_after(ca.issuer));
    X509_CRL_free(crl);
    buf_free(&der);
    list_free(&l);
    ca_free(&ca);
}

static void walks_that_differ_are_found(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct list fewer = list_new(&ca);
    uint8_t digest[DIGEST_MAX];
    size_t len;
    struct err err;
    (void)state;
    walk(&fewer, 10, crl_count);
    assert_int_equal(crl_begin(fewer.crl, &err), 0);
    walk(&fewer, 9, crl_add);
    assert_int_equal(crl_digest(fewer.crl, digest, &len, &err), -1);
    list_free(&fewer);

    struct list more = list_new(&ca);
    walk(&more, 10, crl_count);
    assert_int_equal(crl_begin(more.crl, &err), 0);
    walk(&more, 10, crl_add);
    struct crl_entry e = entry(10);
    assert_int_equal(crl_add(more.crl, &e, &err), -1);
    list_free(&more);

    struct list longer = list_new(&ca);
    e = entry(0); /* no reason */
    assert_int_equal(crl_count(longer.crl, &e, &err), 0);
    assert_int_equal(crl_begin(longer.crl, &err), 0);
    e.reason = REASON_HOLD;
    assert_int_equal(crl_add(longer.crl, &e, &err), -1);
    list_free(&longer);
    ca_free(&ca);
}

static off_t size_of(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_size;
}

static void finish_fails(struct list *l, struct bytes signature, enum err_code code)
{
    struct err err = {0};
    assert_int_equal(crl_finish(l->crl, signature, l->out, &err), -1);
    assert_string_equal(err_name(err.code), err_name(code));
    assert_int_equal(size_of(l->out), 0);
}

/* What is published is what was signed, read back from the disk. */
static void nothing_unverified_is_left(void **state)
{
    struct ca ca = ca_make("P-256", 30), other = ca_make("P-256", 30);
    uint8_t digest[DIGEST_MAX], signature[SIGNATURE_MAX];
    (void)state;

    struct list l = list_new(&ca);
    finish_fails(&l, ca_sign(&other, write_tbs(&l, 5000, digest), signature), ERR_internal);
    list_free(&l);

    l = list_new(&ca);
    struct bytes made = ca_sign(&ca, write_tbs(&l, 5000, digest), signature);
    assert_int_equal(pwrite(l.tbs, "\x55", 1, size_of(l.tbs) / 2), 1); /* a rotten disk */
    finish_fails(&l, made, ERR_storage_unavailable);
    list_free(&l);

    l = list_new(&ca);
    made = ca_sign(&ca, write_tbs(&l, 5000, digest), signature);
    assert_int_equal(ftruncate(l.tbs, size_of(l.tbs) - 1), 0);
    finish_fails(&l, made, ERR_storage_unavailable);
    list_free(&l);
    ca_free(&ca);
    ca_free(&other);
}

static void a_full_disk_is_an_error(void **state)
{
    struct ca ca = ca_make("P-256", 30);
    struct list l = list_new(&ca);
    uint8_t digest[DIGEST_MAX];
    size_t len;
    struct err err = {0};
    (void)state;
    crl_free(l.crl);
    int full = open("/dev/full", O_RDWR | O_CLOEXEC);
    assert_true(full >= 0);
    assert_int_equal(crl_new(&l.crl, &l.head, full, &err), 0);
    assert_int_equal(crl_begin(l.crl, &err), 0);
    assert_int_equal(crl_digest(l.crl, digest, &len, &err), -1);
    assert_int_equal(err.code, ERR_storage_unavailable);
    close(full);
    list_free(&l);
    ca_free(&ca);
}

static void bad_entries_and_heads_are_refused(void **state)
{
    static const uint8_t zero[1] = {0}, negative[2] = {0x80, 1}, padded[2] = {0, 1},
                         longest[20] = {1}, longer[21] = {1};
    struct ca ca = ca_make("P-256", 30);
    struct list l = list_new(&ca);
    struct crl *crl = NULL;
    struct err err;
    (void)state;
    const struct crl_entry good = {{longest, sizeof longest}, 1700000000, REASON_SUPERSEDED};
    const struct crl_entry bad[] = {
        {{zero, 0}, 1, 0},     {{zero, sizeof zero}, 1, 0}, {{negative, 2}, 1, 0},
        {{padded, 2}, 1, 0},   {{longer, 21}, 1, 0},        {{longest, 20}, 1, 7},
        {{longest, 20}, 1, 8}, {{longest, 20}, 1, -1},      {{longest, 20}, 1, 10}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(crl_count(l.crl, &bad[i], &err), -1);
    assert_int_equal(crl_count(l.crl, &good, &err), 0);
    assert_int_equal(crl_add(l.crl, &good, &err), -1); /* before crl_begin() */
    assert_int_equal(crl_begin(l.crl, &err), 0);
    assert_int_equal(crl_count(l.crl, &good, &err), -1); /* after it */
    assert_int_equal(crl_begin(l.crl, &err), -1);

    struct crl_head head = l.head;
    head.number = 0;
    assert_int_equal(crl_new(&crl, &head, l.tbs, &err), -1);
    head = l.head;
    head.next_update = head.this_update;
    assert_int_equal(crl_new(&crl, &head, l.tbs, &err), -1);
    list_free(&l);
    ca_free(&ca);
}

static uint64_t number_of_a_copy(const uint8_t *der, size_t len, const struct issuer *issuer)
{
    uint8_t *copy = malloc(len ? len : 1); /* of just that size: a sanitizer sees what is beyond */
    assert_non_null(copy);
    memcpy(copy, der, len);
    uint64_t number = crl_number((struct bytes){copy, len}, issuer);
    free(copy);
    return number;
}

static void the_number_is_of_this_issuer_s_crl(void **state)
{
    (void)state;
    struct ca ca = ca_make("P-256", 3650), other = ca_make("P-256", 3650);
    struct list l = list_new(&ca);
    uint8_t der[4096] = {0};
    write_list(&l, 3);
    ssize_t n = pread(l.out, der, sizeof der, 0);
    assert_in_range(n, 1, (ssize_t)sizeof der - 1);
    size_t len = (size_t)n;
    assert_true(number_of_a_copy(der, len, ca.issuer) == l.head.number);
    assert_true(number_of_a_copy(der, len, other.issuer) == 0);
    assert_true(number_of_a_copy(der, len + 1, ca.issuer) == 0);
    for (size_t i = 0; i < len; i++) {
        assert_true(number_of_a_copy(der, i, ca.issuer) == 0);
        der[i] ^= 0x81;
        uint64_t number = number_of_a_copy(der, len, ca.issuer);
        assert_true(number == 0 || number == l.head.number); /* not signed: the outer algorithm */
        der[i] ^= 0x81;
    }
    list_free(&l);
    ca_free(&ca);
    ca_free(&other);
}

static void reasons_are_openssl_s(void **state)
{
    (void)state;
    for (int reason = 0; reason <= 10; reason++) {
        const char *name = crl_reason_name(reason);
        if (name)
            assert_int_equal(crl_reason_from_name(name), reason);
        assert_int_equal(name == NULL, reason == 7 || reason == 10);
    }
    assert_string_equal(crl_reason_name(REASON_KEY_COMPROMISE), "keyCompromise");
    assert_string_equal(crl_reason_name(REASON_CESSATION), "cessationOfOperation");
    assert_int_equal(crl_reason_from_name("KeyCompromise"), -1);
    assert_int_equal(crl_reason_from_name(""), -1);
    assert_null(crl_reason_name(-1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(openssl_and_gnutls_agree),
        cmocka_unit_test(a_hundred_thousand_entries),
        cmocka_unit_test(the_head_is_as_given),
        cmocka_unit_test(the_anchor_is_readable_by_all),
        cmocka_unit_test(a_shard_names_its_points),
        cmocka_unit_test(shards_are_by_the_end_of_the_serial),
        cmocka_unit_test(next_update_ends_with_the_issuer),
        cmocka_unit_test(walks_that_differ_are_found),
        cmocka_unit_test(nothing_unverified_is_left),
        cmocka_unit_test(a_full_disk_is_an_error),
        cmocka_unit_test(bad_entries_and_heads_are_refused),
        cmocka_unit_test(the_number_is_of_this_issuer_s_crl),
        cmocka_unit_test(reasons_are_openssl_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
