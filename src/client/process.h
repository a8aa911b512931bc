/* Another program, run to its end: no shell, no terminal, what it says caught. It never outlives
 * this process (PR_SET_PDEATHSIG), and runs in a process group of its own, so that Ctrl-C reaches
 * only us and we end it in order. */
#ifndef SIGNET_CLIENT_PROCESS_H
#define SIGNET_CLIENT_PROCESS_H

#include "client/failure.h"
#include "common/bytes.h"

#define PROCESS_OUTPUT_MAX (4u << 20)

struct process {
    const char *const *argv; /* NULL-terminated; argv[0] is a path */
    const char *const *env;  /* "NAME=value", on top of ours; NULL-terminated */
    const int *fds;          /* the descriptors that it inherits */
    size_t fd_count;
    long silence_ms; /* it is ended when it says nothing for so long */
    /* Called when there is more output, all of it so far: -1 with a failure ends the program at
     * once; by then it has written no more than once again. NULL: nobody looks. */
    int (*watch)(void *context, struct bytes so_far, struct failure *f);
    void *context;
    const char *doing; /* for the line on the terminal, such as "reading the board" */
};

/* *output (starts {0}, the caller's, also after a failure) gets its stdout and stderr, in the order
 * they came; *status its exit code, or 128 and the signal that ended it. Fails when it cannot be
 * started, was silent too long, says too much, when watch() says so, or when interrupted: then it
 * has ended. */
int process_run(const struct process *p, struct buf *output, int *status, struct failure *f)
    __attribute__((warn_unused_result));

#endif
