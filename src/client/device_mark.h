/* What a device's folder knows of its board: board.json, from the moment it is to be flashed. The
 * next run goes on by it; for a person, it is why device.key is not there. */
#ifndef SIGNET_CLIENT_DEVICE_MARK_H
#define SIGNET_CLIENT_DEVICE_MARK_H

#include <stdint.h>
#include "client/certs.h"
#include "client/when.h"

#define DEVICE_MARK "board.json"

enum board_step { STEP_NONE, STEP_FLASHED, STEP_VERIFIED };

struct board_mark {
    enum board_step done;          /* with the board; verified: read back, the same byte for byte */
    enum board_step told;          /* what the server has acknowledged */
    int replacing;                 /* the folder was made by a --replace that is to be completed */
    int keep_key;                  /* said when it was verified */
    char serial[SERIAL_TEXT_SIZE]; /* of the certificate that all this is about */
    char since[WHEN_SIZE];         /* of done; "": not done */
    char chip[64], partition[24];
    uint32_t offset, size;
};

/* Not there: all zero. */
int board_mark_load(struct board_mark *m, const char *folder, struct failure *f)
    __attribute__((warn_unused_result));
/* Durable on return. */
int board_mark_save(const struct board_mark *m, const char *folder, struct failure *f)
    __attribute__((warn_unused_result));

#endif
