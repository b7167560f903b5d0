"""A stream with system calls of its own, for plain sockets on POSIX.

One system call for a small write and for a small read, straight between the descriptor and the codec's
memory. Small writes keep the interpreter lock: they do not block (MSG_DONTWAIT) and are over sooner than the
lock would be handed back. Everything that may take longer is done without it. A signal's handler runs before the
call goes on (PEP 475), so that Ctrl-C ends a blocked call.
"""

import errno
import os
import threading
import time

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, EBADF, EINTR, errno as c_errno
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from fullduplex.codec._assembler cimport fdx_mask
from fullduplex.codec._compiled cimport Decoder
from fullduplex.codec._encoder cimport Encoder
from fullduplex.stream cimport Stream

from socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM
# What socket.socket is made of: its attributes are plain numbers. Those of socket.socket are members of enumerations,
# and to find one of these takes longer than a system call.
from socket import SocketType

from fullduplex.stream import SocketStream, WAIT_SLICE

cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FDX_ONE_AT_A_TIME 0
    #else
    #define FDX_ONE_AT_A_TIME 1
    #endif
    """
    int FDX_ONE_AT_A_TIME
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "../atomic.h" nogil:
    ctypedef long fdx_atomic
    long fdx_atomic_add(fdx_atomic *at, long value)

cdef extern from "../pieces.h" nogil:
    enum:
        PIECES_LEAST
        PIECES_PART
        PIECES_WHOLE
        PIECES_LEAD
        PIECES_AT_ONCE
    struct pieces:
        pass
    void pieces_init(pieces *)
    int pieces_next(const pieces *)
    void pieces_note(pieces *, size_t size, double ns)
    double pieces_clock()
    uint8_t *pieces_take()
    void pieces_give(uint8_t *memory)
    void pieces_forked()

cdef extern from "../turns.h" nogil:
    struct turns:
        int epoll_fd
        unsigned long members
    struct turn:
        turns *of
        int fd
        unsigned int alone
    turns *turns_new()
    void turns_free(turns *all)
    int turn_join(turns *all, turn *me, int fd)
    int turn_wait(turn *me)
    void turn_refill(turn *me)
    void turn_yield(turn *me)
    void turn_leave(turn *me)

cdef enum:
    HELD_SIZE = 16384  # writes up to this size keep the interpreter lock

    # See Turns. Counted in reads of one connection.
    ALONE = 256        # reads with no other ready, before it leaves
    PENALTY = 16       # reads in a crowd that count for nothing after it lost a turn; doubled each time
    MAX_PENALTY = 65536
    PARDON = 1024      # turns after which the penalty is the first one again
    SOON = 256         # reads without turns after which a crowd is another one, not the same again
    MAX_STAY = 65536


@cython.final
cdef class Turns:
    """Who takes turns, in this interpreter and process: see turns.h.

    Threads that are seldom ready at the same time do best when each waits in recv(2). When many are, that is, when
    threads that come back from recv(2) find others waiting for the interpreter lock, they join here, and leave when they
    are alone again, or when they kept a turn for too long because their handler has other things to do, and now and then
    to see whether they have to: turns end a crowd, and cost more than reading without them where there is none.
    """

    cdef turns *all             # NULL until the first joins
    cdef fdx_atomic contending  # threads that want the interpreter lock after a recv(2)
    cdef unsigned long main     # the main thread's ident: it handles signals, and does not take turns
    # Public for tests: what makes a crowd (others that want the interpreter lock at the same time), and after how
    # many reads in a crowd, more than without one, a connection joins; what makes a throng, in
    # which one read counts as `patience` of them; and after how many turns it leaves to see whether the crowd is still
    # there, twice as many each time that it is.
    cdef public int crowd, patience, throng
    cdef public unsigned int stay

    def __cinit__(self):
        self.crowd = 1
        self.patience = 16
        self.throng = 128
        self.stay = 16
        self.renew()

    cdef bint join(self, turn *me, int fd) noexcept:
        if self.all == NULL:
            self.all = turns_new()
        return self.all != NULL and fd >= 0 and turn_join(self.all, me, fd) == 0

    def renew(self):
        """Start afresh, in a forked process."""
        # Its memory stays: streams that this process does not use any more point there.
        if self.all != NULL:
            os.close(self.all.epoll_fd)
            self.all.epoll_fd = -1
        self.all = NULL
        self.contending = 0
        self.main = threading.main_thread().ident or 0

    @property
    def members(self):
        """How many descriptors take turns now."""
        return 0 if self.all == NULL else self.all.members

    def __dealloc__(self):
        if self.all != NULL and self.all.members == 0:
            turns_free(self.all)


def _after_fork():
    _turns.renew()
    pieces_forked()


_turns = Turns()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cython.final
cdef class FdStream(Stream):
    # The descriptor, in the socket object itself: if the application closes that, its number may soon be another's.
    cdef const int *fd
    cdef double slice             # longest single wait in seconds, 0 for no bound
    cdef Turns turns              # None where nobody takes turns
    cdef turn turn                # joined or not; the reader's role guards it, and the interpreter lock
    cdef int score                # reads in a crowd, less those without
    cdef int penalty
    cdef unsigned int held        # turns since it joined
    cdef unsigned int stay        # turns after which it leaves, see Turns
    cdef unsigned int free        # reads without turns since it joined, up to SOON
    cdef pieces pieces            # the writer's role guards it

    def __cinit__(self):
        self.fd = &fdx_closed

    def __init__(self, sock):
        if not has_number(sock):
            raise TypeError("the socket is none of CPython's")
        Stream.__init__(self, sock)
        if sock.gettimeout() is not None:  # saves a system call where it is so already
            sock.settimeout(None)
        self.fd = fdx_number_of(sock)
        self.slice = WAIT_SLICE or 0.0
        self.penalty = PENALTY
        self.free = SOON
        pieces_init(&self.pieces)
        # Other sockets may read less than there is, which turns do not reckon with.
        if FDX_ONE_AT_A_TIME and self.slice == 0.0 and SocketType.type.__get__(sock) == SOCK_STREAM \
                and SocketType.family.__get__(sock) in (AF_INET, AF_INET6) and sock.proto in (0, IPPROTO_TCP):
            self.turns = _turns

    def __dealloc__(self):
        self._leave()

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
        self._yield()
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
            waited.fd = fdx_number(self.fd)
            if waited.fd < 0:  # poll() would wait
                self._failed(EBADF)
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

    cdef void _leave(self) noexcept:
        # Also called by the destructor, when `turns` may be gone. Without a descriptor it is the parent's.
        if self.turn.of != NULL:
            if self.turn.of.epoll_fd >= 0:
                turn_leave(&self.turn)
            self.turn.of = NULL

    cdef void _yield(self) noexcept:
        if self.turn.of != NULL and self.turn.of.epoll_fd >= 0:
            turn_yield(&self.turn)

    cdef void _crowded(self, long others) noexcept:
        """Note how many others wanted the interpreter lock after a recv(2), and join if that is the rule."""
        if self.free < SOON:
            self.free += 1
        if others >= self.turns.crowd:
            # Where hundreds wait for the lock, each reads so seldom that `patience` of its reads take seconds, in which all
            # of them wake every 5 ms to ask for it again.
            if self.score < self.turns.patience:
                self.score += self.turns.patience if others >= self.turns.throng else 1
            if (self.score >= self.turns.patience and self.turn.of == NULL
                    and self.turns.join(&self.turn, fdx_number(self.fd))):
                self.stay = self.turns.stay if self.free >= SOON else min(2 * self.stay, <unsigned int>MAX_STAY)
                self.held = self.free = 0
        elif self.score > 0:
            self.score -= 1

    cdef bint _in_turn(self) noexcept:
        """Tell whether to take turns for the next read; the reader's role is held."""
        if self.turn.of == NULL or PyThread_get_thread_ident() == self.turns.main:
            return False
        if (self.turn.of != self.turns.all or self.turn.alone >= ALONE or self.held >= self.stay
                or self.turn.fd != fdx_number(self.fd)):
            self._leave()
            self.score = 0
            return False
        return True

    cdef void _lost(self) noexcept:
        if self.held >= PARDON:
            self.penalty = PENALTY
        self.score = -self.penalty
        self.penalty = min(2 * self.penalty, <int>MAX_PENALTY)
        self._leave()

    cdef Py_ssize_t _recv(self, uint8_t *place, size_t room, deadline) except -2:
        cdef Py_ssize_t count
        cdef int code, flags = 0 if deadline is None and self.slice == 0.0 else MSG_DONTWAIT
        cdef long others = 0
        while True:
            PyErr_CheckSignals()  # see _poll()
            if flags == 0 and self._in_turn():
                count = -1
                code = EAGAIN
                with nogil:
                    if turn_wait(&self.turn) == 0:
                        count = recv(fdx_number(self.fd), place, room, MSG_DONTWAIT)
                        code = c_errno
                        if count == <Py_ssize_t>room:
                            turn_refill(&self.turn)
                    else:
                        code = 0
                if count >= 0:
                    self.held += 1
                    return count
                if self.aborted:
                    return 0
                if code == 0:
                    self._lost()
                else:
                    self._failed(code)
                continue
            with nogil:
                count = recv(fdx_number(self.fd), place, room, flags)
                code = c_errno
                if flags == 0 and self.turns is not None:
                    others = fdx_atomic_add(&self.turns.contending, 1)
            if flags == 0 and self.turns is not None:
                fdx_atomic_add(&self.turns.contending, -1)
                self._crowded(others)
            if count >= 0:
                return count
            if self.aborted:
                return 0
            if not self._failed(code) and not self._poll(<short>POLLIN, deadline):
                return -1

    cpdef Py_ssize_t read(self, Decoder decoder, deadline) except? -2:
        cdef size_t room = 0
        # The reader's role keeps everybody else from the decoder while the lock is released.
        cdef uint8_t *place = decoder.space(&room)
        cdef Py_ssize_t count = self._recv(place, room, deadline)
        if count > 0:
            decoder.commit(<size_t>count)
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

    cpdef _receive_counted(self, view, deadline, list came):
        cdef Py_ssize_t count = self.recv_into(view, deadline)
        if count >= 0:
            came.append(count)

    cdef Py_ssize_t _send(self, const uint8_t *data, size_t size, bint wait) except -2:
        """Send once: the number of bytes, 0 if the network takes none now."""
        cdef Py_ssize_t count
        cdef int code, flags = MSG_NOSIGNAL | (0 if wait else MSG_DONTWAIT)
        while True:
            if size <= HELD_SIZE and not wait:
                count = send(fdx_number(self.fd), data, size, flags)
                code = c_errno
            else:
                with nogil:
                    count = send(fdx_number(self.fd), data, size, flags)
                    code = c_errno
            if count >= 0:
                return count
            if not self._failed(code):
                return 0

    cdef bint _send_all(self, const uint8_t *data, size_t size, deadline, bint wait=False) except? -1:
        cdef Py_ssize_t count
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
            # Without a deadline the kernel waits for us: it wakes the thread less often than poll() does.
            if deadline is None and self.slice == 0.0:
                wait = True
                self._yield()
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

    cpdef bint unsent(self) except? -1:
        # The inherited one would look for an override first.
        return len(self.backlog) != 0

    cpdef bint flush(self, deadline) except? -1:
        cdef bytes data = self.backlog
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t count, total = 0
        cdef bint torn
        try:
            while total < size:
                count = self._send(<const uint8_t *>PyBytes_AS_STRING(data) + total, <size_t>(size - total), False)
                total += count
                if count == 0 and not self.wait_writable(deadline):
                    return False
        finally:
            if total:  # see the inherited one
                torn, self.torn, self.backlog = self.torn, True, b""
                self.backlog = data[total:]
                self.torn = torn
        return True

    cpdef bint try_write(self, data) except? -1:
        cdef Py_ssize_t count = 0
        cdef bint torn
        if not self.backlog and type(data) is bytes:
            count = self._send(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), False)
            if count == PyBytes_GET_SIZE(data):
                return True
            torn = self.torn
            self.torn = torn or count > 0  # as long as there may be no memory for the rest
            self.backlog = data[count:]
            self.torn = torn
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
                count = sendmsg(fdx_number(self.fd), &message, flags)
                code = c_errno
            if count < 0:
                self._failed(code)
                count = 0
            if count < size:
                self.torn = self.torn or count > 0  # a compressor may have set it
                if not self._send_all(<const uint8_t *>PyBytes_AS_STRING(header) + count, <size_t>(size - count), deadline):
                    return False
                count = size
            self.torn = True
            PyErr_CheckSignals()
            return self._send_all(<const uint8_t *>view.buf + (count - size), <size_t>(view.len - (count - size)), deadline)
        finally:
            PyBuffer_Release(&view)

    cpdef bint write_masked(self, bytes header, Encoder encoder, payload, deadline) except? -1:
        cdef Py_buffer view
        if self.backlog and not self.flush(deadline):
            return False
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            return self._mask_and_send(header, encoder, <const uint8_t *>view.buf, <size_t>view.len, deadline)
        finally:
            PyBuffer_Release(&view)

    cdef bint _mask_and_send(self, bytes header, Encoder encoder, const uint8_t *data, size_t size, deadline) except? -1:
        """Choose the way, see pieces.h, and the memory."""
        cdef uint8_t *kept = pieces_take()
        cdef uint8_t *scratch = kept
        cdef bint choice = size > PIECES_LEAST and kept is not NULL
        cdef size_t room = PIECES_WHOLE
        cdef double start = 0.0
        cdef bint done
        if choice:
            start = pieces_clock()
            if pieces_next(&self.pieces) != PIECES_AT_ONCE:
                room = PIECES_PART
        elif kept is NULL:
            room = size if size <= PIECES_LEAST else PIECES_PART
            scratch = <uint8_t *>PyMem_Malloc(PIECES_LEAD + room)
            if scratch is NULL:
                raise MemoryError()
        try:
            done = self._send_masked(scratch, room, header, encoder, data, size, deadline)
        finally:
            if kept is NULL:
                PyMem_Free(scratch)
            else:
                pieces_give(kept)
        if choice and done:
            pieces_note(&self.pieces, size, pieces_clock() - start)
        return done

    @property
    def in_pieces(self):
        """Whether the next large masked message goes in pieces; for tests."""
        return pieces_next(&self.pieces) != PIECES_AT_ONCE

    cdef bint _send_masked(
        self, uint8_t *scratch, size_t room, bytes header, Encoder encoder, const uint8_t *data, size_t size, deadline
    ) except? -1:
        """Mask and send ``room`` bytes after the others, without the interpreter lock as long as the kernel takes them."""
        cdef size_t lead = <size_t>PyBytes_GET_SIZE(header)  # bytes of the header before the piece
        cdef size_t offset = 0
        cdef size_t part, length
        cdef uint8_t *start
        cdef Py_ssize_t count
        cdef int code
        cdef bint wait
        memcpy(scratch + PIECES_LEAD - lead, PyBytes_AS_STRING(header), lead)
        while True:
            with nogil:
                while True:
                    part = room if size - offset > room else size - offset
                    fdx_mask(scratch + PIECES_LEAD, data + offset, part, encoder.key, <unsigned>(offset & 3), encoder.cpu)
                    start = scratch + PIECES_LEAD - lead
                    length = lead + part
                    count = send(fdx_number(self.fd), start, length, MSG_NOSIGNAL | MSG_DONTWAIT)
                    code = c_errno
                    offset += part
                    if count != <Py_ssize_t>length or offset == size:
                        break
                    lead = 0
            if count == <Py_ssize_t>length:
                self.torn = False
                return True
            # The header has gone out, or part of it.
            self.torn = self.torn or count > 0 or lead == 0
            if count < 0:
                self._failed(code)
                count = 0
            PyErr_CheckSignals()
            wait = deadline is None and self.slice == 0.0
            if wait:
                self._yield()
            if not self._send_all(start + count, length - <size_t>count, deadline, wait):
                return False
            if offset == size:
                return True
            self.torn = True
            lead = 0

    def close(self):
        self._leave()
        self.fd = &fdx_closed
        Stream.close(self)


cdef bint has_number(sock):
    """Tell whether a socket has its number where we look for it."""
    return isinstance(sock, SocketType) and fdx_number(fdx_number_of(sock)) == sock.fileno()


def open_fd_stream(sock):
    """Make a stream for a plain socket: the other one, if this is no Python that we know."""
    return FdStream(sock) if has_number(sock) else SocketStream(sock)
