#include <stdlib.h>
#include <time.h>

#include "common/log.h"
#include "server/authority/authority.h"

int64_t now_seconds(void)
{
    return (int64_t)time(NULL);
}

struct question *question_new(struct peer *peer, uint64_t id)
{
    struct question *q = calloc(1, sizeof *q);
    if (!q)
        fatal("no memory for a question"); /* bounded by the credits: there is no going on */
    q->peer = peer;
    q->id = id;
    peer->open++;
    return q;
}

void question_end(struct question *q)
{
    q->peer->open--;
    if (!q->peer->channel && q->peer->open == 0)
        free(q->peer);
    free(q);
}

void question_answer(struct question *q, enum msg_type type, const void *body)
{
    if (q->peer->channel && channel_send(q->peer->channel, type, q->id, body, -1))
        log_warn("an answer (%s) could not be sent", msg_name(type));
    question_end(q);
}

void question_refuse(struct question *q, const struct err *err)
{
    struct msg_answer_error m = {.code = err->code, .detail = err->text};
    if (err_http_status(err->code) == 503)
        m.retry_after = 1;
    if (err->code == ERR_too_many)
        m.retry_after = (uint32_t)(3600 - now_seconds() % 3600);
    question_answer(q, MSG_answer_error, &m);
}

void peer_gone(struct peer *peer)
{
    peer->channel = NULL;
    if (peer->open == 0)
        free(peer);
}
