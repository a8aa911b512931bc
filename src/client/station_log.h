/* One board at a station: what became of it, as a line of the station's record (CSV) and as one
 * object. */
#ifndef SIGNET_CLIENT_STATION_LOG_H
#define SIGNET_CLIENT_STATION_LOG_H

#include "client/csv_file.h"
#include "client/flash.h"
#include "client/when.h"

enum outcome { PASSED, FAILED, SKIPPED }; /* skipped: done before, and not to be done again */

struct attempt {
    char *port;
    const char *profile;
    char began[WHEN_SIZE];
    double seconds;
    enum outcome outcome;
    struct flashed board; /* complete when it passed; its mac when the board said it */
    struct failure why;   /* when it did not pass */
};

/* Goes on with a record from before, without its last line when that was cut off. The path is
 * borrowed; csv_file_close() also after a failure. */
int station_log_open(struct csv_file *c, const char *path, struct failure *f)
    __attribute__((warn_unused_result));
/* On the disk on return. */
int station_log_add(struct csv_file *c, const struct attempt *a, struct failure *f)
    __attribute__((warn_unused_result));

/* "PASS", "FAIL" or "SKIP" */
const char *outcome_word(enum outcome outcome);
/* cJSON_Delete() */
cJSON *attempt_json(const struct attempt *a) __attribute__((warn_unused_result));

#endif
