/* Each role's sandbox, and in it what somebody would try who has taken the process over. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "common/sandbox_parts.h"
#include "temp.h"

static int listening, fresh; /* TCP sockets from before: one that listens, one that was just made */
static struct sockaddr_in there;
static char page[4096] __attribute__((aligned(4096)));

/* ---- attempts; 0, or -1 with errno ---- */

static int read_file(const char *path)
{
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int read_foreign(void)
{
    return read_file("/etc/passwd");
}

static int read_state(void)
{
    return read_file("state/file");
}

static int write_state(void)
{
    return open("state/file", O_WRONLY | O_CLOEXEC);
}

static int make_state(void)
{
    return open("state/made", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

static int write_foreign(void)
{
    return open("foreign", O_WRONLY | O_CLOEXEC);
}

static int rename_in_state(void)
{
    return rename("state/file", "state/other");
}

static int delete_foreign(void)
{
    return unlink("foreign");
}

static int look_at_foreign(void)
{
    struct stat st;
    return stat("/etc/passwd", &st);
}

static int run_program(void)
{
    return execl("/bin/true", "true", NULL);
}

static int copy_itself(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid < 0 ? -1 : waitpid(pid, NULL, 0) == pid ? 0 : -1;
}

static int new_user(void)
{
    return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, 0) < 0 ? -1 : 0;
}

static int make_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int make_local_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int call_out(void)
{
    return connect(fresh, (struct sockaddr *)&there, sizeof there);
}

static int call_out_at_once(void)
{
    return (int)sendto(fresh, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&there, sizeof there);
}

static int call_out_by_message(void)
{
    struct iovec x = {"x", 1};
    struct msghdr m = {
        .msg_name = &there, .msg_namelen = sizeof there, .msg_iov = &x, .msg_iovlen = 1};
    return (int)sendmsg(fresh, &m, MSG_FASTOPEN);
}

static int take_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    return bind(fresh, (struct sockaddr *)&any, sizeof any);
}

static int serve(void)
{
    return listen(fresh, 1);
}

static int let_in(void)
{
    return accept4(listening, NULL, NULL, SOCK_CLOEXEC);
}

static int trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int read_other_process(void)
{
    char byte;
    struct iovec to = {&byte, 1}, from = {page, 1};
    return (int)process_vm_readv(getppid(), &to, 1, &from, 1, 0);
}

static int signal_other_process(void)
{
    return kill(getppid(), 0);
}

static int signal_group(void)
{
    return kill(0, 0);
}

static int map_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : 0;
}

static int make_code(void)
{
    return mprotect(page, sizeof page, PROT_READ | PROT_EXEC);
}

static int mount_something(void)
{
    return mount("none", "state", "tmpfs", 0, NULL);
}

static int new_namespace(void)
{
    return unshare(CLONE_NEWUSER);
}

static int change_root(void)
{
    return chroot("state");
}

static int load_bpf(void)
{
    return (int)syscall(SYS_bpf, 0, NULL, 0);
}

static int make_uring(void)
{
    return (int)syscall(SYS_io_uring_setup, 1, NULL);
}

static int ask_for_keys(void)
{
    return (int)syscall(SYS_keyctl, 0, -3, 0);
}

static int become_other(void)
{
    return setuid(getuid());
}

static int make_memory_file(void)
{
    return memfd_create("x", MFD_CLOEXEC);
}

static int be_told_by_signal(void)
{
    return fcntl(listening, F_SETOWN, getppid());
}

static int raise_limit(void)
{
    const struct rlimit files = {5000, 5000};
    return prlimit(0, RLIMIT_NOFILE, &files, NULL);
}

static int attach_filter(void)
{
    return setsockopt(listening, SOL_SOCKET, SO_DETACH_FILTER, page, sizeof(int));
}

/* What would be another for all who share the socket, and each connection that it accepts. */
static int set_linger(void)
{
    const struct linger long_time = {1, 3600};
    return setsockopt(listening, SOL_SOCKET, SO_LINGER, &long_time, sizeof long_time);
}

static int end_listening(void)
{
    return shutdown(listening, SHUT_RDWR);
}

static int make_others_wait(void)
{
    return fcntl(listening, F_SETFL, 0);
}

static int end_writing(void)
{
    return shutdown(listening, SHUT_WR);
}

#ifdef __x86_64__
static int call_as_32_bit(void)
{
    long rc;
    __asm__ volatile("int $0x80" : "=a"(rc) : "a"(20L) : "memory"); /* getpid */
    return rc > 0 ? 0 : -1;
}
#endif

/* What libraries do on their own account must end nobody. */
static int go_on(void)
{
    char name[IF_NAMESIZE];
    time_t now = time(NULL);
    struct tm tm;
    if_indextoname(1, name);
    gmtime_r(&now, &tm);
    void *p = malloc(1 << 20);
    free(p);
    return p ? 0 : -1;
}

static int give_up(void)
{
    abort();
}

/* ---- what comes of it ---- */

/* "done", "dies" by the filter, the name of an errno; of Landlock: by files, network or scope. */
static const struct attempt {
    const char *name;
    int (*make)(void);
    const char *expected[5]; /* by enum role_name; NULL: whatever */
} attempts[] = {
    /* clang-format off */
    /*                                     supervisor  front      authority  signer     publisher */
    {"read a foreign file", read_foreign, {"done",    "EPERM",   "files",   "done",    "files"}},
    {"read in the state", read_state,     {"done",    "EPERM",   "done",    "done",    "files"}},
    {"write in the state", write_state,   {"done",    "EPERM",   "done",    "done",    "files"}},
    {"make a file there", make_state,     {"done",    "EPERM",   "done",    "done",    "files"}},
    {"rename there", rename_in_state,     {"done",    "ENOSYS",  "done",    "done",    "done"}},
    {"write elsewhere", write_foreign,    {"done",    "EPERM",   "files",   "done",    "files"}},
    {"look elsewhere", look_at_foreign,   {"done",    "EPERM",   "done",    "done",    "done"}},
    {"delete elsewhere", delete_foreign,  {"done",    "ENOSYS",  "files",   "done",    "files"}},
    {"run a program", run_program,        {"done",    "dies",    "dies",    "dies",    "dies"}},
    {"fork", copy_itself,                 {"done",    "dies",    "done",    "done",    "dies"}},
    {"fork with a new user", new_user,    {NULL,      "dies",    "ENOSYS",  NULL,      "dies"}},
    {"make a socket", make_socket,        {"done",    "EPERM",   "EPERM",   "done",    "EPERM"}},
    {"a local one", make_local_socket,    {"done",    "EPERM",   "EPERM",   "done",    "EPERM"}},
    {"connect", call_out,                 {"done",    "dies",    "dies",    "done",    "dies"}},
    {"connect by sendto", call_out_at_once,  {NULL,   "dies",    "dies",    NULL,      "dies"}},
    {"connect by sendmsg", call_out_by_message, {NULL, "dies",   "dies",    NULL,      "dies"}},
    {"bind", take_port,                   {"done",    "dies",    "dies",    "network", "dies"}},
    {"listen", serve,                     {"done",    "dies",    "dies",    "dies",    "dies"}},
    {"accept", let_in,                    {"EAGAIN",  "EAGAIN",  "EAGAIN",  "EAGAIN",  "ENOSYS"}},
    {"ptrace", trace,                     {"done",    "dies",    "dies",    "dies",    "dies"}},
    {"read a process", read_other_process,   {"scope", "dies",   "dies",    "dies",    "dies"}},
    {"signal one", signal_other_process,  {"scope",   "dies",    "dies",    "EPERM",   "dies"}},
    {"signal a group", signal_group,      {NULL,      "dies",    "dies",    "EPERM",   "dies"}},
    {"map code", map_code,                {"done",    "dies",    "dies",    "done",    "dies"}},
    {"make data code", make_code,         {"done",    "dies",    "dies",    "done",    "dies"}},
    {"mount", mount_something,            {"dies",    "dies",    "dies",    "dies",    "dies"}},
    {"unshare", new_namespace,            {"dies",    "dies",    "dies",    "dies",    "dies"}},
    {"chroot", change_root,               {"dies",    "dies",    "dies",    "dies",    "dies"}},
    {"bpf", load_bpf,                     {"dies",    "dies",    "dies",    "dies",    "dies"}},
    {"io_uring", make_uring,              {"EPERM",   "EPERM",   "EPERM",   "EPERM",   "EPERM"}},
    {"keyctl", ask_for_keys,              {"EPERM",   "EPERM",   "EPERM",   "EPERM",   "EPERM"}},
    {"setuid", become_other,              {"done",    "dies",    "dies",    "done",    "dies"}},
    {"memfd", make_memory_file,           {"done",    "ENOSYS",  "done",    "done",    "done"}},
    {"signals of a socket", be_told_by_signal, {NULL, "ENOSYS",  NULL,      NULL,      NULL}},
    {"raise a limit", raise_limit,        {NULL,      "ENOSYS",  "ENOSYS",  NULL,      "ENOSYS"}},
    {"socket options", attach_filter,     {NULL,      "ENOSYS",  "ENOSYS",  NULL,      "ENOSYS"}},
    {"to linger", set_linger,             {"done",    "ENOSYS",  "ENOSYS",  "done",    "ENOSYS"}},
    {"listen no more", end_listening,     {"done",    "ENOSYS",  "done",    "done",    "done"}},
    {"wait in accept", make_others_wait,  {"done",    "ENOSYS",  "done",    "done",    "done"}},
    {"write no more", end_writing,        {"done",    "done",    "done",    "done",    "done"}},
#ifdef __x86_64__
    {"32-bit calls", call_as_32_bit,      {"dies",    "dies",    "dies",    "dies",    "dies"}},
#endif
    {"what libraries do", go_on,          {"done",    "done",    "done",    "done",    "done"}},
    {"abort", give_up,                    {"aborts",  "aborts",  "aborts",  "aborts",  "aborts"}},
    /* clang-format on */
};

static const char *const names[] = {"supervisor", "front", "authority", "signer", "publisher"};

/* What this kernel has not, stops nobody. */
static const char *here(const char *expected)
{
    int version = landlock_version();
    if (strcmp(expected, "files") == 0)
        return version >= 1 ? "EACCES" : "done";
    if (strcmp(expected, "network") == 0)
        return version >= 4 ? "EACCES" : "done";
    if (strcmp(expected, "scope") == 0)
        return version >= 6 ? "EPERM" : "done";
    return expected;
}

_Noreturn static void try_in(enum role_name role, const struct attempt *a)
{
    static const struct sandbox_path all[] = {{"state", SANDBOX_ALL}, {NULL, SANDBOX_READ}};
    static const struct sandbox_path some[] = {{"state", SANDBOX_NAMES}, {NULL, SANDBOX_READ}};
    struct err err;
    if (sandbox_enter(role,
                      role == PROC_AUTHORITY   ? all
                      : role == PROC_PUBLISHER ? some
                                               : NULL,
                      &err)) {
        fprintf(stderr, "%s\n", err.text);
        _exit(254);
    }
    _exit(a->make() < 0 ? errno : 0);
}

static const char *outcome(enum role_name role, const struct attempt *a)
{
    static char text[32];
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        try_in(role, a);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        snprintf(text, sizeof text, "%s",
                 WTERMSIG(status) == SIGSYS    ? "dies"
                 : WTERMSIG(status) == SIGABRT ? "aborts"
                                               : "another signal");
    else
        snprintf(text, sizeof text, "%s",
                 WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "done");
    return text;
}

/* Anew for each attempt: one child must not find what another has done. */
static void set_scene(void)
{
    socklen_t len = sizeof there;
    there = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    fresh = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listening, (struct sockaddr *)&there, sizeof there) || listen(listening, 16) ||
        getsockname(listening, (struct sockaddr *)&there, &len))
        abort();
    temp_write("state/file", "x", 1, 0600);
    temp_write("foreign", "x", 1, 0600);
}

static void leave_scene(void)
{
    close(listening);
    close(fresh);
}

static void each_role_is_refused_what_it_has_no_use_for(void **state)
{
    int wrong = 0;
    (void)state;
    for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++)
        for (enum role_name role = PROC_SUPERVISOR; role <= PROC_PUBLISHER; role++) {
            const struct attempt *a = &attempts[i];
            set_scene();
            const char *is = outcome(role, a);
            leave_scene();
            if (!a->expected[role] || strcmp(is, here(a->expected[role])) == 0)
                continue;
            print_error("%s, %s: %s, not %s\n", names[role], a->name, is, here(a->expected[role]));
            wrong++;
        }
    assert_int_equal(wrong, 0);
}

static void a_path_that_is_not_there_is_left_out(void **state)
{
    static const struct sandbox_path paths[] = {{"nowhere", SANDBOX_ALL}, {NULL, SANDBOX_READ}};
    struct err err;
    int status;
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(sandbox_enter(PROC_AUTHORITY, paths, &err) ? 1 : 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int set_up(void **state)
{
    return temp_enter(state) || mkdir("state", 0700);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_role_is_refused_what_it_has_no_use_for),
        cmocka_unit_test(a_path_that_is_not_there_is_left_out),
    };
    return cmocka_run_group_tests(tests, set_up, temp_leave);
}
