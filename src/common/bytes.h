/* Bytes: a borrowed view, and an owned buffer that grows. */
#ifndef SIGNET_BYTES_H
#define SIGNET_BYTES_H

#include <stddef.h>
#include <stdint.h>

/* A view; whoever made it owns the memory. data may be NULL when len is 0. */
struct bytes {
    const uint8_t *data;
    size_t len;
};

/* An owned buffer. Start with {0}; free with buf_free(). */
struct buf {
    uint8_t *data;
    size_t len, cap;
};

/* 0, or -1 when memory is out (the buffer is then as before). */
int buf_add(struct buf *b, const void *data, size_t len) __attribute__((warn_unused_result));
/* Room for so many more bytes, so that adding them moves nothing (what is moved leaves a copy
 * behind, which matters for a secret). */
int buf_reserve(struct buf *b, size_t more) __attribute__((warn_unused_result));
void buf_free(struct buf *b);
struct bytes buf_view(const struct buf *b);

int bytes_equal(struct bytes a, struct bytes b);

/* Lower-case hex, NUL-terminated: out holds 2 * in.len + 1. */
void hex_encode(char *out, struct bytes in);
/* Even number of hex digits, either case, at most max bytes; 0 or -1. */
int hex_decode(uint8_t *out, size_t max, size_t *len, const char *text)
    __attribute__((warn_unused_result));

/* Base64 by RFC 4648 section 4. Decoding is canonical: no line breaks, no spaces, padding
 * required, unused bits zero. The result is the caller's, free(). NULL: not canonical, or no
 * memory. A NUL is put behind the decoded bytes and is not counted. */
char *base64_encode(struct bytes in) __attribute__((warn_unused_result));
uint8_t *base64_decode(const char *text, size_t text_len, size_t *len)
    __attribute__((warn_unused_result));

/* Is it UTF-8 (RFC 3629 section 4)? */
int utf8_valid(struct bytes text);

/* SHA-256 (FIPS 180-4). Ends the process if libcrypto cannot do it: there is no going on. */
void sha256(uint8_t out[32], struct bytes in);

#endif
