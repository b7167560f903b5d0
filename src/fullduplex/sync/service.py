"""The one service thread of a process: it reads and keeps alive the connections that no thread is reading.

What it does for a connection depends on who reads it:

- *armed*: nobody does. The socket is watched (one-shot); when bytes come, the service reads them.
- *ticking*: somebody did a moment ago. The service looks again after a few milliseconds, and arms the
  connection if there was no reader in between. A connection in a loop of ``recv()`` and ``send()`` costs the
  service nothing but these looks, which grow rarer the longer the loop goes on.
- *blocked*: a thread has been waiting in ``recv()`` since the last look. It is left alone; when it comes
  out, it reports (`Service.adopt`), and the connection is ticking again.

So idle connections are armed or blocked, and the service sleeps until bytes come or a timer is due.

Connections are held by weak references: one that its user dropped is freed at once. After a fork the child
makes its own service when it first needs one.
"""

from __future__ import annotations

import atexit
import contextlib
import heapq
import itertools
import os
import select
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..stream import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core import ConnectionCore

BLOCKED: Final = 0
TICKING: Final = 1
ARMED: Final = 2

FIRST_TICK: Final = 0.004
"""Seconds without a reader after which the service takes a connection over, the first time after it has
slept; while it looks at others, the next look but one does."""
LAST_TICK: Final = 0.032
"""Seconds between looks at connections that are read in a loop."""

MIN_PURGE: Final = 64
"""Timers from which on it is worth looking which of them have lost their connection."""

READ: Final = 1
WRITE: Final = 2


class EpollWatcher:
    """One-shot watches that any thread may set, by epoll itself: the sleeping service need not wake for it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()

    def arm(self, fd: int, events: int) -> None:
        """Watch a descriptor for one event; replaces an earlier watch."""
        mask = select.EPOLLONESHOT | (select.EPOLLIN if events & READ else 0)
        mask |= select.EPOLLOUT if events & WRITE else 0
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def disarm(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        with contextlib.suppress(OSError, ValueError):
            self._epoll.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events: pairs of descriptor and READ, WRITE or both."""
        writable = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP
        return [
            (fd, (READ if mask & ~select.EPOLLOUT else 0) | (WRITE if mask & writable else 0))
            for fd, mask in self._epoll.poll(timeout)
        ]

    def close(self) -> None:
        """Give the descriptor back."""
        self._epoll.close()


class SelectorWatcher:
    """The same over `selectors`, where there is no epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        # Guards the selector's map; nothing is waited for while it is held. Re-entrant.
        self._lock = threading.RLock()

    def arm(self, fd: int, events: int) -> None:
        """Watch a descriptor for one event; replaces an earlier watch."""
        mask = (selectors.EVENT_READ if events & READ else 0) | (
            selectors.EVENT_WRITE if events & WRITE else 0
        )
        # Not modify(), which does nothing if it knows this number with this mask: it may be the number of a
        # descriptor that was closed without a word, as those of connections that were dropped are.
        self.disarm(fd)
        with self._lock:
            self._selector.register(fd, mask)

    def disarm(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        with self._lock, contextlib.suppress(KeyError, OSError, ValueError):
            self._selector.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for events: pairs of descriptor and READ, WRITE or both."""
        try:
            ready = self._selector.select(timeout)
        except (OSError, ValueError):  # a descriptor was closed before or under select()
            self._drop_closed()
            return []
        found = []
        for key, mask in ready:
            self.disarm(key.fd)
            events = (READ if mask & selectors.EVENT_READ else 0) | (
                WRITE if mask & selectors.EVENT_WRITE else 0
            )
            found.append((key.fd, events))
        return found

    def _drop_closed(self) -> None:
        """Stop watching descriptors that were closed without a word: `select.select` fails for all because of one."""
        with self._lock:
            for fd in list(self._selector.get_map()):
                try:
                    select.select([fd], [], [], 0)
                except (OSError, ValueError):
                    self._selector.unregister(fd)

    def close(self) -> None:
        """Give the descriptors back."""
        self._selector.close()


def make_watcher() -> EpollWatcher | SelectorWatcher:
    """Make the watcher for this platform."""
    return EpollWatcher() if hasattr(select, "epoll") else SelectorWatcher()


class Service:
    """The service thread and what it looks after. All methods may be called by any thread."""

    def __init__(self) -> None:
        self.watcher = make_watcher()
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._bell_fd = self._bell.fileno()
        self.watched: dict[int, weakref.ref[ConnectionCore]] = {}
        self.connections: weakref.WeakSet[ConnectionCore] = weakref.WeakSet()
        self._fresh: deque[weakref.ref[ConnectionCore]] = deque()
        self._timers: list[tuple[float, int, weakref.ref[ConnectionCore]]] = []
        self._numbers = itertools.count()
        self._purge_at = MIN_PURGE
        # Guards the timers and _wake_at; nothing is waited for while it is held. Re-entrant, as the others: a signal's
        # handler may close a connection.
        self._lock = threading.RLock()
        # Guards `watched`: a descriptor is not armed for its last owner once it is given back.
        self._arming = threading.RLock()
        self._awake = False  # whether the thread will look at what was added without being woken
        self._wake_at = 0.0  # when it will wake by itself; 0 while it is awake
        self._stopping = False
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        try:
            thread = threading.Thread(target=self._run, name="fullduplex", daemon=True)
            thread.start()
        except RuntimeError:
            # A subinterpreter may forbid daemon threads; its exit then waits for ours, which `stop` ends.
            thread = threading.Thread(target=self._run, name="fullduplex", daemon=False)
            thread.start()
            threading._register_atexit(self.stop)  # type: ignore[attr-defined]
        return thread

    # For connections

    def add(self, connection: ConnectionCore) -> None:
        """Look after a new connection."""
        self.connections.add(connection)
        self.adopt(connection)

    def adopt(self, connection: ConnectionCore) -> None:
        """Begin to look whether the connection still has a reader."""
        connection._watch = TICKING
        connection._seen_reads = -1
        self._fresh.append(weakref.ref(connection))
        if not self._awake:
            self.wake()

    def arm(self, connection: ConnectionCore, events: int = READ) -> None:
        """Watch the connection's socket now."""
        with self._arming:
            fd = connection._stream.fileno()
            if fd < 0 or connection._disposed:
                return
            self.watched[fd] = weakref.ref(connection)
            try:
                self.watcher.arm(fd, events)
            except (OSError, ValueError):
                return  # closed meanwhile; whoever did that ends the connection
        if isinstance(self.watcher, SelectorWatcher):
            self.wake()

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        with self._arming:
            if self.watched.pop(fd, None) is not None:
                self.watcher.disarm(fd)

    def schedule(self, connection: ConnectionCore, when: float) -> None:
        """Call the connection's ``_on_timer`` at ``when``, on the clock of ``time.monotonic()``."""
        looked_at = None
        with self._lock:
            if len(self._timers) >= self._purge_at:
                looked_at = self._purge()
            heapq.heappush(self._timers, (when, next(self._numbers), weakref.ref(connection)))
            sleeping_past = when < self._wake_at
        if sleeping_past:
            self.wake()
        del looked_at  # not before: to free a connection may call what needs the lock

    def _purge(self) -> list[ConnectionCore]:
        """Drop the timers of connections that are gone, as most are long before a deadline. Needs the lock.

        Returns:
            The connections, which the caller has to keep until it has given the lock back.
        """
        alive = [(timer, timer[2]()) for timer in self._timers]
        self._timers = [
            timer
            for timer, connection in alive
            if connection is not None and not connection.protocol.is_closed
        ]
        heapq.heapify(self._timers)
        self._purge_at = max(MIN_PURGE, 2 * len(self._timers))
        return [connection for _, connection in alive if connection is not None]

    def wake(self) -> None:
        """Make the thread look at what changed."""
        self._awake = True
        with contextlib.suppress(BlockingIOError, OSError):
            self._alarm.send(b"\0")

    def stop(self) -> None:
        """End the thread; at the interpreter's exit."""
        self._stopping = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    # The thread

    def _run(self) -> None:
        self.watcher.arm(self._bell_fd, READ)
        ticking: dict[int, weakref.ref[ConnectionCore]] = {}
        looking = False  # there is a next look
        came = False  # connections were added since the last one
        tick = FIRST_TICK
        next_tick = 0.0
        while not self._stopping:
            self._awake = looking
            if self._fresh:
                self._awake = came = True
                if not looking:
                    looking = True
                    tick = FIRST_TICK
                    next_tick = time.monotonic() + tick
                self._take_fresh(ticking)
            with self._lock:
                due = next_tick if looking else float("inf")
                if self._timers and self._timers[0][0] < due:
                    due = self._timers[0][0]
                self._wake_at = due
            timeout = (
                None if due == float("inf") else min(max(due - time.monotonic(), 0.0), LONGEST)
            )
            events = self.watcher.wait(timeout)
            self._wake_at = 0.0
            for fd, event in events:
                self._ready(fd, event)
            now = time.monotonic()
            if looking and now >= next_tick:
                came = self._take_fresh(ticking) or came
                ticking = {key: one for key, one in ticking.items() if self._tick(one)}
                # Where connections come and go, to fall asleep between them and to be woken for each
                # would cost more than to look now and then.
                looking = bool(ticking) or came
                came = False
                tick = min(2 * tick, LAST_TICK)
                next_tick = now + tick
            self._run_timers(now)
        self.watcher.close()
        self._alarm.close()
        self._bell.close()

    def _take_fresh(self, ticking: dict[int, weakref.ref[ConnectionCore]]) -> bool:
        """Look at connections that were added from now on; False if there are none."""
        came = bool(self._fresh)
        while self._fresh:
            reference = self._fresh.popleft()
            # By the reference, of which a connection has one: it may be added while it is looked at already.
            ticking[id(reference)] = reference
        return came

    def _ready(self, fd: int, events: int) -> None:
        if fd == self._bell_fd:
            with contextlib.suppress(BlockingIOError):
                while len(self._bell.recv(4096)) == 4096:
                    pass
            self.watcher.arm(fd, READ)
            return
        reference = self.watched.get(fd)
        connection = None if reference is None else reference()
        if connection is not None:
            self._call(connection, connection._on_ready, events)

    def _call(self, connection: ConnectionCore, function: Callable[..., Any], *args: Any) -> Any:
        """Call a connection. What goes wrong there ends that connection, not the service of all."""
        try:
            return function(*args)
        except Exception as exc:
            connection._on_bug(exc)
            return None

    def _tick(self, reference: weakref.ref[ConnectionCore]) -> bool:
        """Look at a connection; True to look again at the next tick."""
        connection = reference()
        return connection is not None and bool(self._call(connection, connection._on_tick))

    def _run_timers(self, now: float) -> None:
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                reference = heapq.heappop(self._timers)[2]
            connection = reference()
            if connection is not None:
                self._call(connection, connection._on_timer, now)


_service: Service | None = None
# Guards the making of the service; held while its thread starts. Re-entrant, as the service's own are.
_starting = threading.RLock()


def get_service() -> Service:
    """Give the process's service, starting it if need be."""
    service = _service
    return service if service is not None else _make_service()


def _make_service() -> Service:
    global _service
    with _starting:
        service = _service
        if service is None:
            made = Service()
            service = _current()
            if service is None:
                service = _service = made
            else:  # a signal's handler has made one meanwhile
                made.stop()
        return service


def _current() -> Service | None:
    return _service


def _stop() -> None:
    if _service is not None:
        _service.stop()


def _after_fork() -> None:
    """In the child: connections are free of the threads that stayed behind, the service is to be made anew."""
    global _service, _starting
    _starting = threading.RLock()
    service, _service = _service, None
    if service is None:
        return
    for connection in list(service.connections):
        connection._after_fork()
    # The descriptors are copies; the parent's epoll would otherwise be changed from here.
    service.watcher.close()
    service._alarm.close()
    service._bell.close()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
