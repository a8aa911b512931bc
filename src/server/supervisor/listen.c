#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/supervisor/supervisor.h"

static void bound_to(int socket, char text[80])
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    char host[64], port[8];
    if (getsockname(socket, (struct sockaddr *)&at, &len) ||
        getnameinfo((struct sockaddr *)&at, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(text, 80, "?");
    else
        snprintf(text, 80, at.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int try_listen(const struct addrinfo *at)
{
    static const int one = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, 1024) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

int listen_on(const char *address, char text[80], struct err *err)
{
    char host[64], port[8];
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM,
                                     .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    if (address_split(address, host, port, err))
        return -1;
    int rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (rc)
        return err_set(err, ERR_field_value, "cannot listen on %s: %s; give an IP address", address,
                       gai_strerror(rc));
    int fd = try_listen(found);
    /* fronts of a signetd that was killed hold the port for a moment longer than it */
    for (int i = 0; fd < 0 && errno == EADDRINUSE && i < 20; i++) {
        usleep(100000);
        fd = try_listen(found);
    }
    int why = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return err_set(err, ERR_internal, "cannot listen on %s: %s%s", address, strerror(why),
                       why == EADDRINUSE ? "; another program has the port, choose another" : "");
    bound_to(fd, text);
    return fd;
}
