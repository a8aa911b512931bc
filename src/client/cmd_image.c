/* signet image: an image for a board's flash, from a device's folder. */
#include <dirent.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/device_image.h"
#include "client/image_show.h"
#include "common/file.h"
#include "image/raw.h"

struct job {
    const struct options *o;
    struct credentials c;
    struct image_options options;
    uint8_t keys[NVS_KEYS_SIZE];
    struct buf image;
};

/* ---- nvs and secure-cert ---- */

static int take_keys(struct job *j, struct failure *f)
{
    const struct options *o = j->o;
    struct err err;
    if (!o->encrypt)
        return o->keys || o->keys_out
                   ? fail(f, EXIT_USAGE, "usage", "--keys and --keys-out want --encrypt")
                   : 0;
    if (!o->keys == !o->keys_out)
        return fail(f, EXIT_USAGE, "usage",
                    "--encrypt wants --keys-out FILE for new keys, or --keys FILE for those of the "
                    "board");
    j->options.nvs_keys = j->keys;
    if (o->keys)
        return nvs_keys_load(j->keys, o->keys, f);
    return nvs_keys_make(j->keys, &err) ? fail_image(f, &err) : 0;
}

static int take_options(struct job *j, struct failure *f)
{
    if (image_options_take(&j->options, j->o, f) || take_keys(j, f))
        return -1;
    if (j->options.size)
        return 0;
    if (j->options.format == IMAGE_NVS)
        return fail(f, EXIT_USAGE, "usage",
                    "how long is the partition? give --size, such as 0x6000, from your partition "
                    "table");
    j->options.size = SECURE_CERT_SIZE_DEFAULT;
    return 0;
}

static int save_keys(const struct job *j, struct failure *f)
{
    struct buf page = {0};
    struct err err;
    if (!j->o->keys_out)
        return 0;
    int rc = nvs_keys_build(&page, j->keys, &err);
    if (rc == 0)
        rc = file_write(j->o->keys_out, buf_view(&page), 0600, 0, &err);
    buf_wipe(&page);
    return rc ? fail_err(f, EXIT_LOCAL, &err) : 0;
}

/* Keys of an image that is not there are of no use. */
static int save(const struct job *j, struct failure *f)
{
    struct err err;
    if (save_keys(j, f))
        return -1;
    if (file_write(j->o->out, buf_view(&j->image), 0600, 0, &err) == 0)
        return 0;
    if (j->o->keys_out)
        unlink(j->o->keys_out);
    return fail_err(f, EXIT_LOCAL, &err);
}

static void print(const struct job *j, cJSON *o)
{
    if (j->o->json) {
        cJSON_AddStringToObject(o, "status", "OK");
        cJSON_AddStringToObject(o, "file", j->o->out);
        cJSON_AddBoolToObject(o, "encrypted", j->options.nvs_keys != NULL);
        if (j->o->keys_out)
            cJSON_AddStringToObject(o, "keys", j->o->keys_out);
        json_print(o);
        return;
    }
    printf("%s is an image of 0x%zx bytes (%s%s); keep it secret: it holds the key\n", j->o->out,
           j->image.len, j->o->format, j->options.nvs_keys ? ", encrypted" : "");
    image_print(o);
    if (j->o->keys_out)
        printf("  %s is for the partition nvs_keys; keep it secret\n", j->o->keys_out);
}

/* What is in the image, read back from its bytes as --inspect does. */
static int read_back(const struct job *j, cJSON **out, struct failure *f)
{
    struct image image = {0};
    struct findings found = {0};
    struct err err;
    if (image_verify(buf_view(&j->image), &j->c, &j->options, &err) ||
        image_read(&image, buf_view(&j->image), j->options.nvs_keys, &err)) {
        image_free(&image);
        return fail(f, EXIT_VERIFY, "image_damaged", "the image that was made is wrong: %s",
                    err.text);
    }
    *out = image_describe(&image, &found);
    image_free(&image);
    if (!*out)
        return fail_memory(f);
    return found.count ? fail(f, EXIT_VERIFY, "image_damaged", "%s", found.first) : 0;
}

static int make_image(struct job *j, struct failure *f)
{
    struct err err;
    cJSON *o = NULL;
    if (take_options(j, f) || device_credentials_load(&j->c, j->o->operand, f))
        return -1;
    if (image_build(&j->image, &j->c, &j->options, &err))
        return fail_image(f, &err);
    int rc = read_back(j, &o, f) || save(j, f) ? -1 : 0;
    if (rc == 0)
        print(j, o);
    cJSON_Delete(o);
    return rc;
}

/* ---- raw ---- */

static int save_raw(const char *folder, const char *name, const char *ending, struct bytes data,
                    mode_t mode, struct failure *f)
{
    char *path = NULL;
    struct err err;
    if (asprintf(&path, "%s/%s.%s", folder, name, ending) < 0)
        return fail_memory(f);
    int rc = file_write(path, data, mode, 1, &err) ? fail_err(f, EXIT_LOCAL, &err) : 0;
    free(path);
    return rc;
}

/* A text file ends without the NUL: what embeds it adds one. */
static int save_item(const char *folder, const struct credential_item *item, enum encoding encoding,
                     struct failure *f)
{
    char name[32];
    raw_name(name, item);
    struct bytes data = buf_view(&item->data);
    if (encoding == ENCODING_PEM)
        data.len--;
    return save_raw(folder, name, encoding == ENCODING_PEM ? "pem" : "der", data,
                    item->what == CREDENTIAL_KEY ? 0600 : 0644, f);
}

static int fill_folder(const char *folder, const struct credential_items *items,
                       enum encoding encoding, struct failure *f)
{
    struct buf header = {0};
    struct err err;
    for (size_t i = 0; i < items->count; i++)
        if (save_item(folder, &items->item[i], encoding, f))
            return -1;
    int rc = raw_c_header(&header, items, &err)
                 ? fail_image(f, &err)
                 : save_raw(folder, "credentials", "h", buf_view(&header), 0600, f);
    buf_wipe(&header);
    return rc;
}

static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)))
        unlinkat(dirfd(folder), entry->d_name, 0);
    if (folder)
        closedir(folder);
    rmdir(path);
}

/* rename() takes the place of an empty folder, and of nothing else. */
static int put_in_place(const char *made, const char *path, struct failure *f)
{
    if (rename(made, path) == 0 && file_sync_parent(path, NULL) == 0)
        return 0;
    if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR)
        return fail(f, EXIT_LOCAL, "already_exists", "%s exists already; it is not overwritten",
                    path);
    return fail(f, EXIT_LOCAL, "local_file", "cannot make %s: %s", path, strerror(errno));
}

/* Everything under another name, then one rename: complete, or not there. */
static int save_folder(const char *path, const struct credential_items *items,
                       enum encoding encoding, struct failure *f)
{
    char *made = NULL;
    if (asprintf(&made, "%s.XXXXXX", path) < 0)
        return fail_memory(f);
    int rc = mkdtemp(made)
                 ? 0
                 : fail(f, EXIT_LOCAL, "local_file", "cannot make %s: %s", path, strerror(errno));
    if (rc == 0 && (fill_folder(made, items, encoding, f) || put_in_place(made, path, f))) {
        remove_folder(made);
        rc = -1;
    }
    free(made);
    return rc;
}

static void print_raw(const struct job *j, const struct credential_items *items)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "status", "OK");
    cJSON_AddStringToObject(o, "format", "raw");
    cJSON_AddStringToObject(o, "folder", j->o->out);
    if (j->o->json)
        json_print(o);
    else
        printf("%s holds %zu files and credentials.h with the same; keep it secret: it holds the "
               "key\n",
               j->o->out, items->count);
    cJSON_Delete(o);
}

static int make_raw(struct job *j, struct failure *f)
{
    struct credential_items items = {.count = 0};
    enum encoding encoding;
    struct err err;
    const struct options *o = j->o;
    if (o->size || o->space || o->key_name || o->cert_name || o->chain_name || o->ca_name ||
        o->encrypt || o->keys || o->keys_out)
        return fail(f, EXIT_USAGE, "usage", "raw takes --encoding and --out alone");
    if (encoding_take(&encoding, o, f) || device_credentials_load(&j->c, o->operand, f))
        return -1;
    int rc = credential_items_make(&items, &j->c, encoding, &err)
                 ? fail_image(f, &err)
                 : save_folder(o->out, &items, encoding, f);
    if (rc == 0)
        print_raw(j, &items);
    credential_items_free(&items);
    return rc;
}

/* ---- the command ---- */

static int check_usage(const struct options *o, struct failure *f)
{
    if (o->inspect)
        return o->operand || o->format || o->out || o->encrypt || o->keys_out || o->size ||
                       o->encoding
                   ? fail(f, EXIT_USAGE, "usage", "--inspect FILE takes --keys and --json alone")
                   : 0;
    if (!o->operand || !o->format || !o->out)
        return fail(f, EXIT_USAGE, "usage",
                    "give the device's folder, --format nvs, secure-cert or raw, and --out; or "
                    "--inspect FILE");
    return 0;
}

int cmd_image(const struct options *o, struct failure *f)
{
    struct job j = {.o = o};
    if (check_usage(o, f))
        return -1;
    if (o->inspect)
        return image_inspect(o->inspect, o->keys, o->json, f);
    int rc = strcmp(o->format, "raw") == 0 ? make_raw(&j, f) : make_image(&j, f);
    OPENSSL_cleanse(j.keys, sizeof j.keys);
    buf_wipe(&j.image);
    device_credentials_free(&j.c);
    return rc;
}
