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

import logging
import os
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

from .codec import Assembler, Decoder, Encoder, Utf8Validator, decode_text
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
    PayloadTooBig,
    ProtocolError,
)
from .frames import OK_CLOSE_CODES, Close, CloseCode, Frame, Opcode
from .states import (
    CLIENT,
    CLOSED,
    CLOSING,
    CONNECTING,
    MOVES,
    OPEN,
    SERVER,
    Side,
    State,
    error_close,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .extensions.base import Extension
    from .http11 import Request, Response
    from .typing import BytesLike, LoggerLike, Origin, Subprotocol

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

SEND_EOF: Final = b""
"""What `Protocol.data_to_send` gives to say: end the stream now (half-close TCP)."""

_ENV_FRAGMENTS = os.environ.get("FULLDUPLEX_MAX_FRAGMENTS", "")
MAX_FRAGMENTS: Final = int(_ENV_FRAGMENTS) if _ENV_FRAGMENTS else None
"""How many frames a message may have; None for no limit, since fragments cost no memory of their own."""

_NO_RSV: Final = 0
_RSV1: Final = 4
_ANY_RSV: Final = 7


def bare(exc: BaseException) -> None:
    """Drop the tracebacks of an exception that a connection keeps.

    Their frames refer to the connection, which could then only be freed by the cycle collector.
    """
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        link.__context__ = None
        link = link.__cause__


class Protocol:
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

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        self.id = uuid.uuid4()
        if logger is None:
            name = "client" if side is CLIENT else "server"
            logger = logging.getLogger(f"fullduplex.{name}")
        self.logger = logger
        self.debug = logger.isEnabledFor(logging.DEBUG)
        self.side = side
        self.state = state
        self.is_open = state is OPEN
        self.is_closed = state is CLOSED
        max_message, max_fragment = max_size if isinstance(max_size, tuple) else (max_size, None)
        self.decoder = Decoder(
            masked=side is SERVER,
            max_message=max_message,
            max_fragment=max_fragment,
            max_fragments=MAX_FRAGMENTS,
        )
        self.encoder = Encoder(masked=side is CLIENT)
        self.origin: Origin | None = None
        self.subprotocol: Subprotocol | None = None
        self.handshake_exc: Exception | None = None
        self.parser_exc: Exception | None = None
        self.close_rcvd: Close | None = None
        self.close_sent: Close | None = None
        self.close_rcvd_then_sent: bool | None = None
        self.eof_sent = False
        self.eof_rcvd = False
        self.discarding = False
        self.pulling = False
        self.opcode = 0
        self.fin = True
        self.events: list[Event] = []
        self.writes: list[bytes] = []
        self.control: deque[tuple[int, bytes]] = deque()
        self.end_wanted = False
        self.outgoing = False  # a fragmented message is being sent
        self._extensions: list[Extension] = []
        self._assembler: Assembler | None = None
        self._validator: Utf8Validator | None = None
        self._pull_error: Exception | None = None  # final, like the decoder's

    @property
    def extensions(self) -> Sequence[Extension]:
        """The extensions in use, in the order in which outgoing frames pass through them."""
        return self._extensions

    @extensions.setter
    def extensions(self, extensions: Sequence[Extension]) -> None:
        self._extensions = list(extensions)
        names = {extension.name for extension in self._extensions}
        if not names:
            self.decoder.rsv_allowed = _NO_RSV
        else:
            self.decoder.rsv_allowed = _RSV1 if names == {"permessage-deflate"} else _ANY_RSV

    # What is known of the end

    @property
    def close_code(self) -> int | None:
        """The peer's close code once CLOSED (1005 for none in its frame, 1006 for no frame); None before."""
        if self.state is not CLOSED:
            return None
        return CloseCode.ABNORMAL_CLOSURE if self.close_rcvd is None else self.close_rcvd.code

    @property
    def close_reason(self) -> str | None:
        """The peer's close reason once CLOSED; None before."""
        if self.state is not CLOSED:
            return None
        return "" if self.close_rcvd is None else self.close_rcvd.reason

    @property
    def close_exc(self) -> ConnectionClosed:
        """The exception that tells how the connection ended, new each time; only once CLOSED."""
        assert self.state is CLOSED, "connection isn't closed yet"
        rcvd, sent = self.close_rcvd, self.close_sent
        kind: type[ConnectionClosed] = ConnectionClosedError
        if {close.code if close else None for close in (rcvd, sent)} <= OK_CLOSE_CODES:
            kind = ConnectionClosedOK
        exc = kind(rcvd, sent, self.close_rcvd_then_sent)
        exc.__cause__ = self.parser_exc
        return exc

    def close_expected(self) -> bool:
        """Tell whether the TCP connection should end soon, so that waiting for its end must be bounded."""
        if self.state is CONNECTING:
            return self.eof_sent
        return self.state is CLOSING

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
        self.eof_rcvd = True
        if self.state is CONNECTING:
            if self.handshake_exc is None:
                self._receive_handshake_eof()
            return
        if self.state is OPEN and self.parser_exc is None:
            self.parser_exc = EOFError("stream ended without a Close frame")
        self._move("end of stream")
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
            for extension in reversed(self._extensions):
                frame = extension.decode(frame, max_size=limit)
            size = memoryview(frame.data).nbytes
            if limit is not None and size > limit:
                # The decoder allows a little more than the limit, for what deflate makes longer.
                raise PayloadTooBig(size, limit, decoder.message_size or None)
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
        try:
            return self._pull_message(as_bytes)
        except Exception as exc:
            self._pull_error = exc
            raise

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
        try:
            return self._pull_next_fragment()
        except Exception as exc:
            self._pull_error = exc
            raise

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

    def receive_control(self, opcode: int, payload: bytes) -> None:
        """Do what a control frame asks for; answers are queued for `take_control`.

        Raises:
            ProtocolError, UnicodeDecodeError: for a Close frame with an impossible payload.
        """
        if opcode == Opcode.PING:
            self._queue_pong(payload)
        elif opcode == Opcode.CLOSE:
            self.close_rcvd = Close.parse(payload)
            self._move("receive close")
            self.discarding = True
            if self.close_sent is None:
                # §5.5.1: the answer usually repeats the status code that came.
                self.close_sent = self.close_rcvd
                self.close_rcvd_then_sent = True
                self.control.append((Opcode.CLOSE, payload))
            else:
                self.close_rcvd_then_sent = False
            if self.side is SERVER:
                self.end_wanted = True  # §7.1.1: the server closes TCP first

    def _queue_pong(self, payload: bytes) -> None:
        """Queue a Pong; one that still waits is replaced, the newest Ping is answered (RFC 6455 §5.5.3)."""
        for index, (opcode, _) in enumerate(self.control):
            if opcode == Opcode.PONG:
                self.control[index] = (Opcode.PONG, payload)
                return
        self.control.append((Opcode.PONG, payload))

    # Ending

    def fail_for(self, exc: Exception) -> None:
        """Fail the connection for an error in what the peer sent."""
        self.parser_exc = exc
        bare(exc)
        code, reason = error_close(exc)
        self.fail(code, reason)

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455 §7.1.7): send Close if that was not done, read nothing more.

        Args:
            code: close code; with 1006 no frame is sent.
            reason: close reason; cut to what fits into the frame.
        """
        if self.state is OPEN:
            if code != CloseCode.ABNORMAL_CLOSURE:
                reason = reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
                self._queue_close(Close(code, reason))
            else:
                self._move("send close")
        if self.side is SERVER or code == CloseCode.ABNORMAL_CLOSURE:
            self.end_wanted = True
        self.discarding = True
        self._flush_control()

    def _queue_close(self, close: Close | None) -> None:
        payload = b"" if close is None else close.serialize()
        if len(payload) > 125:
            raise ProtocolError(
                f"close reason too long: {len(payload) - 2} bytes, at most 123 are allowed"
            )
        self._move("send close")
        self.close_sent = Close(CloseCode.NO_STATUS_RCVD, "") if close is None else close
        self.control.append((Opcode.CLOSE, payload))

    def _move(self, event: str) -> None:
        """Go where the table says; raises InvalidState for a move that is not there."""
        target = MOVES.get((self.state, event))
        if target is None:
            raise InvalidState(f"cannot {event} while the connection is {self.state.name}")
        if target is not self.state:
            if self.debug:
                self.logger.debug("= connection is %s", target.name)
            self.state = target
            self.is_open = target is OPEN
            self.is_closed = target is CLOSED

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

    def queue_control(self, opcode: int, data: BytesLike) -> None:
        """Queue a Ping or Pong; raises ProtocolError for a payload over 125 bytes (RFC 6455 §5.5)."""
        payload = memoryview(data).tobytes()
        if len(payload) > 125:
            raise ProtocolError(
                f"control frame too long: {len(payload)} bytes, at most 125 are allowed"
            )
        self.control.append((opcode, payload))

    def encode_data(
        self, opcode: int, data: BytesLike, fin: bool, compress: bool | None = None
    ) -> tuple[int, BytesLike]:
        """Give the first byte of a data frame and its payload as the extensions encode it."""
        if not self._extensions:
            return (0x80 | opcode if fin else opcode), data
        return self._through_extensions(Frame(Opcode(opcode), data, fin), compress)

    def _through_extensions(
        self, frame: Frame, compress: bool | None = None
    ) -> tuple[int, BytesLike]:
        for extension in self._extensions:
            if compress is not None and extension.name == "permessage-deflate":
                frame = extension.encode(frame, compress=compress)  # type: ignore[call-arg]
            else:
                frame = extension.encode(frame)
        if self.debug:
            self.logger.debug("> %s", frame)
        rsv = frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
        return frame.fin << 7 | rsv | frame.opcode, frame.data

    def take_control(self) -> bytes:
        """Encode the control frames that wait, in order; b"" if there are none."""
        frames = []
        control = self.control
        while control:
            opcode, payload = control.popleft()
            if self._extensions:
                head, data = self._through_extensions(Frame(Opcode(opcode), payload))
                frames.append(self.encoder.frame(head, data))
                continue
            if self.debug:
                self.logger.debug("> %s", Frame(Opcode(opcode), payload))
            frames.append(self.encoder.frame(0x80 | opcode, payload))
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _flush_control(self) -> None:
        """In Sans-I/O use, write what was queued."""
        if self.pulling:
            return
        data = self.take_control()
        if data:
            self._write(data)
        if self.end_wanted:
            self._send_eof()

    def _write(self, data: bytes) -> None:
        self.writes.append(data)

    def _send_eof(self) -> None:
        if not self.eof_sent:
            self.eof_sent = True
            self.writes.append(SEND_EOF)

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
