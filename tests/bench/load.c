/* load: a load program for signetd and what it is compared with; see usage. Run by bench.py. */
#include "load.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pool.h"

static const char usage[] =
    "usage: load pool       --pool FILE --count N\n"
    "       load issue      --server A:P --ca F --cert F --key F --issuer F --pool FILE\n"
    "                       [--first N] [--warm N] --count N [--seconds S] --connections N\n"
    "       load handshakes --server A:P --ca F --cert F --key F --connections N --seconds S\n"
    "       load idle       --server A:P --ca F --cert F --key F --connections N\n"
    "       load get        --server A:P [--plain | --ca F [--cert F --key F]] --path /P\n"
    "                       [--body FILE [--type TYPE]] --connections N --seconds S\n"
    "\n"
    "pool        makes N P-256 keys and CSRs, for MACs that follow each other\n"
    "issue       has N certificates issued over kept-alive mutual TLS, or as many as --seconds\n"
    "            allow; --warm more beforehand.\n"
    "            With the clock stopped, each one's signature, key and name are checked\n"
    "handshakes  full handshakes with client certificates, one after another on N connections\n"
    "idle        opens N connections with client certificates and holds them\n"
    "get         the same request again and again; --body makes it a POST of that file, of the\n"
    "            media type TYPE (application/json)\n"
    "\n"
    "\"ready\" on standard output, then a line on standard input starts the clock (idle: ends "
    "it);\n"
    "\"stopped\" when it has stopped; last, one JSON object.\n";

SSL_CTX *options_context(const struct options *o)
{
    return o->plain ? NULL : wire_context(o->ca, o->cert, o->key);
}

void tell(const char *what)
{
    puts(what);
    fflush(stdout);
}

void sync_point(const char *what)
{
    char line[16];
    tell(what);
    if (!fgets(line, sizeof line, stdin))
        return;
}

static size_t number(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end || end == text || n > 100000000)
        die("%s: not a number", text);
    return n;
}

static const char **text_option(struct options *o, int c)
{
    switch (c) {
    case 's':
        return &o->server;
    case 'a':
        return &o->ca;
    case 'c':
        return &o->cert;
    case 'k':
        return &o->key;
    case 'i':
        return &o->issuer;
    case 'p':
        return &o->pool;
    case 'P':
        return &o->path;
    case 'b':
        return &o->body;
    case 't':
        return &o->type;
    default:
        return NULL;
    }
}

static size_t *number_option(struct options *o, int c)
{
    switch (c) {
    case 'C':
        return &o->connections;
    case 'n':
        return &o->count;
    case 'f':
        return &o->first;
    case 'w':
        return &o->warm;
    default:
        return NULL;
    }
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"server", 1, NULL, 's'}, {"ca", 1, NULL, 'a'},      {"cert", 1, NULL, 'c'},
        {"key", 1, NULL, 'k'},    {"issuer", 1, NULL, 'i'},  {"pool", 1, NULL, 'p'},
        {"path", 1, NULL, 'P'},   {"body", 1, NULL, 'b'},    {"connections", 1, NULL, 'C'},
        {"count", 1, NULL, 'n'},  {"first", 1, NULL, 'f'},   {"warm", 1, NULL, 'w'},
        {"plain", 0, NULL, 'L'},  {"seconds", 1, NULL, 'S'}, {"help", 0, NULL, 'h'},
        {"type", 1, NULL, 't'},   {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 'h' || c == '?') {
            fputs(usage, c == 'h' ? stdout : stderr);
            exit(c == 'h' ? 0 : 2);
        }
        if (text_option(o, c))
            *text_option(o, c) = optarg;
        else if (number_option(o, c))
            *number_option(o, c) = number(optarg);
        else if (c == 'S')
            o->seconds = atof(optarg);
        else
            o->plain = 1;
    }
}

static void need(int given)
{
    if (!given) {
        fputs(usage, stderr);
        exit(2);
    }
}

/* A connection is a descriptor. */
static void raise_files(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.connections = 1, .type = "application/json"};
    const char *mode = argc > 1 ? argv[1] : "";
    read_options(&o, argc, argv);
    signal(SIGPIPE, SIG_IGN);
    raise_files();
    if (strcmp(mode, "pool") == 0) {
        need(o.pool && o.count);
        pool_make(o.pool, o.count);
        return 0;
    }
    need(o.server && o.connections && (o.plain || o.ca) && !o.cert == !o.key);
    if (strcmp(mode, "issue") == 0) {
        need(o.pool && o.issuer && o.count);
        mode_issue(&o);
    } else if (strcmp(mode, "handshakes") == 0) {
        need(o.seconds > 0 && !o.plain);
        mode_handshakes(&o);
    } else if (strcmp(mode, "idle") == 0) {
        mode_idle(&o);
    } else {
        need(strcmp(mode, "get") == 0 && o.path && o.seconds > 0);
        mode_get(&o);
    }
    return 0;
}
