/* A board behind a serial port, by way of esptool: which one it is, what its flash holds.
 *
 * esptool is a program, found in the PATH or named by the user; nothing of it is linked. What it
 * reads and writes goes by memory (memfd_create(2)), never by a file: images hold a key. */
#ifndef SIGNET_CLIENT_ESPTOOL_H
#define SIGNET_CLIENT_ESPTOOL_H

#include "client/failure.h"
#include "common/bytes.h"
#include "pki/mac.h"

struct esptool {
    char *program;
    const char *port, *baud; /* baud NULL: esptool's default */
    int resets;              /* the port has the lines that reset a board */
    int no_stub;             /* it has no stub for this chip: the ROM does it, slower */
    char mac[MAC_TEXT_SIZE]; /* the board's; every later run must meet the same one */
    char chip[64];
};

/* What is to be written where: a file, or a piece of memory (esptool_memory()). */
struct flash_part {
    uint32_t offset;
    int fd;
};

#define FLASH_PARTS_MAX 32

/* The program's path: named (a path, or a name in the PATH) or, for NULL, esptool or esptool.py in
 * the PATH; malloc()ed. EXIT_LOCAL with how to install it. */
int esptool_find(char **out, const char *named, struct failure *f)
    __attribute__((warn_unused_result));
/* The first line of "PROGRAM version"; "" when it does not run. */
void esptool_version(char *out, size_t size, const char *program);

/* Finds the program and looks at the port (there, ours to use, a serial port), then asks the board
 * who it is. The strings stay the caller's. esptool_close() also after a failure. All that fails
 * here and below is EXIT_LOCAL, with the next step. */
int esptool_open(struct esptool *t, const char *named, const char *port, const char *baud,
                 struct failure *f) __attribute__((warn_unused_result));
void esptool_close(struct esptool *t);

/* *out starts {0} and gets exactly size bytes; buf_wipe(). last: the board is started afterwards.
 */
int esptool_read(struct esptool *t, uint32_t offset, size_t size, int last, struct buf *out,
                 struct failure *f) __attribute__((warn_unused_result));

/* Writes the parts; esptool must have verified each by its hash. A board with another MAC is not
 * written to: esptool is ended when it names it. */
int esptool_write(struct esptool *t, const struct flash_part *parts, size_t count,
                  const char *doing, struct failure *f) __attribute__((warn_unused_result));

/* A descriptor of memory that holds these bytes; close(). */
int esptool_memory(int *fd, struct bytes data, struct failure *f)
    __attribute__((warn_unused_result));

#endif
