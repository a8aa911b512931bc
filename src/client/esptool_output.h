/* What esptool says, 4.7 to 5.x: pure functions over its output. */
#ifndef SIGNET_CLIENT_ESPTOOL_OUTPUT_H
#define SIGNET_CLIENT_ESPTOOL_OUTPUT_H

#include "common/bytes.h"
#include "common/err.h"
#include "pki/mac.h"

struct esptool_output {
    char
        mac[MAC_TEXT_SIZE]; /* canonical; the base MAC where there is an EUI-64 too; "": not said */
    char chip[64];          /* "ESP32-D0WD-V3 (revision v3.0)"; "": not said */
    size_t verified;        /* files whose hash esptool has compared */
};

/* The output of a run, also the beginning of one: a line that is not complete is left out. -1 when
 * a MAC is none, is refused (zero, broadcast, multicast: clones have such), or when two differ. */
int esptool_parse(struct esptool_output *out, struct bytes text, struct err *err)
    __attribute__((warn_unused_result));

/* Why a run failed, by what it said: a stable code and a sentence with the next step, both
 * constants. NULL: not known. */
struct esptool_problem {
    const char *said; /* part of esptool's own text */
    const char *code, *advice;
};
const struct esptool_problem *esptool_problem(struct bytes text);

/* The line that says why: "A fatal error occurred: …", or the last one. */
void esptool_reason(char *out, size_t size, struct bytes text);

/* "esptool.py v4.7.0", of esptool version. */
void esptool_first_line(char *out, size_t size, struct bytes text);

/* Did it fail for want of its own stub loader (Debian's packages have none for some chips)? */
int esptool_lacks_stub(struct bytes text);

/* Had it begun to write to the flash? */
int esptool_has_written(struct bytes text);

#endif
