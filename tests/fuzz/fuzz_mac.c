/* A MAC as people type it, and the form that the wire carries. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pki/mac.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), out[MAC_TEXT_SIZE];
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (!mac_from_text(out, text, NULL) && mac_check(out, NULL))
        abort(); /* what comes out is what the wire carries */
    free(text);
    return 0;
}
