"""The service thread when something of its own goes wrong, and when others come in its way."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from .links import CLOSE, PING, PONG, TEXT, TIMEOUT, Background, RawPeer, eventually, link


@pytest.fixture
def own_service(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A service of this test's own, which may come to harm."""
    service = fd.sync.service.Service()
    monkeypatch.setattr(fd.sync.service, "_service", service)
    yield service
    service.stop()


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "out of memory")])
@pytest.mark.parametrize("where", ["wait", "_run_timers", "_ready", "_take_planned"])
def test_the_service_outlives_its_own_failures(
    fd: ModuleType,
    own_service: Any,
    caplog: pytest.LogCaptureFixture,
    where: str,
    error: Exception,
) -> None:
    """Nor are those lost whose bytes or timers it had in hand."""
    owner = own_service.watcher if where == "wait" else own_service
    with link(fd, ping_interval=0.2, ping_timeout=TIMEOUT) as (connection, peer):
        eventually(lambda: connection._watch == fd.sync.service.ARMED)
        real = getattr(owner, where)
        failures: list[object] = []

        def fail(*args: Any) -> Any:
            result = real(*args)
            if len(failures) < 2 and threading.current_thread() is own_service._thread:
                failures.append(result)
                raise error
            return result

        setattr(owner, where, fail)
        peer.send(PING, b"x")
        wanted = {PONG, PING}
        while wanted:
            wanted.discard(peer.receive()[0])
        eventually(lambda: len(failures) == 2)
    assert own_service._thread.is_alive()
    told = [record.exc_info and record.exc_info[1] for record in caplog.records]
    assert told == [error]  # once, not each time


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_service_that_dies_is_replaced(fd: ModuleType, own_service: Any) -> None:
    """As by what is no Exception, from a logger or a socket of somebody else's."""
    module = fd.sync.service
    with (
        link(fd, ping_interval=0.2, ping_timeout=TIMEOUT) as (connection, peer),
        link(fd) as (blocked, blocked_peer),
        Background(blocked.recv) as receiver,
    ):
        eventually(lambda: connection._watch == module.ARMED)

        def die(*args: Any) -> None:
            raise SystemExit

        own_service._ready = die
        own_service.wake()
        own_service._thread.join(TIMEOUT)
        assert not own_service._thread.is_alive()
        service = module.get_service()
        assert service is not own_service
        try:
            peer.send(PING, b"x")
            wanted = {PONG, PING}
            while wanted:
                wanted.discard(peer.receive()[0])
            blocked_peer.send(TEXT, b"message")
            assert receiver.result() == "message"
            blocked_peer.send(PING, b"y")
            blocked_peer.expect(PONG, b"y")
        finally:
            service.stop()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_a_watch_that_cannot_be_set_is_tried_again(
    fd: ModuleType, own_service: Any, number: int
) -> None:
    real = own_service.watcher.arm
    failures: list[int] = []

    def arm(fileno: int, events: int) -> None:
        if fileno != own_service._bell_fd and len(failures) < 3:
            failures.append(events)
            raise OSError(number, os.strerror(number))
        real(fileno, events)

    own_service.watcher.arm = arm
    with link(fd) as (_, peer):
        eventually(lambda: len(failures) == 3)
        peer.send(PING, b"x")
        peer.expect(PONG, b"x")


def test_a_watch_for_room_that_cannot_be_set_is_tried_again(
    fd: ModuleType, own_service: Any
) -> None:
    """While a thread is in recv(), so that nobody else flushes the backlog."""
    with link(fd, small=True) as (connection, peer), Background(connection.recv) as receiver:
        eventually(lambda: connection._watch == fd.sync.service.BLOCKED)
        connection.socket.setblocking(False)
        filled = 0
        with pytest.raises(BlockingIOError):
            while True:
                filled += connection.socket.send(bytes(1024))
        real = own_service.watcher.arm
        failures: list[int] = []

        def arm(fileno: int, events: int) -> None:
            if fileno == connection.socket.fileno() and len(failures) < 3:
                failures.append(events)
                raise OSError(errno.ENOSPC, "no room")
            real(fileno, events)

        own_service.watcher.arm = arm
        connection.ping(b"queued")
        peer._take(filled)
        peer.expect(PING, b"queued")
        assert len(failures) == 3
        peer.send(TEXT, b"message")
        assert receiver.result() == "message"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_that_ends_as_its_watch_is_set(
    fd: ModuleType, own_service: Any, when: str
) -> None:
    """Whoever gives the descriptor back waits for nobody, and nothing is left of the watch."""
    real = own_service.watcher.arm
    done = threading.Event()
    with link(fd) as (connection, peer):
        number = connection.socket.fileno()
        peer.close()

        def arm(fileno: int, events: int) -> None:
            ours = fileno == number and not done.is_set()
            if ours and when == "after":
                real(fileno, events)
            if ours:
                with Background(connection.close):
                    pass
                done.set()
            if not ours or when == "before":
                real(fileno, events)

        own_service.watcher.arm = arm
        own_service._hand_over(own_service._asked, (weakref.ref(connection), 1), 0.0)
        assert done.wait(TIMEOUT)
        eventually(lambda: number not in own_service.watched)


@pytest.mark.parametrize("close_timeout", [TIMEOUT, None])
def test_an_iterator_that_is_dropped_in_the_service_thread(
    fd: ModuleType, own_service: Any, close_timeout: float | None
) -> None:
    """The cycle collector may run there: the connection is closed in order, but nobody waits for that."""
    ours, theirs = socket.socketpair()
    protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
    connections = [
        fd.sync.connection.Connection(
            ours, protocol, close_timeout=close_timeout, ping_interval=None
        )
    ]
    reference = weakref.ref(connections[0])
    opener = SimpleNamespace(sock=None, logger=None, open=lambda cancel: connections.pop())
    reconnecting = fd.sync.reconnecting.Reconnecting(opener, lambda exc: exc, lambda: [1])
    iterators = [iter(reconnecting)]
    next(iterators[0])
    del ours, protocol
    peer = RawPeer(fd, theirs, masks=False)
    real = own_service._run_timers
    dropped = threading.Event()

    def collect(now: float) -> None:
        own_service._run_timers = real
        iterators.clear()
        dropped.set()
        real(now)

    with link(fd) as (_, other_peer):
        own_service._run_timers = collect
        own_service.wake()
        assert dropped.wait(TIMEOUT / 4)
        other_peer.send(PING, b"x")
        other_peer.expect(PONG, b"x")
    data = peer.expect(CLOSE)
    time.sleep(0.05)
    peer.send(PING, b"still there?")
    peer.send(CLOSE, data)
    time.sleep(0.05)
    peer.close()
    eventually(lambda: reference() is None or reference().protocol.is_closed)
    connection = reference()
    assert connection is not None
    assert connection.close_code == 1000


def test_timers_do_not_multiply_by_failures(fd: ModuleType) -> None:
    """They are planned anew each time, in place of those that there were."""
    module = fd.sync.service
    with link(fd, ping_interval=1000, ping_timeout=1000) as (connection, _):
        service = module.get_service()
        connection._close_deadline = None

        def timers() -> int:
            found = [timer[2]() is connection for timer in [*service._timers, *service._planned]]
            return sum(found)

        for _ in range(20):
            service._stumbled = True
            service.wake()
            eventually(lambda: not service._stumbled)
        eventually(lambda: timers() < 4)
