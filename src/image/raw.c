#include "image/raw.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/parts.h"

/* Text into a buffer that is large enough from the start: nothing of the key stays behind. */
static void add_text(struct buf *out, const char *text)
{
    size_t len = strlen(text);
    memcpy(out->data + out->len, text, len);
    out->len += len;
}

static void add_bytes(struct buf *out, struct bytes data)
{
    char text[16];
    for (size_t i = 0; i < data.len; i++) {
        snprintf(text, sizeof text, "%s0x%02x,", i % 12 ? " " : "\n    ", data.data[i]);
        add_text(out, text);
    }
    OPENSSL_cleanse(text, sizeof text);
}

void raw_name(char out[32], const struct credential_item *item)
{
    static const char *const names[] = {"client_key", "client_cert", "client_chain", "ca_cert"};
    if (item->what == CREDENTIAL_CHAIN)
        snprintf(out, 32, "%s%u", names[item->what], item->number);
    else
        snprintf(out, 32, "%s", names[item->what]);
}

static void add_item(struct buf *out, const struct credential_item *item)
{
    char name[32], text[128];
    raw_name(name, item);
    snprintf(text, sizeof text, "\nstatic const unsigned char %s[%zu] = {", name, item->data.len);
    add_text(out, text);
    add_bytes(out, buf_view(&item->data));
    add_text(out, "\n};\n");
    snprintf(text, sizeof text, "static const unsigned int %s_len = %zu;\n", name, item->data.len);
    add_text(out, text);
}

int raw_c_header(struct buf *out, const struct credential_items *items, struct err *err)
{
    static const char begin[] = "/* A device's key and certificates. The key is secret. */\n"
                                "#ifndef SIGNET_CREDENTIALS_H\n#define SIGNET_CREDENTIALS_H\n";
    static const char end[] = "\n#endif\n";
    size_t size = sizeof begin + sizeof end;
    for (size_t i = 0; i < items->count; i++)
        size += 256 + items->item[i].data.len * 7;
    *out = (struct buf){malloc(size), 0, size};
    if (!out->data)
        return err_set(err, ERR_internal, "out of memory");
    add_text(out, begin);
    for (size_t i = 0; i < items->count; i++)
        add_item(out, &items->item[i]);
    add_text(out, end);
    return 0;
}
