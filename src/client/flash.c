#include "client/flash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/answer.h"
#include "client/certs.h"
#include "client/device_image.h"
#include "client/esptool.h"
#include "client/keys.h"
#include "client/report.h"
#include "image/partition_table.h"

#define SECTOR 4096
_Static_assert(FLASH_PARTS_MAX >= VALUES_MAX, "every --firmware has its place");

struct work {
    struct session *s;
    const struct flash_plan *plan;
    struct flashed *out;
    struct esptool tool;
    struct flash_part firmware[FLASH_PARTS_MAX];
    size_t firmware_count;
    char *folder;
    int lock;         /* descriptor of the locked folder */
    struct buf image; /* holds the key */
    struct failure untold;
};

/* ---- firmware ---- */

/* OFFSET=FILE */
static int open_part(struct flash_part *part, const char *text, struct failure *f)
{
    char number[32];
    size_t offset, len = strcspn(text, "=");
    struct stat st;
    if (!text[len] || !text[len + 1] || len >= sizeof number)
        return fail(f, EXIT_USAGE, "usage", "--firmware \"%s\" is not OFFSET=FILE", text);
    snprintf(number, sizeof number, "%.*s", (int)len, text);
    if (flash_number(&offset, number, "--firmware", f))
        return -1;
    if (offset % SECTOR)
        return fail(f, EXIT_USAGE, "usage", "--firmware %s: the offset must be a multiple of 0x%x",
                    text, SECTOR);
    part->offset = (uint32_t)offset;
    part->fd = open(text + len + 1, O_RDONLY | O_CLOEXEC);
    if (part->fd < 0 || fstat(part->fd, &st))
        return fail(f, EXIT_LOCAL, "local_file", "cannot open %s: %s", text + len + 1,
                    strerror(errno));
    char first = 0;
    if (!S_ISREG(st.st_mode) || pread(part->fd, &first, 1, 0) != 1)
        return fail(f, EXIT_LOCAL, "local_file", "%s is no file with something in it",
                    text + len + 1);
    if (first == ':') /* esptool would take its addresses, not the offset */
        return fail(f, EXIT_LOCAL, "local_file", "%s is Intel HEX; give the binary, the .bin",
                    text + len + 1);
    return 0;
}

static int open_firmware(struct work *w, struct failure *f)
{
    const struct values *all = w->plan->firmware;
    for (size_t i = 0; i < all->count; i++) {
        w->firmware[i].fd = -1;
        w->firmware_count++;
        if (open_part(&w->firmware[i], all->value[i], f))
            return -1;
    }
    return 0;
}

static void close_firmware(struct work *w)
{
    for (size_t i = 0; i < w->firmware_count; i++)
        if (w->firmware[i].fd >= 0)
            close(w->firmware[i].fd);
}

int flash_plan_check(const struct flash_plan *plan, struct failure *f)
{
    struct work w = {.plan = plan};
    int rc = esptool_find(&w.tool.program, plan->esptool, f) || open_firmware(&w, f) ? -1 : 0;
    close_firmware(&w);
    esptool_close(&w.tool);
    return rc;
}

/* ---- which board, which folder ---- */

/* mac: the one that it must have; NULL: any */
static int meet(struct esptool *t, const struct flash_plan *plan, const char *mac,
                struct failure *f)
{
    if (esptool_open(t, plan->esptool, plan->port, plan->baud, f))
        return -1;
    if (!mac || !*mac || strcmp(mac, t->mac) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "other_board", "the board at %s is %s, not %s", plan->port, t->mac,
                mac);
}

/* Verified by an earlier run, which meant to take the key away: nothing is left to be written. */
static int is_done(const struct work *w)
{
    const struct board_mark *m = &w->out->mark;
    return m->done == STEP_VERIFIED && !(m->keep_key && device_has(w->folder, DEVICE_KEY));
}

static int lock_folder(struct work *w, struct failure *f)
{
    w->lock = device_dir_lock(w->folder, f);
    return w->lock < 0 ? -1 : 0;
}

static void unlock_folder(struct work *w)
{
    if (w->lock >= 0)
        close(w->lock);
    w->lock = -1;
}

/* Has a run with replace made it, and not come to its end? */
static int is_unfinished(const struct work *w)
{
    const struct board_mark *m = &w->out->mark;
    int has_key = device_has(w->folder, DEVICE_KEY);
    if (!m->replacing)
        return 0;
    return m->done == STEP_VERIFIED ? m->told != STEP_VERIFIED || (has_key && !m->keep_key)
                                    : has_key;
}

/* A complete folder is flashed, or its flashing gone on with. With replace another one is made,
 * unless this is the one that an interrupted run with replace had made. */
static int is_to_be_made(struct work *w, const struct board *b, struct failure *f)
{
    if (!device_has(w->folder, DEVICE_CERT))
        return 1;
    if (lock_folder(w, f))
        return -1;
    device_dir_sweep(w->folder);
    if (board_mark_load(&w->out->mark, w->folder, f))
        return -1;
    return b->replace && !is_unfinished(w);
}

static int check_what_is_there(const struct work *w, struct failure *f)
{
    const struct board_mark *m = &w->out->mark;
    int has_key = device_has(w->folder, DEVICE_KEY);
    if (has_key && (!w->plan->once || m->done != STEP_VERIFIED))
        return 0;
    if (m->done != STEP_VERIFIED)
        return fail(f, EXIT_LOCAL, "local_file",
                    "%s has no %s, so %s cannot be flashed; --replace gives it a new key and "
                    "certificate",
                    w->folder, DEVICE_KEY, w->tool.mac);
    if (m->told != STEP_VERIFIED)
        return 0;
    return fail(f, EXIT_LOCAL, "already_flashed",
                "%s was flashed and verified on %s%s; --replace gives it a new key and certificate",
                w->tool.mac, m->since, has_key ? "" : ", and its key is on the board alone");
}

static int provide(struct work *w, const struct board *wanted, struct failure *f)
{
    struct board b = *wanted;
    struct provisioned *device = &w->out->device;
    b.mac = w->tool.mac;
    b.flash = 1;
    w->folder = device_dir_path(b.out, b.mac);
    if (!w->folder)
        return fail_memory(f);
    int make = is_to_be_made(w, &b, f);
    if (make < 0)
        return -1;
    if (make) {
        unlock_folder(w); /* provision() does it itself */
        w->out->mark = (struct board_mark){.replacing = b.replace};
        return provision(device, w->s, &b, f) || lock_folder(w, f) ? -1 : 0;
    }
    if (provision_find(device, w->s->root, &b, f))
        return -1;
    device->resumed = 1;
    if (strcmp(w->out->mark.serial, device->serial) != 0) /* renewed since */
        w->out->mark = (struct board_mark){.replacing = w->out->mark.replacing};
    return check_what_is_there(w, f);
}

/* ---- the image ---- */

static int no_partition(const struct work *w, size_t matches, struct failure *f)
{
    const char *kind = w->plan->image.format == IMAGE_NVS ? "NVS" : "esp_secure_cert";
    if (w->plan->partition)
        return fail(f, EXIT_LOCAL, "no_partition",
                    "the board's partition table has no %s partition named %s", kind,
                    w->plan->partition);
    if (matches)
        return fail(f, EXIT_LOCAL, "no_partition",
                    "the board's partition table has %zu %s partitions: name one by --partition",
                    matches, kind);
    return fail(f, EXIT_LOCAL, "no_partition",
                "the board's partition table has no %s partition: flash one that has, such as "
                "--firmware 0x8000=partition-table.bin",
                kind);
}

static int read_table(struct work *w, struct partition_table *t, struct failure *f)
{
    struct buf bytes = {0};
    struct err err;
    int rc = esptool_read(&w->tool, PARTITION_TABLE_OFFSET, PARTITION_TABLE_SIZE, 0, &bytes, f);
    if (rc == 0 && partition_table_parse(t, buf_view(&bytes), &err))
        rc = fail(f, EXIT_LOCAL, "no_partition_table",
                  "the board has no partition table at 0x%x that can be used (%s): flash its "
                  "firmware first, or with it by --firmware",
                  PARTITION_TABLE_OFFSET, err.text);
    buf_free(&bytes);
    return rc;
}

static int choose_partition(struct work *w, struct failure *f)
{
    struct partition_table t;
    struct board_mark *m = &w->out->mark;
    int nvs = w->plan->image.format == IMAGE_NVS;
    size_t matches = 0;
    if (read_table(w, &t, f))
        return -1;
    const struct partition *p =
        partition_find(&t, nvs ? PARTITION_DATA : PARTITION_SECURE_CERT,
                       nvs ? PARTITION_DATA_NVS : PARTITION_ANY, w->plan->partition, &matches);
    if (!p)
        return no_partition(w, matches, f);
    m->offset = p->offset;
    m->size = p->size;
    printable(m->partition, sizeof m->partition, p->name); /* as the board has it */
    snprintf(m->chip, sizeof m->chip, "%s", w->tool.chip);
    return 0;
}

/* Between provision() and the lock another run may have replaced it. */
static int check_serial(const struct work *w, X509 *cert, struct failure *f)
{
    char serial[SERIAL_TEXT_SIZE];
    serial_text(serial, X509_get0_serialNumber(cert));
    if (strcmp(serial, w->out->device.serial) == 0)
        return 0;
    return fail(f, EXIT_LOCAL, "busy", "another signet has replaced %s just now", w->folder);
}

static int make_image(struct work *w, struct failure *f)
{
    struct credentials c;
    struct err err;
    struct image_options image = w->plan->image;
    image.size = w->out->mark.size;
    int rc = device_credentials_load(&c, w->folder, f);
    if (rc == 0)
        rc = check_serial(w, c.cert, f);
    if (rc == 0 && image_build(&w->image, &c, &image, &err))
        rc = fail(f, EXIT_LOCAL, "image_not_made", "for the partition %s: %s",
                  w->out->mark.partition, err.text);
    device_credentials_free(&c);
    return rc;
}

/* ---- writing and reading back ---- */

static int reach(struct work *w, enum board_step step, struct failure *f)
{
    struct board_mark *m = &w->out->mark;
    m->done = step;
    m->keep_key = w->plan->keep_key;
    memcpy(m->serial, w->out->device.serial, sizeof m->serial);
    when_now(m->since);
    return board_mark_save(m, w->folder, f);
}

static int write_image(struct work *w, struct failure *f)
{
    struct flash_part part = {.offset = w->out->mark.offset};
    if (esptool_memory(&part.fd, buf_view(&w->image), f))
        return -1;
    int rc = esptool_write(&w->tool, &part, 1, "writing key and certificate to the board", f);
    close(part.fd);
    return rc;
}

static int compare(struct work *w, struct failure *f)
{
    struct buf back = {0};
    const struct board_mark *m = &w->out->mark;
    int rc = esptool_read(&w->tool, m->offset, m->size, 1, &back, f);
    size_t at = 0;
    while (rc == 0 && at < back.len && back.data[at] == w->image.data[at])
        at++;
    if (rc == 0 && at < back.len)
        rc = fail(f, EXIT_LOCAL, "flash_differs",
                  "the flash at 0x%zx is not what was written; give the same command again; if it "
                  "stays so, the board's flash or its supply is bad",
                  m->offset + at);
    buf_wipe(&back);
    return rc;
}

/* That the server cannot be told holds nothing up here: the next run tells it. */
static int tell(struct work *w, enum board_report what, struct failure *f)
{
    struct board_mark *m = &w->out->mark;
    enum board_step step = what == BOARD_VERIFIED ? STEP_VERIFIED : STEP_FLASHED;
    if (m->told >= step)
        return 0;
    if (report_device(w->s, w->out->device.serial, what, &w->untold))
        return 0;
    w->untold = (struct failure){0};
    m->told = step;
    return board_mark_save(m, w->folder, f);
}

static int flash(struct work *w, struct failure *f)
{
    if (w->firmware_count &&
        esptool_write(&w->tool, w->firmware, w->firmware_count, "writing the firmware", f))
        return -1;
    return choose_partition(w, f) || make_image(w, f) || write_image(w, f) ||
                   reach(w, STEP_FLASHED, f) || tell(w, BOARD_FLASHED, f) || compare(w, f) ||
                   reach(w, STEP_VERIFIED, f)
               ? -1
               : 0;
}

/* ---- the end ---- */

static int take_key_away(struct work *w, struct failure *f)
{
    if (w->out->mark.keep_key)
        return 0;
    char *path = path_join(w->folder, DEVICE_KEY);
    int rc = path ? key_remove(path, f) : fail_memory(f);
    free(path);
    return rc ? fail_add(f, "the board is flashed and verified") : 0;
}

/* Nobody wants it any more: with replace, the next run makes another one. */
static int give_up(struct work *w, struct failure *f)
{
    struct failure why;
    w->out->mark.replacing = 0;
    if (board_mark_save(&w->out->mark, w->folder, &why))
        return fail_add(f, "%s", why.text);
    return fail_add(f, "--replace gives it a new key and certificate");
}

static int tell_the_end(struct work *w, struct failure *f)
{
    if (w->untold.exit != EXIT_UNREACHABLE && tell(w, BOARD_VERIFIED, f))
        return -1;
    if (!w->untold.exit)
        return 0;
    *f = w->untold;
    fail_add(f, "the board %s is flashed and verified, only the server does not know it",
             w->tool.mac);
    return strcmp(f->code, "result_dead") == 0 ? give_up(w, f)
                                               : fail_add(f, "the same command tells it");
}

static int go(struct work *w, const struct board *b, struct failure *f)
{
    if (open_firmware(w, f))
        return -1;
    int rc = meet(&w->tool, w->plan, b->mac, f);
    memcpy(w->out->mac, w->tool.mac, sizeof w->out->mac);
    if (rc || provide(w, b, f))
        return -1;
    w->out->already = is_done(w);
    if (!w->out->already && flash(w, f))
        return fail_add(f, "the key of %s is kept in %s: with that board, the same command goes on",
                        w->tool.mac, w->folder);
    return take_key_away(w, f) || tell_the_end(w, f) ? -1 : 0;
}

int flash_board(struct flashed *out, struct session *s, const struct board *b,
                const struct flash_plan *plan, struct failure *f)
{
    struct work w = {.s = s, .plan = plan, .out = out, .lock = -1};
    *out = (struct flashed){0};
    int rc = go(&w, b, f);
    close_firmware(&w);
    unlock_folder(&w);
    buf_wipe(&w.image);
    free(w.folder);
    esptool_close(&w.tool);
    return rc;
}

void flashed_free(struct flashed *out)
{
    provisioned_free(&out->device);
}

cJSON *flashed_json(const struct flashed *d)
{
    const struct board_mark *m = &d->mark;
    cJSON *o = provisioned_json(&d->device);
    cJSON_AddBoolToObject(o, "flashed", 1);
    cJSON_AddBoolToObject(o, "verified", 1);
    cJSON_AddBoolToObject(o, "key_removed", !m->keep_key);
    cJSON_AddStringToObject(o, "chip", m->chip);
    cJSON_AddStringToObject(o, "partition", m->partition);
    cJSON_AddNumberToObject(o, "offset", m->offset);
    cJSON_AddNumberToObject(o, "size", m->size);
    return o;
}

int flash_identify(char mac[MAC_TEXT_SIZE], const struct flash_plan *plan, struct failure *f)
{
    struct esptool tool;
    int rc = meet(&tool, plan, mac, f);
    if (rc == 0)
        snprintf(mac, MAC_TEXT_SIZE, "%s", tool.mac);
    esptool_close(&tool);
    return rc;
}

int flash_usage(const struct options *o, struct failure *f)
{
    if (!o->flash && (o->firmware.count || o->format || o->encoding || o->partition || o->space ||
                      o->key_name || o->cert_name || o->chain_name || o->ca_name || o->keep_key))
        return fail(f, EXIT_USAGE, "usage",
                    "what is to be written to the board (--firmware, --format, --partition, …) and "
                    "--keep-key go with --flash");
    return 0;
}

int flash_plan_take(struct flash_plan *out, const struct options *o, const struct settings *s,
                    struct failure *f)
{
    struct options image = *o;
    if (!image.format)
        image.format = "nvs";
    *out = (struct flash_plan){.esptool = s->esptool,
                               .port = o->port,
                               .baud = o->baud,
                               .firmware = &o->firmware,
                               .partition = o->partition,
                               .keep_key = o->keep_key};
    if (o->baud && (strspn(o->baud, "0123456789") != strlen(o->baud) || *o->baud == '0'))
        return fail(f, EXIT_USAGE, "usage", "--baud \"%s\" is not a speed such as 460800", o->baud);
    return image_options_take(&out->image, &image, f);
}
