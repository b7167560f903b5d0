"""TLS with less between the network and the codec: much of what a small message costs is calls, not cryptography.

A `TLSStream` that decrypts into the codec's own memory, without views, and whose mutex is taken with one atomic
operation when it is free. It knows from the headers of the records (RFC 8446 section 5.1; TLS 1.2 has the same)
whether a whole one came, so that OpenSSL is not asked in vain, which it would answer with an exception. What a record
says is OpenSSL's business: there may be no data in it (a session ticket, a key update).
"""

import ssl

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t

from fullduplex.codec._compiled cimport Decoder
from fullduplex.stream cimport Stream, TLSStream

cdef enum:
    HEADER = 5                # bytes of a record's header: type, version, length
    FIRST_TYPE = 20           # change_cipher_spec
    LAST_TYPE = 24            # heartbeat
    MAX_RECORD = 18432        # bytes of the body that TLS 1.2 allows; 1.3 allows less


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept


@cython.final
cdef class Mutex:
    """A `threading.RLock` that compiled code takes without a call of Python."""

    cdef cython.pymutex lock
    cdef unsigned long owner      # the owner's thread; 0 if there is none
    cdef int depth                # how often it has entered

    cdef void enter(self) noexcept:
        cdef unsigned long thread = PyThread_get_thread_ident()
        if self.owner != thread:
            self.lock.acquire()
            self.owner = thread
        self.depth += 1

    cdef void leave(self) noexcept:
        self.depth -= 1
        if self.depth == 0:
            self.owner = 0
            self.lock.release()

    def __enter__(self):
        self.enter()

    def __exit__(self, kind, value, traceback):
        self.leave()


@cython.final
cdef class Window:
    """The first ``size`` bytes of a bytearray, as an object with a buffer that is used again."""

    cdef bytearray owner          # keeps the bytes, and is not resized
    cdef Py_ssize_t size

    def __cinit__(self, bytearray owner not None):
        self.owner = owner

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyByteArray_AS_STRING(self.owner), self.size, 0, flags)


@cython.final
cdef class DirectTLSStream(TLSStream):
    cdef Mutex mutex              # is _mutex
    cdef Window window            # what came last, in _input
    cdef bint foreign             # OpenSSL is behind an object that may not know our buffers
    # Only the reader touches the following. Where it read last:
    cdef Decoder target
    cdef size_t room              # what it offered
    cdef tuple arguments          # both, kept for the next read
    # What came so far:
    cdef Py_ssize_t records       # so many whole records are unread, or fewer
    cdef Py_ssize_t tail          # bytes of the last record, while it is not whole
    cdef Py_ssize_t missing       # bytes of its body that are to come
    cdef uint8_t header[HEADER]   # its header
    cdef bint strange             # this is not TLS: OpenSSL shall say so

    def __init__(self, raw, context, *, server_side=False, server_hostname=None):
        TLSStream.__init__(self, raw, context, server_side=server_side, server_hostname=server_hostname)
        self._mutex = self.mutex = Mutex()
        self.window = Window(self._input)
        self.foreign = type(self.ssl_object) is not ssl.SSLObject

    cdef void _follow(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Count the records in what was received, from the beginning of the connection on."""
        cdef Py_ssize_t part
        while size and not self.strange:
            if self.tail < HEADER:
                self.header[self.tail] = data[0]
                part = 1
                if self.tail == HEADER - 1:
                    self.missing = self.header[3] << 8 | self.header[4]
                    self.strange = (
                        not FIRST_TYPE <= self.header[0] <= LAST_TYPE or self.missing > MAX_RECORD)
            else:
                part = min(size, self.missing)
                self.missing -= part
            data += part
            size -= part
            self.tail += part
            if self.tail >= HEADER and self.missing == 0:
                self.records += 1
                self.tail = 0
        if self.strange:
            self.records = 2  # or more
            self.tail = 0

    cdef Py_ssize_t _receive(self, deadline) except? -2:
        """Receive ciphertext into the window; returns as `read` does."""
        cdef Window window = self.window
        cdef Py_ssize_t count = self.raw.recv_into(self._input_view, deadline)
        if count > 0:
            window.size = count
            self._follow(<const uint8_t *>PyByteArray_AS_STRING(window.owner), count)
        return count

    cdef Py_ssize_t _fetch(self, deadline) except? -2:
        cdef Py_ssize_t count = self._receive(deadline)
        if count > 0:
            self.mutex.enter()
            try:
                self._give()
            finally:
                self.mutex.leave()
        return count

    cdef int _give(self) except -1:
        """Give OpenSSL the window. Needs the mutex."""
        self._gap = True
        self._give_ciphertext(self.window)
        self._gap = False
        self._unread = True
        return 0

    cpdef Py_ssize_t read(self, Decoder target, deadline) except? -2:
        cdef Py_ssize_t count, fresh  # bytes of data; of ciphertext that just came
        cdef size_t room = 0
        cdef bint again = False
        if self.foreign or self._gap:
            return Stream.read(self, target, deadline)
        while True:
            fresh = 0
            if not self._unread:
                if again and self._is_late(deadline):
                    return -1
                fresh = self._receive(deadline)
                if fresh <= 0:
                    return fresh  # see the inherited one for the end
                again = True
            self.mutex.enter()
            try:
                if fresh:  # first of all: nothing that came may be lost
                    self._give()
                    if not self.records:
                        self._unread = False
                        continue
                target.space(&room)
                if room != self.room or target is not self.target:
                    self.arguments = (room, target)
                    self.room = room
                    self.target = target
                try:
                    count = self._decrypt_into(*self.arguments)
                except ssl.SSLWantReadError:
                    self.records = 0
                    self._unread = False
                    continue
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
                except BaseException:  # see _decrypt()
                    self._gap = True
                    raise
                # A read gives the rest of one record, or as much as there was room for.
                self._unread = count == <Py_ssize_t>room or (
                    self.records > 1 and <Py_ssize_t>self._incoming.pending > self.tail)
            finally:
                self.mutex.leave()
            if not self._unread:
                self.records = 0
            target.commit(<size_t>count)
            return count

    cpdef bint write(self, data, deadline) except? -1:
        if self.backlog or self.raw.backlog or len(data) > self._piece:
            return Stream.write(self, data, deadline)
        self.torn = True  # see the inherited one
        self.mutex.enter()
        try:
            self._encrypt(data)
            ciphertext = self._take_ciphertext()
        finally:
            self.mutex.leave()
        self.torn = not self.raw.write(ciphertext, deadline)
        return not self.torn

    def after_fork(self):
        TLSStream.after_fork(self)
        self._mutex = self.mutex = Mutex()
