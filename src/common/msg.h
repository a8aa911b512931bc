/* The message contract between Signet's processes: one table of types, one of who may send what.
 *
 * A message is one SOCK_SEQPACKET record: a header of 16 bytes, then the fields of its type in the
 * order of msg_fields.h, big-endian, with nothing between or after.
 *
 *     version u8 | type u8 | zero u16 | length u32 (of what follows) | id u64
 *
 * A field is u8, u32, u64 (also signed, as two's complement), text (u32 length, the bytes, a NUL
 * that the length counts; no NUL inside) or bytes (u32 length, the bytes). Every length is checked
 * against the field's maximum and the record's end before use; a missing byte, a trailing byte or a
 * truncated record is a bad message, and the peer that sent it is ended (section 1 of the design).
 *
 * id: the asker chooses it, the answer repeats it.
 */
#ifndef SIGNET_MSG_H
#define SIGNET_MSG_H

#include <sys/types.h>
#include "common/bytes.h"

#define MSG_VERSION 4
#define MSG_HEADER 16
#define MSG_MAX (128 * 1024)

enum role_name {
    PROC_SUPERVISOR,
    PROC_FRONT,
    PROC_AUTHORITY,
    PROC_SIGNER,
    PROC_PUBLISHER,
    PROC_ADMIN
};

enum msg_type {
    MSG_none = 0,
#define MSG(name, number, ...) MSG_##name = number,
#include "common/msg_fields.h"
#undef MSG
};

/* One struct for each message: struct msg_issue, … Decoded text and bytes are views into the
 * record. */
#define F_u8(name) uint8_t name;
#define F_u32(name) uint32_t name;
#define F_u64(name) uint64_t name;
#define F_i64(name) int64_t name;
#define F_text(name, max) const char *name;
#define F_bytes(name, max) struct bytes name;
#define MSG(name, number, from, to, ...)                                                           \
    struct msg_##name {                                                                            \
        __VA_ARGS__                                                                                \
    };
#include "common/msg_fields.h"
#undef MSG
#undef F_u8
#undef F_u32
#undef F_u64
#undef F_i64
#undef F_text
#undef F_bytes

/* A received message. fields is a view into record, for msg_decode(). */
struct msg {
    enum msg_type type;
    uint64_t id;
    int fd; /* a descriptor that came along, or -1; the receiver's */
    struct bytes fields;
    uint8_t record[MSG_MAX];
};

/* "issue", for logs; "?" for an unknown type. */
const char *msg_name(unsigned type);

/* Whether `from` may send this type to `to`; default deny. */
int msg_allowed(unsigned type, enum role_name from, enum role_name to);

/* Whether a descriptor may come along with it; with any other, it is a bad message. */
int msg_takes_fd(unsigned type);

/* Encodes header and fields of *body (the struct of this type; NULL text is sent as "") into *out
 * (emptied first). -1: a field is over its maximum, or no memory. */
int msg_encode(struct buf *out, enum msg_type type, uint64_t id, const void *body)
    __attribute__((warn_unused_result));

/* Header of a received record into *type, *id, *fields. -1: malformed. */
int msg_open(struct bytes record, unsigned *type, uint64_t *id, struct bytes *fields)
    __attribute__((warn_unused_result));

/* Fields into *body (the struct of this type). -1: malformed. */
int msg_decode(void *body, enum msg_type type, struct bytes fields)
    __attribute__((warn_unused_result));

/* One record in or out, for channel.c and the blocking forms below. Sending: as sendmsg(2), with
 * flags. Receiving: 1 a record, 0 the peer is gone, 2 nothing there now, -1 an error, a truncated
 * record or several descriptors. fd -1: none. */
ssize_t msg_socket_send(int socket, struct bytes record, int fd, int flags);
int msg_socket_receive(int socket, uint8_t *record, size_t size, size_t *len, int *fd)
    __attribute__((warn_unused_result));

/* The blocking forms, for the signer, the publisher and signetctl, which talk to one peer.
 * msg_send_wait: fd -1 sends none. msg_receive: 1 a message, 0 the peer is gone, -1 malformed or
 * refused by the table (from → to). */
int msg_send_wait(int socket, enum msg_type type, uint64_t id, const void *body, int fd)
    __attribute__((warn_unused_result));
int msg_receive(int socket, struct msg *m, enum role_name from, enum role_name to)
    __attribute__((warn_unused_result));

#endif
