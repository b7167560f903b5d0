"""What users of other libraries suffered from: a test for each need, named for what it prevents.

Needs that have a module of their own: 24, patched sockets, `test_monkey_patching`; 26, waiting for several
connections, `test_wait`; 34, subinterpreters, `test_processes`; Ctrl-C and fork with real processes, there too.
"""

from __future__ import annotations

import collections
import socket
import ssl
import sys
import sysconfig
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from .links import (
    BINARY,
    CONT,
    PING,
    PONG,
    TEXT,
    TIMEOUT,
    Background,
    eventually,
    link,
    pair,
    wait_reading,
    writing,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(params=["plain", "tls"])
def contexts(
    request: pytest.FixtureRequest,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> Contexts | None:
    return None if request.param == "plain" else (server_context, client_context)


def test_need_01_tls_read_and_written_by_two_threads_at_once_is_not_corrupted(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with pair(fd, (server_context, client_context)) as ends:
        messages = [bytes([number]) * 30_000 for number in range(60)]

        def send(connection: Any) -> None:
            for message in messages:
                connection.send(message)

        with Background(lambda: send(ends[0])), Background(lambda: send(ends[1])):
            receivers = [Background(lambda end=end: [end.recv() for _ in messages]) for end in ends]
            with receivers[0], receivers[1]:
                assert [receiver.result() for receiver in receivers] == [messages, messages]


def test_need_02_two_sided_64_mb_send_does_not_deadlock(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    size = 64 << 20
    data = bytes(size)
    with pair(fd, contexts, max_size=None, ping_interval=0.2, ping_timeout=TIMEOUT) as ends:
        for end in ends:
            end.start_keepalive()
        with (
            Background(lambda: ends[0].send(data)),
            Background(lambda: ends[1].send(data)),
            Background(lambda: len(ends[0].recv())) as other,
        ):
            assert len(ends[1].recv()) == size
            assert other.result() == size
        assert ends[0].state is fd.protocol.State.OPEN


def test_need_03_a_send_to_a_stalled_peer_times_out(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts, close_timeout=0.1, max_queue=1) as (client, server):
        data = bytes(16 << 20)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            client.send(data, timeout=0.1)
        assert time.monotonic() - begin < 10
        assert server.wait_closed(TIMEOUT)


def test_need_04_close_wakes_recv_of_another_thread(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts) as (client, _), Background(client.recv) as receiver:
        wait_reading(client)
        client.close()
        with pytest.raises(fd.exceptions.ConnectionClosedOK):
            receiver.result()


def test_need_05_close_with_unread_messages_does_not_deadlock(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts, close_timeout=0.5, max_queue=2) as (client, server):
        for number in range(100):
            server.send(str(number))
        begin = time.monotonic()
        client.close()
        assert time.monotonic() - begin < 10
        assert [client.recv() for _ in range(100)] == [str(number) for number in range(100)]


def test_need_06_sends_of_many_threads_do_not_interleave(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts) as (client, server):
        sizes = (0, 10, 1000, 17_000, 100_000)

        def send(number: int) -> None:
            for size in sizes:
                client.send(bytes([number]) * size)

        senders = [Background(lambda number=number: send(number)) for number in range(6)]
        for sender in senders:
            sender.__enter__()
        found = collections.Counter(server.recv() for _ in range(6 * len(sizes)))
        for sender in senders:
            sender.result()
        expected = collections.Counter(bytes([n]) * size for n in range(6) for size in sizes)
        assert found == expected


def test_need_07_one_thread_reads_while_another_writes(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with (
        pair(fd, contexts) as (client, server),
        Background(lambda: [server.send(server.recv()) for _ in range(200)]),
        Background(lambda: [client.recv() for _ in range(200)]) as reader,
    ):
        for number in range(200):
            client.send(str(number))
        assert reader.result() == [str(number) for number in range(200)]


def test_need_08_a_second_recv_is_an_error_and_corrupts_nothing(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts) as (client, server), Background(client.recv) as receiver:
        wait_reading(client)
        with pytest.raises(fd.exceptions.ConcurrencyError):
            client.recv()
        server.send("intact")
        assert receiver.result() == "intact"


def test_need_09_pings_are_answered_while_the_application_does_not_read(
    fd: ModuleType, contexts: Contexts | None
) -> None:
    with pair(fd, contexts) as (client, server):
        assert client.ping().wait(TIMEOUT)
        assert server.ping().wait(TIMEOUT)


def test_need_09_a_dead_peer_is_noticed_while_the_application_does_not_read(
    fd: ModuleType,
) -> None:
    with link(fd, ping_interval=0.02, ping_timeout=0.05) as (connection, _):
        assert connection.wait_closed(TIMEOUT)


def test_need_13_recv_into_does_not_allocate_for_the_caller(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        buffer = bytearray(100)
        view = memoryview(buffer)[10:]
        peer.send(BINARY, b"message")
        assert connection.recv_into(view) == 7
        assert buffer[10:17] == b"message"


@pytest.mark.parametrize("side", ["CLIENT", "SERVER"])
def test_need_13_a_large_message_is_sent_from_the_callers_memory(fd: ModuleType, side: str) -> None:
    data = bytearray(range(256)) * 4096
    before = bytes(data)
    with link(fd, side=side) as (connection, peer):
        with Background(lambda: connection.send(memoryview(data))):
            peer.expect(BINARY, before)
        assert data == before  # masking did not touch it


def test_need_14_utf8_is_checked_as_it_arrives(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        frame = fd.codec.build_frame(TEXT, b"\xff" + b"a" * 500_000)
        peer.sock.sendall(frame[:70_000])  # the rest never comes
        peer.expect_close(1007)
        peer.close()
        assert connection.wait_closed(TIMEOUT)


def test_need_15_messages_are_compressed_or_not_as_the_caller_says(fd: ModuleType) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate(False, False, 15, 15)
    with link(fd, extensions=[deflate]) as (connection, peer):
        data = b"a" * 10_000
        connection.send(data, compress=False)
        assert peer.expect(BINARY) == data
        connection.send(data, compress=True)
        assert len(peer.expect(BINARY)) < 100


def test_need_16_compressor_state_survives_concurrent_sends_and_control_frames(
    fd: ModuleType,
) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate
    texts = [f"{number} " + "compressible " * 50 for number in range(4)]
    with pair(fd) as (client, server):
        for end in (client, server):
            end.protocol.extensions = [deflate(False, False, 15, 15)]

        def send(text: str) -> None:
            for step in range(20):
                try:
                    client.send([text[:40], text[40:]] if step % 4 == 0 else text)
                except fd.exceptions.ConcurrencyError:
                    client.ping()

        senders = [Background(lambda text=text: send(text)) for text in texts]
        for sender in senders:
            sender.__enter__()
        for sender in senders:
            sender.result()
        client.send("end")
        received = list(iter(server.recv, "end"))
        assert set(received) == set(texts)


def test_need_27_a_recv_timeout_loses_nothing(fd: ModuleType, contexts: Contexts | None) -> None:
    with pair(fd, contexts) as (client, server):

        def send() -> None:
            for number in range(300):
                client.send(f"{number} " + "x" * (number * 100 % 20_000))

        received = []
        with Background(send):
            while len(received) < 300:
                try:
                    received.append(server.recv(timeout=(0, 1e-5, 1e-3)[len(received) % 3]))
                except TimeoutError:
                    continue
        assert [int(text.split()[0]) for text in received] == list(range(300))


def test_need_27_a_timeout_at_every_byte_of_a_message(fd: ModuleType) -> None:
    with link(fd) as (connection, peer):
        data = peer.frame(TEXT, b"frag", fin=False) + peer.frame(CONT, "mentß".encode())
        for place in range(len(data)):
            with pytest.raises(TimeoutError):
                connection.recv(timeout=0)
            peer.sock.sendall(data[place : place + 1])
        assert connection.recv(timeout=TIMEOUT) == "fragmentß"


def test_need_32_tiny_fragments_cost_the_attacker(fd: ModuleType) -> None:
    with link(fd, max_size=100_000) as (connection, peer):
        tiny = peer.frame(CONT, b"x", fin=False) * 10_000
        peer.send(BINARY, b"x", fin=False)
        for _ in range(9):
            peer.sock.sendall(tiny)
        peer.send(PING, b"read all?")
        peer.expect(PONG, b"read all?")
        assert sys.getsizeof(connection._inbox) < 10_000
        assert len(connection._fragments) == 0
        peer.send(CONT, b"end")
        assert len(connection.recv()) == 90_004


def test_need_32_an_inflate_bomb_ends_at_the_limit(fd: ModuleType) -> None:
    deflate = fd.extensions.permessage_deflate.PerMessageDeflate
    with link(fd, max_size=10_000, extensions=[deflate(True, True, 15, 15)]) as (connection, peer):
        bomb = deflate(True, True, 15, 15).encode(
            fd.frames.Frame(fd.frames.Opcode.BINARY, bytes(1 << 23)), compress=True
        )
        assert len(bomb.data) < 10_000
        peer.sock.sendall(fd.codec.build_frame(BINARY, bomb.data, rsv1=True))
        peer.expect_close(1009)
        peer.close()
        with pytest.raises(fd.exceptions.ConnectionClosedError) as caught:
            connection.recv()
        assert isinstance(caught.value.__cause__, fd.exceptions.PayloadTooBig)


def test_need_33_the_interpreter_lock_stays_off(fd: ModuleType) -> None:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("needs a free-threaded Python")
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


def test_need_02_a_blocked_send_stops_neither_pongs_nor_reading(fd: ModuleType) -> None:
    """Need 2 from the inside: no lock of the reader is held across a blocking write."""
    with (
        link(fd, small=True) as (connection, peer),
        Background(lambda: connection.send(bytes(1 << 20))),
    ):
        eventually(lambda: writing(connection))
        before = threading.active_count()
        for number in range(20):
            peer.send(TEXT, str(number).encode())
            assert connection.recv(timeout=TIMEOUT) == str(number)
        assert threading.active_count() == before
        peer.send(PING, b"answer me")
        peer.expect(BINARY, bytes(1 << 20))
        peer.expect(PONG, b"answer me")


def test_need_04_close_wakes_a_read_blocked_on_tcp(fd: ModuleType) -> None:
    """The peer is silent: only shutdown() can wake the thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        protocol = fd.protocol.Protocol(fd.protocol.Side.CLIENT)
        connection = fd.sync.connection.Connection(ours, protocol, close_timeout=0.1)
        with theirs, Background(connection.recv) as receiver:
            wait_reading(connection)
            connection.close()
            with pytest.raises(fd.exceptions.ConnectionClosedError):
                receiver.result()
