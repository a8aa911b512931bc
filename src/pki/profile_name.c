#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "pki/mac.h"
#include "pki/profile_parts.h"

#define NAME_MAX_LEN 64 /* ub-common-name */
#define DIGITS "0123456789"
#define ALNUM DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

int name_is_address(const char *name)
{
    unsigned char address[16];
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

int name_is_host(const char *name)
{
    size_t len = strlen(name);
    if (len == 0 || len > 253)
        return 0;
    for (;;) {
        size_t label = strspn(name, ALNUM "-");
        if (label == 0 || label > 63 || name[0] == '-' || name[label - 1] == '-')
            return 0;
        if (name[label] == '\0') /* all digits: somebody's idea of an address */
            return strspn(name, DIGITS) < label;
        if (name[label] != '.')
            return 0;
        name += label + 1;
    }
}

static int name_is_label(const char *name)
{
    return *name && !name[strspn(name, ALNUM "._@-")];
}

int profile_check_name(const struct profile *p, const char *name, struct err *err)
{
    if (p->name_kind == NAME_MAC)
        return mac_check(name, err);
    if (strlen(name) > NAME_MAX_LEN)
        return err_set(err, ERR_csr_cn_invalid, "the name is longer than 64 characters");
    if (p->name_kind == NAME_HOSTNAME && !name_is_host(name) && !name_is_address(name))
        return err_set(err, ERR_csr_cn_invalid, "\"%s\" is neither a host name nor an IP address",
                       name);
    if (p->name_kind == NAME_LABEL && !name_is_label(name))
        return err_set(err, ERR_csr_cn_invalid,
                       "\"%s\" is not a name of 1 to 64 letters, digits and . _ @ -", name);
    return 0;
}

static const struct {
    enum role bit;
    const char *name;
} roles[] = {{ROLE_PROVISIONER, "provisioner"},
             {ROLE_REVOKER, "revoker"},
             {ROLE_ADMIN, "admin"},
             {ROLE_AUDITOR, "auditor"}};

static unsigned role_parse(const char *name)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(name, roles[i].name))
            return roles[i].bit;
    return 0;
}

unsigned roles_parse(const char *text, struct err *err)
{
    char copy[128], *rest = copy, *item;
    unsigned bits = 0;
    snprintf(copy, sizeof copy, "%s", text);
    while ((item = strsep(&rest, ","))) {
        item += strspn(item, " \t");
        item[strcspn(item, " \t")] = '\0';
        unsigned bit = role_parse(item);
        if (!bit) {
            err_set(err, ERR_field_value,
                    "\"%s\" is not a role; the roles are provisioner, revoker, admin, auditor",
                    item);
            return 0;
        }
        bits |= bit;
    }
    return bits;
}

void roles_text(char *out, size_t size, unsigned bits)
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (bits & roles[i].bit && len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%s", len ? "," : "", roles[i].name);
}

/* ---- names that a CSR asks for ---- */

struct range {
    int family;
    unsigned char address[16];
    unsigned bits;
};

/* "10.0.0.0/8", "2001:db8::/32", "192.0.2.1". */
static int parse_range(struct range *r, const char *text)
{
    char copy[64];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (len >= sizeof copy)
        return -1;
    memcpy(copy, text, len);
    copy[len] = '\0';
    r->family = strchr(copy, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(r->family, copy, r->address) != 1)
        return -1;
    unsigned most = r->family == AF_INET ? 32 : 128;
    char *end = NULL;
    unsigned long bits =
        slash && slash[1] >= '0' && slash[1] <= '9' ? strtoul(slash + 1, &end, 10) : most;
    if (bits > most || (slash && (!end || *end)))
        return -1;
    r->bits = (unsigned)bits;
    return 0;
}

static int in_range(const char *address, const struct range *r)
{
    unsigned char a[16];
    if (inet_pton(r->family, address, a) != 1)
        return 0;
    unsigned whole = r->bits / 8, rest = r->bits % 8;
    if (memcmp(a, r->address, whole) != 0)
        return 0;
    return rest == 0 || ((a[whole] ^ r->address[whole]) >> (8 - rest)) == 0;
}

/* ".example.com": everything below it; "mqtt.example.com": itself. */
static int host_fits(const char *host, const char *pattern)
{
    size_t h = strlen(host), p = strlen(pattern);
    if (*pattern == '.')
        return h > p && strcasecmp(host + h - p, pattern) == 0;
    return strcasecmp(host, pattern) == 0;
}

static int name_fits(const char *name, const char *pattern)
{
    struct range r;
    if (strncmp(name, "IP:", 3) == 0)
        return parse_range(&r, pattern) == 0 && in_range(name + 3, &r);
    return host_fits(name + 4, pattern);
}

int profile_check_allow_list(const char *text, struct err *err)
{
    char copy[1024], *rest = copy, *item;
    struct range r;
    if (strlen(text) >= sizeof copy)
        return err_set(err, ERR_field_value, "the list is longer than %zu", sizeof copy - 1);
    memcpy(copy, text, strlen(text) + 1);
    while ((item = strsep(&rest, ", \t")))
        if (*item && parse_range(&r, item) && !name_is_host(item + (*item == '.')))
            return err_set(err, ERR_field_value,
                           "\"%s\" is no host name, .domain, address or range", item);
    return 0;
}

static int on_allow_list(const struct profile *p, const char *name)
{
    char copy[1024], *rest = copy, *item;
    snprintf(copy, sizeof copy, "%s", p->allowed_names ? p->allowed_names : "");
    while ((item = strsep(&rest, ", \t")))
        if (*item && name_fits(name, item))
            return 1;
    return 0;
}

int profile_check_names(const struct profile *p, const char *const *names, struct err *err)
{
    for (; *names; names++) {
        int dns = strncmp(*names, "DNS:", 4) == 0, ip = strncmp(*names, "IP:", 3) == 0;
        if ((dns && !name_is_host(*names + 4)) || (ip && !name_is_address(*names + 3)) ||
            (!dns && !ip))
            return err_set(err, ERR_name_not_allowed, "\"%s\" is no host name or IP address",
                           *names);
        if (!on_allow_list(p, *names))
            return err_set(err, ERR_name_not_allowed,
                           "profile %s does not allow %s; add it to allowed_names", p->name,
                           *names);
    }
    return 0;
}
