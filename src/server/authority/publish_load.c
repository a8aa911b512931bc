/* What was published before this start: rows and files, and whether they are of one story. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file.h"
#include "common/log.h"
#include "server/authority/publish_parts.h"

struct loading {
    struct publishing *p;
    uint64_t given[SCOPES]; /* the highest number ever given out */
};

static int read_scope(struct store_tx *tx, struct loading *l, unsigned scope, uint64_t *oldest)
{
    struct publishing *p = l->p;
    struct crl_row last = {0}, *current = &p->scopes[scope].current;
    if (tx_last_crl(tx, p->a->issuer_id, (int)scope, 0, &last) < 0)
        return -1;
    l->given[scope] = last.number;
    int rc = tx_last_crl(tx, p->a->issuer_id, (int)scope, 1, current);
    if (rc == 0 && current->journal_seq < *oldest)
        *oldest = current->journal_seq;
    return rc < 0 ? -1 : 0;
}

/* A revocation, or the end of a hold, that a crash came after is on no CRL yet: nothing else would
 * ask for one. Of which shard it was, each of them finds out. */
static int read_last(struct store_tx *tx, void *arg)
{
    struct loading *l = arg;
    struct publishing *p = l->p;
    uint64_t oldest = UINT64_MAX, changed = 0;
    int64_t shards = 0;
    if (tx_meta(tx, "crl_shards", &shards) < 0)
        return -1;
    publish_know_shard(p, shards > 0 && shards <= CRL_SHARDS_MAX ? (unsigned)shards : 0);
    for (unsigned i = 0; i <= p->shards; i++)
        if (read_scope(tx, l, i, &oldest))
            return -1;
    if (oldest != UINT64_MAX && tx_last_crl_event(tx, oldest, &changed) < 0)
        return -1;
    for (unsigned i = 0; i <= p->shards; i++)
        if (p->scopes[i].current.number && p->scopes[i].current.journal_seq < changed)
            p->scopes[i].wanted = AT_ONCE;
    return 0;
}

/* The number of a CRL that this CA signed; 0: it is none. */
static uint64_t number_of(const struct publishing *p, int fd, uint64_t size)
{
    void *all = size ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (all == MAP_FAILED)
        return 0;
    uint64_t number = crl_number((struct bytes){all, size}, p->a->issuer);
    munmap(all, size);
    return number;
}

/* A CRL that the store never gave out, under this CA's own signature, was published: the store is
 * an older one. To go on would number CRLs anew and forget what that one revokes. */
static int check_number(const struct publishing *p, uint64_t given, const char *name, int fd,
                        uint64_t size, struct err *err)
{
    uint64_t number = number_of(p, fd, size);
    if (number <= given)
        return 0;
    return err_set(err, ERR_storage_unavailable,
                   "%s/signet.db gave out CRL numbers to %llu, but %s has %llu: the database is "
                   "an older one; docs/recovery.md, \"A corrupt database\", has the way back, with "
                   "this crl.der",
                   p->a->config->state, (unsigned long long)given, name,
                   (unsigned long long)number);
}

/* Its file, if it is the very one that the store has as published. A pipe stops nobody. */
static int load_scope(struct publishing *p, unsigned scope, uint64_t given, struct err *err)
{
    struct scope *s = &p->scopes[scope];
    char path[PATH_MAX], name[CRL_NAME_MAX], title[CRL_TITLE_MAX];
    struct stat st;
    uint8_t digest[32];
    uint64_t size;
    snprintf(path, sizeof path, "%s/%s", p->a->config->state, crl_file_name(name, scope));
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), copy = -1, rc = 0;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        copy = file_sealed_copy(fd, digest, &size, err);
    if (fd >= 0)
        close(fd);
    if (copy >= 0 && memcmp(digest, s->current.sha256, 32) == 0) {
        s->file = copy;
        return 0;
    }
    if (copy >= 0) {
        rc = check_number(p, given, name, copy, size, err);
        close(copy);
    }
    if (rc == 0 && s->current.number) {
        log_error("%s is not %s, the last one published; a new one is made", path,
                  publish_title(title, scope, s->current.number));
        s->wanted = AT_ONCE; /* the next number takes its place; until then none is served */
    }
    return rc;
}

int publish_load(struct publishing *p, struct err *err)
{
    struct loading l = {.p = p};
    if (store_read(p->a->store, read_last, &l))
        return err_set(err, ERR_storage_unavailable, "the store cannot be read");
    for (unsigned i = 0; i <= p->shards; i++)
        if (load_scope(p, i, l.given[i], err))
            return -1;
    return 0;
}
