"""The state machine of a connection: control frames, closing, and what goes out because of them.

`states` draws the states and their moves. What stays beside them: which Close frames went over the wire
(``close_rcvd``, ``close_sent``) and whether input still counts (``discarding``).
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

from .codec import Assembler, Decoder, Encoder, Utf8Validator
from .codec.interrupts import interrupted
from .environment import read_limit
from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidState,
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

__all__ = ["SEND_EOF", "Machine"]

SEND_EOF: Final = b""
"""What `Protocol.data_to_send` gives to say: end the stream now (half-close TCP)."""

MAX_FRAGMENTS: Final = read_limit("FULLDUPLEX_MAX_FRAGMENTS", 0) or None
"""How many frames a message may have; None for no limit, since fragments cost no memory of their own."""

_CLIENT_LOGGER: Final = logging.getLogger("fullduplex.client")
_SERVER_LOGGER: Final = logging.getLogger("fullduplex.server")

_NO_RSV: Final = 0
_RSV1: Final = 4
_ANY_RSV: Final = 7


def size_limits(
    max_size: int | tuple[int | None, int | None] | None,
) -> tuple[int | None, int | None]:
    """Give the limits for a message and for a frame."""
    limits = max_size if isinstance(max_size, tuple) else (max_size, None)
    for limit in limits:
        if limit is None:
            continue
        if not isinstance(limit, int):
            raise TypeError(f"max_size must be a whole number, or None: {max_size!r}")
        if limit < 0:
            raise ValueError(f"max_size must not be negative: {max_size}")
    return limits


def close_payload(close: Close) -> bytes:
    """Give the payload of a Close frame; raises ProtocolError for a reason that is too long (RFC 6455 §5.5)."""
    payload = close.serialize()
    if len(payload) > 125:
        raise ProtocolError(
            f"close reason too long: {len(payload) - 2} bytes, at most 123 are allowed"
        )
    return payload


def flat(view: memoryview) -> BytesLike:
    """Give the bytes of a view of any shape, without a copy where that is possible."""
    return view.cast("B") if view.contiguous else view.tobytes()


def bare(exc: BaseException) -> None:
    """Drop the tracebacks of an exception that a connection keeps.

    Their frames refer to the connection, which could then only be freed by the cycle collector.
    """
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        link.__context__ = None
        link = link.__cause__


class Machine:
    """What `Protocol` knows and does about the state of the connection, and the queue of control frames."""

    def __init__(
        self,
        side: Side,
        *,
        state: State = OPEN,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        if logger is None:
            logger = _CLIENT_LOGGER if side is CLIENT else _SERVER_LOGGER
        self.logger = logger
        self.debug = logger.isEnabledFor(logging.DEBUG)
        self.side = side
        self.state = state
        self.is_open = state is OPEN
        self.is_closed = state is CLOSED
        max_message, max_fragment = size_limits(max_size)
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
        self.peer_failed = False  # it was failed for what the peer did, or did not do
        self.eof_sent = False
        self.eof_rcvd = False
        self.discarding = False
        self.pulling = False
        self.opcode = 0
        self.fin = True
        self.events: list[Event] = []
        self.writes: list[bytes] = []
        #: Opcode, payload, and whether it answers a Ping.
        self.control: deque[tuple[int, bytes, bool]] = deque()
        self.end_wanted = False
        self.outgoing = False  # a fragmented message is being sent
        self._extensions: list[Extension] = []
        self._assembler: Assembler | None = None
        self._validator: Utf8Validator | None = None
        # Final, like the decoder's. While a pull is at work: what it is if a signal's handler ends that.
        self._pull_error: Exception | None = None
        self._interrupted = interrupted()

    @property
    def id(self) -> uuid.UUID:
        """A UUID for logs, made when somebody asks for it. Thread-safe."""
        made: uuid.UUID | None = vars(self).get("_id")
        # Of two threads at once, both get what the first one put there.
        return vars(self).setdefault("_id", uuid.uuid4()) if made is None else made

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
        if rcvd is None or sent is None:
            pass
        elif rcvd.code in OK_CLOSE_CODES and sent.code in OK_CLOSE_CODES:
            kind = ConnectionClosedOK
        exc = kind(rcvd, sent, self.close_rcvd_then_sent)
        exc.__cause__ = self.parser_exc
        return exc

    def close_expected(self) -> bool:
        """Tell whether the TCP connection should end soon, so that waiting for its end must be bounded."""
        if self.state is CONNECTING:
            return self.eof_sent
        return self.state is CLOSING

    # Control frames

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
                self.control.append((Opcode.CLOSE, payload, False))
            else:
                self.close_rcvd_then_sent = False
            if self.side is SERVER:
                self.end_wanted = True  # §7.1.1: the server closes TCP first

    def _queue_pong(self, payload: bytes) -> None:
        """Queue the answer to a Ping; it replaces one that still waits, the newest is answered (RFC 6455 §5.5.3)."""
        answer = (int(Opcode.PONG), payload, True)
        for index, (_, _, answers) in enumerate(self.control):
            if answers:
                self.control[index] = answer
                return
        self.control.append(answer)

    # Ending

    def fail_for(self, exc: Exception) -> None:
        """Fail the connection for an error in what the peer sent."""
        self.parser_exc = exc
        bare(exc)
        self.fail_peer(*error_close(exc))

    def fail_peer(self, code: int, reason: str) -> None:
        """Fail the connection for what the peer did, or did not do."""
        self.peer_failed = self.peer_failed or self.state is OPEN
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
        payload = b"" if close is None else close_payload(close)
        self._move("send close")
        self.close_sent = Close(CloseCode.NO_STATUS_RCVD, "") if close is None else close
        self.control.append((Opcode.CLOSE, payload, False))

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

    def queue_control(self, opcode: int, data: BytesLike) -> None:
        """Queue a Ping or Pong; raises ProtocolError for a payload over 125 bytes (RFC 6455 §5.5)."""
        payload = memoryview(data).tobytes()
        if len(payload) > 125:
            raise ProtocolError(
                f"control frame too long: {len(payload)} bytes, at most 125 are allowed"
            )
        self.control.append((opcode, payload, False))

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
        # What a signal's handler queues meanwhile waits for the next call.
        control, self.control = self.control, deque()
        try:
            for opcode, payload, _ in control:
                if self._extensions:
                    head, data = self._through_extensions(Frame(Opcode(opcode), payload))
                    frames.append(self.encoder.frame(head, data))
                    continue
                if self.debug:
                    self.logger.debug("> %s", Frame(Opcode(opcode), payload))
                frames.append(self.encoder.frame(0x80 | opcode, payload))
            return frames[0] if len(frames) == 1 else b"".join(frames)
        except BaseException:  # memory ran out, or the handler raised: so do these
            control.extend(self.control)
            self.control = control
            raise

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
