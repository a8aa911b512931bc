/* What one board's failure means for the next ones. */
#ifndef SIGNET_CLIENT_OUTLOOK_H
#define SIGNET_CLIENT_OUTLOOK_H

#include "client/failure.h"

/* Will the same request be answered later? */
int is_passing(const struct failure *f);

/* Would it be the same for all boards? out: the folder that theirs go into. */
int concerns_all(const struct failure *f, const char *out);

#endif
