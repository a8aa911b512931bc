/* How often the journal is told of peers that break the protocol. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "server/authority/clock.h"
#include "server/authority/projection.h"
#include "server/authority/violation.h"

static struct authority a;
static char last[512];
static unsigned events, projected;

int64_t clock_now(struct clock_watch *w)
{
    (void)w;
    return 1795435200;
}

void projection_wanted(struct projection *p)
{
    (void)p;
    projected++;
}

int tx_event(struct store_tx *tx, int64_t at, int64_t certificate, const char *fmt, ...)
{
    va_list ap;
    (void)tx;
    assert_int_equal(at, 1795435200);
    assert_int_equal(certificate, 0);
    va_start(ap, fmt);
    vsnprintf(last, sizeof last, fmt, ap);
    va_end(ap);
    events++;
    return 0;
}

int store_submit(struct store *s, store_decision decide, store_completion complete, void *arg)
{
    (void)s;
    assert_int_equal(decide(NULL, arg), 0);
    complete(1, arg);
    return 0;
}

static void one_a_minute_and_how_many_were_not_told(void **state)
{
    (void)state;
    violation_journal(&a, PROC_FRONT, 3, "a message\twith bad fields");
    assert_int_equal(events, 1);
    assert_string_equal(last,
                        "violation role=front number=3 untold=0 why=a_message_with_bad_fields");
    for (unsigned i = 4; i < 1000; i++)
        violation_journal(&a, PROC_FRONT, i, "x");
    assert_int_equal(events, 1);
    a.violation_at -= 60; /* a minute later */
    violation_journal(&a, PROC_SIGNER, 2, "x");
    assert_int_equal(events, 2);
    assert_string_equal(last, "violation role=signer number=2 untold=996 why=x");
    a.violation_at -= 60;
    violation_journal(&a, PROC_PUBLISHER, 1, "x");
    assert_string_equal(last, "violation role=publisher number=1 untold=0 why=x");
    assert_int_equal(projected, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_a_minute_and_how_many_were_not_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
