"""The system calls of the native way, as C declares them; what Cython ships has no epoll and no
accept4."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/ioctl.h>
    #include <linux/sockios.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <sys/un.h>
    #include <unistd.h>
    """
    ctypedef union epoll_data_t:
        uint64_t u64

    struct epoll_event:
        uint32_t events
        epoll_data_t data

    ctypedef unsigned int socklen_t

    struct sockaddr:
        unsigned short sa_family

    struct sockaddr_storage:
        unsigned short ss_family

    struct iovec:
        void *iov_base
        size_t iov_len

    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen

    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    uint32_t EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLET
    int MSG_NOSIGNAL, MSG_DONTWAIT, MSG_TRUNC, MSG_MORE
    int IPPROTO_TCP, TCP_CORK
    unsigned long SIOCOUTQ
    int SHUT_WR, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR
    int AF_INET, AF_INET6
    int EAGAIN, EWOULDBLOCK, EINTR, ENOBUFS, ENOMEM, EMFILE, ENFILE
    int ECONNABORTED, EPROTO, EBADF, EINVAL, ENOTSOCK
    int errno

    int epoll_create1(int flags) nogil
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event *event) nogil
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds) nogil
    ssize_t recv(int descriptor, void *buffer, size_t size, int flags) nogil
    ssize_t send(int descriptor, const void *buffer, size_t size, int flags) nogil
    ssize_t sendmsg(int descriptor, const msghdr *message, int flags) nogil
    int accept4(int descriptor, sockaddr *address, socklen_t *size, int flags) nogil
    int getsockname(int descriptor, sockaddr *address, socklen_t *size) nogil
    int getpeername(int descriptor, sockaddr *address, socklen_t *size) nogil
    int getsockopt(int descriptor, int level, int option, void *value, socklen_t *size) nogil
    int setsockopt(int descriptor, int level, int option, const void *value, socklen_t size) nogil
    int shutdown(int descriptor, int how) nogil
    int ioctl(int descriptor, unsigned long request, int *answer) nogil
    int close(int descriptor) nogil
