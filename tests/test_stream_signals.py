"""Signals while a thread waits in a stream: the call goes on, or ends with the handler's exception."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .interrupting import interrupted_at
from .streams import SOON, arguments, fill, masked, read_exactly, tls_contexts, tls_pair


@pytest.fixture(params=["open_stream", "SocketStream"])
def pair(request: pytest.FixtureRequest, fd: ModuleType) -> Iterator[tuple[Any, Any]]:
    """Two connected streams: by the best means for a plain socket, and by the portable ones."""
    make = getattr(fd.stream, request.param)
    streams = tuple(make(sock) for sock in socket.socketpair())
    yield streams  # type: ignore[misc]
    for stream in streams:
        stream.close()


@pytest.fixture
def signals() -> Iterator[list[int]]:
    """Count SIGUSR1; a handler may be told to raise."""
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, stack: seen.append(number))
    yield seen
    signal.signal(signal.SIGUSR1, old)


def interrupt(count: int, seen: list[int], then: Any) -> threading.Thread:
    """Send signals to the main thread until so many were handled; then do something."""

    def run() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while len(seen) < count:
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0.002)
        then()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
@pytest.mark.parametrize("deadline", [None, 60])
def test_signals_do_not_end_a_read(pair: Any, signals: list[int], deadline: float | None) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    thread = interrupt(5, signals, lambda: pair[1].write(b"abc", None))
    assert pair[0].recv_into(memoryview(bytearray(10)), deadline) == 3
    thread.join()
    assert len(signals) >= 5


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize("method", ["write", "write_large", "write_masked"])
def test_signals_do_not_end_a_write(
    fd: ModuleType, pair: Any, signals: list[int], deadline: float | None, method: str
) -> None:
    if deadline is not None:
        deadline += time.monotonic()
    data = random.Random(1).randbytes(4_000_000)
    received: list[bytes] = []
    args = arguments(fd, method, data)
    expected = b"head" + data if method == "write_large" else data
    size = len(data) + 14 if method == "write_masked" else len(expected)
    thread = interrupt(5, signals, lambda: received.append(read_exactly(pair[1], size)))
    assert getattr(pair[0], method)(*args, deadline)
    thread.join()
    if method == "write_masked":
        decoder = fd.codec.Decoder(masked=True)
        decoder.feed(received[0])
        received = [decoder.pull()]
    assert received == [expected]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
@pytest.mark.parametrize("deadline", [None, 60])
@pytest.mark.parametrize(
    "what", ["recv_into", "read", "write", "write_large", "write_masked", "wait_writable"]
)
def test_exception_of_a_signal_handler_ends_the_call(
    fd: ModuleType, pair: Any, what: str, deadline: float | None
) -> None:
    """As Ctrl-C does."""

    class Stop(Exception):
        pass

    def stop(number: int, stack: Any) -> None:
        if not stopped:
            stopped.append(number)
            raise Stop

    def send() -> None:
        # One that comes while the call is not blocked yet is seen by nobody: so more than one.
        while not stopped:
            time.sleep(SOON)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    if deadline is not None:
        deadline += time.monotonic()
    stream = pair[0]
    fill(stream)
    args: tuple[Any, ...] = {
        "recv_into": (memoryview(bytearray(1)),),
        "read": (fd.codec.Decoder(masked=False),),
        "write": (b"a" * 1_000_000,),
        "write_large": (b"a", b"a" * 1_000_000),
        "write_masked": masked(fd, b"a" * 1_000_000),
        "wait_writable": (),
    }[what]
    stopped: list[int] = []
    old = signal.signal(signal.SIGUSR1, stop)
    thread = threading.Thread(target=send)
    try:
        with pytest.raises(Stop):
            thread.start()
            getattr(stream, what)(*args, deadline)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert stopped == [signal.SIGUSR1]


@contextlib.contextmanager
def layered(fd: ModuleType, layers: int, contexts: Any) -> Iterator[tuple[Any, Any]]:
    """Two connected streams with so many layers of TLS."""
    streams: Any = tuple(fd.stream.open_stream(sock) for sock in socket.socketpair())
    try:
        for _ in range(layers):
            streams = tls_pair(fd, streams, *contexts)
        yield streams
    finally:
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_what_came_before_a_handler_raised_is_not_lost(fd: ModuleType, layers: int) -> None:
    """Or, where OpenSSL does not say how much it was, that is known."""
    if fd.IMPLEMENTATION != "pure":
        pytest.skip("the compiled one runs no handlers")
    contexts = tls_contexts()
    gaps = place = 0
    interrupted = True
    while interrupted:
        with layered(fd, layers, contexts) as (stream, peer):
            decoder = fd.codec.Decoder(masked=False)
            peer.write(fd.codec.build_frame(2, b"first"), None)
            interrupted = interrupted_at(place, stream.read, decoder, None)
            peer.write(fd.codec.build_frame(2, b"second"), None)
            try:
                for expected in (b"first", b"second"):
                    while (message := decoder.pull()) is None:
                        stream.read(decoder, time.monotonic() + 60)
                    assert message == expected
            except ConnectionAbortedError:
                gaps += 1
        place += 1
    assert place > 5
    assert gaps <= layers * 5
