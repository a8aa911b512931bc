#include "server/front/ocsp_cache.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <openssl/rand.h>

#define BUCKETS 32768
#define SERIAL_MOST 20
#define SEQUENCE 0x30
#define REQUESTS 4      /* the bytes of so many are known for an entry */
#define CLOCK_BEHIND 60 /* seconds; with a clock more behind, nothing is known to be valid */
#define PRIME 0x1fffffffffffffff /* 2^61 - 1 */

/* What an entry is found by. The three kinds differ: a serial has up to 20 bytes, a packed CertID
 * 43 to 86 and begins with 20 or 32, and a request is longer than the former and a SEQUENCE. */
struct key {
    LIST_ENTRY(key) in_bucket;
    SLIST_ENTRY(key) of_entry;
    struct entry *entry;
    size_t len;
    uint8_t data[];
};

struct entry {
    struct ocsp_entry pub; /* first: one is the other */
    TAILQ_ENTRY(entry) by_use;
    SLIST_HEAD(, key) keys;
    size_t bytes;
    int requests;
};

struct ocsp_cache {
    LIST_HEAD(, key) buckets[BUCKETS];
    TAILQ_HEAD(entries, entry) by_use; /* the last one used first */
    uint64_t point;
    size_t bytes, bytes_max, count, count_max;
};

struct ocsp_cache *ocsp_cache_new(size_t bytes, size_t entries)
{
    struct ocsp_cache *c = calloc(1, sizeof *c);
    if (!c || RAND_bytes((unsigned char *)&c->point, sizeof c->point) != 1) {
        free(c);
        return NULL;
    }
    c->point %= PRIME;
    c->bytes_max = bytes;
    c->count_max = entries;
    TAILQ_INIT(&c->by_use);
    return c;
}

void ocsp_cache_free(struct ocsp_cache *c)
{
    if (c)
        ocsp_cache_forget(c, (struct bytes){0});
    free(c);
}

/* ---- keys ---- */

static uint64_t times(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    uint64_t sum = (uint64_t)(product & PRIME) + (uint64_t)(product >> 61);
    return sum >= PRIME ? sum - PRIME : sum;
}

/* Strangers choose the bytes: a polynomial of them at a point that they do not know, so that they
 * cannot have many in one bucket. */
static size_t bucket_of(const struct ocsp_cache *c, struct bytes key)
{
    uint64_t h = key.len;
    for (size_t at = 0; at < key.len; at += 7) {
        uint64_t word = 0;
        memcpy(&word, key.data + at, key.len - at < 7 ? key.len - at : 7);
        h = times((h + (word & PRIME)) % PRIME, c->point);
    }
    return (size_t)(h % BUCKETS);
}

static struct key *find_key(struct ocsp_cache *c, struct bytes wanted)
{
    struct key *k;
    LIST_FOREACH (k, &c->buckets[bucket_of(c, wanted)], in_bucket)
        if (bytes_equal((struct bytes){k->data, k->len}, wanted))
            return k;
    return NULL;
}

static int add_key(struct ocsp_cache *c, struct entry *e, struct bytes data)
{
    struct key *k = malloc(sizeof *k + data.len);
    if (!k)
        return -1;
    k->entry = e;
    k->len = data.len;
    memcpy(k->data, data.data, data.len);
    LIST_INSERT_HEAD(&c->buckets[bucket_of(c, data)], k, in_bucket);
    SLIST_INSERT_HEAD(&e->keys, k, of_entry);
    e->bytes += sizeof *k + data.len;
    c->bytes += sizeof *k + data.len;
    return 0;
}

/* ---- entries ---- */

static void drop(struct ocsp_cache *c, struct entry *e)
{
    struct key *k;
    while ((k = SLIST_FIRST(&e->keys))) {
        SLIST_REMOVE_HEAD(&e->keys, of_entry);
        LIST_REMOVE(k, in_bucket);
        free(k);
    }
    TAILQ_REMOVE(&c->by_use, e, by_use);
    c->bytes -= e->bytes;
    c->count--;
    blob_unref(e->pub.answer.body);
    free(e);
}

static void make_room(struct ocsp_cache *c)
{
    struct entry *e;
    while ((c->bytes > c->bytes_max || c->count > c->count_max) &&
           (e = TAILQ_LAST(&c->by_use, entries)))
        drop(c, e);
}

struct ocsp_entry *ocsp_cache_find(struct ocsp_cache *c, struct bytes certid)
{
    struct key *k = find_key(c, certid);
    if (!k)
        return NULL;
    struct entry *e = k->entry;
    if (e != TAILQ_FIRST(&c->by_use)) {
        TAILQ_REMOVE(&c->by_use, e, by_use);
        TAILQ_INSERT_HEAD(&c->by_use, e, by_use);
    }
    return &e->pub;
}

/* Strangers may send what is a key of another kind. */
struct ocsp_entry *ocsp_cache_find_request(struct ocsp_cache *c, struct bytes request)
{
    return request.len > SERIAL_MOST && request.data[0] == SEQUENCE ? ocsp_cache_find(c, request)
                                                                    : NULL;
}

int ocsp_entry_valid(const struct ocsp_entry *e, int64_t now)
{
    return now < e->answer.expires && now > e->answer.modified - CLOCK_BEHIND;
}

int ocsp_entry_fresh(const struct ocsp_entry *e, int64_t now)
{
    return now < e->ask_at && ocsp_entry_valid(e, now);
}

void ocsp_entry_put_off(struct ocsp_entry *e, int64_t until)
{
    e->ask_at = until < e->answer.expires ? until : e->answer.expires;
}

static void describe(struct ocsp_entry *e, const struct msg_answer_ocsp *m)
{
    uint8_t digest[32];
    char hex[33];
    sha256(digest, m->response);
    hex_encode(hex, (struct bytes){digest, 16});
    snprintf(e->answer.etag, sizeof e->answer.etag, "\"%s\"", hex);
    e->answer.modified = m->this_update;
    e->answer.expires = m->next_update;
    e->ask_at = m->this_update + (m->next_update - m->this_update) / 2;
    http_date(e->modified_text, m->this_update);
    http_date(e->expires, m->next_update);
}

static struct entry *entry_new(const struct msg_answer_ocsp *m)
{
    struct entry *e = calloc(1, sizeof *e);
    struct buf copy = {0};
    if (!e || buf_add(&copy, m->response.data, m->response.len) ||
        !(e->pub.answer.body = blob_take((char *)copy.data, copy.len))) {
        free(e);
        return NULL;
    }
    describe(&e->pub, m);
    SLIST_INIT(&e->keys);
    e->bytes = sizeof *e + m->response.len;
    return e;
}

/* The serial ends a packed CertID; its length is the second byte. */
static struct bytes serial_in(struct bytes certid)
{
    size_t len = certid.data[1];
    return (struct bytes){certid.data + certid.len - len, len};
}

void ocsp_cache_put(struct ocsp_cache *c, struct bytes certid, const struct msg_answer_ocsp *m)
{
    struct key *old = find_key(c, certid);
    if (old)
        drop(c, old->entry);
    struct entry *e = entry_new(m);
    if (!e)
        return;
    TAILQ_INSERT_HEAD(&c->by_use, e, by_use);
    c->bytes += e->bytes;
    c->count++;
    if (add_key(c, e, certid) || add_key(c, e, serial_in(certid)))
        drop(c, e);
    make_room(c);
}

void ocsp_cache_add_request(struct ocsp_cache *c, struct ocsp_entry *e, struct bytes request)
{
    struct entry *all = (struct entry *)e;
    if (all->requests < REQUESTS && !add_key(c, all, request))
        all->requests++;
}

void ocsp_cache_forget(struct ocsp_cache *c, struct bytes serial)
{
    struct key *k;
    struct entry *e;
    while (serial.len && (k = find_key(c, serial)))
        drop(c, k->entry);
    while (!serial.len && (e = TAILQ_FIRST(&c->by_use)))
        drop(c, e);
}
