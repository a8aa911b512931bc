/* make-keys N JOBS TYPE: N keys by JOBS processes, by the client's own key_make() and nothing else:
 * what a batch is measured against. The processes take the next key from one counter, so that none
 * idles while another is unlucky. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/keys.h"

static _Noreturn void work(atomic_long *left, const char *type)
{
    struct failure f = {0};
    while (atomic_fetch_sub(left, 1) > 0) {
        EVP_PKEY *key = NULL;
        if (key_make(&key, type, &f))
            _exit(1);
        EVP_PKEY_free(key);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    struct failure f = {0};
    if (argc != 4 || key_type_check(argv[3], &f)) {
        fprintf(stderr, "usage: make-keys N JOBS TYPE\n");
        return 2;
    }
    atomic_long *left =
        mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (left == MAP_FAILED)
        return 1;
    *left = strtol(argv[1], NULL, 10);
    for (long jobs = strtol(argv[2], NULL, 10); jobs > 0; jobs--)
        if (fork() == 0)
            work(left, argv[3]);
    int status, bad = 0;
    while (wait(&status) > 0)
        bad |= status != 0;
    return bad;
}
