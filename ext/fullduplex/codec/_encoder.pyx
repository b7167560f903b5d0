"""Frame building for the compiled codec; `fullduplex.codec.pure` documents the Python surface."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fullduplex.codec._assembler cimport RELEASE_SIZE, Bytes, fdx_cpu_detect, fdx_mask

cdef extern from "Python.h":
    int PyUnicode_IS_COMPACT_ASCII(object text)
    void *PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

cdef enum:
    FIRST_KEYS = 32  # bytes of the first block of keys
    KEY_BLOCK = 256  # bytes of the others


cdef class Epoch:
    """Counts forks, so that masking keys drawn before one are not used after it."""

    def __cinit__(self):
        self.value = 0

    def bump(self):
        self.value += 1


_epoch = Epoch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_epoch.bump)


cdef inline Py_ssize_t _header_size(Py_ssize_t size, bint masked) noexcept:
    return (2 if size < 126 else 4 if size < 65536 else 10) + (4 if masked else 0)


cdef inline uint8_t *_write_header(uint8_t *p, int head, Py_ssize_t size, bint masked) noexcept:
    """Write what comes before the masking key; return the place behind it."""
    cdef int bit = 0x80 if masked else 0
    cdef int shift
    p[0] = <uint8_t>head
    if size < 126:
        p[1] = <uint8_t>(bit | size)
        return p + 2
    if size < 65536:
        p[1] = <uint8_t>(bit | 126)
        p[2] = <uint8_t>(size >> 8)
        p[3] = <uint8_t>(size & 0xFF)
        return p + 4
    p[1] = <uint8_t>(bit | 127)
    for shift in range(8):
        p[2 + shift] = <uint8_t>((<uint64_t>size >> (56 - 8 * shift)) & 0xFF)
    return p + 10


cdef bytes _build(int head, const uint8_t *data, Py_ssize_t size, const uint8_t *key, int cpu):
    """Build a frame in one bytes."""
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, _header_size(size, key is not NULL) + size)
    cdef uint8_t *p = _write_header(<uint8_t *>PyBytes_AS_STRING(frame), head, size, key is not NULL)
    if key is not NULL:
        memcpy(p, key, 4)
        p += 4
    if size == 0:
        return frame
    if size < RELEASE_SIZE:
        if key is NULL:
            memcpy(p, data, <size_t>size)
        else:
            fdx_mask(p, data, <size_t>size, key, 0, cpu)
        return frame
    with nogil:
        if key is NULL:
            memcpy(p, data, <size_t>size)
        else:
            fdx_mask(p, data, <size_t>size, key, 0, cpu)
    return frame


cdef class AsciiView:
    """The bytes of an ASCII str, which are its UTF-8, where they lie."""

    cdef str text                 # kept alive as long as its bytes are in use

    def __cinit__(self, str text not None):
        if not PyUnicode_IS_COMPACT_ASCII(text):
            raise ValueError("not ASCII")
        self.text = text

    def __len__(self):
        return PyUnicode_GET_LENGTH(self.text)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, PyUnicode_DATA(self.text), PyUnicode_GET_LENGTH(self.text), 1, flags)


cdef class Encoder:
    def __cinit__(self, *, bint masked):
        self.masked = masked
        self.frames_sent = self.payload_sent = 0
        self.keys = None
        self.keys_used = 0
        self.epoch = _epoch
        self.seen = self.epoch.value
        self.cpu = fdx_cpu_detect()

    cdef int _draw(self, uint8_t *key) except -1:
        """Draw a masking key; never one that a forked process may have as well."""
        if self.keys is None:  # a connection that only opens and closes needs one key
            self.keys = os.urandom(FIRST_KEYS)
            self.seen = self.epoch.value
            self.keys_used = 0
        elif self.keys_used == PyBytes_GET_SIZE(self.keys) or self.seen != self.epoch.value:
            self.keys = os.urandom(KEY_BLOCK)
            self.seen = self.epoch.value
            self.keys_used = 0
        memcpy(key, PyBytes_AS_STRING(self.keys) + self.keys_used, 4)
        self.keys_used += 4
        return 0

    cpdef bytes frame(self, int head, object payload):
        cdef Py_buffer view
        cdef uint8_t key[4]
        cdef uint8_t *used = NULL
        cdef bytes frame
        cdef const uint8_t *data
        cdef Py_ssize_t size
        if self.masked:
            self._draw(key)
            used = key
        if isinstance(payload, str):
            if PyUnicode_IS_COMPACT_ASCII(payload):
                size = PyUnicode_GET_LENGTH(payload)
                data = <const uint8_t *>PyUnicode_DATA(payload)
                self.frames_sent += 1
                self.payload_sent += size
                return _build(head, data, size, used, self.cpu)
            payload = (<str>payload).encode("utf-8")
        if type(payload) is bytes:
            size = PyBytes_GET_SIZE(payload)
            self.frames_sent += 1
            self.payload_sent += size
            return _build(head, <const uint8_t *>PyBytes_AS_STRING(payload), size, used, self.cpu)
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            self.frames_sent += 1
            self.payload_sent += view.len
            frame = _build(head, <const uint8_t *>view.buf, view.len, used, self.cpu)
        finally:
            PyBuffer_Release(&view)
        return frame

    cpdef object octets(self, object text):
        if isinstance(text, str) and PyUnicode_IS_COMPACT_ASCII(text):
            return AsciiView(text)
        return text.encode()

    cpdef bytes header(self, int head, Py_ssize_t size):
        cdef bytes header = PyBytes_FromStringAndSize(NULL, _header_size(size, self.masked))
        cdef uint8_t *p = _write_header(<uint8_t *>PyBytes_AS_STRING(header), head, size, self.masked)
        if self.masked:
            self._draw(self.key)
            memcpy(p, self.key, 4)
        self.frames_sent += 1
        self.payload_sent += size
        return header

    cpdef Py_ssize_t mask_into(self, bytearray target, object payload, Py_ssize_t offset) except -1:
        cdef Py_buffer view
        cdef Py_ssize_t count = PyByteArray_GET_SIZE(target)
        cdef uint8_t *to = <uint8_t *>PyByteArray_AS_STRING(target)
        cdef int cpu = self.cpu
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            if offset < 0 or offset > view.len:
                raise ValueError(f"offset {offset} is outside of the payload's {view.len} bytes")
            if count > view.len - offset:
                count = view.len - offset
            if count < RELEASE_SIZE:
                fdx_mask(to, <const uint8_t *>view.buf + offset, <size_t>count, self.key, <unsigned>(offset & 3), cpu)
            else:
                with nogil:
                    fdx_mask(to, <const uint8_t *>view.buf + offset, <size_t>count, self.key, <unsigned>(offset & 3), cpu)
        finally:
            PyBuffer_Release(&view)
        return count


def build_frame(int opcode, payload, *, bint fin=True, bint rsv1=False, bint rsv2=False, bint rsv3=False, mask=None):
    cdef Bytes data = Bytes(payload)
    cdef Bytes key
    cdef int head = (fin << 7) | (rsv1 << 6) | (rsv2 << 5) | (rsv3 << 4) | opcode
    if mask is None:
        return _build(head, data.p, <Py_ssize_t>data.n, NULL, 0)
    key = Bytes(mask)
    if key.n != 4:
        raise ValueError(f"a masking key has 4 bytes, not {key.n}")
    return _build(head, data.p, <Py_ssize_t>data.n, key.p, fdx_cpu_detect())
