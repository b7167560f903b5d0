"""Handlers of signals that raise, or call us, in the midst of what is no single connection's."""

from __future__ import annotations

import signal
import threading
from types import ModuleType
from typing import Any

import pytest

from ..interrupting import interrupted_at
from .links import BINARY, PING, PONG, TIMEOUT, Background, link


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
