"""Keepalive pings, and what they measure."""

from __future__ import annotations

import socket
import sys
import time
from types import ModuleType

import pytest

from ..streams import tcp_pair
from .links import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Background,
    eventually,
    link,
    wait_reading,
    writing,
)


def test_pings_go_out_and_are_judged_by_their_pongs(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.03, ping_timeout=TIMEOUT) as (connection, peer):
        payloads = set()
        begin = time.monotonic()
        for _ in range(4):
            payload = peer.expect(PING)
            payloads.add(payload)
            peer.send(PONG, payload)
        assert time.monotonic() - begin > 0.06
        assert len(payloads) == 4
        eventually(lambda: connection.latency > 0)
        assert connection.state is fd.protocol.State.OPEN


def test_a_late_pong_does_not_put_off_the_next_ping(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.02, ping_timeout=TIMEOUT) as (connection, peer):
        payload = peer.expect(PING)
        first = connection._ping_due
        eventually(lambda: connection._ping_due > first)  # it has been looked for in vain
        peer.send(PONG, payload)
        peer.sock.settimeout(TIMEOUT / 4)
        assert peer.expect(PING) != payload


def test_nothing_is_sent_before_keepalive_starts(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        connection.ping_interval = 0.01
        with pytest.raises(TimeoutError):
            peer.sock.settimeout(0.05)
            peer.receive()
        peer.sock.settimeout(TIMEOUT)
        connection.start_keepalive()
        peer.expect(PING)


@pytest.mark.parametrize("receiving", [False, True])
def test_without_a_pong_the_connection_fails(fd: ModuleType, receiving: bool) -> None:
    with link(fd, ping_interval=0.02, ping_timeout=0.05) as (connection, peer):
        receiver = Background(connection.recv)
        if receiving:
            receiver.__enter__()
            wait_reading(connection)
        peer.expect(PING)
        assert peer.expect_close(1011) == "keepalive ping timeout"
        peer.expect_eof()
        assert connection.wait_closed(TIMEOUT)
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            receiver.result() if receiving else connection.recv()
        assert str(caught.value) == (
            "sent 1011 (internal error) keepalive ping timeout; no close frame received"
        )
        with pytest.raises(fd.exceptions.ConnectionClosedError):
            connection.send("too late")


def test_a_blocked_sender_is_woken_by_keepalive(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.02, ping_timeout=0.05, small=True) as (connection, _):
        with Background(lambda: connection.send(bytes(1 << 20))) as sender:
            eventually(lambda: writing(connection))
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                sender.result()
        assert connection.state is fd.protocol.State.CLOSED


def test_a_peer_that_does_not_read_is_not_excused_by_what_we_do_not_read(fd: ModuleType) -> None:
    """A few messages that a handler never asks for must not turn keepalive off for who blocks it in send()."""
    with link(fd, ping_interval=0.05, ping_timeout=0.1, max_queue=4, small=True) as (
        connection,
        peer,
    ):
        for _ in range(6):
            peer.send(TEXT, b"x")
        eventually(connection._inbox_full)
        with (
            Background(lambda: connection.send(bytes(1 << 20))) as sender,
            pytest.raises(fd.exceptions.ConnectionClosedError),
        ):
            sender.result()
        assert connection.state is fd.protocol.State.CLOSED


def test_a_peer_that_reads_is_excused_by_what_we_do_not_read(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.05, ping_timeout=0.1, max_queue=4) as (connection, peer):
        for _ in range(6):
            peer.send(TEXT, b"x")
        eventually(connection._inbox_full)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:  # sending all the time, and no pong can be seen
            connection.send(b"y")
            peer.receive()
        assert connection.state is fd.protocol.State.OPEN


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_that_leaves_no_time(fd: ModuleType, interval: float) -> None:
    protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="ping_interval"):
        fd.sync.connection.Connection(ours, protocol, ping_interval=interval)
    with pytest.raises(ValueError, match="ping_interval"):
        fd.sync.client.connect("ws://127.0.0.1:1", ping_interval=interval)
    with pytest.raises(ValueError, match="ping_interval"):
        fd.sync.server.serve(print, "127.0.0.1", 0, ping_interval=interval)


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the system does not say what was taken"
)
@pytest.mark.parametrize("unread", [False, True])
def test_a_large_frame_to_a_peer_that_reads_slowly(fd: ModuleType, unread: bool) -> None:
    """The ping waits behind it, for longer than a pong may take; but the peer takes bytes all the time."""
    ours, theirs = tcp_pair()
    theirs.settimeout(TIMEOUT)
    protocol = fd.protocol.Protocol(fd.protocol.Side.SERVER)
    with theirs:
        connection = fd.sync.connection.Connection(
            ours, protocol, ping_interval=0.1, ping_timeout=0.3, max_queue=1
        )
        connection.start_keepalive()
        if unread:
            for _ in range(3):
                theirs.sendall(b"\x81\x81\0\0\0\0x")
            eventually(connection._inbox_full)
        left = 1 << 25
        with Background(lambda: connection.send(bytes(left))) as sender:
            end = time.monotonic() + 1.0
            while left > 0:
                chunk = theirs.recv(1 << 17)
                assert chunk
                left -= len(chunk)
                if time.monotonic() < end:
                    time.sleep(0.01)
            sender.result()
    connection.close()


def test_without_a_ping_timeout_it_never_fails(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.01, ping_timeout=None) as (connection, peer):
        assert len({peer.expect(PING) for _ in range(5)}) == 5
        assert connection.state is fd.protocol.State.OPEN
        peer.send(TEXT, b"alive")
        assert connection.recv() == "alive"


def test_a_pong_is_read_though_a_writer_is_blocked(fd: ModuleType) -> None:
    """The ping waits for the end of the message that is being written, and is not held against the peer."""
    with link(fd, ping_interval=0.05, ping_timeout=TIMEOUT, small=True) as (connection, peer):
        with Background(lambda: connection.send(bytes(1 << 19))):
            eventually(lambda: writing(connection))
            eventually(lambda: connection.protocol.control)
            peer.expect(BINARY, bytes(1 << 19))
            peer.send(PONG, peer.expect(PING))
        eventually(lambda: connection.latency > 0)


def test_latency_is_zero_until_a_pong_and_also_measured_by_hand(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        assert connection.latency == 0
        event = connection.ping()
        payload = peer.expect(PING)
        assert connection.latency == 0
        peer.send(PONG, b"unsolicited")
        peer.send(PONG, payload)
        assert event.wait(TIMEOUT)
        assert 0 < connection.latency < TIMEOUT


def test_unread_messages_are_not_held_against_the_peer(fd: ModuleType) -> None:
    """The application does not read, so we do not either: the pong may be behind what is unread."""
    with link(fd, ping_interval=0.02, ping_timeout=0.05, max_queue=2) as (connection, peer):
        for number in range(10):
            peer.send(TEXT, b"%d" % number)
        eventually(lambda: connection._inbox_full())
        payload = peer.expect(PING)
        peer.send(PONG, payload)
        with pytest.raises(TimeoutError):
            peer.sock.settimeout(0.3)
            while True:
                peer.send(PONG, peer.expect(PING))
        peer.sock.settimeout(TIMEOUT)
        assert connection.state is fd.protocol.State.OPEN
        assert [connection.recv() for _ in range(10)] == [str(number) for number in range(10)]
        peer.close()


def test_keepalive_of_many_connections_by_one_thread(fd: ModuleType) -> None:
    with link(fd, ping_interval=0.03, ping_timeout=TIMEOUT) as (one, peer_one):  # noqa: SIM117
        with link(fd, ping_interval=0.02, ping_timeout=0.05) as (two, peer_two):
            peer_two.expect(PING)
            assert two.wait_closed(TIMEOUT)
            peer_one.send(PONG, peer_one.expect(PING))
            assert one.state is fd.protocol.State.OPEN


@pytest.mark.parametrize("interval", [None, 0.2])
def test_violation_behind_a_message_that_is_taken_late(
    fd: ModuleType, monkeypatch: pytest.MonkeyPatch, interval: float | None
) -> None:
    """The peer is told what it did, though nobody asks for more; and not that a pong was missing."""
    monkeypatch.setattr(fd.sync.core, "VIOLATION_GRACE", 0.1)
    with link(fd, ping_interval=interval, ping_timeout=0.2) as (connection, peer):
        peer.send(TEXT, b"one")
        peer.send(0x3)
        eventually(lambda: connection._violation is not None)
        if interval is None:
            time.sleep(0.3)  # past the grace, with the message still there
            assert connection.state is fd.protocol.State.OPEN
        else:
            eventually(lambda: connection.state is not fd.protocol.State.OPEN)
        assert connection.recv(0) == "one"
        while (opcode := peer.receive())[0] == PING:
            pass
        assert (opcode[0], opcode[2][:2]) == (CLOSE, (1002).to_bytes(2, "big"))
        peer.close()
