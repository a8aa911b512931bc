/* The token of a signet.conf, as the signer finds it: for the ceilings. */
#ifndef SIGNET_BENCH_TOKEN_SETTINGS_H
#define SIGNET_BENCH_TOKEN_SETTINGS_H

#include "common/config.h"
#include "common/secret.h"
#include "hsm/token.h"

struct token_settings {
    struct config *config;
    struct issuer *issuer;
    struct secret *pin;
};

/* Reads all three and sets the module's environment; ends the program on failure. */
void token_settings_read(struct token_settings *s, const char *path);
struct token *token_settings_open(const struct token_settings *s);
void token_settings_free(struct token_settings *s);

#endif
