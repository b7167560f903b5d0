# cython: language_level=3
"""Types for the compiled `fullduplex.sync.core`."""

cimport cython

from fullduplex._roles cimport Role as CRole
from fullduplex.protocol cimport Protocol as CProtocol
from fullduplex.stream cimport Stream as CStream

cdef class ConnectionCore:
    cdef readonly CProtocol protocol
    cdef public object ping_interval
    cdef public object ping_timeout
    cdef public object close_timeout
    cdef public CStream _stream
    cdef public object _mutex             # see the module
    cdef public object _changed           # condition on it
    cdef public CRole _reader
    cdef public CRole _writer
    cdef public bint _due                 # something waits for the writer
    cdef public object _inbox             # messages read ahead
    cdef public Py_ssize_t _inbox_frames
    cdef public Py_ssize_t _inbox_bytes
    cdef public object _fragments         # fragments read ahead of a message that is streamed
    cdef public bint _streaming
    cdef public Py_ssize_t _high
    cdef public Py_ssize_t _low
    cdef public Py_ssize_t _high_bytes
    cdef public object _violation
    cdef public double _violation_due
    cdef public Py_ssize_t _reads         # counts leaves of the reader role
    cdef public Py_ssize_t _seen_reads
    cdef public int _watch
    cdef public dict _pings
    cdef public double _latency
    cdef public object _progress
    cdef public double _progress_since
    cdef public object _keepalive
    cdef public object _beats
    cdef public double _ping_due
    cdef public object _close_deadline
    cdef public bint _disposed
    cdef public bint _draining
    cdef public bint _paused              # from the high mark until the low one
    cdef Py_ssize_t _large
    cdef Py_ssize_t _burst                # control frames that came since the last read
    cdef dict __dict__
    cdef object __weakref__

    # The hot path is C alone: a cpdef method of a class that Python may subclass looks for an override first.
    @cython.locals(step=cython.int, own=cython.bint, opcode=cython.int)
    cdef object _next(self, deadline, bint as_bytes)
    cdef Py_ssize_t _read(self, deadline) except? -2
    @cython.final
    cdef Py_ssize_t _receive(self, deadline) except? -2
    @cython.final
    cdef Py_ssize_t _received(self, Py_ssize_t count) except? -2
    cdef object _take_from_inbox(self, bint as_bytes)
