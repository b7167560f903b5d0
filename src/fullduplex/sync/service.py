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

There is no lock here. A signal's handler may interrupt a thread in any of these methods, and wait in ``close()`` or
``shutdown()`` for others, which may be in them as well. So what other threads want is handed over in queues, of which
each call is atomic, and the thread alone touches timers and watches.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import heapq
import itertools
import logging
import os
import select
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..codec.interrupts import from_handler
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
PAUSE: Final = 0.05
"""Seconds of rest after a failure of the service's own, as for want of memory."""
QUIET_TIME: Final = 60.0
"""Seconds between two lines in the log about those."""
NEVER: Final = float("inf")

READ: Final = 1
WRITE: Final = 2

logger = logging.getLogger("fullduplex")

# Among equal times the one that was set first comes first.
_numbers = itertools.count()

if TYPE_CHECKING:
    Timer = tuple[float, int, Callable[[], ConnectionCore | None]]


class EpollWatcher:
    """One-shot watches by epoll itself."""

    shared: Final = True
    """Whether any thread may drop a watch."""

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

    shared: Final = False

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def arm(self, fd: int, events: int) -> None:
        """Watch a descriptor for one event; replaces an earlier watch."""
        mask = (selectors.EVENT_READ if events & READ else 0) | (
            selectors.EVENT_WRITE if events & WRITE else 0
        )
        # Not modify(), which does nothing if it knows this number with this mask: it may be the number of a
        # descriptor that was closed without a word, as those of connections that were dropped are.
        self.disarm(fd)
        self._selector.register(fd, mask)

    def disarm(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        with contextlib.suppress(KeyError, OSError, ValueError):
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
    """The service thread and what it looks after. All public methods may be called by any thread.

    Attributes:
        ended: the thread has died, and not because it was told to stop.
    """

    def __init__(self) -> None:
        self.watcher = make_watcher()
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)
        self._bell_fd = self._bell.fileno()
        self.watched: dict[int, weakref.ref[ConnectionCore]] = {}
        self.connections: weakref.WeakSet[ConnectionCore] = weakref.WeakSet()
        self.ended = False
        # What is handed over: connections to look at; watches, as events of a connection, or None and the descriptor to
        # forget; timers.
        self._fresh: deque[weakref.ref[ConnectionCore]] = deque()
        self._asked: deque[tuple[weakref.ref[ConnectionCore] | None, int]] = deque()
        self._planned: deque[Timer] = deque()
        self._awake = False  # whether the thread will look at what was added without being woken
        self._wake_at = 0.0  # when it will wake by itself; 0 while it is awake
        self._stopping = False
        # The rest is the thread's own.
        self._timers: list[Timer] = []
        self._purge_at = MIN_PURGE
        self._ticking: dict[int, weakref.ref[ConnectionCore]] = {}
        self._unwatched: dict[
            int, tuple[weakref.ref[ConnectionCore], int]
        ] = {}  # to be tried again
        self._looking = False  # there is a next look
        self._came = False  # connections were added since the last one
        self._period = FIRST_TICK
        self._next_tick = 0.0
        self._stumbled = True  # what is watched has to be set up, at first or again
        self._complained = -QUIET_TIME
        self._ident = 0
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
        reference = weakref.ref(connection)
        connection._watch = TICKING
        try:
            connection._seen_reads = -1
            self._fresh.append(reference)
            if not self._awake:
                self.wake()
        except BaseException:  # a signal's handler; to be added twice does no harm
            self._fresh.append(reference)
            self.wake()
            raise

    def arm(self, connection: ConnectionCore, events: int = READ) -> None:
        """Watch the connection's socket now."""
        if self.is_current():
            self._watch_socket(connection, events)
        else:
            self._hand_over(self._asked, (weakref.ref(connection), events), 0.0)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor, before it is closed. Its connection is disposed of already."""
        if self.watched.pop(fd, None) is None:
            return  # or just about to be watched: then `_watch_socket` finds that it must not be
        if self.watcher.shared or self.is_current():
            self.watcher.disarm(fd)
        else:
            self._hand_over(self._asked, (None, fd), 0.0)

    def schedule(self, connection: ConnectionCore, when: float) -> None:
        """Call the connection's ``_on_timer`` at ``when``, on the clock of ``time.monotonic()``."""
        self._hand_over(self._planned, (when, next(_numbers), weakref.ref(connection)), when)

    def keep(self, connection: ConnectionCore, when: float) -> None:
        """Keep a connection that nobody else refers to alive until ``when``, or until some time after its end."""
        self._hand_over(self._planned, (when, next(_numbers), lambda: connection), when)

    def succeed(self, dead: Service) -> None:
        """Look after the connections of a service that has died."""
        self.connections.update(members(dead.connections))
        self._planned.extend([*dead._timers, *dead._planned])
        self._stumbled = True
        self.wake()

    def is_current(self) -> bool:
        """Tell whether this is called in the service thread, which must not wait for anything."""
        return threading.get_ident() == self._ident

    def _hand_over(self, queue: deque[Any], item: Any, when: float) -> None:
        """Put something into a queue, and see that the thread looks there by ``when``."""
        try:
            queue.append(item)
            # It first says when it will wake, and looks into the queues then.
            if when < self._wake_at or (len(queue) >= MIN_PURGE and not self._awake):
                self.wake()
        except BaseException:  # a signal's handler; what is there twice does no harm
            queue.append(item)
            self.wake()
            raise

    def wake(self) -> None:
        """Make the thread look at what changed."""
        self._awake = True
        try:
            ring(self._alarm)
        except BaseException:  # a signal's handler, perhaps before; and others rely on _awake
            ring(self._alarm)
            raise

    def stop(self) -> None:
        """End the thread; at the interpreter's exit."""
        self._stopping = True
        self.wake()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)

    # The thread

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while not self._stopping:
                try:
                    self._turn()
                except Exception as exc:
                    self._stumble(exc)
        finally:
            self.ended = not self._stopping
            self.watcher.close()
            self._alarm.close()
            self._bell.close()
            if self.ended and _current() is self:
                get_service()

    def _turn(self) -> None:
        """Take what was handed over, wait, and see to those whose bytes or time have come."""
        if self._stumbled:
            self._set_up()
        self._awake = self._looking
        if self._fresh:
            self._awake = self._came = True
            if not self._looking:
                self._looking = True
                self._period = FIRST_TICK
                self._next_tick = time.monotonic() + self._period
            self._take_fresh()
        self._wake_at = NEVER  # before the queues are looked at: what comes later wakes us
        self._take_asked()
        self._take_planned()
        due = self._next_tick if self._looking else NEVER
        if self._timers and self._timers[0][0] < due:
            due = self._timers[0][0]
        self._wake_at = due
        timeout = None if due == NEVER else min(max(due - time.monotonic(), 0.0), LONGEST)
        events = self.watcher.wait(timeout)
        self._wake_at = 0.0
        for fd, event in events:
            self._ready(fd, event)
        now = time.monotonic()
        if self._looking and now >= self._next_tick:
            self._look()
            self._next_tick = now + self._period
        self._run_timers(now)

    def _look(self) -> None:
        """Look at connections that were read a while ago."""
        came = self._take_fresh() or self._came
        again, self._unwatched = self._unwatched, {}
        self._asked.extend(again.values())
        self._ticking = {key: one for key, one in self._ticking.items() if self._tick(one)}
        # Where connections come and go, to fall asleep between them and to be woken for each
        # would cost more than to look now and then.
        self._looking = bool(self._ticking) or came
        self._came = False
        self._period = min(2 * self._period, LAST_TICK)

    def _stumble(self, exc: Exception) -> None:
        """Something failed that is no connection's, memory perhaps: rest, and begin anew."""
        self._stumbled = True
        now = time.monotonic()
        try:
            if now - self._complained >= QUIET_TIME:
                self._complained = now
                logger.error("unexpected error in the service thread; it goes on", exc_info=exc)
        except Exception:
            pass  # then nobody can be told
        if not self._stopping:
            time.sleep(PAUSE)

    def _set_up(self) -> None:
        """Watch the bell and look at all connections: events and timers that were in hand may be lost."""
        self._stumbled = False
        self.watcher.arm(self._bell_fd, READ)
        connections = members(self.connections)
        self._take_planned()
        # Theirs are planned anew; what is kept, and what was inherited over a fork, keeps its own.
        self._timers = [
            timer
            for timer in self._timers
            if not isinstance(timer[2], weakref.ref) or timer[2]() not in self.connections
        ]
        heapq.heapify(self._timers)
        for connection in connections:
            self.adopt(connection)
            if connection._stream.unsent():
                self._watch_socket(connection, WRITE)
            for due in (
                connection._ping_due,
                connection._violation_due,
                connection._close_deadline,
            ):
                if due:
                    self.schedule(connection, due)

    def _take_fresh(self) -> bool:
        """Look at connections that were added from now on; False if there are none."""
        came = bool(self._fresh)
        while self._fresh:
            reference = self._fresh.popleft()
            # By the reference, of which a connection has one: it may be added while it is looked at already.
            self._ticking[id(reference)] = reference
        return came

    def _take_asked(self) -> None:
        while self._asked:
            reference, number = self._asked.popleft()
            connection = None if reference is None else reference()
            if connection is not None:
                self._call(connection, self._watch_socket, connection, number)
            elif reference is None and number not in self.watched:
                self.watcher.disarm(number)

    def _watch_socket(self, connection: ConnectionCore, events: int) -> None:
        """Watch a connection's socket, for what it was asked for, and for what it waits for by now."""
        fd = connection._stream.fileno()
        if fd < 0 or connection._disposed:
            return
        if connection._watch == ARMED:
            events |= READ
        if connection._stream.unsent():
            events |= WRITE
        reference = weakref.ref(connection)
        self.watched[fd] = reference
        try:
            self.watcher.arm(fd, events)
        except ValueError:
            return  # closed meanwhile; whoever did that ends the connection
        except OSError as exc:
            if exc.errno != errno.EBADF:  # the system has no room for another watch
                self._unwatched[id(reference)] = (reference, events)
                self.adopt(connection)
        if connection._disposed:
            # Just now: that forget() did not see this watch; and nobody else sets any.
            self.forget(fd)  # type: ignore[unreachable]

    def _take_planned(self) -> None:
        while self._planned:
            heapq.heappush(self._timers, self._planned.popleft())
        if len(self._timers) >= self._purge_at:
            self._purge()

    def _purge(self) -> None:
        """Drop the timers of connections that are gone, as most are long before a deadline."""
        self._timers = [timer for timer in self._timers if wanted(timer)]
        heapq.heapify(self._timers)
        self._purge_at = max(MIN_PURGE, 2 * len(self._timers))

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
        while self._timers and self._timers[0][0] <= now:
            connection = heapq.heappop(self._timers)[2]()
            if connection is not None:
                self._call(connection, connection._on_timer, now)


def ring(alarm: socket.socket) -> None:
    """Ring the service's bell."""
    try:
        alarm.send(b"\0")
    except OSError as exc:  # it has been rung so often already; or the service has stopped
        if from_handler(exc):
            raise


def members(connections: weakref.WeakSet[ConnectionCore]) -> list[ConnectionCore]:
    """Give what is in a set to which other threads may just be adding."""
    while True:
        try:
            return list(connections)
        except RuntimeError:
            pass


def wanted(timer: Timer) -> bool:
    """Tell whether a timer's connection has not come to its end."""
    connection = timer[2]()
    return connection is not None and not connection.protocol.is_closed


_service: Service | None = None
# Guards the making of the service; held while its thread starts. Re-entrant: a signal's handler may need a service too.
_starting = threading.RLock()


def get_service() -> Service:
    """Give the process's service, starting it if need be."""
    service = _service
    return service if service is not None and not service.ended else _make_service()


def _make_service() -> Service:
    global _service
    with _starting:
        dead = service = _service
        if service is None or service.ended:
            made = Service()
            service = _current()
            if service is None or service is dead:
                service = _service = made
            else:  # a signal's handler has made one meanwhile
                made.stop()
            if dead is not None:
                service.succeed(dead)
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
    for connection in members(service.connections):
        connection._after_fork()
    # The descriptors are copies; the parent's epoll would otherwise be changed from here.
    service.watcher.close()
    service._alarm.close()
    service._bell.close()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
