/* The commands, one file each. 0, or -1 with the failure filled in; results go to stdout. */
#ifndef SIGNET_CLIENT_COMMANDS_H
#define SIGNET_CLIENT_COMMANDS_H

#include "client/options.h"

int cmd_init(const struct options *o, struct failure *f);
int cmd_provision(const struct options *o, struct failure *f);
int cmd_batch(const struct options *o, struct failure *f);
int cmd_station(const struct options *o, struct failure *f);
int cmd_renew(const struct options *o, struct failure *f);
int cmd_server_cert(const struct options *o, struct failure *f);
int cmd_revoke(const struct options *o, struct failure *f);
int cmd_hold(const struct options *o, struct failure *f);
int cmd_unhold(const struct options *o, struct failure *f);
int cmd_list(const struct options *o, struct failure *f);
int cmd_show(const struct options *o, struct failure *f);
int cmd_verify(const struct options *o, struct failure *f);
int cmd_crl(const struct options *o, struct failure *f);
int cmd_image(const struct options *o, struct failure *f);
int cmd_doctor(const struct options *o, struct failure *f);

#endif
