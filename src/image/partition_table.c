#include "image/partition_table.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "image/parts.h"

#define ROW 32
#define MAGIC 0x50AA /* AA 50 */
#define MAGIC_MD5 0xEBEB

static size_t row_offset(size_t row)
{
    return row * ROW;
}

static int check_md5(const uint8_t *table, size_t row, struct err *err)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    if (EVP_Digest(table, row * ROW, sum, NULL, EVP_md5(), NULL) != 1)
        return err_set(err, ERR_internal, "cannot compute MD5: %s", err_openssl());
    if (memcmp(sum, table + row * ROW + 16, 16) == 0)
        return 0;
    return err_set(err, ERR_internal,
                   "row %zu (offset 0x%zx): its MD5 is not that of the rows before it", row,
                   row_offset(row));
}

static void take_row(struct partition *p, const uint8_t *row)
{
    *p = (struct partition){.type = row[2],
                            .subtype = row[3],
                            .offset = get32(row + 4),
                            .size = get32(row + 8),
                            .flags = get32(row + 28)};
    memcpy(p->name, row + 12, 16);
}

static int check_row(const struct partition_table *t, const struct partition *p, struct err *err)
{
    size_t row = t->count;
    if (p->size == 0 || p->offset > UINT32_MAX - p->size)
        return err_set(err, ERR_internal, "row %zu (offset 0x%zx): 0x%x bytes at 0x%x are none",
                       row, row_offset(row), p->size, p->offset);
    for (size_t i = 0; i < t->count; i++) {
        const struct partition *q = &t->rows[i];
        if (p->offset < q->offset + q->size && q->offset < p->offset + p->size)
            return err_set(err, ERR_internal,
                           "row %zu (offset 0x%zx): the partition overlaps that of row %zu", row,
                           row_offset(row), i);
        if (strcmp(p->name, q->name) == 0)
            return err_set(err, ERR_internal, "row %zu (offset 0x%zx): its name is that of row %zu",
                           row, row_offset(row), i);
    }
    return 0;
}

static int check_end(const struct partition_table *t, struct err *err)
{
    if (t->count)
        return 0;
    return err_set(err, ERR_internal, "no partition table: the first row is empty");
}

int partition_table_parse(struct partition_table *out, struct bytes in, struct err *err)
{
    size_t rows = (in.len < PARTITION_TABLE_SIZE ? in.len : PARTITION_TABLE_SIZE) / ROW;
    *out = (struct partition_table){0};
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *row = in.data + i * ROW;
        if (is_blank(row, ROW))
            return check_end(out, err);
        if (get16(row) == MAGIC_MD5) {
            out->has_md5 = 1;
            return check_md5(in.data, i, err) ? -1 : check_end(out, err);
        }
        if (get16(row) != MAGIC || i == PARTITIONS_MAX)
            return err_set(err, ERR_internal,
                           "row %zu (offset 0x%zx) is no partition: it begins with %04x, not aa50",
                           i, row_offset(i), row[0] << 8 | row[1]);
        take_row(&out->rows[i], row);
        if (check_row(out, &out->rows[i], err))
            return -1;
        out->count++;
    }
    return err_set(err, ERR_internal, "the partition table does not end: cut off after %zu rows",
                   out->count);
}

const struct partition *partition_find(const struct partition_table *t, int type, int subtype,
                                       const char *name, size_t *matches)
{
    const struct partition *found = NULL;
    *matches = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct partition *p = &t->rows[i];
        if (p->type != type || (subtype != PARTITION_ANY && p->subtype != subtype) ||
            (name && strcmp(p->name, name) != 0))
            continue;
        found = p;
        ++*matches;
    }
    return *matches == 1 ? found : NULL;
}
