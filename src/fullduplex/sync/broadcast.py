"""One message to many connections: encoded once, and nobody waits for a slow one.

The frame is the same for all connections with the same parameters: one bytes object for those
without an extension (a server's frames are not masked, RFC 6455 §5.1), one for each set of
permessage-deflate parameters. Writing it is one system call that does not wait; what the network
does not take at once is the connection's backlog, and goes out later by the service thread. A
connection that still has a backlog when the next broadcast comes is *slow*.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Literal

from ..codec import build_frame
from ..exceptions import ConcurrencyError
from ..extensions.permessage_deflate import PerMessageDeflate, encode_shared
from ..frames import CloseCode, Frame, Opcode
from ..protocol import State
from ..roles import FREE, SEND
from .checks import check_several
from .connection import Connection

if TYPE_CHECKING:
    from ..typing import DataLike

__all__ = ["broadcast"]

OPEN: Final = State.OPEN

GRACE: Final = 0.1
"""Seconds that a broadcast waits, in total, for threads that are sending on connections which take
bytes."""

# What became of the message on one connection
DONE: Final = 0
BUSY: Final = 1
FRAGMENTED: Final = 2
SLOW: Final = 3
FAILED: Final = 4


class Message:
    """A message and its frames, each made when the first connection needs it."""

    def __init__(self, opcode: int, payload: bytes) -> None:
        self.opcode = opcode
        self.payload = payload
        self.size = len(payload)
        self.plain = b""
        self.shared: dict[Any, tuple[bytes, int]] = {}
        # The parameters of the last connection, and its frame: the next one has the same, usually.
        self.last_bits = 0
        self.last_threshold = 0
        self.last_settings: object = None
        self.last_frame = (b"", 0)

    def frame_for(self, connection: Connection) -> bytes:
        """Give the frame for a connection, to be written now. Needs its writer role."""
        protocol = connection.protocol
        encoder = protocol.encoder
        if protocol.debug or encoder.masked:
            return self._own_frame(connection)
        extensions = protocol._extensions
        if not extensions:
            encoder.frames_sent += 1
            encoder.payload_sent += self.size
            if not self.plain:
                self.plain = build_frame(self.opcode, self.payload)
            return self.plain
        if len(extensions) == 1 and type(extensions[0]) is PerMessageDeflate:
            return self._compressed_frame(connection, extensions[0])
        return self._own_frame(connection)

    def _compressed_frame(self, connection: Connection, deflate: PerMessageDeflate) -> bytes:
        if (
            deflate.local_max_window_bits != self.last_bits
            or deflate.threshold != self.last_threshold
            or deflate.compress_settings is not self.last_settings
        ):
            self._find_shared(deflate)
        data, wire = self.last_frame
        encoder = connection.protocol.encoder
        encoder.frames_sent += 1
        if wire >= 0:
            deflate.note_shared(self.size, wire)
            encoder.payload_sent += wire
        else:
            encoder.payload_sent += self.size
        return data

    def _find_shared(self, deflate: PerMessageDeflate) -> None:
        """Find the frame for connections with these parameters, and make it if need be."""
        key = deflate.broadcast_key()
        made = self.shared.get(key)
        if made is None:
            frame = encode_shared(key, Frame(Opcode(self.opcode), self.payload))
            data = build_frame(self.opcode, frame.data, rsv1=frame.rsv1)
            made = self.shared[key] = (data, len(frame.data) if frame.rsv1 else -1)
        self.last_frame = made
        self.last_bits = deflate.local_max_window_bits
        self.last_threshold = deflate.threshold
        self.last_settings = deflate.compress_settings

    def _own_frame(self, connection: Connection) -> bytes:
        """Encode for this connection alone: it masks, or has extensions of somebody else."""
        protocol = connection.protocol
        if protocol.debug and not protocol.extensions:  # which would write it to the log
            protocol.logger.debug("> %s", Frame(Opcode(self.opcode), self.payload))
        head, payload = protocol.encode_data(self.opcode, self.payload, True)
        return protocol.encoder.frame(head, payload)


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    raise_exceptions: bool = False,
    text: bool | None = None,
    slow: Literal["skip", "close"] = "skip",
    **kwargs: Any,
) -> None:
    """Send a message to many connections. Never waits for a slow one.

    The message is encoded, and compressed, once for all connections that have the same parameters.
    Connections that are not open are passed over. A connection is skipped, with a WARNING in the
    log:

    - if it is slow: what was sent to it before has not gone out yet;
    - if another thread is in the midst of a fragmented message on it;
    - if writing fails, which also ends the connection.

    Thread-safe.

    Args:
        connections: where to send to; twice to one that is in there twice.
        message: str for a Text message, bytes-like for a Binary one.
        raise_exceptions: raise what went wrong, at the end, in place of logging it.
        text: True sends bytes as Text, which the caller knows to be UTF-8; False sends a str as
            Binary.
        slow: what happens to slow connections: ``"skip"`` leaves this message out, ``"close"``
            fails them with code 1008, so that a client never misses a message without notice.
        **kwargs: nothing; what other implementations want for their thread pool is taken, and not
            used.

    Raises:
        TypeError: if the message is neither str nor bytes-like; or for what is no connection, after all
            that are have been served.
        ValueError: for an unknown policy.
        ExceptionGroup: with ``raise_exceptions``, of a ConcurrencyError or RuntimeError for each
            connection that was skipped.
    """
    if slow not in ("skip", "close"):
        raise ValueError(f"slow must be 'skip' or 'close', not {slow!r}")
    check_several(connections)
    prepared = prepare(message, text)
    problems: list[tuple[Connection, int, BaseException | None]] = []
    strangers: list[object] = []
    busy = write_all(connections, prepared, problems, strangers)
    if busy:
        write_to_busy(busy, prepared, problems)
    if problems:
        report(problems, slow, raise_exceptions)
    if strangers:
        raise TypeError(f"cannot broadcast to {type(strangers[0]).__name__}")


def prepare(message: DataLike, text: bool | None) -> Message:
    """Give a message in the form in which it is encoded."""
    if isinstance(message, str):
        opcode = Opcode.BINARY if text is False else Opcode.TEXT
        return Message(int(opcode), message.encode())
    if isinstance(message, (bytes, bytearray, memoryview)):
        opcode = Opcode.TEXT if text else Opcode.BINARY
        return Message(int(opcode), bytes(message))
    raise TypeError(f"a message is str or bytes-like, not {type(message).__name__}")


def write_all(
    connections: Iterable[object],
    message: Message,
    problems: list[Any],
    strangers: list[object],
) -> list[Connection]:
    """Write to all but those on which another thread is sending; returns these.

    What is no connection is added to ``strangers``.
    """
    busy = []
    for given in connections:
        if not isinstance(given, Connection):
            strangers.append(given)
            continue
        connection = given
        if not connection.protocol.is_open:
            continue
        if connection._writer.try_acquire(SEND) != FREE:
            busy.append(connection)
            continue
        result = write(connection, message, problems)
        if result != DONE:
            problems.append((connection, result, None))
    return busy


def write(connection: Connection, message: Message, problems: list[Any]) -> int:
    """Write to one connection without waiting. Needs its writer role, and gives it back."""
    stream = connection._stream
    protocol = connection.protocol
    complete = True
    try:
        if not protocol.is_open:
            return DONE
        if protocol.outgoing:
            return FRAGMENTED
        if stream.unsent():
            return SLOW
        complete = stream.try_write(message.frame_for(connection))
    except (
        Exception
    ) as exc:  # an extension may raise what it likes, and the others are to get the message
        connection._lost(exc)
        problems.append((connection, FAILED, exc))
    finally:
        # As _leave_writer(), which is called only if there is something to see to.
        connection._writer.release()
        if connection._due or protocol.is_closed:
            connection._left_writer()
        if not complete:
            connection._flush()  # the service sees to the backlog
    return DONE


def write_to_busy(connections: list[Connection], message: Message, problems: list[Any]) -> None:
    """Write to connections on which another thread was sending just now.

    If such a thread is stuck in a send, the network does not take bytes there: the connection is
    slow. Else it is done in a moment.
    """
    deadline = time.monotonic() + GRACE
    for connection in connections:
        result = SLOW
        while takes_bytes(connection) and time.monotonic() < deadline:
            if connection._writer.acquire(SEND, 0.005):
                result = write(connection, message, problems)
                break
        else:
            if connection._writer.try_acquire(SEND) == FREE:
                result = write(connection, message, problems)
        if result != DONE:
            problems.append((connection, result, None))


def takes_bytes(connection: Connection) -> bool:
    """Tell whether the socket would take bytes now; also True if it cannot be asked."""
    fd = connection._stream.fileno()
    if fd < 0:
        return True
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(fd, select.POLLOUT)
        return bool(poller.poll(0))
    return bool(select.select([], [fd], [], 0)[1])


def report(
    problems: list[tuple[Connection, int, BaseException | None]], slow: str, raise_exceptions: bool
) -> None:
    """Tell what went wrong, and close slow connections if that is the policy."""
    exceptions = []
    for connection, result, cause in problems:
        exc: Exception
        if result == FRAGMENTED:
            exc = ConcurrencyError("sending a fragmented message")
        elif result == SLOW:
            exc = RuntimeError("slow consumer: earlier messages have not been sent yet")
        else:
            exc = RuntimeError("failed to write message")
        exc.__cause__ = cause
        if result == SLOW and slow == "close":
            fail_slow(connection)
        if raise_exceptions:
            exceptions.append(exc)
        else:
            detail = exc if cause is None else f"{exc}: {cause}"
            connection.logger.warning("skipped broadcast: %s", detail)
    if exceptions:
        raise ExceptionGroup("skipped broadcast", exceptions)


def fail_slow(connection: Connection) -> None:
    """Close a connection that does not keep up; the Close frame comes behind what was sent."""
    with connection._changed:
        if connection.protocol.state is OPEN:
            connection.protocol.fail(CloseCode.POLICY_VIOLATION, "slow consumer")
    connection._closing()
    connection._flush()
