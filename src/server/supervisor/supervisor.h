/* What the supervisor's files share. */
#ifndef SIGNET_SUPERVISOR_H
#define SIGNET_SUPERVISOR_H

#include <event2/event.h>
#include <sys/queue.h>
#include <sys/types.h>
#include "common/channel.h"
#include "common/config.h"
#include "common/secret.h"

struct supervisor;

struct child {
    LIST_ENTRY(child) next;
    struct supervisor *s;
    enum role_name role;
    unsigned number;
    pid_t pid;               /* 0: reaped */
    int status;              /* of waitpid(2) */
    struct channel *channel; /* to it; NULL when it hung up */
    int ready;
    int retiring;       /* a front of an earlier configuration: ends when the new ones serve */
    int64_t retired_at; /* when it was told that they do; monotonic, ms. 0: not yet */
    struct slot *slot;  /* of a signer or front; NULL when none waits for its end */
    uint8_t fault;      /* enum token_fault it reported, a signer */
    char detail[512];
    int64_t started_at; /* monotonic, ms */
};
LIST_HEAD(children, child);

enum phase { STARTING, RUNNING, RESTARTING, STOPPING };

/* One signer or front that should run. */
struct slot {
    struct child *child; /* NULL: none now */
    int64_t not_before;  /* monotonic, ms */
    int64_t backoff;     /* ms; 0 while all is well */
    int tried;
};

struct supervisor {
    struct event_base *base;
    struct event *look; /* at all there is to start, stop or try again */
    struct config *config;
    int config_fd, lock;
    uint8_t ca_sha256[32]; /* of the CA certificate's file, as it was read with the configuration */
    int tls_socket, http_socket; /* -1: none */
    struct secret *pin;
    enum phase phase;
    struct children children;
    struct child *authority;
    struct slot *signers, *fronts;
    unsigned front_number; /* of the one started last: an old and a new one are never confused */
    const char *config_path;
    int pin_blocked;    /* no login until `signetctl pin retry` */
    int pin_unrecorded; /* a refusal that STATE/pin-refused does not tell of yet */
    int64_t record_at;  /* when that is tried again */
    int announced;      /* "ready" was logged */
    int64_t stop_since; /* of the current step of stopping */
    int exit_code;
    int64_t restart_at, restart_backoff;
};

/* ---- children.c: processes, and the sockets they are born with ---- */

int64_t monotonic_ms(void);

/* Starts signet-front and so on; NULL (logged) when it cannot be. A front, signer or publisher gets
 * a socket to the authority, whose other end is sent there. */
struct child *child_start(struct supervisor *s, enum role_name role, unsigned number);
void child_signal(const struct child *c, int signal_number);
void child_free(struct child *c);
/* Runs `signet-authority --check` and waits; 0 when it is content, else err. */
int child_check_authority(struct supervisor *s, struct err *err);
const char *role_text(enum role_name role);

/* ---- supervise.c: what to do when something happens to one ---- */

/* Runs until all is stopped; s->exit_code says how it went. */
void supervise(struct supervisor *s);

void on_child_message(struct child *c, const struct msg *m);
void on_child_end(struct child *c); /* reaped and hung up */
/* Kills it; but a signer that is still opening the token is let be until its deadline: SoftHSM
 * rewrites its token file at each login, not atomically, and a kill in that instant loses the token
 * for good. It ends by itself when it finds the authority gone. */
void end_child(const struct child *c);

/* ---- reload.c ---- */

/* SIGHUP: the configuration is read and checked whole, then fronts are started with it and the old
 * ones drain; the authority takes the new policy, signers start anew when the token's settings are
 * others. What is wrong is logged and nothing changes. */
void reload(struct supervisor *s);
/* Reads and parses s->config_path into s->config and s->config_fd. */
int load_config(struct supervisor *s, struct err *err);

/* ---- listen.c ---- */

/* A listening TCP socket on "address:port"; *text gets what it is bound to. -1 with err set. */
int listen_on(const char *address, char text[80], struct err *err);

/* ---- user.c: started as root, it runs as [server] user (name; NULL: as whoever started it) ----
 */

/* Takes that user's rights, for a while: what concerns the state is done as who will use it. */
int user_lower(const char *name, struct err *err);
/* And those of who started it again: for the PIN's file and the ports. */
int user_raise(struct err *err);
/* For good, and so do all that are started later. */
int user_become(const char *name, struct err *err);

/* ---- pin.c: the PIN, and the memory of a refusal ---- */

/* From [token] pin_file, else the systemd credential "pin", else a prompt. */
int pin_get(struct secret **out, const struct config *config, struct err *err);
/* STATE/pin-refused stands: err says what to do. */
int pin_was_refused(const struct config *config, struct err *err);
/* Writes it, durably. When it cannot be written, signetd must not end: whatever starts it again
 * would spend the next try. */
int pin_record_refusal(const struct config *config, const char *detail, struct err *err);
int pin_forget_refusal(const struct config *config, struct err *err);

#endif
