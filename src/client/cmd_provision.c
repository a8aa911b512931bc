/* signet provision: a device's key and certificate; with --flash, on its board. */
#include <stdio.h>
#include <string.h>

#include "client/answer.h"
#include "client/commands.h"
#include "client/flash.h"
#include "pki/mac.h"

static void print_device(const struct provisioned *p)
{
    printf("  folder  %s\n  serial  %s\n  valid   %s to %s\n", p->folder, p->serial, p->not_before,
           p->not_after);
}

static void print_older(const struct provisioned *p, int replaced)
{
    if (p->aside)
        printf("  older   %s: the folder from before, kept\n", p->aside);
    if (replaced)
        printf("  the board's older certificate, if it was live, is revoked now (superseded)\n");
}

static void print_text(const struct provisioned *p, int replaced)
{
    printf("%s has its certificate%s\n", p->mac,
           p->resumed ? " (for the key of an earlier, interrupted run)" : "");
    print_device(p);
    printf("  key     %s: keep it secret; no copy was sent anywhere\n", DEVICE_KEY);
    print_older(p, replaced);
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

static void print_flashed_json(const struct flashed *d)
{
    cJSON *o = flashed_json(d);
    json_print(o);
    cJSON_Delete(o);
}

static void print_flashed(const struct flashed *d, int replaced)
{
    const struct board_mark *m = &d->mark;
    printf("%s is flashed and verified%s\n", d->device.mac,
           d->already ? ", by an earlier run that this one has completed" : "");
    print_device(&d->device);
    printf("  flash   partition %s at 0x%x, %u bytes, read back and compared; %s\n", m->partition,
           m->offset, m->size, m->chip);
    if (m->keep_key)
        printf("  key     on the board and in %s: keep it secret\n", DEVICE_KEY);
    else
        printf("  key     on the board alone: %s was overwritten, as far as the disk does that, "
               "and removed\n",
               DEVICE_KEY);
    print_older(&d->device, replaced);
}

static int flash_and_print(struct session *s, const struct board *b, const struct options *o,
                           struct failure *f)
{
    struct flash_plan plan;
    struct flashed d = {0};
    int rc = flash_plan_take(&plan, o, &s->settings, f);
    if (rc == 0)
        rc = flash_board(&d, s, b, &plan, f);
    if (rc == 0 && o->json)
        print_flashed_json(&d);
    else if (rc == 0)
        print_flashed(&d, b->replace);
    flashed_free(&d);
    return rc;
}

/* From --mac, from the board, or from both, which must agree. */
static int find_mac(char mac[MAC_TEXT_SIZE], const struct options *o, const struct settings *s,
                    struct failure *f)
{
    struct err err;
    struct flash_plan plan;
    if (o->mac && mac_from_text(mac, o->mac, &err))
        return fail_err(f, EXIT_USAGE, &err);
    if (!o->port || o->flash)
        return 0;
    return flash_plan_take(&plan, o, s, f) || flash_identify(mac, &plan, f) ? -1 : 0;
}

static int check_usage(const struct options *o, struct failure *f)
{
    if (!o->mac && !o->port)
        return fail(f, EXIT_USAGE, "usage",
                    "which board? give --mac, such as 24:0a:c4:12:34:56, or the --port that it is "
                    "at");
    if (o->flash && !o->port)
        return fail(f, EXIT_USAGE, "usage", "--flash needs the --port that the board is at");
    return flash_usage(o, f);
}

int cmd_provision(const struct options *o, struct failure *f)
{
    char mac[MAC_TEXT_SIZE] = "";
    struct session s = {0};
    struct board board = {.profile = o->profile, .replace = o->replace};
    int rc = check_usage(o, f);
    if (rc == 0)
        rc = session_open(&s, o, f);
    if (rc == 0)
        rc = board_settings(&board, &s, f);
    if (rc == 0)
        rc = session_connect(&s, "operator", f);
    if (rc == 0)
        rc = find_mac(mac, o, &s.settings, f);
    if (*mac)
        board.mac = mac;
    if (rc == 0)
        rc = o->flash ? flash_and_print(&s, &board, o, f)
                      : provision_and_print(&s, &board, o->json, f);
    session_close(&s);
    return rc;
}
