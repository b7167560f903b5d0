"""A stream with system calls of its own, for plain sockets on POSIX.

One system call for a small write and for a small read, straight between the descriptor and the codec's
memory. Small writes keep the interpreter lock: they do not block (MSG_DONTWAIT) and are over sooner than the
lock would be handed back. Everything that may take longer is done without it. A signal's handler runs before the
call goes on (PEP 475), so that Ctrl-C ends a blocked call.
"""

import errno
import os
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno as c_errno
from libc.stdint cimport uint8_t

from fullduplex.codec._compiled cimport Decoder
from fullduplex.stream cimport Stream

from fullduplex.stream import WAIT_SLICE

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

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

cdef extern from "<string.h>" nogil:
    void *memset(void *target, int value, size_t size)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)
    int POLLIN
    int POLLOUT

cdef enum:
    HELD_SIZE = 16384  # writes up to this size keep the interpreter lock


@cython.final
cdef class FdStream(Stream):
    cdef int fd                   # the descriptor, -1 after close
    cdef double slice             # longest single wait in seconds, 0 for no bound

    def __init__(self, sock):
        Stream.__init__(self, sock)
        sock.settimeout(None)
        self.fd = sock.fileno()
        self.slice = WAIT_SLICE or 0.0

    cdef int _failed(self, int code) except -1:
        """After a failed call: 0 to wait and try again, 1 to try again at once; other errors are raised."""
        if code == EAGAIN or code == EWOULDBLOCK:
            return 0
        if code == EINTR:
            PyErr_CheckSignals()
            return 1
        raise OSError(code, os.strerror(code))

    cdef int _poll(self, short events, deadline) except -1:
        """Wait for the descriptor; 0 if the deadline came first. Also 1 when aborted, so that the caller looks."""
        cdef pollfd waited
        cdef double left
        cdef int timeout, found, code
        if deadline is not None and deadline <= 0.0:
            return 0
        while not self.aborted:
            # A signal that came while we waited for the interpreter lock does not interrupt poll().
            PyErr_CheckSignals()
            left = -1.0
            if deadline is not None:
                left = max(deadline - time.monotonic(), 0.0)
            if self.slice > 0.0 and (left < 0.0 or left > self.slice):
                left = self.slice
            # Rounded up: to wake too early would only mean to wait again.
            timeout = -1 if left < 0.0 else 2000000000 if left > 2000000.0 else <int>(left * 1000.0) + (left > 0.0)
            waited.fd = self.fd
            waited.events = events
            waited.revents = 0
            with nogil:
                found = poll(&waited, 1, timeout)
                code = c_errno
            if found > 0:
                return 1
            if found < 0:
                self._failed(code)
            elif deadline is not None and left >= 0.0 and time.monotonic() >= deadline:
                return 0
        return 1

    cdef Py_ssize_t _recv(self, uint8_t *place, size_t room, deadline) except -2:
        cdef Py_ssize_t count
        cdef int code, flags = 0 if deadline is None and self.slice == 0.0 else MSG_DONTWAIT
        while True:
            PyErr_CheckSignals()  # see _poll()
            with nogil:
                count = recv(self.fd, place, room, flags)
                code = c_errno
            if count >= 0:
                return count
            if self.aborted:
                return 0
            if not self._failed(code) and not self._poll(<short>POLLIN, deadline):
                return -1

    cpdef Py_ssize_t read(self, decoder, deadline) except? -2:
        cdef Decoder target = decoder
        cdef size_t room = 0
        # The reader's role keeps everybody else from the decoder while the lock is released.
        cdef uint8_t *place = target.space(&room)
        cdef Py_ssize_t count = self._recv(place, room, deadline)
        if count > 0:
            target.commit(<size_t>count)
        return count

    cpdef Py_ssize_t recv_into(self, view, deadline) except? -2:
        cdef Py_buffer target
        cdef Py_ssize_t count
        PyObject_GetBuffer(view, &target, PyBUF_WRITABLE)
        try:
            count = self._recv(<uint8_t *>target.buf, <size_t>target.len, deadline)
        finally:
            PyBuffer_Release(&target)
        return count

    cdef Py_ssize_t _send(self, const uint8_t *data, size_t size, bint wait) except -2:
        """Send once: the number of bytes, 0 if the network takes none now."""
        cdef Py_ssize_t count
        cdef int code, flags = MSG_NOSIGNAL | (0 if wait else MSG_DONTWAIT)
        while True:
            if size <= HELD_SIZE and not wait:
                count = send(self.fd, data, size, flags)
                code = c_errno
            else:
                with nogil:
                    count = send(self.fd, data, size, flags)
                    code = c_errno
            if count >= 0:
                return count
            if not self._failed(code):
                return 0

    cdef bint _send_all(self, const uint8_t *data, size_t size, deadline) except? -1:
        cdef Py_ssize_t count
        # Without a deadline the kernel waits for us: it wakes the thread less often than poll() does.
        cdef bint wait = False
        while size:
            count = self._send(data, size, wait)
            if count == <Py_ssize_t>size:
                break
            if count:
                self.torn = True
                data += count
                size -= <size_t>count
            # A blocking call that a signal cut short returns what it did, not EINTR.
            PyErr_CheckSignals()
            if deadline is None and self.slice == 0.0:
                wait = True
            elif count == 0 and not self.wait_writable(deadline):
                return False
        self.torn = False
        return True

    cpdef Py_ssize_t send_some(self, data) except? -2:
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._send(<const uint8_t *>view.buf, <size_t>view.len, False)
        finally:
            PyBuffer_Release(&view)

    cpdef bint wait_writable(self, deadline) except? -1:
        if self.aborted:
            raise BrokenPipeError(errno.EPIPE, "connection was aborted")
        return self._poll(<short>POLLOUT, deadline) != 0

    cpdef bint write(self, data, deadline) except? -1:
        cdef Py_buffer view
        if self.backlog and not self.flush(deadline):
            return False
        if type(data) is bytes:
            return self._send_all(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), deadline)
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._send_all(<const uint8_t *>view.buf, <size_t>view.len, deadline)
        finally:
            PyBuffer_Release(&view)

    cpdef bint _write_view(self, view, deadline) except? -1:
        return self.write(view, deadline)

    cpdef bint try_write(self, data) except? -1:
        cdef Py_ssize_t count = 0
        if not self.backlog and type(data) is bytes:
            count = self._send(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), False)
            if count == PyBytes_GET_SIZE(data):
                return True
            self.backlog = data[count:]
            return False
        self.backlog += bytes(data)
        return self.flush(0.0)

    cpdef bint write_large(self, bytes header, payload, deadline) except? -1:
        """One gathered write, as long as the kernel takes all of it."""
        cdef Py_buffer view
        cdef iovec parts[2]
        cdef msghdr message
        cdef Py_ssize_t count
        cdef Py_ssize_t size = PyBytes_GET_SIZE(header)
        cdef int code, flags = MSG_NOSIGNAL | (0 if deadline is None and self.slice == 0.0 else MSG_DONTWAIT)
        if self.backlog and not self.flush(deadline):
            return False
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            memset(&message, 0, sizeof(message))
            parts[0].iov_base = PyBytes_AS_STRING(header)
            parts[0].iov_len = <size_t>size
            parts[1].iov_base = view.buf
            parts[1].iov_len = <size_t>view.len
            message.msg_iov = parts
            message.msg_iovlen = 2
            with nogil:
                count = sendmsg(self.fd, &message, flags)
                code = c_errno
            if count < 0:
                self._failed(code)
                count = 0
            if count < size:
                self.torn = count > 0
                if not self._send_all(<const uint8_t *>PyBytes_AS_STRING(header) + count, <size_t>(size - count), deadline):
                    return False
                count = size
            self.torn = True
            PyErr_CheckSignals()
            return self._send_all(<const uint8_t *>view.buf + (count - size), <size_t>(view.len - (count - size)), deadline)
        finally:
            PyBuffer_Release(&view)

    def close(self):
        self.fd = -1
        Stream.close(self)
