"""The machinery of a connection on threads: who reads, who writes, and how it ends.

Three things are shared, and each has one guard:

- ``_reader`` (role): the decoder, pulling from the protocol, the inbox. Held by a thread in ``recv()``, by
  ``close()``, by ``wait()``, or for a moment by the service thread. Its owner may block in a read.
- ``_writer`` (role): the encoder, compressors, the writing half of the stream. Held for whole frames. Its
  owner may block in a write. A reader never waits for it: what it has to say is queued, and whoever
  leaves the writer role sends what was queued meanwhile (``_due``).
- ``_mutex``, and ``_changed``, a condition on it: the protocol's state and its queue of control frames, the pings that
  wait for their pong. Held for moments, never across a wait for the network; its waiters wait for roles, for
  the inbox to be drained, for the end. The inbox is changed with it, since ``recv()`` may empty what a thread
  in ``close()`` fills as the reader. No role is acquired or released while it is held.
  It is re-entrant, since a signal's handler may need it. The service has no lock.

The end comes in one place, `_end`: at the end of the stream, after a network error or when a deadline cuts it.
It makes the state CLOSED, wakes everybody, and the last thread that leaves a role gives the descriptor back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..codec.interrupts import from_handler
from ..exceptions import ConcurrencyError, InvalidState
from ..frames import Opcode
from ..machine import bare
from ..roles import CLOSE, FREE, RECV, SERVICE, WAIT, Role, release_mine
from ..states import CONNECTING
from .pings import Ping
from .queueing import queue_limits
from .service import BLOCKED, TICKING, WRITE, get_service

if TYPE_CHECKING:
    from ..protocol import Protocol
    from ..stream import Stream

FIRST_CONTROL: Final = int(Opcode.CLOSE)
NOTHING: Final = -1
LARGE: Final = 16384
"""Payloads above this many bytes are not copied into one piece with their header."""
MOMENT: Final = 0.1
"""Seconds that the service thread may hold the reader role, on a machine that is busy."""
VIOLATION_GRACE: Final = 1.0
"""Seconds in which messages that came before a violation may still be answered, if nobody asks for more."""
TURN: Final = 0.002
"""Seconds after which the service goes on to the next connection, though this one's peer sends without a pause."""
MIN_INBOX_BYTES: Final = 2**20
"""How many bytes of unread messages are buffered at least before reading stops."""
BURST: Final = 64
"""From this control frame of one read on, there is one answer for all that follow (RFC 6455 §5.5.3)."""
ITEM_BYTES: Final = 128
"""What an unread frame counts beside its payload: a flood of empty ones needs memory as well."""


class ConnectionCore:
    """What `Connection` is made of; see the module."""

    def __init__(
        self,
        stream: Stream,
        protocol: Protocol,
        ping_interval: float | None,
        ping_timeout: float | None,
        close_timeout: float | None,
        max_queue: int | tuple[int | None, int | None] | None,
    ) -> None:
        self.protocol = protocol
        protocol.pulling = True
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.close_timeout = close_timeout
        self._stream = stream
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._reader = Role(self._changed)
        self._writer = Role(self._changed)
        self._due = False  # control frames, the end or a backlog wait for the writer
        # Messages read ahead: (data, bounds, frames, bytes that it counts). While a message is streamed: its fragments.
        self._inbox: deque[tuple[Any, tuple[int, ...] | None, int, int]] = deque()
        self._inbox_frames = 0
        self._inbox_bytes = 0
        self._fragments: deque[tuple[bytes, bool]] = deque()
        self._streaming = False  # a recv_streaming() has begun a message
        self._high, self._low = queue_limits(max_queue)
        limit = protocol.decoder.max_message
        self._high_bytes = MIN_INBOX_BYTES if limit is None else max(MIN_INBOX_BYTES, 2 * limit)
        self._violation: Exception | None = None  # found behind messages that were not taken yet
        self._violation_due = 0.0
        self._reads = 0  # counts leaves of the reader role, for the service
        self._seen_reads = -1  # the service's last look at it
        self._watch = TICKING
        self._pings: dict[bytes, Ping] = {}
        self._latency = 0.0
        self._progress: tuple[int, bytes] | None = None  # of sending, and since when it is that
        self._progress_since = 0.0
        self._keepalive: Ping | None = None
        self._beats: deque[bytes] | None = None  # of pings that nobody judges
        self._ping_due = 0.0
        self._close_deadline: float | None = None
        self._disposed = False
        self._large = LARGE
        self._burst = 0  # control frames that came since the last read
        self._draining = False  # somebody waits for the inbox to have room
        self._paused = False  # the inbox was full, and is not down to the low mark yet

    def _check_state(self) -> None:
        """Raise what a connection that is closed, or not open yet, has to say."""
        if self.protocol.is_closed:
            raise self.protocol.close_exc
        if self.protocol.state is CONNECTING:
            raise InvalidState("the connection is not open yet")

    # Reading. All of it needs the reader role.

    def _next(self, deadline: float | None, as_bytes: bool) -> Any:
        """Give the next message.

        Raises:
            TimeoutError: if the deadline comes first.
            ConnectionClosed: when the connection is closed and drained.
        """
        # One handler of errors for all steps: compiled, to enter one takes as long as to parse a frame.
        step = 0  # 1 while the codec is at work, 2 while the socket is; a global name is slow to look up
        protocol = self.protocol
        decoder = protocol.decoder
        until = data = None
        while True:
            try:
                while True:
                    if self._inbox_frames:
                        data = self._take_from_inbox(as_bytes)
                        if data is not None:
                            break
                    if (violation := self._violation) is not None:
                        self._fail(violation)
                    own = bool(protocol._extensions) or protocol.debug
                    # Mostly nothing is here yet.
                    while not protocol.discarding and (own or not decoder.idle()):
                        step = 1
                        if own:
                            data = protocol.pull(as_bytes)
                            opcode = protocol.opcode
                        else:  # what pull() would do, without the detour: this is the hot path
                            data = decoder.pull(as_bytes)
                            opcode = decoder.opcode
                        step = 0
                        if data is None or opcode < 8:
                            break
                        self._on_control(opcode, data)
                        data = None
                    if data is not None:
                        break
                    if not protocol.is_open:
                        self._check_state()
                    if deadline is not None:
                        # The stream looks at the clock only when it has nothing, and some peers never pause.
                        if until is None:
                            until = deadline or time.monotonic() + MOMENT
                        elif time.monotonic() >= until:
                            raise TimeoutError("timed out while waiting for a message")
                    if self._burst:
                        self._answer_burst()
                    step = 2
                    count = self._receive(deadline)
                    step = 0
                    if self._received(count) < 0:
                        raise TimeoutError("timed out while waiting for a message")
            except Exception as exc:
                if step == 1:
                    self._fail(exc)
                elif step == 2 and isinstance(exc, OSError):
                    self._end(exc)
                else:
                    raise
                step = 0
                data = None
            else:
                return data

    def _read(self, deadline: float | None) -> int:
        """Read once: NOTHING if the deadline came first. The end of the stream ends the connection."""
        if self._burst:
            self._answer_burst()
        try:
            count = self._receive(deadline)
        except OSError as exc:
            self._end(exc)
            return 0
        return self._received(count)

    def _answer_burst(self) -> None:
        """Before a read: send the one answer that is for many control frames."""
        self._burst = 0
        if self._due:
            self._flush()

    def _receive(self, deadline: float | None) -> int:
        if self.protocol.discarding:
            return self._stream.recv_into(memoryview(bytearray(1024)), deadline)  # mostly the end
        return self._stream.read(self.protocol.decoder, deadline)

    def _received(self, count: int) -> int:
        """See to what a read of ``count`` bytes tells; returns it."""
        stream = self._stream
        if count == 0:
            self._end(None)
        elif stream.farewell and stream.unsent():
            self._burst += 1  # TLS has an answer: for the next read, or who leaves the role
            self._due = True
        return count

    def _take_from_inbox(self, as_bytes: bool) -> Any:
        """Take a message; None if another thread was faster."""
        with self._mutex:
            if not self._inbox:
                return None
            data, _, frames, size = self._inbox.popleft()
            self._inbox_frames -= frames
            self._inbox_bytes -= size
        return data.encode() if as_bytes and isinstance(data, str) else data

    def _inbox_full(self) -> bool:
        """Tell whether reading ahead has to stop, from the high mark until the low mark is reached."""
        if self._inbox_bytes > self._high_bytes:
            return True
        if not self.protocol.is_open or self._stream.aborted:
            return False  # the Close frame is behind the messages
        enough = min(self._low + 1, self._high) if self._paused else self._high
        self._paused = self._inbox_frames >= enough > 0
        return self._paused

    def _read_ahead(self, deadline: float | None) -> int:
        """Fill the inbox: NOTHING if the deadline came first, 0 if the inbox is full or the stream at its end.

        A deadline of 0.0 takes what is here, but no more than comes in a `TURN`.
        """
        protocol = self.protocol
        decoder = protocol.decoder
        until = None if deadline is None else deadline or time.monotonic() + TURN
        while True:
            while not protocol.discarding and self._violation is None:
                if self._inbox_full():
                    # Nobody may ever make room then, and what is left was cut off anyway.
                    if self._stream.aborted:
                        self._end(None)
                    return 0
                if not self._pull_ahead():
                    break
            if protocol.is_closed or self._violation is not None:
                return 0
            if until is not None and time.monotonic() >= until and not self._stream.aborted:
                return NOTHING  # what is left in a stream that was cut has an end
            count = self._read(deadline)
            if count <= 0 or (
                deadline == 0.0 and decoder.pending == 0 and not self._stream.pending()
            ):
                # A socket that was emptied into a message is not read twice; a full one is, by the watch.
                if count > 0 and not protocol.discarding and self._pull_ahead():
                    continue
                return count if count <= 0 else NOTHING

    def _pull_ahead(self) -> bool:
        """Pull one message or fragment into the inbox; False if more bytes are needed."""
        protocol = self.protocol
        fragments = self._fragments
        # While the last fragments wait to be taken, what follows them is read as whole messages.
        streaming = self._streaming and not (fragments and fragments[-1][1])
        try:
            if streaming:
                fragment = protocol.pull_fragment()
                data: Any = fragment
            else:
                data = protocol.pull(False)
        except Exception as exc:
            self._on_violation(exc)
            return False
        if data is None:
            return False
        if protocol.opcode >= FIRST_CONTROL:
            self._on_control(protocol.opcode, data)
            return True
        if streaming:
            self._inbox_bytes += len(data) + ITEM_BYTES
            fragments.append((data, protocol.fin))
            return True
        decoder = protocol.decoder
        frames = decoder.frames
        size = len(data) + ITEM_BYTES * frames
        with self._mutex:
            self._inbox_bytes += size
            self._inbox_frames += frames
            self._inbox.append((data, decoder.bounds, frames, size))
        return True

    def _on_control(self, opcode: int, payload: Any) -> None:
        """Deal with a control frame that came."""
        if opcode == Opcode.PONG:
            self._on_pong(payload)
            return
        try:
            with self._mutex:
                self.protocol.receive_control(opcode, payload)
        except Exception as exc:
            self._fail(exc)
            return
        self._burst += 1
        if self._burst < BURST or opcode == Opcode.CLOSE:
            self._flush()
        else:
            self._due = True  # one answer for many: at the next read, or when the role is left
        if opcode == Opcode.CLOSE:
            if self._is_over():
                self._end(None)
            else:
                self._closing()

    def _is_over(self) -> bool:
        """Tell whether nothing can follow the peer's Close frame but the end of TCP.

        So it is on a server (§7.1.1: it ends TCP first) whose client began to close, once our answer is on its way
        and nothing came behind the client's frame: the system sees to the rest of TCP. With something unread it
        would reset the connection, and the client might lose our frame; TLS has last words of its own.
        """
        protocol = self.protocol
        return (
            protocol.eof_sent
            and protocol.close_rcvd_then_sent is True
            and protocol.parser_exc is None
            and protocol.decoder.pending == 0
            and not self._pings  # nor may a pong follow
            and not self._stream.farewell
            and not self._stream.unsent()
        )

    def _on_violation(self, exc: Exception) -> None:
        """Note an error found while reading ahead: messages before it may be taken and answered first."""
        if from_handler(exc):
            raise exc
        bare(exc)
        self._violation = exc
        self._violation_due = time.monotonic() + VIOLATION_GRACE
        get_service().schedule(self, self._violation_due)

    # Entering and leaving the roles

    def _enter_reader(self, deadline: float | None, what: str, as_bytes: bool = False) -> Any:
        """Take the reader role for a ``recv()`` that did not get it at once.

        Returns:
            None; or, without the role, a message for ``recv()`` that a thread in ``close()`` has read.

        Raises:
            ConcurrencyError: if another thread is at it.
            TimeoutError: if the deadline comes first.
        """
        late = False
        while True:
            owner = self._reader.try_acquire(RECV)
            if owner == FREE:
                return None
            if owner == CLOSE and what == "recv" and (data := self._beside(as_bytes)) is not None:
                return data
            if owner in (RECV, WAIT):
                raise ConcurrencyError(
                    f"cannot call {what} while another thread is already running recv or the like"
                )
            if self._reader.mine:
                raise ConcurrencyError(f"cannot call {what} in a signal handler within close")
            if late:
                raise TimeoutError("timed out while waiting for a message")
            # Who has no time still has the moment in which the service lets go: a message may be here.
            moment = MOMENT if owner == SERVICE else 0.001
            left = MOMENT if deadline is None else max(deadline - time.monotonic(), moment)
            # In short waits: by then the owner may be another, with whom there is nothing to wait for.
            if self._reader.acquire(RECV, min(left, MOMENT)):
                return None
            late = deadline is not None and time.monotonic() >= deadline

    def _beside(self, as_bytes: bool) -> Any:
        """Take a message while another thread, in ``close()``, is the reader; None if there is none."""
        data = None if self._streaming else self._take_from_inbox(as_bytes)
        if data is not None and self._draining:
            with self._changed:
                self._changed.notify_all()
        return data

    def _leave_reader(self) -> None:
        """Give the reader role back, and see to what waited for that."""
        self._reads += 1
        try:
            self._reader.release()
            self._left_reader()
        except BaseException:
            release_mine(self._reader)
            raise

    def _left_reader(self) -> None:
        """After the reader role: have the service look whether somebody takes it again, send what is due."""
        if self._watch == BLOCKED and not (self._paused and self._inbox_full()):
            get_service().adopt(self)
        if self._due:
            self._flush()
        if self._draining:
            with self._changed:
                self._changed.notify_all()
        if self.protocol.is_closed:
            self._dispose()

    def _leave_writer(self) -> None:
        """Give the writer role back; what was queued meanwhile goes out."""
        try:
            self._writer.release()
            self._left_writer()
        except BaseException:
            release_mine(self._writer)
            raise

    def _left_writer(self) -> None:
        """After the writer role: send what was queued meanwhile."""
        if self._due:
            self._flush()
        if self.protocol.is_closed:
            self._dispose()

    def _flush(self) -> None:
        """Send what waits for the writer, without waiting for anything; what the network does raises nothing."""
        self._due = True
        stream = self._stream
        protocol = self.protocol
        while self._due:
            if self._writer.try_acquire(SERVICE) != FREE:
                return  # its owner looks at _due when it leaves
            self._due = False
            done = True
            try:
                if not protocol.is_closed and not stream.torn:
                    # Behind a backlog frames stay queued, where a pong replaces an older one, so floods cost no memory.
                    done = not stream.unsent() or stream.flush(0.0)
                    if done and protocol.control:
                        # At once in the backlog, for whoever flushes it if a signal's handler raises here.
                        with self._mutex:
                            stream.backlog = protocol.take_control()
                        done = stream.flush(0.0)
                    # In this order: the Close frame is queued before the end is wanted.
                    more = protocol.control or protocol.eof_sent
                    if done and protocol.end_wanted and not more:
                        protocol.eof_sent = True
                        stream.shutdown_write()
            except OSError as exc:
                self._lost(exc)
            except BaseException:
                self._due = True  # for who leaves a role next
                if stream.torn:
                    why = ConnectionAbortedError("sending was interrupted in the midst of a frame")
                    self._lost(why)
                raise
            finally:
                try:
                    self._writer.release()
                except BaseException:
                    release_mine(self._writer)
                    raise
            if not done:
                # The network takes no more now: the service goes on when it does, or who leaves a role next.
                get_service().arm(self, WRITE)
                self._due = True
                break
        if protocol.is_closed:
            self._dispose()

    def _lost(self, exc: BaseException) -> None:
        """The network failed under a writer: the reader finds the end, whoever it is."""
        bare(exc)
        with self._mutex:
            if self.protocol.parser_exc is None:
                self.protocol.parser_exc = exc  # type: ignore[assignment]
        # What came before the failure can still be read; nothing more can be sent.
        self._begin_end()

    # What `keepalive` adds

    def _on_ready(self, events: int) -> None:
        raise NotImplementedError  # `keepalive` brings it and the next ones

    def _on_tick(self) -> bool:
        raise NotImplementedError

    def _on_timer(self, now: float) -> None:
        raise NotImplementedError

    def _on_bug(self, exc: Exception) -> None:
        raise NotImplementedError

    def _after_fork(self) -> None:
        raise NotImplementedError

    def _on_pong(self, payload: bytes) -> None:
        raise NotImplementedError

    # Ending

    def _fail(self, exc: Exception) -> None:
        """Fail the connection for an error in what came (RFC 6455 §7.1.7)."""
        if from_handler(exc):
            raise exc
        self._violation = None
        with self._mutex:
            self.protocol.fail_for(exc)
        self._closing()
        self._flush()

    def _closing(self) -> None:
        """The connection has left OPEN: bound the time until its end."""
        if self._bound_closing():
            self._watch_closing()

    def _bound_closing(self) -> bool:
        """Set the deadline of closing; False if there is one already, or none at all.

        Who gets True enforces it: by `_watch_closing`, or by waiting in `_await_end`.
        """
        timeout = self.close_timeout
        if timeout is None or self._close_deadline is not None:
            return False
        self._close_deadline = time.monotonic() + timeout
        return True

    def _watch_closing(self) -> None:
        """Have the service enforce the deadline of closing."""
        get_service().schedule(self, self._close_deadline)  # type: ignore[arg-type]

    def _begin_end(self) -> None:
        """Cut the stream, which wakes reader and writer, and see that somebody reads the end."""
        self._stream.abort()
        if self._reader.try_acquire(SERVICE) != FREE:
            return  # the reader finds the end
        try:
            try:
                self._read_ahead(0.0)
            finally:
                self._end(None)
        finally:
            self._reader.release()
            self._dispose()

    def _end(self, exc: BaseException | None) -> None:
        """The stream is at its end: be CLOSED, and wake who waits for that. Needs the reader role."""
        if exc is not None and from_handler(exc):
            raise exc
        protocol = self.protocol
        with self._mutex:
            if protocol.is_closed:
                return
            if exc is not None and protocol.parser_exc is None:
                bare(exc)
                protocol.parser_exc = exc  # type: ignore[assignment]
            protocol.receive_eof()
        try:
            self._tell_end()
        except BaseException:  # a signal's handler
            self._tell_end()
            raise
        # Wakes a writer. Nobody becomes one now: if there is none, `_dispose` soon ends TCP as well.
        if exc is not None or self._writer.owner != FREE:
            self._stream.abort()

    def _tell_end(self) -> None:
        """Wake who waits for the end."""
        with self._mutex:
            self._changed.notify_all()
            for ping in self._pings.values():
                if ping.ack_on_close:
                    ping.event.set()
            self._pings.clear()

    def _dispose(self) -> None:
        """Give the descriptor back, if nobody is in a role; else the last who leaves does it."""
        while not self._disposed and self._reader.try_acquire(SERVICE) == FREE:
            writing = False
            try:
                writing = self._writer.try_acquire(SERVICE) == FREE
                if writing and not self._disposed:
                    self._disposed = True
                    get_service().forget(self._stream.fileno())
                    self._stream.close()
                if writing:
                    self._writer.release()
                self._reader.release()
            except BaseException:
                if writing:
                    release_mine(self._writer)
                release_mine(self._reader)
                raise
            if self._writer.owner != FREE:
                return  # the writer comes here when it leaves
            # It left while we were the reader, and so found the connection in use: look again.
