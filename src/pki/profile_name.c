#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

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
