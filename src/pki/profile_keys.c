/* The keys of a profile section that are Signet's own; profile.h lists them. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/config.h"
#include "pki/profile_parts.h"

static int no_memory(struct err *err)
{
    return err_set(err, ERR_internal, "no memory");
}

static int set_operations(struct profile *p, const char *value, struct err *err)
{
    static const char *const known[] = {"req_client_cert", "req_server_cert", "renew_client_cert"};
    char *copy = strdup(value), *rest = copy, *item;
    int bad = 0;
    while (copy && !bad && (item = strsep(&rest, ", \t"))) {
        bad = *item != '\0';
        for (size_t i = 0; bad && i < sizeof known / sizeof *known; i++)
            bad = strcmp(item, known[i]) != 0;
        if (bad)
            err_set(err, ERR_field_value, "there is no operation \"%s\" that issues", item);
    }
    free(copy);
    if (bad)
        return -1;
    p->operations = strdup(value);
    return copy && p->operations ? 0 : no_memory(err);
}

static int set_roles(struct profile *p, const char *value, struct err *err)
{
    p->roles = roles_parse(value, err);
    return p->roles ? 0 : -1;
}

static int set_keys(struct profile *p, const char *value, struct err *err)
{
    return key_policy_parse(&p->keys, value, err);
}

static int add_attribute(struct profile *p, const char *text, struct err *err)
{
    const char *equals = strchr(text, '=');
    if (p->attributes == PROFILE_ATTRIBUTES_MAX)
        return err_set(err, ERR_field_value, "more than %d attributes", PROFILE_ATTRIBUTES_MAX);
    if (!equals || equals == text || !equals[1])
        return err_set(err, ERR_field_value, "\"%s\" is not an attribute such as O=Example", text);
    const char *hole = strstr(equals, "{name}");
    if (hole && strstr(hole + 1, "{name}"))
        return err_set(err, ERR_field_value, "{name} stands twice in \"%s\"", text);
    struct attribute *a = &p->subject[p->attributes++];
    a->type = strndup(text, (size_t)(equals - text));
    a->value = strdup(equals + 1);
    if (!a->type || !a->value)
        return no_memory(err);
    return OBJ_txt2nid(a->type) != NID_undef
               ? 0
               : err_set(err, ERR_field_value, "OpenSSL knows no attribute \"%s\"", a->type);
}

static int set_subject(struct profile *p, const char *value, struct err *err)
{
    if (!strstr(value, "{name}"))
        return err_set(err, ERR_field_value, "{name} must be in it");
    char *copy = strdup(value), *item = copy;
    int rc = copy ? 0 : no_memory(err);
    while (!rc && item) {
        char *next = strstr(item, ", ");
        if (next) {
            *next = '\0';
            next += 2;
        }
        rc = add_attribute(p, item, err);
        item = next;
    }
    free(copy);
    return rc;
}

static int set_name(struct profile *p, const char *value, struct err *err)
{
    if (!strcmp(value, "mac"))
        p->name_kind = NAME_MAC;
    else if (!strcmp(value, "hostname"))
        p->name_kind = NAME_HOSTNAME;
    else if (!strcmp(value, "label"))
        p->name_kind = NAME_LABEL;
    else
        return err_set(err, ERR_field_value, "\"%s\" is none of mac, hostname, label", value);
    return 0;
}

static int parse_absolute(struct moment *out, const char *value)
{
    struct tm tm;
    ASN1_TIME *t = ASN1_TIME_new();
    int ok = t && strlen(value) == 15 && ASN1_TIME_set_string(t, value) == 1 &&
             ASN1_TIME_to_tm(t, &tm) == 1;
    ASN1_TIME_free(t);
    if (ok)
        *out = (struct moment){1, timegm(&tm)};
    return ok ? 0 : -1;
}

static int parse_moment(struct moment *out, const char *value, struct err *err)
{
    int64_t seconds;
    if (*value != '+' && *value != '-') {
        if (parse_absolute(out, value))
            return err_set(err, ERR_field_value,
                           "\"%s\" is not a time such as +825d, -5m or 20300101000000Z", value);
        return 0;
    }
    if (duration_parse(&seconds, value + 1, err))
        return -1;
    *out = (struct moment){0, *value == '-' ? -seconds : seconds};
    return 0;
}

static int set_not_before(struct profile *p, const char *value, struct err *err)
{
    return parse_moment(&p->not_before, value, err);
}

static int set_not_after(struct profile *p, const char *value, struct err *err)
{
    return parse_moment(&p->not_after, value, err);
}

static int set_allowed_names(struct profile *p, const char *value, struct err *err)
{
    p->allowed_names = strdup(value);
    return p->allowed_names ? profile_check_allow_list(value, err) : no_memory(err);
}

static int set_renew_expired(struct profile *p, const char *value, struct err *err)
{
    return duration_parse(&p->renew_expired, value, err);
}

static int set_renew_key(struct profile *p, const char *value, struct err *err)
{
    p->renew_same_key = !strcmp(value, "same");
    return p->renew_same_key || !strcmp(value, "any")
               ? 0
               : err_set(err, ERR_field_value, "\"%s\" is neither same nor any", value);
}

static int set_beyond_issuer(struct profile *p, const char *value, struct err *err)
{
    p->beyond_issuer = !strcmp(value, "yes");
    return p->beyond_issuer || !strcmp(value, "no")
               ? 0
               : err_set(err, ERR_field_value, "\"%s\" is neither yes nor no", value);
}

static const struct {
    const char *key;
    int (*set)(struct profile *p, const char *value, struct err *err);
    int required;
} keys[] = {{"operations", set_operations, 0},
            {"roles", set_roles, 0},
            {"keys", set_keys, 1},
            {"subject", set_subject, 1},
            {"name", set_name, 1},
            {"not_before", set_not_before, 1},
            {"not_after", set_not_after, 1},
            {"allowed_names", set_allowed_names, 0},
            {"renew_expired", set_renew_expired, 0},
            {"renew_key", set_renew_key, 0},
            {"beyond_issuer", set_beyond_issuer, 0}};

int profile_set(struct profile *p, const char *key, const char *value, struct err *err)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(key, keys[i].key) != 0)
            continue;
        p->seen |= 1u << i;
        return keys[i].set(p, value, err) ? err_prefix(err, "%s", key) : 1;
    }
    return 0;
}

int profile_complete(const struct profile *p, struct err *err)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].required && !(p->seen & 1u << i))
            return err_set(err, ERR_field_value, "%s: missing", keys[i].key);
    if (p->operations && strcmp(p->operations, "renew_client_cert") != 0 && !p->roles)
        return err_set(err, ERR_field_value, "roles: missing; nobody could use the operations");
    return 0;
}
