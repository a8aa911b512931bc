#include "token_settings.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"

static _Noreturn void stop(const char *what, const struct err *err)
{
    fprintf(stderr, "%s: %s\n", what, err->text);
    exit(1);
}

void token_settings_read(struct token_settings *s, const char *path)
{
    struct err err;
    struct buf text = {0}, pem = {0};
    *s = (struct token_settings){0};
    if (file_read(&text, path, CONFIG_SIZE_MAX, &err) ||
        config_parse(&s->config, buf_view(&text), path, &err) ||
        file_read(&pem, s->config->certificate, 64 * 1024, &err) ||
        issuer_from_pem(&s->issuer, buf_view(&pem), &err) ||
        secret_from_file(&s->pin, s->config->pin_file ? s->config->pin_file : "-", &err))
        stop(path, &err);
    for (size_t i = 0; s->config->env[i]; i++)
        if (putenv(s->config->env[i]))
            abort();
    buf_free(&text);
    buf_free(&pem);
}

struct token *token_settings_open(const struct token_settings *s)
{
    struct err err;
    struct token *token;
    const struct config *c = s->config;
    struct token_config tc = {.module = c->module,
                              .init_args = c->init_args,
                              .label = c->token_label,
                              .ca = {c->key_label, buf_view(&c->key_id), c->custody_exception}};
    if (token_open(&token, &tc, s->pin, issuer_spki(s->issuer), &err))
        stop(c->module, &err);
    return token;
}

void token_settings_free(struct token_settings *s)
{
    secret_free(s->pin);
    issuer_free(s->issuer);
    config_free(s->config);
}
