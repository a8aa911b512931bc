/* What a process takes away from itself for ever, once it has what it needs: whoever takes it over
 * later has no more than is left. docs/security.md tells for each role what that is.
 *
 * Three layers, each of which stands without the others: limits and capabilities; Landlock, for
 * files, where the kernel has it; and a filter of system calls. Filter and Landlock are not built
 * with sanitizers, which make calls of their own, nor with -DSIGNET_SANDBOX=OFF. */
#ifndef SIGNET_SANDBOX_H
#define SIGNET_SANDBOX_H

#include "common/err.h"
#include "common/msg.h"

/* Before anything of worth is in memory: no core, not to be traced or read by others of the same
 * user, and no privileges by exec. */
void sandbox_prepare(void);

enum sandbox_right {
    SANDBOX_READ,  /* a file, or all in a folder, is read */
    SANDBOX_NAMES, /* in a folder files are made, renamed and deleted; none is opened */
    SANDBOX_ALL    /* in a folder, all but to run what is there */
};

/* What of the file system is left; path NULL ends the list. A path that is not there is left out.
 */
struct sandbox_path {
    const char *path;
    enum sandbox_right right;
};

/* The role's sandbox, and no way back. Most roles can reach no path but those in the list, which
 * the supervisor and the signers have no use for (NULL). -1 with err set: the process must end. */
int sandbox_enter(enum role_name role, const struct sandbox_path *paths, struct err *err)
    __attribute__((warn_unused_result));

/* "seccomp, Landlock 5": what this build and this kernel have. */
const char *sandbox_layers(void);

#endif
