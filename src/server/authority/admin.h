/* signetctl's door: STATE/admin.sock. The kernel says who connected (SO_PEERCRED, SO_PEERGROUPS):
 * root, the server's own user, or a member of admin_group; nobody else. */
#ifndef SIGNET_ADMIN_H
#define SIGNET_ADMIN_H

#include "server/authority/authority.h"

struct admin; /* opaque */

int admin_open(struct admin **out, struct authority *a, struct err *err)
    __attribute__((warn_unused_result));
void admin_close(struct admin *ad);

#endif
