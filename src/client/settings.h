/* What holds for this run: the command line over the config file over the defaults.
 *
 * The config file is in OpenSSL's CONF syntax (config(5ssl)). The client reads its section and
 * leaves others alone, so that a machine that is server and laptop has one file for both:
 *
 *     [client]
 *     server = https://ca.example:8443
 *     ca     = ca.pem              paths are relative to the config file's folder
 *     cert   = operator.pem
 *     key    = operator.key
 *     out    = /srv/devices        and key_type, esptool, connect_timeout, timeout
 */
#ifndef SIGNET_CLIENT_SETTINGS_H
#define SIGNET_CLIENT_SETTINGS_H

#include "client/options.h"

struct settings {
    char *file;   /* the config file's path, there or not */
    char *server; /* "https://host:port", checked */
    char *ca, *cert, *key;
    char *out, *key_type; /* for devices */
    char *esptool;        /* the program; NULL: in the PATH */
    long connect_timeout_ms, timeout_ms;
};

/* Start with {0}; settings_free() also after a failure. What is neither given nor in the file and
 * has no default stays NULL. */
int settings_load(struct settings *s, const struct options *o, struct failure *f)
    __attribute__((warn_unused_result));
void settings_free(struct settings *s);

/* Fails with EXIT_USAGE and the next step when a needed one is NULL. */
int settings_need(const char *value, const char *name, const struct settings *s, struct failure *f)
    __attribute__((warn_unused_result));

/* Writes the config file for init: server, ca, cert and key. It must not exist yet. */
int settings_write(const struct settings *s, struct failure *f) __attribute__((warn_unused_result));

/* "folder/name", or name itself when it is absolute; malloc()ed. NULL: no memory. */
char *path_join(const char *folder, const char *name) __attribute__((warn_unused_result));
/* The folder that path is in; malloc()ed. NULL: no memory. */
char *path_folder(const char *path) __attribute__((warn_unused_result));

#endif
