/* The server's answers: JSON, read with a type check for each field, names compared by case. */
#ifndef SIGNET_CLIENT_ANSWER_H
#define SIGNET_CLIENT_ANSWER_H

#include <cjson/cJSON.h>
#include "client/failure.h"
#include "common/bytes.h"

/* One JSON object and white space around it, or NULL. cJSON_Delete(). */
cJSON *json_parse(struct bytes body) __attribute__((warn_unused_result));

/* One line on stdout. */
void json_print(const cJSON *object);

/* The field as text; *out belongs to the answer. Missing or of another type: EXIT_VERIFY. */
int answer_text(const char **out, const cJSON *answer, const char *name, struct failure *f)
    __attribute__((warn_unused_result));

/* The field as what its canonical base64 holds; *out is the caller's, buf_free(). */
int answer_bytes(struct buf *out, const cJSON *answer, const char *name, struct failure *f)
    __attribute__((warn_unused_result));

/* Text from elsewhere, fit for a terminal: what is not printable ASCII becomes '?'. */
void printable(char *out, size_t size, const char *text);

#endif
