#include "client/esptool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/esptool_output.h"
#include "client/process.h"

#define SILENCE_MS (180 * 1000) /* a ROM may erase for two minutes without a word */
#define INSTALL "install it (apt install esptool, or pip install esptool), or name it by --esptool"

/* ---- the program ---- */

/* The first in the PATH; NULL: none, or no memory. */
static char *in_path(const char *name)
{
    const char *at = getenv("PATH");
    while (at && *at) {
        size_t len = strcspn(at, ":");
        char *path;
        struct stat st;
        if (asprintf(&path, "%.*s/%s", (int)len, at, name) < 0)
            return NULL;
        if (len && stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0)
            return path;
        free(path);
        at += len + (at[len] == ':');
    }
    return NULL;
}

int esptool_find(char **out, const char *named, struct failure *f)
{
    if (named)
        *out = strchr(named, '/') ? strdup(named) : in_path(named);
    else if (!(*out = in_path("esptool")))
        *out = in_path("esptool.py");
    if (*out && access(*out, X_OK) == 0)
        return 0;
    if (named)
        return fail(f, EXIT_LOCAL, "esptool_missing", "cannot run %s: %s", named,
                    *out ? strerror(errno) : "it is not in the PATH");
    return fail(f, EXIT_LOCAL, "esptool_missing", "esptool is not in the PATH; " INSTALL);
}

/* Its words, whatever the terminal is: plain, and at once. */
static const char *const environment[] = {"NO_COLOR=1", "TERM=dumb", "PYTHONUNBUFFERED=1", NULL};

void esptool_version(char *out, size_t size, const char *program)
{
    const char *const argv[] = {program, "version", NULL};
    struct process p = {
        .argv = argv, .env = environment, .silence_ms = 10 * 1000, .doing = "asking esptool"};
    struct buf said = {0};
    struct failure f;
    int status;
    *out = '\0';
    if (process_run(&p, &said, &status, &f) == 0 && status == 0)
        esptool_first_line(out, size, buf_view(&said));
    buf_free(&said);
}

/* ---- the port ---- */

static int port_refused(const char *port, int why, struct failure *f)
{
    switch (why) {
    case ENOENT:
        return fail(f, EXIT_LOCAL, "port_missing",
                    "there is no port %s: plug the board in and look at ls /dev/serial/by-id",
                    port);
    case EACCES:
    case EPERM:
        return fail(f, EXIT_LOCAL, "port_permission",
                    "you may not use %s: sudo usermod -aG dialout $USER, then log out and in again",
                    port);
    case EBUSY:
        return fail(f, EXIT_LOCAL, "port_busy", "another program has %s: close the serial monitor",
                    port);
    default:
        return fail(f, EXIT_LOCAL, "port_failed", "cannot open %s: %s", port, strerror(why));
    }
}

/* A pseudo-terminal, for one, has no lines that reset a board: esptool must leave them alone. */
static int check_port(struct esptool *t, struct failure *f)
{
    int lines;
    if (strstr(t->port, "://")) { /* pySerial's socket:// and rfc2217:// */
        t->resets = strncmp(t->port, "rfc2217:", 8) == 0;
        return 0;
    }
    int fd = open(t->port, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return port_refused(t->port, errno, f);
    int rc =
        isatty(fd) ? 0 : fail(f, EXIT_LOCAL, "port_failed", "%s is not a serial port", t->port);
    t->resets = ioctl(fd, TIOCMGET, &lines) == 0;
    close(fd);
    return rc;
}

/* ---- a run ---- */

#define ARGUMENTS_MAX (10 + 1 + 2 * FLASH_PARTS_MAX + 1)

struct run {
    struct esptool *t;
    /* what is to be done */
    const char *const *words; /* the command and its arguments, NULL-terminated */
    const int *fds;
    size_t fd_count;
    const char *doing;
    int no_stub, last;
    /* how it went */
    struct buf said;
    struct esptool_output found;
};

static void assemble(const char *argv[ARGUMENTS_MAX], const struct run *r)
{
    const struct esptool *t = r->t;
    size_t n = 0;
    argv[n++] = t->program;
    argv[n++] = "--port";
    argv[n++] = t->port;
    if (t->baud) {
        argv[n++] = "--baud";
        argv[n++] = t->baud;
    }
    argv[n++] = "--before";
    argv[n++] = t->resets ? "default_reset" : "no_reset";
    argv[n++] = "--after";
    argv[n++] = t->resets && r->last ? "hard_reset" : "no_reset";
    if (r->no_stub || t->no_stub)
        argv[n++] = "--no-stub";
    for (size_t i = 0; r->words[i] && n < ARGUMENTS_MAX - 1; i++)
        argv[n++] = r->words[i];
    argv[n] = NULL;
}

static int other_board(const struct run *r, int written, struct failure *f)
{
    return fail(f, EXIT_LOCAL, "board_swapped",
                "the board at %s is %s now, but it was %s before: it was swapped%s", r->t->port,
                r->found.mac, r->t->mac,
                written ? ", and may hold the other's key now: flash it next with its own"
                        : "; nothing was written to it");
}

static int check_same(const struct run *r, struct bytes so_far, struct failure *f)
{
    if (!*r->t->mac || strcmp(r->found.mac, r->t->mac) == 0)
        return 0;
    return other_board(r, esptool_has_written(so_far), f);
}

/* While it runs: the board must be the one whose MAC was read, or it is ended before it writes. */
static int watch(void *context, struct bytes so_far, struct failure *f)
{
    struct run *r = context;
    struct err err;
    if (esptool_parse(&r->found, so_far, &err))
        return fail(f, EXIT_LOCAL, "mac_refused",
                    "%s: a board with such a MAC has no identity of its own", err.text);
    /* an EUI-64 is not the whole word: the base MAC follows in the next line */
    if (strlen(r->found.mac) != strlen("24:0a:c4:12:34:56"))
        return 0;
    return check_same(r, so_far, f);
}

static int explain(const struct run *r, int status, struct failure *f)
{
    char reason[256];
    const struct esptool_problem *why = esptool_problem(buf_view(&r->said));
    esptool_reason(reason, sizeof reason, buf_view(&r->said));
    if (why)
        return fail(f, EXIT_LOCAL, why->code, "%s: %s (esptool: %s)", r->t->port, why->advice,
                    reason);
    return fail(f, EXIT_LOCAL, "esptool_failed", "%s: esptool failed with exit code %d: %s",
                r->t->port, status, reason);
}

/* Nothing is taken from a run that failed, but the reason. */
static int attempt(struct run *r, struct failure *f)
{
    const char *argv[ARGUMENTS_MAX];
    int status = 0;
    struct process p = {.argv = argv,
                        .env = environment,
                        .fds = r->fds,
                        .fd_count = r->fd_count,
                        .silence_ms = SILENCE_MS,
                        .watch = watch,
                        .context = r,
                        .doing = r->doing};
    assemble(argv, r);
    buf_free(&r->said);
    r->said = (struct buf){0};
    r->found = (struct esptool_output){0};
    if (process_run(&p, &r->said, &status, f))
        return -1;
    if (status)
        return explain(r, status, f);
    if (*r->found.mac)
        return check_same(r, buf_view(&r->said), f);
    return fail(f, EXIT_LOCAL, "esptool_failed",
                "%s: esptool does not say which board it has met; 4.7 to 5.x are known to work",
                r->t->port);
}

/* Debian's esptool comes without the stub for some chips. That shows before anything was done to
 * the board; from then on its ROM is asked. */
static int run(struct run *r, struct failure *f)
{
    int rc = attempt(r, f);
    if (rc && !r->no_stub && !r->t->no_stub && esptool_lacks_stub(buf_view(&r->said))) {
        r->t->no_stub = 1;
        rc = attempt(r, f);
    }
    return rc;
}

/* ---- what is asked of a board ---- */

static int identify(struct esptool *t, struct failure *f)
{
    static const char *const words[] = {"read_mac", NULL};
    struct run r = {.t = t, .words = words, .no_stub = 1, .doing = "looking at the board"};
    int rc = run(&r, f);
    if (rc == 0) {
        snprintf(t->mac, sizeof t->mac, "%s", r.found.mac);
        snprintf(t->chip, sizeof t->chip, "%s", r.found.chip);
    }
    buf_free(&r.said);
    return rc;
}

int esptool_open(struct esptool *t, const char *named, const char *port, const char *baud,
                 struct failure *f)
{
    *t = (struct esptool){.port = port, .baud = baud};
    return esptool_find(&t->program, named, f) || check_port(t, f) || identify(t, f) ? -1 : 0;
}

void esptool_close(struct esptool *t)
{
    free(t->program);
    t->program = NULL;
}

#define WORD_SIZE 32
#define FD_PATH "/proc/self/fd/%d"

static int no_memory_file(struct failure *f)
{
    return fail(f, EXIT_LOCAL, "local_file", "cannot use memory for the flash's content: %s",
                strerror(errno));
}

int esptool_memory(int *fd, struct bytes data, struct failure *f)
{
    *fd = memfd_create("flash", MFD_CLOEXEC);
    if (*fd < 0)
        return no_memory_file(f);
    for (size_t done = 0; done < data.len;) {
        ssize_t n = write(*fd, data.data + done, data.len - done);
        if (n < 0 && errno != EINTR) {
            no_memory_file(f);
            close(*fd);
            *fd = -1;
            return -1;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Exactly size bytes of what esptool has put there. */
static int collect(struct buf *out, int fd, size_t size, const char *port, struct failure *f)
{
    struct stat st;
    if (fstat(fd, &st) || st.st_size != (off_t)size)
        return fail(f, EXIT_LOCAL, "esptool_failed", "%s: esptool has read another length", port);
    out->data = malloc(size);
    if (!out->data)
        return fail_memory(f);
    out->cap = size;
    while (out->len < size) {
        ssize_t n = pread(fd, out->data + out->len, size - out->len, (off_t)out->len);
        if (n <= 0 && errno != EINTR)
            return no_memory_file(f);
        out->len += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int esptool_read(struct esptool *t, uint32_t offset, size_t size, int last, struct buf *out,
                 struct failure *f)
{
    char at[WORD_SIZE], length[WORD_SIZE], path[WORD_SIZE];
    const char *const words[] = {"read_flash", at, length, path, NULL};
    int fd;
    if (esptool_memory(&fd, (struct bytes){NULL, 0}, f))
        return -1;
    struct run r = {.t = t,
                    .words = words,
                    .fds = &fd,
                    .fd_count = 1,
                    .last = last,
                    .doing = "reading the board's flash"};
    snprintf(at, sizeof at, "0x%x", offset);
    snprintf(length, sizeof length, "0x%zx", size);
    snprintf(path, sizeof path, FD_PATH, fd);
    int rc = run(&r, f);
    if (rc == 0)
        rc = collect(out, fd, size, t->port, f);
    buf_free(&r.said);
    close(fd);
    return rc;
}

int esptool_write(struct esptool *t, const struct flash_part *parts, size_t count,
                  const char *doing, struct failure *f)
{
    char text[2 * FLASH_PARTS_MAX][WORD_SIZE];
    const char *words[2 + 2 * FLASH_PARTS_MAX] = {"write_flash"};
    int fds[FLASH_PARTS_MAX];
    struct run r = {.t = t, .words = words, .fds = fds, .fd_count = count, .doing = doing};
    for (size_t i = 0; i < count; i++) {
        snprintf(text[2 * i], WORD_SIZE, "0x%x", parts[i].offset);
        snprintf(text[2 * i + 1], WORD_SIZE, FD_PATH, parts[i].fd);
        words[1 + 2 * i] = text[2 * i];
        words[2 + 2 * i] = text[2 * i + 1];
        fds[i] = parts[i].fd;
    }
    int rc = run(&r, f);
    if (rc == 0 && r.found.verified != count)
        rc = fail(f, EXIT_LOCAL, "flash_not_verified",
                  "%s: esptool has verified %zu of %zu parts that it wrote; in secure download "
                  "mode it cannot, and such a board is not for signet provision --flash",
                  t->port, r.found.verified, count);
    buf_free(&r.said);
    return rc;
}
