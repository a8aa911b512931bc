#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "server/front/documents.h"

static const uint8_t digest[32] = {0xab, 0xcd};

static int put(struct documents *d, const char *path, const char *text, struct err *err)
{
    const struct msg_document m = {path, "text/plain", 784111777, 0, {digest, sizeof digest}};
    int fd = memfd_create("document", MFD_CLOEXEC);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return documents_put(d, &m, fd, err);
}

static void kept_and_replaced(void **state)
{
    (void)state;
    struct err err;
    struct documents *d = documents_new();
    assert_int_equal(put(d, "/x", "one", &err), 0);
    const struct document *doc = documents_find(d, "/x");
    assert_string_equal(doc->etag, "\"abcd0000000000000000000000000000\"");
    struct blob *sending = blob_ref(doc->body);
    assert_int_equal(put(d, "/x", "three", &err), 0);
    assert_int_equal(blob_view(documents_find(d, "/x")->body).len, 5);
    assert_memory_equal(blob_view(sending).data, "one", 3); /* what is being sent stays */
    blob_unref(sending);
    assert_null(documents_find(d, "/y"));
    documents_free(d);
}

static void what_cannot_be_served_is_refused(void **state)
{
    (void)state;
    struct err err;
    struct documents *d = documents_new();
    const struct msg_document m = {"/x", "text/plain", 0, 0, {digest, sizeof digest}};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(documents_put(d, &m, ends[0], &err), -1);
    assert_int_equal(close(ends[0]), -1); /* it was taken */
    close(ends[1]);
    assert_int_equal(documents_put(d, &m, -1, &err), -1);
    assert_int_equal(put(d, "/x", "", &err), -1);
    assert_int_equal(put(d, "x", "text", &err), -1);
    const struct msg_document split = {"/x", "a\r\nX: y", 0, 0, {digest, sizeof digest}};
    assert_int_equal(documents_put(d, &split, memfd_create("document", 0), &err), -1);
    char path[8];
    for (int i = 0; i < DOCUMENTS_MAX; i++) {
        snprintf(path, sizeof path, "/%d", i);
        assert_int_equal(put(d, path, "x", &err), 0);
    }
    assert_int_equal(put(d, "/more", "x", &err), -1);
    documents_free(d);
}

static void conditions(void **state)
{
    (void)state;
    struct document doc = {.etag = "\"ab\"", .modified = 784111777, .date_tells = 1};
    assert_int_equal(document_not_modified(&doc, NULL, NULL), 0);
    assert_int_equal(document_not_modified(&doc, "\"ab\"", NULL), 1);
    assert_int_equal(document_not_modified(&doc, " \"x\" ,\tW/\"ab\" ", NULL), 1);
    assert_int_equal(document_not_modified(&doc, "*", NULL), 1);
    assert_int_equal(document_not_modified(&doc, "\"abc\", ab, \"a\", ,", NULL), 0);
    assert_int_equal(document_not_modified(&doc, "", NULL), 0);
    assert_int_equal(document_not_modified(&doc, NULL, "Sun, 06 Nov 1994 08:49:37 GMT"), 1);
    assert_int_equal(document_not_modified(&doc, NULL, "Sun, 06 Nov 1994 08:49:36 GMT"), 0);
    assert_int_equal(document_not_modified(&doc, NULL, "Mon, 06 Nov 1995 08:49:37 GMT"), 0);
    assert_int_equal(document_not_modified(&doc, NULL, "Sun, 06 Nov 1994 08:49:37 GMT x"), 0);
    /* the tag decides when both are sent */
    assert_int_equal(document_not_modified(&doc, "\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT"), 0);
    doc.date_tells = 0;
    assert_int_equal(document_not_modified(&doc, NULL, "Sun, 06 Nov 1994 08:49:37 GMT"), 0);
}

static void times(void **state)
{
    (void)state;
    char text[32];
    http_date(text, 784111777);
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    const struct document never = {.expires = 0}, later = {.modified = 200, .expires = 1000};
    assert_int_equal(document_max_age(&never, 1), 86400);
    assert_int_equal(document_max_age(&later, 400), 600);
    assert_int_equal(document_max_age(&later, 1001), 0);
    assert_int_equal(document_max_age(&later, -31536000), 800);
}

static void no_crl_yet(void **state)
{
    (void)state;
    struct err err = {0};
    struct documents *d = documents_new();
    assert_null(documents_crl_answer(d, &err));
    assert_int_equal(err.code, ERR_busy);
    assert_int_equal(put(d, "/crl", "not looked into", &err), 0);
    struct blob *first = documents_crl_answer(d, &err);
    assert_non_null(first);
    assert_ptr_equal(first, documents_crl_answer(d, &err)); /* made once */
    documents_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_and_replaced), cmocka_unit_test(what_cannot_be_served_is_refused),
        cmocka_unit_test(conditions),        cmocka_unit_test(times),
        cmocka_unit_test(no_crl_yet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
