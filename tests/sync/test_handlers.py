"""Handlers of signals that raise, or call us, in the midst of what is no single connection's."""

from __future__ import annotations

import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from ..interrupting import interrupted_at
from .links import BINARY, PING, PONG, TIMEOUT, Background, eventually, link


def only_pure(fd: ModuleType) -> None:
    if fd.IMPLEMENTATION != "pure":
        pytest.skip("the compiled one runs no handlers there")


def left_alone(fd: ModuleType, connection: Any) -> None:
    """Have the service wait for who reads the connection to report."""
    assert connection._reader.try_acquire() == fd.roles.FREE
    connection._watch = fd.sync.service.BLOCKED
    connection._reader.release()


def test_wait_interrupted_at_every_place(fd: ModuleType) -> None:
    """Nobody is the reader afterwards, and the service looks after each connection again."""
    only_pure(fd)
    place = 0
    interrupted = True
    while interrupted:
        with link(fd) as (one, peer), link(fd) as (other, other_peer):
            left_alone(fd, one)
            left_alone(fd, other)
            peer.send(BINARY, b"message")
            interrupted = interrupted_at(place, fd.sync.wait.wait, [other, one], TIMEOUT)
            assert one._reader.owner == other._reader.owner == fd.roles.FREE
            assert one._writer.owner == other._writer.owner == fd.roles.FREE
            if one._inbox or not interrupted:
                for end in (peer, other_peer):
                    end.send(PING, b"%d" % place)
                    end.expect(PONG, b"%d" % place)
                assert one.recv(TIMEOUT) == b"message"
        place += 1
    assert place > 50


def test_wait_in_a_handler_leaves_alone_what_it_has_interrupted(fd: ModuleType) -> None:
    with link(fd) as (one, _), link(fd) as (other, _):
        assert one._reader.try_acquire(fd.roles.RECV) == fd.roles.FREE
        with pytest.raises(fd.exceptions.ConcurrencyError, match="signal handler"):
            fd.sync.wait.wait([other, one], TIMEOUT)
        assert one._reader.owner == fd.roles.RECV
        assert other._reader.owner == fd.roles.FREE
        one._leave_reader()
        assert one._reader.try_acquire(fd.roles.CLOSE) == fd.roles.FREE
        assert fd.sync.wait.wait([other, one], 0) == []
        assert one._reader.owner == fd.roles.CLOSE
        one._leave_reader()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # sockets of the bell
def test_serve_forever_interrupted_at_every_place(fd: ModuleType) -> None:
    """Signals ring nobody's descriptor afterwards, and who shuts the server down does not wait for the loop."""
    place = 0
    interrupted = True
    while interrupted:
        server = fd.sync.server.serve(print, "127.0.0.1", 0)

        def may_accept(server: Any = server) -> bool:
            server._acceptor.stop()
            return True

        server._may_accept = may_accept
        interrupted = interrupted_at(place, server.serve_forever)
        assert signal.set_wakeup_fd(-1) == -1
        with Background(server.shutdown):
            pass
        place += 1
    assert place > 20


@pytest.mark.parametrize("method", ["clear", "set"])
def test_serve_forever_interrupted_between_its_marks(fd: ModuleType, method: str) -> None:
    class Interrupted(threading.Event):
        armed = False

        def clear(self) -> None:
            super().clear()
            if self.armed and method == "clear":
                raise KeyboardInterrupt

        def set(self) -> None:
            if self.armed and method == "set":
                raise KeyboardInterrupt
            super().set()

    server = fd.sync.server.serve(print, "127.0.0.1", 0)
    server._loop_ended = Interrupted()
    server._loop_ended.set()
    server._loop_ended.armed = True
    server._may_accept = lambda: server._acceptor.stop() or True
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever()
    server._loop_ended.armed = False
    with Background(server.shutdown):
        pass


def at_every_place(module: str, call: Callable[[], object], handler: Callable[[], object]) -> int:
    """Call something, and a handler at each place in a module where one may run; gives their number."""
    places = 0

    def look(frame: Any, event: str, arg: object) -> None:
        nonlocal places
        if event in ("call", "c_return") and frame.f_globals.get("__name__", "").endswith(module):
            places += 1
            sys.setprofile(None)
            handler()
            sys.setprofile(look)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return places


@pytest.mark.parametrize("watcher", ["EpollWatcher", "SelectorWatcher"])
def test_handlers_that_wait_for_other_threads(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, watcher: str
) -> None:
    """As shutdown() does. What they interrupt in the service keeps nobody else from it."""
    module = fd.sync.service
    if watcher == "EpollWatcher" and not hasattr(module.select, "epoll"):
        pytest.skip("there is no epoll")
    monkeypatch.setattr(module, "make_watcher", getattr(module, watcher))
    service = module.Service()
    monkeypatch.setattr(module, "_service", service)

    def wait_for_others() -> None:
        for number in range(2):
            other_peer.send(PING, b"%d" % number)
            other_peer.expect(PONG, b"%d" % number)
        with link(fd) as (_, ending_peer), Background(ending_peer.answer_close):
            _.close()

    def others() -> None:
        with Background(wait_for_others):
            pass

    try:
        with link(fd) as (connection, peer), link(fd) as (_, other_peer):

            def ours() -> None:
                connection._watch = module.TICKING
                connection.ping(b"ours")
                service.adopt(connection)
                service.schedule(connection, time.monotonic() + 1)
                with link(fd) as (ending, ending_peer):
                    ending_peer.close()
                    ending.close()

            places = at_every_place(".sync.service", ours, others)
            assert places > 20 or fd.IMPLEMENTATION == "compiled"
            peer.expect(PING, b"ours")
    finally:
        service.stop()


def test_a_handler_runs_in_a_socket_of_somebody_elses(fd: ModuleType) -> None:
    """As the compiled service arms it: its methods are Python, and so may be interrupted."""
    service = fd.sync.service.get_service()
    peers: list[Any] = []

    class Interrupted:
        def __init__(self, sock: Any) -> None:
            self.sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

        def fileno(self) -> int:
            if peers and not service.is_current():
                peer = peers.pop()
                for number in range(2):
                    peer.send(PING, b"%d" % number)
                    peer.expect(PONG, b"%d" % number)
            return int(self.sock.fileno())

    with link(fd, wrap=Interrupted) as (connection, peer), link(fd) as (_, other_peer):
        peers.append(other_peer)
        service.arm(connection)
        connection._watch = fd.sync.service.TICKING
        connection.ping(b"ours")
        peer.expect(PING, b"ours")
        peers.clear()


@pytest.mark.parametrize("what", ["connection", "watch", "timer"])
def test_what_is_handed_to_the_service_interrupted_at_every_place(
    fd: ModuleType, what: str
) -> None:
    """It arrives, unless that was before anything had begun; and the service still hears others."""
    only_pure(fd)
    module = fd.sync.service
    service = module.get_service()
    armed = module.ARMED
    place = 0
    interrupted = True
    while interrupted:
        with link(fd) as (connection, peer), link(fd) as (other, other_peer):
            eventually(lambda: connection._watch == other._watch == armed and not service._awake)
            service.watcher.disarm(connection.socket.fileno())
            reference = weakref.ref(connection)
            called = threading.Event()
            if what == "connection":
                connection._watch = module.BLOCKED
                interrupted = interrupted_at(place, service.adopt, connection)
            elif what == "watch":
                watch = (reference, module.READ)
                interrupted = interrupted_at(place, service._hand_over, service._asked, watch, 0.0)
            else:
                connection._ping_due = 1.0
                connection._keep_alive = lambda now, called=called: called.set()
                when = time.monotonic() + 0.01
                timer = (when, -place, reference)
                interrupted = interrupted_at(
                    place, service._hand_over, service._planned, timer, when
                )
            if place or not interrupted:
                if what == "timer":
                    assert called.wait(TIMEOUT)
                else:
                    peer.send(PING, b"%d" % place)
                    peer.expect(PONG, b"%d" % place)
            # What it has noted in vain would keep others from waking it.
            eventually(lambda: not service._awake)
            service.watcher.disarm(other.socket.fileno())
            service.adopt(other)
            other_peer.send(PING, b"x")
            other_peer.expect(PONG, b"x")
        place += 1
    assert place > 4
