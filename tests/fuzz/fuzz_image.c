/* What signet image --inspect and a flash that was read back go through: NVS, plain and with keys,
 * esp_secure_cert, the partition table, a page of NVS keys. Seeds: ../corpus/image */
#include <stdlib.h>
#include <string.h>

#include "image/nvs.h"
#include "image/partition_table.h"
#include "image/secure_cert.h"

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

/* ---- the same with right CRCs, so that what stands behind them is reached ---- */

/* An entry and its data; how many entries that is. */
static size_t seal_entry(uint8_t *entry, size_t left)
{
    size_t span = entry[2] && entry[2] <= left ? entry[2] : 1, len = get16(entry + 24);
    if ((entry[1] == NVS_STRING || entry[1] == NVS_BLOB_DATA) && len <= (span - 1) * NVS_ENTRY)
        put32(entry + 28, rom_crc(entry + NVS_ENTRY, len));
    put32(entry + 4, nvs_entry_crc(entry));
    return span;
}

static void seal_page(uint8_t *page)
{
    put32(page + 28, nvs_header_crc(page));
    for (size_t i = 0; i < NVS_ENTRIES;)
        i += seal_entry(page + NVS_FIRST + i * NVS_ENTRY, NVS_ENTRIES - i);
}

static void seal_tlvs(uint8_t *data, size_t size)
{
    for (size_t at = 0; size - at >= SECURE_CERT_HEADER + 4;) {
        size_t end = SECURE_CERT_HEADER + (get16(data + at + 10) + (size_t)15) / 16 * 16;
        if (end > size - at - 4)
            break;
        put32(data + at + end, rom_crc(data + at, end));
        at += end + 4;
    }
}

static void read_sealed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    if (image_recognize((struct bytes){data, size}) == IMAGE_NVS)
        for (size_t at = 0; size - at >= NVS_SECTOR; at += NVS_SECTOR)
            seal_page(copy + at);
    else
        seal_tlvs(copy, size);
    read_image((struct bytes){copy, size}, NULL);
    free(copy);
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
    read_sealed(data, size);
    if (nvs_keys_read(found, in, &err) == 0 && memcmp(found, data, sizeof found) != 0)
        abort();
    if (partition_table_parse(&table, in, &err) == 0 &&
        (table.count == 0 || table.count > PARTITIONS_MAX ||
         !partition_find(&table, table.rows[0].type, PARTITION_ANY, table.rows[0].name, &matches)))
        abort(); /* names are unique */
    return 0;
}
