/* bench-raw: what the token can do by itself; see usage. */
#include "raw.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stats.h"

static const char usage[] =
    "usage: bench-raw --config signet.conf --count N [--processes P] [--sync FILE [--bytes B]]\n"
    "N signatures by each of P processes, each with a session of its own. --sync: each one "
    "between\n"
    "two writes of B bytes to FILE with an fdatasync behind, as an issuance alone has them.\n";

#define AREA (4 << 20) /* of the file, written beforehand and again and again: as a WAL is */

struct options {
    const char *config, *sync;
    size_t processes, count, bytes;
};

struct result {
    double begun, ended, cpu;
};

struct file {
    int fd;
    size_t at;
    char *data;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {{"config", 1, NULL, 'c'},    {"count", 1, NULL, 'n'},
                                          {"processes", 1, NULL, 'p'}, {"sync", 1, NULL, 's'},
                                          {"bytes", 1, NULL, 'b'},     {NULL, 0, NULL, 0}};
    int c;
    *o = (struct options){.processes = 1, .bytes = 16384};
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'c')
            o->config = optarg;
        else if (c == 's')
            o->sync = optarg;
        else if (c == 'n')
            o->count = (size_t)atol(optarg);
        else if (c == 'p')
            o->processes = (size_t)atol(optarg);
        else if (c == 'b')
            o->bytes = (size_t)atol(optarg);
    }
    if (!o->config || o->count - 1 > 10000000 || o->processes - 1 > 63 || o->bytes - 1 > AREA / 2) {
        fputs(usage, stderr);
        exit(2);
    }
}

static void *shared(size_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        abort();
    return at;
}

static void file_open(struct file *f, const struct options *o)
{
    *f = (struct file){.fd = -1};
    if (!o->sync)
        return;
    f->fd = open(o->sync, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    f->data = calloc(1, AREA);
    if (f->fd < 0 || !f->data || write(f->fd, f->data, AREA) != AREA || fsync(f->fd)) {
        perror(o->sync);
        _exit(1);
    }
}

static void file_commit(struct file *f, const struct options *o)
{
    if (f->fd < 0)
        return;
    f->at = f->at + o->bytes > AREA ? 0 : f->at;
    memset(f->data, (int)f->at, o->bytes);
    if (pwrite(f->fd, f->data, o->bytes, (off_t)f->at) != (ssize_t)o->bytes || fdatasync(f->fd)) {
        perror(o->sync);
        _exit(1);
    }
    f->at += o->bytes;
}

/* In a process of its own: the PIN is read (a child has no copy) and the module loaded after the
 * fork; it signs once for nothing. */
static _Noreturn void work(const struct options *o, int ready, int go, struct result *result,
                           double *times)
{
    struct token_settings s;
    struct raw raw;
    struct file file;
    char byte = 0;
    token_settings_read(&s, o->config);
    raw_open(&raw, &s);
    file_open(&file, o);
    raw_sign(&raw, 0);
    if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 0)
        _exit(1);
    double cpu = cpu_seconds(), begun = now(), last = begun;
    for (size_t i = 0; i < o->count; i++) {
        file_commit(&file, o);
        raw_sign(&raw, (unsigned)i);
        file_commit(&file, o);
        double t = now();
        times[i] = t - last;
        last = t;
    }
    *result = (struct result){begun, last, cpu_seconds() - cpu};
    _exit(0);
}

/* Starts them one after another, since logins at once break SoftHSM's file; then all begin. */
static void run(const struct options *o, struct result *results, double *times)
{
    int ready[2], go[2], status, bad = 0;
    char byte;
    if (pipe(go))
        abort();
    for (size_t i = 0; i < o->processes; i++) {
        if (pipe(ready))
            abort();
        if (fork() == 0) {
            close(go[1]);
            work(o, ready[1], go[0], &results[i], times + i * o->count);
        }
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1)
            exit(1);
        close(ready[0]);
    }
    close(go[1]);
    while (wait(&status) > 0)
        bad |= status != 0;
    if (bad)
        exit(1);
}

int main(int argc, char **argv)
{
    struct options o;
    struct stats stats;
    read_options(&o, argc, argv);
    size_t total = o.processes * o.count;
    struct result *results = shared(o.processes * sizeof *results);
    double *times = shared(total * sizeof *times), cpu = 0, begun = 0, ended = 0;
    alarm(300);
    run(&o, results, times);
    stats_init(&stats, total);
    for (size_t i = 0; i < total; i++)
        stats_add(&stats, times[i]);
    for (size_t i = 0; i < o.processes; i++) {
        cpu += results[i].cpu;
        begun = i == 0 || results[i].begun < begun ? results[i].begun : begun;
        ended = results[i].ended > ended ? results[i].ended : ended;
    }
    printf("{\"count\":%zu,\"processes\":%zu,\"rate\":%.2f,\"cpu_us\":%.3f,", total, o.processes,
           (double)total / (ended - begun), cpu / (double)total * 1e6);
    stats_print(&stats);
    puts("}");
    stats_free(&stats);
    return 0;
}
