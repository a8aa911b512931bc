/* What signet image --inspect and a flash that was read back go through: NVS, plain and with keys,
 * esp_secure_cert, the partition table, a page of NVS keys. Seeds: ../corpus/image */
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "image/partition_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_image(struct bytes in, const uint8_t *keys)
{
    struct image image;
    struct image_credentials c;
    struct err err;
    if (image_read(&image, in, keys, &err) == 0) {
        for (size_t i = 0; i < image.count; i++)
            if (image.items[i].offset >= in.len || image.items[i].data.len > in.len)
                abort(); /* an item is somewhere in the image */
        if (image_credentials(&c, &image, &err))
            abort();
        image_credentials_free(&c);
    }
    image_free(&image);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t keys[NVS_KEYS_SIZE];
    uint8_t found[NVS_KEYS_SIZE];
    struct partition_table table;
    struct err err;
    size_t matches;
    struct bytes in = {data, size};
    for (size_t i = 0; i < sizeof keys; i++)
        keys[i] = (uint8_t)i;
    read_image(in, NULL);
    read_image(in, keys);
    if (nvs_keys_read(found, in, &err) == 0 && memcmp(found, data, sizeof found) != 0)
        abort();
    if (partition_table_parse(&table, in, &err) == 0 &&
        (table.count == 0 || table.count > PARTITIONS_MAX ||
         !partition_find(&table, table.rows[0].type, PARTITION_ANY, table.rows[0].name, &matches)))
        abort(); /* names are unique */
    return 0;
}
