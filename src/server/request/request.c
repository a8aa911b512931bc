#include "server/request/request.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cjson/cJSON.h>

struct request {
    cJSON *root;
};

/* ---- the lexical pass: what cJSON would let through (RFC 8259 sections 2, 7) ---- */

struct scan {
    const uint8_t *p, *end;
    unsigned depth;
};

/* Four hex digits behind "\u"; -1: they are not. */
static int scan_hex4(struct scan *s)
{
    int value = 0;
    if (s->end - s->p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int c = tolower(*s->p++);
        if (!isxdigit(c))
            return -1;
        value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

static int scan_unicode_escape(struct scan *s, struct err *err)
{
    int unit = scan_hex4(s);
    if (unit < 0)
        return err_set(err, ERR_body_not_json, "an escape \\u without four hex digits");
    if (unit == 0)
        return err_set(err, ERR_body_nul, "the body holds an escaped NUL (\\u0000); take it out");
    if (unit < 0xd800 || unit > 0xdfff)
        return 0;
    if (unit < 0xdc00 && s->end - s->p >= 2 && s->p[0] == '\\' && s->p[1] == 'u') {
        s->p += 2;
        int low = scan_hex4(s);
        if (low >= 0xdc00 && low <= 0xdfff)
            return 0;
    }
    return err_set(err, ERR_body_invalid_utf8, "the body holds half of a surrogate pair");
}

static int scan_escape(struct scan *s, struct err *err)
{
    if (s->p == s->end)
        return err_set(err, ERR_body_not_json, "a string does not end");
    uint8_t c = *s->p++;
    if (c == 'u')
        return scan_unicode_escape(s, err);
    if (c == 0 || !strchr("\"\\/bfnrt", c))
        return err_set(err, ERR_body_not_json, "an unknown escape stands in a string");
    return 0;
}

static int scan_string(struct scan *s, struct err *err)
{
    while (s->p < s->end) {
        uint8_t c = *s->p++;
        if (c == '"')
            return 0;
        if (c < ' ')
            return err_set(err, ERR_body_not_json,
                           "a control character stands in a string; escape it");
        if (c == '\\' && scan_escape(s, err))
            return -1;
    }
    return err_set(err, ERR_body_not_json, "a string does not end");
}

static int scan_one(struct scan *s, struct err *err)
{
    uint8_t c = *s->p++;
    switch (c) {
    case '"':
        return scan_string(s, err);
    case '{':
    case '[':
        if (++s->depth > JSON_DEPTH_MAX)
            return err_set(err, ERR_body_too_deep, "the JSON is nested deeper than %d levels",
                           JSON_DEPTH_MAX);
        return 0;
    case '}':
    case ']':
        s->depth -= s->depth > 0;
        return 0;
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return 0;
    default:
        if (c < ' ' || c > '~')
            return err_set(err, ERR_body_not_json, NULL);
        return 0;
    }
}

static int check_bytes(struct bytes body, struct err *err)
{
    if (body.len == 0) /* and it may be at NULL */
        return err_set(err, ERR_body_not_json, NULL);
    if (body.len > REQUEST_MAX)
        return err_set(err, ERR_body_too_large, NULL);
    if (!utf8_valid(body))
        return err_set(err, ERR_body_invalid_utf8, NULL);
    if (memchr(body.data, 0, body.len))
        return err_set(err, ERR_body_nul, NULL);
    struct scan s = {body.data, body.data + body.len, 0};
    while (s.p < s.end)
        if (scan_one(&s, err))
            return -1;
    return 0;
}

/* ---- the tree ---- */

static int check_end(const char *end, struct err *err)
{
    end += strspn(end, " \t\r\n");
    return *end ? err_set(err, ERR_body_trailing, NULL) : 0;
}

static int parse_tree(cJSON **out, struct bytes body, struct err *err)
{
    const char *end = NULL;
    int rc = -1;
    /* with a NUL behind it, so that no reading beyond the end depends on cJSON's care */
    char *text = malloc(body.len + 1);
    if (!text)
        return err_set(err, ERR_internal, "out of memory");
    if (body.len > 0)
        memcpy(text, body.data, body.len);
    text[body.len] = 0;
    *out = cJSON_ParseWithLengthOpts(text, body.len + 1, &end, 0);
    if (!cJSON_IsObject(*out))
        err_set(err, ERR_body_not_json, NULL);
    else
        rc = check_end(end, err);
    free(text);
    if (rc) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    return rc;
}

/* A name as an error may show it: its own text when that is harmless, else just "it". */
static const char *shown(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");
    return len > 0 && len <= 64 && !name[len] ? name : "(unprintable)";
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of one object, compared after unescaping. Sorted: a body may hold ten thousand of them. */
static int check_names(const cJSON *object, struct err *err)
{
    size_t n = 0;
    int rc = 0;
    const cJSON *member;
    const char **names = calloc((size_t)cJSON_GetArraySize(object) + 1, sizeof *names);
    if (!names)
        return err_set(err, ERR_internal, "out of memory");
    cJSON_ArrayForEach (member, object)
        names[n++] = member->string;
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 1; i < n && rc == 0; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            rc = err_set(err, ERR_body_duplicate_name,
                         "the name \"%s\" occurs twice in one object; send it once",
                         shown(names[i]));
    free(names);
    return rc;
}

/* Depth is bounded by the lexical pass. */
static int check_all_names(const cJSON *node, struct err *err)
{
    if (cJSON_IsObject(node) && check_names(node, err))
        return -1;
    const cJSON *child;
    cJSON_ArrayForEach (child, node)
        if (check_all_names(child, err))
            return -1;
    return 0;
}

/* ---- the operation and its fields ---- */

static int is_token(const char *text)
{
    size_t len = strlen(text);
    return len >= 1 && len <= 64 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@-") ==
               len;
}

static int is_serial(const char *text)
{
    size_t len = strlen(text);
    return len >= 2 && len <= 40 && len % 2 == 0 && strspn(text, "0123456789abcdefABCDEF") == len;
}

/* RFC 3339 section 5.6, whole seconds, UTC by "Z"; -1: it is not one. */
static int64_t parse_time(const char *text)
{
    struct tm tm = {0};
    char again[32];
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end || strlen(text) != 20 || tm.tm_year < 70)
        return -1;
    time_t t = timegm(&tm);
    /* strptime() takes February 30; what it means is then written otherwise */
    if (t < 0 || !strftime(again, sizeof again, "%Y-%m-%dT%H:%M:%SZ", &tm) ||
        strcmp(again, text) != 0)
        return -1;
    return (int64_t)t;
}

static int wrong_type(const struct field *f, const char *wanted, struct err *err)
{
    return err_set(err, ERR_field_type, "the field \"%s\" must be %s", f->name, wanted);
}

static int check_text(const struct field *f, const char *text, struct err *err)
{
    if (f->kind == FIELD_TOKEN && !is_token(text))
        return err_set(err, ERR_field_value,
                       "the field \"%s\" must be 1 to 64 of letters, digits, . _ : @ -", f->name);
    if (f->kind == FIELD_SERIAL && !is_serial(text))
        return err_set(err, ERR_field_value,
                       "the field \"%s\" must be a serial number: hex digits, an even number of "
                       "them, at most 40",
                       f->name);
    if (f->kind == FIELD_BASE64 && !*text)
        return err_set(err, ERR_field_value, "the field \"%s\" is empty", f->name);
    if (f->kind == FIELD_TIME && parse_time(text) < 0)
        return err_set(err, ERR_field_value,
                       "the field \"%s\" must be a time such as 2026-11-23T12:00:00Z", f->name);
    return 0;
}

static int check_serials(const struct field *f, const cJSON *value, struct err *err)
{
    int n = cJSON_GetArraySize(value);
    const cJSON *element;
    if (!cJSON_IsArray(value))
        return wrong_type(f, "an array of serial numbers", err);
    if (n < 1 || n > SERIALS_MAX)
        return err_set(err, ERR_field_value, "the field \"%s\" must have 1 to %d elements", f->name,
                       SERIALS_MAX);
    cJSON_ArrayForEach (element, value) {
        if (!cJSON_IsString(element))
            return wrong_type(f, "an array of serial numbers", err);
        if (!is_serial(element->valuestring))
            return err_set(err, ERR_field_value, "an element of \"%s\" is not a serial number",
                           f->name);
    }
    return 0;
}

static int check_count(const struct field *f, const cJSON *value, struct err *err)
{
    double n = value->valuedouble;
    if (!cJSON_IsNumber(value))
        return wrong_type(f, "a number", err);
    if (!(n >= 1 && n <= 500) || n != (double)(int)n)
        return err_set(err, ERR_field_value, "the field \"%s\" must be a whole number of 1 to 500",
                       f->name);
    return 0;
}

static int check_value(const struct field *f, const cJSON *value, struct err *err)
{
    switch (f->kind) {
    case FIELD_SERIALS:
        return check_serials(f, value, err);
    case FIELD_COUNT:
        return check_count(f, value, err);
    case FIELD_BOOL:
        return cJSON_IsBool(value) ? 0 : wrong_type(f, "true or false", err);
    default:
        break;
    }
    return cJSON_IsString(value) ? check_text(f, value->valuestring, err)
                                 : wrong_type(f, "a string", err);
}

static const struct field *find_field(const struct shape *shape, const char *name)
{
    for (const struct field *f = shape->fields; f->kind != FIELD_END; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

static int check_fields(const struct shape *shape, const cJSON *root, struct err *err)
{
    const cJSON *member;
    cJSON_ArrayForEach (member, root) {
        const struct field *f = find_field(shape, member->string);
        if (!f)
            return err_set(err, ERR_field_unknown,
                           "the field \"%s\" is not known for %s; take it out",
                           shown(member->string), shape->operation);
        if (check_value(f, member, err))
            return -1;
    }
    for (const struct field *f = shape->fields; f->kind != FIELD_END; f++)
        if (f->required && !cJSON_GetObjectItemCaseSensitive(root, f->name))
            return err_set(err, ERR_field_missing, "%s needs the field \"%s\"", shape->operation,
                           f->name);
    return 0;
}

static int find_operation(enum operation *op, const cJSON *root, struct err *err)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, "operation");
    if (!value)
        return err_set(err, ERR_field_missing, "the field \"operation\" is missing");
    if (!cJSON_IsString(value))
        return err_set(err, ERR_field_type, "the field \"operation\" must be a string");
    *op = operation_find(value->valuestring);
    if (*op == OP_NONE)
        return err_set(err, ERR_operation_unknown, "the operation \"%s\" is not known",
                       shown(value->valuestring));
    return 0;
}

int request_parse(struct request **out, enum operation *op, struct bytes body, struct err *err)
{
    cJSON *root = NULL;
    *out = NULL;
    *op = OP_NONE;
    if (check_bytes(body, err) || parse_tree(&root, body, err))
        return -1;
    if (check_all_names(root, err) || find_operation(op, root, err) ||
        check_fields(&operation_shapes[*op], root, err))
        goto fail;
    if (!(*out = malloc(sizeof **out))) {
        err_set(err, ERR_internal, "out of memory");
        goto fail;
    }
    (*out)->root = root;
    return 0;
fail:
    cJSON_Delete(root);
    return -1;
}

static const cJSON *field_of(const struct request *r, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(r->root, name);
}

int request_has(const struct request *r, const char *name)
{
    return field_of(r, name) != NULL;
}

const char *request_text(const struct request *r, const char *name)
{
    return cJSON_GetStringValue(field_of(r, name));
}

int request_bool(const struct request *r, const char *name)
{
    return cJSON_IsTrue(field_of(r, name));
}

unsigned request_number(const struct request *r, const char *name, unsigned otherwise)
{
    const cJSON *value = field_of(r, name);
    return value ? (unsigned)value->valuedouble : otherwise;
}

int64_t request_time(const struct request *r, const char *name, int64_t otherwise)
{
    const char *text = request_text(r, name);
    return text ? parse_time(text) : otherwise;
}

size_t request_count(const struct request *r, const char *name)
{
    return (size_t)cJSON_GetArraySize(field_of(r, name));
}

const char *request_element(const struct request *r, const char *name, size_t i)
{
    return cJSON_GetStringValue(cJSON_GetArrayItem(field_of(r, name), (int)i));
}

void request_free(struct request *r)
{
    if (!r)
        return;
    cJSON_Delete(r->root);
    free(r);
}
