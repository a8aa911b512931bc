#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "server/request/request.h"

static enum err_code parse(const char *body, size_t len, enum operation *op)
{
    struct request *r;
    struct err err = {0};
    if (request_parse(&r, op, (struct bytes){(const uint8_t *)body, len}, &err)) {
        assert_null(r);
        assert_true(err.code != ERR_none && err.text[0]);
        return err.code;
    }
    request_free(r);
    return ERR_none;
}

#define GIVES(code, body)                                                                          \
    do {                                                                                           \
        enum operation op_;                                                                        \
        assert_string_equal(err_name(parse(body, sizeof(body) - 1, &op_)), err_name(ERR_##code));  \
    } while (0)

static void fields_come_out_as_sent(void **state)
{
    (void)state;
    static const char body[] = " {\"operation\" : \"req_client_cert\", \"csr\":\"AA\\u0041\\/\", "
                               "\"request_id\":\"a.b_c:d-1\"}\r\n";
    struct request *r;
    enum operation op;
    struct err err;
    assert_int_equal(
        request_parse(&r, &op, (struct bytes){(const uint8_t *)body, sizeof body - 1}, &err), 0);
    assert_int_equal(op, OP_REQ_CLIENT_CERT);
    assert_string_equal(request_text(r, "csr"), "AAA/");
    assert_string_equal(request_text(r, "request_id"), "a.b_c:d-1");
    assert_null(request_text(r, "profile"));
    request_free(r);
    request_free(NULL);
}

static void every_operation_parses_with_what_it_requires(void **state)
{
    (void)state;
    GIVES(none, "{\"operation\":\"req_client_cert\",\"csr\":\"AAAA\"}");
    GIVES(none, "{\"operation\":\"revoke_cert\",\"serial\":\"4f\"}");
    GIVES(none, "{\"operation\":\"get_ca_chain\"}");
    GIVES(none, "{\"operation\":\"get_crl\"}");
    GIVES(none, "{\"operation\":\"get_status\"}");
}

static void what_is_not_one_object_is_refused(void **state)
{
    (void)state;
    GIVES(body_not_json, "");
    GIVES(body_not_json, " ");
    GIVES(body_not_json, "null");
    GIVES(body_not_json, "[{\"operation\":\"get_crl\"}]");
    GIVES(body_not_json, "{\"operation\":\"get_crl\"");
    GIVES(body_not_json, "{\"operation\":\"get_crl}");
    GIVES(body_not_json, "{operation:\"get_crl\"}");
    GIVES(body_not_json, "{'operation':'get_crl'}");
    GIVES(body_not_json, "{\"operation\":\"get_crl\",}");
    GIVES(body_not_json, "{\"operation\":\"get_crl\"/**/}");
    GIVES(body_not_json, "\xef\xbb\xbf{\"operation\":\"get_crl\"}");
    GIVES(body_not_json, "{\"operation\"\v:\"get_crl\"}");
    GIVES(body_not_json, "{\"operation\":\"get\x1f_crl\"}");
    GIVES(body_not_json, "{\"operation\":\"get\n_crl\"}");
    GIVES(body_not_json, "{\"operation\":\"\\x41\"}");
    GIVES(body_not_json, "{\"operation\":\"\\u12g4\"}");
    GIVES(body_not_json, "{\"operation\":\"\\u12");
    GIVES(body_not_json, "{\"operation\":\"\\");
    GIVES(body_trailing, "{\"operation\":\"get_crl\"}{}");
    GIVES(body_trailing, "{\"operation\":\"get_crl\"} ,");
    GIVES(body_trailing, "{\"operation\":\"get_crl\"}]");
}

static void utf8_is_rfc_3629(void **state)
{
    (void)state;
    /* valid, and so refused later, for what they are not */
    GIVES(operation_unknown, "{\"operation\":\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\"}");
    GIVES(operation_unknown, "{\"operation\":\"\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}");
    GIVES(operation_unknown, "{\"operation\":\"\\ud83d\\ude00\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\x80\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xc0\xaf\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xc1\xbf\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xe0\x9f\xbf\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xed\xa0\x80\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xf0\x8f\xbf\xbf\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xf4\x90\x80\x80\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xf5\x80\x80\x80\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\xe2\x82\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"get_crl\"}\xe2\x82");
    GIVES(body_invalid_utf8, "{\"operation\":\"\\ud83d\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\\ud83dx\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\\ud83d\\u0041\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\\ud83d\\ud83d\"}");
    GIVES(body_invalid_utf8, "{\"operation\":\"\\ude00\"}");
}

static void no_nul_in_any_form(void **state)
{
    (void)state;
    GIVES(body_nul, "\0");
    GIVES(body_nul, "{\"operation\":\"get_crl\0\"}");
    GIVES(body_nul, "{\"operation\":\"get_crl\"}\0");
    GIVES(body_nul, "{\"operation\":\"get_crl\\u0000\"}");
    GIVES(body_nul, "{\"operation\\u0000x\":\"get_crl\"}");
}

static void names_once_at_every_level(void **state)
{
    (void)state;
    GIVES(body_duplicate_name, "{\"operation\":\"get_crl\",\"operation\":\"get_crl\"}");
    GIVES(body_duplicate_name, "{\"operation\":\"get_crl\",\"\\u006Fperation\":\"get_status\"}");
    GIVES(body_duplicate_name, "{\"operation\":\"get_crl\",\"x\":[{\"a\":1,\"b\":2,\"a\":3}]}");
    GIVES(body_duplicate_name, "{\"operation\":\"get_crl\",\"\":1,\"\":2}");
    GIVES(field_unknown, "{\"operation\":\"get_crl\",\"Operation\":\"get_crl\"}");
}

static void ten_thousand_names_take_no_time(void **state)
{
    (void)state;
    static char body[REQUEST_MAX];
    enum operation op;
    size_t len = (size_t)snprintf(body, sizeof body, "{\"operation\":\"get_crl\"");
    for (unsigned i = 0; len < sizeof body - 16; i++)
        len += (size_t)snprintf(body + len, sizeof body - len, ",\"%x\":1", i);
    body[len++] = '}';
    assert_int_equal(parse(body, len, &op), ERR_field_unknown);
    assert_int_equal(op, OP_GET_CRL);
}

static void depth_and_size_are_bounded(void **state)
{
    (void)state;
    static char body[REQUEST_MAX + 1];
    enum operation op;
    GIVES(field_unknown, "{\"operation\":\"get_crl\",\"a\":[[[1]]]}");
    GIVES(body_too_deep, "{\"operation\":\"get_crl\",\"a\":[[[[1]]]]}");
    GIVES(body_too_deep, "{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}");
    memset(body, '[', sizeof body);
    assert_int_equal(parse(body, sizeof body - 1, &op), ERR_body_too_deep);
    assert_int_equal(parse(body, sizeof body, &op), ERR_body_too_large);
    memset(body, ' ', sizeof body);
    memcpy(body, "{\"operation\":\"get_crl\"}", 23);
    assert_int_equal(parse(body, sizeof body - 1, &op), ERR_none);
    assert_int_equal(parse(body, sizeof body, &op), ERR_body_too_large);
}

static void fields_by_the_table(void **state)
{
    (void)state;
    GIVES(field_missing, "{}");
    GIVES(field_missing, "{\"csr\":\"AAAA\"}");
    GIVES(field_type, "{\"operation\":null}");
    GIVES(field_type, "{\"operation\":{\"operation\":\"get_crl\"}}");
    GIVES(operation_unknown, "{\"operation\":\"\"}");
    GIVES(operation_unknown, "{\"operation\":\"Get_crl\"}");
    GIVES(field_missing, "{\"operation\":\"req_client_cert\"}");
    GIVES(field_missing, "{\"operation\":\"get_cert\"}");
    GIVES(field_unknown, "{\"operation\":\"req_client_cert\",\"csr\":\"AAAA\",\"serial\":\"4f\"}");
    GIVES(field_unknown, "{\"operation\":\"get_status\",\"request_id\":\"a\"}");
    GIVES(field_type, "{\"operation\":\"req_client_cert\",\"csr\":1}");
    GIVES(field_type, "{\"operation\":\"revoke_cert\",\"serial\":4}");
    GIVES(field_value, "{\"operation\":\"req_client_cert\",\"csr\":\"\"}");
    GIVES(field_value, "{\"operation\":\"revoke_cert\",\"serial\":\"4f0\"}");
    GIVES(field_value, "{\"operation\":\"revoke_cert\",\"serial\":\"4g\"}");
    GIVES(field_value, "{\"operation\":\"revoke_cert\",\"serial\":\" 4f\"}");
    GIVES(field_value, "{\"operation\":\"revoke_cert\",\"serial\":\"4f\",\"request_id\":\"\"}");
    GIVES(field_value,
          "{\"operation\":\"revoke_cert\",\"serial\":\"4f\",\"request_id\":\"\xc3\xa4\"}");
}

static void the_operation_is_known_also_on_failure(void **state)
{
    (void)state;
    static const char body[] = "{\"operation\":\"revoke_cert\",\"x\":\"y\"}";
    enum operation op;
    assert_int_equal(parse(body, sizeof body - 1, &op), ERR_field_unknown);
    assert_int_equal(op, OP_REVOKE_CERT);
    assert_string_equal(operation_name(op), "revoke_cert");
    assert_int_equal(parse("{}", 2, &op), ERR_field_missing);
    assert_int_equal(op, OP_NONE);
    assert_string_equal(operation_name(op), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_come_out_as_sent),
        cmocka_unit_test(every_operation_parses_with_what_it_requires),
        cmocka_unit_test(what_is_not_one_object_is_refused),
        cmocka_unit_test(utf8_is_rfc_3629),
        cmocka_unit_test(no_nul_in_any_form),
        cmocka_unit_test(names_once_at_every_level),
        cmocka_unit_test(ten_thousand_names_take_no_time),
        cmocka_unit_test(depth_and_size_are_bounded),
        cmocka_unit_test(fields_by_the_table),
        cmocka_unit_test(the_operation_is_known_also_on_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
