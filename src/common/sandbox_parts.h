/* What the sandbox's files share. */
#ifndef SIGNET_SANDBOX_PARTS_H
#define SIGNET_SANDBOX_PARTS_H

#include "common/sandbox.h"

/* The version that the kernel has; 0: none. */
int landlock_version(void);
int landlock_enter(enum role_name role, const struct sandbox_path *paths, struct err *err);
int filter_enter(enum role_name role, struct err *err);

#endif
