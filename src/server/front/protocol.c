#include "server/front/protocol.h"

#include <string.h>
#include <sys/queue.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/util.h>

unsigned protocol_header_count(const struct evhttp_request *req, const char *name)
{
    unsigned n = 0;
    const struct evkeyval *header;
    for (header = req->input_headers->tqh_first; header; header = header->next.tqe_next)
        n += evutil_ascii_strcasecmp(header->key, name) == 0;
    return n;
}

/* token, RFC 9110 section 5.6.2 */
static int is_token(const char *name)
{
    size_t len = strspn(name, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                              "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return len > 0 && !name[len];
}

static int check_names(const struct evhttp_request *req, struct err *err)
{
    const struct evkeyval *header;
    for (header = req->input_headers->tqh_first; header; header = header->next.tqe_next)
        if (!is_token(header->key))
            return err_set(err, ERR_http_malformed, "a header's name is malformed");
    return 0;
}

/* evhttp takes a body with another coding for none, and its bytes for the next request
 * (RFC 9112 section 6.1: what is not understood is refused). */
static int check_coding(const struct evhttp_request *req, struct err *err)
{
    const char *coding = evhttp_find_header(req->input_headers, "Transfer-Encoding");
    if (coding && req->minor == 0)
        return err_set(err, ERR_http_malformed, "HTTP/1.0 has no Transfer-Encoding");
    if (coding && evutil_ascii_strcasecmp(coding, "chunked"))
        return err_set(err, ERR_http_malformed, "the only Transfer-Encoding here is chunked");
    return 0;
}

static int check_length(const struct evhttp_request *req, struct err *err)
{
    unsigned lengths = protocol_header_count(req, "Content-Length");
    unsigned encodings = protocol_header_count(req, "Transfer-Encoding");
    const char *length = evhttp_find_header(req->input_headers, "Content-Length");
    if (lengths > 1 || encodings > 1 || (lengths && encodings))
        return err_set(err, ERR_http_malformed,
                       "more than one of Content-Length and Transfer-Encoding");
    if (check_coding(req, err))
        return -1;
    if (length && (!*length || length[strspn(length, "0123456789")]))
        return err_set(err, ERR_http_malformed, "Content-Length is not a number");
    /* evhttp reads no body here, and would take it for the next request */
    int reads_body =
        evhttp_request_get_command(req) & (EVHTTP_REQ_POST | EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH |
                                           EVHTTP_REQ_GET | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
    if (!reads_body && (encodings || (length && strspn(length, "0") != strlen(length))))
        return err_set(err, ERR_http_malformed, "this method takes no body");
    return 0;
}

int protocol_check(const struct evhttp_request *req, struct err *err)
{
    unsigned hosts = protocol_header_count(req, "Host");
    if (req->major != 1 || (req->minor != 0 && req->minor != 1))
        return err_set(err, ERR_http_malformed, "HTTP/1.0 or HTTP/1.1 is spoken here");
    if (hosts > 1 || (hosts == 0 && req->minor == 1)) /* RFC 9112 section 3.2 */
        return err_set(err, ERR_http_malformed, "send exactly one Host header");
    if (check_names(req, err))
        return -1;
    return check_length(req, err);
}
