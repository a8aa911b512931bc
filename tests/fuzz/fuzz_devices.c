/* The boards of a batch, as a file has them: what is taken is right, and survives being written. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/csv_line.h"
#include "client/device_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bad_line(void *arg, unsigned line, const char *why)
{
    (void)arg;
    if (line < 2 || !*why)
        abort();
}

static void write_and_read(const char *cells, size_t count)
{
    struct buf line = {0}, again = {0};
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        if (csv_add(&line, csv_cell(cells, i), i + 1 == count))
            exit(1);
    if (csv_split(&again, &n, (struct bytes){line.data, line.len - 2}) || n != count)
        abort();
    for (size_t i = 0; i < count; i++)
        if (strcmp(csv_cell(cells, i), csv_cell((char *)again.data, i)) != 0)
            abort();
    buf_free(&line);
    buf_free(&again);
}

/* A line has a board, a port, or both; by each it is found. */
static void check_device(const struct device_list *l, const struct device *d)
{
    if (!d->mac[0] && !d->at)
        abort();
    if (d->mac[0] && (mac_check(d->mac, NULL) || device_list_find(l, d->mac) != d))
        abort();
    if (d->at && (!*device_port(l, d) || device_list_find_port(l, device_port(l, d)) != d))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device_list list = {0};
    struct failure f = {0};
    if (device_list_parse(&list, (struct bytes){data, size}, "fuzz", bad_line, NULL, &f) == 0)
        for (size_t i = 0; i < list.count; i++) {
            check_device(&list, &list.device[i]);
            write_and_read(list.device[i].cells, list.column_count);
        }
    device_list_free(&list);
    return 0;
}
