/* init-token and generate-key: what only the token's maker otherwise offers, by plain PKCS#11. */
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hsm/ceremony/ceremony.h"

static int refused(struct err *err, const char *what, CK_RV rv)
{
    return err_set(err, ERR_token_unavailable, "the token refuses to %s (%s)", what,
                   p11_rv_name(rv));
}

static int check_pin_length(const struct p11 *p, const struct secret *pin, const char *whose,
                            struct err *err)
{
    size_t len;
    secret_bytes(pin, &len);
    if (len >= p->info.ulMinPinLen && (p->info.ulMaxPinLen == 0 || len <= p->info.ulMaxPinLen))
        return 0;
    return err_set(err, ERR_field_value, "the %s has %zu characters; this token takes %lu to %lu",
                   whose, len, p->info.ulMinPinLen, p->info.ulMaxPinLen);
}

/* The slot asked for, or the first with a blank token; p->slot and p->info. */
static int find_blank(struct p11 *p, long wanted, struct err *err)
{
    CK_SLOT_ID *slots = NULL;
    int count = p11_slots(p, &slots, err), found = 0, used = 0;
    if (count < 0)
        return -1;
    for (int i = 0; i < count && !found; i++) {
        if (wanted >= 0 && slots[i] != (CK_SLOT_ID)wanted)
            continue;
        if (p->f->C_GetTokenInfo(slots[i], &p->info) != CKR_OK)
            continue;
        p->slot = slots[i];
        found = !(p->info.flags & CKF_TOKEN_INITIALIZED);
        used = !found;
    }
    free(slots);
    if (found)
        return 0;
    if (wanted >= 0 && used)
        return err_set(err, ERR_already_exists,
                       "the token in slot %ld is initialized already; it is not wiped. Use it as "
                       "it is, or reset it with its maker's tool",
                       wanted);
    return err_set(err, ERR_token_unavailable,
                   "no blank token found; put one in, or use an existing one as it is (--adopt)");
}

/* The token of this label, if there is one: 1 found, 0 not, -1 more than one or no answer. */
static int look_for(struct p11 *p, const char *label, struct err *err)
{
    enum token_fault fault = p11_find_token(p, label, err);
    return fault == TOKEN_OK ? 1 : fault == TOKEN_ABSENT ? 0 : -1;
}

static int set_label_and_so_pin(struct p11 *p, const struct options *o, const struct secret *so_pin,
                                const struct secret *pin, struct err *err)
{
    unsigned char label[32];
    size_t len = strlen(o->token);
    if (len > sizeof label)
        return err_set(err, ERR_field_value, "a token's label has at most 32 bytes");
    memset(label, ' ', sizeof label);
    memcpy(label, o->token, len);
    if (find_blank(p, o->slot, err) || check_pin_length(p, so_pin, "SO PIN", err) ||
        check_pin_length(p, pin, "PIN", err))
        return -1;
    size_t so_len;
    const char *so = secret_bytes(so_pin, &so_len);
    CK_RV rv = p->f->C_InitToken(p->slot, (unsigned char *)(uintptr_t)so, so_len, label);
    return rv == CKR_OK ? 0 : refused(err, "be initialized", rv);
}

static int set_pin(struct p11 *p, const struct secret *so_pin, const struct secret *pin,
                   struct err *err)
{
    if (p11_session(p, 1, err) || p11_login(p, CKU_SO, so_pin, err))
        return -1;
    size_t len;
    const char *bytes = secret_bytes(pin, &len);
    CK_RV rv = p->f->C_InitPIN(p->session, (unsigned char *)(uintptr_t)bytes, len);
    return rv == CKR_OK ? 0 : refused(err, "take the PIN", rv);
}

static int init_token(struct p11 *p, const struct options *o, const struct secret *so_pin,
                      const struct secret *pin, struct err *err)
{
    if (p11_load(p, o->module, o->init_args, err))
        return -1;
    int there = look_for(p, o->token, err);
    if (there < 0)
        return -1;
    if (there && p->info.flags & CKF_USER_PIN_INITIALIZED)
        return err_set(err, ERR_already_exists,
                       "there is a token \"%s\" already; it is left as it is", o->token);
    /* a token without a PIN is what an earlier run left when it was cut short */
    if (!there && set_label_and_so_pin(p, o, so_pin, pin, err))
        return -1;
    if (look_for(p, o->token, err) != 1) /* its slot may have changed */
        return -1;
    return set_pin(p, so_pin, pin, err);
}

int command_init_token(const struct options *o, struct err *err)
{
    struct p11 p = {0};
    struct secret *so_pin = NULL, *pin = NULL;
    int rc = -1;
    if (o->pin_file && o->so_pin_file && strcmp(o->pin_file, "-") == 0 &&
        strcmp(o->so_pin_file, "-") == 0)
        return err_set(err, ERR_field_value, "only one of the two PINs can be standard input");
    if (ceremony_pin(&so_pin, o->so_pin_file, "New SO PIN", err) == 0 &&
        ceremony_pin(&pin, o->pin_file, "New PIN", err) == 0)
        rc = init_token(&p, o, so_pin, pin, err);
    secret_free(pin);
    secret_free(so_pin);
    p11_end(&p);
    if (rc == 0)
        printf("token \"%s\" made: %s\n", o->token, p.description);
    return rc;
}

static const struct key_type {
    const char *name;
    CK_KEY_TYPE type;
    CK_ULONG bits;
    uint8_t curve[10]; /* DER of the named curve's OID (RFC 5480 section 2.1.1.1) */
    CK_ULONG curve_len;
} key_types[] = {
    {"rsa:2048", CKK_RSA, 2048, "", 0},
    {"rsa:3072", CKK_RSA, 3072, "", 0},
    {"rsa:4096", CKK_RSA, 4096, "", 0},
    {"ec:p256", CKK_EC, 256, {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, 10},
    {"ec:p384", CKK_EC, 384, {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}, 7},
};

static const struct key_type *find_type(const char *name, struct err *err)
{
    for (size_t i = 0; i < sizeof key_types / sizeof *key_types; i++)
        if (strcmp(key_types[i].name, name) == 0)
            return &key_types[i];
    err_set(err, ERR_key_type_refused,
            "\"%s\" is no key type; use rsa:2048, rsa:3072, rsa:4096, ec:p256 or ec:p384", name);
    return NULL;
}

static int refuse_taken(struct p11 *p, CK_ATTRIBUTE name, const char *what, struct err *err)
{
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE match[] = {{CKA_CLASS, &class, sizeof class}, name};
    CK_OBJECT_HANDLE found;
    CK_RV rv;
    int count = p11_find(p, match, 2, &found, 1, &rv);
    if (count < 0)
        return refused(err, "search its keys", rv);
    if (count)
        return err_set(err, ERR_already_exists,
                       "the token has a key with this %s already; it is left as it is", what);
    return 0;
}

static CK_BBOOL yes = CK_TRUE, no = CK_FALSE;

struct template
{
    CK_ATTRIBUTE a[16];
    CK_ULONG n;
};

static void add(struct template *t, CK_ATTRIBUTE_TYPE type, const void *value, size_t len)
{
    t->a[t->n++] = (CK_ATTRIBUTE){type, (void *)(uintptr_t)value, len};
}

static void add_flag(struct template *t, CK_ATTRIBUTE_TYPE type, CK_BBOOL *value)
{
    add(t, type, value, sizeof *value);
}

struct wish {
    const struct key_type *type;
    const char *label;
    struct bytes id;
    int usage_alone; /* leave out what the key is not for: some tokens refuse to hear of it */
};

static void add_names(struct template *t, const struct wish *w)
{
    add_flag(t, CKA_TOKEN, &yes);
    add(t, CKA_KEY_TYPE, &w->type->type, sizeof w->type->type);
    add(t, CKA_LABEL, w->label, strlen(w->label));
    add(t, CKA_ID, w->id.data, w->id.len);
}

static void fill_public_half(struct template *t, const struct wish *w)
{
    static const unsigned char exponent[] = {1, 0, 1}; /* 65537 */
    add_names(t, w);
    add_flag(t, CKA_VERIFY, &yes);
    if (!w->usage_alone) {
        add_flag(t, CKA_ENCRYPT, &no);
        add_flag(t, CKA_WRAP, &no);
    }
    if (w->type->type == CKK_EC) {
        add(t, CKA_EC_PARAMS, w->type->curve, w->type->curve_len);
        return;
    }
    add(t, CKA_MODULUS_BITS, &w->type->bits, sizeof w->type->bits);
    add(t, CKA_PUBLIC_EXPONENT, exponent, sizeof exponent);
}

/* EXTRACTABLE false is always stated: unstated it is true on some tokens. */
static void fill_private_half(struct template *t, const struct wish *w)
{
    add_names(t, w);
    add_flag(t, CKA_PRIVATE, &yes);
    add_flag(t, CKA_SENSITIVE, &yes);
    add_flag(t, CKA_EXTRACTABLE, &no);
    add_flag(t, CKA_SIGN, &yes);
    if (w->usage_alone)
        return;
    add_flag(t, CKA_DECRYPT, &no);
    add_flag(t, CKA_UNWRAP, &no);
    add_flag(t, CKA_DERIVE, &no);
    add_flag(t, CKA_SIGN_RECOVER, &no);
}

static CK_RV generate(struct p11 *p, const struct wish *w, CK_OBJECT_HANDLE made[2])
{
    struct template public_half = {0}, private_half = {0};
    CK_MECHANISM how = {w->type->type == CKK_RSA ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN,
                        NULL, 0};
    fill_public_half(&public_half, w);
    fill_private_half(&private_half, w);
    return p->f->C_GenerateKeyPair(p->session, &how, public_half.a, public_half.n, private_half.a,
                                   private_half.n, &made[0], &made[1]);
}

static int generate_pair(struct p11 *p, const struct key_type *type, const char *label,
                         struct bytes id, CK_OBJECT_HANDLE made[2], struct err *err)
{
    struct wish w = {type, label, id, 0};
    CK_RV rv = generate(p, &w, made);
    if (rv != CKR_OK) { /* the codes for a refused attribute differ from token to token */
        w.usage_alone = 1;
        rv = generate(p, &w, made);
    }
    return rv == CKR_OK ? 0 : refused(err, "make the key", rv);
}

/* A key that is not held as asked is removed again: nobody is to come to use it. */
static int check_made(struct p11 *p, const char *label, struct bytes id, CK_OBJECT_HANDLE made[2],
                      unsigned *bits, struct err *err)
{
    struct p11_key key;
    if (p11_find_key(p, label, id, &key, err) == TOKEN_OK &&
        p11_check_custody(p, &key, 0, bits, err) == TOKEN_OK)
        return 0;
    p->f->C_DestroyObject(p->session, made[0]);
    p->f->C_DestroyObject(p->session, made[1]);
    return err_prefix(err, "the new key was removed again");
}

int command_generate_key(const struct options *o, struct err *err)
{
    struct p11 p;
    uint8_t random[8];
    struct bytes id = o->key_id;
    char hex[511], more[160];
    unsigned bits = 0;
    CK_OBJECT_HANDLE made[2];
    const struct key_type *type = find_type(o->key_type, err);
    if (!type)
        return -1;
    if (!id.len) {
        if (RAND_bytes(random, sizeof random) != 1)
            return err_set(err, ERR_internal, "no random bytes: %s", err_openssl());
        id = (struct bytes){random, sizeof random};
    }
    CK_ATTRIBUTE label = {CKA_LABEL, (void *)(uintptr_t)o->key_label, strlen(o->key_label)};
    CK_ATTRIBUTE ident = {CKA_ID, (void *)(uintptr_t)id.data, id.len};
    int rc = ceremony_session(&p, o, 1, 1, err);
    if (rc == 0)
        rc = refuse_taken(&p, label, "label", err);
    if (rc == 0)
        rc = refuse_taken(&p, ident, "id", err);
    if (rc == 0)
        rc = generate_pair(&p, type, o->key_label, id, made, err);
    if (rc == 0)
        rc = check_made(&p, o->key_label, id, made, &bits, err);
    p11_end(&p);
    if (rc)
        return rc;
    hex_encode(hex, id);
    printf("key \"%s\" made in token \"%s\": %s, id %s\n", o->key_label, o->token, type->name, hex);
    custody_text(more, sizeof more, bits & ~(unsigned)CUSTODY_ALL);
    if (*more)
        printf("the token also lets it do more than sign: %s\n", more);
    return 0;
}
