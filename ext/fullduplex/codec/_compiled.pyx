"""The compiled codec. `fullduplex.codec.pure` is its reference, and documents the Python surface.

Small frames are parsed where they were received. A frame with much payload still to come is received
straight into the object that the caller gets: `Decoder.space` then points into the assembler's storage, and
`Decoder.commit` unmasks and checks there what came.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from fullduplex.codec._assembler cimport (
    RELEASE_SIZE,
    Assembler,
    Bytes,
    ascii_from,
    fdx_cpu_detect,
    fdx_is_ascii,
    fdx_mask,
    fdx_utf8_done,
    fdx_utf8_feed,
    fdx_utf8_init,
    fdx_utf8_state,
    raise_utf8,
    text_from,
)

from ..exceptions import PayloadTooBig, ProtocolError, TooManyFragments

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    CONT = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PONG = 0xA

cdef enum:
    FIRST_ROOM = 2048        # an idle connection's input
    READ_SIZE = 16384        # what one read of small frames may bring
    STREAM_SIZE = 65536      # the same, as long as reads bring all that they may
    DIRECT_SIZE = 4096       # a frame with so much to come is read into its message
    MAX_READ = 1048576       # at the end of each read an acknowledgement goes out: fewer are cheaper
    PIECE = 65536            # unmasked and checked at once, while it is in the cache
    COMPRESSED_SLACK = 1024  # how much longer than its limit a compressed frame may be, beside an eighth
    ANY_RSV = 7


cdef class Decoder:
    def __cinit__(self, *, bint masked, max_message=None, max_fragment=None, max_fragments=None):
        self.input = NULL
        self.input_room = self.head = self.tail = self.offered = 0
        self.masked = masked
        self.max_message = max_message
        self.max_fragment = max_fragment
        self.max_fragments = max_fragments
        self.assembler = Assembler()
        self.fin = True
        self.message_opcode = CONT
        self.cpu = fdx_cpu_detect()

    def __dealloc__(self):
        PyMem_Free(self.input)

    @property
    def max_message(self):
        return self._max_message

    @max_message.setter
    def max_message(self, limit):
        self._max_message = limit
        self.message_limit = -1 if limit is None else min(limit, PY_SSIZE_T_MAX)

    @property
    def max_fragment(self):
        return self._max_fragment

    @max_fragment.setter
    def max_fragment(self, limit):
        self._max_fragment = limit
        self.fragment_limit = -1 if limit is None else min(limit, PY_SSIZE_T_MAX)

    @property
    def max_fragments(self):
        return self._max_fragments

    @max_fragments.setter
    def max_fragments(self, limit):
        self._max_fragments = limit
        self.fragments_limit = -1 if limit is None else min(limit, PY_SSIZE_T_MAX)

    # Input

    cdef uint8_t *space(self, size_t *size) except NULL:
        """Give writable memory for what comes next; valid until the next call that takes the decoder."""
        cdef size_t room
        if self.exports:
            raise BufferError("a view of the decoder's buffer is still in use")
        if (self.in_frame and self.head == self.tail and self.remaining >= DIRECT_SIZE
                and self.frame_opcode < CLOSE and self.assembler.active):
            try:
                self.assembler.reserve(self.remaining)
            except MemoryError as exc:
                self.error = exc  # part of a message is gone, nothing behind it may be delivered
                raise
            room = self.assembler.room - self.assembler.have
            if room > self.remaining:
                room = self.remaining
            if room > <size_t>MAX_READ:
                room = MAX_READ
            if self.assembler.is_str and room > <size_t>MAX_READ // 2:
                room = MAX_READ // 2  # the sender goes on while we look whether it is ASCII
            self.direct = True
            self.offered = size[0] = room
            return self.assembler.data + self.assembler.have
        self.direct = False
        if self.head == self.tail:
            self.head = self.tail = 0
            if self.input_room > <size_t>READ_SIZE and (not self.filled or self.input_room > <size_t>STREAM_SIZE):
                self._resize(READ_SIZE)  # so much was fed at once, or a stream pauses: who waits keeps less
        elif self.head:
            memmove(self.input, self.input + self.head, self.tail - self.head)
            self.tail -= self.head
            self.head = 0
        if self.input is NULL:
            self._resize(FIRST_ROOM)
        elif self.filled and self.input_room < <size_t>STREAM_SIZE:
            self._resize(READ_SIZE if self.input_room < <size_t>READ_SIZE else STREAM_SIZE)
        elif self.input_room < self.tail + <size_t>FIRST_ROOM // 2:
            self._resize(2 * self.input_room)
        self.offered = size[0] = self.input_room - self.tail
        return self.input + self.tail

    cdef int _resize(self, size_t room) except -1:
        cdef uint8_t *grown = <uint8_t *>PyMem_Realloc(self.input, room)
        if grown is NULL:
            raise MemoryError()
        self.input = grown
        self.input_room = room
        return 0

    cdef int commit(self, size_t count) except -1:
        """Take over ``count`` bytes that were put into the space."""
        cdef size_t part
        cdef uint8_t *new
        if self.exports:
            raise BufferError("a view of the decoder's buffer is still in use")
        if count > self.offered:
            raise ValueError(f"{count} bytes do not fit into the {self.offered} that were offered")
        self.offered = 0
        if self.error is not None:  # nothing more is kept, and no later error takes its place
            return 0
        if not self.direct:
            self.filled = self.tail + count == self.input_room
            self.tail += count
            return 0
        self.remaining -= count
        self.message_size += <Py_ssize_t>count
        # Of messages so large most is read past the input, where it would only be copied.
        self.filled = self.filled and <size_t>self.message_size + self.remaining < <size_t>STREAM_SIZE
        while count:
            part = PIECE if count > PIECE else count
            if self.masked:
                new = self.assembler.data + self.assembler.have
                if part < RELEASE_SIZE:
                    self.phase = fdx_mask(new, new, part, self.key, self.phase, self.cpu)
                else:
                    with nogil:
                        self.phase = fdx_mask(new, new, part, self.key, self.phase, self.cpu)
            try:
                self.assembler.commit(part, count - part)
            except UnicodeDecodeError as exc:
                # As in the reference: the fault is reported by the next pull, not by who reads.
                self.error = exc
                return 0
            except MemoryError as exc:
                self.error = exc
                raise
            count -= part
        return 0

    def get_buffer(self, Py_ssize_t sizehint=-1):
        cdef size_t size = 0
        self.space(&size)
        return memoryview(self)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef uint8_t *place
        if self.offered == 0:
            raise BufferError("there is no space on offer: call get_buffer()")
        place = self.assembler.data + self.assembler.have if self.direct else self.input + self.tail
        PyBuffer_FillInfo(buffer, self, place, <Py_ssize_t>self.offered, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def after_fork(self):
        # The view of a thread that exists in the parent only is never released, nor used.
        self.exports = 0
        self.offered = 0

    def buffer_updated(self, Py_ssize_t count):
        if count < 0:
            raise ValueError(f"a count of bytes is not negative: {count}")
        self.commit(<size_t>count)

    def feed(self, data):
        cdef Bytes view = Bytes(data)
        if self.error is None:  # after an error nothing more is kept
            self._append(view.p, view.n)

    cdef int _append(self, const uint8_t *data, size_t size) except -1:
        cdef size_t room, part
        cdef uint8_t *place
        while size:
            place = self.space(&room)
            part = size if size < room else room
            memcpy(place, data, part)
            self.commit(part)
            data += part
            size -= part
            if self.error is not None:
                return 0
        return 0

    @property
    def pending(self):
        return self.tail - self.head

    @property
    def mid_message(self):
        return self.message_opcode != CONT or self.assembler.active

    # Output

    cpdef bint idle(self) noexcept:
        return self.head == self.tail and not self.in_frame and self.error is None

    cpdef object pull(self, bint as_bytes=False):
        while True:
            if not self._begin():
                return None
            if self.frame_opcode >= CLOSE:
                return self._take_control()
            if self.frame_fin and not self.assembler.active and self.tail - self.head >= self.remaining:
                return self._whole(as_bytes)
            if not self._fill(as_bytes):
                return None
            self.in_frame = False
            if self.frame_fin:
                self.opcode, self.fin, self.rsv = self.message_opcode, True, 0
                self._end_message()
                return self._give(as_bytes, True)

    cpdef object pull_fragment(self):
        cdef Assembler assembler = self.assembler
        while True:
            if assembler.active and assembler.end_next < assembler.end_count:
                self._leave_space()
                data = assembler.give_fragment()
                self.opcode = TEXT if assembler.text else BINARY
                self.fin = self.message_opcode == CONT and assembler.end_next == assembler.end_count
                if self.fin:
                    assembler.clear()
                return data
            if not self._begin():
                return None
            if self.frame_opcode >= CLOSE:
                return self._take_control()
            if not self._fill(True):
                return None
            self.in_frame = False
            if self.frame_fin:
                self._end_message()

    cpdef object pull_frame(self):
        if not self._begin():
            return None
        if self.frame_opcode >= CLOSE:
            return self._take_control()
        if not self.assembler.active and self.tail - self.head >= self.remaining:
            data = self._payload()
        else:
            if not self.assembler.active:
                self.assembler.begin(False, True)
            if not self._fill(True):
                return None
            # Counting the message is its owner's business here, who knows what it is decoded.
            self.message_size -= <Py_ssize_t>self.assembler.have
            data = self._give(True, False)
        self.in_frame = False
        self.opcode, self.fin, self.rsv = self.frame_opcode, self.frame_fin, self.frame_rsv
        if self.frame_fin:
            self._end_message()
        return data

    # Steps

    cdef int _begin(self) except -1:
        """Be inside a frame: parse the next header if need be."""
        if self.error is not None:
            raise self.error
        self._leave_space()
        if self.in_frame:
            return 1
        if self.tail - self.head < 2:
            return 0  # the usual case, that nothing came yet
        return self._parse_header()

    cdef object _final(self, exc):
        """Note the error that all further pulls raise."""
        self.error = exc
        return exc

    cdef inline int _leave_space(self) except -1:
        """Take the space back that was on offer: what is pulled now may free it."""
        if self.exports:
            raise BufferError("a view of the decoder's buffer is still in use")
        self.offered = 0
        return 0

    cdef int _parse_header(self) except -1:
        """Parse a frame header (RFC 6455 section 5.2) if it is there whole; check it before any payload is kept."""
        cdef const uint8_t *p = self.input + self.head
        cdef size_t have = self.tail - self.head
        cdef size_t end = 2
        cdef size_t extra = 0
        cdef uint64_t size
        cdef int opcode, rsv
        cdef bint fin, masked
        cdef size_t index
        # 1. what the first two bytes alone decide
        opcode = p[0] & 0x0F
        fin = (p[0] & 0x80) != 0
        rsv = (p[0] >> 4) & 7
        size = p[1] & 0x7F
        masked = (p[1] & 0x80) != 0
        self._check_first(opcode, fin, rsv, <size_t>size, masked)
        # 2. the rest of the length, in its shortest form, and the key
        if size >= 126:
            extra = 2 if size == 126 else 8
            end += extra
            if have < end:
                return 0
            size = 0
            for index in range(2, end):
                size = size << 8 | p[index]
            if size >> 63:
                raise self._final(ProtocolError("payload length has its highest bit set"))
            if size < <uint64_t>(126 if extra == 2 else 65536):
                raise self._final(ProtocolError("payload length is not in its shortest form"))
        if size > <uint64_t>PY_SSIZE_T_MAX:
            raise self._final(PayloadTooBig(size, PY_SSIZE_T_MAX))
        if opcode < CLOSE:
            self._check_size(<size_t>size)
        if masked:
            if have < end + 4:
                return 0
            memcpy(self.key, p + end, 4)
            end += 4
        self.head += end
        # 3. the frame has begun
        self.phase = 0
        self.frame_opcode = opcode
        self.frame_fin = fin
        self.frame_rsv = rsv
        self.remaining = <size_t>size
        self.in_frame = True
        self.frames_received += 1
        if opcode < CLOSE:
            self._begin_data(<size_t>size)
        return 1

    cdef int _check_first(self, int opcode, bint fin, int rsv, size_t size, bint masked) except -1:
        if rsv:
            # RFC 7692 section 6: RSV1 belongs to the first frame of a message.
            if rsv & ~self.rsv_allowed or (self.rsv_allowed != ANY_RSV and not CONT < opcode < CLOSE):
                raise self._final(ProtocolError("reserved bits must be 0"))
        if opcode > PONG or BINARY < opcode < CLOSE:
            raise self._final(ProtocolError(f"invalid opcode: {opcode:#04x}"))
        if masked != self.masked:
            raise self._final(ProtocolError("incorrect masking"))
        if opcode >= CLOSE:
            if size > 125:
                raise self._final(ProtocolError("control frame too long"))
            if not fin:
                raise self._final(ProtocolError("fragmented control frame"))
        elif opcode == CONT:
            if self.message_opcode == CONT:
                raise self._final(ProtocolError("unexpected continuation frame"))
        elif self.message_opcode != CONT:
            raise self._final(ProtocolError("expected a continuation frame"))
        return 0

    cdef int _begin_data(self, size_t size) except -1:
        if self.frame_opcode != CONT:
            self.message_opcode = self.frame_opcode
            self.message_frames = 0
            self.message_size = 0
        self.message_frames += 1
        # Announced sizes have 63 bits each, and perhaps no limit.
        self.payload_received += min(<Py_ssize_t>size, PY_SSIZE_T_MAX - self.payload_received)
        if self.fragments_limit >= 0 and self.message_frames > self.fragments_limit:
            raise self._final(TooManyFragments(self.fragments_limit))
        return 0

    cdef int _check_size(self, size_t size) except -1:
        """Refuse a data frame by its announced size; a compressed one may be a little longer than its limit."""
        cdef Py_ssize_t have = self.message_size if self.message_opcode != CONT else 0
        cdef Py_ssize_t slack
        if self.fragment_limit >= 0:
            slack = (self.fragment_limit >> 3) + COMPRESSED_SLACK if self.rsv_allowed else 0
            # Compared before anything is added up: a length has 63 bits.
            if <Py_ssize_t>size - slack > self.fragment_limit:
                raise self._final(PayloadTooBig(size, self.fragment_limit))
        if self.message_limit >= 0:
            slack = (self.message_limit >> 3) + COMPRESSED_SLACK if self.rsv_allowed else 0
            if <Py_ssize_t>size - slack > self.message_limit - have:
                raise self._final(PayloadTooBig(size, self.message_limit - have, have or None))
        return 0

    cdef object _payload(self):
        """Take the payload of the frame under way, which is there whole."""
        cdef size_t size = self.remaining
        cdef const uint8_t *p = self.input + self.head
        data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        if self.masked:
            fdx_mask(<uint8_t *>PyBytes_AS_STRING(data), p, size, self.key, 0, self.cpu)
        else:
            memcpy(PyBytes_AS_STRING(data), p, size)
        self.head += size
        self.remaining = 0
        return data

    cdef object _take_control(self):
        if self.tail - self.head < self.remaining:
            return None
        data = self._payload()  # may find no memory: then the frame is still under way
        self.opcode, self.fin, self.rsv = self.frame_opcode, self.frame_fin, self.frame_rsv
        self.in_frame = False
        return data

    cdef object _whole(self, bint as_bytes):
        """Take an unfragmented message that is there whole, past the assembler."""
        cdef size_t size = self.remaining
        cdef uint8_t *p = self.input + self.head
        cdef fdx_utf8_state state
        cdef size_t bad = 0
        self.opcode, self.fin, self.rsv = self.message_opcode, True, 0
        self.bounds = None
        if self.message_opcode != TEXT:
            data = self._payload()
        else:
            if self.masked:
                fdx_mask(p, p, size, self.key, 0, self.cpu)
                memset(self.key, 0, 4)  # for a second try, should memory run out below
            if fdx_is_ascii(p, size, self.cpu):
                data = PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>size) if as_bytes else ascii_from(p, size)
            else:
                fdx_utf8_init(&state)
                try:
                    if fdx_utf8_feed(&state, p, size, &bad, self.cpu):
                        raise_utf8(bad, p + bad)
                    if not fdx_utf8_done(&state):
                        raise_utf8(size, NULL)
                except UnicodeDecodeError as exc:
                    self.error = exc
                    raise
                if as_bytes:
                    data = PyBytes_FromStringAndSize(<const char *>p, <Py_ssize_t>size)
                else:
                    data = text_from(p, size, self.cpu)
            self.head += size
            self.remaining = 0
        self.in_frame = False
        self.message_size = <Py_ssize_t>size
        self._end_message()
        return data

    cdef int _fill(self, bint as_bytes) except -1:
        """Move what came of a data frame into the message; tell whether the frame is complete."""
        cdef Assembler assembler = self.assembler
        cdef size_t count = self.tail - self.head
        if not assembler.active:
            assembler.begin(self.message_opcode == TEXT, as_bytes)
        if count > self.remaining:
            count = self.remaining
        try:
            if count:
                self.message_size += <Py_ssize_t>count
                assembler.put(self.input + self.head, count, self.key if self.masked else NULL, self.phase)
                self.phase = (self.phase + <unsigned>(count & 3)) & 3
                self.head += count
                self.remaining -= count
            if self.remaining:
                # The announced rest is received into the message itself, as far as it may be trusted.
                return 0
            assembler.end(self.frame_fin)
        except (UnicodeDecodeError, MemoryError) as exc:
            self.error = exc
            raise
        return 1

    cdef object _give(self, bint as_bytes, bint with_bounds):
        """Take the message from the assembler; when memory runs out it is lost, and nothing may follow."""
        try:
            if with_bounds:
                self.bounds = self.assembler.give_bounds()
            return self.assembler.give(as_bytes)
        except MemoryError as exc:
            self.error = exc
            raise

    cdef void _end_message(self) noexcept:
        self.frames = self.message_frames
        self.message_opcode = CONT
        self.messages_received += 1
