"""Servers that do not do what they should, TLS, challenges, and time."""

from __future__ import annotations

import datetime
import gc
import hashlib
import re
import signal
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import trustme

from .peers import (
    Peer,
    Recorder,
    TLSSocket,
    answer,
    answer_and_stay,
    black_hole,
    echo,
    frame,
    free_port,
    full_socket,
    header,
    no_leak,
    read_frame,
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
    with (
        Peer(answer_and_stay(data)) as peer,
        no_leak(fd),
        pytest.raises(fd.exceptions.InvalidStatus, match="HTTP 503"),
    ):
        fd.sync.client.connect(peer.uri, **FAST, open_timeout=0.2)


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
            with pytest.raises(KeyboardInterrupt):
                fd.sync.client.connect(uri, **FAST, open_timeout=10)
    finally:
        signal.signal(signal.SIGALRM, before)


# TLS


def test_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        Peer(echo, context=server_context) as peer,
        no_leak(fd),
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context) as websocket,
    ):
        websocket.send("secret")
        assert websocket.recv(timeout=5) == "secret"


def test_tls_by_default_trusts_the_system(
    fd: ModuleType,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Peer(echo, context=server_context) as peer:
        with no_leak(fd), pytest.raises(ssl.SSLCertVerificationError):
            fd.sync.client.connect(peer.secure_uri, **FAST)
        monkeypatch.setattr(ssl, "create_default_context", lambda: client_context)
        fd.sync.client.connect(peer.secure_uri, **FAST).close()


def test_tls_with_an_address(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer:
        uri = f"wss://127.0.0.1:{peer.port}"
        fd.sync.client.connect(uri, **FAST, ssl=client_context).close()


def test_tls_name(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    names = []
    server_context.sni_callback = lambda _, name, __: names.append(name)
    try:
        with Peer(echo, context=server_context) as peer:
            address = ("127.0.0.1", peer.port)
            for name in ("LOCALHOST", "localhost."):
                uri = f"wss://{name}"
                fd.sync.client.connect(uri, **FAST, ssl=client_context, address=address).close()
            fd.sync.client.connect(
                "wss://other.example",
                **FAST,
                ssl=client_context,
                server_hostname="localhost",
                address=address,
            ).close()
            sock = socket.create_connection(("127.0.0.1", peer.port))
            uri = "wss://localhost"
            fd.sync.client.connect(uri, **FAST, ssl=client_context, sock=sock).close()
    finally:
        server_context.sni_callback = None
    assert names == 4 * ["localhost"]


def test_tls_wrong_name(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Peer(echo, context=server_context) as peer, no_leak(fd):
        address = ("127.0.0.1", peer.port)
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            fd.sync.client.connect(
                "wss://other.example", **FAST, ssl=client_context, address=address
            )
        message = str(raised.value)
        assert "Hostname mismatch" in message
        assert "during the TLS handshake with other.example:443 via 127.0.0.1:" in message
        assert raised.value.verify_code == 62
        del raised


def test_tls_expired(fd: ModuleType, ca: trustme.CA, client_context: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    ca.issue_cert("localhost", not_before=past, not_after=past).configure_cert(context)
    with (
        Peer(echo, context=context) as peer,
        no_leak(fd),
        pytest.raises(ssl.SSLCertVerificationError, match="expired"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)


def test_tls_unknown_authority(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with (
        Peer(echo, context=context) as peer,
        no_leak(fd),
        pytest.raises(ssl.SSLCertVerificationError, match="TLS handshake with localhost"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(lambda sock: sock.recv(1), id="end of the stream"),
        pytest.param(lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="HTTP"),
    ],
)
def test_tls_with_a_server_without(
    fd: ModuleType, client_context: ssl.SSLContext, handler: Callable[[Any], None]
) -> None:
    with Peer(handler) as peer, no_leak(fd):
        with pytest.raises((ssl.SSLError, ConnectionResetError)) as raised:
            fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context)
        assert f"during the TLS handshake with localhost:{peer.port}" in str(raised.value)
        del raised


def test_tls_with_a_server_that_is_silent(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    with (
        Peer(silent) as peer,
        no_leak(fd),
        pytest.raises(TimeoutError, match="timed out during the TLS handshake with local"),
    ):
        fd.sync.client.connect(peer.secure_uri, **FAST, ssl=client_context, open_timeout=0.1)


def test_a_server_with_tls_for_a_client_without(
    fd: ModuleType, server_context: ssl.SSLContext
) -> None:
    with (
        Peer(echo, context=server_context) as peer,
        no_leak(fd),
        pytest.raises(fd.exceptions.InvalidMessage, match="valid HTTP response"),
    ):
        fd.sync.client.connect(f"ws://localhost:{peer.port}", **FAST)


def test_a_bad_server_hostname(fd: ModuleType, client_context: ssl.SSLContext) -> None:
    with (
        Peer(silent) as peer,
        no_leak(fd),
        pytest.raises(ValueError),
    ):
        fd.sync.client.connect(
            peer.secure_uri, **FAST, ssl=client_context, server_hostname=".example"
        )


# Challenges


def digest_params(head: str) -> dict[str, str]:
    value = header(head, "Authorization")
    assert value is not None and value.startswith("Digest ")
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|([^ ,]*))', value)
    return {name: quoted or plain for name, quoted, plain in pairs}


def challenge(nonce: str, extra: str = "") -> bytes:
    return reply(
        "401 Unauthorized",
        f'WWW-Authenticate: Digest realm="r", qop="auth", algorithm=SHA-256, nonce="{nonce}"'
        f"{extra}\r\n",
    )


def expected_response(params: dict[str, str], path: str) -> str:
    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1, ha2 = h("user:r:secret"), h(f"GET:{path}")
    return h(f"{ha1}:{params['nonce']}:{params['nc']}:{params['cnonce']}:auth:{ha2}")


def test_digest(fd: ModuleType) -> None:
    recorder = Recorder(challenge("n1"))
    with Peer(recorder) as peer, no_leak(fd):
        uri = f"ws://user:secret@127.0.0.1:{peer.port}/path?q"
        with fd.sync.client.connect(uri, **FAST) as websocket:
            assert websocket.response.status_code == 101
    first, second = recorder.heads
    assert header(first, "Authorization") == "Basic dXNlcjpzZWNyZXQ="
    params = digest_params(second)
    assert params["uri"] == "/path?q"
    assert params["response"] == expected_response(params, "/path?q")


def test_digest_with_a_stale_nonce(fd: ModuleType) -> None:
    recorder = Recorder(challenge("n1"), challenge("n2", ", stale=true"))
    with Peer(recorder) as peer:
        uri = f"ws://user:secret@127.0.0.1:{peer.port}/"
        fd.sync.client.connect(uri, **FAST).close()
    params = digest_params(recorder.heads[2])
    assert params["nonce"] == "n2"
    assert params["response"] == expected_response(params, "/")


def test_digest_for_ever_stale(fd: ModuleType) -> None:
    recorder = Recorder(*(challenge(f"n{i}", ", stale=true") for i in range(9)))
    with Peer(recorder) as peer:
        uri = f"ws://user:secret@127.0.0.1:{peer.port}/"
        with pytest.raises(fd.exceptions.InvalidStatus, match="401"):
            fd.sync.client.connect(uri, **FAST)
    assert len(recorder.heads) == 3


def test_digest_with_wrong_credentials(fd: ModuleType) -> None:
    recorder = Recorder(challenge("n1"), challenge("n2"))
    with Peer(recorder) as peer, no_leak(fd):
        uri = f"ws://user:wrong@127.0.0.1:{peer.port}/"
        with pytest.raises(fd.exceptions.InvalidStatus, match="401"):
            fd.sync.client.connect(uri, **FAST)
    assert len(recorder.heads) == 2


def test_digest_then_a_redirect(fd: ModuleType) -> None:
    recorder = Recorder(challenge("n1"), reply("302 Found", "Location: /new\r\n"))
    with Peer(recorder) as peer:
        uri = f"ws://user:secret@127.0.0.1:{peer.port}/old"
        fd.sync.client.connect(uri, **FAST).close()
    params = digest_params(recorder.heads[2])
    assert (params["uri"], params["nc"]) == ("/new", "00000002")
    assert params["response"] == expected_response(params, "/new")


def test_a_challenge_that_is_not_answered(fd: ModuleType) -> None:
    recorder = Recorder(*(4 * [challenge("n")]), reply("401 Unauthorized"))
    with Peer(recorder) as peer:
        credentials = f"ws://user:secret@127.0.0.1:{peer.port}"
        sock = socket.create_connection(("127.0.0.1", peer.port))
        for uri, kwargs in (
            (peer.uri, {}),  # no credentials
            (credentials, {"additional_headers": {"Authorization": "Bearer x"}}),
            (credentials, {"sock": sock}),  # no other socket
            (peer.uri, {"additional_headers": {"Authorization": "Bearer x"}}),
            (credentials, {}),  # no challenge
        ):
            with pytest.raises(fd.exceptions.InvalidStatus, match="401"):
                fd.sync.client.connect(uri, **FAST, **kwargs)
    assert len(recorder.heads) == 5


# TLS in TLS: what the streams have to do for it


def connect_in_tls(fd: ModuleType, port: int, context: ssl.SSLContext) -> Any:
    """Connect through TLS in TLS, as `connect()` does with an ``https://`` proxy."""
    stream = fd.stream.open_stream(socket.create_connection(("127.0.0.1", port)))
    deadline = time.monotonic() + 5
    for _ in range(2):
        stream = fd.stream.TLSStream(stream, context, server_hostname="localhost")
        stream.handshake(deadline)
    protocol = fd.client.ClientProtocol(fd.uri.parse_uri("wss://localhost/"))
    websocket = fd.sync.client.ClientConnection(stream, protocol)
    fd.sync.opening.shake_hands(stream, protocol, protocol.connect(), deadline)
    websocket._opened()
    return websocket


def send_at_once(sock: TLSSocket, *pieces: bytes) -> None:
    """Send pieces through TLS in TLS: each in records of its own, all of them in one packet."""
    outer = sock.raw
    for piece in pieces:
        sock.object.write(piece)
        outer.object.write(sock.outgoing.read())
    outer._flush()


def test_tls_in_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def handler(sock: Any) -> None:
        inner = TLSSocket(sock, server_context)
        frames = [frame(1, str(number).encode()) for number in range(40)]
        send_at_once(inner, switching(read_head(inner)), *frames)
        serve_echo(inner)

    with (
        Peer(handler, context=server_context) as peer,
        no_leak(fd),
        connect_in_tls(fd, peer.port, client_context) as websocket,
    ):
        for number in range(40):
            assert websocket.recv(timeout=5) == str(number)
        for size in (10, 100):
            websocket.send(size * "x")
            assert websocket.recv(timeout=5) == size * "x"


def test_tls_in_tls_is_read_to_its_end_when_nobody_waits(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """Decrypted bytes are in memory, at several levels: the socket need not become readable."""
    pongs = []

    def handler(sock: Any) -> None:
        inner = TLSSocket(sock, server_context)
        inner.sendall(switching(read_head(inner)))
        for _ in range(5):
            # A large message is received piece by piece, with nothing else in memory.
            large = b"\x82\x7e\xea\x60" + 60000 * b"y"
            pieces = (large[i : i + 6000] for i in range(0, len(large), 6000))
            send_at_once(inner, frame(2, b"x"), *pieces, frame(9, b"ping"))
            pongs.append(read_frame(inner))
        serve_echo(inner)

    with (
        Peer(handler, context=server_context) as peer,
        connect_in_tls(fd, peer.port, client_context) as websocket,
    ):
        peer.wait(lambda: len(pongs) == 5)
        for _ in range(5):
            assert websocket.recv(timeout=0) == b"x"
            assert websocket.recv(timeout=0) == 60000 * b"y"
    assert pongs == 5 * [(10, b"ping")]
