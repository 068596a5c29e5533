/* The limit: an epoll server that echoes, or discards, and does nothing else.
 *
 *     echo_server [--discard]        prints {"port": N} once it listens
 *
 * One thread, level-triggered, one recv and one send an event. What the kernel will
 * not take is kept for the connection, which is not read again until it has gone:
 * without that the 100 KiB echo would be unfair to servers that do keep it.
 *
 *     cc -O2 echo_server.c -o echo_server
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536

struct conn {
    int fd;
    char *pending; /* allocated only while the kernel's buffer is full */
    size_t size, sent;
};

static int epoll_fd;
static bool discard;
static char scratch[READ_SIZE];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct conn *c, int operation, uint32_t mask)
{
    struct epoll_event event = {.events = mask, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) < 0)
        fail("epoll_ctl");
}

static void drop(struct conn *c)
{
    close(c->fd);
    free(c->pending);
    free(c);
}

static void keep(struct conn *c, const char *data, size_t size)
{
    c->pending = malloc(size);
    if (!c->pending)
        fail("malloc");
    memcpy(c->pending, data, size);
    c->size = size;
    c->sent = 0;
    watch(c, EPOLL_CTL_MOD, EPOLLOUT);
}

static void readable(struct conn *c)
{
    ssize_t n = recv(c->fd, scratch, sizeof scratch, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    if (discard)
        return;
    ssize_t sent = send(c->fd, scratch, (size_t)n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        drop(c);
    else if (sent < n)
        keep(c, scratch + (sent < 0 ? 0 : sent), (size_t)(n - (sent < 0 ? 0 : sent)));
}

static void writable(struct conn *c)
{
    ssize_t n = send(c->fd, c->pending + c->sent, c->size - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN)
            drop(c);
        return;
    }
    c->sent += (size_t)n;
    if (c->sent == c->size) {
        free(c->pending);
        c->pending = NULL;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void accept_all(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            fail("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        fail("accept4");
}

int main(int argc, char **argv)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    struct rlimit files;
    discard = argc > 1 && strcmp(argv[1], "--discard") == 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0
        || listen(listener, 1024) < 0 || getsockname(listener, (struct sockaddr *)&at, &size) < 0)
        fail("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[64];
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        fail("epoll");
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);

    for (;;) {
        int n = epoll_wait(epoll_fd, events, 64, -1);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c)
                accept_all(listener);
            else if (events[i].events & EPOLLOUT)
                writable(c);
            else
                readable(c);
        }
    }
}
