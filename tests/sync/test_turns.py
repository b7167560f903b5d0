"""Threads that take turns at reading (ext/fullduplex/turns.h): nobody waits for one who does not come back.

What makes connections take turns is a crowd before the interpreter lock; here every read counts as one. Pure Python has
no turns; the same has to hold there.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from ..streams import tcp_pair
from .links import Background, eventually
from .serving import TIMEOUT, certificates, echo, request, run_script, running


class Crowd:
    """Whether connections join, and how many have."""

    def __init__(self, fd: ModuleType) -> None:
        self.turns: Any = None
        # Without the interpreter lock there is nothing to take turns for.
        free = sysconfig.get_config_var("Py_GIL_DISABLED")
        if fd.IMPLEMENTATION == "compiled" and sys.platform == "linux" and not free:
            self.turns = importlib.import_module(f"{fd.__name__}._fdstream")._turns

    def set(self, crowd: int, patience: int, throng: int = 1000, stay: int = 10**6) -> None:
        turns = self.turns
        if turns is not None:
            turns.crowd, turns.patience, turns.throng, turns.stay = crowd, patience, throng, stay

    def get(self) -> tuple[int, int, int, int]:
        turns = self.turns
        return (
            (0, 0, 0, 0)
            if turns is None
            else (turns.crowd, turns.patience, turns.throng, turns.stay)
        )

    def expect(self, condition: Callable[[int], bool]) -> None:
        if self.turns is not None:
            eventually(lambda: condition(self.turns.members))


@pytest.fixture
def crowd(fd: ModuleType) -> Iterator[Crowd]:
    crowd = Crowd(fd)
    before = crowd.get()
    crowd.set(0, 1)
    yield crowd
    crowd.set(*before)


def exchange(connections: list[Any], rounds: int) -> None:
    for number in range(rounds):
        for connection in connections:
            connection.send(f"{number}")
        for connection in connections:
            assert connection.recv(TIMEOUT) == f"{number}"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_many_connections_are_all_answered(fd: ModuleType, crowd: Crowd, secure: bool) -> None:
    contexts = certificates() if secure else (None, None)
    with running(fd, echo, ssl=contexts[0]) as server:
        scheme, port = "wss" if secure else "ws", server.address[1]
        connections = [
            fd.connect(f"{scheme}://localhost:{port}", ssl=contexts[1], proxy=None)
            for _ in range(20)
        ]
        exchange(connections, 50)
        if not secure:
            crowd.expect(lambda members: members == 20)
        for connection in connections:
            connection.send("x" * 200_000)  # more than one read takes
        for connection in connections:
            assert connection.recv(TIMEOUT) == "x" * 200_000
            connection.close()
    crowd.expect(lambda members: members == 0)


def test_handlers_that_wait_for_something_else_hold_up_nobody(fd: ModuleType, crowd: Crowd) -> None:
    go_on = threading.Event()

    def handler(connection: Any) -> None:
        for message in connection:
            if message == "wait":
                go_on.wait(TIMEOUT)
            connection.send(message)

    with running(fd, handler) as server:
        connections = [server.dial() for _ in range(8)]
        exchange(connections, 5)
        *waiting, one, other = connections
        try:
            for connection in waiting:
                connection.send("wait")
            exchange([one, other], 20)
        finally:
            go_on.set()
        for connection in waiting:
            assert connection.recv(TIMEOUT) == "wait"
        exchange(connections, 5)
        for connection in connections:
            connection.close()


def test_a_thread_that_reads_two_connections_in_turn(fd: ModuleType, crowd: Crowd) -> None:
    """It waits for the one while it has the turn of the other."""
    with running(fd, echo) as server:
        one, other = server.dial(), server.dial()

        def talk() -> None:
            for number in range(50):
                one.send(f"{number}")
                assert one.recv() == f"{number}"
                other.send(f"{number}")
                assert other.recv() == f"{number}"

        with Background(talk):
            pass
        one.close()
        other.close()


def test_shutdown_wakes_those_that_wait_for_their_turn(fd: ModuleType, crowd: Crowd) -> None:
    ended: list[Any] = []

    def handler(connection: Any) -> None:
        try:
            while True:
                connection.send(connection.recv())
        except fd.exceptions.ConnectionClosed as exc:
            ended.append(exc.rcvd or exc.sent)

    with running(fd, handler) as server:
        connections = [server.dial() for _ in range(5)]
        exchange(connections, 5)
        crowd.expect(lambda members: members >= 5)
    assert [close.code for close in ended] == [1001] * 5
    for connection in connections:
        connection.close()
    crowd.expect(lambda members: members == 0)


def test_keepalive_cuts_a_peer_while_its_handler_waits_for_its_turn(
    fd: ModuleType, crowd: Crowd
) -> None:
    ended = threading.Event()

    def handler(connection: Any) -> None:
        try:
            while True:
                connection.send(connection.recv())
        except fd.exceptions.ConnectionClosedError:
            ended.set()

    with (
        running(fd, handler, ping_interval=0.5, ping_timeout=0.5) as server,
        server.connect() as sock,
    ):
        sock.sendall(request())
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += sock.recv(1)
        for _ in range(3):
            sock.sendall(b"\x82\x81\0\0\0\0!")
            assert sock.recv(3, socket.MSG_WAITALL) == b"\x82\x01!"
        crowd.expect(lambda members: members == 1)
        assert ended.wait(TIMEOUT)  # no ping has been answered


def test_connections_leave_when_they_are_alone(fd: ModuleType, crowd: Crowd) -> None:
    with running(fd, echo) as server, server.dial() as connection:
        exchange([connection], 5)
        crowd.expect(lambda members: members > 0)
        crowd.set(1000, 1000)
        exchange([connection], 600)
        crowd.expect(lambda members: members == 0)


def test_one_read_in_a_throng_is_enough_to_join(fd: ModuleType, crowd: Crowd) -> None:
    crowd.set(0, 1000)
    with running(fd, echo) as server, server.dial() as connection:
        exchange([connection], 20)
        crowd.expect(lambda members: members == 0)
        crowd.set(0, 1000, throng=0)
        exchange([connection], 2)
        # The server's; the client's reads have a time-out.
        crowd.expect(lambda members: members == 1)


def test_connections_leave_to_see_whether_the_crowd_is_still_there(
    fd: ModuleType, crowd: Crowd
) -> None:
    on, off = (0, 1), (1000, 1000)
    crowd.set(*on, stay=2)
    with running(fd, echo) as server, server.dial() as connection:
        # The server's reads, one without turns before each stay: 1 + 2, 1 + 4, 1 + 8, 1 + 16.
        exchange([connection], 20)
        crowd.expect(lambda members: members == 1)
        crowd.set(*off, stay=2)
        exchange([connection], 8)
        crowd.expect(lambda members: members == 1)
        exchange([connection], 10)
        crowd.expect(lambda members: members == 0)
        # After so many without a crowd it is another one: it begins with two turns again.
        exchange([connection], 300)
        crowd.set(*on, stay=2)
        exchange([connection], 1)
        crowd.expect(lambda members: members == 1)
        crowd.set(*off, stay=2)
        exchange([connection], 3)
        crowd.expect(lambda members: members == 0)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_the_main_thread_handles_signals_where_others_take_turns(
    fd: ModuleType, crowd: Crowd
) -> None:
    class Stop(Exception):
        pass

    def stop(number: int, stack: Any) -> None:
        if not stopped:
            stopped.append(number)
            raise Stop

    def send() -> None:
        while not stopped:
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    one, other = (fd.stream.open_stream(sock) for sock in tcp_pair())
    room = memoryview(bytearray(10))
    for _ in range(3):
        other.write(b"abc", None)
        with Background(lambda: one.recv_into(room, None)):
            pass
    crowd.expect(lambda members: members == 1)
    stopped: list[int] = []
    old = signal.signal(signal.SIGUSR1, stop)
    try:
        with Background(send), pytest.raises(Stop):
            one.recv_into(room, None)
    finally:
        signal.signal(signal.SIGUSR1, old)
        one.close()
        other.close()
    crowd.expect(lambda members: members == 0)


def test_a_stream_that_the_garbage_collector_frees_takes_no_turns_any_more(
    fd: ModuleType, crowd: Crowd
) -> None:
    class Holder:
        pass

    one, other = tcp_pair()
    holder = Holder()
    holder.stream, holder.itself = fd.stream.open_stream(one), holder  # type: ignore[attr-defined]
    for _ in range(3):
        other.sendall(b"abc")
        with Background(lambda: holder.stream.recv_into(memoryview(bytearray(9)), None)):  # type: ignore[attr-defined]
            pass
    crowd.expect(lambda members: members == 1)
    holder = None  # type: ignore[assignment]
    gc.collect()
    crowd.expect(lambda members: members == 0)
    one.close()
    other.close()


FORK = """
import os, sys, sysconfig, threading, warnings
import fullduplex
from fullduplex.sync.client import connect
from fullduplex.sync.server import serve

warnings.simplefilter("ignore", DeprecationWarning)
turns = None
free = sysconfig.get_config_var("Py_GIL_DISABLED")
if fullduplex.IMPLEMENTATION == "compiled" and sys.platform == "linux" and not free:
    from fullduplex._fdstream import _turns as turns
    turns.crowd, turns.patience, turns.stay = 0, 1, 10**6

def echo(connection):
    for message in connection:
        connection.send(message)

def start():
    server = serve(echo, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    return [connect(uri, proxy=None) for _ in range(4)]

def exchange(connections):
    for number in range(20):
        for connection in connections:
            connection.send(str(number))
        for connection in connections:
            assert connection.recv(10) == str(number)

parents = start()
exchange(parents)
assert turns is None or turns.members == 4, turns.members
child = os.fork()
if child == 0:
    assert turns is None or turns.members == 0, turns.members
    own = start()
    exchange(own)
    assert turns is None or turns.members == 4, turns.members
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
exchange(parents)
assert turns is None or turns.members == 4, turns.members
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_forked_child_takes_turns_of_its_own(fd: ModuleType) -> None:
    result = run_script(fd, FORK)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "done\n")
