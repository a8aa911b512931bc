#include "common/shared_count.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* linux/fcntl.h */
#endif

struct shared_count {
    uint64_t *page;
    int fd; /* -1: another process's */
};

/* Takes fd. */
static struct shared_count *map(int fd, int protection)
{
    struct shared_count *c = calloc(1, sizeof *c);
    void *page = c ? mmap(NULL, sizeof *c->page, protection, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (page == MAP_FAILED) {
        close(fd);
        free(c);
        return NULL;
    }
    c->page = page;
    c->fd = fd;
    return c;
}

/* Sealed, so that who gets the descriptor can neither write nor cut it. */
struct shared_count *shared_count_new(void)
{
    int fd = memfd_create("count", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return NULL;
    if (ftruncate(fd, sizeof(uint64_t))) {
        close(fd);
        return NULL;
    }
    struct shared_count *c = map(fd, PROT_READ | PROT_WRITE);
    if (c &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)) {
        shared_count_free(c);
        return NULL;
    }
    return c;
}

struct shared_count *shared_count_open(int fd)
{
    if (lseek(fd, 0, SEEK_END) < (off_t)sizeof(uint64_t)) { /* beyond its end there is SIGBUS */
        close(fd);
        return NULL;
    }
    struct shared_count *c = map(fd, PROT_READ);
    if (c) {
        close(fd);
        c->fd = -1;
    }
    return c;
}

void shared_count_free(struct shared_count *c)
{
    if (!c)
        return;
    munmap(c->page, sizeof *c->page);
    if (c->fd >= 0)
        close(c->fd);
    free(c);
}

int shared_count_fd(const struct shared_count *c)
{
    return c->fd;
}

void shared_count_raise(struct shared_count *c)
{
    __atomic_add_fetch(c->page, 1, __ATOMIC_SEQ_CST);
}

uint64_t shared_count_get(const struct shared_count *c)
{
    return __atomic_load_n(c->page, __ATOMIC_SEQ_CST);
}
