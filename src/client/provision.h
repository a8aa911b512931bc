/* Provisioning one board: key and request on the disk, the certificate asked for and verified, the
 * folder complete. Nothing is printed. */
#ifndef SIGNET_CLIENT_PROVISION_H
#define SIGNET_CLIENT_PROVISION_H

#include "client/device_dir.h"
#include "client/session.h"

#define PROFILE_DEFAULT "device"

struct board {
    const char *mac;      /* canonical */
    const char *profile;  /* NULL: PROFILE_DEFAULT */
    const char *key_type; /* passed key_type_check() */
    const char *out;      /* the folder that the board's folder goes into */
    int replace;          /* also when it has a live certificate or a complete folder */
    int flash;            /* its folder is marked (device_mark.h) as one that is to be flashed */
};

struct provisioned {
    char mac[24];
    char serial[SERIAL_TEXT_SIZE], not_before[TIME_TEXT_SIZE], not_after[TIME_TEXT_SIZE];
    char *folder;
    char *aside; /* where the folder from before is now; NULL: there was none */
    int resumed; /* the key is an earlier, interrupted run's */
};

/* The settings' key type, checked, and folder, or their defaults. The strings are the session's. */
int board_settings(struct board *b, const struct session *s, struct failure *f)
    __attribute__((warn_unused_result));

/* Makes the board's key and request, or finds them, and leaves them on the disk for provision(). */
int provision_key(const struct board *b, int *resumed, struct failure *f)
    __attribute__((warn_unused_result));

/* The board's complete folder: its certificate verified up to the root, for this MAC and for the
 * key beside it, which may be missing when the board was flashed. provisioned_free() also after a
 * failure. */
int provision_find(struct provisioned *out, X509 *root, const struct board *b, struct failure *f)
    __attribute__((warn_unused_result));

/* s: connected as an operator; its connection is kept, so that one session does for many boards.
 * After a failure the same call goes on with the same key and gets the same certificate; the
 * sentence says what is left. provisioned_free() also after a failure. */
int provision(struct provisioned *out, struct session *s, const struct board *b, struct failure *f)
    __attribute__((warn_unused_result));
void provisioned_free(struct provisioned *p);

/* As one object; cJSON_Delete(). */
cJSON *provisioned_json(const struct provisioned *p) __attribute__((warn_unused_result));

#endif
