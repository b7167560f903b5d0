# cython: language_level=3
"""Types for the compiled `fullduplex.sync.connection`."""

from fullduplex.sync cimport core

cdef class Connection(core.ConnectionCore):
    cdef public object socket
    cdef public object id
    cdef public object logger
    cdef public object request
    cdef public object response
    cdef object _local_address
    cdef object _remote_address

    cdef object _send(self, int opcode, data, deadline, compress)
    cdef object _write_frame(self, int opcode, data, bint fin, deadline, compress)
    cdef bint _write_large(self, int head, data, deadline) except? -1
