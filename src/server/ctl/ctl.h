/* What the commands of signetctl share. */
#ifndef SIGNET_CTL_H
#define SIGNET_CTL_H

#include "common/config.h"
#include "common/msg.h"

struct ctl {
    const char *config_path;
    struct config *config;
    int json;
    int socket; /* to the authority; -1: not connected */
    struct msg in;
    struct err err;
};

/* Exit codes, as signet's (design, section 7). */
enum { EXIT_DONE = 0, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3, EXIT_REFUSED = 4, EXIT_LOCAL = 5 };

/* One sentence on stderr, or an object on stdout with --json; returns code. */
int ctl_fail(struct ctl *c, int code);

/* Connects to STATE/admin.sock. EXIT_DONE, or the code to end with (said already when say). */
int ctl_connect(struct ctl *c, int say);

/* Sends a question and receives the next message into c->in. EXIT_DONE, EXIT_UNREACHABLE, or
 * EXIT_REFUSED when it was answer_error; said already. */
int ctl_ask(struct ctl *c, enum msg_type type, const void *body);
int ctl_next(struct ctl *c);

/* "2026-11-23T12:00:00Z"; out holds 32. "-" for 0. */
const char *time_text(char out[32], int64_t seconds);
/* A JSON string with its quotes, escaped, on stdout. */
void json_string(const char *text);

int cmd_operator(struct ctl *c, int argc, char **argv);
int cmd_status(struct ctl *c, int argc, char **argv);
int cmd_pin(struct ctl *c, int argc, char **argv);

#endif
