/* signet-front: what clients talk to. TLS, HTTP, JSON, base64, CSRs: all bytes of strangers are
 * read here, and nowhere else; a body that an operator signed the authority reads once more.
 *
 * Holds: the key of the listener's certificate (short-lived), the connections.
 * Talks to: clients; the authority, with typed messages of bounded length; the supervisor, to say
 *     that it is ready.
 * Never sees: the CA's key or PIN, a file, the store, the configuration. It opens no file and makes
 *     no socket but those it accepts; a hijacked front can ask the authority what any client could,
 *     and in the name of clients that are connected to it.
 *
 * Descriptors at start: 3 supervisor (SEQPACKET; its end ends this process), 4 the configuration,
 * 5 authority (SEQPACKET; its end too), 6 listening socket for HTTPS, 7 for plain HTTP (optional).
 *
 * It serves plain HTTP from when the authority has sent the CA chain, HTTPS from when it has sent
 * the listener's certificate too: a CRL can be had while the token that signs the latter is away.
 * SIGTERM: requests in flight are answered, new ones are refused with 503, and it ends. SIGUSR1:
 * others have taken over; for a moment it still answers what comes on the connections that it has,
 * then the same.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <event2/event.h>
#include "common/channel.h"
#include "common/log.h"
#include "common/sandbox.h"
#include "server/front/est.h"
#include "server/front/routes.h"

enum { FD_SUPERVISOR = 3, FD_CONFIG, FD_AUTHORITY, FD_HTTPS, FD_HTTP };

#define RETIRE_SECONDS 2
#define DRAIN_SECONDS 15
#define CONNECTIONS_MAX 4096

struct front {
    struct event_base *base;
    struct event *terminate, *retire, *retired;
    struct channel *supervisor;
    struct tls *tls;
    struct http *https, *http; /* http NULL: there is no plain port */
    struct service service;
    int serving_plain, serving, failed;
};

static void stop(struct front *f)
{
    event_base_loopbreak(f->base);
}

static void fail(struct front *f, const char *what)
{
    log_error("%s", what);
    f->failed = 1;
    stop(f);
}

/* ---- serving ---- */

/* Small answers go out at once; accepted sockets inherit it. Non-blocking: several fronts wait at
 * the same socket, and one of them gets the connection. */
static int prepare_listening(int socket)
{
    const int on = 1;
    int flags = fcntl(socket, F_GETFL);
    return flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) ||
                   setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on)
               ? -1
               : 0;
}

static void serve_if_ready(struct front *f)
{
    struct err err = {0};
    const struct msg_ready ready = {.detail = ""};
    if (f->serving || !tls_ready(f->tls))
        return;
    f->serving = 1;
    if (http_accept(f->https, FD_HTTPS, &err))
        fail(f, err.text);
    else if (channel_send(f->supervisor, MSG_ready, 0, &ready, -1))
        fail(f, "the supervisor cannot be told");
}

static void serve_plain(struct front *f)
{
    struct err err = {0};
    if (f->serving_plain || !f->http)
        return;
    f->serving_plain = 1;
    if (http_accept(f->http, FD_HTTP, &err))
        fail(f, err.text);
}

static void on_request(struct exchange *x, void *arg)
{
    struct front *f = arg;
    service_request(&f->service, x);
}

static unsigned in_flight(const struct front *f)
{
    return http_in_flight(f->https) + (f->http ? http_in_flight(f->http) : 0);
}

static void on_drained(void *arg)
{
    struct front *f = arg;
    if (in_flight(f) == 0)
        stop(f);
}

/* ---- the authority ---- */

static int on_listener(const struct msg_listener *m, void *arg)
{
    struct front *f = arg;
    struct err err = {0};
    int rc = tls_set_listener(f->tls, m->certificate_pem, m->key_pem, &err);
    OPENSSL_cleanse((void *)(uintptr_t)m->key_pem.data, m->key_pem.len); /* the message is ours */
    if (rc) {
        log_error("%s", err.text);
        return -1;
    }
    serve_if_ready(f);
    return 0;
}

static int on_chain(const struct msg_chain *m, void *arg)
{
    struct front *f = arg;
    struct err err = {0};
    if (tls_set_issuer(f->tls, m->issuer_der, &err) || service_set_chain(&f->service, m)) {
        log_error("the CA chain: %s", err.text);
        return -1;
    }
    serve_plain(f);
    serve_if_ready(f);
    return 0;
}

static int on_est_label(const struct msg_est_label *m, void *arg)
{
    struct front *f = arg;
    return est_set_label(f->service.est, m);
}

static int on_document(const struct msg_document *m, int fd, void *arg)
{
    struct front *f = arg;
    struct err err = {0};
    if (documents_put(f->service.documents, m, fd, &err)) {
        log_error("%s", err.text);
        return -1;
    }
    return 0;
}

static int on_ocsp_forget(const struct msg_ocsp_forget *m, void *arg)
{
    struct front *f = arg;
    return ocsp_forget(f->service.ocsp, m);
}

/* Who reads so slowly that several newer ones have come meanwhile. */
static void on_late(struct blob *body, void *arg)
{
    struct front *f = arg;
    log_info("a document that was replaced long since is still being read; its readers are ended");
    http_end_readers(f->https, body);
    if (f->http)
        http_end_readers(f->http, body);
}

static void on_authority_end(const char *why, void *arg)
{
    char text[256];
    snprintf(text, sizeof text, "the authority is gone%s%s", why ? ": " : "", why ? why : "");
    fail(arg, text);
}

/* ---- the supervisor, and signals ---- */

static int on_supervisor_message(struct channel *c, const struct msg *m, void *arg)
{
    (void)c, (void)arg;
    if (m->fd >= 0)
        close(m->fd);
    return -1;
}

static void on_supervisor_end(struct channel *c, const char *why, void *arg)
{
    (void)c, (void)why;
    stop(arg);
}

static void on_terminate(evutil_socket_t signal_number, short what, void *arg)
{
    (void)signal_number, (void)what;
    struct front *f = arg;
    const struct timeval most = {DRAIN_SECONDS, 0};
    log_info("stopping: %u requests in flight", in_flight(f));
    http_drain(f->https);
    if (f->http)
        http_drain(f->http);
    event_base_loopexit(f->base, &most);
}

/* A connection may be accepted and its request not there yet; its client does not know of any
 * configuration. */
static void on_retire(evutil_socket_t signal_number, short what, void *arg)
{
    (void)signal_number, (void)what;
    struct front *f = arg;
    const struct timeval moment = {RETIRE_SECONDS, 0};
    http_retire(f->https);
    if (f->http)
        http_retire(f->http);
    event_add(f->retired, &moment);
}

/* ---- start and end ---- */

/* One connection is one descriptor and up to 50 KB. */
static void allow_connections(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < CONNECTIONS_MAX ? files.rlim_max : CONNECTIONS_MAX;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void harden(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sandbox_prepare();
    allow_connections();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is the supervisor's to handle */
}

/* evhttp turns reading and writing on and off several times a request: the kernel is told of what
 * is left of it when the loop waits again. (No descriptor here is a dup() of another.) */
static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;
    if (config && !event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST))
        base = event_base_new_with_config(config);
    if (config)
        event_config_free(config);
    return base;
}

static int build(struct front *f)
{
    static const struct authority_handlers authority_handlers = {
        on_listener, on_chain, on_est_label, on_document, on_ocsp_forget, on_authority_end};
    static const struct channel_handlers supervisor_handlers = {on_supervisor_message,
                                                                on_supervisor_end};
    static const struct http_handlers http_handlers = {on_request, on_drained};
    int plain = fcntl(FD_HTTP, F_GETFD) >= 0;
    if (prepare_listening(FD_HTTPS) || (plain && prepare_listening(FD_HTTP)))
        return -1;
    if (!(f->base = make_base()) || !(f->tls = tls_new()) ||
        !(f->service.documents = documents_new()) || !(f->service.est = est_new()) ||
        !(f->https = http_new(f->base, f->tls, &http_handlers, f)) ||
        (plain && !(f->http = http_new(f->base, NULL, &http_handlers, f))))
        return -1;
    documents_on_late(f->service.documents, on_late, f);
    f->supervisor =
        channel_new(f->base, FD_SUPERVISOR, PROC_FRONT, PROC_SUPERVISOR, &supervisor_handlers, f);
    f->service.authority = authority_new(f->base, FD_AUTHORITY, &authority_handlers, f);
    f->service.ocsp = ocsp_new(f->base, f->service.authority);
    f->terminate = evsignal_new(f->base, SIGTERM, on_terminate, f);
    f->retire = evsignal_new(f->base, SIGUSR1, on_retire, f);
    f->retired = evtimer_new(f->base, on_terminate, f);
    return f->supervisor && f->service.authority && f->service.ocsp && f->terminate && f->retire &&
                   f->retired && !event_add(f->terminate, NULL) && !event_add(f->retire, NULL)
               ? 0
               : -1;
}

static void take_down(struct front *f)
{
    http_free(f->https);
    http_free(f->http);
    ocsp_free(f->service.ocsp);
    authority_free(f->service.authority);
    channel_free(f->supervisor);
    documents_free(f->service.documents);
    est_free(f->service.est);
    service_clear(&f->service);
    tls_free(f->tls);
    struct event *events[] = {f->terminate, f->retire, f->retired};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    if (f->base)
        event_base_free(f->base);
}

static int run(void)
{
    struct front f = {0};
    struct err err;
    if (build(&f))
        fail(&f, "cannot start: the inherited descriptors are not as expected, or out of memory");
    else if (sandbox_enter(PROC_FRONT, NULL, &err)) /* before any byte of a stranger is read */
        fail(&f, err.text);
    else
        event_base_dispatch(f.base);
    take_down(&f);
    return f.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int usage(FILE *out)
{
    fprintf(out, "signet-front is a part of signetd, which starts it: see signetd(8).\n"
                 "usage: signet-front --number N\n");
    return out == stdout ? EXIT_SUCCESS : 2;
}

int main(int argc, char **argv)
{
    static char name[32];
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return printf("signet-front %s\n", SIGNET_VERSION) < 0;
    if (argc != 3 || strcmp(argv[1], "--number") != 0)
        return usage(argc == 2 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
    snprintf(name, sizeof name, "signet-front-%.8s", argv[2]);
    log_open(name, LOG_INFO);
    harden();
    close(FD_CONFIG); /* nothing in it is for a front */
    return run();
}
