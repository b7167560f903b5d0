"""Frames as objects: what extensions, debug logs and users of the Sans-I/O layer see.

The bytes of frames on the hot path are the business of the codec; a :class:`Frame` is made only
where somebody looks at one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from .environment import read_limit
from .exceptions import PayloadTooBig, ProtocolError

if TYPE_CHECKING:
    from .extensions.base import Extension
    from .typing import BytesLike

__all__ = [
    "BINARY",
    "CLOSE",
    "CLOSE_CODE_EXPLANATIONS",
    "CONT",
    "CTRL_OPCODES",
    "Close",
    "CloseCode",
    "DATA_OPCODES",
    "Frame",
    "MAX_LOG_SIZE",
    "OK_CLOSE_CODES",
    "Opcode",
    "PING",
    "PONG",
    "TEXT",
]

MAX_LOG_SIZE: Final = read_limit("FULLDUPLEX_MAX_LOG_SIZE", 75, least=0)
"""How many characters of a frame's payload a debug log shows."""

MAX_CONTROL_SIZE: Final = 125
"""The largest payload of a control frame in bytes (RFC 6455 §5.5)."""


class Opcode(IntEnum):
    """What a frame is for (RFC 6455 §5.2, §11.8)."""

    CONT = 0x00
    TEXT = 0x01
    BINARY = 0x02
    CLOSE = 0x08
    PING = 0x09
    PONG = 0x0A


CONT: Final = Opcode.CONT
TEXT: Final = Opcode.TEXT
BINARY: Final = Opcode.BINARY
CLOSE: Final = Opcode.CLOSE
PING: Final = Opcode.PING
PONG: Final = Opcode.PONG

DATA_OPCODES: Final = frozenset({Opcode.CONT, Opcode.TEXT, Opcode.BINARY})
"""Frames that carry (a part of) a message."""

CTRL_OPCODES: Final = frozenset({Opcode.CLOSE, Opcode.PING, Opcode.PONG})
"""Frames that may stand between the fragments of a message."""


class CloseCode(IntEnum):
    """Why a connection was closed (RFC 6455 §7.4.1 and the IANA registry, §11.7)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1004 is reserved
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015


CLOSE_CODE_EXPLANATIONS: Final[dict[int, str]] = {
    CloseCode.NORMAL_CLOSURE: "OK",
    CloseCode.GOING_AWAY: "going away",
    CloseCode.PROTOCOL_ERROR: "protocol error",
    CloseCode.UNSUPPORTED_DATA: "unsupported data",
    CloseCode.NO_STATUS_RCVD: "no status received [internal]",
    CloseCode.ABNORMAL_CLOSURE: "abnormal closure [internal]",
    CloseCode.INVALID_DATA: "invalid frame payload data",
    CloseCode.POLICY_VIOLATION: "policy violation",
    CloseCode.MESSAGE_TOO_BIG: "message too big",
    CloseCode.MANDATORY_EXTENSION: "mandatory extension",
    CloseCode.INTERNAL_ERROR: "internal error",
    CloseCode.SERVICE_RESTART: "service restart",
    CloseCode.TRY_AGAIN_LATER: "try again later",
    CloseCode.BAD_GATEWAY: "bad gateway",
    CloseCode.TLS_HANDSHAKE: "TLS handshake failure [internal]",
}
"""Short texts for the codes of :class:`CloseCode`."""

OK_CLOSE_CODES: Final = frozenset(
    {CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD}
)
"""Codes that make a closure clean when both sides used one of them."""

# RFC 6455 §7.4.1: these three say what happened on this side and never travel.
_INTERNAL_CLOSE_CODES: Final = frozenset(
    {CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE}
)
_WIRE_CLOSE_CODES: Final = frozenset(CLOSE_CODE_EXPLANATIONS) - _INTERNAL_CLOSE_CODES


@dataclass(slots=True)
class Close:
    """Code and reason of a Close frame (RFC 6455 §5.5.1).

    Attributes:
        code: The close code; 1005 stands for a frame without one.
        reason: The text, at most 123 bytes of UTF-8 on the wire.
    """

    code: int
    reason: str

    def __str__(self) -> str:
        if 3000 <= self.code < 4000:  # RFC 6455 §7.4.2
            explanation = "registered"
        elif 4000 <= self.code < 5000:
            explanation = "private use"
        else:
            explanation = CLOSE_CODE_EXPLANATIONS.get(self.code, "unknown")
        text = f"{self.code:d} ({explanation})"
        return f"{text} {self.reason}" if self.reason else text

    @classmethod
    def parse(cls, data: BytesLike) -> Close:
        """Take the payload of a Close frame apart.

        Args:
            data: The payload; an empty one is code 1005 without a reason.

        Raises:
            ProtocolError: If the payload is one byte, or the code must not be sent.
            UnicodeDecodeError: If the reason is not UTF-8.
        """
        data = bytes(data)
        if not data:
            return cls(CloseCode.NO_STATUS_RCVD, "")
        if len(data) < 2:
            raise ProtocolError("close frame too short")
        close = cls(int.from_bytes(data[:2], "big"), "")
        close.check()  # first: of two errors, the first on the wire counts
        close.reason = data[2:].decode()
        return close

    def serialize(self) -> bytes:
        """Return the payload of a Close frame.

        Raises:
            ProtocolError: If the code must not be sent.
        """
        self.check()
        return self.code.to_bytes(2, "big") + self.reason.encode()

    def check(self) -> None:
        """Check that the code may be sent in a frame (RFC 6455 §7.4).

        Raises:
            ProtocolError: If it may not.
            TypeError: If code or reason are something else than int and str.
        """
        code: Any = self.code
        reason: Any = self.reason
        if not isinstance(code, int) or not isinstance(reason, str):
            raise TypeError(f"a close code is an int, and a reason a str: {code!r}, {reason!r}")
        if self.code not in _WIRE_CLOSE_CODES and not 3000 <= self.code < 5000:
            raise ProtocolError(f"invalid status code: {self.code}")


@dataclass(slots=True)
class Frame:
    """A WebSocket frame (RFC 6455 §5.2).

    Masking and the length do not appear: they belong to the transport of a frame. Equal if all
    fields are. Extensions may change a frame or replace it.

    Attributes:
        opcode: What it is for.
        data: The payload, any bytes-like object.
        fin: Whether it is the last of its message.
        rsv1: First reserved bit, for extensions.
        rsv2: Second reserved bit, for extensions.
        rsv3: Third reserved bit, for extensions.
    """

    opcode: Opcode
    data: BytesLike
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    def __str__(self) -> str:
        size = memoryview(self.data).nbytes
        details = [f"{size} byte" if size == 1 else f"{size} bytes"]
        if not self.fin:
            details.append("to be continued")
        details += [name for name in ("rsv1", "rsv2", "rsv3") if getattr(self, name)]
        return f"{Opcode(self.opcode).name} {self._preview()} [{', '.join(details)}]"

    def _preview(self) -> str:
        """Return the payload for a log line, at most about MAX_LOG_SIZE characters of it."""
        data = memoryview(self.data).cast("B")
        if self.rsv1 or self.opcode == BINARY:
            return _hex_preview(data)
        if self.opcode == CLOSE:
            try:
                return _shorten(repr(str(Close.parse(data)))[1:-1])
            except (ProtocolError, UnicodeDecodeError):
                return _hex_preview(data)
        # A continuation may be of either kind, and so may a ping: text if it looks like text.
        # Of a large payload only the ends are looked at. At four bytes a character at most, each
        # end is more than will be shown of it, so that a character split at the cut is left out.
        enough = 4 * max(MAX_LOG_SIZE, 1)
        if len(data) <= 2 * enough:
            head, tail = bytes(data), b""
        else:
            head, tail = bytes(data[:enough]), bytes(data[len(data) - enough :])
        if self.opcode != TEXT and not _looks_like_text(head):
            return _hex_preview(data)
        return _shorten(repr((head + tail).decode(errors="replace")))

    @classmethod
    def parse(
        cls,
        read_exact: Callable[[int], Generator[None, None, BytesLike]],
        *,
        mask: bool,
        max_size: int | None = None,
        extensions: Sequence[Extension] | None = None,
    ) -> Generator[None, None, Frame]:
        """Parse one frame from a stream, as a generator that yields while bytes are missing.

        Connections do not come by here: their codec parses frames in place.

        Args:
            read_exact: Called with a number of bytes; returns a generator that yields until they
                are there and then returns them.
            mask: Whether the frame must be masked: True on a server (RFC 6455 §5.1).
            max_size: Limit of the payload in bytes, before and after decoding.
            extensions: Applied in reverse order.

        Raises:
            EOFError: If the stream ends within the frame (from `read_exact`).
            PayloadTooBig: If the payload exceeds `max_size`; it has not been read then.
            ProtocolError: If the frame is malformed.
        """
        # Everything that the header can tell is decided before a byte of payload is read.
        first, second = yield from read_exact(2)
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise ProtocolError(f"invalid opcode: {first & 0x0F:#x}") from None
        if bool(second & 0x80) is not mask:
            raise ProtocolError("incorrect masking")

        # §5.2: the shortest encoding, and the top bit of the longest is zero
        length = second & 0x7F
        if length > MAX_CONTROL_SIZE and opcode in CTRL_OPCODES:
            raise ProtocolError("control frame too long")
        if length >= 126:
            minimum, width = (126, 2) if length == 126 else (0x10000, 8)
            length = int.from_bytes((yield from read_exact(width)), "big")
            if length < minimum:
                raise ProtocolError("length not encoded in the shortest form")
            if length >= 1 << 63:
                raise ProtocolError("length over 63 bits")
        frame = cls(
            opcode, b"", bool(first & 0x80), bool(first & 0x40), bool(first & 0x20),
            bool(first & 0x10),
        )  # fmt: skip
        if not extensions:
            frame.check()
        if opcode in CTRL_OPCODES and not frame.fin:
            raise ProtocolError("fragmented control frame")
        if max_size is not None and length > max_size:
            raise PayloadTooBig(length, max_size)

        key = (yield from read_exact(4)) if mask else None
        data = yield from read_exact(length)
        if key is not None:
            from .codec import apply_mask

            data = apply_mask(data, bytes(key))
        frame.data = data
        for extension in reversed(extensions or ()):
            frame = extension.decode(frame, max_size=max_size)
        frame.check()
        return frame

    def serialize(self, mask: bool, extensions: Sequence[Extension] | None = None) -> bytes:
        """Return the frame as it goes over the wire.

        Args:
            mask: Whether to mask it, with a new unpredictable key: True on a client
                (RFC 6455 §5.3).
            extensions: Applied in order.

        Raises:
            ProtocolError: If the frame is malformed.
        """
        # Not at the top: the codec is built on the vocabulary of this module.
        from .codec import build_frame

        self.check()
        frame = self
        for extension in extensions or ():
            frame = extension.encode(frame)
        return build_frame(
            frame.opcode,
            frame.data,
            fin=frame.fin,
            rsv1=frame.rsv1,
            rsv2=frame.rsv2,
            rsv3=frame.rsv3,
            mask=os.urandom(4) if mask else None,
        )

    def check(self) -> None:
        """Check what holds for every frame that no extension has touched (RFC 6455 §5.2, §5.5).

        Raises:
            ProtocolError: If a reserved bit is set, or a control frame is too long or fragmented.
        """
        if self.rsv1 or self.rsv2 or self.rsv3:
            raise ProtocolError("reserved bits must be 0")
        if self.opcode in CTRL_OPCODES:
            if memoryview(self.data).nbytes > MAX_CONTROL_SIZE:
                raise ProtocolError("control frame too long")
            if not self.fin:
                raise ProtocolError("fragmented control frame")


def _shorten(text: str) -> str:
    """Cut the middle out of a text that is longer than a log line should be."""
    if len(text) <= MAX_LOG_SIZE:
        return text
    keep = max(MAX_LOG_SIZE - 1, 2)
    return f"{text[: keep - keep // 3]}…{text[len(text) - keep // 3 :]}"


def _looks_like_text(head: bytes) -> bool:
    """Tell whether the beginning of a payload is printable text, maybe cut within a character."""
    try:
        text = head.decode()
    except UnicodeDecodeError as exc:
        if exc.reason != "unexpected end of data":
            return False
        text = head[: exc.start].decode()
    return all(char.isprintable() or char.isspace() for char in text)


def _hex_preview(data: memoryview) -> str:
    """Return bytes as pairs of hexadecimal digits; the middle of a long payload is left out."""
    # three characters a byte, so this many bytes at each end are more than will be shown
    enough = max(MAX_LOG_SIZE, 1)
    if len(data) > 2 * enough:
        data = memoryview(bytes(data[:enough]) + bytes(data[len(data) - enough :]))
    return _shorten(data.hex(" ")) or "''"
