/* LD_PRELOAD for tests: signet-authority's random numbers are what the file SIGNET_TEST_RANDOM
 * says, by its first letter; '.' and all other processes: the real ones. Mapped once, as the
 * sandbox wants it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile char *mode = ".";

__attribute__((constructor)) static void map_mode(void)
{
    const char *path = getenv("SIGNET_TEST_RANDOM");
    if (strcmp(program_invocation_short_name, "signet-authority") != 0)
        return;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd >= 0 ? mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (p == MAP_FAILED)
        abort();
    close(fd);
    mode = p;
}

/* Two values by turns: no number is like the one before it. */
static void by_turns(unsigned char *out, size_t len)
{
    static int turn;
    for (size_t i = 0; i < len; i++)
        out[i] = (unsigned char)(i * 13 + 7 + (size_t)turn);
    turn = !turn;
}

/* All different, and of two values of bytes alone. */
static void of_few_values(unsigned char *out, size_t len)
{
    static unsigned count;
    count++;
    for (size_t i = 0; i < len; i++)
        out[i] = count >> i % 32 & 1 ? 0x41 : 0x40;
}

int RAND_bytes(unsigned char *out, int len)
{
    static int (*next)(unsigned char *, int);
    if (!next)
        next = (int (*)(unsigned char *, int))dlsym(RTLD_NEXT, "RAND_bytes");
    switch (*mode) {
    case 'f':
        return 0;
    case '0':
        memset(out, 0, (size_t)len);
        return 1;
    case '1':
        memset(out, 0xff, (size_t)len);
        return 1;
    case 's':
        memcpy(out, "the same again and again and yet", (size_t)len);
        return 1;
    case 't':
        by_turns(out, (size_t)len);
        return 1;
    case 'w':
        of_few_values(out, (size_t)len);
        return 1;
    default:
        return next(out, len);
    }
}

ssize_t getrandom(void *out, size_t len, unsigned flags)
{
    if (*mode == 'F') {
        errno = ENOSYS;
        return -1;
    }
    if (*mode != 'Z' && *mode != 'S')
        return syscall(SYS_getrandom, out, len, flags);
    memset(out, 0, len);
    if (*mode == 'S' && len > 1)
        ((unsigned char *)out)[0] = 1;
    return (ssize_t)len;
}
