# cython: language_level=3
"""The compiled decoder: C-level surface."""

cimport cython
from libc.stdint cimport uint8_t, uint64_t

from fullduplex.codec._assembler cimport Assembler


@cython.final
cdef class Decoder:
    cdef readonly bint masked             # frames must be masked (a server's side)
    cdef object _max_message              # limits as the caller gave them
    cdef object _max_fragment
    cdef object _max_fragments
    cdef Py_ssize_t message_limit         # -1 without a limit
    cdef Py_ssize_t fragment_limit
    cdef Py_ssize_t fragments_limit
    cdef Assembler assembler              # the message under way
    cdef readonly int opcode              # of what the last pull gave
    cdef readonly bint fin                # whether that ended a message
    cdef readonly int rsv                 # reserved bits of the last frame
    cdef public int rsv_allowed           # those that an extension gives a meaning to
    cdef readonly Py_ssize_t frames       # of the message that the last pull ended
    cdef readonly object bounds           # where its fragments end
    cdef public Py_ssize_t message_size   # bytes of the current message
    cdef public Py_ssize_t frames_received
    cdef public Py_ssize_t messages_received
    cdef public Py_ssize_t payload_received
    cdef object error                     # the first error, which is final
    cdef uint8_t *input                   # received and not yet parsed: [head, tail)
    cdef size_t input_room                # size of the allocation
    cdef size_t head
    cdef size_t tail
    cdef size_t offered                   # bytes that the last get_buffer offered
    cdef bint filled                      # the last read filled the input: offer more
    cdef bint direct                      # they lie in the assembler
    cdef int exports                      # memoryviews of the offered bytes that are alive
    cdef int message_opcode               # CONT between messages
    cdef Py_ssize_t message_frames        # frames of the current message
    cdef bint in_frame                    # a header was parsed, its payload not completely
    cdef int frame_opcode                 # that header
    cdef bint frame_fin
    cdef int frame_rsv
    cdef size_t remaining                 # payload bytes of that frame still to come
    cdef uint8_t key[4]                   # its masking key
    cdef unsigned phase                   # which byte of the key comes next
    cdef int cpu                          # what the processor can do

    cdef int _resize(self, size_t room) except -1
    cdef uint8_t *space(self, size_t *size) except NULL
    cdef int commit(self, size_t count) except -1
    cpdef bint idle(self) noexcept
    cpdef object pull(self, bint as_bytes=*)
    cpdef object pull_fragment(self)
    cpdef object pull_frame(self)
    cdef int _append(self, const uint8_t *data, size_t size) except -1
    cdef int _begin(self) except -1
    cdef object _final(self, exc)
    cdef int _leave_space(self) except -1
    cdef int _parse_header(self) except -1
    cdef int _begin_data(self, size_t size) except -1
    cdef int _check_size(self, size_t size) except -1
    cdef int _check_first(self, int opcode, bint fin, int rsv, size_t size, bint masked) except -1
    cdef object _take_control(self)
    cdef object _payload(self)
    cdef object _give(self, bint as_bytes, bint with_bounds)
    cdef object _whole(self, bint as_bytes)
    cdef int _fill(self, bint as_bytes) except -1
    cdef void _end_message(self) noexcept
