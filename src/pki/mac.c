#include "pki/mac.h"

#include <string.h>

#include "common/bytes.h"

static int refuse_text(const char *text, struct err *err)
{
    return err_set(err, ERR_csr_cn_not_mac,
                   "\"%.64s\" is not a MAC address; write it as 24:0a:c4:12:34:56", text);
}

/* The hex digits of text without its separators, which must be all the same and between each two
 * pairs, or absent. */
static int strip(char digits[17], const char *text)
{
    size_t n = 0, len = strlen(text);
    char separator = len > 2 && (text[2] == ':' || text[2] == '-') ? text[2] : '\0';
    size_t step = separator ? 3 : 2;
    for (size_t i = 0; i < len; i++) {
        if (separator && i % step == 2) {
            if (text[i] != separator || i + 1 == len)
                return -1;
        } else {
            if (n == 16)
                return -1;
            digits[n++] = text[i];
        }
    }
    digits[n] = '\0';
    return n == 12 || n == 16 ? 0 : -1;
}

/* IEEE 802-2014 section 8.2: the lowest bit of the first byte marks a group; all ones, the
 * broadcast address, is one. */
static int check_unicast(const uint8_t *mac, size_t len, struct err *err)
{
    uint8_t any = 0;
    for (size_t i = 0; i < len; i++)
        any |= mac[i];
    if (!any || (mac[0] & 1))
        return err_set(err, ERR_mac_not_unicast, NULL);
    return 0;
}

int mac_from_text(char out[MAC_TEXT_SIZE], const char *text, struct err *err)
{
    char digits[17];
    uint8_t mac[8];
    size_t len;
    if (strip(digits, text) || hex_decode(mac, sizeof mac, &len, digits))
        return refuse_text(text, err);
    if (check_unicast(mac, len, err))
        return -1;
    for (size_t i = 0; i < len; i++) {
        hex_encode(out + 3 * i, (struct bytes){mac + i, 1});
        out[3 * i + 2] = i + 1 < len ? ':' : '\0';
    }
    return 0;
}

int mac_check(const char *text, struct err *err)
{
    char canonical[MAC_TEXT_SIZE];
    if (mac_from_text(canonical, text, err))
        return -1;
    return strcmp(canonical, text) ? refuse_text(text, err) : 0;
}
