/* Caps: what one operator, and all together, may have done in an hour and in 24. A stolen laptop or
 * a hijacked front does bounded harm until somebody looks. Kept here, not in the fronts. */
#ifndef SIGNET_CAPS_H
#define SIGNET_CAPS_H

#include "common/config.h"
#include "server/authority/store.h"

/* Counts so many more within this decision, or refuses with too_many. op NULL: only towards all. */
int caps_take(struct store_tx *tx, const struct config *config, const struct operator_row *op,
              unsigned certificates, unsigned revocations, int64_t now, struct err *err)
    __attribute__((warn_unused_result));

#endif
