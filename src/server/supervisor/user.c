#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "server/supervisor/supervisor.h"

static int failed(const char *name, struct err *err)
{
    return err_set(err, ERR_internal, "cannot become user %s: %s", name, strerror(errno));
}

/* 1: there is somebody to become. */
static int find(const struct passwd **who, const char *name, struct err *err)
{
    if (!name) {
        if (geteuid() == 0)
            log_info("runs as root: give it a user of its own, [server] user");
        return 0;
    }
    errno = 0;
    if (!(*who = getpwnam(name)))
        return err_set(err, ERR_field_value, "[server] user: there is no user \"%s\"%s%s", name,
                       errno ? ": " : "", errno ? strerror(errno) : "");
    if ((*who)->pw_uid == geteuid())
        return 0;
    return geteuid() == 0
               ? 1
               : err_set(err, ERR_field_value,
                         "[server] user is %s, but signetd was started as user %u: start it as "
                         "root, or as %s",
                         name, geteuid(), name);
}

int user_lower(const char *name, struct err *err)
{
    const struct passwd *who;
    int rc = find(&who, name, err);
    if (rc <= 0)
        return rc;
    return initgroups(name, who->pw_gid) || setegid(who->pw_gid) || seteuid(who->pw_uid)
               ? failed(name, err)
               : 0;
}

int user_raise(struct err *err)
{
    if (geteuid() == getuid()) /* not even the call: a unit's own filter may refuse it */
        return 0;
    return seteuid(getuid()) || setegid(getgid()) ? failed("root", err) : 0;
}

int user_become(const char *name, struct err *err)
{
    const struct passwd *who = name && geteuid() == 0 ? getpwnam(name) : NULL;
    if (!who || who->pw_uid == 0)
        return 0;
    uid_t uid = who->pw_uid;
    gid_t gid = who->pw_gid;
    if (initgroups(name, gid) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
        return failed(name, err);
    return setuid(0) == 0 ? err_set(err, ERR_internal, "%s can become root again", name) : 0;
}
