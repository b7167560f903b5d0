"""Looking up names, and reaching one of several addresses."""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .peers import V4, V6, Peer, black_hole, dial, entry, free_port, no_leak, silent

# Looking up


def test_numbers_are_not_looked_up(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    look_up = fd.sync.dialing.look_up
    assert look_up("::1", 80, 1.0) == [(V6, ("::1", 80, 0, 0))]
    monkeypatch.setattr(socket, "getaddrinfo", None)
    assert look_up("192.0.2.1", 80, 1.0) == [(V4, ("192.0.2.1", 80))]


def test_localhost_needs_no_thread(fd: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", None)
    addresses = fd.sync.dialing.look_up("localhost", 80, 1.0)
    assert {address[1][0] for address in addresses} <= {"127.0.0.1", "::1"}


def test_a_name_is_looked_up_in_a_thread_if_there_is_a_deadline(
    fd: ModuleType, names: dict[str, Any]
) -> None:
    threads = []

    def found() -> Any:
        threads.append(threading.current_thread())
        return [entry("192.0.2.1", 80)]

    names["host.example"] = found
    for deadline in (None, time.monotonic() + 5):
        found_now = fd.sync.dialing.look_up("host.example", 80, deadline)
        assert found_now == [(V4, ("192.0.2.1", 80))]
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()
    assert threads[1].daemon


@pytest.mark.parametrize("limit", [3e6, 1e10, float("inf")])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "host.example", "several.example"])
def test_a_time_out_that_is_as_good_as_none(
    fd: ModuleType, names: dict[str, Any], host: str, limit: float
) -> None:
    """The system's calls do not take such numbers."""
    with Peer(silent) as peer:
        names["host.example"] = [entry("127.0.0.1", peer.port)]
        names["several.example"] = [entry("127.0.0.2", free_port()), entry("127.0.0.1", peer.port)]
        with dial(fd, host, peer.port, limit) as sock:
            assert sock.getpeername()[1] == peer.port
        options = fd.sync.dialing.DialOptions(timeout=limit)
        with fd.sync.dialing.dial(host, peer.port, options, None) as sock:
            assert sock.getpeername()[1] == peer.port
    with pytest.raises(ConnectionRefusedError, match="while connecting to 127"):
        dial(fd, "127.0.0.1", free_port(), limit)


def test_a_long_wait_is_made_of_short_ones(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fd.sync.dialing, "LONGEST", 0.01)

    def found() -> Any:
        time.sleep(0.05)
        return [entry("127.0.0.1", port)]

    names["slow.example"] = found
    with black_hole() as port:
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            dial(fd, "slow.example", port, 0.2)
        assert time.monotonic() - begin >= 0.2


def test_a_look_up_that_never_ends(fd: ModuleType, names: dict[str, Any]) -> None:
    release = threading.Event()

    def found() -> Any:
        release.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    names["slow.example"] = found
    try:
        with pytest.raises(TimeoutError, match=r"timed out while looking up 'slow\.example'"):
            fd.sync.client.connect("ws://slow.example", proxy=None, open_timeout=0.05)
    finally:
        release.set()


def test_a_look_up_when_there_are_no_more_threads(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    names["host.example"] = [entry("192.0.2.1", 80)]
    addresses = fd.sync.dialing.look_up("host.example", 80, time.monotonic() + 5)
    assert addresses == [(V4, ("192.0.2.1", 80))]


def test_failures_leave_nothing_for_the_cycle_collector(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unknown(socket.gaierror):
        pass

    left: list[weakref.ref[Any]] = []

    def fail() -> Any:
        exc = Unknown(socket.EAI_NONAME, "unknown")
        left.append(weakref.ref(exc))
        raise exc

    class Race(fd.sync.dialing._Race):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            left.append(weakref.ref(self))

    monkeypatch.setattr(fd.sync.dialing, "_Race", Race)
    port = free_port()
    with black_hole() as hole:
        names["two.example"] = [entry("127.0.0.1", port), entry("127.0.0.2", port)]
        names["hole.example"] = [entry("127.0.0.1", port), entry("127.0.0.1", hole)]
        names["host.invalid"] = fail
        gc.collect()
        gc.disable()
        try:
            for host in ("two.example", "hole.example", "host.invalid", "127.0.0.1"):
                with pytest.raises(OSError):
                    dial(fd, host, hole, timeout=0.1)
            assert [ref() for ref in left] == 4 * [None]
        finally:
            gc.enable()


def test_an_unknown_name(fd: ModuleType, names: dict[str, Any]) -> None:
    def fail() -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names["host.invalid"] = fail
    for timeout in (None, 5):
        with pytest.raises(socket.gaierror) as raised:
            fd.sync.client.connect("ws://host.invalid", proxy=None, open_timeout=timeout)
        assert str(raised.value) == (
            f"[Errno {socket.EAI_NONAME}] Name or service not known while looking up 'host.invalid'"
        )
        assert raised.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "a..b", "a\0b", "1::2::3", "x:y"])
def test_impossible_names(fd: ModuleType, host: str) -> None:
    with pytest.raises((socket.gaierror, ValueError)):
        dial(fd, host, 80)


def test_families_take_turns(fd: ModuleType) -> None:
    interleave = fd.sync.dialing.interleave
    six = [(V6, i) for i in range(4)]
    four = [(V4, i) for i in range(2)]
    assert interleave(six + four) == [six[0], four[0], six[1], four[1], six[2], six[3]]
    assert interleave(four + six) == [four[0], six[0], four[1], six[1], six[2], six[3]]
    assert interleave(six) == six
    assert interleave([]) == []


# One address


def test_one_address(fd: ModuleType) -> None:
    with Peer(silent) as peer, no_leak(fd), dial(fd, "127.0.0.1", peer.port) as sock:
        assert sock.getpeername() == ("127.0.0.1", peer.port)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_without_a_deadline(fd: ModuleType) -> None:
    with Peer(silent) as peer, dial(fd, "127.0.0.1", peer.port, timeout=None) as sock:
        assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_a_deadline_that_has_passed(fd: ModuleType, names: dict[str, Any]) -> None:
    with black_hole() as port, no_leak(fd):
        for host in ("127.0.0.1", "two.example"):
            names["two.example"] = [entry("127.0.0.1", port), entry("127.0.0.2", port)]
            with pytest.raises(TimeoutError, match=f"while connecting to {host}:{port}"):
                dial(fd, host, port, timeout=-1)


def test_the_address_behind_a_name_is_in_the_message(fd: ModuleType, names: dict[str, Any]) -> None:
    port = free_port()
    names["one.example"] = [entry("127.0.0.1", port)]
    with pytest.raises(ConnectionRefusedError, match=rf"one\.example:{port} \(127\.0\.0\.1:"):
        dial(fd, "one.example", port)
    with black_hole() as hole:
        names["one.example"] = [entry("127.0.0.1", hole)]
        with pytest.raises(TimeoutError, match=rf"one\.example:{hole} \(127\.0\.0\.1:"):
            dial(fd, "one.example", hole, timeout=0.05)


def test_timeout_limits_connecting_alone(fd: ModuleType) -> None:
    with black_hole() as port, no_leak(fd):
        for open_timeout in (None, 10):
            with pytest.raises(TimeoutError):
                fd.sync.client.connect(
                    f"ws://127.0.0.1:{port}", proxy=None, open_timeout=open_timeout, timeout=0.05
                )


def test_source_address(fd: ModuleType) -> None:
    with Peer(silent) as peer:
        source = ("127.0.0.1", free_port())
        with dial(fd, "127.0.0.1", peer.port, source_address=source) as sock:
            assert sock.getsockname() == source


def test_a_source_address_that_is_not_ours(fd: ModuleType) -> None:
    with Peer(silent) as peer, no_leak(fd):
        with pytest.raises(OSError, match=r"while connecting to 127\.0\.0\.1") as raised:
            dial(fd, "127.0.0.1", peer.port, source_address=("192.0.2.1", 0))
        assert raised.value.errno == errno.EADDRNOTAVAIL
        del raised
        assert peer.accepted == 0


def test_socket_options(fd: ModuleType) -> None:
    options = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 0),
    ]
    with Peer(silent) as peer:
        for host in ("127.0.0.1", "localhost"):
            with dial(fd, host, peer.port, socket_options=options) as sock:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0


def test_impossible_socket_options(fd: ModuleType) -> None:
    with Peer(silent) as peer, no_leak(fd):
        with pytest.raises(OSError, match=r"while connecting to 127\.0\.0\.1"):
            dial(fd, "127.0.0.1", peer.port, socket_options=[(12345, 12345, 1)])
        with pytest.raises(TypeError):
            dial(fd, "127.0.0.1", peer.port, socket_options=[("a", "b", "c")])


def test_all_errors(fd: ModuleType, names: dict[str, Any]) -> None:
    port = free_port()
    names["two.example"] = [entry("127.0.0.1", port), entry("127.0.0.2", port)]
    for host, count in (("127.0.0.1", 1), ("two.example", 2)):
        with no_leak(fd), pytest.raises(ExceptionGroup) as raised:
            dial(fd, host, port, all_errors=True)
        assert raised.value.message == f"could not connect to {host}:{port}"
        for exc in raised.value.exceptions:
            assert isinstance(exc, ConnectionRefusedError)
            assert "refused while connecting to 127.0.0." in str(exc)
        assert len(raised.value.exceptions) == count
        del raised


# Giving up from another thread


@pytest.mark.parametrize("timeout", [None, 10])
def test_cancel_while_connecting(fd: ModuleType, timeout: float | None) -> None:
    cancel = fd.sync.dialing.Cancel()
    with black_hole() as hole, no_leak(fd):
        timer = threading.Timer(0.05, cancel.cancel)
        timer.start()
        with pytest.raises(ConnectionAbortedError, match="cancelled"):
            dial(fd, "127.0.0.1", hole, timeout=timeout, cancel=cancel)
        timer.join()


def test_cancel_while_looking_up(fd: ModuleType, names: dict[str, Any]) -> None:
    release = threading.Event()
    cancel = fd.sync.dialing.Cancel()

    def found() -> Any:
        cancel.cancel()
        release.wait()
        return []

    names["slow.example"] = found
    try:
        with pytest.raises(ConnectionAbortedError, match="cancelled"):
            dial(fd, "slow.example", 80, timeout=None, cancel=cancel)
    finally:
        release.set()


def test_what_is_not_cancelled_goes_on(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fd.sync.dialing, "CANCEL_DELAY", 0.001)
    with Peer(silent) as peer, no_leak(fd):

        def found() -> Any:
            time.sleep(0.05)
            return [entry("127.0.0.1", peer.port)]

        names["slow.example"] = found
        with dial(fd, "slow.example", peer.port, cancel=fd.sync.dialing.Cancel()) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_cancel_aborts_a_stream(fd: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    stream = fd.stream.open_stream(ours)
    cancel = fd.sync.dialing.Cancel()
    cancel.cancel()
    cancel.attach(stream)
    assert theirs.recv(1) == b""
    assert stream.aborted
    stream.close()
    theirs.close()


# Unix sockets


def test_unix_socket_with_a_full_queue(fd: ModuleType, tmp_path: Path) -> None:
    dialing = fd.sync.dialing
    path = tmp_path / "s"
    clients = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        while True:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            if client.connect_ex(str(path)):
                break
        options = dialing.DialOptions()
        with no_leak(fd):
            with pytest.raises(TimeoutError, match=r"timed out while connecting to '.*/s'"):
                dialing.dial_unix(path, options, time.monotonic() + 0.05)
            cancel = dialing.Cancel()
            cancel.cancel()
            with pytest.raises(ConnectionAbortedError):
                dialing.dial_unix(path, options, None, cancel)
        timer = threading.Timer(0.05, lambda: clients.append(listener.accept()[0]))
        timer.start()
        clients.append(dialing.dial_unix(path, options, None))
        timer.join()
    for client in clients:
        client.close()


def test_an_interrupt_at_a_unix_socket(
    fd: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(socket.socket):
        def connect(self, address: Any) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(socket, "socket", Interrupted)
    with no_leak(fd), pytest.raises(KeyboardInterrupt):
        fd.sync.dialing.dial_unix(tmp_path / "s", fd.sync.dialing.DialOptions(), None)


# What is said about it


def test_explain(fd: ModuleType) -> None:
    explain: Callable[[BaseException, str], None] = fd.sync.dialing.explain
    where = "while testing"
    numbered = OSError(errno.ECONNREFUSED, "Connection refused")
    explain(numbered, where)
    assert str(numbered).endswith("Connection refused while testing")
    assert numbered.args == (errno.ECONNREFUSED, "Connection refused while testing")
    for plain in (TimeoutError("timed out"), fd.exceptions.InvalidMessage("timed out")):
        explain(plain, where)
        assert str(plain) == "timed out while testing"
    for fixed in (fd.exceptions.InvalidHeader("X"), TimeoutError(), ValueError(1, 2)):
        before = str(fixed)
        explain(fixed, where)
        assert str(fixed) == before
        assert fixed.__notes__ == [where]


def test_format_address(fd: ModuleType) -> None:
    format_address = fd.sync.dialing.format_address
    assert format_address(("192.0.2.1", 80)) == "192.0.2.1:80"
    assert format_address(("::1", 80, 0, 0)) == "[::1]:80"
    assert format_address("/run/socket") == "'/run/socket'"
    assert format_address(os.fsencode("/run/socket")) == "b'/run/socket'"
