/* Telling the server what became of a board, by report_device: kept, shown by list and show, and
 * looked at when its certificate is to be replaced. */
#ifndef SIGNET_CLIENT_REPORT_H
#define SIGNET_CLIENT_REPORT_H

#include "client/session.h"

enum board_report {
    BOARD_FLASHED, /* key and certificate are written */
    BOARD_VERIFIED /* they were read back and are what was written */
};

/* The certificate by its serial, as serial_text() writes it. On the server's disk when this
 * returns. The same again, or less than was reported before, is no error, so a run that goes on
 * after a failure reports all steps anew. Refused (EXIT_REFUSED): result_dead, when the certificate
 * was revoked or has expired meanwhile; role_refused, when another operator had it issued. */
int report_device(struct session *s, const char *serial, enum board_report what, struct failure *f)
    __attribute__((warn_unused_result));

#endif
