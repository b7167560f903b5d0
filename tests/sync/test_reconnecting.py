"""Connecting again and again, waiting in between, and stopping."""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    Recorder,
    answer,
    echo,
    frame,
    free_port,
    no_leak,
    read_frame,
    read_head,
    reply,
    switching,
)

FAST = {"proxy": None, "compression": None}


class Delays:
    """Stands in for the back-off; notes how often it is asked for delays."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.series: list[int] = []

    def __call__(self) -> Iterator[float]:
        self.series.append(0)
        index = len(self.series) - 1
        while True:
            self.series[index] += 1
            yield self.delay


def close_with(code: int) -> Any:
    """Make a handler that accepts, and closes with a code."""

    def handler(sock: Any) -> None:
        sock.sendall(switching(read_head(sock)) + frame(8, code.to_bytes(2, "big")))
        read_frame(sock)

    return handler


# Many connections


def test_gives_one_connection_after_the_other(fd: ModuleType) -> None:
    delays = Delays()
    seen = []
    with Peer(echo) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 3):
            websocket.send("x")
            assert websocket.recv(timeout=5) == "x"
            assert all(one.state is fd.protocol.State.CLOSED for one in seen)
            seen.append(websocket)
        assert type(websocket) is fd.sync.client.ClientConnection
    assert len(seen) == 3
    assert all(one.close_code == 1000 for one in seen)
    assert delays.series == []


def test_leaving_the_loop_closes_the_connection(fd: ModuleType) -> None:
    with Peer(echo) as peer, no_leak(fd):
        for websocket in fd.sync.client.reconnect(peer.uri, **FAST):  # noqa: B007
            break
        assert websocket.close_code == 1000
        with pytest.raises(LookupError):
            for _ in fd.sync.client.reconnect(peer.uri, **FAST):
                raise LookupError


def test_a_closed_connection_is_followed_by_the_next(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fd.sync.reconnecting, "SHORT", 0.0)
    delays = Delays()
    with Peer(close_with(1000)) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 3):
            assert list(websocket) == []
    assert delays.series == []


def test_tries_again_after_failures(fd: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    responses = [reply(f"{status} Not now") for status in (500, 502, 503, 504)]
    recorder = Recorder(*responses, b"", b"HTTP/1.1 101 Sw")
    delays = Delays()
    caplog.set_level(logging.INFO, "fullduplex.client")
    with Peer(recorder) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 1):
            assert websocket.state is fd.protocol.State.OPEN
    assert delays.series == [6]
    assert len(recorder.heads) == 7
    (first, *_) = caplog.messages
    assert re.fullmatch(r"connecting again in 0\.0 seconds: .*InvalidStatus: .*HTTP 500", first)


def test_tries_again_when_nobody_listens(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        ports = iter([free_port(), free_port(), peer.port])

        def delays() -> Iterator[float]:
            while True:
                opener.address = ("127.0.0.1", next(ports))
                yield 0.0

        again = fd.sync.client.reconnect(
            "ws://host.example", **FAST, reconnect_delays=delays, address=("127.0.0.1", 1)
        )
        opener = again._opener
        for websocket in again:
            assert websocket.remote_address == ("127.0.0.1", peer.port)
            break


def test_delays_begin_anew_after_a_success(fd: ModuleType) -> None:
    unavailable = reply("503 Not now")
    recorder = Recorder(unavailable, unavailable)
    delays = Delays()
    with Peer(recorder) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for index, _ in enumerate(again):
            if index == 1:
                break
            recorder.responses.append(unavailable)
    assert delays.series == [2, 1]


@pytest.mark.parametrize("kind", ["drop", 1001, 1011, 1013])
def test_a_connection_that_is_dropped_at_once_is_no_success(fd: ModuleType, kind: Any) -> None:
    """A server that accepts everybody and drops everybody must not be asked without end."""
    drop = lambda sock: sock.sendall(switching(read_head(sock)))  # noqa: E731
    delays = Delays()
    with Peer(drop if kind == "drop" else close_with(kind)) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 4):
            with pytest.raises(fd.exceptions.ConnectionClosed):
                websocket.recv(timeout=5)
    assert delays.series == [3]


@pytest.mark.parametrize("end", ["answer", "drop"])
@pytest.mark.parametrize("garbage", ["violation", "silence"])
def test_a_connection_that_we_had_to_fail_is_no_success(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, garbage: str, end: str
) -> None:
    """Our Close frame goes out first there as well, but it is the server that broke off."""
    monkeypatch.setattr(fd.sync.reconnecting, "SHORT", 0.0)
    options = {} if garbage == "violation" else {"ping_interval": 0.01, "ping_timeout": 0.05}

    def fail(sock: socket.socket) -> None:
        sock.sendall(switching(read_head(sock)))
        if garbage == "violation":
            sock.sendall(b"\x83\x00")
            if end == "answer":
                sock.sendall(frame(8, (1002).to_bytes(2, "big")))
        else:
            sock.recv(1000)
            time.sleep(0.3)

    delays = Delays()
    with Peer(fail) as peer:
        again = fd.sync.client.reconnect(peer.uri, **{**FAST, **options}, reconnect_delays=delays)
        for websocket in itertools.islice(again, 3):
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                websocket.recv(timeout=5)
    assert delays.series == [2]


def test_a_connection_that_the_application_closed_is_a_success(fd: ModuleType) -> None:
    delays = Delays()
    with Peer(echo) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 3):
            websocket.close(1002)
    assert delays.series == []


@pytest.mark.parametrize(("short", "series"), [(0.0, []), (60.0, [2])])
def test_a_connection_that_brought_something_is_a_success(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, short: float, series: list[int]
) -> None:
    """If the server did not end it at once, with its message as an explanation."""
    monkeypatch.setattr(fd.sync.reconnecting, "SHORT", short)
    delays = Delays()
    give = lambda sock: sock.sendall(switching(read_head(sock)) + frame(1, b"x"))  # noqa: E731
    with Peer(give) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=delays)
        for websocket in itertools.islice(again, 3):
            assert websocket.recv(timeout=5) == "x"
            websocket.wait_closed(5)
    assert delays.series == series


def test_a_context_manager_in_two_threads(fd: ModuleType) -> None:
    with Peer(echo) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST)
        entered, left = threading.Event(), threading.Event()

        def other() -> None:
            with again as websocket:
                entered.set()
                assert left.wait(5)
                websocket.send("x")
                received.append(websocket.recv(timeout=5))

        received: list[str] = []
        thread = threading.Thread(target=other)
        with again as websocket:
            thread.start()
            assert entered.wait(5)
        assert websocket.protocol.state is fd.protocol.State.CLOSED
        left.set()
        thread.join()
        assert received == ["x"]


def test_delays_are_waited_for(fd: ModuleType) -> None:
    with Peer(Recorder(reply("503 Not now"))) as peer:
        begin = time.monotonic()
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=Delays(0.1))
        for _ in again:
            break
        assert time.monotonic() - begin >= 0.1


# What may pass, and what may not


def test_what_cannot_pass_is_raised(fd: ModuleType) -> None:
    for response, error in (
        (reply("404 Not Found"), fd.exceptions.InvalidStatus),
        (b"no HTTP\r\n", fd.exceptions.InvalidMessage),
    ):
        with Peer(answer(response)) as peer, no_leak(fd):
            with pytest.raises(error):
                next(iter(fd.sync.client.reconnect(peer.uri, **FAST)))
            assert peer.accepted == 1


def test_process_exception(fd: ModuleType) -> None:
    seen = []

    def process(exc: Exception) -> Exception | None:
        seen.append(exc)
        return None if len(seen) < 3 else LookupError("enough")

    with Peer(answer(reply("404 Not Found"))) as peer:
        again = fd.sync.client.reconnect(
            peer.uri, **FAST, process_exception=process, reconnect_delays=Delays()
        )
        with pytest.raises(LookupError, match="enough") as raised:
            next(iter(again))
    assert len(seen) == 3
    assert raised.value.__cause__ is seen[-1]


def test_errors_in_the_loop_are_not_its_business(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, process_exception=lambda _: None)
        with pytest.raises(ConnectionResetError):
            for _ in again:
                raise ConnectionResetError


def test_impossible_arguments_are_raised_at_once(fd: ModuleType) -> None:
    with pytest.raises(fd.exceptions.InvalidURI):
        fd.sync.client.reconnect("http://localhost")


def test_a_socket_can_be_used_once(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        sock = socket.create_connection(("127.0.0.1", peer.port))
        again = fd.sync.client.reconnect(peer.uri, sock=sock)
        with pytest.raises(ValueError, match="cannot reconnect with a preexisting socket"):
            iter(again)
        with again as websocket:
            websocket.send("x")
            assert websocket.recv(timeout=5) == "x"


def test_an_interrupt_while_waiting(fd: ModuleType) -> None:
    def interrupt() -> Iterator[float]:
        raise KeyboardInterrupt
        yield 0.0

    with Peer(answer(reply("503 Not now"))) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(iter(again))


# One connection


def test_as_a_context_manager(fd: ModuleType) -> None:
    with Peer(echo) as peer, no_leak(fd):
        again = fd.sync.client.reconnect(peer.uri, **FAST)
        for _ in range(2):
            with again as websocket:
                websocket.send("x")
                assert websocket.recv(timeout=5) == "x"
            assert websocket.close_code == 1000
        with pytest.raises(LookupError), again as websocket:
            raise LookupError
        assert websocket.close_code == 1011


def test_a_context_manager_tries_once(fd: ModuleType) -> None:
    with Peer(answer(reply("503 Not now"))) as peer:
        with pytest.raises(fd.exceptions.InvalidStatus, match="503"):
            fd.sync.client.reconnect(peer.uri, **FAST).__enter__()
        assert peer.accepted == 1


# Unix


def test_unix_reconnect(fd: ModuleType, tmp_path: Path) -> None:
    with Peer(echo, family=socket.AF_UNIX, path=tmp_path / "s"), no_leak(fd):
        again = fd.sync.client.unix_reconnect(tmp_path / "s")
        assert isinstance(again, fd.sync.client.reconnect)
        for websocket in itertools.islice(again, 2):
            websocket.send("x")
            assert websocket.recv(timeout=5) == "x"


# Delays


def test_backoff(fd: ModuleType) -> None:
    """RFC 6455 §7.2.3: the first delay is random from 0 to 5 s, later ones grow."""
    for _ in range(50):
        delays = fd.sync.reconnecting.backoff()
        assert 0 <= next(delays) <= 5
        low = 3.1
        while (high := low * 1.618) < 90:
            assert low <= next(delays) <= high
            low = high
        for _ in range(5):
            assert low <= next(delays) <= 90


def test_backoff_is_random(fd: ModuleType) -> None:
    many = [tuple(itertools.islice(fd.sync.reconnecting.backoff(), 9)) for _ in range(20)]
    for column in zip(*many, strict=True):
        assert len(set(column)) == 20


def test_backoff_with_its_own_bounds(fd: ModuleType) -> None:
    backoff = fd.sync.reconnecting.backoff
    assert list(itertools.islice(backoff(0, 1, 1, 9), 4)) == [0, 1, 1, 1]
    assert list(itertools.islice(backoff(0, 5, 2, 1), 3)) == [0, 1, 1]
    assert max(itertools.islice(backoff(50, 5, 2, 1), 20)) <= 1


def delays_with(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import itertools; from fullduplex.sync.reconnecting import backoff;"
        "print(*itertools.islice(backoff(), 3))"
    )
    env = {**os.environ, "FULLDUPLEX_PURE_PYTHON": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


def test_backoff_by_the_environment() -> None:
    done = delays_with(
        FULLDUPLEX_BACKOFF_INITIAL_DELAY="0",
        FULLDUPLEX_BACKOFF_MIN_DELAY="2",
        FULLDUPLEX_BACKOFF_FACTOR="1.0",
        FULLDUPLEX_BACKOFF_MAX_DELAY="3",
    )
    assert done.stdout.split() == ["0.0", "2.0", "2.0"], done.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("MIN_DELAY", "soon"), ("FACTOR", "0.5"), ("MAX_DELAY", "inf")]
)
def test_backoff_by_a_bad_environment(name: str, value: str) -> None:
    done = delays_with(**{f"FULLDUPLEX_BACKOFF_{name}": value})
    assert done.returncode != 0
    assert f"FULLDUPLEX_BACKOFF_{name} must be a number from" in done.stderr


def test_redirects_by_the_environment() -> None:
    code = "from fullduplex.sync.redirects import MAX_REDIRECTS; print(MAX_REDIRECTS)"
    for value, expected in (("0", "0\n"), ("3", "3\n"), ("", "10\n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "FULLDUPLEX_MAX_REDIRECTS": value, "FULLDUPLEX_PURE_PYTHON": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == expected, done.stderr


def test_delays_that_come_to_an_end(fd: ModuleType) -> None:
    """Then it gives up: with the last error, if connecting failed."""
    again = fd.sync.client.reconnect(
        f"ws://127.0.0.1:{free_port()}", **FAST, reconnect_delays=lambda: [0.0, 0.0]
    )
    with pytest.raises(ConnectionRefusedError):
        next(iter(again))
    with Peer(close_with(1011)) as peer:
        again = fd.sync.client.reconnect(peer.uri, **FAST, reconnect_delays=lambda: [0.0, 0.0])
        seen = 0
        for websocket in again:
            assert websocket.wait_closed(5)
            seen += 1
    assert seen == 3
