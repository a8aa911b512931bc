/* signetctl import: a certificate that this CA issued and the store does not know, after a restore
 * from a backup older than it. It becomes known, and so revocable; nothing is signed. */
#ifndef SIGNET_IMPORT_H
#define SIGNET_IMPORT_H

#include "server/authority/authority.h"

/* Answers q with answer_certificate (known already, or taken in), or answer_error: it is not this
 * CA's (certificate_unknown), or another one has its serial (already_exists). */
void import_certificate(struct authority *a, const struct msg_admin_import *m, struct question *q);

#endif
