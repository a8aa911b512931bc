/* A board's complete folder that is there already, taken for done: of a batch that was killed
 * before it wrote the result, or of a signet provision. */
#ifndef SIGNET_CLIENT_ADOPT_H
#define SIGNET_CLIENT_ADOPT_H

#include "client/flash.h"

/* Is the board's folder complete? */
int is_provisioned(const struct board *b);

/* It must be what provision_find() takes, and the server say that its certificate is live and of
 * this profile; fails with already_exists, and what is to be done. *out also gets what is known of
 * the board's flash, also when the server does not answer; flashed_free() also after a failure. */
int adopt(struct flashed *out, struct session *s, const struct board *b, struct failure *f)
    __attribute__((warn_unused_result));

#endif
