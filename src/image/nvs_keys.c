/* Encryption of an NVS partition, and the partition that its keys stand in. */
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <string.h>

#include "image/nvs.h"

EVP_CIPHER_CTX *nvs_cipher(const uint8_t keys[NVS_KEYS_SIZE], int encrypt)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (ctx && EVP_CipherInit_ex(ctx, EVP_aes_256_xts(), NULL, keys, NULL, encrypt) == 1)
        return ctx;
    EVP_CIPHER_CTX_free(ctx);
    return NULL;
}

int nvs_crypt(EVP_CIPHER_CTX *ctx, uint8_t entry[NVS_ENTRY], size_t offset)
{
    uint8_t tweak[16] = {0}, in[NVS_ENTRY];
    int len = 0;
    put32(tweak, (uint32_t)offset);
    memcpy(in, entry, sizeof in);
    int good = EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, -1) == 1 &&
               EVP_CipherUpdate(ctx, entry, &len, in, sizeof in) == 1 && len == NVS_ENTRY;
    OPENSSL_cleanse(in, sizeof in);
    return good ? 0 : -1;
}

int nvs_keys_make(uint8_t out[NVS_KEYS_SIZE], struct err *err)
{
    return RAND_priv_bytes(out, NVS_KEYS_SIZE) == 1
               ? 0
               : err_set(err, ERR_internal, "no random numbers: %s", err_openssl());
}

int nvs_keys_build(struct buf *out, const uint8_t keys[NVS_KEYS_SIZE], struct err *err)
{
    if (blank_image(out, NVS_SECTOR, err))
        return -1;
    memcpy(out->data, keys, NVS_KEYS_SIZE);
    put32(out->data + NVS_KEYS_SIZE, rom_crc(keys, NVS_KEYS_SIZE));
    return 0;
}

int nvs_keys_read(uint8_t out[NVS_KEYS_SIZE], struct bytes in, struct err *err)
{
    if (in.len < NVS_KEYS_SIZE + 4)
        return err_set(err, ERR_internal, "the NVS keys are %d bytes and a CRC; here are %zu bytes",
                       NVS_KEYS_SIZE, in.len);
    uint32_t crc = rom_crc(in.data, NVS_KEYS_SIZE), found = get32(in.data + NVS_KEYS_SIZE);
    if (crc != found)
        return err_set(err, ERR_internal, "the CRC of the NVS keys is %08x, and %08x stands there",
                       crc, found);
    if (memcmp(in.data, in.data + NVS_KEYS_SIZE / 2, NVS_KEYS_SIZE / 2) == 0)
        return err_set(err, ERR_internal, "both NVS keys are the same: XTS needs two");
    memcpy(out, in.data, NVS_KEYS_SIZE);
    return 0;
}
