/* Landlock (landlock(7)), by its system calls: the headers of Debian 12 know less of it than newer
 * kernels do, so what they lack is defined here. */
#include "common/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FS(name) LANDLOCK_ACCESS_FS_##name
#define TRUNCATE (1u << 14)     /* since version 3 */
#define IOCTL_DEVICE (1u << 15) /* since version 5 */
#define BIND_TCP 1u             /* since version 4 */
#define CONNECT_TCP 2u
#define SCOPE_ABSTRACT_SOCKET 1u /* since version 6 */
#define SCOPE_SIGNAL 2u

struct ruleset {
    uint64_t files, network, scopes;
};

#define READ (FS(READ_FILE) | FS(READ_DIR))
#define NAMES (FS(READ_DIR) | FS(MAKE_REG) | FS(REMOVE_FILE))
#define ALL                                                                                        \
    (READ | NAMES | FS(WRITE_FILE) | FS(MAKE_DIR) | FS(REMOVE_DIR) | FS(REFER) | (uint64_t)TRUNCATE)
#define EVERYTHING                                                                                 \
    (ALL | FS(MAKE_CHAR) | FS(MAKE_BLOCK) | FS(EXECUTE) | FS(MAKE_SOCK) | FS(MAKE_FIFO) |          \
     FS(MAKE_SYM) | (uint64_t)IOCTL_DEVICE)

/* What is taken away, unless a path gives it back. Where the supervisor and signers have their
 * files nobody knows; and a ruleset about files forbids to rename from folder to folder, whatever
 * it says. */
static struct ruleset taken_from(enum role_name role)
{
    if (role == PROC_SUPERVISOR) /* and from all that it starts */
        return (struct ruleset){0, 0, SCOPE_SIGNAL};
    if (role == PROC_SIGNER)
        return (struct ruleset){0, BIND_TCP, SCOPE_SIGNAL};
    return (struct ruleset){EVERYTHING, BIND_TCP | CONNECT_TCP,
                            SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL};
}

int landlock_version(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return version > 0 ? (int)version : 0;
}

/* A kernel refuses what it does not know. */
static size_t fit(struct ruleset *r, int version)
{
    if (version < 2)
        r->files &= ~(uint64_t)FS(REFER);
    if (version < 3)
        r->files &= ~(uint64_t)TRUNCATE;
    if (version < 5)
        r->files &= ~(uint64_t)IOCTL_DEVICE;
    if (version < 4)
        r->network = 0;
    if (version < 6)
        r->scopes = 0;
    return version < 4 ? sizeof r->files : version < 6 ? 2 * sizeof r->files : sizeof *r;
}

static int add_path(int ruleset, const struct sandbox_path *p, uint64_t known)
{
    static const uint64_t rights[] = {
        [SANDBOX_READ] = READ, [SANDBOX_NAMES] = NAMES, [SANDBOX_ALL] = ALL};
    struct landlock_path_beneath_attr rule = {.allowed_access = rights[p->right] & known};
    struct stat st;
    int fd = open(p->path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    rule.parent_fd = fd;
    int rc = fstat(fd, &st);
    if (rc == 0 && !S_ISDIR(st.st_mode))
        rule.allowed_access &= FS(READ_FILE) | FS(WRITE_FILE) | (uint64_t)TRUNCATE;
    rc = rc || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) ? -1
                                                                                             : 0;
    close(fd);
    return rc;
}

static int restrict_to(int ruleset, const struct sandbox_path *paths, uint64_t known,
                       struct err *err)
{
    for (; paths && paths->path; paths++)
        if (add_path(ruleset, paths, known))
            return err_set(err, ERR_internal, "Landlock: %s: %s", paths->path, strerror(errno));
    return syscall(SYS_landlock_restrict_self, ruleset, 0)
               ? err_set(err, ERR_internal, "Landlock: %s", strerror(errno))
               : 0;
}

int landlock_enter(enum role_name role, const struct sandbox_path *paths, struct err *err)
{
    struct ruleset r = taken_from(role);
    int version = landlock_version();
    if (version <= 0)
        return 0; /* the owner and mode of each file are left, and the filter */
    size_t size = fit(&r, version);
    if (!r.files && !r.network && !r.scopes)
        return 0;
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &r, size, 0);
    if (ruleset < 0)
        return err_set(err, ERR_internal, "Landlock: %s", strerror(errno));
    int rc = restrict_to(ruleset, paths, r.files, err);
    close(ruleset);
    return rc;
}
