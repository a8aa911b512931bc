/* signet image --inspect: what is in an image, and what is wrong with it. */
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "client/answer.h"
#include "client/image_show.h"
#include "common/file.h"

static void print(cJSON *o, const char *path, int json, void (*as_text)(const cJSON *))
{
    char safe[512];
    if (json) {
        cJSON_AddStringToObject(o, "file", path);
        json_print(o);
        return;
    }
    printable(safe, sizeof safe, path);
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(o, "size");
    printf("%s: %s", safe, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "format")));
    if (size)
        printf(", 0x%lx bytes", (unsigned long)cJSON_GetNumberValue(size));
    printf("\n");
    if (as_text)
        as_text(o);
}

static int read_whole(struct buf *out, const char *path, struct failure *f)
{
    struct err err;
    return file_read(out, path, IMAGE_SIZE_MAX, &err) ? fail_err(f, EXIT_LOCAL, &err) : 0;
}

int nvs_keys_load(uint8_t out[NVS_KEYS_SIZE], const char *path, struct failure *f)
{
    struct buf data = {0};
    struct err err;
    if (read_whole(&data, path, f))
        return -1;
    int rc = nvs_keys_read(out, buf_view(&data), &err);
    if (rc) {
        err_prefix(&err, "%s", path);
        fail_err(f, EXIT_LOCAL, &err);
    }
    buf_wipe(&data);
    return rc;
}

static int inspect_table(const char *path, struct bytes in, int json, struct failure *f)
{
    struct partition_table table;
    struct err err;
    if (partition_table_parse(&table, in, &err))
        return fail(f, EXIT_VERIFY, "image_damaged", "%s: %s", path, err.text);
    cJSON *o = partition_table_describe(&table);
    print(o, path, json, partition_table_print);
    cJSON_Delete(o);
    return 0;
}

static int inspect_keys(const char *path, int json)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "format", "nvs-keys");
    print(o, path, json, NULL);
    cJSON_Delete(o);
    return 0;
}

static int judge(const struct findings *found, const char *path, struct failure *f)
{
    if (found->count == 0)
        return 0;
    fail(f, EXIT_VERIFY, "image_damaged", "%s: %s", path, found->first);
    return found->count > 1 ? fail_add(f, "%zu more", found->count - 1) : -1;
}

static int inspect_image(const char *path, struct bytes in, const uint8_t *keys, int json,
                         struct failure *f)
{
    struct image image = {0};
    struct findings found;
    struct err err;
    cJSON *o = NULL;
    int rc = image_read(&image, in, keys, &err);
    if (rc)
        fail(f, EXIT_LOCAL, "no_image", "%s: %s", path, err.text);
    else if (keys && image.format != IMAGE_NVS)
        rc = fail(f, EXIT_USAGE, "usage", "--keys are for an NVS partition, and %s is none", path);
    else if (!(o = image_describe(&image, &found)))
        rc = fail_memory(f);
    if (rc == 0) {
        print(o, path, json, image_print);
        rc = judge(&found, path, f);
    }
    cJSON_Delete(o);
    image_free(&image);
    return rc;
}

static int is_keys(struct bytes in)
{
    uint8_t keys[NVS_KEYS_SIZE];
    struct err err;
    int rc = nvs_keys_read(keys, in, &err);
    OPENSSL_cleanse(keys, sizeof keys);
    return rc == 0;
}

int image_inspect(const char *path, const char *keys, int json, struct failure *f)
{
    struct buf data = {0};
    uint8_t secret[NVS_KEYS_SIZE];
    int rc = keys ? nvs_keys_load(secret, keys, f) : 0;
    if (rc == 0)
        rc = read_whole(&data, path, f);
    struct bytes in = buf_view(&data);
    if (rc == 0 && in.len >= 2 && memcmp(in.data, "\xaa\x50", 2) == 0)
        rc = inspect_table(path, in, json, f);
    else if (rc == 0 && is_keys(in))
        rc = inspect_keys(path, json);
    else if (rc == 0)
        rc = inspect_image(path, in, keys ? secret : NULL, json, f);
    OPENSSL_cleanse(secret, sizeof secret);
    buf_wipe(&data);
    return rc;
}
