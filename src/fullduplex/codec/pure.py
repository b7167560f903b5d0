"""The codec in plain Python: the reference that the compiled one is tested against.

Parsing is *pulled*. The owner of a socket reads into `Decoder.get_buffer`, reports how much came with
`Decoder.buffer_updated`, and then pulls until it gets None. One decoder serves three ways of pulling, and
a message is pulled in one of them from its first frame to its last:

``pull``
    whole messages, fragments joined, text checked and decoded;
``pull_fragment``
    the same message, but a fragment at a time;
``pull_frame``
    single frames with their reserved bits, for extensions and for the Sans-I/O events.

Control frames come out of all three, between the fragments of a message too: `Decoder.opcode` tells them
apart. The first error is final: every later pull raises it again (nothing behind it is delivered).

Errors: ProtocolError (close code 1002), UnicodeDecodeError (1007), PayloadTooBig (1009).
"""

from __future__ import annotations

import codecs
import os
from typing import NoReturn

from ..exceptions import PayloadTooBig, ProtocolError, TooManyFragments
from ..typing import BytesLike
from .interrupts import final_if_interrupted
from .masking import apply_mask

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
OPCODES = frozenset([CONT, TEXT, BINARY, CLOSE, PING, PONG])

READ_SIZE = 16384
"""Bytes offered to one read while no large message is under way."""
DIRECT_SIZE = 4096
"""A frame with this many bytes still to come is read straight into its message."""
GROWTH = 65536
"""What a message may take at once before its peer has shown that it really sends that much."""
MAX_READ = 262144
"""Bytes offered to one read of a large message: more would only push the processor's cache out."""
MAX_BOUNDS = 1024
"""Fragments of a message whose borders are kept for streaming; those after them are joined."""
COMPRESSED_SLACK = 1024
"""How much longer than its limit a compressed frame may be, beside an eighth of the limit."""
ANY_RSV = 7
KEY_BLOCK = 256
"""Bytes of masking keys drawn at once."""


def is_ascii(data: BytesLike) -> bool:
    """Tell whether every byte is below 0x80."""
    return bytes(data).isascii()


def decode_text(data: BytesLike) -> str:
    """Decode UTF-8; raises UnicodeDecodeError in the form that `Utf8Validator` documents."""
    validator = Utf8Validator()
    validator.feed(data)
    validator.finish()
    return str(data, "utf-8")


def build_frame(
    opcode: int,
    payload: BytesLike,
    *,
    fin: bool = True,
    rsv1: bool = False,
    rsv2: bool = False,
    rsv3: bool = False,
    mask: BytesLike | None = None,
) -> bytes:
    """Build one frame (RFC 6455 §5.2), masked with the four bytes ``mask`` unless it is None."""
    head = fin << 7 | rsv1 << 6 | rsv2 << 5 | rsv3 << 4 | opcode
    size = memoryview(payload).nbytes
    header = _header(head, size, mask is not None)
    if mask is None:
        return header + bytes(payload)
    return header + bytes(mask) + apply_mask(payload, mask)


def _header(head: int, size: int, masked: bool) -> bytes:
    """Build the part of a frame header before the masking key."""
    bit = 0x80 if masked else 0
    if size < 126:
        return bytes((head, bit | size))
    if size < 65536:
        return bytes((head, bit | 126)) + size.to_bytes(2, "big")
    return bytes((head, bit | 127)) + size.to_bytes(8, "big")


class Utf8Validator:
    """Checks UTF-8 in chunks, and fails at the first byte that can no longer be right.

    The UnicodeDecodeError holds that one byte as its object; its ``reason`` gives the byte's offset from the
    start of the text. An end inside a sequence is reported at the offset where the text ends.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._fed = 0

    def feed(self, data: BytesLike) -> None:
        """Check the next chunk."""
        carried = len(self._decoder.getstate()[0])
        chunk = bytes(data)
        try:
            self._decoder.decode(chunk)
        except UnicodeDecodeError as exc:
            index = exc.start if exc.reason == "invalid start byte" else exc.end
            _invalid_utf8(self._fed - carried + index, bytes(exc.object[index : index + 1]))
        self._fed += len(chunk)
        # Python waits for the third byte of what can only become a surrogate; these two are enough.
        rest = self._decoder.getstate()[0]
        if rest[:1] == b"\xed" and rest[1:] >= b"\xa0":
            _invalid_utf8(self._fed - len(rest) + 1, rest[1:2])

    def finish(self) -> None:
        """Check that the text does not end inside a sequence."""
        if self._decoder.getstate()[0]:
            _invalid_utf8(self._fed, b"")


def _invalid_utf8(position: int, byte: bytes) -> NoReturn:
    what = "invalid byte" if byte else "unexpected end of text"
    raise UnicodeDecodeError("utf-8", byte, 0, len(byte), f"{what} at offset {position}") from None


class Assembler:
    """Collects one message: payload bytes in, a str or bytes out, in one buffer however it was fragmented.

    The buffer grows with the bytes that come. Text is checked as it comes.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the message."""
        self.text = False
        self.active = False
        self._buffer = bytearray()
        self._validator = Utf8Validator()
        self._bounds: list[int] = []
        self._taken = 0

    def start(self, text: bool) -> None:
        """Begin a message."""
        self.reset()
        self.text = text
        self.active = True

    def append(self, data: BytesLike) -> None:
        """Add payload bytes."""
        if self.text:
            self._validator.feed(data)
        self._buffer += data

    def end_fragment(self, fin: bool) -> None:
        """Note that a frame ended here; check that text is complete if it was the last one."""
        if fin and self.text:
            self._validator.finish()
        end = self._taken + len(self._buffer)
        if len(self._bounds) < MAX_BOUNDS:
            self._bounds.append(end)
        elif fin:
            self._bounds[-1] = end

    def finish(self, as_bytes: bool = False) -> tuple[bytes | str, tuple[int, ...] | None]:
        """Give the message and the offsets, in bytes, at which its fragments end (None if it had just one)."""
        data = bytes(self._buffer)
        bounds = tuple(self._bounds) if len(self._bounds) > 1 else None
        text = self.text
        self.reset()
        return (str(data, "utf-8") if text and not as_bytes else data), bounds

    def take_fragment(self) -> bytes | None:
        """Give the oldest complete fragment that was not taken yet."""
        if not self._bounds:
            return None
        end = self._bounds.pop(0) - self._taken
        data = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._taken += end
        return data

    @property
    def fragments(self) -> int:
        """Complete fragments that were not taken yet."""
        return len(self._bounds)


class Decoder:
    """Parses one direction of a connection (RFC 6455 §5); not thread-safe, one reader at a time.

    Args:
        masked: frames must be masked (a server's side) or must not be (a client's).
        max_message: bytes of a message, None for no limit; judged when a header announces more.
        max_fragment, max_fragments: the same for the payload of one data frame; frames of a message.

    Attributes:
        opcode: of what the last pull gave. A whole message has TEXT or BINARY; `pull_fragment` gives the
            opcode of the message, `pull_frame` that of the frame.
        fin, rsv: whether the last pull ended a message; reserved bits of the last frame (RSV1 is 4, RSV2 2, RSV3 1).
        rsv_allowed: reserved bits that an extension uses on the first frame of a message; if all (7), on any.
        frames: how many frames the message that the last pull ended had.
        bounds: the offsets at which the fragments of that message end, or None.
        message_size: bytes of the current message so far; with `pull_frame` its owner keeps it true.
        frames_received, messages_received, payload_received: counters since the start; payload in bytes.
    """

    def __init__(
        self,
        *,
        masked: bool,
        max_message: int | None = None,
        max_fragment: int | None = None,
        max_fragments: int | None = None,
    ) -> None:
        self.masked = masked
        self.max_message = max_message
        self.max_fragment = max_fragment
        self.max_fragments = max_fragments
        self._assembler = Assembler()
        self.opcode = 0
        self.fin = True
        self.rsv = 0
        self.rsv_allowed = 0
        self.frames = 0
        self.bounds: tuple[int, ...] | None = None
        self.message_size = 0
        self.frames_received = 0
        self.messages_received = 0
        self.payload_received = 0
        self._error: Exception | None = None
        self._input = bytearray()
        self._space = bytearray()
        self._offered = 0
        self._message_opcode = CONT  # CONT between messages
        self._message_frames = 0
        self._in_frame = False
        self._streaming = False
        # opcode, fin, rsv of the frame under way
        self._header: tuple[int, bool, int] = (0, True, 0)
        self._remaining = 0
        self._key = b""
        self._phase = 0

    # Input

    def get_buffer(self, sizehint: int = -1) -> memoryview:
        """Give writable space for the next bytes from the network; valid until the next call of any method.

        The view must be released before that call: `BufferError` is raised otherwise.
        """
        self._check_exports()
        if self._in_frame and self._remaining >= DIRECT_SIZE:
            size = min(self._remaining, MAX_READ)
        else:
            size = READ_SIZE
        if len(self._space) != size:
            self._space = bytearray(size)
        self._offered = size
        return memoryview(self._space)

    def buffer_updated(self, count: int) -> None:
        """Say how many bytes were put into the space that `get_buffer` gave.

        Raises:
            ValueError: for more bytes than there was space.
        """
        self._check_exports()
        if count < 0:
            raise ValueError(f"a count of bytes is not negative: {count}")
        if count > self._offered:
            raise ValueError(f"{count} bytes do not fit into the {self._offered} that were offered")
        piece = memoryview(self._space)[:count]
        # No call from here on, so that a signal's handler finds either all of it done or nothing.
        if self._error is None:
            try:
                self._input += piece
            except MemoryError as exc:
                self._error = exc  # part of what came is gone, nothing behind it may be delivered
                piece.release()
                raise
        self._offered = 0

    def feed(self, data: BytesLike) -> None:
        """Add bytes from the network by copying them; after an error they are dropped."""
        self._check_exports()
        if self._error is None:
            self._input += data

    def after_fork(self) -> None:
        """Take the space back from a thread that was reading into it, and exists in the parent only."""
        self._space = bytearray()
        self._offered = 0

    def _check_exports(self) -> None:
        """Refuse to go on while a view of the space is alive."""
        try:
            self._space.append(0)
        except BufferError:
            raise BufferError("a view of the decoder's buffer is still in use") from None
        self._space.pop()

    @property
    def pending(self) -> int:
        """Bytes that came and were not parsed yet."""
        return len(self._input)

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._message_opcode != CONT or self._assembler.active

    # Output

    def idle(self) -> bool:
        """Tell whether `pull` would give None since nothing has come; quicker than that."""
        return not self._input and not self._in_frame and self._error is None

    @final_if_interrupted
    def pull(self, as_bytes: bool = False) -> bytes | str | None:
        """Give the next message or control frame, or None when more bytes are needed.

        Args:
            as_bytes: give text as bytes; it is checked all the same.
        """
        while True:
            if not self._begin():
                return None
            opcode, fin, _ = self._header
            if opcode >= CLOSE:
                return self._take_control()
            if not self._fill():
                return None
            self._in_frame = False
            if fin:
                return self._finish_message(as_bytes)

    @final_if_interrupted
    def pull_fragment(self) -> bytes | None:
        """Give the next fragment of a message, or a control frame, or None when more bytes are needed."""
        while True:
            assembler = self._assembler
            if assembler.fragments and assembler.active:
                self._leave_space()
                data = assembler.take_fragment()
                self.opcode = TEXT if assembler.text else BINARY
                self.fin = self._message_opcode == CONT and not assembler.fragments
                if self.fin:
                    assembler.reset()
                return data
            if not self._begin():
                return None
            opcode, fin, _ = self._header
            if opcode >= CLOSE:
                return self._take_control()
            if not self._fill():
                return None
            self._in_frame = False
            if fin:
                self._end_message()

    @final_if_interrupted
    def pull_frame(self) -> bytes | None:
        """Give the payload of the next frame, unmasked and not looked at, or None when more bytes are needed."""
        if not self._begin():
            return None
        opcode, fin, rsv = self._header
        if opcode >= CLOSE:
            return self._take_control()
        if len(self._input) < self._remaining:
            return None
        data = self._unmask(self._remaining)
        self._in_frame = False
        self.opcode, self.fin, self.rsv = opcode, fin, rsv
        if fin:
            self._end_message()
        return data

    # Steps

    def _begin(self) -> bool:
        """Be inside a frame: parse the next header if need be."""
        if self._error is not None:
            raise self._error
        self._leave_space()
        if self._in_frame:
            return True
        try:
            return self._parse_header()
        except Exception as exc:
            self._error = exc
            raise

    def _leave_space(self) -> None:
        """Take the space back that was on offer."""
        self._check_exports()
        self._offered = 0

    def _parse_header(self) -> bool:
        """Parse a frame header (RFC 6455 §5.2) if it is there whole; check it before any payload is kept."""
        data = self._input
        if len(data) < 2:
            return False
        opcode, fin, rsv = data[0] & 0x0F, bool(data[0] & 0x80), data[0] >> 4 & 7
        size = data[1] & 0x7F
        masked = bool(data[1] & 0x80)
        # 1. what the first two bytes alone decide
        # RFC 7692 §6: RSV1 belongs to the first frame of a message. What other extensions do is theirs to check.
        anywhere = self.rsv_allowed == ANY_RSV
        if rsv & ~(self.rsv_allowed if anywhere or CONT < opcode < CLOSE else 0):
            raise ProtocolError("reserved bits must be 0")
        if opcode not in OPCODES:
            raise ProtocolError(f"invalid opcode: {opcode:#04x}")
        if masked != self.masked:
            raise ProtocolError("incorrect masking")
        if opcode >= CLOSE:
            if size > 125:
                raise ProtocolError("control frame too long")
            if not fin:
                raise ProtocolError("fragmented control frame")
        elif opcode == CONT:
            if self._message_opcode == CONT:
                raise ProtocolError("unexpected continuation frame")
        elif self._message_opcode != CONT:
            raise ProtocolError("expected a continuation frame")
        # 2. the rest of the length, in its shortest form, and the key
        extra = {126: 2, 127: 8}.get(size, 0)
        end = 2 + extra
        if len(data) >= end and extra:
            size = int.from_bytes(data[2:end], "big")
            if size >> 63:
                raise ProtocolError("payload length has its highest bit set")
            if size < (126 if extra == 2 else 65536):
                raise ProtocolError("payload length is not in its shortest form")
        if len(data) >= end and opcode < CLOSE:
            self._check_size(size, rsv)
        if len(data) < end + 4 * masked:
            return False
        self._key = bytes(data[end : end + 4]) if masked else b""
        del data[: end + 4 * masked]
        # 3. the frame has begun
        self._phase = 0
        self._header = (opcode, fin, rsv)
        self._remaining = size
        self._in_frame = True
        self.frames_received += 1
        if opcode < CLOSE:
            self._begin_data(opcode, size)
        return True

    def _begin_data(self, opcode: int, size: int) -> None:
        if opcode != CONT:
            self._message_opcode = opcode
            self._message_frames = 0
            self.message_size = 0
        self._message_frames += 1
        self.payload_received += size
        if self.max_fragments is not None and self._message_frames > self.max_fragments:
            raise TooManyFragments(self.max_fragments)

    def _check_size(self, size: int, rsv: int) -> None:
        """Refuse a data frame by its announced size; a compressed one may be a little longer than its limit."""
        have = self.message_size if self._message_opcode != CONT else 0
        for limit, before in ((self.max_fragment, 0), (self.max_message, have)):
            if limit is None:
                continue
            slack = (limit >> 3) + COMPRESSED_SLACK if self.rsv_allowed else 0
            if size > limit + slack - before:
                raise PayloadTooBig(size, limit - before, before or None)

    def _unmask(self, count: int) -> bytes:
        """Take ``count`` payload bytes of the frame under way from the input."""
        data = bytes(memoryview(self._input)[:count])
        del self._input[:count]
        if self._key:
            data = apply_mask(data, self._key, self._phase)
            self._phase = self._phase + count & 3
        self._remaining -= count
        return data

    def _take_control(self) -> bytes | None:
        if len(self._input) < self._remaining:
            return None
        self.opcode, self.fin, self.rsv = self._header
        self._in_frame = False
        return self._unmask(self._remaining)

    def _fill(self) -> bool:
        """Move what came of a data frame into the message; tell whether the frame is complete."""
        assembler = self._assembler
        if not assembler.active:
            assembler.start(self._message_opcode == TEXT)
        count = min(self._remaining, len(self._input))
        try:
            if count:
                self.message_size += count
                assembler.append(self._unmask(count))
            if self._remaining:
                return False
            assembler.end_fragment(self._header[1])
        except (UnicodeDecodeError, MemoryError) as exc:
            self._error = exc  # also where memory ran out: some of the message is gone
            raise
        return True

    def _end_message(self) -> None:
        self.frames = self._message_frames
        self._message_opcode = CONT
        self.messages_received += 1

    def _finish_message(self, as_bytes: bool) -> bytes | str:
        self.opcode, self.fin, self.rsv = self._message_opcode, True, 0
        self._end_message()
        try:
            message, self.bounds = self._assembler.finish(as_bytes)
        except MemoryError as exc:
            self._error = exc
            raise
        return message


class Encoder:
    """Builds frames for one direction of a connection; not thread-safe, one writer at a time.

    Args:
        masked: mask every frame with a key of its own (a client's side, RFC 6455 §5.3).

    Attributes:
        frames_sent, payload_sent: counters since the start; payload in bytes.
    """

    def __init__(self, *, masked: bool) -> None:
        self.masked = masked
        self.frames_sent = 0
        self.payload_sent = 0
        self._keys = b""
        self._epoch = _epoch[0]
        self._key = b""

    def _next_key(self) -> bytes:
        """Draw a masking key; never one that a forked process may have as well."""
        if not self._keys or self._epoch != _epoch[0]:
            self._epoch = _epoch[0]
            self._keys = os.urandom(KEY_BLOCK)
        key, self._keys = self._keys[:4], self._keys[4:]
        return key

    def frame(self, head: int, payload: BytesLike | str) -> bytes:
        """Build a whole frame. ``head`` is its first byte: FIN, reserved bits and opcode. A str becomes UTF-8."""
        if isinstance(payload, str):
            payload = payload.encode()
        self._count(memoryview(payload).nbytes)
        header = _header(head, memoryview(payload).nbytes, self.masked)
        if not self.masked:
            return header + bytes(payload)
        key = self._next_key()
        return header + key + apply_mask(payload, key)

    def octets(self, text: str) -> BytesLike:
        """Give the UTF-8 of a text: an object of bytes whose ``len`` counts them, if possible without a copy."""
        return text.encode()

    def header(self, head: int, size: int) -> bytes:
        """Build a frame's header; the payload follows through `mask_into`, or as it is if not masked."""
        self._count(size)
        header = _header(head, size, self.masked)
        if self.masked:
            self._key = self._next_key()
            header += self._key
        return header

    def mask_into(self, target: bytearray, payload: BytesLike, offset: int) -> int:
        """Mask the payload's bytes from ``offset`` on into ``target``, as many as fit; return how many."""
        view = memoryview(payload).cast("B")
        if not 0 <= offset <= view.nbytes:
            raise ValueError(f"offset {offset} is outside of the payload's {view.nbytes} bytes")
        view = view[offset : offset + len(target)]
        target[: view.nbytes] = apply_mask(view, self._key, offset)
        return view.nbytes

    def _count(self, size: int) -> None:
        self.frames_sent += 1
        self.payload_sent += size


_epoch = [0]
"""How often this process was forked off: keys drawn before a fork are not used after it."""


def _forked() -> None:
    _epoch[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
