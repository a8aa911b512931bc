/* What the commands of signetctl share. */
#ifndef SIGNET_CTL_H
#define SIGNET_CTL_H

#include <stdio.h>
#include "common/config.h"
#include "common/msg.h"
#include "pki/issuer.h"
#include "server/authority/store.h"

struct ctl {
    const char *config_path;
    struct config *config;
    int json;
    int socket; /* to the authority; -1: not connected */
    struct msg in;
    struct err err;
    int64_t shown_ms; /* when progress was last drawn; 0: it is not on the screen */
};

/* Exit codes, as signet's (design, section 7). */
enum {
    EXIT_DONE = 0,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3,
    EXIT_REFUSED = 4,
    EXIT_LOCAL = 5,
    EXIT_FINDINGS = 6
};

/* One sentence on stderr, or an object on stdout with --json; returns code. */
int ctl_fail(struct ctl *c, int code);

/* Connects to STATE/admin.sock. EXIT_DONE, or the code to end with (said already when say). */
int ctl_connect(struct ctl *c, int say);

/* Sends a question and receives the next message into c->in. EXIT_DONE, EXIT_UNREACHABLE, or
 * EXIT_REFUSED when it was answer_error; said already. */
int ctl_ask(struct ctl *c, enum msg_type type, const void *body);
int ctl_next(struct ctl *c);
/* As ctl_ask, but a refusal is left in c->err and not said. */
int ctl_try(struct ctl *c, enum msg_type type, const void *body);
/* The received message must be of this type: its fields into *body. EXIT_DONE, or EXIT_UNREACHABLE;
 * said already. */
int ctl_expect(struct ctl *c, enum msg_type type, void *body);
/* A whole exchange that ends in answer_status, answer_end or another single message. */
int ctl_exchange(struct ctl *c, enum msg_type type, const void *body, enum msg_type answer,
                 void *fields);

/* "what … 40 %" on a terminal, some ten times a second; total 0: how many so far, or just
 * the dots. Drawn over by the next, taken away by ctl_progress_end(). */
void ctl_progress(struct ctl *c, const char *what, uint64_t done, uint64_t total);
void ctl_progress_end(struct ctl *c);

/* The intermediate out of a PEM file; 0, or -1 with c->err set. */
int ctl_issuer(struct ctl *c, const char *path, struct issuer **out);

/* The store, read-only; 0, or -1 with c->err set. */
int ctl_store(struct ctl *c, struct store **out);

/* The lock that signetd holds while it runs; the descriptor, or -1 with c->err set. */
int ctl_lock_state(struct ctl *c, const char *state);

/* "2026-11-23T12:00:00Z"; out holds 32. "-" for 0. */
const char *time_text(char out[32], int64_t seconds);
/* A JSON string with its quotes, escaped, on stdout. */
void json_string(const char *text);
void json_write(FILE *to, const char *text);

int cmd_operator(struct ctl *c, int argc, char **argv);
int cmd_enrolment(struct ctl *c, int argc, char **argv);
int cmd_status(struct ctl *c, int argc, char **argv);
int cmd_pin(struct ctl *c, int argc, char **argv);
int cmd_crl(struct ctl *c, int argc, char **argv);
int cmd_clock(struct ctl *c, int argc, char **argv);
int cmd_audit(struct ctl *c, int argc, char **argv);
int cmd_export(struct ctl *c, int argc, char **argv);
int cmd_backup(struct ctl *c, int argc, char **argv);
int cmd_restore(struct ctl *c, int argc, char **argv);
int cmd_import(struct ctl *c, int argc, char **argv);

#endif
