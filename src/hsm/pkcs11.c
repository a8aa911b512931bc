#include "hsm/pkcs11.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    CK_RV rv;
    const char *name;
} rv_names[] = {
#define NAME(rv)                                                                                   \
    {                                                                                              \
        rv, #rv                                                                                    \
    }
    NAME(CKR_HOST_MEMORY),
    NAME(CKR_SLOT_ID_INVALID),
    NAME(CKR_GENERAL_ERROR),
    NAME(CKR_FUNCTION_FAILED),
    NAME(CKR_ARGUMENTS_BAD),
    NAME(CKR_CANT_LOCK),
    NAME(CKR_ATTRIBUTE_READ_ONLY),
    NAME(CKR_ATTRIBUTE_TYPE_INVALID),
    NAME(CKR_ATTRIBUTE_VALUE_INVALID),
    NAME(CKR_DEVICE_ERROR),
    NAME(CKR_DEVICE_MEMORY),
    NAME(CKR_DEVICE_REMOVED),
    NAME(CKR_FUNCTION_NOT_SUPPORTED),
    NAME(CKR_KEY_HANDLE_INVALID),
    NAME(CKR_KEY_SIZE_RANGE),
    NAME(CKR_KEY_FUNCTION_NOT_PERMITTED),
    NAME(CKR_MECHANISM_INVALID),
    NAME(CKR_MECHANISM_PARAM_INVALID),
    NAME(CKR_OBJECT_HANDLE_INVALID),
    NAME(CKR_OPERATION_ACTIVE),
    NAME(CKR_OPERATION_NOT_INITIALIZED),
    NAME(CKR_PIN_INCORRECT),
    NAME(CKR_PIN_INVALID),
    NAME(CKR_PIN_LEN_RANGE),
    NAME(CKR_PIN_EXPIRED),
    NAME(CKR_PIN_LOCKED),
    NAME(CKR_SESSION_CLOSED),
    NAME(CKR_SESSION_COUNT),
    NAME(CKR_SESSION_HANDLE_INVALID),
    NAME(CKR_SESSION_READ_ONLY),
    NAME(CKR_SESSION_EXISTS),
    NAME(CKR_TEMPLATE_INCOMPLETE),
    NAME(CKR_TEMPLATE_INCONSISTENT),
    NAME(CKR_TOKEN_NOT_PRESENT),
    NAME(CKR_TOKEN_NOT_RECOGNIZED),
    NAME(CKR_TOKEN_WRITE_PROTECTED),
    NAME(CKR_USER_NOT_LOGGED_IN),
    NAME(CKR_USER_PIN_NOT_INITIALIZED),
    NAME(CKR_USER_ANOTHER_ALREADY_LOGGED_IN),
    NAME(CKR_DOMAIN_PARAMS_INVALID),
    NAME(CKR_CURVE_NOT_SUPPORTED),
    NAME(CKR_CRYPTOKI_NOT_INITIALIZED),
    NAME(CKR_PIN_TOO_WEAK),
#undef NAME
};

const char *p11_rv_name(CK_RV rv)
{
    static char other[32]; /* one thread a process */
    for (size_t i = 0; i < sizeof rv_names / sizeof *rv_names; i++)
        if (rv_names[i].rv == rv)
            return rv_names[i].name;
    snprintf(other, sizeof other, "CKR 0x%lx", rv);
    return other;
}

enum token_fault p11_fault(CK_RV rv)
{
    switch (rv) {
    case CKR_OK:
        return TOKEN_OK;
    case CKR_PIN_INCORRECT:
    case CKR_PIN_INVALID:
    case CKR_PIN_LEN_RANGE:
    case CKR_PIN_EXPIRED:
    case CKR_PIN_LOCKED:
    case CKR_USER_PIN_NOT_INITIALIZED:
        return TOKEN_PIN_REFUSED;
    case CKR_DEVICE_REMOVED:
    case CKR_TOKEN_NOT_PRESENT:
    case CKR_TOKEN_NOT_RECOGNIZED:
        return TOKEN_ABSENT;
    case CKR_DEVICE_ERROR:
        return TOKEN_TRANSIENT;
    default:
        return TOKEN_LOST;
    }
}

/* While a token is being opened there is nothing yet that could go on. */
static enum token_fault opening_fault(CK_RV rv)
{
    enum token_fault fault = p11_fault(rv);
    return fault == TOKEN_TRANSIENT ? TOKEN_LOST : fault;
}

void p11_text(char *out, const unsigned char *padded, size_t len)
{
    while (len && (padded[len - 1] == ' ' || padded[len - 1] == '\0'))
        len--;
    memcpy(out, padded, len);
    out[len] = '\0';
}

static enum token_fault initialize(struct p11 *p, const char *module, const char *init_args,
                                   struct err *err)
{
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = (void *)(uintptr_t)init_args};
    CK_RV rv = p->f->C_Initialize(&args);
    p->initialized = rv == CKR_OK;
    if (rv == CKR_OK || rv == CKR_CRYPTOKI_ALREADY_INITIALIZED)
        return TOKEN_OK;
    enum token_fault fault = p11_fault(rv) == TOKEN_ABSENT || rv == CKR_DEVICE_ERROR
                                 ? TOKEN_ABSENT /* a remote or unplugged device may come back */
                                 : TOKEN_MODULE;
    return FAULT(fault, err,
                 "the PKCS#11 module %s does not initialize (%s); check what its vendor wants set: "
                 "init_args and env.NAME",
                 module, p11_rv_name(rv));
}

enum token_fault p11_load(struct p11 *p, const char *module, const char *init_args, struct err *err)
{
    *p = (struct p11){0};
    p->library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (!p->library)
        return FAULT(TOKEN_MODULE, err, "the PKCS#11 module %s does not load: %s", module,
                     dlerror());
    CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(p->library, "C_GetFunctionList");
    CK_RV rv = get ? get(&p->f) : CKR_FUNCTION_NOT_SUPPORTED;
    if (rv != CKR_OK || !p->f)
        return FAULT(TOKEN_MODULE, err, "%s is not a PKCS#11 module: no C_GetFunctionList", module);
    return initialize(p, module, init_args, err);
}

int p11_slots(struct p11 *p, CK_SLOT_ID **out, struct err *err)
{
    CK_ULONG count = 0;
    CK_SLOT_ID *slots = NULL;
    CK_RV rv = p->f->C_GetSlotList(CK_TRUE, NULL, &count);
    if (rv == CKR_OK && count < 4096 && (slots = calloc(count + 1, sizeof *slots)))
        rv = p->f->C_GetSlotList(CK_TRUE, slots, &count);
    if (rv == CKR_OK && slots) {
        *out = slots;
        return (int)count;
    }
    free(slots);
    return err_set(err, ERR_token_unavailable, "the module does not list its slots (%s)",
                   p11_rv_name(rv));
}

static void describe(struct p11 *p)
{
    char model[17], maker[33], serial[17];
    p11_text(model, p->info.model, sizeof p->info.model);
    p11_text(maker, p->info.manufacturerID, sizeof p->info.manufacturerID);
    p11_text(serial, p->info.serialNumber, sizeof p->info.serialNumber);
    snprintf(p->description, sizeof p->description, "%s (%s), serial %s", model, maker, serial);
}

enum token_fault p11_find_token(struct p11 *p, const char *label, struct err *err)
{
    CK_SLOT_ID *slots = NULL;
    int count = p11_slots(p, &slots, err), found = 0;
    if (count < 0)
        return TOKEN_ABSENT;
    char seen[200] = "";
    for (int i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        char text[33];
        if (p->f->C_GetTokenInfo(slots[i], &info) != CKR_OK)
            continue;
        p11_text(text, info.label, sizeof info.label);
        size_t used = strlen(seen);
        if (*text)
            snprintf(seen + used, sizeof seen - used, "%s\"%s\"", used ? ", " : "", text);
        if (strcmp(text, label) != 0)
            continue;
        p->slot = slots[i];
        p->info = info;
        found++;
    }
    free(slots);
    if (found == 0)
        return FAULT(TOKEN_ABSENT, err,
                     "there is no token \"%s\" (the module shows %s); plug it in or correct the "
                     "label",
                     label, *seen ? seen : "none");
    if (found > 1)
        return FAULT(TOKEN_KEY_DOUBLED, err,
                     "%d tokens have the label \"%s\"; take one out or change its label", found,
                     label);
    describe(p);
    return TOKEN_OK;
}

enum token_fault p11_session(struct p11 *p, int write, struct err *err)
{
    CK_FLAGS flags = CKF_SERIAL_SESSION | (write ? CKF_RW_SESSION : 0);
    CK_RV rv = p->f->C_OpenSession(p->slot, flags, NULL, NULL, &p->session);
    if (rv != CKR_OK)
        return FAULT(opening_fault(rv), err, "the token opens no session (%s)", p11_rv_name(rv));
    return TOKEN_OK;
}

/* What the token says of its PIN before anything is tried. */
static enum token_fault check_pin_state(const struct p11 *p, CK_USER_TYPE user, struct err *err)
{
    int so = user == CKU_SO;
    CK_FLAGS locked = so ? CKF_SO_PIN_LOCKED : CKF_USER_PIN_LOCKED;
    CK_FLAGS last = so ? CKF_SO_PIN_FINAL_TRY : CKF_USER_PIN_FINAL_TRY;
    if (p->info.flags & locked)
        return FAULT(TOKEN_PIN_REFUSED, err,
                     "the token says that its PIN is locked; unlock it with its SO PIN");
    if (p->info.flags & last)
        return FAULT(TOKEN_PIN_LAST, err,
                     "the token says that one more wrong PIN locks it, so none was tried; log in "
                     "once with the right PIN by another tool");
    return TOKEN_OK;
}

enum token_fault p11_login(struct p11 *p, CK_USER_TYPE user, const struct secret *pin,
                           struct err *err)
{
    enum token_fault fault = check_pin_state(p, user, err);
    if (fault)
        return fault;
    size_t len;
    const char *bytes = secret_bytes(pin, &len);
    CK_RV rv = p->f->C_Login(p->session, user, (unsigned char *)(uintptr_t)bytes, len);
    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN)
        return TOKEN_OK;
    fault = opening_fault(rv);
    return FAULT(fault, err, "the token refuses the login (%s)%s", p11_rv_name(rv),
                 fault == TOKEN_PIN_REFUSED ? "; correct the PIN before the next try: tokens lock "
                                              "after a few"
                                            : "");
}

int p11_find(struct p11 *p, CK_ATTRIBUTE *match, CK_ULONG match_count, CK_OBJECT_HANDLE *out,
             int max, CK_RV *rv)
{
    int count = 0;
    *rv = p->f->C_FindObjectsInit(p->session, match, match_count);
    if (*rv != CKR_OK)
        return -1;
    while (count < max) {
        CK_ULONG got = 0;
        *rv = p->f->C_FindObjects(p->session, out + count, (CK_ULONG)(max - count), &got);
        if (*rv != CKR_OK || got == 0 || got > (CK_ULONG)(max - count))
            break;
        count += (int)got;
    }
    p->f->C_FindObjectsFinal(p->session);
    return *rv == CKR_OK ? count : -1;
}

int p11_bytes(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, uint8_t *out,
              size_t max, size_t *len)
{
    CK_ATTRIBUTE a = {type, NULL, 0};
    *len = 0;
    if (p->f->C_GetAttributeValue(p->session, object, &a, 1) != CKR_OK || a.ulValueLen > max)
        return -1;
    if (a.ulValueLen == 0)
        return 0;
    a.pValue = out;
    if (p->f->C_GetAttributeValue(p->session, object, &a, 1) != CKR_OK || a.ulValueLen > max)
        return -1;
    *len = a.ulValueLen;
    return 0;
}

int p11_flag(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL value = CK_FALSE;
    CK_ATTRIBUTE a = {type, &value, sizeof value};
    if (p->f->C_GetAttributeValue(p->session, object, &a, 1) != CKR_OK ||
        a.ulValueLen != sizeof value)
        return -1;
    return value != CK_FALSE;
}

/* The buffer has exactly the size of a CK_ULONG: some modules refuse any other. */
int p11_ulong(struct p11 *p, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, CK_ULONG *out)
{
    CK_ATTRIBUTE a = {type, out, sizeof *out};
    CK_RV rv = p->f->C_GetAttributeValue(p->session, object, &a, 1);
    return rv == CKR_OK && a.ulValueLen == sizeof *out ? 0 : -1;
}

/* The key's own names, which the engine is then given: both, whatever the caller knew. */
static int read_names(struct p11 *p, struct p11_key *key)
{
    size_t len;
    if (p11_bytes(p, key->handle, CKA_LABEL, (uint8_t *)key->label, sizeof key->label - 1, &len))
        len = 0;
    key->label[len] = '\0';
    if (p11_bytes(p, key->handle, CKA_ID, key->id, sizeof key->id, &key->id_len))
        key->id_len = 0;
    return len || key->id_len ? 0 : -1;
}

/* "label "x", id 0a1b" for messages. */
static const char *names_text(const char *label, struct bytes id)
{
    static char text[P11_NAME_SIZE + 540]; /* one thread a process */
    char hex[511] = "";
    if (id.len && id.len <= 255)
        hex_encode(hex, id);
    snprintf(text, sizeof text, "%s%s%s%s%s%s", label ? "label \"" : "", label ? label : "",
             label ? "\"" : "", label && id.len ? ", " : "", id.len ? "id " : "", hex);
    return text;
}

enum token_fault p11_find_key(struct p11 *p, const char *label, struct bytes id,
                              struct p11_key *out, struct err *err)
{
    CK_OBJECT_CLASS private = CKO_PRIVATE_KEY;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE match[4] = {{CKA_CLASS, &private, sizeof private}, {CKA_TOKEN, &yes, sizeof yes}};
    CK_ULONG n = 2;
    if (label)
        match[n++] = (CK_ATTRIBUTE){CKA_LABEL, (void *)(uintptr_t)label, strlen(label)};
    if (id.len)
        match[n++] = (CK_ATTRIBUTE){CKA_ID, (void *)(uintptr_t)id.data, id.len};
    CK_OBJECT_HANDLE found[2];
    CK_RV rv;
    int count = p11_find(p, match, n, found, 2, &rv);
    if (count < 0)
        return FAULT(opening_fault(rv), err, "the token does not search its keys (%s)",
                     p11_rv_name(rv));
    if (count == 0)
        return FAULT(TOKEN_KEY_MISSING, err, "the token has no private key with %s",
                     names_text(label, id));
    if (count > 1)
        return FAULT(TOKEN_KEY_DOUBLED, err,
                     "the token has more than one private key with %s; give label and id, or "
                     "remove one",
                     names_text(label, id));
    *out = (struct p11_key){.handle = found[0]};
    if (read_names(p, out))
        return FAULT(TOKEN_KEY_MISSING, err, "the key has neither label nor id that can be read");
    return TOKEN_OK;
}

void p11_close(struct p11 *p)
{
    if (p->session)
        p->f->C_CloseSession(p->session);
    p->session = 0;
}

void p11_end(struct p11 *p)
{
    p11_close(p);
    if (p->initialized)
        p->f->C_Finalize(NULL);
    p->initialized = 0;
}

static const struct {
    CK_ATTRIBUTE_TYPE type;
    int wanted;
    unsigned bit;
} custody_attributes[] = {
    {CKA_SENSITIVE, 1, CUSTODY_SENSITIVE},
    {CKA_PRIVATE, 1, CUSTODY_PRIVATE},
    {CKA_SIGN, 1, CUSTODY_SIGN},
    {CKA_ALWAYS_SENSITIVE, 1, CUSTODY_ALWAYS_SENSITIVE},
    {CKA_NEVER_EXTRACTABLE, 1, CUSTODY_NEVER_EXTRACTABLE},
    {CKA_LOCAL, 1, CUSTODY_LOCAL},
    {CKA_EXTRACTABLE, 0, CUSTODY_NOT_EXTRACTABLE},
    {CKA_DECRYPT, 1, CUSTODY_WARN_DECRYPT},
    {CKA_UNWRAP, 1, CUSTODY_WARN_UNWRAP},
    {CKA_DERIVE, 1, CUSTODY_WARN_DERIVE},
};

/* An attribute that cannot be read gives no bit: nothing is assumed in the key's favour. */
unsigned p11_custody(struct p11 *p, const struct p11_key *key)
{
    unsigned bits = 0;
    for (size_t i = 0; i < sizeof custody_attributes / sizeof *custody_attributes; i++)
        if (p11_flag(p, key->handle, custody_attributes[i].type) == custody_attributes[i].wanted)
            bits |= custody_attributes[i].bit;
    return bits;
}

enum token_fault p11_check_custody(struct p11 *p, const struct p11_key *key, unsigned waiver,
                                   unsigned *bits, struct err *err)
{
    *bits = p11_custody(p, key);
    unsigned missing = CUSTODY_ALL & ~*bits & ~(waiver & ~(unsigned)CUSTODY_ABSOLUTE);
    if (!missing)
        return TOKEN_OK;
    char text[200];
    custody_text(text, sizeof text, missing);
    return FAULT(TOKEN_CUSTODY, err, "the key \"%s\" breaks custody: the token does not say %s. %s",
                 key->label, text,
                 missing & CUSTODY_ABSOLUTE
                     ? "This cannot be waived: make a new key in the token"
                     : "Make a new key in the token, or waive it by its custody exception");
}
