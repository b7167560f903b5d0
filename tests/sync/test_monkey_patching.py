"""With gevent in the place of threads and sockets, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = """
from gevent import monkey

monkey.patch_all()

import threading
import time

import fullduplex
from fullduplex.sync.client import connect
from fullduplex.sync.server import serve


def echo(connection):
    for message in connection:
        connection.send(message)


def client(number):
    with connect(f"ws://127.0.0.1:{port}", ping_interval=0.05) as connection:
        for round in range(20):
            connection.send(f"{number} {round}")
            assert connection.recv(10) == f"{number} {round}"
        large = str(number) * 900_000
        connection.send(large)
        assert connection.recv(10) == large
        assert connection.ping().wait(10)
        done.append(number)


done = []
server = serve(echo, "127.0.0.1", origins=[None])
serving = threading.Thread(target=server.serve_forever)
serving.start()
port = server.socket.getsockname()[1]
clients = [threading.Thread(target=client, args=(number,)) for number in range(3)]
for thread in clients:
    thread.start()
for thread in clients:
    thread.join()
server.shutdown()
serving.join()
print(fullduplex.IMPLEMENTATION, sorted(done))
"""


TWO_SENDERS = """
from gevent import monkey

monkey.patch_all()

import socket
import threading

import fullduplex
from fullduplex.protocol import Protocol, Side
from fullduplex.sync.connection import Connection

ours, theirs = socket.socketpair()
theirs.settimeout(20)
connection = Connection(ours, Protocol(Side.CLIENT), ping_interval=None)
senders = []
for size in (3_000_000, 3):
    senders.append(threading.Thread(target=connection.send, args=(bytes(size),)))
    senders[-1].start()
# The first is in the midst of its message, in the same thread of the system as the second.
senders[-1].join(0.1)
waiting = [sender.is_alive() for sender in senders]
size = 14 + 3_000_000 + 6 + 3
while size > 0:
    size -= len(theirs.recv(size))
for sender in senders:
    sender.join()
print(fullduplex.IMPLEMENTATION, waiting)
"""


@pytest.mark.parametrize(
    ("script", "output"), [(SCRIPT, [0, 1, 2]), (TWO_SENDERS, [True, True])], ids=["echo", "send"]
)
def test_gevent(fd: ModuleType, script: str, output: list[int]) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    environment = {
        **os.environ,
        "FULLDUPLEX_PURE_PYTHON": "1" if fd.IMPLEMENTATION == "pure" else "0",
        "PYTHONPATH": str(Path(fd.__file__ or "").parent.parent),
    }
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=50
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{fd.IMPLEMENTATION} {output}\n"


def test_a_patched_socket_waits_by_itself(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patched(socket.socket):
        """What gevent puts in the place of the class."""

    ends: tuple[Any, Any] = socket.socketpair()
    patched = Patched(fileno=ends[0].detach())
    monkeypatch.setattr(fd.stream, "socket", SimpleNamespace(socket=Patched))
    stream = fd.stream.open_stream(patched)
    assert type(stream) is fd.stream.SocketStream
    monkeypatch.undo()
    stream.close()
    ends[1].close()
