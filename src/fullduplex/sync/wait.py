"""Waiting for several connections in one thread.

For the time of the call, this thread is the reader of all of them (`roles.WAIT`). It reads ahead
what there is, answering pings on the way, and polls the descriptors of those that have nothing to
give. So what TLS holds decrypted in memory counts like bytes in the socket, and half a message does
not look like a whole one.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from ..exceptions import ConcurrencyError
from ..protocol import State
from ..roles import CLOSE, FREE, RECV, WAIT
from ..stream import LONGEST, WAIT_SLICE
from .checks import check_several
from .connection import Connection

__all__ = ["wait"]

C = TypeVar("C", bound=Connection)

CLOSED: Final = State.CLOSED

CLOSER_SLICE: Final = 0.02
"""Seconds between looks at connections that another thread is closing."""


def wait(connections: Iterable[C], timeout: float | None = None) -> list[C]:
    """Wait until a connection is ready, as `multiprocessing.connection.wait` does for its own.

    A connection is ready when `Connection.recv` would not wait: a message is here, or it is closed,
    or has failed. While `Connection.recv_streaming` is in the midst of a message, it is ready when
    the next fragment is here. Other threads may send on the connections meanwhile, and
    may close them, which makes them ready.

    Args:
        connections: those to wait for; one that is listed twice counts once.
        timeout: seconds to wait; None waits until one is ready; 0 or less only looks.

    Returns:
        Those that are ready, in the order given. Empty if there is none in time, or none to wait
        for.

    Raises:
        ConcurrencyError: if another thread is receiving on one of them, or waiting for it.
        TypeError: for a single connection in place of several.
        ValueError: if the socket of one of them has no file descriptor.
    """
    check_several(connections)
    deadline = None if timeout is None else time.monotonic() + max(timeout, 0.0)
    waiter = _Waiter(list(dict.fromkeys(connections)))
    try:
        try:
            return waiter.run(deadline)
        finally:
            waiter.leave()
    finally:
        waiter.leave()  # again, in case a signal's handler raised before the first one had begun


class _Waiter:
    """One call of `wait`: whose reader it is, and what is polled."""

    def __init__(self, connections: list[Any]) -> None:
        self._connections = connections
        self._outside = list(connections)  # those whose reader we are not (yet)
        self._held: list[Any] = []  # the others, and one that is about to be entered or left
        self._by_fd: dict[int, Any] = {}
        # Looked up here, so that patched modules are honoured; there is no poll() on Windows.
        self._poller: Any = select.poll() if hasattr(select, "poll") else None

    def run(self, deadline: float | None) -> list[Any]:
        """Enter, look, and wait until something is ready or the deadline has come."""
        changed = self._enter()
        ready = {
            connection
            for connection in self._connections
            if look(connection, connection in changed)
        }
        while not ready and self._connections:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            changed = self._poll(left) | self._enter()
            for connection in changed.union(self._outside):
                if look(connection, connection in changed):
                    ready.add(connection)
        return [connection for connection in self._connections if connection in ready]

    def _enter(self) -> set[Any]:
        """Become the reader wherever that is possible now; gives those where it is new."""
        entered = set()
        for connection in list(self._outside):
            if connection.protocol.state is CLOSED or interrupted(connection):
                continue
            # First, so that the role is given back if a signal's handler raises when it is just taken.
            self._held.append(connection)
            if not enter(connection):
                self._held.pop()
                continue
            self._outside.remove(connection)
            entered.add(connection)
            fd = connection._stream.fileno()
            if fd < 0 and connection.protocol.state is not CLOSED:
                raise ValueError(f"the socket of {connection!r} has no file descriptor")
            self._by_fd[fd] = connection
            if self._poller is not None and fd >= 0:
                self._poller.register(fd, select.POLLIN)
        return entered

    def _poll(self, left: float | None) -> set[Any]:
        """Wait for bytes once; gives the connections to look at."""
        if self._outside:
            left = CLOSER_SLICE if left is None else min(left, CLOSER_SLICE)
        # Those whose turn was over before all was read that TLS holds in memory, where no poll sees it.
        more = {connection for connection in self._held if connection._stream.pending()}
        if more:
            left = 0.0
        sliced = WAIT_SLICE is not None and (left is None or left > WAIT_SLICE)
        if sliced:
            left = WAIT_SLICE
        elif left is not None:
            left = min(left, LONGEST)
        if self._poller is not None:
            fds = [fd for fd, _ in self._poller.poll(None if left is None else 1000 * left)]
        elif self._by_fd:
            fds = select.select(list(self._by_fd), [], [], left)[0]
        else:
            time.sleep(CLOSER_SLICE)  # select() on Windows wants one socket at least
            fds = []
        if sliced and not fds:
            return set(self._held)  # one may have been cut without a sign of it
        return more.union(self._by_fd[fd] for fd in fds)

    def leave(self) -> None:
        """Be nobody's reader any more."""
        try:
            while self._held:
                connection = self._held[-1]
                if connection._reader.mine:
                    connection._leave_reader()
                    self._held.pop()
                else:  # a signal's handler raised when the role was not taken yet, or given back already
                    self._held.pop()
                    connection._left_reader()
        finally:
            if self._held:  # a handler raised: still it is the turn of the others
                self.leave()


def interrupted(connection: Any) -> bool:
    """Tell whether we are in a signal's handler that has interrupted this connection's close().

    Raises:
        ConcurrencyError: if it has interrupted something else that reads, and cannot end before us.
    """
    if not connection._reader.mine:
        return False
    if connection._reader.owner != CLOSE:
        raise ConcurrencyError("cannot call wait in a signal handler within recv or the like")
    return True


def enter(connection: Any) -> bool:
    """Become the connection's reader; False while another thread is closing it.

    Raises:
        ConcurrencyError: if another thread is receiving.
    """
    while (owner := connection._reader.try_acquire(WAIT)) != FREE:
        if owner in (RECV, WAIT):
            raise ConcurrencyError(
                "cannot call wait while another thread is already running recv or the like"
            )
        if owner == CLOSE:
            return False  # it may take a while
        if connection._reader.acquire(WAIT, CLOSER_SLICE):  # the service thread lets go in a moment
            return True
    return True


def look(connection: Any, read: bool) -> bool:
    """Tell whether a connection is ready, after reading what there is if we are its reader."""
    if read and not (connection._inbox or connection._fragments):
        connection._read_ahead(0.0)
        if connection._due:  # the last answer to a burst of pings
            connection._flush()
    return bool(
        connection._inbox
        or connection._fragments
        or connection._violation is not None
        or connection.protocol.state is CLOSED
    )
