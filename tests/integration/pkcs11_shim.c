/* A PKCS#11 module that stands before another and breaks it on demand, for tests.
 *
 *   SHIM_MODULE      the real module
 *   SHIM_CONTROL     a text file, read at each call: lines "FUNCTION ACTION [VALUE [TIMES [all]]]"
 *   SHIM_LOG         every wrapped call is written here: "PID FUNCTION RESULT"
 *   SHIM_SIGNATURES  every signature that the real module made: "PID RESULT DATA", whatever the
 *                    caller was told (RESULT; "never" when it was told nothing), DATA in hex
 *
 * Actions: error CKR (hex; after the real call, so that no operation is left open), delay MS, hang,
 * crash, flags BITS (hex; C_GetTokenInfo), close (all sessions, first), logout (first), garbage (a
 * signature of other bytes), length N (hex; a signature said to be of that length), hang-after and
 * crash-after (with the signature made), false TYPE (hex; C_GetAttributeValue says CK_FALSE of it).
 * TIMES: how many calls of this process, from its first that finds the line; without it, all. With
 * "all": how many calls of all processes, counted in SHIM_CONTROL.calls. -N: each call of this
 * process but its first N.
 *
 * "token gone CKR": it is not there as long as the line stands; its sessions are lost, no slot has
 * it, and every wrapped call gives CKR.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum wrapped {
    INITIALIZE,
    SLOT_LIST,
    TOKEN_INFO,
    OPEN_SESSION,
    LOGIN,
    FIND_OBJECTS,
    ATTRIBUTES,
    SIGN_INIT,
    SIGN,
    TOKEN,
    WRAPPED
};
static const char *const names[WRAPPED] = {
    "C_Initialize",      "C_GetSlotList",       "C_GetTokenInfo", "C_OpenSession", "C_Login",
    "C_FindObjectsInit", "C_GetAttributeValue", "C_SignInit",     "C_Sign",        "token"};
static CK_FUNCTION_LIST *real, shim;
static long called[WRAPPED], seen[WRAPPED];

struct order {
    char action[16];
    unsigned long value;
};

/* Whole lines, also when several processes write at once. */
static void append(const char *variable, const char *line, size_t len)
{
    const char *path = getenv(variable);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    if (fd < 0)
        return;
    if (write(fd, line, len) != (ssize_t)len)
        abort();
    close(fd);
}

static void write_log(enum wrapped f, CK_RV rv)
{
    char line[64];
    append("SHIM_LOG", line,
           (size_t)snprintf(line, sizeof line, "%d %s 0x%lx\n", (int)getpid(), names[f], rv));
}

static void account(const char *told, const unsigned char *data, CK_ULONG len)
{
    char line[512];
    size_t used = (size_t)snprintf(line, sizeof line, "%d %s ", (int)getpid(), told);
    for (CK_ULONG i = 0; i < len && used < sizeof line - 3; i++)
        used += (size_t)snprintf(line + used, 3, "%02x", data[i]);
    line[used++] = '\n';
    append("SHIM_SIGNATURES", line, used);
}

/* The number of this call among those of all processes: each leaves a byte. */
static long number_of_all(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.calls", getenv("SHIM_CONTROL"));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    off_t n = fd >= 0 && write(fd, ".", 1) == 1 ? lseek(fd, 0, SEEK_CUR) : 0;
    close(fd);
    return n;
}

static int is_over(enum wrapped f, long times, const char *whose)
{
    if (times <= 0)
        return called[f] <= -times;
    return strcmp(whose, "all") == 0 ? number_of_all() > times : seen[f] >= times;
}

/* The order for this call; action "" when there is none. */
static struct order look(enum wrapped f)
{
    struct order found = {"", 0}, o;
    char line[128], function[32], value[32], whose[8];
    long times;
    const char *path = getenv("SHIM_CONTROL");
    FILE *in = path ? fopen(path, "r") : NULL;
    called[f]++;
    while (in && fgets(line, sizeof line, in)) {
        times = 0;
        value[0] = whose[0] = '\0';
        if (sscanf(line, "%31s %15s %31s %ld %7s", function, o.action, value, &times, whose) < 2 ||
            strcmp(function, names[f]) != 0 || is_over(f, times, whose))
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

static void lose_sessions(void)
{
    CK_SLOT_ID slots[16];
    CK_ULONG count = sizeof slots / sizeof *slots;
    if (real->C_GetSlotList(CK_TRUE, slots, &count) == CKR_OK)
        for (CK_ULONG i = 0; i < count; i++)
            real->C_CloseAllSessions(slots[i]);
}

/* What every call says while the token is gone; CKR_OK when it is there. */
static CK_RV gone(enum wrapped f)
{
    struct order o = look(TOKEN);
    if (!is(&o, "gone"))
        return CKR_OK;
    lose_sessions();
    write_log(f, o.value);
    return o.value;
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

static CK_RV slot_list(CK_BBOOL with_token, CK_SLOT_ID *slots, CK_ULONG *count)
{
    struct order o = look(SLOT_LIST);
    before(&o, 0);
    if (gone(SLOT_LIST) != CKR_OK && with_token) {
        *count = 0;
        return CKR_OK;
    }
    return after(SLOT_LIST, &o, real->C_GetSlotList(with_token, slots, count));
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    struct order o = look(TOKEN_INFO);
    before(&o, 0);
    CK_RV rv = gone(TOKEN_INFO);
    if (rv)
        return rv;
    rv = real->C_GetTokenInfo(slot, info);
    if (is(&o, "flags"))
        info->flags |= o.value;
    return after(TOKEN_INFO, &o, rv);
}

static CK_RV open_session(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
    struct order o = look(OPEN_SESSION);
    before(&o, 0);
    CK_RV rv = gone(OPEN_SESSION);
    if (rv)
        return rv;
    rv = is(&o, "error") ? o.value : real->C_OpenSession(slot, flags, app, notify, session);
    return after(OPEN_SESSION, &o, rv);
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin, CK_ULONG len)
{
    struct order o = look(LOGIN);
    before(&o, session);
    CK_RV rv = gone(LOGIN);
    if (rv)
        return rv;
    rv = is(&o, "error") ? o.value : real->C_Login(session, user, pin, len);
    return after(LOGIN, &o, rv);
}

static CK_RV find_objects(CK_SESSION_HANDLE session, CK_ATTRIBUTE *match, CK_ULONG count)
{
    struct order o = look(FIND_OBJECTS);
    before(&o, session);
    CK_RV rv = gone(FIND_OBJECTS);
    return rv ? rv : after(FIND_OBJECTS, &o, real->C_FindObjectsInit(session, match, count));
}

static CK_RV attributes(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *a,
                        CK_ULONG count)
{
    struct order o = look(ATTRIBUTES);
    before(&o, session);
    CK_RV rv = gone(ATTRIBUTES);
    if (rv)
        return rv;
    rv = real->C_GetAttributeValue(session, object, a, count);
    for (CK_ULONG i = 0; is(&o, "false") && i < count; i++)
        if (a[i].type == o.value && a[i].pValue && a[i].ulValueLen == sizeof(CK_BBOOL))
            *(CK_BBOOL *)a[i].pValue = CK_FALSE;
    return is(&o, "error") ? o.value : rv;
}

static CK_RV sign_init(CK_SESSION_HANDLE session, CK_MECHANISM *how, CK_OBJECT_HANDLE key)
{
    struct order o = look(SIGN_INIT);
    before(&o, session);
    CK_RV rv = gone(SIGN_INIT);
    if (rv)
        return rv;
    rv = is(&o, "error") ? o.value : real->C_SignInit(session, how, key);
    return after(SIGN_INIT, &o, rv);
}

/* The real module has signed; what the caller hears of it is another matter. */
static CK_RV made(const struct order *o, unsigned char *data, CK_ULONG len, unsigned char *sig,
                  CK_ULONG *sig_len)
{
    char told[24];
    int silent = is(o, "hang-after") || is(o, "crash-after");
    snprintf(told, sizeof told, "0x%lx", is(o, "error") ? o->value : CKR_OK);
    account(silent ? "never" : told, data, len);
    if (is(o, "garbage"))
        sig[*sig_len / 2] ^= 0x40;
    if (is(o, "length"))
        *sig_len = o->value;
    if (is(o, "crash-after"))
        abort();
    while (is(o, "hang-after"))
        pause();
    return after(SIGN, o, CKR_OK);
}

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG len, unsigned char *sig,
                  CK_ULONG *sig_len)
{
    struct order o = look(SIGN);
    before(&o, session);
    CK_RV rv = gone(SIGN);
    if (rv)
        return rv;
    rv = real->C_Sign(session, data, len, sig, sig_len);
    return sig && rv == CKR_OK ? made(&o, data, len, sig, sig_len) : after(SIGN, &o, rv);
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
        shim.C_GetSlotList = slot_list;
        shim.C_GetTokenInfo = token_info;
        shim.C_OpenSession = open_session;
        shim.C_Login = login;
        shim.C_FindObjectsInit = find_objects;
        shim.C_GetAttributeValue = attributes;
        shim.C_SignInit = sign_init;
        shim.C_Sign = sign;
    }
    *list = &shim;
    return CKR_OK;
}
