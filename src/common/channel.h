/* A channel: one SEQPACKET socket to a peer in an event loop. Nobody waits for a peer: sending
 * never blocks (what the socket does not take is queued, up to a bound), reading never stops.
 * A peer that sends what the table does not allow it, a malformed record, or that does not drain
 * its queue is ended: on_end is called once, with the reason, and the channel is dead. */
#ifndef SIGNET_CHANNEL_H
#define SIGNET_CHANNEL_H

#include <event2/event.h>
#include "common/msg.h"

#define CHANNEL_QUEUE_MAX (8 * 1024 * 1024) /* bytes waiting for a peer that does not drain */
#define CHANNEL_FDS_MAX 256                 /* descriptors; more than a new front is sent */

struct channel; /* opaque */

struct channel_handlers {
    /* A message that the table allows; the record is the channel's and gone afterwards, m->fd is
     * the handler's (-1: none). Return 0, or -1 when the fields are bad: the peer is ended. */
    int (*on_message)(struct channel *c, const struct msg *m, void *arg);
    /* The peer is gone or was ended; why is NULL for a plain end. channel_free() is allowed here.
     */
    void (*on_end)(struct channel *c, const char *why, void *arg);
};

/* Takes the socket (closed by channel_free()), makes it non-blocking and close-on-exec. NULL: no
 * memory. self and peer say which rows of the table hold. */
struct channel *channel_new(struct event_base *base, int socket, enum role_name self,
                            enum role_name peer, const struct channel_handlers *handlers, void *arg)
    __attribute__((warn_unused_result));

/* Sends or queues; fd (-1: none) is dup()ed. 0, or -1: the channel is dead or its queue over the
 * bound (on_end follows from the loop). */
int channel_send(struct channel *c, enum msg_type type, uint64_t id, const void *body, int fd);

/* Handles all that the peer has sent so far, without waiting for more: what it sent before this
 * call is known afterwards. -1: the channel is dead, or this is a handler of one of its messages.
 */
int channel_catch_up(struct channel *c) __attribute__((warn_unused_result));

size_t channel_queued(const struct channel *c); /* bytes not yet taken by the peer */
void channel_free(struct channel *c);           /* NULL is fine; no on_end */

#endif
