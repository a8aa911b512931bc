/* The partition table of an ESP32's flash, as it stands at 0x8000. */
#ifndef SIGNET_PARTITION_TABLE_H
#define SIGNET_PARTITION_TABLE_H

#include "common/bytes.h"
#include "common/err.h"

#define PARTITION_TABLE_OFFSET 0x8000
#define PARTITION_TABLE_SIZE 0xC00
#define PARTITIONS_MAX 95

enum partition_type {
    PARTITION_APP = 0x00,
    PARTITION_DATA = 0x01,
    PARTITION_SECURE_CERT = 0x3F, /* named esp_secure_cert, any subtype */
};
/* Subtypes of data. */
#define PARTITION_DATA_NVS 0x02
#define PARTITION_DATA_NVS_KEYS 0x04
#define PARTITION_ANY (-1)
#define PARTITION_FLAG_ENCRYPTED 1u

struct partition {
    uint8_t type, subtype;
    uint32_t offset, size, flags;
    char name[17];
};

struct partition_table {
    struct partition rows[PARTITIONS_MAX];
    size_t count;
    int has_md5;
};

/* The rows up to the MD5 row (whose sum must be right) or the first that is FF throughout. in may
 * be longer than the table. Refused with row and offset: another magic, a wrong MD5, two partitions
 * that overlap, one that overflows 32 bits, two of one name, nothing at all. */
int partition_table_parse(struct partition_table *out, struct bytes in, struct err *err)
    __attribute__((warn_unused_result));

/* The one partition of this type, subtype (PARTITION_ANY: any) and name (NULL: any). NULL when
 * there is none, or several; *matches says how many. */
const struct partition *partition_find(const struct partition_table *t, int type, int subtype,
                                       const char *name, size_t *matches);

#endif
