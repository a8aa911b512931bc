#include "pki/key_weak.h"

#include <stdint.h>
#include <string.h>

#define LIMBS_MAX 64 /* 4096 bits */
#define PRIMES 6541  /* odd ones below 2^16 */
#define GROUPS 1577  /* their products, as many to one as 64 bits hold */
#define ROCA_LAST 167

/* Made at the first call, in less than a millisecond. */
static struct {
    int ready;
    struct {
        uint64_t inverse; /* of the prime modulo 2^64 */
        uint64_t most;    /* the largest quotient that it can have in 64 bits */
    } prime[PRIMES];
    struct {
        uint64_t product, inverse;
        size_t end; /* index behind its last prime */
    } group[GROUPS];
    uint8_t roca[ROCA_LAST + 1][ROCA_LAST + 1]; /* [p][r]: r is a power of 65537 modulo p */
} tables;

/* Of an odd number, modulo 2^64, by Newton: each step doubles the bits that are right. */
static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd; /* 3 bits */
    for (int i = 0; i < 5; i++)
        x *= 2 - odd * x;
    return x;
}

static void fill_roca(uint32_t p)
{
    uint32_t r = 1;
    do {
        tables.roca[p][r] = 1;
        r = r * (65537 % p) % p;
    } while (r != 1);
}

static void fill_tables(void)
{
    static uint8_t composite[1 << 16];
    size_t primes = 0, groups = 0;
    uint64_t product = 1;
    for (uint32_t p = 3; p < 1 << 16; p += 2) {
        if (composite[p])
            continue;
        for (uint32_t m = 3 * p; m < 1 << 16; m += 2 * p)
            composite[m] = 1;
        if (product > UINT64_MAX / p) {
            tables.group[groups].product = product;
            tables.group[groups++].end = primes;
            product = 1;
        }
        product *= p;
        tables.prime[primes].inverse = inverse(p);
        tables.prime[primes++].most = UINT64_MAX / p;
        if (p <= ROCA_LAST)
            fill_roca(p);
    }
    tables.group[groups].product = product;
    tables.group[groups].end = primes;
    for (size_t i = 0; i < GROUPS; i++)
        tables.group[i].inverse = inverse(tables.group[i].product);
    tables.ready = 1;
}

/* n / 2^(64 * limbs) modulo m, or its negative: a multiple of a divisor of m exactly when n is.
 * Exact division from the low end (Jebelean 1993) has no division in it; BN_mod_word() has one a
 * limb and makes the whole check three times as slow. */
static uint64_t residue(const uint64_t *n, size_t limbs, uint64_t m, uint64_t m_inverse)
{
    uint64_t carry = 0;
    for (size_t i = 0; i < limbs; i++) {
        uint64_t borrow = n[i] < carry;
        uint64_t quotient = (n[i] - carry) * m_inverse;
        carry = (uint64_t)(((unsigned __int128)quotient * m) >> 64) + borrow;
    }
    return carry;
}

static int has_small_factor(const BIGNUM *n)
{
    unsigned char little[8 * LIMBS_MAX];
    uint64_t limb[LIMBS_MAX] = {0};
    size_t limbs = ((size_t)BN_num_bits(n) + 63) / 64, p = 0;
    if (limbs > LIMBS_MAX || BN_bn2lebinpad(n, little, sizeof little) < 0)
        return 1;
    for (size_t i = 0; i < 8 * limbs; i++)
        limb[i / 8] |= (uint64_t)little[i] << (i % 8 * 8);
    for (size_t g = 0; g < GROUPS; g++) {
        uint64_t r = residue(limb, limbs, tables.group[g].product, tables.group[g].inverse);
        for (; p < tables.group[g].end; p++) /* Granlund and Montgomery 1994, section 9 */
            if (r * tables.prime[p].inverse <= tables.prime[p].most)
                return 1;
    }
    return 0;
}

/* CVE-2017-15361: the primes of a faulty library are k * M + (65537^a mod M), M the product of the
 * first primes, so that the modulus is a power of 65537 modulo each of these (Nemec and others,
 * "The Return of Coppersmith's Attack", 2017, section 3.2). One sound key in 2^27 looks the same.
 */
static int has_roca_fingerprint(const BIGNUM *n)
{
    for (unsigned p = 3; p <= ROCA_LAST; p += 2) {
        if (!tables.roca[p][1]) /* not a prime */
            continue;
        BN_ULONG r = BN_mod_word(n, p);
        if (r > ROCA_LAST || !tables.roca[p][r])
            return 0;
    }
    return 1;
}

/* floor(sqrt(n)) by Newton from above. */
static int square_root(BIGNUM *root, const BIGNUM *n, BN_CTX *ctx)
{
    int ok = 0;
    BN_CTX_start(ctx);
    BIGNUM *next = BN_CTX_get(ctx);
    if (!next || !BN_set_word(next, 0) || !BN_set_bit(next, (BN_num_bits(n) + 1) / 2))
        goto out;
    do {
        if (!BN_copy(root, next) || !BN_div(next, NULL, n, root, ctx) ||
            !BN_add(next, next, root) || !BN_rshift1(next, next))
            goto out;
    } while (BN_cmp(next, root) < 0);
    ok = 1;
out:
    BN_CTX_end(ctx);
    return ok;
}

/* Whether n can be a square, by its residues: says yes to one other number in 2000. */
static int looks_square(const BIGNUM *n)
{
    static const unsigned moduli[] = {64, 63, 65, 11, 17, 19, 23, 31};
    BN_ULONG product = 64ull * 63 * 65 * 11 * 17 * 19 * 23 * 31;
    BN_ULONG r = BN_mod_word(n, product);
    if (r == (BN_ULONG)-1)
        return 1;
    for (size_t i = 0; i < sizeof moduli / sizeof *moduli; i++) {
        unsigned m = moduli[i], x = 0;
        while (x < m && x * x % m != r % m)
            x++;
        if (x == m)
            return 0;
    }
    return 1;
}

/* 1 a square, 0 not, -1 error */
static int is_square(const BIGNUM *n, BIGNUM *scratch, BN_CTX *ctx)
{
    if (!looks_square(n))
        return 0;
    if (!square_root(scratch, n, ctx) || !BN_sqr(scratch, scratch, ctx))
        return -1;
    return BN_cmp(scratch, n) == 0;
}

/* Fermat: n = a^2 - b^2 = (a - b)(a + b), found at once when the primes are close. */
static int has_close_primes(const BIGNUM *n, BN_CTX *ctx)
{
    int found = -1;
    BN_CTX_start(ctx);
    BIGNUM *a = BN_CTX_get(ctx), *b2 = BN_CTX_get(ctx), *scratch = BN_CTX_get(ctx);
    if (!scratch || !square_root(a, n, ctx) || !BN_sqr(b2, a, ctx) || !BN_sub(b2, b2, n))
        goto out;
    found = BN_is_zero(b2);
    for (int round = 0; round < 100 && !found; round++) {
        /* (a + 1)^2 - n = b2 + a + (a + 1) */
        if (!BN_add(b2, b2, a) || !BN_add_word(a, 1) || !BN_add(b2, b2, a))
            found = -1;
        else
            found = is_square(b2, scratch, ctx);
    }
out:
    BN_CTX_end(ctx);
    return found != 0;
}

const char *key_weakness(const BIGNUM *n)
{
    if (!tables.ready)
        fill_tables();
    if (has_small_factor(n))
        return "its modulus has a factor below 65536";
    if (has_roca_fingerprint(n))
        return "its modulus has the fingerprint of CVE-2017-15361 (ROCA)";
    BN_CTX *ctx = BN_CTX_new();
    int close = !ctx || has_close_primes(n, ctx);
    BN_CTX_free(ctx);
    return close ? "its two primes are too close together" : NULL;
}
