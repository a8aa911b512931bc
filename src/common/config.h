/* The server's configuration: one file in OpenSSL's CONF syntax (config(5ssl)), read once by the
 * supervisor. Its bytes go to each child in a sealed memfd, so all roles act on exactly the file
 * that was checked. `.include` and unknown keys are refused. docs/configuration.md lists the keys.
 */
#ifndef SIGNET_CONFIG_H
#define SIGNET_CONFIG_H

#include <openssl/conf.h>
#include "common/bytes.h"
#include "common/err.h"

#define CONFIG_DEFAULT_PATH "/etc/signet/signet.conf"
#define CONFIG_SIZE_MAX (256 * 1024)
#define CONFIG_ENV_MAX 32

struct config {
    CONF *conf;        /* for the profiles */
    char *text, *path; /* what was parsed, for messages */

    /* [server] */
    char *state;       /* folder; required */
    char *listen;      /* "address:port" of HTTPS; default 127.0.0.1:8443 */
    char *http_listen; /* of plain HTTP (CRL, CA); default 127.0.0.1:8080; "none": off */
    char **names;     /* SANs of the listener's certificate: "DNS:…", "IP:…"; NULL-terminated */
    char *public_url; /* "http://host:port" for CDP and AIA; may be NULL */
    unsigned fronts;  /* default 2 */
    unsigned credits; /* requests in flight for each front; default 64 */
    char *user;       /* that signetd becomes when root started it; NULL: it stays what it is */
    char *admin_group;       /* may be NULL: root and the server's own user only */
    char *certificate_files; /* "on" (default) or "off": no file for each certificate */

    /* [token] */
    char *module, *init_args, *token_label, *key_label;
    struct buf key_id;
    char *pin_file;            /* NULL: the systemd credential "pin", or a prompt */
    char *token_sandbox;       /* "on" (default) or "off": the module may start programs */
    unsigned signers;          /* default 2 */
    unsigned sign_deadline_ms; /* default 10000 */
    char *env[CONFIG_ENV_MAX]; /* "NAME=value" for the module, from env.NAME keys; NULL-ended */
    char *custody_exception;   /* "<SPKI sha256 hex>, <reason>"; may be NULL */
    char *ocsp_key_label;      /* of the OCSP responder's key; neither it nor the id: no OCSP */
    struct buf ocsp_key_id;
    char *ocsp_custody_exception; /* as custody_exception */

    /* [caps]: at most so many an hour and in 24 hours; 0: no cap */
    struct {
        unsigned certificates_hour, certificates_day, revocations_hour, revocations_day;
    } operator_caps, all_caps; /* for each operator; for all together */

    /* [ca] */
    char *certificate;    /* the intermediate; default STATE/intermediate.pem */
    char *chain;          /* intermediate and root, PEM; default STATE/ca-chain.pem */
    unsigned crl_shards;  /* CRLs beside the full one; 1: none */
    int64_t crl_life;     /* seconds from thisUpdate to nextUpdate; default 7d, at most 10d */
    int64_t ocsp_life;    /* of an OCSP answer, likewise; default 12h, at most 7d */
    unsigned ocsp_budget; /* signatures a second for answers that only one asker can use */
};

/* Whether each certificate gets a file, STATE/certs/4f/a0/<serial>.pem. */
int config_has_files(const struct config *c);
/* Whether there is a key for an OCSP responder. */
int config_has_ocsp(const struct config *c);

/* From the file's bytes; path is for messages ("signet.conf:12: …"). */
int config_parse(struct config **out, struct bytes text, const char *path, struct err *err)
    __attribute__((warn_unused_result));
/* From an inherited descriptor (a sealed memfd). */
int config_from_fd(struct config **out, int fd, struct err *err)
    __attribute__((warn_unused_result));
/* A sealed memfd with these bytes; -1 with err set. */
int config_memfd(struct bytes text, struct err *err) __attribute__((warn_unused_result));
void config_free(struct config *c);

/* Puts "path:line: " before a text that begins "[section]: name: " or "[section]: ": a mistake in a
 * profile, found by a process that knows neither path nor lines. Others stay as they are. */
void config_locate(const struct config *c, struct err *err);

/* "90s", "5m", "12h", "7d", "2y" (365 d), plain seconds; > 0. */
int duration_parse(int64_t *seconds, const char *text, struct err *err)
    __attribute__((warn_unused_result));

/* "address:port", "[v6]:port"; port 0 is "any free one". */
int address_split(const char *text, char host[64], char port[8], struct err *err)
    __attribute__((warn_unused_result));

#endif
