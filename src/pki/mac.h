/* A board's MAC, the identity in each device certificate.
 * Canonical form: lower-case hex pairs with colons, six bytes (EUI-48) or eight (EUI-64). */
#ifndef SIGNET_MAC_H
#define SIGNET_MAC_H

#include "common/err.h"

#define MAC_TEXT_SIZE 24 /* "aa:bb:cc:dd:ee:ff:00:11" and the NUL */

/* What people type: pairs with ':' or '-', or none at all; either case. Fails with csr_cn_not_mac
 * or mac_not_unicast (zero, broadcast, multicast: IEEE 802 group bit). */
int mac_from_text(char out[MAC_TEXT_SIZE], const char *text, struct err *err)
    __attribute__((warn_unused_result));

/* What the wire carries: the canonical form and nothing else; same errors. */
int mac_check(const char *text, struct err *err) __attribute__((warn_unused_result));

#endif
