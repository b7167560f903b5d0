# cython: language_level=3
"""Frame building for the compiled codec: C-level surface."""

cimport cython
from libc.stdint cimport uint8_t


cdef class Epoch:
    cdef int value                # how often this process was forked off


@cython.final
cdef class Encoder:
    cdef readonly bint masked             # frames carry a key (a client's side)
    cdef public Py_ssize_t frames_sent    # frames built since the start
    cdef public Py_ssize_t payload_sent   # their payload, in bytes
    cdef object keys                      # a block of random bytes
    cdef Py_ssize_t keys_used             # how many of them are spent
    cdef Epoch epoch                      # counts forks
    cdef int seen                         # the count when the block was drawn
    cdef uint8_t key[4]                   # of the frame that `header` began
    cdef int cpu                          # what the processor can do

    cdef int _draw(self, uint8_t *key) except -1
    cpdef bytes frame(self, int head, object payload)
    cpdef object octets(self, object text)
    cpdef bytes header(self, int head, Py_ssize_t size)
    cpdef Py_ssize_t mask_into(self, bytearray target, object payload, Py_ssize_t offset) except -1
