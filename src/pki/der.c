#include "pki/der.h"

#include <openssl/err.h>
#include <limits.h>

static int encodes_as(const void *value, const ASN1_ITEM *item, struct bytes expected)
{
    struct buf again = {0};
    int same = !der_encode(&again, value, item) && bytes_equal(buf_view(&again), expected);
    buf_free(&again);
    return same;
}

void *der_decode(struct bytes in, const ASN1_ITEM *item)
{
    const unsigned char *at = in.data;
    if (in.len == 0 || in.len > LONG_MAX)
        return NULL;
    ASN1_VALUE *value = ASN1_item_d2i(NULL, &at, (long)in.len, item);
    if (value && encodes_as(value, item, in)) /* which bytes behind it would keep from being so */
        return value;
    ASN1_item_free(value, item);
    /* the caller's next TLS call must not find what a stranger's bytes left behind */
    ERR_clear_error();
    return NULL;
}

int der_encode(struct buf *out, const void *value, const ASN1_ITEM *item)
{
    unsigned char *der = NULL;
    int len = ASN1_item_i2d(value, &der, item);
    int rc = len > 0 ? buf_add(out, der, (size_t)len) : -1;
    OPENSSL_free(der);
    return rc;
}

int der_header(struct buf *out, int constructed, int tag, int class, size_t len)
{
    unsigned char header[16], *end = header;
    if (len > INT_MAX)
        return -1;
    ASN1_put_object(&end, constructed, (int)len, tag, class);
    return buf_add(out, header, (size_t)(end - header));
}

struct bytes der_string(const ASN1_STRING *s)
{
    return (struct bytes){ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s)};
}

struct bytes der_opaque(const ASN1_TYPE *any)
{
    if (!any || ASN1_TYPE_get(any) != V_ASN1_SEQUENCE)
        return (struct bytes){0};
    return der_string(any->value.sequence);
}

ASN1_TYPE *der_opaque_new(struct bytes sequence)
{
    ASN1_TYPE *any = ASN1_TYPE_new();
    ASN1_STRING *s = ASN1_STRING_type_new(V_ASN1_SEQUENCE);
    if (!any || !s || sequence.len > INT_MAX ||
        !ASN1_STRING_set(s, sequence.data, (int)sequence.len)) {
        ASN1_TYPE_free(any);
        ASN1_STRING_free(s);
        return NULL;
    }
    ASN1_TYPE_set(any, V_ASN1_SEQUENCE, s);
    return any;
}

/* The octets of a length: 0 when they are not the shortest. */
static size_t read_length(struct bytes in, size_t *len)
{
    size_t octets = in.data[0] & 0x7f;
    *len = octets;
    if (in.data[0] < 0x80)
        return 1;
    if (octets == 0 || octets > 3 || in.len <= octets || in.data[1] == 0)
        return 0;
    *len = 0;
    for (size_t i = 1; i <= octets; i++)
        *len = *len << 8 | in.data[i];
    return *len < 0x80 ? 0 : 1 + octets;
}

int der_next(struct bytes *in, struct der_value *out)
{
    size_t len;
    if (in->len < 2 || (in->data[0] & 0x1f) == 0x1f)
        return -1;
    size_t octets = read_length((struct bytes){in->data + 1, in->len - 1}, &len);
    if (octets == 0 || len > in->len - 1 - octets)
        return -1;
    out->tag = in->data[0];
    out->content = (struct bytes){in->data + 1 + octets, len};
    out->whole = (struct bytes){in->data, 1 + octets + len};
    *in = (struct bytes){in->data + out->whole.len, in->len - out->whole.len};
    return 0;
}

int der_expect(struct bytes *in, uint8_t tag, struct bytes *content)
{
    struct bytes rest = *in;
    struct der_value v;
    if (der_next(&rest, &v) || v.tag != tag)
        return -1;
    *content = v.content;
    *in = rest;
    return 0;
}
