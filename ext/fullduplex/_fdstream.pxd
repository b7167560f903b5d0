# cython: language_level=3
"""What `fullduplex._fdstream` needs of the system, and of the inside of Python's sockets."""

cdef extern from "<sys/types.h>" nogil:
    ctypedef Py_ssize_t ssize_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        # ssize_t stands for whatever integer type the platform has here
        size_t msg_iovlen
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int MSG_DONTWAIT

cdef extern from *:
    """
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0
    #endif
    """
    int MSG_NOSIGNAL

cdef extern from "<errno.h>" nogil:
    int EWOULDBLOCK

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    int POLLIN
    int POLLOUT

cdef extern from *:
    """
    /* The number that a socket.socket has now, -1 once it was closed: PySocketSockObject.sock_fd in CPython. */
    static inline const int *fdx_number_of(PyObject *sock)
    {
        return (const int *)(const void *)((const char *)sock + sizeof(PyObject));
    }
    /* In its place, where there is no socket. */
    static const int fdx_closed = -1;
    /* Another thread may close the socket at any time. */
    #define fdx_number(at) __atomic_load_n(at, __ATOMIC_RELAXED)
    """
    const int *fdx_number_of(object sock)
    const int fdx_closed
    int fdx_number(const int *) nogil
