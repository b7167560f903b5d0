"""The receiving half of permessage-deflate: inflating within limits (RFC 7692 §7.2.2)."""

from __future__ import annotations

import io
from typing import Final

from ..exceptions import PayloadTooBig, ProtocolError
from ..typing import BytesLike
from . import _zlib

__all__ = ["TAIL", "Inflater", "size_of"]

TAIL: Final = b"\x00\x00\xff\xff"
"""What a sender leaves out at the end of a message (§7.2.1)."""

# Inflating takes bites of compressed data and produces pieces of output, both bounded: Python's
# interface copies what is left of a bite for every piece.
_BITE: Final = 16 * 1024
_PIECE: Final = 64 * 1024
# Each end of a stream copies the rest of its bite, so a flood of streams gets small ones.
_SMALL_BITE: Final = 1024
# What follows the end of a stream needs a decompressor of its own, which takes as long as inflating
# a kilobyte; so bytes that give no output, and meet no limit, would cost a thousand times what
# others do. No honest sender ends a stream every few bytes.
_STREAM_PRICE: Final = 512
_FREE_STREAMS: Final = 16


class Inflater:
    """Inflates the messages that come in on one connection. Not thread-safe.

    The decompressor is made when it is first needed, and kept from then on only with context
    takeover.

    In each message 16 streams may end, and one more for every 512 bytes of its payload, over all of
    its frames.

    Args:
        wbits: Base-2 logarithm of the peer's window, 8 to 15.
        no_context_takeover: Whether the peer starts each message with an empty window.
    """

    __slots__ = ("_credit", "_decompressor", "_no_context_takeover", "_wbits")

    def __init__(self, wbits: int, no_context_takeover: bool) -> None:
        self._wbits = wbits
        self._no_context_takeover = no_context_takeover
        self._decompressor: _zlib.Decompressor | None = None
        # Bytes that the streams which end in the rest of this message may cost.
        self._credit = _FREE_STREAMS * _STREAM_PRICE

    def inflate(self, data: BytesLike, fin: bool, max_size: int | None) -> bytes:
        """Inflate the payload of a frame.

        Args:
            data: The payload.
            fin: Whether it ends the message.
            max_size: How many bytes the result may have; None for no limit. May be 0.

        Raises:
            PayloadTooBig: If the result would be larger. Inflating has stopped then, having used no
                more memory than `max_size` and a constant.
            ProtocolError: If the data is damaged, or too many streams end in the message.
        """
        size = size_of(data)
        self._credit += size
        decompressor = self._decompressor
        if decompressor is None:
            if not size:  # the fragment before ended the stream: as for `_inflate_on`
                if fin:
                    self._credit = _FREE_STREAMS * _STREAM_PRICE
                return b""
            decompressor = self._new_stream()
        try:
            if size <= _BITE:
                # Nearly always one call does it.
                source = b"".join((data, TAIL)) if fin else data
                room = _PIECE if max_size is None or max_size >= _PIECE else max_size + 1
                output = decompressor.decompress(source, room)
                # A full piece may have more behind it, even if no input is left.
                if len(output) == room or decompressor.eof:
                    output = self._go_on(decompressor, output, source, size, max_size)
            else:
                out = io.BytesIO()
                ended = self._inflate_on(memoryview(data).cast("B"), 0, size, out, max_size)
                if fin and not ended:
                    self._inflate_on(memoryview(TAIL), 0, -1, out, max_size)
                output = out.getvalue()
        except _zlib.BACKEND.error as exc:
            raise ProtocolError("decompression failed") from exc
        if fin:
            self._credit = _FREE_STREAMS * _STREAM_PRICE
            if self._no_context_takeover:
                self._decompressor = None
        return output

    def _go_on(
        self,
        decompressor: _zlib.Decompressor,
        output: bytes,
        source: BytesLike,
        end: int,
        max_size: int | None,
    ) -> bytes:
        """Inflate the rest of a payload that one call has begun."""
        out = io.BytesIO()
        _write(out, output, max_size)
        view = memoryview(source).cast("B")
        self._inflate_on(view, len(view) - _unread(decompressor), end, out, max_size)
        return out.getvalue()

    def _inflate_on(
        self, view: memoryview, position: int, end: int, out: io.BytesIO, max_size: int | None
    ) -> bool:
        """Inflate ``view[position:]`` into `out`; return whether a stream ended exactly at `end`.

        §7.2.3.4: a sender may end the DEFLATE stream (BFINAL) whenever it likes, and begin another.
        One that ends it with the payload need not have added the octet that makes the usual four
        bytes fit behind it, though the RFC wants it; so these are not read then.
        """
        decompressor = self._decompressor or self._new_stream()
        step = _BITE
        while True:
            if decompressor.eof:
                self._credit -= _STREAM_PRICE
                if self._credit < 0:
                    raise ProtocolError("too many DEFLATE streams in a message")
                if position == end:
                    self._decompressor = None
                    return True
                decompressor = self._new_stream()
                step = _SMALL_BITE
            bite = view[position : position + step]
            room = _room(max_size, out.tell())
            piece = decompressor.decompress(bite, room)
            _write(out, piece, max_size)
            position += len(bite) - _unread(decompressor)
            if position == len(view) and len(piece) < room and not decompressor.eof:
                return False

    def _new_stream(self) -> _zlib.Decompressor:
        self._decompressor = _zlib.BACKEND.decompressor(self._wbits)
        return self._decompressor


def size_of(data: BytesLike) -> int:
    """Return a size in bytes; len() of a memoryview counts items."""
    return data.nbytes if isinstance(data, memoryview) else len(data)


def _room(max_size: int | None, have: int) -> int:
    """Return how much to inflate at once: one byte more than is allowed shows that it is too much.

    Never 0, which would mean no limit.
    """
    return _PIECE if max_size is None else min(_PIECE, max_size - have + 1)


def _write(out: io.BytesIO, piece: bytes, max_size: int | None) -> None:
    """Append to the output, as long as the limit allows."""
    if max_size is not None and out.tell() + len(piece) > max_size:
        raise PayloadTooBig(None, max_size)
    out.write(piece)


def _unread(decompressor: _zlib.Decompressor) -> int:
    """Return how many bytes at the end of its input a decompressor has not used."""
    return len(decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail)
