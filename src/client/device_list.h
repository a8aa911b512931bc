/* The boards of a batch: a CSV file whose first line names its columns.
 *
 * mac: the board, as --mac takes it. port: the serial port that it is at; a line has one of the two
 * or both. profile (may be missing or empty): its certificate's profile. Every other column is a
 * label: free text that is carried to the results. */
#ifndef SIGNET_CLIENT_DEVICE_LIST_H
#define SIGNET_CLIENT_DEVICE_LIST_H

#include "client/failure.h"
#include "common/bytes.h"
#include "pki/mac.h"

#define DEVICE_LIST_SIZE_MAX ((size_t)64 * 1024 * 1024)
#define LABEL_MAX 1024

struct device {
    char mac[MAC_TEXT_SIZE]; /* "": not known before device_list_know() */
    unsigned line;           /* in the file, from 1 */
    char *cells;             /* as csv_split() has them */
    char *at;                /* its port, symbolic links followed; NULL: the line names none */
};

struct device_list {
    char *columns; /* their names, as cells */
    size_t column_count;
    struct device *device;
    size_t count;
    size_t ports;              /* lines that name a port */
    size_t mac, port, profile; /* columns; column_count when there is none */
    void *by_mac, *by_port;    /* tsearch(3) */
};

/* Told of every bad line. */
typedef void bad_line_fn(void *arg, unsigned line, const char *why);

/* All lines must be right: each bad one is told, and then it fails. Start with {0};
 * device_list_free() also after a failure. what names the text in errors. */
int device_list_parse(struct device_list *out, struct bytes text, const char *what,
                      bad_line_fn *bad, void *arg, struct failure *f)
    __attribute__((warn_unused_result));
void device_list_free(struct device_list *l);

/* The port as the line has it; "": none. */
const char *device_port(const struct device_list *l, const struct device *d);
/* Does its line say which board it is? */
int device_names_mac(const struct device_list *l, const struct device *d);
/* The board's profile; otherwise where the line says none. */
const char *device_profile(const struct device_list *l, const struct device *d,
                           const char *otherwise);
/* Is this column a label? */
int device_list_is_label(const struct device_list *l, size_t column);
/* NULL: it is not in the list. */
struct device *device_list_find(const struct device_list *l, const char *mac);
struct device *device_list_find_port(const struct device_list *l, const char *port);

/* The board of a line that names only a port has been met. *line is 0, or that of the board that
 * has this MAC already; then nothing is changed. */
int device_list_know(struct device_list *l, struct device *d, const char *mac, unsigned *line,
                     struct failure *f) __attribute__((warn_unused_result));

#endif
