#include "common/sandbox_parts.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void sandbox_prepare(void)
{
    static const struct rlimit no_core = {0, 0};
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &no_core);
}

/* To what the role needs, or what is left to it: who started it may have set less. */
static int set_limit(__rlimit_resource_t resource, rlim_t most, struct err *err)
{
    struct rlimit now;
    if (getrlimit(resource, &now) == 0) {
        now.rlim_max = now.rlim_max < most ? now.rlim_max : most;
        now.rlim_cur = now.rlim_max;
        if (setrlimit(resource, &now) == 0)
            return 0;
    }
    return err_set(err, ERR_internal, "cannot set a limit: %s", strerror(errno));
}

/* RLIMIT_FSIZE is for none: where the log is a file, it would end who writes a line. And
 * RLIMIT_NPROC counts all processes of the user, so it is for those alone that start none. And who
 * passes a descriptor may do so while those under way between all processes of the user are no more
 * than its own RLIMIT_NOFILE (unix(7), ETOOMANYREFS): a low one would let the others stop it. */
static int limit(enum role_name role, struct err *err)
{
    static const rlim_t files[] = {
        [PROC_FRONT] = 4096, [PROC_AUTHORITY] = 4096, [PROC_PUBLISHER] = 4096};
    if (set_limit(RLIMIT_NOFILE, files[role], err))
        return -1;
    return role == PROC_AUTHORITY ? 0 : set_limit(RLIMIT_NPROC, 0, err);
}

/* As root too: then files of others are out of reach, and ports, clocks, raw sockets. */
static int drop_capabilities(struct err *err)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    static const struct __user_cap_data_struct none[2];
    for (int i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
        prctl(PR_CAPBSET_DROP, i, 0, 0, 0); /* only who has CAP_SETPCAP can, and only he must */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &head, none))
        return err_set(err, ERR_internal, "cannot give up capabilities: %s", strerror(errno));
    return 0;
}

int sandbox_enter(enum role_name role, const struct sandbox_path *paths, struct err *err)
{
    int is_closed = role != PROC_SUPERVISOR && role != PROC_SIGNER;
    tzset(); /* the first look at the time of day reads /etc/localtime */
    sandbox_prepare();
    if (is_closed && (limit(role, err) || drop_capabilities(err)))
        return -1;
#ifdef SIGNET_NO_SANDBOX
    (void)paths;
    return 0;
#else
    return landlock_enter(role, paths, err) || filter_enter(role, err) ? -1 : 0;
#endif
}

const char *sandbox_layers(void)
{
#ifdef SIGNET_NO_SANDBOX
    return "none: it was built without";
#else
    static char text[64];
    if (landlock_version() > 0)
        snprintf(text, sizeof text, "seccomp, Landlock %d", landlock_version());
    else
        snprintf(text, sizeof text, "seccomp; this kernel has no Landlock");
    return text;
#endif
}
