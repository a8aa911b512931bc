#include "server/front/error_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <event2/http.h>
#include "server/front/answer.h"

const char *http_phrase(int status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 422:
        return "Unprocessable Content";
    case 429:
        return "Too Many Requests";
    case 431:
        return "Request Header Fields Too Large";
    case 503:
        return "Service Unavailable";
    default:
        return NULL;
    }
}

static int is_error_page(struct evbuffer *out, size_t added)
{
    struct evbuffer_ptr at;
    struct evbuffer_iovec piece;
    size_t len = evbuffer_get_length(out);
    return added >= 6 && added <= len &&
           evbuffer_ptr_set(out, &at, len - added, EVBUFFER_PTR_SET) == 0 &&
           evbuffer_peek(out, 6, &at, &piece, 1) == 1 && piece.iov_len >= 6 &&
           memcmp(piece.iov_base, "<HTML>", 6) == 0;
}

/* The status of the answer that stands at the start of the buffer; 0: something else stands there.
 */
static int status_of(struct evbuffer *out)
{
    char line[16] = "";
    struct evbuffer_iovec piece;
    int status = 0;
    if (evbuffer_peek(out, 12, NULL, &piece, 1) != 1 || piece.iov_len < 12)
        return 0;
    memcpy(line, piece.iov_base, 12);
    return sscanf(line, "HTTP/%*d.%*d %3d", &status) == 1 ? status : 0;
}

static enum err_code code_of(int status, const struct arrival *arrival)
{
    switch (status) {
    case HTTP_ENTITYTOOLARGE:
        return ERR_body_too_large;
    case HTTP_SERVUNAVAIL:
        return ERR_busy;
    default:
        return arrival && arrival_header_too_large(arrival) ? ERR_header_too_large
                                                            : ERR_http_malformed;
    }
}

char *error_page(enum err_code code, size_t *len)
{
    int status = err_http_status(code);
    char *page = NULL, *json = answer_error(OP_NONE, code, NULL);
    int n = json ? asprintf(&page,
                            "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                            status, http_phrase(status), strlen(json), json)
                 : -1;
    free(json);
    *len = n > 0 ? (size_t)n : 0;
    return n > 0 ? page : NULL;
}

static void replace(struct evbuffer *out, const struct evbuffer_cb_info *info, void *arg)
{
    int status;
    size_t len;
    if (!is_error_page(out, info->n_added) || (status = status_of(out)) == 0)
        return;
    char *page = error_page(code_of(status, arg), &len);
    evbuffer_unfreeze(out, 1); /* a plain bufferevent guards its start */
    evbuffer_drain(out, evbuffer_get_length(out));
    if (page)
        evbuffer_add(out, page, len);
    free(page);
}

int error_page_watch(struct evbuffer *output, const struct arrival *arrival)
{
    return evbuffer_add_cb(output, replace, (void *)arrival) ? 0 : -1;
}
