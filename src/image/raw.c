#include "image/raw.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "image/parts.h"

static int add_text(struct buf *out, const char *text)
{
    return buf_add(out, text, strlen(text));
}

static int add_bytes(struct buf *out, struct bytes data)
{
    char text[16];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < data.len; i++) {
        snprintf(text, sizeof text, "%s0x%02x,", i % 12 ? " " : "\n    ", data.data[i]);
        rc = add_text(out, text);
    }
    OPENSSL_cleanse(text, sizeof text);
    return rc;
}

void raw_name(char out[32], const struct credential_item *item)
{
    static const char *const names[] = {"client_key", "client_cert", "client_chain", "ca_cert"};
    if (item->what == CREDENTIAL_CHAIN)
        snprintf(out, 32, "%s%u", names[item->what], item->number);
    else
        snprintf(out, 32, "%s", names[item->what]);
}

static int add_item(struct buf *out, const struct credential_item *item)
{
    char name[32], begin[96], end[96];
    raw_name(name, item);
    snprintf(begin, sizeof begin, "\nstatic const unsigned char %s[%zu] = {", name, item->data.len);
    snprintf(end, sizeof end, "\n};\nstatic const unsigned int %s_len = %zu;\n", name,
             item->data.len);
    return add_text(out, begin) || add_bytes(out, buf_view(&item->data)) || add_text(out, end) ? -1
                                                                                               : 0;
}

static int add_all(struct buf *out, const struct credential_items *items)
{
    size_t size = 256;
    for (size_t i = 0; i < items->count; i++)
        size += 192 + items->item[i].data.len * 7;
    if (buf_reserve(out, size)) /* nothing is moved: the key is in it */
        return -1;
    if (add_text(out, "/* A device's key and certificates. The key is secret. */\n"
                      "#ifndef SIGNET_CREDENTIALS_H\n#define SIGNET_CREDENTIALS_H\n"))
        return -1;
    for (size_t i = 0; i < items->count; i++)
        if (add_item(out, &items->item[i]))
            return -1;
    return add_text(out, "\n#endif\n");
}

int raw_c_header(struct buf *out, const struct credential_items *items, struct err *err)
{
    return add_all(out, items) ? err_set(err, ERR_internal, "out of memory") : 0;
}
