#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "server/supervisor/supervisor.h"

/* Zeros for a file that cannot be read: the authority says what is wrong with it. */
static void digest_file(uint8_t out[32], const char *path)
{
    struct buf text;
    memset(out, 0, 32);
    if (file_read(&text, path, CONFIG_SIZE_MAX, NULL))
        return;
    sha256(out, buf_view(&text));
    buf_free(&text);
}

int load_config(struct supervisor *s, struct err *err)
{
    struct buf text;
    if (file_read(&text, s->config_path, CONFIG_SIZE_MAX, err))
        return err_prefix(err, "configuration");
    int rc = config_parse(&s->config, buf_view(&text), s->config_path, err);
    if (rc == 0 && (s->config_fd = config_memfd(buf_view(&text), err)) < 0)
        rc = -1;
    buf_free(&text);
    if (rc == 0)
        digest_file(s->ca_sha256, s->config->certificate);
    if (rc == 0 && access(s->config->module, R_OK))
        rc = err_set(err, ERR_field_value,
                     "[token] module %s: %s; give the path of the PKCS#11 module",
                     s->config->module, strerror(errno));
    return rc;
}

/* ---- what is another now ---- */

static int differ(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static int token_differs(const struct config *a, const struct config *b)
{
    if (differ(a->module, b->module) || differ(a->init_args, b->init_args) ||
        differ(a->token_label, b->token_label) || differ(a->key_label, b->key_label) ||
        differ(a->pin_file, b->pin_file) || differ(a->token_sandbox, b->token_sandbox) ||
        differ(a->custody_exception, b->custody_exception) ||
        !bytes_equal(buf_view(&a->key_id), buf_view(&b->key_id)) ||
        differ(a->ocsp_key_label, b->ocsp_key_label) ||
        differ(a->ocsp_custody_exception, b->ocsp_custody_exception) ||
        !bytes_equal(buf_view(&a->ocsp_key_id), buf_view(&b->ocsp_key_id)))
        return 1;
    size_t i = 0;
    while (a->env[i] && b->env[i] && strcmp(a->env[i], b->env[i]) == 0)
        i++;
    return a->env[i] || b->env[i];
}

/* ---- the new one, whole, beside the old ---- */

/* A socket of the old one goes on where the address is the same: nobody who connects is refused. */
static int take_socket(int *socket, int old_socket, const char *was, const char *is,
                       struct err *err)
{
    char text[80];
    *socket = old_socket;
    if (!differ(was, is))
        return 0;
    *socket = strcmp(is, "none") == 0 ? -1 : listen_on(is, text, err);
    if (*socket >= 0)
        log_info("listening on %s too", text);
    return *socket >= 0 || strcmp(is, "none") == 0 ? 0 : -1;
}

static int prepare(struct supervisor *fresh, const struct supervisor *old, struct err *err)
{
    if (load_config(fresh, err))
        return -1;
    if (differ(fresh->config->state, old->config->state))
        return err_set(err, ERR_field_value, "[server] state is another; that takes a restart");
    if (differ(fresh->config->user, old->config->user))
        return err_set(err, ERR_field_value, "[server] user is another; that takes a restart");
    if (differ(fresh->config->certificate, old->config->certificate) ||
        differ(fresh->config->chain, old->config->chain))
        return err_set(err, ERR_field_value,
                       "[ca] certificate or chain is another file; that takes a restart");
    if (child_check_authority(fresh, err))
        return -1;
    fresh->signers = calloc(fresh->config->signers, sizeof *fresh->signers);
    fresh->fronts = calloc(fresh->config->fronts, sizeof *fresh->fronts);
    if (!fresh->signers || !fresh->fronts)
        return err_set(err, ERR_internal, "no memory");
    if (memcmp(fresh->ca_sha256, old->ca_sha256, 32) != 0)
        return err_set(err, ERR_field_value,
                       "[ca] certificate is another one now; that takes a restart");
    if (token_differs(old->config, fresh->config) && old->pin_unrecorded)
        return err_set(err, ERR_token_unavailable,
                       "the token refused the PIN; correct it, then run: signetctl pin retry");
    if (token_differs(old->config, fresh->config) &&
        (pin_was_refused(old->config, err) || pin_get(&fresh->pin, fresh->config, err)))
        return -1;
    return take_socket(&fresh->tls_socket, old->tls_socket, old->config->listen,
                       fresh->config->listen, err) ||
                   take_socket(&fresh->http_socket, old->http_socket, old->config->http_listen,
                               fresh->config->http_listen, err)
               ? -1
               : 0;
}

static void discard(struct supervisor *fresh, const struct supervisor *old)
{
    if (fresh->tls_socket >= 0 && fresh->tls_socket != old->tls_socket)
        close(fresh->tls_socket);
    if (fresh->http_socket >= 0 && fresh->http_socket != old->http_socket)
        close(fresh->http_socket);
    if (fresh->config_fd >= 0)
        close(fresh->config_fd);
    secret_free(fresh->pin);
    free(fresh->signers);
    free(fresh->fronts);
    config_free(fresh->config);
}

/* ---- the exchange ---- */

/* Signers go on, unless the token is reached otherwise now, or fewer are wanted. */
static void hand_over_signers(struct supervisor *s, const struct config *was, struct slot *slots)
{
    int anew = token_differs(was, s->config);
    for (unsigned i = 0; i < was->signers; i++) {
        struct child *c = s->signers[i].child;
        int keeps = !anew && i < s->config->signers;
        if (keeps)
            slots[i] = s->signers[i];
        if (c)
            c->slot = keeps ? &slots[i] : NULL;
        if (c && !keeps)
            end_child(c);
    }
}

static void hand_over_fronts(struct supervisor *s)
{
    struct child *c;
    LIST_FOREACH (c, &s->children, next)
        if (c->role == PROC_FRONT) {
            c->retiring = 1;
            c->slot = NULL;
        }
}

static void exchange(struct supervisor *s, struct supervisor *fresh)
{
    struct msg_reload m = {0};
    struct supervisor old = *s;
    s->config = fresh->config;
    s->config_fd = fresh->config_fd;
    s->tls_socket = fresh->tls_socket;
    s->http_socket = fresh->http_socket;
    if (fresh->pin) {
        s->pin = fresh->pin; /* the old one goes with the rest of the old */
    } else {
        old.pin = NULL;
    }
    memcpy(s->ca_sha256, fresh->ca_sha256, 32);
    hand_over_signers(s, old.config, fresh->signers);
    hand_over_fronts(s);
    s->signers = fresh->signers;
    s->fronts = fresh->fronts;
    if (s->authority && s->authority->channel)
        channel_send(s->authority->channel, MSG_reload, 0, &m, s->config_fd);
    discard(&old, s);
}

void reload(struct supervisor *s)
{
    struct supervisor fresh = {
        .config_path = s->config_path, .config_fd = -1, .tls_socket = -1, .http_socket = -1};
    struct err err;
    if (s->phase != RUNNING) {
        log_warn("SIGHUP comes while signetd starts or stops; send it again");
        return;
    }
    if (prepare(&fresh, s, &err)) {
        log_error("SIGHUP: %s; nothing is changed", err.text);
        discard(&fresh, s);
        return;
    }
    exchange(s, &fresh);
    log_info("SIGHUP: %s is read; new fronts take over", s->config_path);
}
