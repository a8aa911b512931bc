#include "common/bytes.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

int buf_reserve(struct buf *b, size_t more)
{
    if (more > SIZE_MAX / 4 - b->len)
        return -1;
    if (b->len + more <= b->cap)
        return 0;
    size_t cap = b->cap ? b->cap : 256;
    while (cap < b->len + more)
        cap *= 2;
    uint8_t *grown = realloc(b->data, cap);
    if (!grown)
        return -1;
    b->data = grown;
    b->cap = cap;
    return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
    if (buf_reserve(b, len))
        return -1;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

struct bytes buf_view(const struct buf *b)
{
    return (struct bytes){b->data, b->len};
}

int bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

void hex_encode(char *out, struct bytes in)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < in.len; i++) {
        *out++ = digits[in.data[i] >> 4];
        *out++ = digits[in.data[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int hex_decode(uint8_t *out, size_t max, size_t *len, const char *text)
{
    size_t n = strlen(text);
    if (n % 2 || n / 2 > max)
        return -1;
    for (size_t i = 0; i < n; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0)
            return -1;
        out[i / 2] = (uint8_t)(high << 4 | low);
    }
    *len = n / 2;
    return 0;
}

char *base64_encode(struct bytes in)
{
    if (in.len > (size_t)INT32_MAX / 2)
        return NULL;
    char *out = malloc((in.len + 2) / 3 * 4 + 1);
    if (out)
        EVP_EncodeBlock((unsigned char *)out, in.data, (int)in.len);
    return out;
}

/* EVP_DecodeBlock() is lenient (white space at the ends, unused bits, padding anywhere). What it
 * decodes is canonical exactly when encoding it again gives the same text. */
uint8_t *base64_decode(const char *text, size_t text_len, size_t *len)
{
    if (text_len % 4 || text_len > (size_t)INT32_MAX / 2)
        return NULL;
    uint8_t *out = malloc(text_len / 4 * 3 + 1);
    if (!out)
        return NULL;
    int n = EVP_DecodeBlock(out, (const unsigned char *)text, (int)text_len);
    if (n < 0)
        goto refuse;
    *len = (size_t)n;
    if (text_len && text[text_len - 1] == '=')
        *len -= text[text_len - 2] == '=' ? 2 : 1;
    char *again = base64_encode((struct bytes){out, *len});
    int same = again && strlen(again) == text_len && memcmp(again, text, text_len) == 0;
    free(again);
    if (!same)
        goto refuse;
    out[*len] = '\0';
    return out;
refuse:
    free(out);
    return NULL;
}

void sha256(uint8_t out[32], struct bytes in)
{
    /* fetched once: a fetch for each digest costs more than the digest (one thread a process) */
    static EVP_MD *md;
    if (!md)
        md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!md || EVP_Digest(in.data, in.len, out, NULL, md, NULL) != 1)
        fatal("libcrypto cannot compute SHA-256");
}

/* The length of the sequence at p, 0 when it is not valid. The range of the second byte keeps out
 * overlong forms, surrogates and what lies beyond U+10FFFF. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t c = p[0], low = 0x80, high = 0xbf;
    size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (len == 0 || len > left)
        return 0;
    if (c == 0xe0)
        low = 0xa0;
    if (c == 0xed)
        high = 0x9f;
    if (c == 0xf0)
        low = 0x90;
    if (c == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < len; i++, low = 0x80, high = 0xbf)
        if (p[i] < low || p[i] > high)
            return 0;
    return len;
}

int utf8_valid(struct bytes text)
{
    for (size_t i = 0, n; i < text.len; i += n)
        if (!(n = utf8_sequence(text.data + i, text.len - i)))
            return 0;
    return 1;
}
