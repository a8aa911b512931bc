/* The body of an EST enrolment, as a front takes it from a stranger: base64 in any layout, with a
 * CSR in it. Seeds: ../corpus/est */
#include <stdlib.h>
#include <string.h>
#include "pki/csr.h"
#include "pki/est.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was decoded comes back from either layout. */
static void check_round(struct bytes der, int lines)
{
    size_t len = 0;
    char *text = est_encode(der, lines);
    uint8_t *back =
        text ? est_decode((struct bytes){(const uint8_t *)text, strlen(text)}, &len) : NULL;
    if (!back || len != der.len || (len && memcmp(back, der.data, len) != 0))
        abort();
    free(text), free(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = 0;
    uint8_t *der = est_decode((struct bytes){data, size}, &len);
    struct buf certificate = {0};
    struct csr *csr = NULL;
    struct err err;
    if (!der)
        return 0;
    check_round((struct bytes){der, len}, 0);
    check_round((struct bytes){der, len}, 1);
    if (!csr_parse(&csr, (struct bytes){der, len}, &err))
        csr_free(csr);
    if (!est_certificate(&certificate, (struct bytes){der, len}) && certificate.len == 0)
        abort();
    buf_free(&certificate);
    free(der);
    return 0;
}
