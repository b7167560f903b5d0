# cython: language_level=3
"""Types for the compiled `fullduplex.protocol`."""

from fullduplex cimport machine


cdef class Protocol(machine.Machine):
    cpdef object pull(self, bint as_bytes=*)
    cpdef object pull_fragment(self)
