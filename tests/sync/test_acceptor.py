"""The accept loop outlives everything that goes wrong, and ends when it is told to."""

from __future__ import annotations

import errno
import logging
import os
import resource
import select
import signal
import socket
import threading
import time
import types

import pytest

from .serving import TIMEOUT, echo, eventually, running

TRANSIENT = [
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ECONNABORTED,
    errno.EPROTO,
    errno.ENETDOWN,
    errno.EPERM,
]


class FaultyListener:
    """A listening socket whose accept() fails in prescribed ways, and then works."""

    def __init__(self, faults: list[int]) -> None:
        self.real = socket.create_server(("127.0.0.1", 0))
        self.faults = faults
        self.calls = 0

    def accept(self):
        self.calls += 1
        if self.faults:
            code = self.faults.pop(0)
            raise OSError(code, os.strerror(code))
        return self.real.accept()

    def __getattr__(self, name):
        return getattr(self.real, name)


class Loop:
    """An accept loop in a thread."""

    def __init__(self, fd, listening, dispatch=None, may_accept=lambda: True, logger=None):
        self.accepted = []
        self.acceptor = fd.sync.acceptor.Acceptor(
            [listening],
            dispatch or (lambda sock, address: self.accepted.append(sock)),
            may_accept,
            logger or logging.getLogger("fullduplex.server"),
        )
        self.error = None
        self.listening = listening
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            self.acceptor.run()
        except Exception as exc:
            self.error = exc

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.acceptor.stop()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        self.acceptor.close()
        self.listening.close()
        for sock in self.accepted:
            sock.close()


def connect(listening):
    return socket.create_connection(listening.getsockname(), TIMEOUT)


@pytest.mark.parametrize("code", TRANSIENT, ids=errno.errorcode.get)
def test_transient_failures(fd, caplog, code):
    listening = FaultyListener([code] * 3)
    start = time.monotonic()
    with Loop(fd, listening) as loop, connect(listening):
        eventually(lambda: loop.accepted)
    assert listening.calls >= 4
    # It rested three times, but said so only once.
    assert time.monotonic() - start >= 3 * fd.sync.acceptor.PAUSE
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert os.strerror(code) in record.message
    assert record.exc_info is None


def test_out_of_memory_in_accept(fd, caplog):
    class Failing(FaultyListener):
        def accept(self):
            if not self.calls:
                self.calls += 1
                raise MemoryError
            return super().accept()

    with Loop(fd, Failing([])) as loop, connect(loop.listening):
        eventually(lambda: loop.accepted)
    assert [record.message for record in caplog.records] == [
        "cannot accept connections: MemoryError; trying again"
    ]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EINTR], ids=errno.errorcode.get)
def test_nobody_is_there_any_more(fd, caplog, code):
    listening = FaultyListener([code])
    with Loop(fd, listening) as loop, connect(listening):
        eventually(lambda: loop.accepted)
    assert caplog.records == []


@pytest.mark.parametrize(
    "code", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK], ids=errno.errorcode.get
)
def test_hopeless_failures_end_the_loop(fd, code):
    listening = FaultyListener([code])
    with Loop(fd, listening) as loop, connect(listening):
        loop.thread.join(TIMEOUT)
    assert loop.error.errno == code


def test_failure_after_stop_is_none(fd):
    listening = FaultyListener([errno.EBADF])
    loop = Loop(fd, listening)
    loop.acceptor.stopped = True
    loop.acceptor._accept(listening)
    with loop:
        pass
    assert loop.error is None


def test_different_failures_are_all_told(fd, caplog):
    listening = FaultyListener([errno.EMFILE, errno.ENOMEM, errno.EMFILE])
    with Loop(fd, listening) as loop, connect(listening):
        eventually(lambda: loop.accepted)
    assert len(caplog.records) >= 2


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError(), OSError()]
)
def test_connection_that_cannot_be_served(fd, caplog, error):
    errors = [error, error]
    served = []

    def dispatch(sock, address):
        if errors:
            raise errors.pop()
        served.append(sock)

    listening = socket.create_server(("127.0.0.1", 0))
    with Loop(fd, listening, dispatch):
        for _ in range(2):
            with connect(listening) as client:
                assert client.recv(1) == b""
        with connect(listening):
            eventually(lambda: served)
    served[0].close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


def test_thread_that_cannot_start(fd, monkeypatch, caplog):
    """The whole server, with threads that fail to start at first."""
    real = threading.Thread.start
    failures = [2]

    def start(thread):
        if thread.name == "fullduplex handler" and failures[0]:
            failures[0] -= 1
            raise RuntimeError("can't start new thread")
        real(thread)

    with running(fd, echo) as run:
        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with run.connect() as sock:
                assert sock.recv(1) == b""
        monkeypatch.undo()
        assert not run.server._opening
        with run.dial() as client:
            client.send("x")
            assert client.recv() == "x"
    assert any("can't start new thread" in record.message for record in caplog.records)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_out_of_descriptors_for_real(fd, caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    seen = []

    def handler(connection):
        seen.append(connection)
        echo(connection)

    with running(fd, handler) as run:
        seen.append(run.dial())
        seen[0].close()
        # Whatever is made once is there now, and nothing is going to be closed.
        eventually(lambda: len(seen) == 2 and all(c.socket.fileno() == -1 for c in seen))
        client = socket.socket()
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        held = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, hard))
            while True:
                try:
                    held.append(os.dup(0))
                except OSError:
                    break
            client.settimeout(TIMEOUT)
            client.connect(run.address)
            eventually(lambda: any("cannot accept" in r.message for r in caplog.records))
        finally:
            for descriptor in held:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with run.dial(sock=client) as connection:
            connection.send("x")
            assert connection.recv() == "x"


def test_stop_ends_a_rest(fd):
    listening = FaultyListener([errno.EMFILE] * 10**6)
    with Loop(fd, listening), connect(listening):
        eventually(lambda: listening.calls)


def test_held_until_there_is_room(fd):
    room = [False]
    listening = socket.create_server(("127.0.0.1", 0))
    with Loop(fd, listening, may_accept=lambda: room[0]) as loop, connect(listening):
        eventually(lambda: loop.acceptor.held)
        assert loop.accepted == []
        room[0] = True
        loop.acceptor.ring()
        eventually(lambda: loop.accepted)
        assert not loop.acceptor.held


def test_ring_without_a_reason(fd):
    listening = socket.create_server(("127.0.0.1", 0))
    with Loop(fd, listening) as loop:
        for _ in range(1000):
            loop.acceptor.ring()
        with connect(listening):
            eventually(lambda: loop.accepted)


def test_ring_after_close(fd):
    listening = socket.create_server(("127.0.0.1", 0))
    with Loop(fd, listening) as loop:
        pass
    loop.acceptor.ring()
    loop.acceptor.stop()


def test_without_poll(fd, monkeypatch):
    """Windows has no poll()."""
    monkeypatch.setattr(fd.sync.acceptor, "select", types.SimpleNamespace(select=select.select))
    listening = socket.create_server(("127.0.0.1", 0))
    with Loop(fd, listening) as loop, connect(listening):
        eventually(lambda: loop.accepted)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no signals")
def test_signal_just_before_the_wait(fd, monkeypatch):
    """The system call is not interrupted then; still the handler runs at once."""
    listening = socket.create_server(("127.0.0.1", 0))
    acceptor = fd.sync.acceptor.Acceptor(
        [listening], print, lambda: True, logging.getLogger("fullduplex.server")
    )
    real = fd.sync.acceptor.make_waiter

    def make_waiter(fds):
        return lambda timeout: wait(fds)

    def wait(fds):
        # Delivered to another thread, it does not interrupt ours: as if it had come just before.
        thread = threading.Thread(
            target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        )
        thread.start()
        found = real(fds)(10 * TIMEOUT)
        thread.join()
        return found

    before = signal.signal(signal.SIGUSR1, lambda *_: acceptor.stop())
    monkeypatch.setattr(fd.sync.acceptor, "make_waiter", make_waiter)
    try:
        acceptor.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
        acceptor.close()
        listening.close()
    assert signal.set_wakeup_fd(-1) == -1


def test_wakeup_descriptor_of_somebody_else_is_left_alone(fd):
    listening = socket.create_server(("127.0.0.1", 0))
    acceptor = fd.sync.acceptor.Acceptor(
        [listening], print, lambda: True, logging.getLogger("fullduplex.server")
    )
    left, right = socket.socketpair()
    left.setblocking(False)
    signal.set_wakeup_fd(left.fileno())
    try:
        acceptor.stop()
        acceptor.run()
        assert signal.set_wakeup_fd(-1) == left.fileno()
    finally:
        signal.set_wakeup_fd(-1)
        for sock in (left, right, acceptor, listening):
            sock.close()
