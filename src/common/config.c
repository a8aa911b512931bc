#include "common/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"

enum value_kind { TEXT, NUMBER, MILLISECONDS, SECONDS, HEX, NAMES };

#define MANY 1000000000
#define PUBLIC_URL_MAX 500 /* where the store keeps it */

/* Every key: where it goes, and what it may be. */
static const struct key {
    const char *section, *name;
    enum value_kind kind;
    size_t offset;
    const char *standard; /* NULL: none */
    int64_t least, most;  /* of numbers and times */
} keys[] = {
#define AT(field) offsetof(struct config, field)
    {"server", "state", TEXT, AT(state), NULL, 0, 0},
    {"server", "listen", TEXT, AT(listen), "127.0.0.1:8443", 0, 0},
    {"server", "http_listen", TEXT, AT(http_listen), "127.0.0.1:8080", 0, 0},
    {"server", "names", NAMES, AT(names), "localhost, 127.0.0.1", 0, 0},
    {"server", "public_url", TEXT, AT(public_url), NULL, 0, 0},
    {"server", "fronts", NUMBER, AT(fronts), "2", 1, 64},
    {"server", "credits", NUMBER, AT(credits), "64", 1, 4096},
    {"server", "user", TEXT, AT(user), NULL, 0, 0},
    {"server", "admin_group", TEXT, AT(admin_group), NULL, 0, 0},
    {"server", "certificate_files", TEXT, AT(certificate_files), "on", 0, 0},
    {"token", "module", TEXT, AT(module), NULL, 0, 0},
    {"token", "init_args", TEXT, AT(init_args), NULL, 0, 0},
    {"token", "label", TEXT, AT(token_label), NULL, 0, 0},
    {"token", "key_label", TEXT, AT(key_label), NULL, 0, 0},
    {"token", "key_id", HEX, AT(key_id), NULL, 0, 0},
    {"token", "pin_file", TEXT, AT(pin_file), NULL, 0, 0},
    {"token", "sandbox", TEXT, AT(token_sandbox), "on", 0, 0},
    {"token", "signers", NUMBER, AT(signers), "2", 1, 64},
    {"token", "sign_deadline", MILLISECONDS, AT(sign_deadline_ms), "10s", 1, 600},
    {"token", "custody_exception", TEXT, AT(custody_exception), NULL, 0, 0},
    {"token", "ocsp_key_label", TEXT, AT(ocsp_key_label), NULL, 0, 0},
    {"token", "ocsp_key_id", HEX, AT(ocsp_key_id), NULL, 0, 0},
    {"token", "ocsp_custody_exception", TEXT, AT(ocsp_custody_exception), NULL, 0, 0},
    {"ca", "certificate", TEXT, AT(certificate), NULL, 0, 0},
    {"ca", "chain", TEXT, AT(chain), NULL, 0, 0},
    {"ca", "crl_shards", NUMBER, AT(crl_shards), "1", 1, 64},
    {"ca", "crl_life", SECONDS, AT(crl_life), "7d", 60, 10 * 86400},
    {"ca", "ocsp_life", SECONDS, AT(ocsp_life), "12h", 60, 7 * 86400},
    {"ca", "ocsp_budget", NUMBER, AT(ocsp_budget), "20", 1, 100000},
    {"caps", "operator_certificates_hour", NUMBER, AT(operator_caps.certificates_hour), "50000", 0,
     MANY},
    {"caps", "operator_certificates_day", NUMBER, AT(operator_caps.certificates_day), "200000", 0,
     MANY},
    {"caps", "operator_revocations_hour", NUMBER, AT(operator_caps.revocations_hour), "50000", 0,
     MANY},
    {"caps", "operator_revocations_day", NUMBER, AT(operator_caps.revocations_day), "200000", 0,
     MANY},
    {"caps", "certificates_hour", NUMBER, AT(all_caps.certificates_hour), "200000", 0, MANY},
    {"caps", "certificates_day", NUMBER, AT(all_caps.certificates_day), "1000000", 0, MANY},
    {"caps", "revocations_hour", NUMBER, AT(all_caps.revocations_hour), "200000", 0, MANY},
    {"caps", "revocations_day", NUMBER, AT(all_caps.revocations_day), "1000000", 0, MANY},
#undef AT
};

/* The line of "name = …" in "[section]", or of the section itself (name NULL), for messages; 0 when
 * not found. */
static int line_of(const char *text, const char *section, const char *name)
{
    int line = 1, inside = 0;
    size_t section_len = strlen(section), name_len = name ? strlen(name) : 0;
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : p, line++) {
        p += strspn(p, " \t");
        if (*p == '[') {
            const char *s = p + 1 + strspn(p + 1, " \t");
            inside = strncmp(s, section, section_len) == 0 &&
                     s[section_len + strspn(s + section_len, " \t")] == ']';
            if (inside && !name)
                return line;
        } else if (inside && name && strncmp(p, name, name_len) == 0 &&
                   p[name_len + strspn(p + name_len, " \t")] == '=') {
            return line;
        }
    }
    return 0;
}

static int refuse(const char *text, const char *path, const char *section, const char *name,
                  const char *why, struct err *err)
{
    int line = line_of(text, section, name);
    if (line)
        return err_set(err, ERR_field_value, "%s:%d: [%s] %s: %s", path, line, section, name, why);
    return err_set(err, ERR_field_value, "%s: [%s] %s: %s", path, section, name, why);
}

int duration_parse(int64_t *seconds, const char *text, struct err *err)
{
    char *end;
    errno = 0;
    long long n = isdigit((unsigned char)*text) ? strtoll(text, &end, 10) : 0;
    static const struct {
        const char *unit;
        int64_t seconds;
    } units[] = {{"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"y", 365 * 86400}};
    if (n > 0 && errno == 0)
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
            if (strcmp(end, units[i].unit) == 0 && n <= INT64_MAX / (366 * 86400)) {
                *seconds = n * units[i].seconds;
                return 0;
            }
    return err_set(err, ERR_field_value, "\"%s\" is not a time such as 90s, 5m, 12h, 7d or 2y",
                   text);
}

static int number_parse(int64_t *out, const char *text, struct err *err)
{
    char *end;
    errno = 0;
    long long n = isdigit((unsigned char)*text) ? strtoll(text, &end, 10) : -1;
    if (n < 0 || errno || *end)
        return err_set(err, ERR_field_value, "\"%s\" is not a number", text);
    *out = n;
    return 0;
}

static int is_ip(const char *text)
{
    unsigned char room[16];
    return inet_pton(AF_INET, text, room) == 1 || inet_pton(AF_INET6, text, room) == 1;
}

/* "localhost, 10.0.0.5" to {"DNS:localhost", "IP:10.0.0.5", NULL}. */
static int names_parse(char ***out, const char *text, struct err *err)
{
    char *copy = strdup(text), *rest = NULL;
    char **names = calloc(strlen(text) / 2 + 2, sizeof *names);
    size_t n = 0;
    if (!copy || !names)
        goto memory;
    for (char *w = strtok_r(copy, ", \t", &rest); w; w = strtok_r(NULL, ", \t", &rest), n++)
        if (asprintf(&names[n], "%s:%s", is_ip(w) ? "IP" : "DNS", w) < 0)
            goto memory;
    free(copy);
    *out = names;
    return n ? 0 : err_set(err, ERR_field_value, "at least one name is needed");
memory:
    free(copy);
    for (size_t i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
    return err_set(err, ERR_internal, "no memory");
}

static int set_hex(struct buf *out, const char *text, struct err *err)
{
    uint8_t bytes[255];
    size_t len;
    if (hex_decode(bytes, sizeof bytes, &len, text) || len == 0)
        return err_set(err, ERR_field_value, "\"%s\" is not hex, as in 01 or a1b2", text);
    out->len = 0;
    return buf_add(out, bytes, len) ? err_set(err, ERR_internal, "no memory") : 0;
}

static int set_number(struct config *c, const struct key *k, const char *text, struct err *err)
{
    int64_t n = 0;
    if ((k->kind == NUMBER ? number_parse : duration_parse)(&n, text, err))
        return -1;
    if (n < k->least || n > k->most)
        return err_set(err, ERR_field_value, "%s is not within %lld to %lld", text,
                       (long long)k->least, (long long)k->most);
    void *at = (char *)c + k->offset;
    if (k->kind == SECONDS)
        *(int64_t *)at = n;
    else
        *(unsigned *)at = (unsigned)(k->kind == MILLISECONDS ? n * 1000 : n);
    return 0;
}

static int set_key(struct config *c, const struct key *k, const char *text, struct err *err)
{
    void *at = (char *)c + k->offset;
    switch (k->kind) {
    case TEXT:
        *(char **)at = strdup(text);
        return *(char **)at ? 0 : err_set(err, ERR_internal, "no memory");
    case HEX:
        return set_hex(at, text, err);
    case NAMES:
        return names_parse(at, text, err);
    case NUMBER:
    case MILLISECONDS:
    case SECONDS:
        return set_number(c, k, text, err);
    }
    return -1;
}

static int read_keys(struct config *c, const char *text, const char *path, struct err *err)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const struct key *k = &keys[i];
        const char *value = NCONF_get_string(c->conf, k->section, k->name);
        ERR_clear_error(); /* a key that is not there is no error */
        if (!value || (k->kind == TEXT && !*value))
            value = k->standard;
        struct err why;
        if (value && set_key(c, k, value, &why))
            return refuse(text, path, k->section, k->name, why.text, err);
    }
    return 0;
}

static const struct key *find_key(const char *section, const char *name)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].section, section) == 0 && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static int add_env(struct config *c, const char *name, const char *value, struct err *err)
{
    size_t n = 0;
    while (c->env[n])
        n++;
    if (n == CONFIG_ENV_MAX - 1)
        return err_set(err, ERR_field_value, "more than %d variables", CONFIG_ENV_MAX - 1);
    if (asprintf(&c->env[n], "%s=%s", name, value) < 0) {
        c->env[n] = NULL;
        return err_set(err, ERR_internal, "no memory");
    }
    return 0;
}

/* Unknown keys of our sections are mistakes; env.NAME of [token] is taken along. */
static int check_section(struct config *c, const char *section, const char *text, const char *path,
                         struct err *err)
{
    STACK_OF(CONF_VALUE) *values = NCONF_get_section(c->conf, section);
    for (int i = 0; i < sk_CONF_VALUE_num(values); i++) {
        const CONF_VALUE *v = sk_CONF_VALUE_value(values, i);
        struct err why;
        if (strcmp(section, "token") == 0 && strncmp(v->name, "env.", 4) == 0 && v->name[4]) {
            if (add_env(c, v->name + 4, v->value, &why))
                return refuse(text, path, section, v->name, why.text, err);
        } else if (!find_key(section, v->name)) {
            return refuse(text, path, section, v->name, "there is no such key", err);
        }
    }
    return 0;
}

static int default_path(char **at, const char *state, const char *name, struct err *err)
{
    if (*at)
        return 0;
    if (asprintf(at, "%s/%s", state, name) < 0) {
        *at = NULL;
        return err_set(err, ERR_internal, "no memory");
    }
    return 0;
}

static int check_address(const char *text, const char *path, const char *name, const char *value,
                         struct err *err)
{
    char host[64], port[8];
    struct err why;
    if (address_split(value, host, port, &why))
        return refuse(text, path, "server", name, why.text, err);
    return 0;
}

static int is_switch(const char *value)
{
    return strcmp(value, "on") == 0 || strcmp(value, "off") == 0;
}

static int check_whole(struct config *c, const char *text, const char *path, struct err *err)
{
    static const char needed[] = "it is required and missing", on_or_off[] = "it is on or off";
    if (!c->state)
        return refuse(text, path, "server", "state", needed, err);
    if (!c->module)
        return refuse(text, path, "token", "module", needed, err);
    if (!c->token_label)
        return refuse(text, path, "token", "label", needed, err);
    if (!c->key_label && c->key_id.len == 0)
        return refuse(text, path, "token", "key_label", "it or key_id is required", err);
    if (!is_switch(c->token_sandbox))
        return refuse(text, path, "token", "sandbox", on_or_off, err);
    if (!is_switch(c->certificate_files))
        return refuse(text, path, "server", "certificate_files", on_or_off, err);
    if (check_address(text, path, "listen", c->listen, err))
        return -1;
    if (strcmp(c->http_listen, "none") != 0 &&
        check_address(text, path, "http_listen", c->http_listen, err))
        return -1;
    if (c->public_url && strncmp(c->public_url, "http://", 7) != 0)
        return refuse(text, path, "server", "public_url",
                      "it must begin with http:// (RFC 5280 section 8: fetching a CRL by HTTPS "
                      "would need the CRL)",
                      err);
    if (c->crl_shards > 1 && (!c->public_url || strlen(c->public_url) > PUBLIC_URL_MAX))
        return refuse(
            text, path, "ca", "crl_shards",
            "it needs a [server] public_url, of 500 characters at the most: a certificate "
            "names its shard by a URL",
            err);
    size_t n = c->public_url ? strlen(c->public_url) : 0;
    if (n && c->public_url[n - 1] == '/')
        c->public_url[n - 1] = '\0';
    return default_path(&c->certificate, c->state, "intermediate.pem", err) ||
                   default_path(&c->chain, c->state, "ca-chain.pem", err)
               ? -1
               : 0;
}

/* Whether p spells word, as NCONF reads it: a backslash and a line end are nothing. */
static int spells(const char *p, const char *word)
{
    for (; *word; word++) {
        while (*p == '\\' && (p[1] == '\r' || p[1] == '\n'))
            p += 1 + strspn(p + 1, "\r\n");
        if (*p++ != *word)
            return 0;
    }
    return 1;
}

/* .include would bring bytes that nobody checked. NCONF takes it behind a byte order mark, behind a
 * section's name and over several lines, so it is refused wherever it stands. */
static int refuse_include(const char *text, const char *path, struct err *err)
{
    int line = 1;
    for (const char *p = text; *p; line += *p++ == '\n')
        if (spells(p, ".include"))
            return err_set(err, ERR_field_value,
                           "%s:%d: .include is not supported here, not even in a comment", path,
                           line);
    return 0;
}

static int load(struct config *c, const char *text, const char *path, struct err *err)
{
    long line = -1;
    BIO *in = BIO_new_mem_buf(text, -1);
    c->conf = NCONF_new(NULL);
    int ok = in && c->conf && NCONF_load_bio(c->conf, in, &line) > 0;
    BIO_free(in);
    if (ok)
        return 0;
    return err_set(err, ERR_field_value, "%s:%ld: not in OpenSSL's configuration syntax: %s", path,
                   line, err_openssl());
}

int config_parse(struct config **out, struct bytes in, const char *path, struct err *err)
{
    struct config *c = calloc(1, sizeof *c);
    char *text = in.len <= CONFIG_SIZE_MAX ? calloc(1, in.len + 1) : NULL;
    int rc = -1;
    if (!c || !text) {
        err_set(err, ERR_internal, "%s: too large, or no memory", path);
        goto out;
    }
    if (in.len)
        memcpy(text, in.data, in.len);
    if (strlen(text) != in.len) {
        err_set(err, ERR_field_value, "%s: it holds a NUL character", path);
        goto out;
    }
    static const char *const sections[] = {"server", "token", "ca", "caps"};
    if (refuse_include(text, path, err) || load(c, text, path, err))
        goto out;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (check_section(c, sections[i], text, path, err))
            goto out;
    ERR_clear_error();
    if (read_keys(c, text, path, err) || check_whole(c, text, path, err))
        goto out;
    if (!(c->path = strdup(path))) {
        err_set(err, ERR_internal, "no memory");
        goto out;
    }
    rc = 0;
    c->text = text;
    *out = c;
    c = NULL;
    text = NULL;
out:
    config_free(c);
    free(text);
    return rc;
}

int config_from_fd(struct config **out, int fd, struct err *err)
{
    char path[64];
    struct buf text;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (file_read(&text, path, CONFIG_SIZE_MAX, err))
        return err_prefix(err, "the configuration from the supervisor");
    int rc = config_parse(out, buf_view(&text), "the configuration", err);
    buf_free(&text);
    return rc;
}

int config_memfd(struct bytes text, struct err *err)
{
    int fd = memfd_create("signet.conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, text.data, text.len) != (ssize_t)text.len ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)) {
        if (fd >= 0)
            close(fd);
        return err_set(err, ERR_internal, "cannot keep the configuration in memory: %s",
                       strerror(errno));
    }
    return fd;
}

int config_has_files(const struct config *c)
{
    return strcmp(c->certificate_files, "on") == 0;
}

int config_has_ocsp(const struct config *c)
{
    return c->ocsp_key_label || c->ocsp_key_id.len;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].kind == TEXT)
            free(*(char **)((char *)c + keys[i].offset));
    for (size_t i = 0; c->names && c->names[i]; i++)
        free(c->names[i]);
    free(c->names);
    for (size_t i = 0; c->env[i]; i++)
        free(c->env[i]);
    buf_free(&c->key_id);
    buf_free(&c->ocsp_key_id);
    NCONF_free(c->conf);
    free(c->text);
    free(c->path);
    free(c);
}

void config_locate(const struct config *c, struct err *err)
{
    char section[64], name[64] = "";
    if (sscanf(err->text, "[%63[^]]]: %63[A-Za-z0-9_.]:", section, name) < 1)
        return;
    int line = line_of(c->text, section, name);
    if (line == 0)
        line = line_of(c->text, section, NULL);
    if (line)
        err_prefix(err, "%s:%d", c->path, line);
}

int address_split(const char *text, char host[64], char port[8], struct err *err)
{
    const char *colon = strrchr(text, ':'), *start = text, *end = colon;
    if (colon && *text == '[' && colon > text && colon[-1] == ']') {
        start++;
        end--;
    }
    int64_t number = 0;
    if (!colon || start >= end || end - start >= 64 || start + strcspn(start, "[]") < end ||
        number_parse(&number, colon + 1, NULL) || number > 65535)
        return err_set(err, ERR_field_value, "\"%s\" is not address:port, as in 0.0.0.0:8443",
                       text);
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    snprintf(port, 8, "%d", (int)number);
    return 0;
}
