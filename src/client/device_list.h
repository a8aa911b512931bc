/* The boards of a batch: a CSV file whose first line names its columns.
 *
 * mac: the board, as --mac takes it. profile (may be missing or empty): its certificate's profile.
 * Every other column is a label: free text that is carried to the results. */
#ifndef SIGNET_CLIENT_DEVICE_LIST_H
#define SIGNET_CLIENT_DEVICE_LIST_H

#include "client/failure.h"
#include "common/bytes.h"
#include "pki/mac.h"

#define DEVICE_LIST_SIZE_MAX ((size_t)64 * 1024 * 1024)
#define LABEL_MAX 1024

struct device {
    char mac[MAC_TEXT_SIZE];
    unsigned line; /* in the file, from 1 */
    char *cells;   /* as csv_split() has them */
};

struct device_list {
    char *columns; /* their names, as cells */
    size_t column_count;
    struct device *device;
    size_t count;
    size_t mac, profile; /* columns; profile is column_count when there is none */
    void *by_mac;        /* tsearch(3) */
};

/* Told of every bad line. */
typedef void bad_line_fn(void *arg, unsigned line, const char *why);

/* All lines must be right: each bad one is told, and then it fails. Start with {0};
 * device_list_free() also after a failure. what names the text in errors. */
int device_list_parse(struct device_list *out, struct bytes text, const char *what,
                      bad_line_fn *bad, void *arg, struct failure *f)
    __attribute__((warn_unused_result));
void device_list_free(struct device_list *l);

/* The board's profile; otherwise where the line says none. */
const char *device_profile(const struct device_list *l, const struct device *d,
                           const char *otherwise);
/* Is this column a label? */
int device_list_is_label(const struct device_list *l, size_t column);
/* NULL: it is not in the list. */
const struct device *device_list_find(const struct device_list *l, const char *mac);

#endif
