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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct device_list list = {0};
    struct failure f = {0};
    if (device_list_parse(&list, (struct bytes){data, size}, "fuzz", bad_line, NULL, &f) == 0)
        for (size_t i = 0; i < list.count; i++) {
            if (mac_check(list.device[i].mac, NULL) ||
                device_list_find(&list, list.device[i].mac) != &list.device[i])
                abort();
            write_and_read(list.device[i].cells, list.column_count);
        }
    device_list_free(&list);
    return 0;
}
