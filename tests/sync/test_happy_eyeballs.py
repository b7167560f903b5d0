"""Hosts with several addresses (RFC 8305)."""

from __future__ import annotations

import errno
import socket
import time
from types import ModuleType
from typing import Any

import pytest

from .peers import V4, V6, Peer, black_hole, dial, entry, free_port, no_leak, silent


def test_the_next_address_is_tried_at_once_when_one_fails(
    fd: ModuleType, names: dict[str, Any]
) -> None:
    with Peer(silent) as peer, no_leak(fd):
        names["three.example"] = [
            entry("::1", free_port()),
            entry("127.0.0.2", free_port()),
            entry("127.0.0.1", peer.port),
        ]
        begin = time.monotonic()
        with dial(fd, "three.example", peer.port) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)
        assert time.monotonic() - begin < fd.sync.dialing.ATTEMPT_DELAY


def test_the_next_address_is_tried_when_one_does_not_answer(
    fd: ModuleType, names: dict[str, Any]
) -> None:
    with Peer(silent) as peer, black_hole() as hole, no_leak(fd):
        names["two.example"] = [entry("127.0.0.1", hole), entry("127.0.0.1", peer.port)]
        begin = time.monotonic()
        with dial(fd, "two.example", peer.port) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)
        assert time.monotonic() - begin >= fd.sync.dialing.ATTEMPT_DELAY


def test_the_first_that_answers_wins(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fd.sync.dialing, "ATTEMPT_DELAY", 0.01)
    with Peer(silent) as peer, black_hole() as hole, no_leak(fd):
        names["many.example"] = [entry("127.0.0.1", hole)] * 5 + [entry("127.0.0.1", peer.port)]
        with dial(fd, "many.example", peer.port) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)
        peer.wait(lambda: peer.accepted == 1)


def test_no_address_answers(fd: ModuleType, names: dict[str, Any]) -> None:
    one, two = free_port(), free_port()
    names["two.example"] = [entry("127.0.0.1", one), entry("127.0.0.2", two)]
    with no_leak(fd):
        with pytest.raises(ConnectionRefusedError) as raised:
            dial(fd, "two.example", 80)
        text = str(raised.value)
        assert "while connecting to two.example:80 (127.0.0.1:" in text
        assert f"127.0.0.1:{one}: Connection refused" in text
        assert f"127.0.0.2:{two}: Connection refused" in text
        del raised


def test_the_most_telling_failure_is_raised(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    names["two.example"] = [entry("::1", port), entry("127.0.0.1", port)]
    real = socket.socket

    def no_ipv6(family: int = V4, *args: Any, **kwargs: Any) -> socket.socket:
        if family == V6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *args, **kwargs)

    monkeypatch.setattr(socket, "socket", no_ipv6)
    with pytest.raises(ConnectionRefusedError, match=r"\[::1\]:\d+: Address family"):
        dial(fd, "two.example", port)
    names["two.example"] = [entry("::1", port)] * 2
    with pytest.raises(OSError) as raised:
        dial(fd, "two.example", port)
    assert raised.value.errno == errno.EAFNOSUPPORT


def test_the_deadline_comes_before_any_address_answers(
    fd: ModuleType, names: dict[str, Any]
) -> None:
    with black_hole() as hole, no_leak(fd):
        port = free_port()
        names["three.example"] = [
            entry("127.0.0.2", port),
            entry("127.0.0.1", hole),
            entry("127.0.0.3", port),
        ]
        begin = time.monotonic()
        with pytest.raises(TimeoutError) as raised:
            dial(fd, "three.example", port, timeout=0.4)
        assert 0.4 <= time.monotonic() - begin < 3
        assert f"127.0.0.1:{hole}: no answer" in str(raised.value)
        assert f"127.0.0.3:{port}: Connection refused" in str(raised.value)
        del raised


def test_a_source_address_of_one_family(fd: ModuleType, names: dict[str, Any]) -> None:
    with Peer(silent) as peer:
        names["two.example"] = [entry("::1", peer.port), entry("127.0.0.1", peer.port)]
        with dial(fd, "two.example", peer.port, source_address=("127.0.0.1", 0)) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_a_failure_while_connecting_is_seen(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over a real network, where no answer comes at once."""
    real = socket.socket

    class Slow(real):  # type: ignore[valid-type, misc]
        def connect(self, address: Any) -> None:
            self.connect_ex(address)
            raise BlockingIOError(errno.EINPROGRESS, "in progress")

        def getsockopt(self, *args: Any) -> Any:
            if args == (socket.SOL_SOCKET, socket.SO_ERROR) and self.family == V6:
                return errno.ECONNRESET
            return super().getsockopt(*args)

    monkeypatch.setattr(socket, "socket", Slow)
    with Peer(silent) as peer, no_leak(fd):
        names["two.example"] = [entry("::1", peer.port), entry("127.0.0.1", peer.port)]
        with dial(fd, "two.example", peer.port) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)


def test_a_connection_that_is_made_at_once(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some systems do it on the loopback."""
    real = socket.socket

    class Fast(real):  # type: ignore[valid-type, misc]
        def connect(self, address: Any) -> None:
            self.setblocking(True)
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Fast)
    with Peer(silent) as peer, no_leak(fd):
        names["two.example"] = 2 * [entry("127.0.0.1", peer.port)]
        with dial(fd, "two.example", peer.port) as sock:
            assert sock.getpeername() == ("127.0.0.1", peer.port)
        assert peer.accepted <= 1


def test_the_systems_own_time_out(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(socket.socket):
        def connect(self, address: Any) -> None:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(socket, "socket", Late)
    names["two.example"] = 2 * [entry("127.0.0.1", 80)]
    for host in ("127.0.0.1", "two.example"):
        with pytest.raises(TimeoutError, match="Connection timed out while connect") as raised:
            dial(fd, host, 80)
        assert raised.value.errno == errno.ETIMEDOUT
        assert str(raised.value).count("while connecting") == 1


def test_waiting_without_poll(
    fd: ModuleType, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Peer(silent) as peer, black_hole() as hole, no_leak(fd):
        names["two.example"] = [entry("127.0.0.1", hole), entry("127.0.0.1", peer.port)]
        with monkeypatch.context() as patch:
            patch.delattr("select.poll")
            with dial(fd, "two.example", peer.port) as sock:
                assert sock.getpeername() == ("127.0.0.1", peer.port)
