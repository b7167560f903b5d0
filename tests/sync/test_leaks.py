"""Nothing is left of a connection: no descriptor, no thread, no object, without the cycle collector."""

from __future__ import annotations

import gc
import logging
import os
import socket
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .links import eventually
from .serving import read_all, request, running

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc"),
]

KINDS = (
    "Connection",
    "Protocol",
    "Decoder",
    "Encoder",
    "FdStream",
    "SocketStream",
    "Condition",
    "Role",
    "PurePythonRole",
    "socket",
    "Event",
    "Ping",
    "Close",
    "ConnectionClosedOK",
    "traceback",
    "frame",
)


@pytest.fixture(autouse=True)
def _alone(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have no garbage collector, and a service that has nothing to do with other tests."""
    service = fd.sync.service.Service()
    monkeypatch.setattr(fd.sync.service, "_service", service)
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    service.stop()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident() -> int:
    """Give the memory in use, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def objects() -> Counter[str]:
    return Counter(
        name for name in (type(found).__name__ for found in gc.get_objects()) if name in KINDS
    )


def open_and_close(fd: ModuleType, how: int) -> None:
    """Live the life of a connection, which ends in one of several ways."""
    ours, theirs = socket.socketpair()
    with theirs:
        protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
        connection = fd.sync.connection.Connection(
            ours, protocol, close_timeout=0.2, ping_interval=None
        )
        theirs.sendall(b"\x81\x05hello\x89\x00")
        assert connection.recv() == "hello"
        connection.send("answer")
        if how == 0:  # the peer closes
            theirs.sendall(b"\x88\x02\x03\xe8")
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(fd.exceptions.ConnectionClosedOK):
                connection.recv()
        elif how == 1:  # we close
            theirs.sendall(b"\x88\x02\x03\xe8")
            theirs.shutdown(socket.SHUT_WR)
            connection.close()
        elif how == 2:  # the network fails, with a ping on its way
            connection.ping()
            theirs.close()
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                connection.recv()
        else:  # the peer breaks the rules
            theirs.sendall(b"\x83\x00")
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                connection.recv()
        connection.close()


def test_ten_thousand_connections_leave_nothing_behind(fd: ModuleType) -> None:
    count = 10_000 if fd.IMPLEMENTATION == "compiled" else 2_000
    service = fd.sync.service.get_service()
    for number in range(200):
        open_and_close(fd, number % 4)
    settle(service)
    before = (descriptors(), threading.active_count(), objects())
    memory = resident()
    for number in range(count):
        # The peer's violation is the quickest end; the others take turns among them.
        open_and_close(fd, 3 if number % 8 else number // 8 % 4)
    settle(service)
    assert (descriptors(), threading.active_count(), objects()) == before
    assert not service.watched
    assert resident() - memory < 8 << 20


def settle(service: Any) -> None:
    """Wait until the service has let go of what it had in hand, timers included."""
    eventually(lambda: not service._timers and not service._planned and not service.connections)
    eventually(lambda: not service._fresh and not service._asked and not service._ticking)


def test_a_closed_connection_is_freed_by_reference_counting(fd: ModuleType) -> None:
    service = fd.sync.service.get_service()
    settle(service)
    for how in range(4):
        open_and_close(fd, how)
        eventually(lambda: not service.connections)


def test_refused_connections_leave_nothing_behind(fd: ModuleType) -> None:
    before = descriptors()
    for _ in range(100):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
            with pytest.raises(ValueError):
                fd.sync.connection.Connection(ours, protocol, max_queue=(1, 2))
    assert descriptors() == before


def raising(*args: Any) -> None:
    raise ValueError("mine")


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (b"", {}),
        (b"GET ", {}),
        (b"GET / HTTP/1.1\r\nbad\r\n\r\n", {}),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", {}),
        (request(), {"process_request": raising}),
        (request(), {"process_response": raising}),
        (request(), {"origins": ["https://example.com"]}),
    ],
    ids=["nothing", "part", "garbage", "no upgrade", "request hook", "response hook", "origin"],
)
def test_a_refused_client_is_freed_by_reference_counting(
    fd: ModuleType, data: bytes, options: dict[str, Any]
) -> None:
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    counts: list[int] = []

    class Noted(fd.sync.server.ServerConnection):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.add(self)
            counts.append(len(made))

    logger = logging.getLogger("nobody.listens")
    logger.disabled = True  # those of pytest keep what they are told
    with running(fd, create_connection=Noted, logger=logger, **options) as run:
        for _ in range(3):
            with run.connect() as sock:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                read_all(sock)
        eventually(lambda: len(counts) == 3 and not made)
