/* Rows of certificates, as list_certs gives them: a table with aligned columns, or JSON lines. */
#ifndef SIGNET_CLIENT_LISTING_H
#define SIGNET_CLIENT_LISTING_H

#include <cjson/cJSON.h>
#include "client/failure.h"

#define LISTING_COLUMNS 8

/* Start with {0}: columns only grow, from page to page. */
struct listing {
    int width[LISTING_COLUMNS];
    int begun; /* the head is printed */
};

/* The rows of one answer; adds to *printed how many. */
int listing_print(struct listing *l, const cJSON *answer, int json, long *printed,
                  struct failure *f) __attribute__((warn_unused_result));

/* A row's field as text fit for a terminal; "-" when it is not there. */
void row_text(char *out, size_t size, const cJSON *row, const char *name);

#endif
