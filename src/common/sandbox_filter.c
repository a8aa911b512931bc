/* The filters of system calls (seccomp(2)), by libseccomp.
 *
 * Front, authority and publisher may do what is listed for them. What else libraries try on their
 * own account, and can do without, fails: a stranger must not be able to end a front by sending it
 * where libc looks into a file (the index of an IPv6 zone makes it open a socket). What only
 * somebody does who has taken the process over ends it. Unknown calls are "not implemented", which
 * is what libraries have their older ways for.
 *
 * Supervisor and signers may do what is not listed: PKCS#11 modules are of many makers, and what
 * the supervisor is denied, all that it starts is denied. */
#include "common/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALL(name) SCMP_SYS(name)
#define REFUSED SCMP_ACT_ERRNO(EPERM)
#define UNKNOWN SCMP_ACT_ERRNO(ENOSYS)
#define DEADLY SCMP_ACT_KILL_PROCESS

/* Memory, time, and what is open. */
static const char in_every_role[] =
    "read write readv writev recvmsg recvfrom close lseek epoll_wait epoll_pwait "
    "epoll_pwait2 epoll_ctl poll ppoll brk munmap mremap madvise mlock munlock futex "
    "getrandom clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time sysinfo "
    "uname getrusage getcpu sched_yield getpid getppid gettid getuid geteuid getgid getegid "
    "getsockname getpeername getsockopt rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack "
    "restart_syscall exit exit_group";

static const char in_front[] = "accept accept4";

/* Which files these are, Landlock and their owners say. */
static const char with_files[] =
    "open openat stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 "
    "readlink readlinkat getcwd getdents64 unlink unlinkat rename renameat renameat2 link "
    "linkat mkdir mkdirat rmdir chmod fchmod fchmodat fchown umask ftruncate fallocate fsync "
    "fdatasync syncfs msync pread64 pwrite64 flock fcntl fadvise64 utimensat memfd_create dup "
    "dup2 dup3 close_range shutdown";

static const char in_authority[] = "accept4 wait4 waitid rseq set_robust_list";

/* Libraries try them; nothing is lost. */
static const char refused_to_front[] =
    "open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat "
    "socket";
static const char refused_with_files[] = "socket";

/* No library does that here. */
static const char deadly_to_all[] =
    "mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount mount_setattr "
    "unshare setns bpf init_module finit_module delete_module kexec_load kexec_file_load "
    "reboot swapon swapoff acct quotactl settimeofday clock_settime adjtimex clock_adjtime "
    "sethostname setdomainname open_by_handle_at iopl ioperm";
static const char refused_to_all[] =
    "io_uring_setup perf_event_open userfaultfd add_key request_key keyctl";
static const char deadly_to_children[] =
    "execve execveat ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd "
    "pidfd_send_signal modify_ldt listen";
static const char deadly_to_closed[] =
    "connect bind fork vfork setuid setgid setreuid setregid setresuid setresgid setgroups "
    "capset personality pidfd_open";

struct filter {
    scmp_filter_ctx ctx;
    int rc; /* 0 or the first failure, as a negative errno */
};

/* A call that this machine's architecture does not have is no failure. */
static void add(struct filter *f, uint32_t action, int call, unsigned count,
                const struct scmp_arg_cmp *which)
{
    int rc = f->rc ? 0 : seccomp_rule_add_array(f->ctx, action, call, count, which);
    if (rc && rc != -EDOM)
        f->rc = rc;
}

static void add_list(struct filter *f, uint32_t action, const char *calls)
{
    char name[32];
    int len;
    for (; sscanf(calls, "%31s%n", name, &len) == 1; calls += len) {
        int call = seccomp_syscall_resolve_name(name);
        if (call == __NR_SCMP_ERROR && !f->rc)
            f->rc = -ENOSYS; /* no name of any call */
        add(f, action, call, 0, NULL);
    }
}

static void when(struct filter *f, uint32_t action, int call, struct scmp_arg_cmp which)
{
    add(f, action, call, 1, &which);
}

static void allow_values(struct filter *f, int call, unsigned argument, const uint64_t *values,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        when(f, SCMP_ACT_ALLOW, call, SCMP_CMP(argument, SCMP_CMP_EQ, values[i], 0));
}
#define ALLOW_VALUES(f, call, argument, ...)                                                       \
    allow_values(f, CALL(call), argument, (const uint64_t[]){__VA_ARGS__},                         \
                 sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* No memory that runs: what is mapped as code is what was there at the start. */
static void no_new_code(struct filter *f)
{
    static const int calls[] = {CALL(mmap), CALL(mprotect)};
    for (size_t i = 0; i < 2; i++) {
        when(f, SCMP_ACT_ALLOW, calls[i], SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
        when(f, DEADLY, calls[i], SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));
    }
}

/* TCP Fast Open is a connect(2) in disguise, also from a socket that was accepted and is reset. */
static void send_to_who_is_connected(struct filter *f)
{
    when(f, SCMP_ACT_ALLOW, CALL(sendto), SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
    when(f, DEADLY, CALL(sendto), SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN));
    when(f, SCMP_ACT_ALLOW, CALL(sendmsg), SCMP_A2(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
    when(f, DEADLY, CALL(sendmsg), SCMP_A2(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, MSG_FASTOPEN));
}

static void no_signals_to_others(struct filter *f, uint32_t action)
{
    static const int calls[] = {CALL(kill), CALL(tgkill)};
    for (size_t i = 0; i < 2; i++)
        when(f, action, calls[i], SCMP_A0(SCMP_CMP_NE, (scmp_datum_t)getpid(), 0));
}

/* The listening sockets are those of all fronts, and of the ones to come: one that is taken over
 * must not close them for the others, make the others wait at them, or set what each connection
 * inherits. So there is no setsockopt(2): it is used up before. */
static void leave_what_is_shared(struct filter *f)
{
    ALLOW_VALUES(f, shutdown, 1, SHUT_WR); /* which one that listens does not mind */
    ALLOW_VALUES(f, fcntl, 1, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC, F_GET_SEALS);
    add(f, SCMP_ACT_ALLOW, CALL(fcntl), 2,
        (struct scmp_arg_cmp[]){SCMP_A1(SCMP_CMP_EQ, F_SETFL, 0),
                                SCMP_A2(SCMP_CMP_MASKED_EQ, O_NONBLOCK, O_NONBLOCK)});
}

/* One that is a copy, with nothing of its own: fork(2). */
static void fork_alone(struct filter *f)
{
    uint64_t mark = CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID;
    when(f, SCMP_ACT_ALLOW, CALL(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, ~mark, SIGCHLD));
    ALLOW_VALUES(f, prctl, 0, PR_SET_PDEATHSIG);
}

static void close_all(struct filter *f, enum role_name role)
{
    add_list(f, SCMP_ACT_ALLOW, in_every_role);
    add_list(f, DEADLY, deadly_to_children);
    add_list(f, DEADLY, deadly_to_closed);
    no_new_code(f);
    send_to_who_is_connected(f);
    no_signals_to_others(f, DEADLY);
    ALLOW_VALUES(f, tgkill, 0, (uint64_t)getpid()); /* abort(3) */
    ALLOW_VALUES(f, ioctl, 1, FIONREAD);
    when(f, SCMP_ACT_ALLOW, CALL(prlimit64),
         SCMP_A2(SCMP_CMP_EQ, 0, 0)); /* it asks, and sets none */
    if (role == PROC_AUTHORITY)
        fork_alone(f);
    else
        add(f, DEADLY, CALL(clone), 0, NULL);
    if (role != PROC_FRONT)
        return;
    leave_what_is_shared(f);
    add_list(f, SCMP_ACT_ALLOW, in_front);
    add_list(f, REFUSED, refused_to_front);
}

static void add_role(struct filter *f, enum role_name role)
{
    add_list(f, DEADLY, deadly_to_all);
    add_list(f, REFUSED, refused_to_all);
    if (role == PROC_SIGNER) {
        add_list(f, DEADLY, deadly_to_children);
        no_signals_to_others(f, REFUSED);
    } else if (role != PROC_SUPERVISOR) {
        close_all(f, role);
    }
    if (role == PROC_AUTHORITY || role == PROC_PUBLISHER) {
        add_list(f, SCMP_ACT_ALLOW, with_files);
        add_list(f, REFUSED, refused_with_files);
    }
    if (role == PROC_AUTHORITY)
        add_list(f, SCMP_ACT_ALLOW, in_authority);
}

int filter_enter(enum role_name role, struct err *err)
{
    int is_open = role == PROC_SUPERVISOR || role == PROC_SIGNER;
    struct filter f = {.ctx = seccomp_init(is_open ? SCMP_ACT_ALLOW : UNKNOWN)};
    if (!f.ctx)
        return err_set(err, ERR_internal, "seccomp: no memory");
    f.rc = seccomp_attr_set(f.ctx, SCMP_FLTATR_ACT_BADARCH, DEADLY);
    if (!f.rc)
        f.rc = seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    add_role(&f, role);
    if (!f.rc)
        f.rc = seccomp_load(f.ctx);
    seccomp_release(f.ctx);
    return f.rc
               ? err_set(err, ERR_internal,
                         "seccomp: %s; signetd needs a kernel, and a container, that let it filter "
                         "its system calls",
                         strerror(-f.rc))
               : 0;
}
