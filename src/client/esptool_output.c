#include "client/esptool_output.h"

#include <stdio.h>
#include <string.h>

#include "client/answer.h"

#define LINE_MAX_SIZE 256 /* longer lines are none that matter */

#define GO_ON "give the same command again"
#define BOOT_MODE "hold the BOOT button, press and let go EN (RESET), let go BOOT, and " GO_ON

#define GONE "the board went away: plug it in and " GO_ON
#define STOPPED "the board stopped answering: check cable and power, and " GO_ON
#define MONITOR "another program has the port: close the serial monitor"
#define SECURE_DOWNLOAD                                                                            \
    "the board is in secure download mode, where nothing can be read back, so it cannot be "       \
    "verified; such a board is not for signet provision --flash"
#define OLD "this esptool is too old: 4.7 is needed"

/* The first that fits: what is particular stands before what is general. */
static const struct esptool_problem problems[] = {
    {"Permission denied", "port_permission",
     "you may not use this port: sudo usermod -aG dialout $USER, then log out and in again"},
    {"No such file or directory: '/dev", "port_missing",
     "the port is gone: plug the board in and look at ls /dev/serial/by-id"},
    {"Device or resource busy", "port_busy", MONITOR},
    {"Could not exclusively lock port", "port_busy", MONITOR},
    {"the port is busy or doesn't exist", "port_failed",
     "the port cannot be opened: is the board plugged in, and no serial monitor running?"},
    {"Secure Download Mode", "secure_download_mode", SECURE_DOWNLOAD},
    {"secure download mode", "secure_download_mode", SECURE_DOWNLOAD},
    {"Wrong boot mode detected", "wrong_boot_mode",
     "the board runs its firmware, not the loader: " BOOT_MODE},
    {"serial TX path seems to be down", "no_answer",
     "the board is in boot mode but hears nothing: check the line to its RX pin"},
    {"Failed to connect", "no_answer",
     "no board answers: check cable and power (some cables have no data lines); if it is there, "
     "put it into boot mode: " BOOT_MODE},
    {"MD5 of file does not match", "flash_differs",
     "the flash does not hold what was written: give the same command again, with a lower --baud "
     "or a shorter cable; if it stays so, the board's flash or its supply is bad"},
    {"flash encryption", "board_protected",
     "the board's flash is encrypted or protected, so what is written cannot be read back"},
    {"Secure Boot detected", "board_protected",
     "the board has secure boot on, which forbids writing there"},
    {"will not fit in", "firmware_too_large", "a file is larger than the board's flash"},
    {"Use --force to flash anyway", "firmware_wrong_chip", "the firmware is for another chip"},
    {"Failed to autodetect chip type", "chip_unknown",
     "this esptool does not know the chip: get a newer one (pip install --upgrade esptool)"},
    {"ModuleNotFoundError", "esptool_failed", "this esptool is not installed completely"},
    {"unrecognized arguments", "esptool_failed", OLD},
    {"invalid choice", "esptool_failed", OLD},
    {"serial exception error", "board_gone", GONE},
    {"Input/output error", "board_gone", GONE},
    {"The chip stopped responding", "board_gone", STOPPED},
    {"No serial data received", "board_gone", STOPPED},
    {"Packet content transfer stopped", "board_gone", STOPPED},
    {"Serial data stream stopped", "board_gone", STOPPED},
};

static int has(struct bytes text, const char *what)
{
    return text.len && memmem(text.data, text.len, what, strlen(what)) != NULL;
}

const struct esptool_problem *esptool_problem(struct bytes text)
{
    for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++)
        if (has(text, problems[i].said))
            return &problems[i];
    return NULL;
}

/* ESC [ … letter (ECMA-48), as versions from 5 on write it to what they take for a terminal */
static size_t skip_escape(const uint8_t *at, size_t left)
{
    size_t n = 2;
    if (left < 2 || at[0] != 0x1b || at[1] != '[')
        return 0;
    while (n < left && at[n] >= 0x20 && at[n] < 0x40)
        n++;
    return n < left ? n + 1 : n;
}

/* The next complete line, without escapes and the spaces around it; 0: there is none. */
static int next_line(char line[LINE_MAX_SIZE], struct bytes *text)
{
    size_t end = 0, n = 0;
    while (end < text->len && text->data[end] != '\n' && text->data[end] != '\r')
        end++;
    if (end == text->len)
        return 0;
    for (size_t i = 0; i < end;) {
        size_t escape = skip_escape(text->data + i, end - i);
        uint8_t c = text->data[i];
        if (!escape && n < LINE_MAX_SIZE - 1 && (n || (c != ' ' && c != '\t')))
            line[n++] = c ? (char)c : '?';
        i += escape ? escape : 1;
    }
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\t'))
        n--;
    line[n] = '\0';
    text->data += end + 1;
    text->len -= end + 1;
    return 1;
}

/* "NAME:   value" -> value; NULL: another line */
static const char *value_of(const char *line, const char *name)
{
    size_t len = strlen(name);
    if (strncmp(line, name, len) != 0)
        return NULL;
    line += len;
    return line + strspn(line, " ");
}

/* Printed twice by read_mac: both must be the same. */
static int take_mac(char out[MAC_TEXT_SIZE], const char *value, struct err *err)
{
    char mac[MAC_TEXT_SIZE];
    if (mac_from_text(mac, value, err))
        return err_prefix(err, "esptool");
    if (*out && strcmp(out, mac) != 0)
        return err_set(err, ERR_internal, "esptool: two MACs in one run, %s and %s", out, mac);
    snprintf(out, MAC_TEXT_SIZE, "%s", mac);
    return 0;
}

static int take_line(struct esptool_output *out, char base[MAC_TEXT_SIZE], const char *line,
                     struct err *err)
{
    const char *value;
    if ((value = value_of(line, "MAC:")))
        return take_mac(out->mac, value, err);
    if ((value = value_of(line, "BASE MAC:")))
        return take_mac(base, value, err);
    if ((value = value_of(line, "Chip is ")) || (value = value_of(line, "Chip type:")))
        printable(out->chip, sizeof out->chip, value);
    else if (value_of(line, "Hash of data verified"))
        out->verified++;
    return 0;
}

int esptool_parse(struct esptool_output *out, struct bytes text, struct err *err)
{
    char line[LINE_MAX_SIZE], base[MAC_TEXT_SIZE] = "";
    *out = (struct esptool_output){0};
    while (next_line(line, &text))
        if (take_line(out, base, line, err))
            return -1;
    if (*base)
        memcpy(out->mac, base, sizeof base);
    return 0;
}

void esptool_reason(char *out, size_t size, struct bytes text)
{
    char line[LINE_MAX_SIZE], last[LINE_MAX_SIZE] = "it said nothing";
    static const char error[] = "error occurred: ";
    while (next_line(line, &text)) {
        const char *found = strstr(line, error);
        if (found) {
            printable(out, size, found + strlen(error));
            return;
        }
        if (*line)
            memcpy(last, line, sizeof last);
    }
    printable(out, size, last);
}

void esptool_first_line(char *out, size_t size, struct bytes text)
{
    char line[LINE_MAX_SIZE] = "";
    if (!next_line(line, &text))
        *line = '\0';
    printable(out, size, line);
}

int esptool_lacks_stub(struct bytes text)
{
    return has(text, "stub_flasher") && has(text, "No such file");
}

int esptool_has_written(struct bytes text)
{
    return has(text, "Erasing flash") || has(text, "Compressed ") || has(text, "Writing at");
}
