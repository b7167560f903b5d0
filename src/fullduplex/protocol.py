"""The Sans-I/O core: frames, messages and the closing handshake, without sockets, threads or clocks.

The class is used in two ways, and both share all of the logic:

- through the documented Sans-I/O methods: bytes into `receive_data`, frames out of `events_received`,
  bytes out of `data_to_send`;
- by a connection, which lets the socket fill ``decoder`` and pulls whole messages with `pull`. It holds
  the locks: ``pull`` and the decoder belong to its reader, ``encoder``, ``outgoing`` and `take_control` to
  its writer, everything that changes ``state`` to its mutex.

Control frames that answer something are therefore queued, not written: `take_control` encodes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import machine
from .codec import Assembler, Utf8Validator, decode_text
from .codec.interrupts import from_handler
from .exceptions import (
    PayloadTooBig,
    ProtocolError,
)
from .frames import Close, Frame, Opcode
from .machine import SEND_EOF, flat
from .states import (
    CLIENT,
    CLOSED,
    CLOSING,
    CONNECTING,
    OPEN,
    SERVER,
    Side,
    State,
    error_close,
)

if TYPE_CHECKING:
    from .http11 import Request, Response
    from .typing import BytesLike

    Event = Request | Response | Frame

__all__ = [
    "CLIENT",
    "CLOSED",
    "CLOSING",
    "CONNECTING",
    "OPEN",
    "SEND_EOF",
    "SERVER",
    "Protocol",
    "Side",
    "State",
    "error_close",
]


class Protocol(machine.Machine):
    """One end of a WebSocket connection as bytes and frames.

    Args:
        side: `Side.SERVER` or `Side.CLIENT`.
        state: where to begin; OPEN skips the opening handshake.
        max_size: bytes that a message may have, None for no limit, or a pair of limits for the message and
            for each of its frames.
        logger: where to log to; by default ``fullduplex.client`` or ``fullduplex.server``.

    Attributes:
        id: a UUID for logs.
        handshake_exc: what made the opening handshake fail, or None.
        parser_exc: the first error in what came in, or None.
        close_rcvd, close_sent: the Close frames that went over the wire, or None.
        is_open, is_closed: whether ``state`` is OPEN or CLOSED, for hot paths.
        close_rcvd_then_sent: which was first, True for the peer's; None until there are two.

    Not thread-safe.
    """

    # Input, Sans-I/O

    def receive_data(self, data: BytesLike) -> None:
        """Take bytes from the network; then look at `events_received` and `data_to_send`.

        Raises:
            EOFError: after `receive_eof`.
        """
        if self.eof_rcvd:
            raise EOFError("stream is ended")
        if self.state is CONNECTING:
            if self.handshake_exc is None:
                self._receive_handshake(bytes(data))
        elif not self.discarding:
            self.decoder.feed(data)
            self._read_frames()

    def receive_eof(self) -> None:
        """Take the end of the stream from the network; idempotent."""
        if self.eof_rcvd:
            return
        if self.state is CONNECTING:
            self.eof_rcvd = True
            if self.handshake_exc is None:
                self._receive_handshake_eof()
            return
        if self.close_rcvd is None and self.parser_exc is None and self.state is not CLOSED:
            self.parser_exc = EOFError("stream ended without a Close frame")
        self._move("end of stream")
        self.eof_rcvd = True  # now, since a signal's handler may raise before
        self.end_wanted = True
        self._flush_control()

    def _receive_handshake(self, data: bytes) -> None:
        raise NotImplementedError  # a subclass brings its side of the handshake

    def _receive_handshake_eof(self) -> None:
        raise NotImplementedError

    def _read_frames(self) -> None:
        """Make events of what the decoder has."""
        while not self.discarding:
            try:
                frame = self._next_frame()
                if frame is None:
                    return
                if frame.opcode >= Opcode.CLOSE:
                    self.receive_control(frame.opcode, bytes(frame.data))
                else:
                    self._check_text(frame)
            except Exception as exc:
                self.fail_for(exc)
                return
            self.events.append(frame)
            self._flush_control()

    def _next_frame(self) -> Frame | None:
        """Give the next frame as the extensions decode it."""
        decoder = self.decoder
        data = decoder.pull_frame()
        if data is None:
            return None
        opcode, rsv = decoder.opcode, decoder.rsv
        frame = Frame(Opcode(opcode), data, decoder.fin, rsv & 4 != 0, rsv & 2 != 0, rsv & 1 != 0)
        if self.debug:
            self.logger.debug("< %s", frame)
        if opcode >= Opcode.CLOSE:
            for extension in reversed(self._extensions):
                frame = extension.decode(frame)
        else:
            limit = self._size_left()
            try:
                for extension in reversed(self._extensions):
                    frame = extension.decode(frame, max_size=limit)
                size = memoryview(frame.data).nbytes
                if limit is not None and size > limit:
                    # The decoder allows a little more than the limit, for what deflate makes longer.
                    raise PayloadTooBig(size, limit)
            except PayloadTooBig as exc:
                before = decoder.message_size
                if limit is None or not before or limit == decoder.max_fragment:
                    raise
                raise PayloadTooBig(exc.size, limit, before) from None
            decoder.message_size += size
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise ProtocolError("reserved bits must be 0")
        return frame

    def _size_left(self) -> int | None:
        """Give how many bytes the next frame's payload may have after decoding."""
        decoder = self.decoder
        limit = decoder.max_message
        if limit is not None:
            limit = max(limit - decoder.message_size, 0)
        if decoder.max_fragment is None:
            return limit
        return decoder.max_fragment if limit is None else min(limit, decoder.max_fragment)

    def _check_text(self, frame: Frame) -> None:
        """Check the UTF-8 of a text message, frame by frame (RFC 6455 §8.1)."""
        if frame.opcode is Opcode.TEXT:
            self._validator = Utf8Validator()
        elif frame.opcode is not Opcode.CONT:
            self._validator = None
        if self._validator is not None:
            self._validator.feed(frame.data)
            if frame.fin:
                self._validator.finish()
                self._validator = None

    # Input, for a connection

    def pull(self, as_bytes: bool = False) -> bytes | str | None:
        """Give the next message, or the payload of a control frame, or None when more bytes are needed.

        ``opcode`` says which it is. Errors are raised and are final; the caller fails the connection.
        """
        if not self._extensions:
            data = self.decoder.pull(as_bytes)
            self.opcode = self.decoder.opcode
            if self.debug and data is not None:
                self._log_received(data)
            return data
        if self._pull_error is not None:
            raise self._pull_error
        self._begin_pull()
        try:
            data = self._pull_message(as_bytes)
        except Exception as exc:
            if not from_handler(exc):
                self._pull_error = exc
            raise
        self._pull_error = None
        return data

    def _begin_pull(self) -> None:
        """Note what is final if a signal's handler ends this pull, unless there is nothing that could be lost."""
        decoder = self.decoder
        if decoder.pending or decoder.mid_message or self._assembler is not None:
            self._pull_error = self._interrupted

    def _pull_message(self, as_bytes: bool) -> bytes | str | None:
        """Do what `pull` does, through the extensions."""
        while True:
            payload = self._pull_decoded()
            if payload is None or self.opcode >= Opcode.CLOSE:
                return payload
            if self._assembler is None:  # the usual case: a message in one frame
                if self.opcode == Opcode.BINARY:
                    return payload
                text = decode_text(payload)
                return payload if as_bytes else text
            if self.fin:
                message, self.decoder.bounds = self._assembler.finish(as_bytes)
                self._assembler = None
                return message

    def pull_fragment(self) -> bytes | None:
        """Give the next fragment of a message, like `pull`; ``fin`` says whether it was the last."""
        if not self._extensions:
            data = self.decoder.pull_fragment()
            self.opcode, self.fin = self.decoder.opcode, self.decoder.fin
            if self.debug and data is not None:
                self._log_received(data)
            return data
        if self._pull_error is not None:
            raise self._pull_error
        self._begin_pull()
        try:
            data = self._pull_next_fragment()
        except Exception as exc:
            if not from_handler(exc):
                self._pull_error = exc
            raise
        self._pull_error = None
        return data

    def _pull_next_fragment(self) -> bytes | None:
        """Do what `pull_fragment` does, through the extensions."""
        if self._assembler is None or not self._assembler.fragments:
            payload = self._pull_decoded()
            if payload is None or self.opcode >= Opcode.CLOSE:
                return payload
            if self._assembler is None:
                if self.opcode == Opcode.TEXT:
                    decode_text(payload)
                return payload
        assembler = self._assembler
        data = assembler.take_fragment()
        self.opcode = Opcode.TEXT if assembler.text else Opcode.BINARY
        self.fin = not self.decoder.mid_message and not assembler.fragments
        if self.fin:
            self._assembler = None
        return data

    def _pull_decoded(self) -> bytes | None:
        """Give a decoded frame's payload; a frame of a fragmented message goes to the assembler as well."""
        frame = self._next_frame()
        if frame is None:
            return None
        payload = bytes(frame.data)
        self.fin = frame.fin
        if frame.opcode >= Opcode.CLOSE:
            self.opcode = frame.opcode
            return payload
        assembler = self._assembler
        if assembler is None:
            self.opcode = frame.opcode
            if frame.fin:
                self.decoder.bounds = None
                return payload
            assembler = self._assembler = Assembler()
            assembler.start(frame.opcode == Opcode.TEXT)
        self.opcode = Opcode.TEXT if assembler.text else Opcode.BINARY
        assembler.append(payload)
        assembler.end_fragment(frame.fin)
        return payload

    def _log_received(self, data: bytes | str) -> None:
        payload = data.encode() if isinstance(data, str) else data
        self.logger.debug("< %s", Frame(Opcode(self.opcode), payload))

    # Output

    def send_continuation(self, data: BytesLike, fin: bool) -> None:
        """Send a Continuation frame (RFC 6455 §5.6).

        Raises:
            ProtocolError: if no fragmented message is being sent.
            InvalidState: if the connection isn't OPEN.
        """
        if not self.outgoing:
            raise ProtocolError("unexpected continuation frame")
        self._send_data(Opcode.CONT, data, fin)

    def send_text(self, data: BytesLike, fin: bool = True) -> None:
        """Send a Text frame of UTF-8 bytes; errors as for `send_continuation`."""
        if self.outgoing:
            raise ProtocolError("expected a continuation frame")
        self._send_data(Opcode.TEXT, data, fin)

    def send_binary(self, data: BytesLike, fin: bool = True) -> None:
        """Send a Binary frame; errors as for `send_continuation`."""
        if self.outgoing:
            raise ProtocolError("expected a continuation frame")
        self._send_data(Opcode.BINARY, data, fin)

    def _send_data(self, opcode: int, data: BytesLike, fin: bool) -> None:
        if isinstance(data, memoryview):
            data = flat(data)
        self._move("send data")
        if self.debug and not self._extensions:
            self.logger.debug("> %s", Frame(Opcode(opcode), data, fin))
        head, payload = self.encode_data(opcode, data, fin)
        self.writes.append(self.encoder.frame(head, payload))
        self.outgoing = not fin

    def send_close(self, code: int | None = None, reason: str = "") -> None:
        """Begin the closing handshake (RFC 6455 §7.1.2).

        Raises:
            ProtocolError: for a code that may not be sent, or a reason without a code or too long.
            InvalidState: if the connection isn't OPEN.
        """
        if code is None:
            if reason:
                raise ProtocolError("cannot send a reason without a code")
            self._queue_close(None)
        else:
            self._queue_close(Close(code, reason))
        self._flush_control()

    def send_ping(self, data: BytesLike) -> None:
        """Send a Ping; raises InvalidState unless OPEN or CLOSING."""
        self._send_control(Opcode.PING, data)

    def send_pong(self, data: BytesLike) -> None:
        """Send a Pong; raises InvalidState unless OPEN or CLOSING."""
        self._send_control(Opcode.PONG, data)

    def _send_control(self, opcode: int, data: BytesLike) -> None:
        self._move("send control")
        self.queue_control(opcode, data)
        self._flush_control()

    def _fail_handshake(self, exc: Exception) -> None:
        """Note why the opening handshake failed, and end the stream; later input does not count."""
        self.handshake_exc = exc
        self.discarding = True
        self._send_eof()

    def _open(self, leftover: bytes) -> None:
        """Be OPEN; ``leftover`` came behind the handshake and is the beginning of the frames."""
        self._move("open")
        if leftover:
            self.decoder.feed(leftover)
        if not self.pulling:
            self._read_frames()

    def events_received(self) -> list[Event]:
        """Give the events since the last call: requests, responses, frames."""
        events, self.events = self.events, []
        return events

    def data_to_send(self) -> list[bytes]:
        """Give the bytes to send since the last call; `SEND_EOF` asks to end the stream, nothing follows it."""
        writes, self.writes = self.writes, []
        return writes
