/* One non-blocking client connection to 127.0.0.1, plain or TLS 1.3.
 *
 * The loads above speak in bytes and know nothing of OpenSSL; built with
 * -DNO_TLS nothing here does either. Any real error ends the program: a load
 * that lost a connection has measured nothing worth printing.
 */
#ifndef WIRE_H
#define WIRE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#ifndef NO_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
typedef void SSL_CTX;
#endif

/* What wire_send and wire_recv answer when no byte moved. */
#define WIRE_AGAIN 0
#define WIRE_EOF (-1)

struct wire {
    int fd;
    bool connected;   /* TCP is up */
    bool ready;       /* and so is TLS, where there is any */
    bool wants_write; /* the last AGAIN waits for room, not for bytes */
    bool closing;     /* we said goodbye: an abrupt end is an end, not a failure */
    SSL *ssl;
};

__attribute__((noreturn, format(printf, 1, 2)))
static inline void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
#ifndef NO_TLS
    ERR_print_errors_fp(stderr);
#endif
    exit(1);
}

#ifndef NO_TLS
/* No certificate check: the server is our own child on the loopback, and the
 * check would be the client's time, which nobody measures. */
static inline SSL_CTX *wire_tls_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION))
        die("cannot set up TLS 1.3");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE
                              | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                              | SSL_MODE_RELEASE_BUFFERS);
    /* Some servers leave without a close_notify. Lost bytes are found by
     * comparing them, so this is an end like any other here. */
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    return context;
}

/* Translate a failed SSL call into AGAIN or EOF, or die. */
static inline ssize_t wire_tls_outcome(struct wire *w, int result, const char *what)
{
    switch (SSL_get_error(w->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        w->wants_write = false;
        return WIRE_AGAIN;
    case SSL_ERROR_WANT_WRITE:
        w->wants_write = true;
        return WIRE_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return WIRE_EOF;
    default:
        if (w->closing) {
            ERR_clear_error();
            return WIRE_EOF;
        }
        die("TLS %s failed (errno %d: %s)", what, errno, strerror(errno));
    }
}
#else
static inline SSL_CTX *wire_tls_context(void)
{
    die("built without TLS: install the OpenSSL headers and build again");
}
#endif

/* The address of the server: TCP on loopback, or the abstract Unix socket that it
 * names by the same number. Returns its size. */
static inline socklen_t wire_address(struct sockaddr_storage *to, int port, bool is_unix)
{
    memset(to, 0, sizeof *to);
    if (!is_unix) {
        struct sockaddr_in *in = (struct sockaddr_in *)to;
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return sizeof *in;
    }
    struct sockaddr_un *un = (struct sockaddr_un *)to;
    un->sun_family = AF_UNIX;
    int length = snprintf(un->sun_path + 1, sizeof un->sun_path - 1, "headrace-benchmark-%d", port);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static inline void wire_open(struct wire *w, int port, bool is_unix, SSL_CTX *tls)
{
    struct sockaddr_storage to;
    socklen_t size = wire_address(&to, port, is_unix);
    memset(w, 0, sizeof *w);
    w->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (w->fd < 0)
        die("socket: %s", strerror(errno));
    int one = 1;
    if (!is_unix)
        setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(w->fd, (struct sockaddr *)&to, size) == 0)
        w->connected = true;
    else if (errno != EINPROGRESS)
        die("connect: %s", strerror(errno));
#ifndef NO_TLS
    if (tls) {
        w->ssl = SSL_new(tls);
        if (!w->ssl || !SSL_set_fd(w->ssl, w->fd))
            die("cannot make a TLS connection");
        SSL_set_connect_state(w->ssl);
    }
#else
    (void)tls;
#endif
    w->wants_write = true; /* the first event, also if it connects at once, is being writable */
}

/* Carry on with connecting; true once bytes may be sent. */
static inline bool wire_establish(struct wire *w)
{
    if (w->ready)
        return true;
    if (!w->connected) {
        int error = 0;
        socklen_t size = sizeof error;
        struct sockaddr_storage peer;
        socklen_t peer_size = sizeof peer;
        getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            die("connect: %s", strerror(error));
        if (getpeername(w->fd, (struct sockaddr *)&peer, &peer_size) != 0)
            return false;
        w->connected = true;
    }
    w->wants_write = false;
#ifndef NO_TLS
    if (w->ssl) {
        int result = SSL_do_handshake(w->ssl);
        if (result != 1) {
            if (wire_tls_outcome(w, result, "handshake") == WIRE_EOF)
                die("the server closed during the handshake");
            return false;
        }
        w->wants_write = false;
    }
#endif
    w->ready = true;
    return true;
}

static inline ssize_t wire_send(struct wire *w, const void *data, size_t size)
{
#ifndef NO_TLS
    if (w->ssl) {
        int n = SSL_write(w->ssl, data, size > 1 << 30 ? 1 << 30 : (int)size);
        return n > 0 ? n : wire_tls_outcome(w, n, "write");
    }
#endif
    ssize_t n = send(w->fd, data, size, MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    if (errno != EAGAIN)
        die("send: %s", strerror(errno));
    w->wants_write = true;
    return WIRE_AGAIN;
}

static inline ssize_t wire_recv(struct wire *w, void *into, size_t size)
{
#ifndef NO_TLS
    if (w->ssl) {
        int n = SSL_read(w->ssl, into, (int)size);
        return n > 0 ? n : wire_tls_outcome(w, n, "read");
    }
#endif
    ssize_t n = recv(w->fd, into, size, 0);
    if (n > 0)
        return n;
    if (n == 0 || (w->closing && errno == ECONNRESET))
        return WIRE_EOF;
    if (errno != EAGAIN)
        die("recv: %s", strerror(errno));
    w->wants_write = false;
    return WIRE_AGAIN;
}

/* Say that no more will be sent, and stay able to read; false means: call again
 * when there is room. In TLS that is a close_notify alone, since a FIN beside it
 * would spare a server from answering with its own. */
static inline bool wire_half_close(struct wire *w)
{
#ifndef NO_TLS
    if (w->ssl) {
        int result = SSL_shutdown(w->ssl);
        if (result < 0 && wire_tls_outcome(w, result, "shutdown") == WIRE_AGAIN)
            return false;
        w->closing = true;
        return true;
    }
#endif
    shutdown(w->fd, SHUT_WR);
    w->closing = true;
    return true;
}

static inline void wire_close(struct wire *w)
{
#ifndef NO_TLS
    if (w->ssl)
        SSL_free(w->ssl);
#endif
    close(w->fd);
    w->fd = -1;
}

#endif
