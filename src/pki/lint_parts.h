/* The lint from inside: for lint.c, the fields of a certificate, and lint_extensions.c. */
#ifndef SIGNET_LINT_PARTS_H
#define SIGNET_LINT_PARTS_H

#include "pki/lint.h"

/* err_set() with lint_refused and "rule: what"; -1. */
int lint_refuse(struct err *err, const char *rule, const char *what);

/* The content of Extensions. subject_empty: then a critical subjectAltName is needed. */
int lint_extensions(struct bytes list, const struct certificate_request *req, int subject_empty,
                    struct err *err);

/* The bits of a SubjectPublicKeyInfo's key (BIT STRING without its count of unused bits); -1: no
 * such thing. algorithm: the AlgorithmIdentifier, whole. */
int lint_spki(struct bytes spki, struct bytes *algorithm, struct bytes *key);

#endif
