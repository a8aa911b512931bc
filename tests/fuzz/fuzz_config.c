/* The configuration file. What is taken is complete and within its limits. */
#include <stdlib.h>
#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    struct err err = {0};
    int rc = config_parse(&c, (struct bytes){data, size}, "fuzz.conf", &err);
    if ((rc == 0) != (c != NULL) || (rc && !err.text[0]))
        abort();
    if (c && (!c->state || !c->module || !c->token_label || !c->listen || !c->http_listen ||
              !c->names[0] || !c->certificate || !c->chain || c->signers - 1 >= 64 ||
              c->fronts - 1 >= 64 || (!c->key_label && !c->key_id.len)))
        abort();
    config_free(c);
    return 0;
}
