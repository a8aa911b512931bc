/* LD_PRELOAD for tests: a process that is taken over. On the first real-time signals it tries, in
 * place of what it is there for, to run a program, to read a file, to call out. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void tell(const char *what, int rc)
{
    dprintf(STDERR_FILENO, "taken over, %d: %s: %s\n", (int)getpid(), what,
            rc < 0 ? strerrorname_np(errno) : "done");
}

static void try_it(int number)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (number == SIGRTMIN + 1)
        tell("exec", execl("/bin/true", "true", NULL));
    if (number == SIGRTMIN + 2)
        tell("open", open("/etc/passwd", O_RDONLY));
    if (number == SIGRTMIN + 3)
        tell("connect", connect(3, (struct sockaddr *)&at, sizeof at));
}

__attribute__((constructor)) static void take_over(void)
{
    for (int i = 1; i <= 3; i++)
        signal(SIGRTMIN + i, try_it);
}
