/* From an attached board to the verified flash: its MAC is read, the board provisioned (or its
 * folder found), firmware written, the image of key and certificates made for the partition that
 * the board's own table names, written, read back and compared, and the server told.
 *
 * Stopped anywhere, the same call goes on. The key leaves this machine's disk last: when the board
 * was read back and the folder says so. */
#ifndef SIGNET_CLIENT_FLASH_H
#define SIGNET_CLIENT_FLASH_H

#include "client/device_mark.h"
#include "client/options.h"
#include "client/provision.h"
#include "image/image.h"
#include "pki/mac.h"

struct flash_plan {
    const char *esptool; /* NULL: in the PATH */
    const char *port, *baud;
    const struct values *firmware; /* OFFSET=FILE */
    const char *partition;         /* its name; NULL: the only one of its kind */
    struct image_options image;    /* size: the partition's */
    int keep_key;
    int once; /* a board that is flashed, verified and told of is refused, also with its key here */
};

struct flashed {
    char mac[MAC_TEXT_SIZE]; /* the board's, also after a failure; "": it has not said it */
    struct provisioned device;
    struct board_mark mark;
    int already; /* the board was flashed and verified by an earlier run */
};

/* What is to be written goes with --flash alone. EXIT_USAGE. */
int flash_usage(const struct options *o, struct failure *f) __attribute__((warn_unused_result));

/* The options that are about flashing. The strings are those of o and s. EXIT_USAGE. */
int flash_plan_take(struct flash_plan *out, const struct options *o, const struct settings *s,
                    struct failure *f) __attribute__((warn_unused_result));

/* Are esptool and the firmware's files there? */
int flash_plan_check(const struct flash_plan *plan, struct failure *f)
    __attribute__((warn_unused_result));

/* Reads the MAC of the board at the port, with no more than that done. mac: "", or the one that it
 * must be. */
int flash_identify(char mac[MAC_TEXT_SIZE], const struct flash_plan *plan, struct failure *f)
    __attribute__((warn_unused_result));

/* b->mac: the board that it must be; NULL: any. flashed_free() also after a failure; the sentence
 * says what is left. */
int flash_board(struct flashed *out, struct session *s, const struct board *b,
                const struct flash_plan *plan, struct failure *f)
    __attribute__((warn_unused_result));
void flashed_free(struct flashed *out);

/* As one object; cJSON_Delete(). */
cJSON *flashed_json(const struct flashed *d) __attribute__((warn_unused_result));

#endif
