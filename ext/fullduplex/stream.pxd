# cython: language_level=3
"""Types for the compiled `fullduplex.stream`."""

cimport cython

from fullduplex.codec._compiled cimport Decoder as CDecoder
from fullduplex.codec._encoder cimport Encoder as CEncoder


cdef class Stream:
    cdef readonly object sock     # the connected socket
    cdef readonly bint aborted    # abort() or close() was called
    cdef readonly bint farewell   # below WebSocket, the peer has something to say at the end: TLS
    cdef public bint torn         # a blocking write was given up in the midst
    cdef public bytes backlog     # what a non-blocking write left over
    cdef dict __dict__
    cdef object __weakref__

    cpdef bint pending(self) except? -1
    cpdef Py_ssize_t read(self, CDecoder decoder, deadline) except? -2
    cpdef Py_ssize_t recv_into(self, view, deadline) except? -2
    cpdef _receive_counted(self, view, deadline, list came)
    cpdef Py_ssize_t send_some(self, data) except? -2
    cpdef _send_counted(self, data, list sent)
    cpdef bint wait_writable(self, deadline) except? -1
    cpdef bint write(self, data, deadline) except? -1
    cpdef bint write_large(self, bytes header, payload, deadline) except? -1
    cpdef bint write_masked(self, bytes header, CEncoder encoder, payload, deadline) except? -1
    cpdef bint _write_view(self, view, deadline) except? -1
    cpdef bint try_write(self, data) except? -1
    cpdef bint flush(self, deadline) except? -1
    cpdef bint unsent(self) except? -1

@cython.final
cdef class SocketStream(Stream):
    cdef readonly bint blocking   # the socket has no descriptor to wait on
    cdef object _mutex            # for an SSLSocket, else None

    cpdef bint _wait(self, bint write, deadline) except? -1

cdef class TLSStream(Stream):
    cdef readonly Stream raw      # carries the ciphertext
    cdef object _mutex            # guards the SSL object and the BIOs
    cdef object _incoming         # ciphertext that was received
    cdef readonly object _outgoing  # ciphertext to send
    cdef readonly object ssl_object
    cdef bytearray _input         # where ciphertext is received
    cdef object _input_view       # a view of it
    cdef object _encrypt          # bound methods of the SSL object and the BIOs
    cdef object _decrypt_into
    cdef object _take_ciphertext
    cdef object _give_ciphertext
    cdef Py_ssize_t _piece        # bytes encrypted at once
    cdef bint _unread             # something to read may be in memory
    cdef bint _gap                # bytes that came are lost, so what follows makes no sense

    cdef Py_ssize_t _fetch(self, deadline) except? -2
    cpdef bint _is_late(self, deadline) except? -1
    cdef _decrypt(self, view, list came)
