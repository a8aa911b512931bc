#include "client/listing.h"

#include <stdio.h>
#include <string.h>

#include "client/answer.h"

#define CELL 80

static const struct column {
    const char *head, *field;
    int is_time; /* the date is enough */
} columns[LISTING_COLUMNS] = {
    {"SERIAL", "serial", 0},    {"NAME", "name", 0},         {"STATE", "state", 0},
    {"BOARD", "board", 0},      {"PROFILE", "profile", 0},   {"OPERATOR", "operator", 0},
    {"ISSUED", "issued_at", 1}, {"EXPIRES", "not_after", 1},
};

void row_text(char *out, size_t size, const cJSON *row, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, name));
    printable(out, size, text && *text ? text : "-");
}

static void cell(char out[CELL], const cJSON *row, const struct column *c)
{
    row_text(out, CELL, row, c->field);
    if (c->is_time && strlen(out) > 10)
        out[10] = '\0';
}

static void widen(struct listing *l, const cJSON *rows)
{
    const cJSON *row;
    char text[CELL];
    for (int i = 0; i < LISTING_COLUMNS; i++) {
        int width = (int)strlen(columns[i].head);
        l->width[i] = l->width[i] > width ? l->width[i] : width;
    }
    cJSON_ArrayForEach (row, rows)
        for (int i = 0; i < LISTING_COLUMNS; i++) {
            cell(text, row, &columns[i]);
            int width = (int)strlen(text);
            l->width[i] = l->width[i] > width ? l->width[i] : width;
        }
}

static void print_head(struct listing *l)
{
    for (int i = 0; i < LISTING_COLUMNS; i++)
        printf("%-*s  ", l->width[i], columns[i].head);
    printf("REVOKED\n");
    l->begun = 1;
}

static void print_row(const struct listing *l, const cJSON *row)
{
    char text[CELL], reason[48];
    for (int i = 0; i < LISTING_COLUMNS; i++) {
        cell(text, row, &columns[i]);
        printf("%-*s  ", l->width[i], text);
    }
    row_text(text, sizeof text, row, "revoked_at");
    row_text(reason, sizeof reason, row, "reason");
    if (strcmp(text, "-") == 0)
        printf("-\n");
    else
        printf("%.10s %s\n", text, reason);
}

int listing_print(struct listing *l, const cJSON *answer, int json, long *printed,
                  struct failure *f)
{
    const cJSON *rows = cJSON_GetObjectItemCaseSensitive(answer, "certificates"), *row;
    if (!cJSON_IsArray(rows))
        return fail(f, EXIT_VERIFY, "answer_not_understood",
                    "the server's answer has no list \"certificates\"; is it a Signet server of "
                    "this version?");
    if (!json)
        widen(l, rows);
    cJSON_ArrayForEach (row, rows) {
        if (!json && !l->begun)
            print_head(l);
        if (json)
            json_print(row);
        else
            print_row(l, row);
        ++*printed;
    }
    fflush(stdout);
    return 0;
}
