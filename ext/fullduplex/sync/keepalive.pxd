# cython: language_level=3
"""Types for the compiled `fullduplex.sync.keepalive`."""

from fullduplex.sync cimport core


cdef class TimedConnection(core.ConnectionCore):
    pass
