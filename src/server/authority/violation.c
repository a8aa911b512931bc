#include "server/authority/violation.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "server/authority/clock.h"
#include "server/authority/projection.h"

#define AT_MOST_EVERY 60 /* seconds */

struct violation {
    struct authority *a;
    enum role_name role;
    unsigned number, untold;
    char why[128];
};

static const char *role_text(enum role_name role)
{
    return role == PROC_FRONT ? "front" : role == PROC_SIGNER ? "signer" : "publisher";
}

static int decide(struct store_tx *tx, void *arg)
{
    const struct violation *v = arg;
    return tx_event(tx, clock_now(v->a->clock), 0, "violation role=%s number=%u untold=%u why=%s",
                    role_text(v->role), v->number, v->untold, v->why);
}

static void after(int durable, void *arg)
{
    struct violation *v = arg;
    if (durable)
        projection_wanted(v->a->projection);
    free(v);
}

/* A field of the journal is one word. */
static void make_word(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
    for (; *out; out++)
        if (*out <= ' ' || *out > '~')
            *out = '_';
}

void violation_journal(struct authority *a, enum role_name role, unsigned number, const char *why)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (a->violation_at && now.tv_sec - a->violation_at < AT_MOST_EVERY) {
        a->violations_untold++;
        return;
    }
    struct violation *v = calloc(1, sizeof *v);
    if (!v)
        fatal("no memory for an event");
    *v = (struct violation){.a = a, .role = role, .number = number, .untold = a->violations_untold};
    make_word(v->why, sizeof v->why, why);
    a->violation_at = now.tv_sec;
    a->violations_untold = 0;
    if (store_submit(a->store, decide, after, v))
        fatal("no memory for an event");
}
