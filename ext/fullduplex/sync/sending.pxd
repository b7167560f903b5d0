# cython: language_level=3
"""Types for the compiled `fullduplex.sync.sending`."""

cimport cython

from fullduplex.sync cimport keepalive


cdef class SendingConnection(keepalive.TimedConnection):
    cdef object _send(self, int opcode, data, deadline, compress)
    @cython.locals(head=cython.int)
    cdef object _write_frame(self, int opcode, data, bint fin, deadline, compress)
    cdef bint _write_large(self, int head, data, deadline) except? -1
