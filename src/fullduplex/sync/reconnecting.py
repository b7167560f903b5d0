"""Connecting again and again: back-off, and who may stop it.

Delays grow by a factor, and each is drawn at random, so that the clients of a server that comes
back do not all come back at once (RFC 6455 §7.2.3). They are counted from one success to the next.
A connection that breaks before it brought a single message, or that the server ends within a second
of its opening, is no success: otherwise a server that accepts everybody and drops everybody, perhaps
with a word of explanation, would be asked as fast as it can drop.

Environment variables, read at import, in seconds where they are times:

===================================  =======  ===================================================
variable                             default
===================================  =======  ===================================================
``FULLDUPLEX_BACKOFF_INITIAL_DELAY``  5        the first delay is between 0 and this
``FULLDUPLEX_BACKOFF_MIN_DELAY``      3.1      the second delay is between this and FACTOR times it
``FULLDUPLEX_BACKOFF_FACTOR``         1.618    how the bounds grow from one delay to the next
``FULLDUPLEX_BACKOFF_MAX_DELAY``      90       no delay is longer
===================================  =======  ===================================================
"""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from ..environment import read_number
from ..frames import Close, CloseCode
from .closing import close_all, close_dropped
from .dialing import Cancel

if TYPE_CHECKING:
    from types import TracebackType

    from .opening import Opener

__all__ = ["Reconnecting", "backoff"]


INITIAL_DELAY: Final = read_number("FULLDUPLEX_BACKOFF_INITIAL_DELAY", 5.0, 0.0)
MIN_DELAY: Final = read_number("FULLDUPLEX_BACKOFF_MIN_DELAY", 3.1, 0.0)
FACTOR: Final = read_number("FULLDUPLEX_BACKOFF_FACTOR", 1.618, 1.0)
MAX_DELAY: Final = read_number("FULLDUPLEX_BACKOFF_MAX_DELAY", 90.0, 0.0)

# How a connection ends that the server dropped, or did not want at the moment.
_DROPPED: Final = frozenset([CloseCode.ABNORMAL_CLOSURE, CloseCode.TRY_AGAIN_LATER])

SHORT: Final = 1.0
"""Seconds within which a connection that the server ends is no success."""


def backoff(
    initial_delay: float = INITIAL_DELAY,
    min_delay: float = MIN_DELAY,
    factor: float = FACTOR,
    max_delay: float = MAX_DELAY,
) -> Iterator[float]:
    """Give delays without end, in seconds, each at random between bounds that grow.

    Args:
        initial_delay: upper bound of the first delay, whose lower bound is 0.
        min_delay: lower bound of the second delay.
        factor: the upper bound of each delay by its lower bound; that is the next one's lower
            bound.
        max_delay: upper bound of all delays.
    """
    yield random.uniform(0.0, min(initial_delay, max_delay))
    low = min(min_delay, max_delay)
    while True:
        high = min(low * factor, max_delay)
        yield random.uniform(low, high)
        if high < max_delay:
            low = high


class Reconnecting:
    """What ``reconnect`` is made of: a context manager for one connection, an iterator over many.

    Args:
        opener: opens the connections.
        process_exception: judges what went wrong: None to try again, else what to raise.
        reconnect_delays: called at the first failure in a row, for the delays in seconds.
    """

    def __init__(
        self,
        opener: Opener,
        process_exception: Callable[[Exception], Exception | None],
        reconnect_delays: Callable[[], Iterable[float]],
    ) -> None:
        self._opener = opener
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._logger = opener.logger or logging.getLogger("fullduplex.client")
        self._stopped = threading.Event()
        # Guards the sets below; never held while waiting. Re-entrant, for `stop` in a signal's handler.
        self._lock = threading.RLock()
        self._attempts: set[Cancel] = set()
        self._connections: set[Any] = set()
        self._entered: list[tuple[int, Any]] = []  # with the thread that entered

    # One connection

    def __enter__(self) -> Any:
        connection = self._open()
        with self._lock:
            self._entered.append((threading.get_ident(), connection))
        return connection

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection = self._leave()
        try:
            connection.__exit__(exc_type, exc_value, traceback)
        finally:
            self._forget(connection)

    def _leave(self) -> Any:
        """Give the connection that the calling thread entered last; else the last one of all."""
        thread = threading.get_ident()
        with self._lock:
            own = [index for index, (who, _) in enumerate(self._entered) if who == thread]
            return self._entered.pop(own[-1] if own else -1)[1]

    def _open(self) -> Any:
        """Open a connection that `stop` knows of."""
        cancel = Cancel()
        with self._lock:
            if self._stopped.is_set():
                raise ConnectionAbortedError("reconnecting was stopped")
            self._attempts.add(cancel)
        try:
            connection = self._opener.open(cancel)
        except Exception as exc:
            if self._stopped.is_set():
                raise ConnectionAbortedError("reconnecting was stopped") from exc
            raise
        finally:
            with self._lock:
                self._attempts.discard(cancel)
        with self._lock:
            self._connections.add(connection)
        if self._stopped.is_set():
            connection.close(CloseCode.GOING_AWAY)
        return connection

    def _forget(self, connection: Any) -> None:
        with self._lock:
            self._connections.discard(connection)

    # Many connections

    def __iter__(self) -> Iterator[Any]:
        if self._opener.sock is not None:
            raise ValueError("cannot reconnect with a preexisting socket")
        return self._connect_for_ever()

    def _connect_for_ever(self) -> Iterator[Any]:
        delays: Iterator[float] | None = None
        while not self._stopped.is_set():
            try:
                connection = self._open()
            except Exception as exc:
                if self._stopped.is_set():
                    return
                self._judge(exc)
                reason = "".join(traceback.format_exception_only(exc)).partition("\n")[0]
                delays, delay = self._next_delay(delays)
                if delay is None:
                    raise
            else:
                opened = time.monotonic()
                try:
                    yield connection
                finally:
                    close_dropped(connection)  # an iterator may be dropped, too
                    self._forget(connection)
                reason = why_no_success(connection, time.monotonic() - opened)
                if not reason:
                    delays = None
                    continue
                delays, delay = self._next_delay(delays)
                if delay is None:
                    return
            self._logger.info("connecting again in %.1f seconds: %s", delay, reason)
            self._stopped.wait(min(delay, threading.TIMEOUT_MAX))

    def _next_delay(self, delays: Iterator[float] | None) -> tuple[Iterator[float], float | None]:
        """Give the series of delays, a new one if there is none, and its next one; None at its end."""
        if delays is None:
            delays = iter(self._reconnect_delays())
        return delays, next(delays, None)

    def _judge(self, exc: Exception) -> None:
        """Raise what ends the iteration, if the exception does."""
        verdict = self._process_exception(exc)
        if verdict is exc:
            raise exc
        if verdict is not None:
            raise verdict from exc

    # Stopping

    def stop(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Stop connecting, for good; from any thread, as often as one likes.

        A thread that waits for the next attempt, or is in the midst of one, is woken, and iteration
        ends. The open connections are closed, all at once, so that the threads which use them come to
        the end of their work.

        Args:
            code: close code for the open connections.
            reason: close reason for them.

        Raises:
            ProtocolError: for a code that may not be sent or a reason that is too long; nothing has
                been stopped then.
        """
        close = Close(code, reason)
        close.check()
        self._stopped.set()
        with self._lock:
            attempts, connections = list(self._attempts), list(self._connections)
        for attempt in attempts:
            attempt.cancel()
        close_all(connections, close)


def why_no_success(connection: Any, lifetime: float) -> str:
    """Tell why a closed connection that lasted so many seconds was no success; "" if it was one."""
    protocol = connection.protocol
    failed = protocol.peer_failed
    if protocol.close_sent is not None and not protocol.close_rcvd_then_sent and not failed:
        return ""  # we ended it
    silent = not connection.counters["messages_received"]
    if silent and (failed or connection.close_code in _DROPPED):
        return "the connection failed before it brought a message"
    return "the server ended the connection at once" if lifetime < SHORT else ""
