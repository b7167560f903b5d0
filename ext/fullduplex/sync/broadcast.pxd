# cython: language_level=3
"""Types for the compiled `fullduplex.sync.broadcast`."""

cimport cython

from fullduplex.codec._encoder cimport Encoder as CEncoder
from fullduplex.protocol cimport Protocol as CProtocol
from fullduplex.stream cimport Stream as CStream
from fullduplex.sync.connection cimport Connection as CConnection


@cython.final
cdef class Message:
    cdef readonly int opcode
    cdef readonly bytes payload
    cdef readonly Py_ssize_t size
    cdef bytes plain
    cdef dict shared
    cdef int last_bits
    cdef object last_threshold
    cdef object last_settings
    cdef tuple last_frame

    @cython.locals(protocol=CProtocol, encoder=CEncoder)
    cdef bytes frame_for(self, CConnection connection)
    @cython.locals(encoder=CEncoder)
    cdef bytes _compressed_frame(self, CConnection connection, deflate)
    cdef bytes _own_frame(self, CConnection connection)


@cython.locals(connection=CConnection)
cdef list write_all(connections, Message message, list problems, list strangers)

@cython.locals(protocol=CProtocol, stream=CStream, complete=cython.bint)
cpdef int write(CConnection connection, Message message, list problems) except -1
