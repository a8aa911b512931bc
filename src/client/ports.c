#include "client/ports.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/notice.h"

#define SETTLE_MS 500  /* udev names the port, and sets its mode, after it has appeared */
#define ACCESS_MS 3000 /* a port that we may not use by then stays so */

enum state { OLD, NEW, IN_USE, DONE };

struct port {
    char *path;
    size_t pattern; /* that it was found by */
    dev_t device;
    enum state state;
    int64_t since, seen; /* ms: there without a break; last seen */
};

struct ports {
    char *pattern[3];
    struct port *port;
    size_t count;
    int64_t looked; /* ms */
};

/* ---- what is there ---- */

/* By its path; or the same device under its other name, while udev is at work. */
static struct port *find(const struct ports *p, const char *path, size_t pattern, dev_t device)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->port[i].path, path) == 0)
            return &p->port[i];
    for (size_t i = 0; i < p->count; i++)
        if (p->port[i].device == device && p->port[i].pattern != pattern)
            return &p->port[i];
    return NULL;
}

static int is_seen(const struct ports *p, dev_t device)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->port[i].device == device && p->port[i].seen == p->looked)
            return 1;
    return 0;
}

static struct port *add(struct ports *p)
{
    struct port *grown = realloc(p->port, (p->count + 1) * sizeof *grown);
    if (!grown)
        return NULL;
    p->port = grown;
    grown[p->count] = (struct port){.state = NEW};
    return &grown[p->count++];
}

/* before: when was looked last */
static int see(struct ports *p, const char *path, size_t pattern, dev_t device, int64_t before,
               struct failure *f)
{
    char *name = strdup(path);
    struct port *port = name ? find(p, path, pattern, device) : NULL;
    if (name && !port)
        port = add(p);
    if (!port) {
        free(name);
        return fail_memory(f);
    }
    if (port->seen != before || !port->path)
        port->since = p->looked;
    free(port->path);
    port->path = name;
    port->pattern = pattern;
    port->device = device;
    port->seen = p->looked;
    return 0;
}

static int see_all(struct ports *p, size_t pattern, int64_t before, struct failure *f)
{
    glob_t found;
    struct stat st;
    int rc = glob(p->pattern[pattern], 0, NULL, &found);
    if (rc == GLOB_NOSPACE)
        return fail_memory(f);
    if (rc)
        return 0;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc; i++)
        if (stat(found.gl_pathv[i], &st) == 0 && S_ISCHR(st.st_mode) && !is_seen(p, st.st_rdev))
            rc = see(p, found.gl_pathv[i], pattern, st.st_rdev, before, f);
    globfree(&found);
    return rc;
}

static void forget_gone(struct ports *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        struct port *port = &p->port[i];
        if (port->state == IN_USE || p->looked - port->seen < PORTS_GONE_MS)
            p->port[kept++] = *port;
        else
            free(port->path);
    }
    p->count = kept;
}

int ports_look(struct ports *p, struct failure *f)
{
    int64_t before = p->looked;
    p->looked = now_ms();
    for (size_t i = 0; i < sizeof p->pattern / sizeof p->pattern[0]; i++)
        if (p->pattern[i] && see_all(p, i, before, f))
            return -1;
    forget_gone(p);
    return 0;
}

/* ---- opening ---- */

static int set_patterns(struct ports *p, const char *given)
{
    static const char *const usual[] = {"/dev/serial/by-id/*", "/dev/ttyUSB*", "/dev/ttyACM*"};
    struct stat st;
    if (given) {
        int folder = stat(given, &st) == 0 && S_ISDIR(st.st_mode);
        if (asprintf(&p->pattern[0], "%s%s", given, folder ? "/*" : "") < 0)
            p->pattern[0] = NULL;
        return p->pattern[0] ? 0 : -1;
    }
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (!(p->pattern[i] = strdup(usual[i])))
            return -1;
    return 0;
}

int ports_open(struct ports **out, const char *pattern, struct failure *f)
{
    struct ports *p = calloc(1, sizeof *p);
    if (!p)
        return fail_memory(f);
    int rc = set_patterns(p, pattern) ? fail_memory(f) : ports_look(p, f);
    for (size_t i = 0; i < p->count; i++)
        p->port[i].state = OLD;
    if (rc == 0)
        *out = p;
    else
        ports_close(p);
    return rc;
}

void ports_close(struct ports *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        free(p->port[i].path);
    for (size_t i = 0; i < sizeof p->pattern / sizeof p->pattern[0]; i++)
        free(p->pattern[i]);
    free(p->port);
    free(p);
}

/* ---- one after the other ---- */

static int is_ready(const struct ports *p, const struct port *port)
{
    int64_t age = p->looked - port->since;
    return port->state == NEW && port->seen == p->looked && age >= SETTLE_MS &&
           (age >= ACCESS_MS || access(port->path, R_OK | W_OK) == 0);
}

const char *ports_take(struct ports *p)
{
    struct port *first = NULL;
    for (size_t i = 0; i < p->count; i++)
        if (is_ready(p, &p->port[i]) && (!first || p->port[i].since < first->since))
            first = &p->port[i];
    if (!first)
        return NULL;
    first->state = IN_USE;
    return first->path;
}

void ports_leave(struct ports *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->port[i].state == IN_USE) {
            p->port[i].state = DONE;
            p->port[i].seen = now_ms(); /* if it is away now, that may be its reset */
        }
}

int ports_is_free(const struct ports *p)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->port[i].state == IN_USE || p->port[i].state == DONE)
            return 0;
    return 1;
}

size_t ports_waiting(const struct ports *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        n += p->port[i].state == NEW && p->port[i].seen == p->looked;
    return n;
}

const char *ports_old(const struct ports *p, size_t index)
{
    for (size_t i = 0; i < p->count; i++)
        if (p->port[i].state == OLD && index-- == 0)
            return p->port[i].path;
    return NULL;
}
