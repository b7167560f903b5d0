"""Sockets that the application closes under a stream, and memory that runs out in the midst of a call."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import socket
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from .codec.wire import BINARY, TEXT, frame
from .conftest import IMPLEMENTATIONS, load
from .streams import Background, Bare, arguments, tcp_pair

KINDS = ["open_stream", "SocketStream"]


@pytest.fixture(params=KINDS)
def taken(request: pytest.FixtureRequest, fd: ModuleType) -> Iterator[tuple[Any, socket.socket]]:
    """A stream whose socket was closed by somebody else, and the peer of one that has got its number."""
    ours, theirs = tcp_pair()
    stream = getattr(fd.stream, request.param)(ours)
    number = ours.fileno()
    ours.close()
    again, peer = socket.socketpair()
    if peer.fileno() == number:
        again, peer = peer, again
    if again.fileno() != number:
        os.dup2(again.fileno(), number)
    peer.setblocking(False)
    yield stream, peer
    if again.fileno() != number:
        os.close(number)
    for sock in (theirs, again, peer):
        sock.close()


@pytest.mark.parametrize("deadline", [None, 0.0, 60])
@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize(
    "method", ["write", "write_large", "write_masked", "try_write", "send_some", "flush"]
)
def test_nothing_is_written_to_another_socket_with_the_same_number(
    fd: ModuleType, taken: tuple[Any, socket.socket], method: str, size: int, deadline: Any
) -> None:
    stream, peer = taken
    if deadline:
        deadline += time.monotonic()
    data = b"a" * size
    args: tuple[Any, ...] = (deadline,)
    if method in ("try_write", "send_some"):
        args = (data,)
    elif method == "flush":
        stream.backlog = data
    else:
        args = (*arguments(fd, method, data), deadline)
    with pytest.raises(OSError) as caught:
        getattr(stream, method)(*args)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    stream.abort()
    stream.close()
    peer.send(b"a")  # nor is the other one shut down


@pytest.mark.parametrize("deadline", [None, 0.0, 60])
@pytest.mark.parametrize("method", ["read", "recv_into"])
def test_nothing_is_read_from_another_socket_with_the_same_number(
    fd: ModuleType, taken: tuple[Any, socket.socket], method: str, deadline: Any
) -> None:
    stream, peer = taken
    if deadline:
        deadline += time.monotonic()
    target = fd.codec.Decoder(masked=False) if method == "read" else memoryview(bytearray(10))
    peer.send(b"for its owner")
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            getattr(stream, method)(target, deadline)
        assert caught.value.errno == errno.EBADF
    assert stream.fileno() == -1


def test_nobody_waits_for_a_socket_that_was_closed(
    fd: ModuleType, taken: tuple[Any, socket.socket]
) -> None:
    with pytest.raises((OSError, ValueError)):  # the latter is poll's
        taken[0].wait_writable(None)


def test_socket_whose_inside_is_unknown(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Python to come, say: its number is not where we look for it."""
    one, other = socket.socketpair()
    with one, other:
        kind = type(fd.stream.open_stream(one))
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "fileno", lambda self: 1_000_000)
            assert type(fd.stream.open_stream(one)) is fd.stream.SocketStream
            if kind is not fd.stream.SocketStream:
                for sock in (one, object()):
                    with pytest.raises(TypeError):
                        kind(sock)


def test_socket_that_was_closed_has_no_turn(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would ever end the wait for it, see ext/fullduplex/turns.h."""
    if fd.IMPLEMENTATION == "pure" or not sys.platform.startswith("linux"):
        pytest.skip("nobody takes turns")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("nobody takes turns")
    turns = importlib.import_module(f"{fd.__name__}._fdstream")._turns
    for name, value in (("crowd", 0), ("patience", 1), ("stay", 10**6)):
        monkeypatch.setattr(turns, name, value)
    one, other = tcp_pair()
    stream = fd.stream.open_stream(one)
    view = memoryview(bytearray(10))
    for _ in range(3):
        other.sendall(b"abc")
        assert Background(stream.recv_into, view, None).result() == 3
    assert turns.members == 1
    one.close()
    with pytest.raises(OSError) as caught:
        Background(stream.recv_into, view, None).result()
    assert caught.value.errno == errno.EBADF
    assert turns.members == 0
    other.close()


# When memory runs out


@pytest.fixture
def alone() -> None:
    """No service thread of an earlier test asks for the memory that is to fail."""
    for name in IMPLEMENTATIONS:
        service = load(name).sync.service
        if service._service is not None:
            service._service.stop()
            service._service = None


def failing(at: int, call: Callable[..., Any], *args: Any) -> bool:
    """Tell whether a call failed, in which the allocation with the number ``at`` fails."""
    testcapi = pytest.importorskip("_testcapi")
    gc.disable()
    testcapi.set_nomemory(at, at + 1)
    try:
        call(*args)
    except (MemoryError, SystemError):  # the latter where Python lacks it for what a double raises
        return True
    finally:
        testcapi.remove_mem_hooks()
        gc.enable()
    return False


class Slow(Bare):
    """A socket that takes five bytes at a time, and every other time nothing."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.full = BlockingIOError()
        self.calls = 0
        self.fileno = sock.fileno
        self.send = self._send

    def _send(self, data: Any) -> int:
        self.calls += 1
        if self.calls % 2 == 0:
            raise self.full
        return self.sock.send(data[:5])


class Small(Bare):
    """A socket that gives so few bytes at a time that their number needs no memory."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.fileno = sock.fileno
        self.recv_into = self._recv_into

    def _recv_into(self, view: memoryview) -> int:
        return self.sock.recv_into(view[:250])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["flush", "try_write"])
def test_what_was_sent_before_memory_ran_out_is_not_sent_again(
    fd: ModuleType, kind: str, method: str
) -> None:
    """Nor is what comes next taken for the rest of it."""
    plain = kind == "open_stream" and fd.IMPLEMENTATION == "compiled"
    data = b"0123456789" * (100_000 if plain else 1)
    torn = 0
    for at in range(1, 60):
        one, other = socket.socketpair()
        stream = getattr(fd.stream, kind)(one if plain else Slow(one))
        if method == "flush":
            stream.backlog = data
        failed = failing(at, getattr(stream, method), data if method == "try_write" else 0.0)
        other.setblocking(False)
        received = b""
        while stream.unsent() and not stream.torn:
            stream.flush(0.0)
            with contextlib.suppress(BlockingIOError):
                received += other.recv(len(data))
        stream.close()
        while more := other.recv(len(data)):
            received += more
        other.close()
        torn += stream.torn
        if stream.torn:
            assert failed
            assert data.startswith(received)
        elif received or method == "flush":
            assert received == data
        else:
            assert failed
    assert torn


def read_all(stream: Any, decoder: Any, came: list[Any]) -> None:
    while stream.read(decoder, None) > 0:
        while (message := decoder.pull()) is not None:
            came.append(message)


@pytest.mark.usefixtures("alone")
def test_lack_of_memory_while_reading_is_said_as_that(fd: ModuleType) -> None:
    """By a stream that tells the decoder again what came, since it may not have understood."""
    text = "a" * 500 + "é" * 20_000  # the memory for it is asked for when bytes have come
    failures = 0
    for at in range(1, 100):
        one, other = socket.socketpair()
        with one, other:
            other.sendall(frame(TEXT, text.encode()) + frame(BINARY, b"behind"))
            other.shutdown(socket.SHUT_WR)
            decoder = fd.codec.Decoder(masked=False)
            stream = fd.stream.SocketStream(Small(one))
            came: list[Any] = []
            if failing(at, read_all, stream, decoder, came):
                failures += 1
                with contextlib.suppress(MemoryError):
                    read_all(stream, decoder, came)
            assert came == [text, b"behind"][: len(came)]
    assert failures
