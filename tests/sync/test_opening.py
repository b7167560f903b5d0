"""Servers that do not do what they should, TLS, challenges, and time."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    answer,
    answer_and_stay,
    black_hole,
    echo,
    frame,
    free_port,
    full_socket,
    no_leak,
    read_head,
    reply,
    serve_echo,
    silent,
    switching,
)

FAST = {"proxy": None, "compression": None}


def notes(exc: BaseException) -> str:
    """Give an exception's message and its notes."""
    return "\n".join([str(exc), *getattr(exc, "__notes__", [])])


# Whatever the server says


def modified(old: str, new: str) -> Callable[[Any], None]:
    """Make a handler that sends the right response with something replaced."""

    def handler(sock: Any) -> None:
        data = switching(read_head(sock)).decode()
        assert old in data
        sock.sendall(data.replace(old, new).encode("latin-1"))
        silent(sock)

    return handler


@pytest.mark.parametrize(
    ("handler", "error", "message"),
    [
        (answer(b""), "InvalidMessage", "did not receive a valid HTTP response"),
        (answer(b"HTTP/1.1 101 Sw"), "InvalidMessage", "did not receive a valid HTTP response"),
        (answer_and_stay(b"SSH-2.0-OpenSSH_10\r\n"), "InvalidMessage", "SSH-2.0"),
        (answer_and_stay(b"\x15\x03\x01\x00\x02\x02\x46"), "InvalidMessage", "TLS"),
        (answer_and_stay(b"\x82\x05hello"), "InvalidMessage", "frame"),
        (answer_and_stay(b"HTTP/2 200 OK\r\n\r\n"), "InvalidMessage", "HTTP/2"),
        (answer_and_stay(b"HTTP/1.1 " + 9000 * b"x"), "StatusLineTooLong", "8192"),
        (
            answer_and_stay(b"HTTP/1.1 101 x\r\n" + 200 * b"A: b\r\n" + b"\r\n"),
            "TooManyHeaders",
            "128",
        ),
        (answer_and_stay(reply("404 Not Found")), "InvalidStatus", "HTTP 404"),
        (answer_and_stay(reply("200 OK", body="<html>")), "InvalidStatus", "HTTP 200"),
        (answer_and_stay(b"HTTP/1.1 101 x\r\n\r\n"), "InvalidUpgrade", "missing Connection"),
        (modified("Upgrade: websocket", "Upgrade: h2c"), "InvalidUpgrade", "h2c"),
        (modified("Accept: ", "Accept: x"), "InvalidHeaderValue", "Sec-WebSocket-Accept"),
        (modified("Sec-WebSocket-Accept", "X"), "InvalidHeader", "Sec-WebSocket-Accept"),
        (
            modified("Upgrade: w", "Sec-WebSocket-Extensions: x-unasked\r\nUpgrade: w"),
            "NegotiationError",
            "x-unasked",
        ),
        (
            modified("Upgrade: w", "Sec-WebSocket-Protocol: unasked\r\nUpgrade: w"),
            "NegotiationError",
            "unasked",
        ),
    ],
)
def test_what_is_no_opening_handshake(
    fd: ModuleType, handler: Callable[[Any], None], error: str, message: str
) -> None:
    with Peer(handler) as peer, no_leak(fd):
        with pytest.raises(getattr(fd.exceptions, error)) as raised:
            fd.sync.client.connect(peer.uri, **FAST)
        assert type(raised.value).__name__ == error
        assert message in str(raised.value)
        place = f"during the opening handshake with 127.0.0.1:{peer.port}"
        assert place in notes(raised.value)
        del raised


def test_messages_with_a_fixed_text_stay_as_they_are(fd: ModuleType) -> None:
    with (
        Peer(answer(reply("404 Not Found"))) as peer,
        pytest.raises(fd.exceptions.InvalidStatus) as raised,
    ):
        fd.sync.client.connect(peer.uri, **FAST)
    assert str(raised.value) == "server rejected WebSocket connection: HTTP 404"


def test_a_refusal_without_the_end_of_the_stream_is_raised_at_once(fd: ModuleType) -> None:
    with (
        Peer(answer_and_stay(reply("403 Forbidden", body="go away"))) as peer,
        pytest.raises(fd.exceptions.InvalidStatus) as raised,
    ):
        fd.sync.client.connect(peer.uri, **FAST, open_timeout=None)
    assert raised.value.response.status_code == 403
    assert raised.value.response.body == b"go away"


def test_the_body_of_a_refusal_without_length_ends_with_the_stream(fd: ModuleType) -> None:
    data = b"HTTP/1.1 503 Overloaded\r\n\r\ncome back later"
    with (
        Peer(answer(data)) as peer,
        pytest.raises(fd.exceptions.InvalidStatus) as raised,
    ):
        fd.sync.client.connect(peer.uri, **FAST)
    assert raised.value.response.body == b"come back later"


def test_a_refusal_whose_body_never_ends_is_still_a_refusal(fd: ModuleType) -> None:
    data = b"HTTP/1.1 503 Overloaded\r\nContent-Length: 100\r\n\r\ncome back"
    with Peer(answer_and_stay(data)) as peer, no_leak(fd):
        with pytest.raises(fd.exceptions.InvalidStatus, match="HTTP 503") as raised:
            fd.sync.client.connect(peer.uri, **FAST, open_timeout=0.2)
        assert raised.value.response.body == b"come back"
        del raised


def endless_refusal(sock: Any) -> None:
    """Refuse with an explanation that comes in tiny chunks, and never pauses."""
    read_head(sock)
    sock.sendall(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunks = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    try:
        while True:
            sock.sendall(chunks * 100)
    except OSError:
        pass  # the client has gone


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 2000000\r\n"])
def test_a_refusal_whose_body_is_too_large_is_still_a_refusal(
    fd: ModuleType, length: bytes, proxied: bool
) -> None:
    """The status decides what happens next; of the body there is what the limit allows."""
    refusal = b"HTTP/1.1 503 Overloaded\r\n" + length + b"\r\n" + b"x" * 2_000_000
    with Peer(answer(refusal)) as peer, no_leak(fd):
        arguments = {"proxy": f"http://127.0.0.1:{peer.port}"} if proxied else {"proxy": None}
        kind = fd.exceptions.InvalidProxyStatus if proxied else fd.exceptions.InvalidStatus
        with pytest.raises(kind) as raised:
            fd.sync.client.connect(peer.uri, compression=None, **arguments)
        assert raised.value.response.body == (b"" if length else b"x" * 2**20)
        assert isinstance(raised.value.__cause__, fd.exceptions.SecurityError)
        assert fd.client.process_exception(raised.value) is None
        del raised


@pytest.mark.parametrize("proxied", [False, True])
def test_a_refusal_that_never_pauses_is_cut_off(fd: ModuleType, proxied: bool) -> None:
    with Peer(endless_refusal) as peer, no_leak(fd):
        begin = time.monotonic()
        arguments = {"proxy": f"http://127.0.0.1:{peer.port}"} if proxied else {"proxy": None}
        kind = fd.exceptions.InvalidProxyStatus if proxied else fd.exceptions.InvalidStatus
        with pytest.raises(kind):
            fd.sync.client.connect(peer.uri, compression=None, open_timeout=0.3, **arguments)
        assert time.monotonic() - begin < 2


def test_a_reset_during_the_handshake(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        read_head(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    with Peer(handler) as peer, no_leak(fd):
        with pytest.raises(fd.exceptions.InvalidMessage) as raised:
            fd.sync.client.connect(peer.uri, **FAST)
        assert isinstance(raised.value.__cause__, EOFError)
        assert isinstance(raised.value.__cause__.__cause__, ConnectionResetError)
        assert fd.client.process_exception(raised.value) is None
        del raised


def test_a_server_that_goes_away_before_the_request_may_have_refused(fd: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(reply("503 Overloaded"))
    theirs.close()  # so that writing fails, and reading does not
    with pytest.raises(fd.exceptions.InvalidStatus, match="HTTP 503"):
        fd.sync.client.connect("ws://localhost", sock=ours)


def test_frames_behind_the_response_are_received(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        sock.sendall(switching(read_head(sock)) + frame(1, b"one") + frame(2, b"two")[:3])
        sock.sendall(frame(2, b"two")[3:])
        serve_echo(sock)

    with Peer(handler) as peer, fd.sync.client.connect(peer.uri, **FAST) as websocket:
        assert websocket.recv(timeout=5) == "one"
        assert websocket.recv(timeout=5) == b"two"


def test_a_response_in_pieces(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        for byte in switching(read_head(sock)):
            sock.sendall(bytes([byte]))
        serve_echo(sock)

    with Peer(handler) as peer, fd.sync.client.connect(peer.uri, **FAST) as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=5) == "x"


def test_interim_responses_are_skipped(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        head = read_head(sock)
        sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + switching(head))
        serve_echo(sock)

    with Peer(handler) as peer, fd.sync.client.connect(peer.uri, **FAST) as websocket:
        assert websocket.response.status_code == 101


# Time


def test_a_server_that_never_answers(fd: ModuleType) -> None:
    with Peer(silent) as peer, no_leak(fd):
        with pytest.raises(TimeoutError) as raised:
            fd.sync.client.connect(peer.uri, **FAST, open_timeout=0.1)
        assert str(raised.value) == (
            "timed out while waiting for the response "
            f"during the opening handshake with 127.0.0.1:{peer.port}"
        )
        del raised


def test_a_server_that_does_not_read(fd: ModuleType) -> None:
    with full_socket() as sock:
        with pytest.raises(TimeoutError, match="timed out while sending the request"):
            fd.sync.client.connect("ws://localhost", sock=sock, open_timeout=0.1)
        assert sock.fileno() == -1


def test_a_server_that_drips_is_cut_off(fd: ModuleType) -> None:
    ended = threading.Event()

    def handler(sock: Any) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        while not ended.wait(0.02):
            sock.sendall(b"X: y\r\n")

    with Peer(handler) as peer, no_leak(fd):
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            fd.sync.client.connect(peer.uri, **FAST, open_timeout=0.3)
        assert time.monotonic() - begin < 2
        ended.set()


def test_a_queue_that_is_full(fd: ModuleType) -> None:
    with (
        black_hole() as port,
        no_leak(fd),
        pytest.raises(TimeoutError, match=f"while connecting to 127.0.0.1:{port}"),
    ):
        fd.sync.client.connect(f"ws://127.0.0.1:{port}", **FAST, open_timeout=0.1)


def test_one_deadline_for_all_attempts(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        read_head(sock)
        time.sleep(0.1)
        sock.sendall(reply("302 Found", "Location: /again\r\n"))

    with Peer(handler) as peer:
        with pytest.raises(TimeoutError):
            fd.sync.client.connect(peer.uri, **FAST, open_timeout=0.25)
        assert 2 <= peer.accepted <= 3


def test_no_deadline(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        fd.sync.client.connect(peer.uri, **FAST, open_timeout=None).close()
        fd.sync.client.connect(f"ws://localhost:{peer.port}", **FAST, open_timeout=None).close()


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(silent, id="silent"),
        pytest.param(answer(b""), id="end"),
        pytest.param(answer(b"no HTTP\r\n"), id="no HTTP"),
        pytest.param(answer_and_stay(reply("403 Forbidden", body="no")), id="refused"),
    ],
)
def test_a_failure_leaves_nothing_for_the_cycle_collector(fd: ModuleType, handler: Any) -> None:
    made = []

    def make(*args: Any, **kwargs: Any) -> Any:
        connection = fd.sync.client.ClientConnection(*args, **kwargs)
        made.append(weakref.ref(connection))
        return connection

    with Peer(handler) as peer:
        gc.collect()
        gc.disable()
        try:
            with pytest.raises((TimeoutError, fd.exceptions.InvalidHandshake)) as raised:
                fd.sync.client.connect(peer.uri, **FAST, create_connection=make, open_timeout=0.1)
            del raised
            assert made[0]() is None
        finally:
            gc.enable()


# Refused, interrupted


def test_refused(fd: ModuleType) -> None:
    port = free_port()
    with no_leak(fd):
        with pytest.raises(ConnectionRefusedError) as raised:
            fd.sync.client.connect(f"ws://127.0.0.1:{port}", **FAST)
        assert str(raised.value).endswith(f"refused while connecting to 127.0.0.1:{port}")
        del raised


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
@pytest.mark.parametrize("where", ["connecting", "TLS", "handshake"])
def test_an_interrupt_leaves_no_socket(fd: ModuleType, where: str) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def handler(sock: Any) -> None:
        assert sock.recv(1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
        silent(sock)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Peer(handler) as peer, black_hole() as hole, no_leak(fd):
            uri = peer.uri
            if where == "TLS":
                uri = peer.secure_uri
            elif where == "connecting":
                uri = f"ws://127.0.0.1:{hole}"
                signal.setitimer(signal.ITIMER_REAL, 0.1)
            begin = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                fd.sync.client.connect(uri, **FAST, open_timeout=20)
            assert time.monotonic() - begin < 10
    finally:
        signal.signal(signal.SIGALRM, before)
