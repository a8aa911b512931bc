#include "client/settings.h"

#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <openssl/bio.h>
#include <openssl/conf.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file.h"

#define CONFIG_MAX (256 * 1024)

char *path_join(const char *folder, const char *name)
{
    char *path;
    if (*name == '/')
        return strdup(name);
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

char *path_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static char *default_file(struct failure *f)
{
    const char *home = getenv("HOME");
    if (!home || !*home) {
        const struct passwd *user = getpwuid(geteuid());
        home = user ? user->pw_dir : NULL;
    }
    char *path = home ? path_join(home, ".config/signet/signet.conf") : NULL;
    if (!path)
        fail(f, EXIT_LOCAL, "config", "no home folder to find the config file in; give --config");
    return path;
}

/* One setting: the flag, else the file's value. Paths in the file are relative to its folder. */
static int choose(char **out, const char *flag, const CONF *conf, const char *name,
                  const char *folder, struct failure *f)
{
    const char *value = flag;
    if (!value && conf)
        value = NCONF_get_string(conf, "client", name);
    if (!value || !*value)
        return 0;
    *out = flag || !folder ? strdup(value) : path_join(folder, value);
    return *out ? 0 : fail_memory(f);
}

static int choose_seconds(long *ms, const char *flag, const CONF *conf, const char *name,
                          long otherwise, struct failure *f)
{
    char *text = NULL, *end = NULL;
    if (choose(&text, flag, conf, name, NULL, f))
        return -1;
    *ms = otherwise;
    if (!text)
        return 0;
    double seconds = strtod(text, &end);
    int good =
        end != text && *end == '\0' && isfinite(seconds) && seconds >= 0.001 && seconds <= 86400;
    if (good)
        *ms = (long)(seconds * 1000);
    else
        fail(f, EXIT_USAGE, "usage", "%s \"%s\" is not a number of seconds above 0, such as 5",
             name, text);
    free(text);
    return good ? 0 : -1;
}

/* A misspelt key would silently mean its default: refuse it. */
static int check_keys(const CONF *conf, const char *path, struct failure *f)
{
    static const char *const known[] = {
        "server", "ca", "cert", "key", "out", "key_type", "esptool", "connect_timeout", "timeout"};
    STACK_OF(CONF_VALUE) *section = NCONF_get_section(conf, "client");
    if (sk_CONF_VALUE_num(NCONF_get_section(conf, "default")) > 0)
        return fail(f, EXIT_LOCAL, "config", "%s: settings stand under [client]", path);
    for (int i = 0; i < sk_CONF_VALUE_num(section); i++) {
        const char *name = sk_CONF_VALUE_value(section, i)->name;
        size_t k = 0;
        while (k < sizeof known / sizeof known[0] && strcmp(name, known[k]) != 0)
            k++;
        if (k == sizeof known / sizeof known[0])
            return fail(f, EXIT_LOCAL, "config",
                        "%s: [client] \"%s\" is not a setting; see CONFIGURATION in man signet",
                        path, name);
    }
    return 0;
}

static int parse_file(CONF **out, const char *path, struct bytes text, struct failure *f)
{
    long line = 0;
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    *out = NCONF_new(NULL);
    int rc = -1;
    if (!bio || !*out)
        fail_memory(f);
    else if (NCONF_load_bio(*out, bio, &line) != 1)
        fail(f, EXIT_LOCAL, "config", "%s: line %ld is not \"name = value\"", path, line);
    else
        rc = check_keys(*out, path, f);
    BIO_free(bio);
    return rc;
}

/* *out stays NULL when the file is not there and nobody named it. */
static int read_file(CONF **out, const char *path, int named, struct failure *f)
{
    struct buf text = {0};
    struct err err;
    if (access(path, F_OK) && errno == ENOENT && !named)
        return 0;
    if (file_read(&text, path, CONFIG_MAX, &err))
        return fail_err(f, EXIT_LOCAL, &err);
    int rc = parse_file(out, path, buf_view(&text), f);
    buf_free(&text);
    return rc;
}

/* "https://host:port" and nothing else: what is left out cannot be misread. */
static int check_server(const char *url, struct failure *f)
{
    char *host = NULL, *path = NULL, *rest = NULL;
    CURLU *u = curl_url();
    int good = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
               strncasecmp(url, "https://", 8) == 0 &&
               curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host &&
               curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0;
    static const CURLUPart none[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                     CURLUPART_FRAGMENT};
    for (size_t i = 0; i < sizeof none / sizeof none[0] && good; i++)
        good = curl_url_get(u, none[i], &rest, 0) != CURLUE_OK;
    curl_free(rest);
    curl_free(path);
    curl_free(host);
    curl_url_cleanup(u);
    return good ? 0
                : fail(f, EXIT_USAGE, "usage", "server \"%s\" is not of the form https://host:port",
                       url);
}

static int choose_all(struct settings *s, const struct options *o, const CONF *conf,
                      const char *folder, struct failure *f)
{
    if (choose(&s->server, o->server, conf, "server", NULL, f) ||
        choose(&s->ca, o->ca, conf, "ca", folder, f) ||
        choose(&s->cert, o->cert, conf, "cert", folder, f) ||
        choose(&s->key, o->key, conf, "key", folder, f) ||
        choose(&s->out, o->out, conf, "out", folder, f) ||
        choose(&s->key_type, o->key_type, conf, "key_type", NULL, f) ||
        choose(&s->esptool, o->esptool, conf, "esptool", NULL, f) ||
        choose_seconds(&s->connect_timeout_ms, o->connect_timeout, conf, "connect_timeout", 5000,
                       f) ||
        choose_seconds(&s->timeout_ms, o->timeout, conf, "timeout", 30000, f))
        return -1;
    if (!s->server)
        return 0;
    size_t len = strlen(s->server); /* "https://host:port/" means the same */
    if (len && s->server[len - 1] == '/')
        s->server[len - 1] = '\0';
    return check_server(s->server, f);
}

int settings_load(struct settings *s, const struct options *o, struct failure *f)
{
    const char *named = o->config ? o->config : getenv("SIGNET_CONFIG");
    if (named && !*named)
        named = NULL;
    s->file = named ? strdup(named) : default_file(f);
    if (!s->file)
        return named ? fail_memory(f) : -1;
    CONF *conf = NULL;
    char *folder = path_folder(s->file);
    /* init --server makes the file: what is there already is not read */
    int making = o->ca_fingerprint != NULL;
    int rc = folder ? 0 : fail_memory(f);
    if (rc == 0 && !making)
        rc = read_file(&conf, s->file, named != NULL, f);
    if (rc == 0)
        rc = choose_all(s, o, conf, folder, f);
    free(folder);
    NCONF_free(conf);
    return rc;
}

void settings_free(struct settings *s)
{
    free(s->file);
    free(s->server);
    free(s->ca);
    free(s->cert);
    free(s->key);
    free(s->out);
    free(s->key_type);
    free(s->esptool);
    *s = (struct settings){0};
}

int settings_need(const char *value, const char *name, const struct settings *s, struct failure *f)
{
    if (value)
        return 0;
    return fail(f, EXIT_USAGE, "usage", "no %s: give --%s, or set up %s once with signet init",
                name, name, s->file);
}

/* A quoted value of CONF syntax: only the quote and the backslash mean something in it. */
static int add_line(BIO *bio, const char *name, const char *value)
{
    if (BIO_printf(bio, "%s = \"", name) < 0)
        return -1;
    for (; *value; value++) {
        if ((unsigned char)*value < ' ')
            return -1;
        if ((strchr("\"\\", *value) && BIO_puts(bio, "\\") < 0) || BIO_write(bio, value, 1) != 1)
            return -1;
    }
    return BIO_puts(bio, "\"\n") < 0 ? -1 : 0;
}

int settings_write(const struct settings *s, struct failure *f)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    struct err err;
    int rc = -1;
    if (!bio ||
        BIO_puts(bio, "# the server, and who we are to it: see signet(1)\n[client]\n") < 0 ||
        add_line(bio, "server", s->server) || add_line(bio, "ca", s->ca) ||
        add_line(bio, "cert", s->cert) || add_line(bio, "key", s->key)) {
        fail(f, EXIT_LOCAL, "config", "cannot put these names into %s; choose a plainer folder",
             s->file);
        goto out;
    }
    long len = BIO_get_mem_data(bio, &text);
    rc = file_write(s->file, (struct bytes){(const uint8_t *)text, (size_t)len}, 0600, 0, &err)
             ? fail_err(f, EXIT_LOCAL, &err)
             : 0;
out:
    BIO_free(bio);
    return rc;
}
