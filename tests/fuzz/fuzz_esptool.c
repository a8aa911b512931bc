/* What esptool says, whole and cut off anywhere. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/esptool_output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes text = {data, size};
    struct esptool_output out;
    char reason[64];
    if (!esptool_parse(&out, text, NULL) && *out.mac && mac_check(out.mac, NULL))
        abort(); /* a MAC that is taken is a canonical one */
    esptool_reason(reason, sizeof reason, text);
    if (!*reason)
        abort();
    esptool_first_line(reason, sizeof reason, text);
    esptool_problem(text);
    return esptool_lacks_stub(text) && esptool_has_written(text) && !size;
}
