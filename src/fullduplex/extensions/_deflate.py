"""Compression of messages: the extension ``permessage-deflate`` (RFC 7692).

How a message is compressed (§7.2.1): DEFLATE its payload, flush to a byte boundary, which ends
the output with an empty stored block, and leave out that block's last four bytes ``00 00 FF FF``.
RSV1 on the first frame of the message says that this was done (§6). The receiver puts the four
bytes back and inflates (§7.2.2). With *context takeover* both ends keep their window from one
message to the next, so that a message may refer to what earlier ones said; without it each
message stands alone.

What follows from it for a sender: the receiver's window holds exactly the compressed messages
that went over the wire. A compressor that refers only to its own output since its creation is
always right, even in the middle of a connection; one whose output got lost, or that missed a
message, is wrong for ever. So whenever in doubt the compressor is dropped, and a new one begins
(:meth:`PerMessageDeflate.reset`).

The sending and the receiving half of an extension share no mutable state: one thread may encode
while another decodes. Neither half may be entered by two threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..exceptions import ProtocolError
from ..frames import CONT, Frame
from ..typing import BytesLike, ExtensionName
from . import _zlib
from ._inflate import TAIL, Inflater, size_of
from .base import Extension

__all__ = [
    "DEFAULT_THRESHOLD",
    "DEFAULT_THRESHOLD_NO_CONTEXT",
    "NAME",
    "PerMessageDeflate",
    "SharedParameters",
    "encode_shared",
    "wire_limit",
]

NAME: Final = ExtensionName("permessage-deflate")

DEFAULT_THRESHOLD: Final = 64
"""Bytes from which a message is compressed by default with context takeover.

From here on JSON saves two fifths of the packet, headers included; below it, a few dozen bytes at
most, for half as much time again as a small message takes (docs/compression-measurements.md).
"""

DEFAULT_THRESHOLD_NO_CONTEXT: Final = 256
"""The same without context takeover, when a message can refer to nothing but itself."""


class SharedParameters(NamedTuple):
    """What connections have in common that can share a payload: see `encode_shared`."""

    wbits: int
    settings: _zlib.Settings
    threshold: int


class PerMessageDeflate(Extension):
    """``permessage-deflate`` on one connection.

    Thread-safety: :meth:`encode`, :meth:`compress`, :meth:`note_shared` and :meth:`reset` belong to
    whoever may write, :meth:`decode` and :meth:`decompress` to whoever may read; the two do not
    disturb each other.

    Compressor and decompressor are made when they are first needed, and kept from then on only with
    context takeover.

    Args:
        remote_no_context_takeover: Whether the peer starts each message with an empty window.
        local_no_context_takeover: Whether this side does.
        remote_max_window_bits: Base-2 logarithm of the peer's window, 8 to 15.
        local_max_window_bits: That of this side's window, 9 to 15: zlib cannot do 8.
        compress_settings: Other arguments of :func:`zlib.compressobj`: ``level``, ``memLevel``,
            ``method`` and ``strategy``.
        threshold: A smaller message, in bytes, is sent uncompressed, unless :meth:`encode` is told
            otherwise. The default compresses all; the factories have other defaults.

    Attributes:
        threshold: May be changed at any time.
        plain_bytes_sent: Bytes that went into the compressor.
        wire_bytes_sent: Bytes that came out; messages sent uncompressed count in neither.
        wire_bytes_received: Compressed bytes that came from the peer.
        plain_bytes_received: Bytes that they inflated to.

    Raises:
        ValueError: If an argument is out of range.
    """

    name = NAME

    def __init__(
        self,
        remote_no_context_takeover: bool,
        local_no_context_takeover: bool,
        remote_max_window_bits: int,
        local_max_window_bits: int,
        compress_settings: Mapping[str, Any] | None = None,
        *,
        threshold: int = 0,
    ) -> None:
        check_bits("remote_max_window_bits", remote_max_window_bits, 8)
        check_bits("local_max_window_bits", local_max_window_bits, 9)
        check_threshold(threshold)
        self.remote_no_context_takeover = remote_no_context_takeover
        self.local_no_context_takeover = local_no_context_takeover
        self.remote_max_window_bits = remote_max_window_bits
        self.local_max_window_bits = local_max_window_bits
        self.compress_settings = compress_settings
        self.threshold = threshold
        self._settings = freeze(compress_settings)

        # The sending half. A compressor is here only while what it knows is what the peer knows.
        self._compressor: _zlib.Compressor | None = None
        self._sending_compressed = False  # in a fragmented message that is compressed
        self.plain_bytes_sent = 0
        self.wire_bytes_sent = 0

        # The receiving half.
        self._inflater = Inflater(remote_max_window_bits, remote_no_context_takeover)
        self._receiving_compressed = False
        self.wire_bytes_received = 0
        self.plain_bytes_received = 0

    def __repr__(self) -> str:
        return (
            f"PerMessageDeflate(remote_no_context_takeover={self.remote_no_context_takeover}, "
            f"local_no_context_takeover={self.local_no_context_takeover}, "
            f"remote_max_window_bits={self.remote_max_window_bits}, "
            f"local_max_window_bits={self.local_max_window_bits})"
        )

    # Sending

    def encode(self, frame: Frame, *, compress: bool | None = None) -> Frame:
        """Compress a frame (RFC 7692 §6.1).

        Args:
            frame: Any frame; control frames are returned as they are, also between fragments.
            compress: Whether to compress the message that begins with this frame. None decides by
                :attr:`threshold`; a fragmented message is compressed then, for its size is not
                known. Without meaning for a continuation, which follows the first frame.

        Returns:
            `frame` itself if it goes out uncompressed, otherwise a new one.
        """
        opcode = frame.opcode
        if opcode > 0x7:
            return frame
        fin = frame.fin
        if opcode == CONT:
            if not self._sending_compressed:
                return frame
        else:
            if compress is None:
                compress = not fin or size_of(frame.data) >= self.threshold
            if not compress:
                self._sending_compressed = False
                return frame
        self._sending_compressed = not fin
        data = self.compress(frame.data, fin)
        return Frame(opcode, data, fin, opcode != CONT, frame.rsv2, frame.rsv3)

    def compress(self, data: BytesLike, fin: bool) -> bytes:
        """Compress the payload of a frame; `encode` without frames and without a choice.

        Args:
            data: The payload.
            fin: Whether it ends the message.

        Returns:
            What goes over the wire; it must be sent, or :meth:`reset` called.
        """
        compressor = self._compressor
        # Not kept while at work: a failure or an interrupt must leave no half-taken message in it.
        self._compressor = None
        forget = fin and self.local_no_context_takeover
        if compressor is None:
            compressor = _zlib.BACKEND.borrow(self.local_max_window_bits, self._settings)
        # What compress() returns is as much a part of the stream as what flush() returns.
        head = compressor.compress(data)
        rest = compressor.flush(_zlib.FULL_FLUSH if forget else _zlib.SYNC_FLUSH)
        if forget:
            _zlib.BACKEND.give_back(self.local_max_window_bits, self._settings, compressor)
        else:
            self._compressor = compressor
        if fin:
            rest = rest[: -len(TAIL)]
        output = head + rest if head else rest
        self.plain_bytes_sent += size_of(data)
        self.wire_bytes_sent += len(output)
        return output

    def reset(self) -> None:
        """Forget what was compressed before; the next message begins with an empty window.

        Necessary whenever output of the compressor was not sent. Harmless at any other time,
        between the fragments of a message too. Frees the compressor's memory until it is needed
        again.
        """
        self._compressor = None

    def broadcast_key(self) -> SharedParameters:
        """Return what tells whether connections can share a compressed payload: equal keys can."""
        threshold = max(self.threshold, DEFAULT_THRESHOLD_NO_CONTEXT)
        return SharedParameters(self.local_max_window_bits, self._settings, threshold)

    def note_shared(self, plain: int = 0, wire: int = 0) -> None:
        """Take note that a payload from `encode_shared` is sent on this connection.

        The peer's window moves on by a message that this side's compressor has not seen, so that it
        has to begin anew (the shared payload refers only to itself, and is right whatever came
        before). To be called before the next message is encoded, not within a fragmented message.

        Args:
            plain: Size of the payload before compression, for the counters.
            wire: Its size after compression.
        """
        self.reset()
        self.plain_bytes_sent += plain
        self.wire_bytes_sent += wire

    # Receiving

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame (RFC 7692 §6.2).

        Args:
            frame: Any frame. Control frames and uncompressed messages are returned as they are.
            max_size: How many bytes the payload of the result may have; None for no limit. For a
                fragment this is what its message has left, and may be 0.

        Returns:
            `frame` itself if it is not compressed, otherwise a new one.

        Raises:
            PayloadTooBig: If the result would exceed `max_size`. Inflating has stopped then, having
                used no more memory than `max_size` and a constant.
            ProtocolError: If RSV1 is set on a continuation, or the data is damaged.
        """
        opcode = frame.opcode
        if opcode > 0x7:
            return frame
        if opcode == CONT:
            # §6.1: RSV1 is for the first frame of a message.
            if frame.rsv1:
                raise ProtocolError("unexpected RSV1 on a continuation frame")
            if not self._receiving_compressed:
                return frame
        elif not frame.rsv1:
            self._receiving_compressed = False
            return frame
        self._receiving_compressed = not frame.fin
        data = self.decompress(frame.data, frame.fin, max_size)
        return Frame(opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def decompress(self, data: BytesLike, fin: bool, max_size: int | None = None) -> bytes:
        """Inflate the payload of a frame of a compressed message; `decode` without frames.

        Args:
            data: The payload.
            fin: Whether it ends the message.
            max_size: As for :meth:`decode`.

        Raises:
            PayloadTooBig: As for :meth:`decode`.
            ProtocolError: If the data is damaged.
        """
        output = self._inflater.inflate(data, fin, max_size)
        self.wire_bytes_received += size_of(data)
        self.plain_bytes_received += len(output)
        return output


def wire_limit(max_size: int | None) -> int | None:
    """Return how large a payload may be that inflates to `max_size` bytes; None for None.

    DEFLATE makes incompressible data longer: by five bytes for each stored block, by an eighth if a
    sender codes it byte by byte with the fixed code. A payload beyond this is no honest one.
    """
    return None if max_size is None else max_size + max_size // 8 + 1024


def encode_shared(key: SharedParameters, frame: Frame, *, compress: bool | None = None) -> Frame:
    """Compress a message once, for all connections that have the same parameters. Thread-safe.

    The result refers to no earlier message, so it is right on each of these connections, whatever
    they sent before. :meth:`PerMessageDeflate.note_shared` must be called on each that sends it.

    Args:
        key: :meth:`PerMessageDeflate.broadcast_key` of the connections.
        frame: The one frame of a Text or Binary message; a control frame is returned as it is.
        compress: Whether to compress; None decides by the key's threshold, which is that of the
            connections, but no less than the default without context takeover.

    Returns:
        `frame` itself if it goes out uncompressed, otherwise a new one, with RSV1.
    """
    if compress is None:
        compress = size_of(frame.data) >= key.threshold
    if not compress or frame.opcode > 0x7:
        return frame
    compressor = _zlib.BACKEND.borrow(key.wbits, key.settings)
    head = compressor.compress(frame.data)
    rest = compressor.flush(_zlib.FULL_FLUSH)
    _zlib.BACKEND.give_back(key.wbits, key.settings, compressor)
    data = head + rest[: -len(TAIL)]
    return Frame(frame.opcode, data, True, True, frame.rsv2, frame.rsv3)


def check_bits(name: str, value: object, smallest: int) -> None:
    """Check the base-2 logarithm of a window size.

    Raises:
        ValueError: If it is not an int from `smallest` to 15.
    """
    if type(value) is not int or not smallest <= value <= 15:
        raise ValueError(f"{name} must be between {smallest} and 15")


def check_threshold(threshold: int) -> None:
    """Check a size in bytes.

    Raises:
        ValueError: If it is negative.
    """
    if threshold < 0:
        raise ValueError("threshold must not be negative")


# What zlib.compressobj takes, and the values of it that make sense (zlib.h). A preset dictionary
# (zdict) does not: the peer would not have it.
_SETTINGS: Final = {
    "level": range(-1, 10),
    "memLevel": range(1, 10),
    "method": range(8, 9),
    "strategy": range(5),
}


def freeze(settings: Mapping[str, Any] | None) -> _zlib.Settings:
    """Check settings and return them as a hashable value.

    Checked here, since the compressor is made much later, when nobody expects a ValueError.

    Raises:
        ValueError: If there is one that zlib does not have, or out of its range, or ``wbits``,
            which is negotiated.
    """
    if settings is None:
        return ()
    for name, value in settings.items():
        if name == "wbits":
            raise ValueError("compress_settings must not include wbits: set *_max_window_bits")
        if name not in _SETTINGS:
            raise ValueError(f"compress_settings must not include {name}")
        if value not in _SETTINGS[name]:
            raise ValueError(f"compress_settings has a wrong {name}: {value!r}")
    return tuple(sorted(settings.items()))
