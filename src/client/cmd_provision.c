/* signet provision: a device's key and certificate. */
#include <stdio.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/provision.h"
#include "pki/mac.h"

static void print_text(const struct provisioned *p, int replaced)
{
    printf("%s has its certificate%s\n", p->mac,
           p->resumed ? " (for the key of an earlier, interrupted run)" : "");
    printf("  folder  %s\n  serial  %s\n  valid   %s to %s\n", p->folder, p->serial, p->not_before,
           p->not_after);
    printf("  key     %s: keep it secret; no copy was sent anywhere\n", DEVICE_KEY);
    if (p->aside)
        printf("  older   %s: the folder from before, kept\n", p->aside);
    if (replaced)
        printf("  the board's older certificate, if it was live, is revoked now (superseded)\n");
}

static int provision_and_print(struct session *s, const struct board *b, int json,
                               struct failure *f)
{
    struct provisioned p;
    int rc = provision(&p, s, b, f);
    if (rc == 0 && json) {
        cJSON *o = provisioned_json(&p);
        json_print(o);
        cJSON_Delete(o);
    } else if (rc == 0) {
        print_text(&p, b->replace);
    }
    provisioned_free(&p);
    return rc;
}

int cmd_provision(const struct options *o, struct failure *f)
{
    char mac[MAC_TEXT_SIZE];
    struct err err;
    struct session s = {0};
    struct board board = {.mac = mac, .profile = o->profile, .replace = o->replace};
    if (!o->mac)
        return fail(f, EXIT_USAGE, "usage", "which board? give --mac, such as 24:0a:c4:12:34:56");
    if (mac_from_text(mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    int rc = session_open(&s, o, f);
    if (rc == 0)
        rc = board_settings(&board, &s, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = provision_and_print(&s, &board, o->json, f);
    session_close(&s);
    return rc;
}
