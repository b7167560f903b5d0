"""TLS with less between the network and the codec: what a small message costs is calls, not cryptography.

A `TLSStream` whose reads go from the socket over OpenSSL into the codec's own memory, without views, and with a
mutex that is taken with one atomic operation when it is free. Its reader knows from the headers of the records
(RFC 8446, section 5.1; the same in TLS 1.2) whether there is a whole one to decrypt, so that OpenSSL is not asked
in vain, which it would answer with an exception. Only whether there is one: what it says is OpenSSL's business, which
may find no data in it (a session ticket, a key update).
"""

import ssl

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from libc.stdint cimport uint8_t

from fullduplex.codec._compiled cimport Decoder
from fullduplex.stream cimport Stream, TLSStream

cdef enum:
    HEADER = 5                # bytes of a record's header: type, version, length
    FIRST_TYPE = 20           # change_cipher_spec
    LAST_TYPE = 24            # heartbeat
    MAX_RECORD = 16384 + 2048  # what TLS 1.2 allows; TLS 1.3 less


@cython.final
cdef class Mutex:
    """A `threading.Lock` that compiled code takes without a call of Python."""

    cdef cython.pymutex lock

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, kind, value, traceback):
        self.lock.release()


@cython.final
cdef class Window:
    """The first so many bytes of a bytearray, as an object with a buffer; its owner says how many."""

    cdef bytearray owner          # keeps the bytes, and is not resized
    cdef Py_ssize_t size

    def __cinit__(self, bytearray owner not None):
        self.owner = owner
        self.size = PyByteArray_GET_SIZE(owner)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyByteArray_AS_STRING(self.owner), self.size, 0, flags)


@cython.final
cdef class DirectTLSStream(TLSStream):
    cdef Mutex mutex              # is _mutex
    cdef Window window            # of _input
    cdef size_t room              # what the decoder offered last,
    cdef object room_object       # and the same as an object
    # Of all that was received; only the reader touches these:
    cdef Py_ssize_t records       # not more whole records than these are unread
    cdef Py_ssize_t tail          # bytes of the last record, while it is not whole
    cdef Py_ssize_t missing       # bytes of its body that are to come
    cdef uint8_t header[HEADER]   # its header
    cdef bint strange             # this is not TLS: OpenSSL shall say so

    def __init__(self, raw, context, *, server_side=False, server_hostname=None):
        TLSStream.__init__(self, raw, context, server_side=server_side, server_hostname=server_hostname)
        self._mutex = self.mutex = Mutex()
        self.window = Window(self._input)
        self.room_object = 0

    cdef int _count_records(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Follow the records in what was received."""
        cdef Py_ssize_t part
        while size and not self.strange:
            if self.tail < HEADER:
                self.header[self.tail] = data[0]
                part = 1
                if self.tail == HEADER - 1:
                    self.missing = self.header[3] << 8 | self.header[4]
                    self.strange = (self.header[0] < FIRST_TYPE or self.header[0] > LAST_TYPE
                                    or self.missing > MAX_RECORD)
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
            self.records = 2
            self.tail = 0
        return 0

    cdef Py_ssize_t _receive(self, deadline) except? -2:
        """Receive ciphertext into the window; returns as `read` does."""
        cdef Window window = self.window
        cdef Py_ssize_t count
        window.size = PyByteArray_GET_SIZE(window.owner)
        count = self.raw.recv_into(window, deadline)
        if count > 0:
            window.size = count
            self._count_records(<const uint8_t *>PyByteArray_AS_STRING(window.owner), count)
        return count

    cdef Py_ssize_t _fetch(self, deadline) except? -2:
        cdef Py_ssize_t count = self._receive(deadline)
        if count > 0:
            with self.mutex.lock:
                self._give_ciphertext(self.window)
        return count

    cpdef Py_ssize_t read(self, decoder, deadline) except? -2:
        cdef Decoder target = decoder
        cdef Py_ssize_t count, fresh
        cdef size_t room = 0
        while True:
            fresh = 0
            if not self._unread:
                fresh = self._receive(deadline)
                if fresh <= 0:
                    return fresh  # see recv_into() for the end
            target.space(&room)
            if room != self.room:
                self.room_object = room
                self.room = room
            with self.mutex.lock:
                try:
                    if fresh:
                        self._give_ciphertext(self.window)
                        if self.records == 0:
                            continue
                    count = self._decrypt_into(self.room_object, target)
                except ssl.SSLWantReadError:
                    self.records = 0
                    self._unread = False
                    continue
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
                # A read gives the rest of one record, or as much as there was room for.
                self._unread = count == <Py_ssize_t>room or (
                    self.records > 1 and <Py_ssize_t>self._incoming.pending > self.tail)
            if not self._unread:
                self.records = 0
            target.commit(<size_t>count)
            return count

    cpdef bint write(self, data, deadline) except? -1:
        if self.backlog or self.raw.backlog or len(data) > self._piece:
            return Stream.write(self, data, deadline)
        with self.mutex.lock:
            self._encrypt(data)
            ciphertext = self._take_ciphertext()
        # Once encrypted, it cannot be taken back: the records are numbered.
        self.torn = not self.raw.write(ciphertext, deadline)
        return not self.torn

    def after_fork(self):
        TLSStream.after_fork(self)
        self._mutex = self.mutex = Mutex()
