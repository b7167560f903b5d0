"""What users of other libraries suffered from, end to end: docs/needs.md has the list."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from types import ModuleType
from typing import Any

import pytest

from .links import Background, eventually, pair, reading
from .serving import certificates, echo, run_script, running

SIZE = 8 * 2**20


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_both_ends_send_large_messages_at_once(fd: ModuleType, secure: bool) -> None:
    contexts = certificates() if secure else None
    with (
        pair(fd, contexts, max_size=None, ping_interval=0.1, ping_timeout=20) as (client, server),
        Background(lambda: client.send(b"c" * SIZE)),
        Background(lambda: server.send(b"s" * SIZE)),
        Background(lambda: client.recv(30)) as at_client,
        Background(lambda: server.recv(30)) as at_server,
    ):
        assert at_client.result() == b"s" * SIZE
        assert at_server.result() == b"c" * SIZE


def test_both_ends_send_before_they_receive(fd: ModuleType) -> None:
    """What fits into no buffer on the way is taken by the service thread, up to max_queue."""
    with pair(fd, max_size=None) as (client, server):
        with Background(lambda: client.send(b"c" * SIZE)):
            server.send(b"s" * SIZE)
        assert client.recv(30) == b"s" * SIZE
        assert server.recv(30) == b"c" * SIZE


def test_idle_connections_wake_nobody(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    service = fd.sync.service.get_service()
    armed = fd.sync.service.ARMED
    with pair(fd, ping_interval=20) as one, pair(fd, ping_interval=20) as other:
        eventually(lambda: all(end._watch == armed for end in (*one, *other)))
        service._purge_at = 0  # timers that connections of other tests left behind
        service.wake()
        eventually(lambda: service._purge_at)
        waits: list[float | None] = []
        wait = service.watcher.wait

        def count(timeout: float | None) -> Any:
            waits.append(timeout)
            return wait(timeout)

        monkeypatch.setattr(service.watcher, "wait", count)
        before = time.process_time()
        time.sleep(0.3)
        # One look may be left over from before; and nothing here computes meanwhile.
        assert len(waits) <= 1
        assert time.process_time() - before < 0.15


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are those of POSIX")
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_an_interrupt_ends_recv_at_once_and_the_connection_stays_usable(
    fd: ModuleType, secure: bool
) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, frame: Any) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pair(fd, certificates() if secure else None) as (client, server):
            main = threading.get_ident()

            def kill() -> None:
                eventually(lambda: reading(client))
                signal.pthread_kill(main, signal.SIGUSR1)

            with Background(kill), pytest.raises(Interrupt):
                client.recv()
            server.send("and on it goes")
            assert client.recv(20) == "and on it goes"
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_connection_takes_one_descriptor_and_no_thread(fd: ModuleType) -> None:
    with pair(fd) as (client, server):
        server.send("all is started")
        client.recv(20)
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        with pair(fd) as (client, server):
            server.send("no more")
            assert client.recv(20) == "no more"
            assert len(os.listdir("/proc/self/fd")) - descriptors == 2
            assert threading.active_count() == threads
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_recv_with_no_time_gives_what_is_here_though_the_service_is_at_it(fd: ModuleType) -> None:
    with pair(fd) as (client, server):
        server.send("here")
        eventually(lambda: client._inbox)
        taken = threading.Event()

        def be_at_it() -> None:
            eventually(lambda: client._reader.try_acquire(fd.roles.SERVICE) == fd.roles.FREE)
            taken.set()
            time.sleep(0.02)
            client._reader.release()

        with Background(be_at_it):
            assert taken.wait(20)
            assert client.recv(0) == "here"


def test_a_closed_connection_is_freed_by_counting_references(fd: ModuleType) -> None:
    gc.collect()
    gc.disable()
    try:
        with running(fd, echo) as run:
            connection = fd.connect(f"ws://127.0.0.1:{run.address[1]}")
            connection.send("message")
            assert connection.recv(20) == "message"
            connection.close()
            reference = weakref.ref(connection)
            del connection
            eventually(lambda: reference() is None)
    finally:
        gc.enable()


def test_a_peer_can_always_read_our_close_frame(fd: ModuleType) -> None:
    """Data that is on its way to us must not make TCP reset the connection before it is read."""

    def leave(connection: Any) -> None:
        connection.close(4001, "read me")

    with running(fd, leave) as run:
        for _ in range(10):
            connection = fd.connect(f"ws://127.0.0.1:{run.address[1]}", compression=None)
            with pytest.raises(fd.exceptions.ConnectionClosed):
                for _ in range(50):
                    connection.send(b"x" * 10_000)
                connection.recv(20)
            connection.close()
            assert (connection.close_code, connection.close_reason) == (4001, "read me")


FORK = """
import os
import threading
import warnings

import fullduplex
from fullduplex.sync.client import connect
from fullduplex.sync.server import serve

warnings.simplefilter("ignore", DeprecationWarning)  # of fork() with threads, which is the point


def echo(connection):
    for message in connection:
        connection.send(message)


def exchange(connection, text):
    connection.send(text)
    assert connection.recv(10) == text
    assert connection.ping().wait(10)


server = serve(echo, "127.0.0.1", origins=[None])
serving = threading.Thread(target=server.serve_forever, daemon=True)
serving.start()
uri = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
for_parent, for_child = connect(uri), connect(uri)
exchange(for_parent, "before")
exchange(for_child, "before")
dropped, drop = os.pipe()
child = os.fork()
if child == 0:
    os.read(dropped, 1)
    exchange(for_child, "inherited")
    for_child.close()
    with connect(uri) as own:
        exchange(own, "own")
    os._exit(7)
del for_child  # else the parent's service thread would read what is for the child
os.write(drop, b"!")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
exchange(for_parent, "after")
for_parent.close()
server.shutdown()
print(fullduplex.IMPLEMENTATION)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork()")
def test_a_forked_child_uses_inherited_and_own_connections(fd: ModuleType) -> None:
    result = run_script(fd, FORK)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{fd.IMPLEMENTATION}\n"
