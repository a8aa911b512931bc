#include "common/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

struct secret {
    size_t len;
    char bytes[SECRET_MAX + 1];
};

/* A page of its own, so that locking and advice touch nothing else. What a PKCS#11 module forks has
 * no copy. */
static struct secret *secret_new(struct err *err)
{
    struct secret *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) {
        err_set(err, ERR_internal, "no memory for a secret: %s", strerror(errno));
        return NULL;
    }
    if (mlock(s, sizeof *s) || madvise(s, sizeof *s, MADV_DONTDUMP) ||
        madvise(s, sizeof *s, MADV_DONTFORK)) {
        err_set(err, ERR_internal, "cannot lock memory for a secret: %s; raise RLIMIT_MEMLOCK",
                strerror(errno));
        munmap(s, sizeof *s);
        return NULL;
    }
    return s;
}

void secret_free(struct secret *s)
{
    if (!s)
        return;
    OPENSSL_cleanse(s, sizeof *s);
    munmap(s, sizeof *s);
}

const char *secret_bytes(const struct secret *s, size_t *len)
{
    if (len)
        *len = s->len;
    return s->bytes;
}

int secret_from_bytes(struct secret **out, const char *bytes, size_t len, struct err *err)
{
    if (len && bytes[len - 1] == '\n') {
        len--;
        if (len && bytes[len - 1] == '\r')
            len--;
    }
    if (len == 0)
        return err_set(err, ERR_internal, "the PIN is empty");
    if (len > SECRET_MAX || memchr(bytes, '\0', len))
        return err_set(err, ERR_internal, "the PIN is longer than %d bytes or holds a NUL",
                       SECRET_MAX);
    struct secret *s = secret_new(err);
    if (!s)
        return -1;
    memcpy(s->bytes, bytes, len);
    s->len = len;
    *out = s;
    return 0;
}

int secret_from_fd(struct secret **out, int fd, struct err *err)
{
    char bytes[SECRET_MAX + 3]; /* room for a line end, and one more to see that it is too long */
    size_t len = 0;
    ssize_t n = 0;
    while (len < sizeof bytes && (n = read(fd, bytes + len, sizeof bytes - len)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        len += (size_t)n;
    }
    int rc = n < 0 ? err_set(err, ERR_internal, "cannot read the PIN: %s", strerror(errno))
                   : secret_from_bytes(out, bytes, len, err);
    OPENSSL_cleanse(bytes, sizeof bytes);
    return rc;
}

/* Others must not be able to read it: a PIN that anyone can read protects nothing. */
static int check_mode(int fd, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_set(err, ERR_internal, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_internal, "%s: not a regular file", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(err, ERR_internal, "%s: owned by user %u; it must be yours or root's", path,
                       st.st_uid);
    if (st.st_mode & 077)
        return err_set(err, ERR_internal, "%s: mode %03o lets others read it; chmod 600 it", path,
                       st.st_mode & 0777);
    return 0;
}

int secret_from_file(struct secret **out, const char *path, struct err *err)
{
    if (strcmp(path, "-") == 0)
        return secret_from_fd(out, STDIN_FILENO, err);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, ERR_internal, "cannot open the PIN file %s: %s", path, strerror(errno));
    int rc = check_mode(fd, path, err);
    if (rc == 0 && (rc = secret_from_fd(out, fd, err)))
        err_prefix(err, "%s", path);
    close(fd);
    return rc;
}

static int read_line(int fd, char *line, size_t size, size_t *len)
{
    *len = 0;
    while (*len < size) {
        ssize_t n = read(fd, line + *len, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -1 : 0;
        if (line[(*len)++] == '\n')
            return 0;
    }
    return 0;
}

int secret_from_prompt(struct secret **out, const char *prompt, struct err *err)
{
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (tty < 0)
        return err_set(err, ERR_internal, "no terminal to ask for the PIN on; give a PIN file");
    struct termios old, quiet;
    char line[SECRET_MAX + 2];
    size_t len = 0;
    int rc = -1;
    if (tcgetattr(tty, &old))
        goto out;
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    if (tcsetattr(tty, TCSAFLUSH, &quiet))
        goto out;
    dprintf(tty, "%s", prompt);
    rc = read_line(tty, line, sizeof line, &len);
    dprintf(tty, "\n");
    tcsetattr(tty, TCSAFLUSH, &old);
out:
    if (rc)
        err_set(err, ERR_internal, "cannot read the PIN from the terminal: %s", strerror(errno));
    else
        rc = secret_from_bytes(out, line, len, err);
    OPENSSL_cleanse(line, sizeof line);
    close(tty);
    return rc;
}
