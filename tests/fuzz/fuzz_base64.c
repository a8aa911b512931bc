/* Base64 from the wire. Exactly what encoding makes is taken. */
#include <stdlib.h>
#include <string.h>
#include "common/bytes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = 0;
    uint8_t *plain = base64_decode((const char *)data, size, &len);
    char *again = plain ? base64_encode((struct bytes){plain, len}) : NULL;
    char *text = base64_encode((struct bytes){data, size});
    uint8_t *back = text ? base64_decode(text, strlen(text), &len) : NULL;
    if ((plain && (!again || strlen(again) != size || memcmp(again, data, size) != 0)) || !back ||
        len != size || (size && memcmp(back, data, size) != 0))
        abort();
    free(plain), free(again), free(text), free(back);
    return 0;
}
