/* A PKCS#11 module that stands before another and breaks it on demand, for tests.
 *
 *   SHIM_MODULE   the real module
 *   SHIM_CONTROL  a text file, read at each call: lines "FUNCTION ACTION [VALUE [TIMES]]"
 *   SHIM_LOG      every wrapped call is written here: "PID FUNCTION RESULT"
 *
 * Actions: error CKR (hex; after the real call, so that no operation is left open), delay MS, hang,
 * crash, flags BITS (hex; C_GetTokenInfo), close (all sessions, first), logout (first), garbage (a
 * signature of other bytes), false TYPE (hex; C_GetAttributeValue says CK_FALSE of it). TIMES: how
 * many calls of this process, from its first that finds the line; without it, all.
 */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum wrapped { INITIALIZE, TOKEN_INFO, OPEN_SESSION, LOGIN, ATTRIBUTES, SIGN_INIT, SIGN, WRAPPED };
static const char *const names[WRAPPED] = {"C_Initialize", "C_GetTokenInfo",      "C_OpenSession",
                                           "C_Login",      "C_GetAttributeValue", "C_SignInit",
                                           "C_Sign"};
static CK_FUNCTION_LIST *real, shim;
static unsigned long seen[WRAPPED];

struct order {
    char action[16];
    unsigned long value;
};

static void write_log(enum wrapped f, CK_RV rv)
{
    const char *path = getenv("SHIM_LOG");
    FILE *out = path ? fopen(path, "a") : NULL;
    if (out) {
        fprintf(out, "%d %s 0x%lx\n", (int)getpid(), names[f], rv);
        fclose(out);
    }
}

/* The order for this call; action "" when there is none. */
static struct order look(enum wrapped f)
{
    struct order found = {"", 0}, o;
    char line[128], function[32], value[32];
    unsigned long times;
    const char *path = getenv("SHIM_CONTROL");
    FILE *in = path ? fopen(path, "r") : NULL;
    while (in && fgets(line, sizeof line, in)) {
        times = 0;
        value[0] = '\0';
        if (sscanf(line, "%31s %15s %31s %lu", function, o.action, value, &times) < 2 ||
            strcmp(function, names[f]) != 0 || (times && seen[f] >= times))
            continue;
        o.value = strtoul(value, NULL, strcmp(o.action, "delay") == 0 ? 10 : 16);
        found = o;
        seen[f]++;
    }
    if (in)
        fclose(in);
    return found;
}

static int is(const struct order *o, const char *action)
{
    return strcmp(o->action, action) == 0;
}

static void before(const struct order *o, CK_SESSION_HANDLE session)
{
    CK_SESSION_INFO info;
    if (is(o, "delay"))
        usleep((useconds_t)o->value * 1000);
    if (is(o, "hang"))
        for (;;)
            pause();
    if (is(o, "crash"))
        abort();
    if (is(o, "close") && real->C_GetSessionInfo(session, &info) == CKR_OK)
        real->C_CloseAllSessions(info.slotID);
    if (is(o, "logout"))
        real->C_Logout(session);
}

static CK_RV after(enum wrapped f, const struct order *o, CK_RV rv)
{
    if (is(o, "error"))
        rv = o->value;
    write_log(f, rv);
    return rv;
}

static CK_RV initialize(void *args)
{
    struct order o = look(INITIALIZE);
    before(&o, 0);
    return after(INITIALIZE, &o, is(&o, "error") ? o.value : real->C_Initialize(args));
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    struct order o = look(TOKEN_INFO);
    before(&o, 0);
    CK_RV rv = real->C_GetTokenInfo(slot, info);
    if (is(&o, "flags"))
        info->flags |= o.value;
    return after(TOKEN_INFO, &o, rv);
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
    struct order o = look(OPEN_SESSION);
    before(&o, 0);
    CK_RV rv = is(&o, "error") ? o.value : real->C_OpenSession(slot, flags, app, notify, session);
    return after(OPEN_SESSION, &o, rv);
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, CK_ULONG len)
{
    struct order o = look(LOGIN);
    before(&o, session);
    CK_RV rv = is(&o, "error") ? o.value : real->C_Login(session, user, pin, len);
    return after(LOGIN, &o, rv);
}

static CK_RV attributes(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *a,
                        CK_ULONG count)
{
    struct order o = look(ATTRIBUTES);
    before(&o, session);
    CK_RV rv = real->C_GetAttributeValue(session, object, a, count);
    for (CK_ULONG i = 0; is(&o, "false") && i < count; i++)
        if (a[i].type == o.value && a[i].pValue && a[i].ulValueLen == sizeof(CK_BBOOL))
            *(CK_BBOOL *)a[i].pValue = CK_FALSE;
    return is(&o, "error") ? o.value : rv;
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *how, CK_OBJECT_HANDLE key)
{
    struct order o = look(SIGN_INIT);
    before(&o, session);
    CK_RV rv = is(&o, "error") ? o.value : real->C_SignInit(session, how, key);
    return after(SIGN_INIT, &o, rv);
}

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG len, unsigned char *sig,
                  CK_ULONG *sig_len)
{
    struct order o = look(SIGN);
    before(&o, session);
    CK_RV rv = real->C_Sign(session, data, len, sig, sig_len);
    if (is(&o, "garbage") && rv == CKR_OK && sig)
        sig[*sig_len / 2] ^= 0x40;
    return after(SIGN, &o, rv);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    CK_C_GetFunctionList get;
    if (!real) {
        void *library = dlopen(getenv("SHIM_MODULE"), RTLD_NOW);
        if (!library || !(get = (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList")) ||
            get(&real) != CKR_OK)
            return CKR_GENERAL_ERROR;
        shim = *real;
        shim.C_Initialize = initialize;
        shim.C_GetTokenInfo = token_info;
        shim.C_OpenSession = open_session;
        shim.C_Login = login;
        shim.C_GetAttributeValue = attributes;
        shim.C_SignInit = sign_init;
        shim.C_Sign = sign;
    }
    *list = &shim;
    return CKR_OK;
}
