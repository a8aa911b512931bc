/* What is in an image, for people and programs: kinds, sizes and places, never the key itself. */
#ifndef SIGNET_CLIENT_IMAGE_SHOW_H
#define SIGNET_CLIENT_IMAGE_SHOW_H

#include <cjson/cJSON.h>
#include "client/failure.h"
#include "image/image.h"
#include "image/partition_table.h"

/* The first thing found wrong, and how many there are. */
struct findings {
    size_t count;
    char first[256];
};

/* {"format","size","used","items":[…],"key","problems":[…]}, the findings counted. NULL: no memory.
 * cJSON_Delete(). */
cJSON *image_describe(const struct image *image, struct findings *found)
    __attribute__((warn_unused_result));
cJSON *partition_table_describe(const struct partition_table *table)
    __attribute__((warn_unused_result));

/* The same as text: one line an item, one a problem. */
void image_print(const cJSON *description);
void partition_table_print(const cJSON *description);

/* --inspect. */
int image_inspect(const char *path, const char *keys, int json, struct failure *f)
    __attribute__((warn_unused_result));

/* The keys of an encrypted NVS partition, from a file that nvs_keys_build() or another tool made;
 * the caller wipes them. */
int nvs_keys_load(uint8_t out[NVS_KEYS_SIZE], const char *path, struct failure *f)
    __attribute__((warn_unused_result));

#endif
