/* signet list: what the CA has issued, page after page. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/interrupt.h"
#include "client/listing.h"
#include "client/session.h"
#include "client/when.h"
#include "pki/mac.h"

#define PAGE 250 /* the server gives at most 500 */

struct filter {
    char mac[MAC_TEXT_SIZE], from[WHEN_SIZE], to[WHEN_SIZE];
    const char *state, *board, *operator_name;
    long limit; /* 0: none */
};

static int is_one_of(const char *text, const char *const known[])
{
    for (; *known; known++)
        if (!text || strcmp(text, *known) == 0)
            return 1;
    return 0;
}

static int check_states(const struct options *o, struct failure *f)
{
    static const char *const states[] = {"issued", "revoked", "held", "orphan", NULL};
    static const char *const boards[] = {"issued", "flashed", "verified", NULL};
    if (!is_one_of(o->state, states))
        return fail(f, EXIT_USAGE, "usage",
                    "state \"%s\" is not one of issued, revoked, held and orphan", o->state);
    if (!is_one_of(o->board, boards))
        return fail(f, EXIT_USAGE, "usage",
                    "board \"%s\" is not one of issued, flashed and verified", o->board);
    return 0;
}

static int fill_filter(struct filter *c, const struct options *o, struct failure *f)
{
    struct err err;
    char *end = NULL;
    c->state = o->state;
    c->board = o->board;
    c->operator_name = o->operator_name;
    if (o->mac && mac_from_text(c->mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    if (check_states(o, f) || (o->from && when_from_text(c->from, "--from", o->from, 0, f)) ||
        (o->to && when_from_text(c->to, "--to", o->to, 1, f)))
        return -1;
    c->limit = o->limit ? strtol(o->limit, &end, 10) : 0;
    if (o->limit && (*end || c->limit < 1 || c->limit > 1000000000))
        return fail(f, EXIT_USAGE, "usage", "limit \"%s\" is not a number of 1 or more", o->limit);
    return 0;
}

static int add(cJSON *request, const char *name, const char *value)
{
    return !value || !*value || cJSON_AddStringToObject(request, name, value);
}

/* One page; after is "" for the first. */
static int ask(struct session *s, const struct filter *c, const char *after, long limit,
               cJSON **answer, struct failure *f)
{
    cJSON *request = cJSON_CreateObject();
    int good = add(request, "operation", "list_certs") && add(request, "mac", c->mac) &&
               add(request, "state", c->state) && add(request, "board", c->board) &&
               add(request, "operator", c->operator_name) && add(request, "from", c->from) &&
               add(request, "to", c->to) && add(request, "after", after) &&
               cJSON_AddNumberToObject(request, "limit", (double)limit);
    int rc = good ? http_call(s->http, request, ANSWER_MAX, answer, f) : fail_memory(f);
    cJSON_Delete(request);
    return rc;
}

/* Where the next page begins; "" when there is none. */
static int next_page(char next[64], const cJSON *answer, struct failure *f)
{
    const char *text = "";
    if (cJSON_GetObjectItemCaseSensitive(answer, "next") && answer_text(&text, answer, "next", f))
        return -1;
    if (strlen(text) >= 64 || (*text && strcmp(text, next) == 0))
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "the server's pages lead nowhere; is it a Signet server of this version?");
    snprintf(next, 64, "%s", text);
    return 0;
}

static int list_pages(struct session *s, const struct filter *c, int json, struct failure *f)
{
    char next[64] = "";
    long printed = 0;
    struct listing table = {0};
    do {
        cJSON *answer = NULL;
        long limit = c->limit && c->limit - printed < PAGE ? c->limit - printed : PAGE;
        if (interrupted())
            return fail_interrupted(f);
        int rc = ask(s, c, next, limit, &answer, f);
        if (rc == 0)
            rc = listing_print(&table, answer, json, &printed, f);
        if (rc == 0)
            rc = next_page(next, answer, f);
        cJSON_Delete(answer);
        if (rc)
            return fail_at(f, s->settings.server);
    } while (*next && (!c->limit || printed < c->limit));
    if (!printed && !json)
        fprintf(stderr, "signet: no certificate fits\n");
    if (*next && !json)
        fprintf(stderr, "signet: there may be more than these %ld; raise --limit\n", printed);
    return 0;
}

int cmd_list(const struct options *o, struct failure *f)
{
    struct session s = {0};
    struct filter c = {0};
    int rc = fill_filter(&c, o, f);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = list_pages(&s, &c, o->json, f);
    session_close(&s);
    return rc;
}
