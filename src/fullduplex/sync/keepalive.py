"""What a connection does when a time has come: keepalive pings, deadlines, and waiting for the end until then.

And what happens once in a while: a bug in a call of the service, a fork.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import deque
from typing import Any, Final

from ..conditions import wait_for_change
from ..exceptions import ConcurrencyError
from ..frames import CloseCode, Opcode
from ..roles import CLOSE, FREE, SERVICE, release_mine
from ..states import CONNECTING
from . import core
from .pings import Ping, new_payload
from .service import ARMED, BLOCKED, READ, TICKING, WRITE, get_service

MAX_BEATS: Final = 16
"""Keepalive pings whose pongs are looked for, if there is no limit for their time."""


class TimedConnection(core.ConnectionCore):
    """The part of `Connection` that the service calls."""

    def _on_ready(self, events: int) -> None:
        """The socket has bytes, or takes them again."""
        if events & WRITE:
            self._flush()
        if events & READ:
            self._serve()
        elif self._watch == ARMED:
            self._arm()

    def _arm(self) -> None:
        """Be watched: for bytes, and for room if something waits to be sent."""
        self._watch = ARMED
        try:
            get_service().arm(self, READ | WRITE if self._stream.unsent() else READ)
        except BaseException:  # a signal's handler: whoever looks next has it watched
            self._watch = BLOCKED
            raise

    def _serve(self) -> None:
        """Read what there is, if nobody else does, and watch for more."""
        if self._reader.try_acquire(SERVICE) != FREE:
            get_service().adopt(self)
            if self._stream.unsent():
                get_service().arm(self, WRITE)
            return
        more = 0
        reads = self._reads
        try:
            more = self._read_ahead(0.0)
        finally:
            try:
                self._reader.release()
            except BaseException:
                release_mine(self._reader)
                raise
        if self._due:
            self._flush()
        if self.protocol.is_closed:
            self._dispose()
        elif more == core.NOTHING and self._stream.pending():
            get_service().adopt(self)  # its turn is over; no watch sees what TLS holds in memory
        elif more == core.NOTHING:
            self._arm()
        else:
            self._watch = BLOCKED  # until somebody takes messages out
            # Who did so before did not know to report. The owner first, which orders this behind the line above.
            if self._reader.owner != FREE or self._reads != reads:
                get_service().adopt(self)

    def _on_tick(self) -> bool:
        """Look whether somebody reads; False when there is nothing to look at any more."""
        if self.protocol.is_closed or self._watch != TICKING:
            return False
        reads = self._reads
        moved, self._seen_reads = reads != self._seen_reads, reads
        if moved:
            return True
        if self._reader.owner == FREE:
            self._serve()
            return self._watch == TICKING and not self.protocol.is_closed
        self._watch = BLOCKED
        if self._reads == reads and self._reader.owner != FREE:
            return False
        self._watch = TICKING  # it left before it could see that it has to report
        return True

    def _on_timer(self, now: float) -> None:
        """A time has come: keepalive, the end of a grace, or the deadline of closing."""
        if self.protocol.is_closed:
            return
        deadline = self._close_deadline
        if deadline is not None:
            if now >= deadline:
                self._cut()
            return
        violation = self._violation
        if violation is not None and now >= self._violation_due:
            if not self._inbox:
                self._fail_late(violation)
                return
            self._violation_due = now + core.VIOLATION_GRACE
            get_service().schedule(self, self._violation_due)
        if self._ping_due and now >= self._ping_due:
            self._keep_alive(now)

    def _cut(self) -> None:
        """The deadline of closing has come: end the connection as it is."""
        with self._mutex:
            if self.protocol.parser_exc is None and not self.protocol.is_closed:
                self.protocol.parser_exc = TimeoutError("timed out while closing connection")
        self._begin_end()

    def _fail_late(self, violation: Exception) -> None:
        """Fail for what was found while reading ahead; nobody asked for it in time."""
        self._fail(violation)
        if self._watch == BLOCKED:
            get_service().adopt(self)  # to find the end

    def start_keepalive(self) -> None:
        """Begin to send pings; once, after the opening handshake."""
        if self.ping_interval is not None:
            self._plan_ping(time.monotonic() + self.ping_interval)

    def _keep_alive(self, now: float) -> None:
        """Send a ping, or judge the last one."""
        interval, timeout = self.ping_interval, self.ping_timeout
        if not self.protocol.is_open or interval is None:
            return
        ping, self._keepalive = self._keepalive, None
        if ping is None or ping.event.is_set():
            if ping is not None and now < ping.sent + interval - self._latency:
                self._plan_ping(ping.sent + interval - self._latency)
            elif timeout is None:
                self._send_beat()
                self._plan_ping(now + interval)
            else:
                self._keepalive = self._send_ping(new_payload(), False)
                self._plan_ping(now + min(interval, timeout))
        elif now < ping.sent + (timeout or 0.0) or self._excused(ping, now):
            self._keepalive = ping
            # A pong that is late by a moment must not put off the next ping until the time-out.
            due = min(ping.sent + (timeout or 0.0), now + interval)
            self._plan_ping(max(due, now + 0.1))
        elif (
            violation := self._violation
        ) is not None:  # behind which nothing is read, no pong either
            self._fail_late(violation)
        else:
            if self.protocol.debug:
                self.protocol.logger.debug("- timed out waiting for keepalive pong")
            with self._mutex:
                self.protocol.fail_peer(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
                if self.protocol.parser_exc is None:
                    self.protocol.parser_exc = TimeoutError("timed out while waiting for a pong")
            self._flush()
            self._begin_end()

    def _send_beat(self) -> None:
        """Send a ping that nobody judges; of those without an answer only the last ones are remembered."""
        payload = new_payload()
        beats = self._beats
        if beats is None:
            beats = self._beats = deque()
        beats.append(payload)
        if len(beats) > MAX_BEATS:
            with self._mutex:
                self._pings.pop(beats.popleft(), None)
        self._send_ping(payload, False)

    def _on_pong(self, payload: bytes) -> None:
        """Acknowledge the ping with this payload and those before it (RFC 6455 §5.5.3)."""
        acknowledged = []
        with self._mutex:
            if payload not in self._pings:
                return  # unsolicited, or for a ping that was acknowledged already
            for key, ping in list(self._pings.items()):
                del self._pings[key]
                acknowledged.append(ping)
                if key == payload:
                    self._latency = time.monotonic() - ping.sent
                    break
        for ping in acknowledged:
            ping.event.set()
        if self.protocol.debug:
            self.protocol.logger.debug("= pong after %.1f ms", 1000 * self._latency)

    def _excused(self, ping: Ping, now: float) -> bool:
        """Tell whether a pong that is late is so for what is not the peer's fault.

        The ping may wait behind a large frame; or we do not read, since the application does not, and the pong lies in
        the socket. Neither counts while the peer takes nothing of what is being sent.
        """
        with self._mutex:
            queued = any(opcode == Opcode.PING for opcode, _, _ in self.protocol.control)
        if self._stream.aborted or (not queued and not self._inbox_full()):
            return False
        busy = self._writer.owner != FREE or self._stream.unsent()
        progress = (self.protocol.encoder.frames_sent, acknowledged(self._stream.sock))
        if not busy or progress != self._progress:
            self._progress, self._progress_since = progress, now
            if queued:
                ping.sent = now  # its time begins when it goes out
            return True
        return now < self._progress_since + (self.ping_timeout or 0.0)

    def _plan_ping(self, when: float) -> None:
        self._ping_due = when
        get_service().schedule(self, when)

    def _send_ping(self, payload: bytes, ack_on_close: bool) -> Ping | None:
        """Queue a ping, send it unless somebody is writing, and see that its pong will be read.

        Returns:
            None if the connection is not open any more.

        Raises:
            ConcurrencyError: if a ping with this payload waits for its pong.
        """
        ping = Ping(ack_on_close)
        with self._mutex:
            if not self.protocol.is_open:
                return None
            if payload in self._pings:
                raise ConcurrencyError("already waiting for a pong with the same data")
            self.protocol.queue_control(Opcode.PING, payload)
            self._pings[payload] = ping
        self._flush()
        if self._reader.owner == FREE and self._watch != ARMED:
            self._serve()
        return ping

    def _await_end(self, until: float | None = None) -> None:
        """Wait until the connection is CLOSED, reading if nobody else does; bounded by the closing deadline.

        Raises:
            TimeoutError: when ``until`` comes first.
            ConcurrencyError: in a signal's handler that has interrupted this thread while it was reading.
        """
        protocol = self.protocol
        if protocol.state is CONNECTING:
            self._check_state()
        if not protocol.is_closed and self._reader.mine:
            raise ConcurrencyError(
                "cannot wait for the end of a connection in the midst of its recv"
            )
        while not protocol.is_closed:
            now = time.monotonic()
            deadline = self._close_deadline
            if deadline is not None and now >= deadline:
                self._cut()
                self._await_cut()
                return
            if until is not None:
                if now >= until:
                    raise TimeoutError("timed out while the connection was being closed")
                deadline = until if deadline is None else min(until, deadline)
            left = None if deadline is None else deadline - now
            if not self._reader.acquire(CLOSE, left):
                continue
            full = False
            try:
                if not protocol.is_closed:
                    if (violation := self._violation) is not None:
                        self._fail(violation)
                    self._read_ahead(deadline)
                    full = self._inbox_full()
            finally:
                self._leave_reader()
            if full and not self.protocol.is_closed:
                self._await_drain(deadline)

    def _await_drain(self, deadline: float | None) -> None:
        """Unread messages fill the inbox, and the end is behind them: wait until somebody reads."""
        with self._changed:
            self._draining = True
            while self._inbox_full() and not self.protocol.is_closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                wait_for_change(self._changed, left)
            self._draining = False

    def _await_cut(self) -> None:
        """After a cut, wait for the reader to wake, and see that the connection is ended."""
        self._reader.acquire(CLOSE)
        try:
            self._end(None)
        finally:
            self._leave_reader()

    # Exceptions of the rule

    def _on_bug(self, exc: Exception) -> None:
        """Something raised in the service thread what it must not: a socket-like object, a logger, we."""
        try:
            self.protocol.logger.error("unexpected error; connection is ended", exc_info=exc)
        except Exception:
            pass  # then nobody can be told
        try:
            self._lost(exc)
        except Exception:
            self._watch = BLOCKED

    def _after_fork(self) -> None:
        """In a forked child: be free of the threads that exist in the parent only."""
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._reader.reset(self._changed)
        self._writer.reset(self._changed)
        self._stream.after_fork()
        self.protocol.decoder.after_fork()
        self._watch = BLOCKED


def acknowledged(sock: Any) -> bytes:
    """Give what tells how many bytes a TCP peer has taken; always the same where the system does not say."""
    if not sys.platform.startswith("linux"):
        return b""
    try:
        # tcpi_bytes_acked of struct tcp_info
        return bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)[120:])
    except (OSError, AttributeError, TypeError):
        return b""
