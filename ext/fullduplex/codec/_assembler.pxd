# cython: language_level=3
"""Text and message storage for the compiled codec: C-level surface."""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef extern from "cpu.h" nogil:
    int fdx_cpu_detect()

cdef extern from "mask.h" nogil:
    unsigned fdx_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t *key, unsigned phase, int cpu)

cdef extern from "utf8.h" nogil:
    ctypedef struct fdx_utf8_state:
        pass
    void fdx_utf8_init(fdx_utf8_state *s)
    int fdx_utf8_feed(fdx_utf8_state *s, const uint8_t *p, size_t n, size_t *bad, int cpu)
    int fdx_utf8_done(const fdx_utf8_state *s)
    int fdx_is_ascii(const uint8_t *p, size_t n, int cpu)

cdef extern from "transcode.h" nogil:
    void fdx_utf8_count(const uint8_t *p, size_t n, size_t *codepoints, int *kind, int cpu)
    size_t fdx_utf8_to_latin1(uint8_t *dst, const uint8_t *p, size_t n, int cpu)
    size_t fdx_utf8_to_ucs2(uint16_t *dst, const uint8_t *p, size_t n, int cpu)
    size_t fdx_utf8_to_ucs4(uint32_t *dst, const uint8_t *p, size_t n, int cpu)

cdef enum:
    # From this many bytes on, pure computation lets other threads run (docs/codec-measurements.md).
    RELEASE_SIZE = 32768

cdef int raise_utf8(size_t position, const uint8_t *byte) except -1
cdef object text_from(const uint8_t *p, size_t n, int cpu)
cdef object ascii_from(const uint8_t *p, size_t n)

cdef class Bytes:
    cdef Py_buffer view           # of what the caller gave, held as long as this object lives
    cdef const uint8_t *p         # its bytes
    cdef size_t n                 # how many

@cython.final
cdef class Assembler:
    cdef PyObject *storage        # the str or bytes under construction, owned; NULL if there is none
    cdef uint8_t *data            # the storage's bytes
    cdef size_t have              # bytes in the storage that are filled
    cdef size_t room              # bytes that the storage has
    cdef size_t trusted           # bytes that a message of this peer has really had
    cdef size_t taken             # bytes of the message that were taken as fragments and are gone
    cdef size_t *ends             # where fragments end, counted from the start of the message
    cdef Py_ssize_t end_count     # how many of them
    cdef Py_ssize_t end_room      # how many there is space for
    cdef Py_ssize_t end_next      # the first one that was not taken
    cdef bint is_str              # the storage is an ASCII str
    cdef readonly bint text       # the message is text, and checked
    cdef readonly bint active     # a message has begun
    cdef bint want_bytes          # text will be asked for as bytes
    cdef size_t checked           # bytes of text checked so far, for error positions
    cdef fdx_utf8_state utf8      # the check's state between chunks
    cdef int cpu                  # what the processor can do

    cdef void clear(self) noexcept
    cdef void begin(self, bint text, bint want_bytes) noexcept
    cdef int reserve(self, size_t more) except -1
    cdef int commit(self, size_t count, size_t behind) except -1
    cdef int put(self, const uint8_t *p, size_t n, const uint8_t *key, unsigned phase) except -1
    cdef int end(self, bint fin) except -1
    cdef object give(self, bint as_bytes)
    cdef object give_bounds(self)
    cdef object give_fragment(self)
    cdef int _resize(self, size_t room) except -1
    cdef int _change_room(self, size_t room) except -1
    cdef int _leave_str(self, size_t behind) except -1
