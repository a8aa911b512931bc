#include "client/image_show.h"

#include <stdio.h>
#include <string.h>

#include "client/answer.h"
#include "client/keys.h"
#include "image/content.h"

static void find(struct findings *found, cJSON *problems, const char *text)
{
    char safe[sizeof found->first];
    printable(safe, sizeof safe, text);
    if (found->count++ == 0)
        memcpy(found->first, safe, sizeof safe);
    cJSON_AddItemToArray(problems, cJSON_CreateString(safe));
}

/* ---- items ---- */

static void type_text(char out[16], const struct image *image, const struct image_item *item)
{
    static const struct {
        uint8_t type;
        const char *name;
    } types[] = {{0x01, "u8"},     {0x11, "i8"},   {0x02, "u16"}, {0x12, "i16"},
                 {0x04, "u32"},    {0x14, "i32"},  {0x08, "u64"}, {0x18, "i64"},
                 {0x21, "string"}, {0x41, "blob"}, {0x42, "blob"}};
    snprintf(out, 16, "%u.%u", item->type, item->subtype);
    for (size_t i = 0; image->format == IMAGE_NVS && i < sizeof types / sizeof types[0]; i++)
        if (types[i].type == item->type)
            snprintf(out, 16, "%s", types[i].name);
}

/* "certificate 24:0a:c4:12:34:56, Device CA" */
static void certs_text(char out[256], const STACK_OF(X509) * certs)
{
    int n = snprintf(out, 256, "certificate%s", sk_X509_num(certs) > 1 ? "s" : "");
    for (int i = 0; i < sk_X509_num(certs) && n < 256; i++) {
        char *cn = name_cn(X509_get_subject_name(sk_X509_value(certs, i)));
        n += snprintf(out + n, (size_t)(256 - n), "%s %s", i ? "," : "", cn ? cn : "(no CN)");
        OPENSSL_free(cn);
    }
}

static void holds_text(char out[320], const struct content *c)
{
    const char *encoding = c->encoding == ENCODING_PEM ? "PEM" : "DER";
    char certs[256], safe[256];
    const char *type = c->kind == CONTENT_KEY ? key_type_of(c->key) : NULL;
    *out = '\0';
    if (c->kind == CONTENT_KEY)
        snprintf(out, 320, "private key %s, %s %s", type ? type : "(of another type)", c->form,
                 encoding);
    if (c->kind == CONTENT_CERTS) {
        certs_text(certs, c->certs);
        printable(safe, sizeof safe, certs);
        snprintf(out, 320, "%s, %s", safe, encoding);
    }
}

/* Of the certificates that stand with the leaf: the leaf first, each signed by the next. */
static int is_in_order(const struct content *c, X509 *leaf)
{
    int leads = leaf && X509_cmp(sk_X509_value(c->certs, 0), leaf) == 0, holds = 0;
    for (int i = 0; leaf && i < sk_X509_num(c->certs); i++)
        holds = holds || X509_cmp(sk_X509_value(c->certs, i), leaf) == 0;
    for (int i = 1; leads && i < sk_X509_num(c->certs); i++)
        leads = cert_is_issued_by(sk_X509_value(c->certs, i - 1), sk_X509_value(c->certs, i));
    return !holds || leads;
}

static const char *fault_of(const struct content *c, X509 *leaf)
{
    if (c->fault)
        return c->fault;
    if (c->kind == CONTENT_CERTS && !is_in_order(c, leaf))
        return "the chain is not in order: the device's certificate first, each signed by the next";
    return NULL;
}

static void describe_item(cJSON *to, const struct image *image, const struct image_item *item,
                          X509 *leaf, struct findings *found, cJSON *problems)
{
    struct content content;
    char type[16], holds[320], name[48], text[256];
    cJSON *o = cJSON_CreateObject();
    content_parse(&content, buf_view(&item->data));
    type_text(type, image, item);
    holds_text(holds, &content);
    snprintf(text, sizeof text, "%s%s%s", item->space, *item->space ? "/" : "", item->name);
    printable(name, sizeof name, text);
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddStringToObject(o, "type", type);
    cJSON_AddNumberToObject(o, "bytes", (double)item->data.len);
    cJSON_AddNumberToObject(o, "offset", (double)item->offset);
    cJSON_AddStringToObject(o, "holds", item->flags ? "readable by its board alone" : holds);
    cJSON_AddItemToArray(to, o);
    const char *fault = item->flags ? NULL : fault_of(&content, leaf);
    if (fault) {
        snprintf(text, sizeof text, "%s (at 0x%zx): %s", name, item->offset, fault);
        find(found, problems, text);
    }
    content_free(&content);
}

/* ---- the whole ---- */

static const char *pair_text(const struct image_credentials *c)
{
    if (!c->key)
        return "none";
    if (!c->cert)
        return "without a certificate";
    return X509_check_private_key(c->cert, c->key) == 1 ? "matches" : "of another certificate";
}

static void describe_pair(cJSON *o, const struct image_credentials *c, struct findings *found,
                          cJSON *problems)
{
    const char *pair = pair_text(c);
    cJSON_AddStringToObject(o, "key", pair);
    if (strcmp(pair, "of another certificate") == 0)
        find(found, problems, "the private key and the certificate are no pair");
    if (c->keys > 1)
        find(found, problems, "there is more than one private key");
}

static void describe_damage(const struct image *image, struct findings *found, cJSON *problems)
{
    size_t kept =
        image->problem_count < IMAGE_PROBLEMS_MAX ? image->problem_count : IMAGE_PROBLEMS_MAX;
    for (size_t i = 0; i < kept; i++) {
        char text[256];
        snprintf(text, sizeof text, "offset 0x%zx: %s", image->problems[i].offset,
                 image->problems[i].text);
        find(found, problems, text);
    }
    found->count += image->problem_count - kept;
}

cJSON *image_describe(const struct image *image, struct findings *found)
{
    struct image_credentials c;
    struct err err;
    *found = (struct findings){0};
    cJSON *o = image_credentials(&c, image, &err) == 0 ? cJSON_CreateObject() : NULL;
    if (o) {
        cJSON_AddStringToObject(o, "format", image->format == IMAGE_NVS ? "nvs" : "secure-cert");
        cJSON_AddNumberToObject(o, "size", (double)image->size);
        cJSON_AddNumberToObject(o, "used", (double)image->used);
        cJSON *items = cJSON_AddArrayToObject(o, "items");
        cJSON *problems = cJSON_CreateArray();
        describe_damage(image, found, problems);
        for (size_t i = 0; i < image->count; i++)
            describe_item(items, image, &image->items[i], c.cert, found, problems);
        describe_pair(o, &c, found, problems);
        cJSON_AddItemToObject(o, "problems", problems);
    }
    image_credentials_free(&c);
    return o;
}

static const char *text_of(const cJSON *o, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, name));
    return text ? text : "";
}

static unsigned long number_of(const cJSON *o, const char *name)
{
    return (unsigned long)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(o, name));
}

void image_print(const cJSON *description)
{
    const cJSON *row;
    cJSON_ArrayForEach (row, cJSON_GetObjectItemCaseSensitive(description, "items"))
        printf("  0x%05lx  %-20s %-7s %5lu bytes  %s\n", number_of(row, "offset"),
               text_of(row, "name"), text_of(row, "type"), number_of(row, "bytes"),
               text_of(row, "holds"));
    const char *key = text_of(description, "key");
    printf("  private key: %s\n", strcmp(key, "matches") == 0 ? "matches the certificate" : key);
    cJSON_ArrayForEach (row, cJSON_GetObjectItemCaseSensitive(description, "problems"))
        printf("  WRONG: %s\n", cJSON_GetStringValue(row));
}

/* ---- the partition table ---- */

cJSON *partition_table_describe(const struct partition_table *table)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "format", "partition-table");
    cJSON_AddBoolToObject(o, "md5", table->has_md5);
    cJSON *rows = cJSON_AddArrayToObject(o, "partitions");
    for (size_t i = 0; i < table->count; i++) {
        const struct partition *p = &table->rows[i];
        char name[sizeof p->name];
        cJSON *row = cJSON_CreateObject();
        printable(name, sizeof name, p->name);
        cJSON_AddStringToObject(row, "name", name);
        cJSON_AddNumberToObject(row, "type", p->type);
        cJSON_AddNumberToObject(row, "subtype", p->subtype);
        cJSON_AddNumberToObject(row, "offset", p->offset);
        cJSON_AddNumberToObject(row, "size", p->size);
        cJSON_AddBoolToObject(row, "encrypted", (p->flags & PARTITION_FLAG_ENCRYPTED) != 0);
        cJSON_AddItemToArray(rows, row);
    }
    return o;
}

void partition_table_print(const cJSON *description)
{
    const cJSON *row;
    cJSON_ArrayForEach (row, cJSON_GetObjectItemCaseSensitive(description, "partitions"))
        printf("  0x%06lx  0x%06lx bytes  %-16s type 0x%02lx, subtype 0x%02lx%s\n",
               number_of(row, "offset"), number_of(row, "size"), text_of(row, "name"),
               number_of(row, "type"), number_of(row, "subtype"),
               cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "encrypted")) ? ", encrypted"
                                                                                : "");
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(description, "md5")))
        printf("  without an MD5\n");
}
