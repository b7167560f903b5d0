"""The connection as its users see it: blocking calls, from any thread.

`core` explains how it works, which locks there are and what may be waited for while they are held.
"""

from __future__ import annotations

import codecs
import logging
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from ..conditions import wait_for_change
from ..exceptions import ConcurrencyError, ConnectionClosedOK
from ..frames import Close, CloseCode, Opcode
from ..machine import close_payload
from ..protocol import State
from ..roles import FREE, RECV, release_mine
from ..stream import Stream, open_stream
from . import sending
from .checks import check_keeping
from .core import FIRST_CONTROL, ITEM_BYTES, MOMENT
from .pings import new_payload
from .sending import BYTES_LIKE
from .service import get_service

if TYPE_CHECKING:
    import ssl
    import threading
    import uuid
    from types import TracebackType

    from ..http11 import Request, Response
    from ..protocol import Protocol
    from ..typing import Data, DataLike, LoggerLike, Subprotocol

__all__ = ["Connection"]

TEXT: Final = int(Opcode.TEXT)


class ConnectionLogger(logging.LoggerAdapter[Any]):
    """Adds the connection to log records, as ``websocket``, without keeping it alive."""

    def __init__(self, logger: LoggerLike, connection: Connection) -> None:
        super().__init__(logger, None)
        self._connection = weakref.ref(connection)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log, without the three calls that it takes the inherited one to find that nobody listens."""
        if self.logger.isEnabledFor(logging.INFO):
            self.log(logging.INFO, msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        """Add ``websocket`` to ``extra``."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "websocket": self._connection()}
        return msg, kwargs


class Connection(sending.SendingConnection):
    """A WebSocket connection on threads (RFC 6455), for both sides.

    You get one from ``connect()``, or as the argument of a server's handler; don't make it yourself. All methods
    may be called from any thread. One thread at a time may receive; sends of several threads are put one after
    the other. Reading needs no thread of its own: who calls `recv` reads the socket, and one service thread for
    all connections of the process reads, answers pings and sends keepalive pings while nobody does.

    Args:
        socket: connected socket, or anything like one; also accepted as ``sock``. A `Stream` is used as it is.
        protocol: the Sans-I/O side of the connection.
        ping_interval: seconds between keepalive pings; None for none.
        ping_timeout: seconds within which a keepalive ping must be answered; None for no limit.
        close_timeout: seconds that closing may take, from the first Close frame to the end of TCP; None for no
            limit.
        max_queue: frames that are buffered while nobody reads, or a pair of a high and a low mark; None for no
            limit. Reading stops at the high mark, and TCP then slows the peer down; it goes on at the low one.

    Attributes:
        logger: adds the connection to log records, as ``websocket``.
        request, response: of the opening handshake; None before it.
        protocol: the Sans-I/O side; look, don't touch.
    """

    def __init__(
        self,
        socket: Any = None,
        protocol: Protocol | None = None,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        sock: Any = None,
    ) -> None:
        if (socket is None) == (sock is None):
            raise TypeError("give the connected socket once, as socket or as sock")
        if protocol is None:
            raise TypeError("protocol is missing")
        given = sock if socket is None else socket
        stream = given if isinstance(given, Stream) else open_stream(given)
        check_keeping(ping_interval, ping_timeout, close_timeout)
        super().__init__(stream, protocol, ping_interval, ping_timeout, close_timeout, max_queue)
        self.socket = stream.sock
        self.logger: LoggerLike = ConnectionLogger(protocol.logger, self)
        if protocol.debug:
            protocol.logger = self.logger
        self.request: Request | None = None
        self.response: Response | None = None
        self._local_address = address_of(stream.sock, "getsockname")
        self._remote_address = address_of(stream.sock, "getpeername")
        if protocol.is_open:
            self._opened()

    def _opened(self) -> None:
        """The opening handshake is done: be looked after while nobody reads."""
        get_service().add(self)

    # Looking

    @property
    def id(self) -> uuid.UUID:
        """A UUID, for logs."""
        return self.protocol.id

    @property
    def local_address(self) -> Any:
        """Local address as ``getsockname()`` gives it: a pair for IPv4, also after closing."""
        return self._local_address

    @property
    def remote_address(self) -> Any:
        """Address of the peer as ``getpeername()`` gives it."""
        return self._remote_address

    @property
    def ssl_object(self) -> ssl.SSLObject | ssl.SSLSocket | None:
        """TLS of this connection, to ask for the peer's certificate and the like; None without TLS.

        Only ask it: what it reads or writes itself is missing in the connection.
        """
        stream: Any = self._stream
        found: Any = getattr(stream, "ssl_object", None)
        tls: ssl.SSLObject | ssl.SSLSocket | None
        tls = stream.sock if found is None and stream.farewell else found
        return tls

    @property
    def latency(self) -> float:
        """Seconds from the last acknowledged ping to its pong; 0 before there was one."""
        return self._latency

    @property
    def state(self) -> State:
        """Where the connection is in its life; for looking, since it may change any time."""
        return self.protocol.state

    @property
    def subprotocol(self) -> Subprotocol | None:
        """The subprotocol that was negotiated, or None."""
        return self.protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        """The peer's close code once CLOSED: 1005 if its frame had none, 1006 without a frame; None before."""
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        """The peer's close reason once CLOSED; None before."""
        return self.protocol.close_reason

    @property
    def counters(self) -> dict[str, float]:
        """What went over this connection so far.

        Keys: ``messages_received``, ``frames_received``, ``payload_received`` (bytes as on the wire),
        ``frames_sent``, ``payload_sent``, and ``compressed_ratio`` of outgoing messages, payload bytes
        on the wire by bytes before compression (1.0 without compression).
        """
        decoder, encoder = self.protocol.decoder, self.protocol.encoder
        ratio = 1.0
        for extension in self.protocol.extensions:
            before = getattr(extension, "plain_bytes_sent", 0)
            if before:
                ratio = getattr(extension, "wire_bytes_sent", before) / before
        return {
            "messages_received": decoder.messages_received,
            "frames_received": decoder.frames_received,
            "payload_received": decoder.payload_received,
            "frames_sent": encoder.frames_sent,
            "payload_sent": encoder.payload_sent,
            "compressed_ratio": ratio,
        }

    # Context manager and iterator

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self.close(CloseCode.INTERNAL_ERROR)

    def __iter__(self) -> Iterator[Data]:
        """Iterate over messages until the connection is closed normally.

        Raises:
            ConnectionClosedError: after a protocol error or a network failure.
        """
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

    # Receiving

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...
    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...
    @overload
    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data:
        """Receive the next message, whole.

        Messages that came before the connection was closed are given first.

        Args:
            timeout: seconds to wait; None waits until a message comes; 0 or less only looks whether one is here.
            decode: False gives text as bytes (its UTF-8 is checked all the same), True gives binary as str.

        Returns:
            str for a Text message, bytes for a Binary one (RFC 6455 §5.6).

        Raises:
            ConnectionClosedOK: after a normal closure.
            ConnectionClosedError: after a protocol error or a network failure.
            TimeoutError: if no message came in time; nothing is lost.
            ConcurrencyError: if another thread is receiving.
        """
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + timeout if timeout > 0 else 0.0
        if self._streaming:
            self._check_streaming("recv")  # before the role is taken: who streams is not disturbed
        if self._reader.try_acquire():
            ahead: Data | None = self._enter_reader(deadline, "recv", decode is False)
            if ahead is not None:
                return self._decode(ahead) if decode and not isinstance(ahead, str) else ahead
        data: Any = None
        try:
            if self._streaming:
                self._check_streaming("recv")
            data = self._next(deadline, decode is False)
            # As _leave_reader(), which is called only if there is something to see to: this is the hot path.
            self._reads += 1
            self._reader.release()
            if not self._watch or self._due or self._draining or self.protocol.is_closed:
                self._left_reader()
        except BaseException:
            try:
                self._put_back(data)  # of a signal's handler: this call does not give the message
                if self._reader.mine:
                    self._leave_reader()
            except BaseException:
                release_mine(self._reader)
                raise
            raise
        if decode and not isinstance(data, str):
            return self._decode(data)
        return data  # type: ignore[no-any-return]

    def _put_back(self, data: Data | None) -> None:
        """Be the next message, again."""
        if data is None:
            return
        size = len(data) + ITEM_BYTES
        with self._mutex:
            # Counted first: who reads looks whether there is a count.
            self._inbox_frames += 1
            self._inbox_bytes += size
            self._inbox.appendleft((data, None, 1, size))

    def _check_streaming(self, what: str) -> None:
        # With the reader role: a recv_streaming() that has just begun noted so before it left.
        if self._streaming:
            raise ConcurrencyError(
                f"cannot call {what} while a recv_streaming is not consumed to its end"
            )

    def _last_was_text(self) -> bool:
        protocol = self.protocol
        own = protocol.extensions or protocol.debug
        return bool((protocol.opcode if own else protocol.decoder.opcode) == TEXT)

    def _decode(self, data: bytes) -> str:
        """Decode a Binary message as the caller wished; what is not UTF-8 fails the connection like text."""
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            self._fail(exc)
            self._await_end()
            raise self.protocol.close_exc from exc

    def recv_into(self, buffer: bytearray | memoryview, timeout: float | None = None) -> int:
        """Receive the next message's bytes into ``buffer``; text comes as UTF-8.

        Args:
            buffer: writable; the message is put at its beginning.
            timeout: as for `recv`.

        Returns:
            The size of the message in bytes.

        Raises:
            BufferError: if the message is larger than the buffer. It is not lost: call `recv`, or come back
                with a larger buffer.
            Otherwise as `recv`.
        """
        # Released at the end, also within an exception: the caller may want to make a bytearray larger then.
        with memoryview(buffer) as view, view.cast("B") as target:
            if target.readonly:
                raise TypeError("the buffer is not writable")
            return self._recv_into(target, timeout)

    def _recv_into(self, target: memoryview, timeout: float | None) -> int:
        deadline = None
        if timeout is not None:
            deadline = time.monotonic() + timeout if timeout > 0 else 0.0
        self._check_streaming("recv_into")
        if self._reader.try_acquire(RECV) != FREE:
            self._enter_reader(deadline, "recv_into")
        try:
            self._check_streaming("recv_into")
            ahead = self._inbox[0][0] if self._inbox else None
            data = self._next(deadline, True)
            size = len(data)
            if size > len(target):
                text = self._last_was_text() if ahead is None else isinstance(ahead, str)
                self._put_back(data.decode() if text else data)
                raise BufferError(
                    f"a message of {size} bytes does not fit into {len(target)} bytes"
                )
            target[:size] = data
        finally:
            self._leave_reader()
        return size

    @overload
    def recv_streaming(self, decode: Literal[True]) -> Iterator[str]: ...
    @overload
    def recv_streaming(self, decode: Literal[False]) -> Iterator[bytes]: ...
    @overload
    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]: ...

    def recv_streaming(self, decode: bool | None = None) -> Iterator[Data]:
        """Receive the next message fragment by fragment, each as soon as it is here.

        The iterator must be consumed to its end; until then other receiving calls raise ConcurrencyError.
        A character that is split between fragments comes with the later one. Of a message with very many
        unread fragments, the later ones may come joined.

        Args:
            decode: as for `recv`.

        Returns:
            An iterator of str for a Text message or bytes for a Binary one.

        Raises:
            As `recv`, while iterating.
        """
        self._check_streaming("recv_streaming")
        if self._reader.try_acquire(RECV) != FREE:
            self._enter_reader(None, "recv_streaming")
        decoder: codecs.IncrementalDecoder | None = None
        first = True
        fin = False
        while not fin:
            try:
                if first:
                    self._check_streaming("recv_streaming")
                fragment, text, fin = self._next_fragment()
            finally:
                self._leave_reader()
            if first:
                first = False
                if (text or decode) and decode is not False:
                    decoder = codecs.getincrementaldecoder("utf-8")()
            yield fragment if decoder is None else self._decode_fragment(decoder, fragment, fin)
            # A recv() that began just before us is about to find that it must not be.
            if not fin and not self._reader.acquire(RECV, MOMENT):
                self._enter_reader(None, "recv_streaming")

    def _decode_fragment(self, decoder: codecs.IncrementalDecoder, data: bytes, fin: bool) -> str:
        try:
            return decoder.decode(data, fin)
        except UnicodeDecodeError as exc:
            self._streaming = False
            self._inbox_bytes -= sum(len(part) + ITEM_BYTES for part, _ in self._fragments)
            self._fragments.clear()
            self._fail(exc)
            self._await_end()
            raise self.protocol.close_exc from exc

    def _next_fragment(self) -> tuple[bytes, bool, bool]:
        """Give the next fragment, whether its message is text (if it is the first), and whether it is the last."""
        protocol = self.protocol
        if not self._streaming and self._inbox:
            bounds = self._inbox[0][1]
            data = self._take_from_inbox(False)
            text = isinstance(data, str)
            parts = split(data.encode() if text else data, bounds)
            last = len(parts) - 1
            for index, part in enumerate(parts[1:], 1):
                self._fragments.append((part, index == last))
                self._inbox_bytes += len(part) + ITEM_BYTES
            self._streaming = last > 0
            return parts[0], text, last == 0
        while True:
            if self._fragments:
                fragment, fin = self._fragments.popleft()
                self._inbox_bytes -= len(fragment) + ITEM_BYTES
                self._streaming = not fin
                return fragment, protocol.opcode == TEXT, fin
            fragment_now = self._pull_fragment()
            if fragment_now is not None:
                self._streaming = not protocol.fin
                return fragment_now, protocol.opcode == TEXT, protocol.fin
            if not protocol.is_open:
                self._streaming = self._streaming and not protocol.is_closed
                self._check_state()
            self._read(None)

    def _pull_fragment(self) -> bytes | None:
        protocol = self.protocol
        if (violation := self._violation) is not None:
            self._fail(violation)
        while not protocol.discarding:
            try:
                data = protocol.pull_fragment()
            except Exception as exc:
                self._fail(exc)
                return None
            if data is None or protocol.opcode < FIRST_CONTROL:
                return data
            self._on_control(protocol.opcode, data)
        return None

    # Control frames

    def ping(self, data: DataLike | None = None, ack_on_close: bool = False) -> threading.Event:
        """Send a Ping (RFC 6455 §5.5.2). While the connection is open this never waits for the network.

        Args:
            data: payload of up to 125 bytes; a str is encoded to UTF-8; None stands for four random bytes.
            ack_on_close: also set the event when the connection is closed.

        Returns:
            An event that is set when the pong for this ping, or for a later one, has come.

        Raises:
            ConnectionClosed: when the connection is closed; when it is being closed, at its end.
            ConcurrencyError: (a RuntimeError) if a ping with the same data waits for its pong.
            ProtocolError: if the payload is too long.
        """
        payload = control_payload(data) if data is not None else new_payload()
        while data is None and payload in self._pings:
            payload = new_payload()
        ping = self._send_ping(payload, ack_on_close)
        if ping is None or (self._stream.aborted and not ping.event.is_set()):
            self._raise_closed()
        if self.protocol.is_closed and not ping.event.is_set() and ack_on_close:
            ping.event.set()
        return ping.event

    def pong(self, data: DataLike = b"") -> None:
        """Send an unsolicited Pong (RFC 6455 §5.5.3), a heartbeat in one direction.

        While the connection is open this never waits for the network.

        Args:
            data: payload of up to 125 bytes; a str is encoded to UTF-8.

        Raises:
            ConnectionClosed: when the connection is closed; when it is being closed, at its end.
            ProtocolError: if the payload is too long.
        """
        payload = control_payload(data)
        with self._mutex:
            is_open = self.protocol.is_open
            if is_open:
                self.protocol.queue_control(Opcode.PONG, payload)
        if is_open:
            self._flush()
        if not is_open or self._stream.aborted:
            self._raise_closed()

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Perform the closing handshake (RFC 6455 §7.1.2).

        Waits for the peer's Close frame and for the end of TCP, ``close_timeout`` at most, then cuts the
        connection. Messages that came before stay readable with `recv`; if more of them are unread than are
        buffered, it waits for them to be read. Wakes threads in `recv` and `send`. Idempotent, from any thread.
        In a signal handler that interrupted `recv` or `send` of this connection it doesn't wait: these go on, and find
        the end.

        Args:
            code: close code.
            reason: close reason of up to 123 bytes in UTF-8.

        Raises:
            ProtocolError: for a code that may not be sent or a reason that is too long; the connection stays open.
            InvalidState: in the midst of the opening handshake.
        """
        close = Close(code, reason)
        close.check()
        if not self.protocol.is_open:
            if self.protocol.is_closed or (self._stream.aborted and self.protocol.handshake_exc):
                return
            self._check_state()
        if reason:
            close_payload(close)  # which says if it is too long
        with self._mutex:
            if self.protocol.is_open:
                if self.protocol.outgoing:
                    self.protocol.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
                else:
                    self.protocol._queue_close(close)
        if self.protocol.is_closed:
            return
        own = self._bound_closing()
        if own and self._stream.fileno() < 0:
            self._watch_closing()  # reads without a descriptor know no deadline
        try:
            self._flush()
            if not self._reader.mine and not self._writer.mine:
                self._await_end()
            elif own:  # in a signal's handler: recv() or send(), which it has interrupted, go on
                self._watch_closing()
        except BaseException:  # Ctrl-C: somebody else has to watch the time now
            if own:
                self._watch_closing()
            raise

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until the connection is closed; doesn't close it.

        Args:
            timeout: seconds to wait; None for ever.

        Returns:
            Whether it is closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self.protocol.is_closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                wait_for_change(self._changed, left)
        return True


def control_payload(data: DataLike) -> bytes:
    """Give the payload of a control frame."""
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, BYTES_LIKE):
        return bytes(data)
    raise TypeError(f"data must be str or bytes-like, not {type(data).__name__}")


def address_of(sock: Any, method: str) -> Any:
    """Ask a socket for an address; None from what has none."""
    try:
        return getattr(sock, method)()
    except (OSError, AttributeError):
        return None


def split(data: bytes, bounds: tuple[int, ...] | None) -> list[bytes]:
    """Cut a message at the ends of its fragments."""
    if bounds is None:
        return [data]
    starts = (0, *bounds[:-1])
    return [data[start:end] for start, end in zip(starts, bounds, strict=True)]
