/* Why a command ended: for a person one sentence, for a program a code, for a shell an exit code.
 */
#ifndef SIGNET_CLIENT_FAILURE_H
#define SIGNET_CLIENT_FAILURE_H

#include <cjson/cJSON.h>

#include "common/err.h"

enum exit_code {
    EXIT_DONE = 0,
    EXIT_USAGE = 2,
    EXIT_UNREACHABLE = 3, /* or timed out */
    EXIT_REFUSED = 4,     /* by the server, with a code from err.h */
    EXIT_LOCAL = 5,       /* a file or a device */
    EXIT_VERIFY = 6,      /* the server, or what it answered, is not what it must be */
    EXIT_SIGNAL = 128     /* plus the signal's number */
};

struct failure {
    int exit;
    char code[48];    /* stable; the server's own for EXIT_REFUSED */
    char text[2048];  /* one sentence: the thing, the cause, the next step */
    int nothing_done; /* the server certainly acted on nothing (see http_call) */
};

/* Fills it in and returns -1, so that a refusal is one statement. */
int fail(struct failure *f, int exit_code, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* What a function of common/ or pki/ said, as this kind of failure. Returns -1. */
int fail_err(struct failure *f, int exit_code, const struct err *err);

/* Out of memory. Returns -1. */
int fail_memory(struct failure *f);

/* Adds to the sentence ("; …"). Returns -1. */
int fail_add(struct failure *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "address: " before the sentence unless it names the address already. Returns -1. */
int fail_at(struct failure *f, const char *address);

/* {"status":"ERROR","exit":3,"error":{"code":"unreachable","message":"…"}}; cJSON_Delete(). */
cJSON *failure_json(const struct failure *f) __attribute__((warn_unused_result));

/* "signet: …" on stderr and, for --json, one object on stdout. Returns the exit code. */
int failure_report(const struct failure *f, int json);

#endif
