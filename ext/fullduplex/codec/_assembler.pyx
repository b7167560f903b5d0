"""Text and message storage for the compiled codec.

`Assembler` collects one message in the very object that the caller gets: a bytes, or the storage of an
ASCII str as long as no other byte has come. `fullduplex.codec.pure` documents the Python surface.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memmove

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    PyObject *_new_str "PyUnicode_New"(Py_ssize_t size, Py_UCS4 maxchar)
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *data, Py_ssize_t size)
    int _resize_str "PyUnicode_Resize"(PyObject **text, Py_ssize_t size) except -1
    int _resize_bytes "_PyBytes_Resize"(PyObject **data, Py_ssize_t size) except -1
    void *PyUnicode_DATA(PyObject *text) nogil
    char *_bytes_data "PyBytes_AS_STRING"(PyObject *data) nogil

cdef enum:
    GROWTH = 65536
    MAX_BOUNDS = 1024


cdef int raise_utf8(size_t position, const uint8_t *byte) except -1:
    found = b"" if byte is NULL else byte[:1]
    what = "invalid byte" if found else "unexpected end of text"
    raise UnicodeDecodeError("utf-8", found, 0, len(found), f"{what} at offset {position}")


cdef object ascii_from(const uint8_t *p, size_t n):
    text = PyUnicode_New(<Py_ssize_t>n, 127)
    memcpy(PyUnicode_DATA(<PyObject *>text), p, n)
    return text


cdef object text_from(const uint8_t *p, size_t n, int cpu):
    """Build a str from UTF-8 that was checked."""
    cdef size_t points = 0
    cdef int kind = 0
    cdef void *data
    if n < RELEASE_SIZE:
        fdx_utf8_count(p, n, &points, &kind, cpu)
    else:
        with nogil:
            fdx_utf8_count(p, n, &points, &kind, cpu)
    if kind == 0:
        return ascii_from(p, n)
    text = PyUnicode_New(<Py_ssize_t>points, 0xFF if kind == 1 else 0xFFFF if kind == 2 else 0x10FFFF)
    data = PyUnicode_DATA(<PyObject *>text)
    if n < RELEASE_SIZE:
        _transcode(data, p, n, kind, cpu)
    else:
        with nogil:
            _transcode(data, p, n, kind, cpu)
    return text


cdef inline void _transcode(void *data, const uint8_t *p, size_t n, int kind, int cpu) noexcept nogil:
    if kind == 1:
        fdx_utf8_to_latin1(<uint8_t *>data, p, n, cpu)
    elif kind == 2:
        fdx_utf8_to_ucs2(<uint16_t *>data, p, n, cpu)
    else:
        fdx_utf8_to_ucs4(<uint32_t *>data, p, n, cpu)


cdef class Bytes:
    """Any bytes-like object, as C sees it: contiguous, and counted in bytes."""

    def __cinit__(self, data):
        PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
        self.p = <const uint8_t *>self.view.buf
        self.n = <size_t>self.view.len

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class Assembler:
    def __cinit__(self):
        self.storage = NULL
        self.ends = NULL
        self.end_room = 0
        self.trusted = 0
        self.cpu = fdx_cpu_detect()
        self.clear()

    def __dealloc__(self):
        Py_XDECREF(self.storage)
        PyMem_Free(self.ends)

    # The Python surface, for protocols whose payloads pass through extensions and for the tests

    def reset(self):
        self.clear()

    def start(self, bint text):
        self.begin(text, False)

    def append(self, data):
        cdef Bytes view = Bytes(data)
        self.put(view.p, view.n, NULL, 0)

    def end_fragment(self, bint fin):
        self.end(fin)

    def finish(self, bint as_bytes=False):
        bounds = self.give_bounds()
        return self.give(as_bytes), bounds

    def take_fragment(self):
        return self.give_fragment()

    @property
    def fragments(self):
        return self.end_count - self.end_next

    # What the decoder calls

    cdef void clear(self) noexcept:
        Py_XDECREF(self.storage)
        self.storage = NULL
        self.data = NULL
        self.have = self.room = self.taken = self.checked = 0
        self.end_count = self.end_next = 0
        self.is_str = self.text = self.active = self.want_bytes = False
        fdx_utf8_init(&self.utf8)

    cdef void begin(self, bint text, bint want_bytes) noexcept:
        self.clear()
        self.text = text
        self.want_bytes = want_bytes
        self.active = True

    cdef int reserve(self, size_t more) except -1:
        """Have room for at least one of ``more`` bytes to come, for all of them if they may be trusted to come."""
        cdef size_t free = self.room - self.have
        cdef size_t step
        if free >= more or free >= GROWTH:
            return 0
        step = self.have if self.have > GROWTH else GROWTH
        if self.trusted > self.have + step:
            step = self.trusted - self.have
        if more < step:
            step = more
        if step > free:
            self._resize(self.have + step)
        return 0

    cdef int _resize(self, size_t room) except -1:
        try:
            self._change_room(room)
        except MemoryError:
            self.clear()  # the storage may be gone
            raise
        self.room = room
        if self.is_str:
            self.data = <uint8_t *>PyUnicode_DATA(self.storage)
        else:
            self.data = <uint8_t *>_bytes_data(self.storage)
        return 0

    cdef int _change_room(self, size_t room) except -1:
        if self.storage is NULL:
            self.is_str = self.text and not self.want_bytes
            if self.is_str:
                self.storage = _new_str(<Py_ssize_t>room, 127)
            else:
                self.storage = _new_bytes(NULL, <Py_ssize_t>room)
            if self.storage is NULL:
                raise MemoryError()
        elif self.is_str:
            _resize_str(&self.storage, <Py_ssize_t>room)
        else:
            _resize_bytes(&self.storage, <Py_ssize_t>room)
        return 0

    cdef int _leave_str(self, size_t behind) except -1:
        """Go on in a bytes: a byte came that is not ASCII. Takes along what was received ``behind``."""
        cdef PyObject *data = _new_bytes(NULL, <Py_ssize_t>self.room)
        if data is NULL:
            raise MemoryError()
        memcpy(_bytes_data(data), self.data, self.have + behind)
        Py_XDECREF(self.storage)
        self.storage = data
        self.data = <uint8_t *>_bytes_data(data)
        self.is_str = False
        return 0

    cdef int commit(self, size_t count, size_t behind) except -1:
        """Take over ``count`` bytes that were written, unmasked, behind those that the storage has.

        There may be more ``behind`` them, which will be taken over by a later call.
        """
        cdef uint8_t *new = self.data + self.have
        cdef size_t bad = 0
        cdef int failed, ascii = 1
        self.have += count
        if not self.text:
            return 0
        if count < RELEASE_SIZE:
            failed = fdx_utf8_feed(&self.utf8, new, count, &bad, self.cpu)
            if self.is_str and not failed:
                ascii = fdx_is_ascii(new, count, self.cpu)
        else:
            with nogil:
                # A sequence may be open though it is a str: what came before may have been given as a fragment.
                if self.is_str and fdx_utf8_done(&self.utf8) and fdx_is_ascii(new, count, self.cpu):
                    failed = 0
                else:
                    ascii = 0
                    failed = fdx_utf8_feed(&self.utf8, new, count, &bad, self.cpu)
        if failed:
            raise_utf8(self.checked + bad, new + bad)
        self.checked += count
        if self.is_str and not ascii:
            self._leave_str(behind)
        return 0

    cdef int put(self, const uint8_t *p, size_t n, const uint8_t *key, unsigned phase) except -1:
        """Add bytes by copying them, unmasked if there is a key."""
        cdef size_t part
        while n:
            self.reserve(n)
            part = self.room - self.have
            if part > n:
                part = n
            if key is NULL:
                memcpy(self.data + self.have, p, part)
            else:
                phase = fdx_mask(self.data + self.have, p, part, key, phase, self.cpu)
            self.commit(part, 0)
            p += part
            n -= part
        return 0

    cdef int end(self, bint fin) except -1:
        cdef size_t *ends
        cdef Py_ssize_t room
        if fin and self.text and not fdx_utf8_done(&self.utf8):
            raise_utf8(self.checked, NULL)
        if self.end_count == MAX_BOUNDS:
            if self.end_next == 0:
                if fin:
                    self.ends[MAX_BOUNDS - 1] = self.taken + self.have
                return 0
            self.end_count -= self.end_next  # forget those that were taken
            memmove(self.ends, self.ends + self.end_next, <size_t>self.end_count * sizeof(size_t))
            self.end_next = 0
        if self.end_count == self.end_room:
            room = 4 if self.end_room == 0 else 2 * self.end_room
            ends = <size_t *>PyMem_Realloc(self.ends, <size_t>room * sizeof(size_t))
            if ends is NULL:
                raise MemoryError()
            self.ends = ends
            self.end_room = room
        self.ends[self.end_count] = self.taken + self.have
        self.end_count += 1
        return 0

    cdef object give_bounds(self):
        if self.end_count < 2:
            return None
        return tuple([self.ends[i] for i in range(self.end_count)])

    cdef object give(self, bint as_bytes):
        """Hand out the message and be empty again."""
        cdef bint text = self.text
        cdef bint is_str = self.is_str
        if self.have > self.trusted:
            self.trusted = self.have
        if self.storage is NULL:
            self.clear()
            return "" if text and not as_bytes else b""
        if self.room != self.have:
            self._resize(self.have)
        data = <object>self.storage
        self.clear()
        if is_str:
            return data.encode("ascii") if as_bytes else data
        if text and not as_bytes:
            return text_from(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>len(data), self.cpu)
        return data

    cdef object give_fragment(self):
        """Hand out the oldest complete fragment as bytes."""
        cdef size_t size
        cdef Py_ssize_t index = self.end_next
        if index == self.end_count:
            return None
        size = self.ends[index] - self.taken
        data = PyBytes_FromStringAndSize(<const char *>self.data, <Py_ssize_t>size)
        self.end_next += 1
        self.taken += size
        self.have -= size
        if self.have:
            memmove(self.data, self.data + size, self.have)
        else:  # nothing left to keep the storage for; one that may be trusted comes back soon
            Py_XDECREF(self.storage)
            self.storage = NULL
            self.data = NULL
            self.room = 0
        if self.end_next == self.end_count:
            self.end_next = self.end_count = 0
        return data


cdef class Utf8Validator:
    cdef fdx_utf8_state state     # between chunks
    cdef size_t fed               # bytes checked so far
    cdef int cpu                  # what the processor can do

    def __cinit__(self):
        fdx_utf8_init(&self.state)
        self.fed = 0
        self.cpu = fdx_cpu_detect()

    def feed(self, data):
        cdef Bytes view = Bytes(data)
        cdef const uint8_t *p = view.p
        cdef size_t n = view.n
        cdef size_t bad = 0
        cdef int failed
        if n < RELEASE_SIZE:
            failed = fdx_utf8_feed(&self.state, p, n, &bad, self.cpu)
        else:
            with nogil:
                failed = fdx_utf8_feed(&self.state, p, n, &bad, self.cpu)
        if failed:
            raise_utf8(self.fed + bad, p + bad)
        self.fed += n

    def finish(self):
        if not fdx_utf8_done(&self.state):
            raise_utf8(self.fed, NULL)


def decode_text(data):
    cdef Bytes view = Bytes(data)
    cdef int cpu = fdx_cpu_detect()
    if view.n < RELEASE_SIZE and fdx_is_ascii(view.p, view.n, cpu):
        return ascii_from(view.p, view.n)
    validator = Utf8Validator()
    validator.feed(data)
    validator.finish()
    return text_from(view.p, view.n, cpu)


def is_ascii(data):
    cdef Bytes view = Bytes(data)
    return bool(fdx_is_ascii(view.p, view.n, fdx_cpu_detect()))


def apply_mask(data, key, unsigned phase=0):
    cdef Bytes view = Bytes(data)
    cdef Bytes used = Bytes(key)
    cdef uint8_t *target
    cdef int cpu = fdx_cpu_detect()
    if used.n != 4:
        raise ValueError(f"a masking key has 4 bytes, not {used.n}")
    result = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>view.n)
    if view.n == 0:
        return b""
    target = <uint8_t *>PyBytes_AS_STRING(result)
    if view.n < RELEASE_SIZE:
        fdx_mask(target, view.p, view.n, used.p, phase & 3, cpu)
    else:
        with nogil:
            fdx_mask(target, view.p, view.n, used.p, phase & 3, cpu)
    return result
