"""`reconnect.stop()`: whatever is going on, it ends."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    answer,
    black_hole,
    echo,
    no_leak,
    read_head,
    reply,
    silent,
    switching,
)

FAST = {"proxy": None, "compression": None}


def no_delays() -> Iterator[float]:
    return itertools.repeat(0.0)


def run(target: Any) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_stop_while_waiting(fd: ModuleType) -> None:
    waiting = threading.Event()

    def delays() -> Iterator[float]:
        waiting.set()
        yield 60.0

    with Peer(answer(reply("503 Not now"))) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        thread = run(lambda: list(again))
        assert waiting.wait(5)
        again.stop()
        thread.join(5)
        assert not thread.is_alive()


def test_stop_while_a_connection_is_used(fd: ModuleType) -> None:
    used = threading.Event()
    codes = []

    def use() -> None:
        for websocket in again:
            used.set()
            for _ in websocket:
                pass
            codes.append(websocket.close_exc_of())

    with Peer(echo) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(
            peer.uri, **FAST, create_connection=make_telling(fd), reconnect_delays=no_delays
        )
        thread = run(use)
        assert used.wait(5)
        again.stop(1001, "going")
        thread.join(5)
        assert not thread.is_alive()
        again.stop()
        assert list(again) == []
    assert codes == [(1001, "going")]


def make_telling(fd: ModuleType) -> Any:
    class Telling(fd.sync.client.ClientConnection):  # type: ignore[name-defined, misc]
        def close_exc_of(self) -> tuple[int, str]:
            sent = self.protocol.close_sent
            return sent.code, sent.reason

    return Telling


def test_stop_before(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST)
        again.stop()
        assert list(again) == []
        with pytest.raises(ConnectionAbortedError, match="stopped"):
            again.__enter__()
        assert peer.accepted == 0


@pytest.mark.parametrize("phase", ["connecting", "handshake", "TLS"])
@pytest.mark.parametrize("how", ["iterator", "context manager"])
def test_stop_in_the_midst_of_an_attempt(fd: ModuleType, phase: str, how: str) -> None:
    reached = threading.Event()

    def handler(sock: Any) -> None:
        if sock.recv(1):
            reached.set()
        silent(sock)

    raised = []

    def use() -> None:
        try:
            if how == "iterator":
                assert list(again) == []
            else:
                again.__enter__()
        except ConnectionAbortedError as exc:
            raised.append(exc)

    with Peer(handler) as peer, black_hole() as hole, no_leak(fd):
        uri = {
            "connecting": f"ws://127.0.0.1:{hole}",
            "handshake": peer.uri,
            "TLS": peer.secure_uri,
        }[phase]
        again = fd.sync.client.reconnect(uri, **FAST, open_timeout=None)
        thread = run(use)
        if phase == "connecting":
            peer.wait(lambda: bool(again._attempts))
        else:
            assert reached.wait(5)
        again.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert len(raised) == (how != "iterator")


def test_stop_just_when_a_connection_opens(fd: ModuleType) -> None:
    with Peer(echo) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST)
        opener = again._opener
        real = opener.open

        def open_late(cancel: Any) -> Any:
            connection = real(cancel)
            again.stop()
            return connection

        opener.open = open_late
        websockets = list(again)
    assert len(websockets) == 1
    assert websockets[0].protocol.close_sent.code == 1001


def test_stop_with_a_bad_code(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST)
        with again as websocket:
            for arguments in ((999,), (1000, "x" * 124)):
                with pytest.raises(fd.exceptions.ProtocolError):
                    again.stop(*arguments)
            assert websocket.state is fd.protocol.State.OPEN
        for websocket in itertools.islice(again, 1):  # it goes on
            websocket.send("x")
            assert websocket.recv(timeout=5) == "x"


def test_stop_in_a_signal_handler(fd: ModuleType) -> None:
    """It may come while the thread that it interrupts holds the lock."""
    again = fd.sync.client.reconnect("ws://localhost:1", **FAST)
    with again._lock:
        again.stop()
    assert list(again) == []


def test_stop_closes_all_at_once(fd: ModuleType) -> None:
    """Peers that never answer take one close_timeout together, not one each."""

    def deaf(sock: Any) -> None:
        sock.sendall(switching(read_head(sock)))
        silent(sock)

    with Peer(deaf) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST, close_timeout=0.4)
        iterators = [iter(again) for _ in range(5)]
        websockets = [next(iterator) for iterator in iterators]
        begin = time.monotonic()
        again.stop(1001, "going")
        assert 0.4 <= time.monotonic() - begin < 1.2
        for websocket in websockets:
            assert websocket.state is fd.protocol.State.CLOSED
            assert websocket.protocol.close_sent == fd.frames.Close(1001, "going")
