# cython: language_level=3
"""Types for the compiled `fullduplex.machine`."""

from fullduplex.codec._compiled cimport Decoder as CDecoder
from fullduplex.codec._encoder cimport Encoder as CEncoder

cdef class Machine:
    cdef public object logger
    cdef public bint debug                # whether frames are logged
    cdef public object side
    cdef public object state
    cdef public bint is_open              # state is OPEN
    cdef public bint is_closed            # state is CLOSED
    cdef public CDecoder decoder           # the reader's
    cdef public CEncoder encoder           # the writer's
    cdef public object origin
    cdef public object subprotocol
    cdef public object handshake_exc
    cdef public object parser_exc
    cdef public object close_rcvd
    cdef public object close_sent
    cdef public object close_rcvd_then_sent
    cdef public bint peer_failed          # it was failed for what the peer did, or did not do
    cdef public bint eof_sent
    cdef public bint eof_rcvd
    cdef public bint discarding           # input does not count any more
    cdef public bint pulling              # a connection pulls and writes
    cdef public int opcode                # of what the last pull gave
    cdef public bint fin                  # whether it ended a message
    cdef public list events
    cdef public list writes
    cdef public object control            # control frames that wait for the writer
    cdef public bint end_wanted           # the stream is to be ended after them
    cdef public bint outgoing             # a fragmented message is being sent
    cdef list _extensions
    cdef object _assembler
    cdef object _validator
    cdef object _pull_error               # the first error behind the decoder, which is final
    cdef object _interrupted              # what it is while a pull is at work
    cdef dict __dict__
    cdef object __weakref__
