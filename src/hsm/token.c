/* Names of faults and custody bits, and the exception: what others than the signer may link. */
#include "hsm/token.h"

#include <stdio.h>
#include <string.h>

const char *token_fault_name(enum token_fault f)
{
    static const char *const names[] = {
        [TOKEN_OK] = "ok",
        [TOKEN_ABSENT] = "absent",
        [TOKEN_MODULE] = "module",
        [TOKEN_PIN_REFUSED] = "pin_refused",
        [TOKEN_PIN_LAST] = "pin_last_try",
        [TOKEN_KEY_MISSING] = "key_missing",
        [TOKEN_KEY_DOUBLED] = "key_doubled",
        [TOKEN_CUSTODY] = "custody",
        [TOKEN_TRANSIENT] = "transient",
        [TOKEN_LOST] = "lost",
        [TOKEN_KEY_MISMATCH] = "key_mismatch",
    };
    return (unsigned)f < sizeof names / sizeof *names ? names[f] : "unknown";
}

static const struct {
    unsigned bit;
    const char *name;
} custody_names[] = {
    {CUSTODY_SENSITIVE, "SENSITIVE"},
    {CUSTODY_PRIVATE, "PRIVATE"},
    {CUSTODY_SIGN, "SIGN"},
    {CUSTODY_ALWAYS_SENSITIVE, "ALWAYS_SENSITIVE"},
    {CUSTODY_NEVER_EXTRACTABLE, "NEVER_EXTRACTABLE"},
    {CUSTODY_LOCAL, "LOCAL"},
    {CUSTODY_NOT_EXTRACTABLE, "not EXTRACTABLE"},
    {CUSTODY_WARN_DECRYPT, "DECRYPT"},
    {CUSTODY_WARN_UNWRAP, "UNWRAP"},
    {CUSTODY_WARN_DERIVE, "DERIVE"},
};

void custody_text(char *out, size_t size, unsigned bits)
{
    size_t used = 0;
    *out = '\0';
    for (size_t i = 0; i < sizeof custody_names / sizeof *custody_names && used < size; i++)
        if (bits & custody_names[i].bit)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "",
                                     custody_names[i].name);
}

int custody_check_exception(const char *setting, const char *exception,
                            const uint8_t spki_sha256[32], struct err *err)
{
    static const char form[] = "it must be \"<SHA-256 of the key's SubjectPublicKeyInfo, 64 hex "
                               "digits>, <reason>\"";
    if (!exception)
        return 0;
    uint8_t hash[32];
    char hex[65], own[65];
    size_t len, hex_len = strcspn(exception, ", \t");
    const char *reason = exception + hex_len + strspn(exception + hex_len, " \t");
    if (hex_len != 64 || *reason != ',' || reason[1 + strspn(reason + 1, " \t")] == '\0')
        return err_set(err, ERR_field_value, "%s: %s", setting, form);
    memcpy(hex, exception, 64);
    hex[64] = '\0';
    if (hex_decode(hash, sizeof hash, &len, hex))
        return err_set(err, ERR_field_value, "%s: %s", setting, form);
    hex_encode(own, (struct bytes){spki_sha256, 32});
    if (memcmp(hash, spki_sha256, sizeof hash) != 0)
        return err_set(err, ERR_field_value,
                       "%s names another key; the one in the token has the SHA-256 %s", setting,
                       own);
    return 0;
}
