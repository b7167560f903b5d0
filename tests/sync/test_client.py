"""The functions that users call, and their arguments."""

from __future__ import annotations

import functools
import inspect
import socket
import ssl
import warnings
from types import ModuleType
from typing import Any

import pytest

from .peers import (
    Peer,
    Recorder,
    black_hole,
    echo,
    frame,
    header,
    no_leak,
    read_frame,
    read_head,
    reply,
    serve_echo,
    switching,
)

FAST = {"proxy": None, "compression": None}


def connect_recorded(fd: ModuleType, path: str = "/", **kwargs: Any) -> str:
    """Connect to a server that accepts everybody, and give the request."""
    recorder = Recorder()
    with Peer(recorder) as peer, fd.sync.client.connect(peer.uri + path, **kwargs):
        pass
    return recorder.heads[0]


# A connection


def test_gives_an_open_connection(fd: ModuleType) -> None:
    with Peer(echo) as peer, no_leak(fd):
        websocket = fd.sync.client.connect(peer.uri + "/chat?room=1", **FAST)
        assert type(websocket) is fd.sync.client.ClientConnection
        assert websocket.state is fd.protocol.State.OPEN
        websocket.send("message")
        assert websocket.recv(timeout=5) == "message"
        assert websocket.request.path == "/chat?room=1"
        assert websocket.response.status_code == 101
        assert websocket.remote_address == ("127.0.0.1", peer.port)
        websocket.close()
        assert websocket.close_code == 1000


def test_a_connection_is_its_own_context_manager(fd: ModuleType) -> None:
    with Peer(echo) as peer:
        with fd.sync.client.connect(peer.uri, **FAST) as websocket:
            assert websocket.state is fd.protocol.State.OPEN
        assert websocket.state is fd.protocol.State.CLOSED


def test_the_names_are_at_the_top_level(fd: ModuleType) -> None:
    for name in ("connect", "unix_connect", "reconnect", "unix_reconnect", "ClientConnection"):
        assert getattr(fd, name) is getattr(fd.sync.client, name)
        assert name in fd.sync.client.__all__


def test_parameters_and_defaults(fd: ModuleType) -> None:
    parameters = inspect.signature(fd.sync.client.connect).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert next(iter(parameters)) == "uri"
    assert defaults == {
        "sock": None,
        "ssl": None,
        "server_hostname": None,
        "origin": None,
        "extensions": None,
        "subprotocols": None,
        "compression": "deflate",
        "additional_headers": None,
        "user_agent_header": fd.http11.USER_AGENT,
        "proxy": True,
        "proxy_ssl": None,
        "proxy_server_hostname": None,
        "open_timeout": 10,
        "ping_interval": 20,
        "ping_timeout": 20,
        "close_timeout": 10,
        "max_size": 2**20,
        "max_queue": 16,
        "logger": None,
        "create_connection": None,
        "legacy": None,
    }


def test_nodelay_is_set(fd: ModuleType) -> None:
    with Peer(echo) as peer, fd.sync.client.connect(peer.uri, **FAST) as websocket:
        option = websocket.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option != 0


def test_options_of_the_connection_arrive(fd: ModuleType) -> None:
    options = {"ping_interval": 3, "ping_timeout": 4, "close_timeout": 5, "max_size": (70, None)}
    with (
        Peer(echo) as peer,
        fd.sync.client.connect(peer.uri, **FAST, **options, max_queue=(9, 2)) as websocket,
    ):
        assert websocket.ping_interval == 3
        assert websocket.ping_timeout == 4
        assert websocket.close_timeout == 5
        assert websocket.protocol.decoder.max_message == 70


def test_keepalive_is_started(fd: ModuleType) -> None:
    pings = []

    def handler(sock: Any) -> None:
        sock.sendall(switching(read_head(sock)))
        pings.append(read_frame(sock))
        sock.sendall(frame(10, pings[0][1]) + frame(2, b"ping was here"))
        assert read_frame(sock)[0] in (8, 9)

    with (
        Peer(handler) as peer,
        fd.sync.client.connect(peer.uri, **FAST, ping_interval=0.05, close_timeout=1) as websocket,
    ):
        assert websocket.recv(timeout=5) == b"ping was here"
    assert pings[0][0] == 9


# The request


def test_request(fd: ModuleType) -> None:
    head = connect_recorded(fd, "/path?query")
    lines = head.split("\r\n")
    assert lines[0] == "GET /path?query HTTP/1.1"
    assert [line.partition(":")[0] for line in lines[1:-2]] == [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Extensions",
        "User-Agent",
    ]
    assert header(head, "User-Agent") == fd.http11.USER_AGENT


@pytest.mark.parametrize(
    "headers",
    [
        {"X-One": "1", "Cookie": "a=b"},
        [("X-One", "1"), ("Cookie", "a=b")],
    ],
)
def test_additional_headers(fd: ModuleType, headers: Any) -> None:
    for given in (headers, fd.Headers(headers)):
        head = connect_recorded(fd, additional_headers=given)
        assert header(head, "X-One") == "1"
        assert header(head, "Cookie") == "a=b"


def test_user_agent(fd: ModuleType) -> None:
    assert header(connect_recorded(fd, user_agent_header="Me/1"), "User-Agent") == "Me/1"
    assert header(connect_recorded(fd, user_agent_header=None), "User-Agent") is None
    additional = {"User-Agent": "Other/2"}
    for default in ("Me/1", None, fd.http11.USER_AGENT):
        head = connect_recorded(fd, additional_headers=additional, user_agent_header=default)
        assert header(head, "User-Agent") == "Other/2"


def test_origin(fd: ModuleType) -> None:
    assert header(connect_recorded(fd), "Origin") is None
    head = connect_recorded(fd, origin="https://example.com")
    assert header(head, "Origin") == "https://example.com"


def test_host_and_authorization_of_the_caller_replace_ours(fd: ModuleType) -> None:
    recorder = Recorder()
    headers = {"host": "example.com", "authorization": "Bearer token"}
    with Peer(recorder) as peer:
        uri = f"ws://user:secret@127.0.0.1:{peer.port}"
        fd.sync.client.connect(uri, **FAST, additional_headers=headers).close()
    assert header(recorder.heads[0], "Host") == "example.com"
    assert header(recorder.heads[0], "Authorization") == "Bearer token"


def test_credentials_of_the_uri(fd: ModuleType) -> None:
    recorder = Recorder()
    with Peer(recorder) as peer:
        uri = f"ws://user:p%40ss@127.0.0.1:{peer.port}"
        fd.sync.client.connect(uri, **FAST).close()
    assert header(recorder.heads[0], "Authorization") == "Basic dXNlcjpwQHNz"
    assert header(recorder.heads[0], "Host") == f"127.0.0.1:{peer.port}"


def test_iri(fd: ModuleType) -> None:
    recorder = Recorder()
    with Peer(recorder) as peer:
        address = ("127.0.0.1", peer.port)
        uri = "ws://bücher.example/größe?q=ä"
        fd.sync.client.connect(uri, **FAST, address=address).close()
    assert recorder.heads[0].startswith("GET /gr%C3%B6%C3%9Fe?q=%C3%A4 HTTP/1.1\r\n")
    assert header(recorder.heads[0], "Host") == "xn--bcher-kva.example"


# Negotiation


def test_compression(fd: ModuleType) -> None:
    offered = header(connect_recorded(fd), "Sec-WebSocket-Extensions")
    assert offered == "permessage-deflate; client_max_window_bits"
    head = connect_recorded(fd, compression=None)
    assert header(head, "Sec-WebSocket-Extensions") is None


def test_an_extension_of_the_caller_replaces_the_default(fd: ModuleType) -> None:
    factory = fd.extensions.permessage_deflate.ClientPerMessageDeflateFactory(
        client_max_window_bits=10
    )
    for compression in ("deflate", None):
        head = connect_recorded(fd, extensions=[factory], compression=compression)
        offered = header(head, "Sec-WebSocket-Extensions")
        assert offered == "permessage-deflate; client_max_window_bits=10"


def test_an_empty_list_of_extensions_gets_the_default(fd: ModuleType) -> None:
    offered = header(connect_recorded(fd, extensions=[]), "Sec-WebSocket-Extensions")
    assert offered == "permessage-deflate; client_max_window_bits"


def test_connections_do_not_share_compressors(fd: ModuleType) -> None:
    text = "the same text again and again, " * 5

    def handler(sock: Any) -> None:
        sock.sendall(switching(read_head(sock), "Sec-WebSocket-Extensions: permessage-deflate\r\n"))
        start = sock.recv(1)
        assert start == b"\xc1"  # compressed
        sock.sendall(start + frame(1, read_frame(sock, start)[1])[1:])
        serve_echo(sock)

    with (
        Peer(handler) as peer,
        fd.sync.client.connect(peer.uri, proxy=None) as one,
        fd.sync.client.connect(peer.uri, proxy=None) as two,
    ):
        for websocket in (one, two):
            websocket.send(text)
            assert websocket.recv(timeout=5) == text


def test_subprotocols(fd: ModuleType) -> None:
    def handler(sock: Any) -> None:
        head = read_head(sock)
        assert header(head, "Sec-WebSocket-Protocol") == "chat, superchat"
        sock.sendall(switching(head, "Sec-WebSocket-Protocol: superchat\r\n"))
        serve_echo(sock)

    with (
        Peer(handler) as peer,
        fd.sync.client.connect(peer.uri, **FAST, subprotocols=["chat", "superchat"]) as websocket,
    ):
        assert websocket.subprotocol == "superchat"


# Arguments that cannot be: nothing is connected, and a given socket is not closed


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"uri": "http://localhost"}, "InvalidURI"),
        ({"uri": "ws://localhost/#fragment"}, "InvalidURI"),
        ({"uri": "ws://localhost/\r\nX: y"}, "InvalidURI"),
        ({"ssl": ssl.create_default_context()}, ValueError),
        ({"compression": "zip"}, ValueError),
        ({"subprotocols": "chat"}, TypeError),
        ({"subprotocols": {"chat": 1}}, TypeError),
        ({"subprotocols": ["a b"]}, ValueError),
        ({"additional_headers": {"X: y\r\nZ": "1"}}, ValueError),
        ({"additional_headers": {"X": "y\r\nZ: 1"}}, "InvalidHeaderValue"),
        ({"user_agent_header": "x\r\ny"}, "InvalidHeaderValue"),
        ({"max_queue": (2, 8)}, ValueError),
        ({"timeuot": 3}, TypeError),
    ],
)
def test_impossible_arguments(fd: ModuleType, kwargs: dict[str, Any], error: Any) -> None:
    error = getattr(fd.exceptions, error) if isinstance(error, str) else error
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for function in (fd.sync.client.connect, fd.sync.client.reconnect):
            with pytest.raises(error):
                function(**{"uri": "ws://localhost", "sock": ours, **kwargs})
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):  # neither bytes nor the end
            theirs.recv(1)


def test_r14_no_byte_of_an_argument_can_forge_a_request(fd: ModuleType) -> None:
    """R14: what cannot stand in a request is found before anything is sent."""
    recorder = Recorder()
    evil = "x\r\nInjected: 1"
    with Peer(recorder) as peer:
        for kwargs in (
            {"additional_headers": {"X": evil}},
            {"additional_headers": {evil: "x"}},
            {"additional_headers": {"": "x"}},
            {"user_agent_header": evil},
            {"origin": evil},
            {"subprotocols": [evil]},
        ):
            with pytest.raises((ValueError, fd.exceptions.InvalidHeaderValue)):
                fd.sync.client.connect(peer.uri, **FAST, **kwargs)
        with pytest.raises(fd.exceptions.InvalidURI):
            fd.sync.client.connect(f"{peer.uri}/{evil}", **FAST)
        assert peer.accepted == 0
    assert recorder.heads == []


# A socket of the caller


def test_sock(fd: ModuleType) -> None:
    recorder = Recorder()
    with Peer(recorder) as peer, no_leak(fd):
        sock = socket.create_connection(("127.0.0.1", peer.port))
        with fd.sync.client.connect("ws://example.com:8000/x", sock=sock) as websocket:
            assert websocket.socket is sock
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            websocket.send("hello")
            assert websocket.recv(timeout=5) == "hello"
    assert header(recorder.heads[0], "Host") == "example.com:8000"


def test_sock_of_a_pair(fd: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with no_leak(fd):
        theirs.sendall(b"no HTTP\r\n\r\n")
        with pytest.raises(fd.exceptions.InvalidMessage):
            fd.sync.client.connect("ws://localhost", sock=ours)
        assert ours.fileno() == -1
    theirs.close()


def test_sock_is_closed_after_a_failure(fd: ModuleType) -> None:
    with Peer(Recorder(reply("403 Forbidden"))) as peer:
        sock = socket.create_connection(("127.0.0.1", peer.port))
        with pytest.raises(fd.exceptions.InvalidStatus):
            fd.sync.client.connect(peer.uri, sock=sock)
        assert sock.fileno() == -1


def test_a_closed_sock(fd: ModuleType) -> None:
    sock = socket.socket()
    sock.close()
    with pytest.raises(OSError):
        fd.sync.client.connect("ws://localhost", sock=sock)


# create_connection


def test_create_connection_subclass(fd: ModuleType) -> None:
    class Mine(fd.sync.client.ClientConnection):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.extra = "extra"

    with (
        Peer(echo) as peer,
        fd.sync.client.connect(peer.uri, **FAST, create_connection=Mine) as websocket,
    ):
        assert isinstance(websocket, Mine)
        assert websocket.extra == "extra"
        websocket.send(b"x")
        assert websocket.recv(timeout=5) == b"x"


def test_create_connection_gets_socket_protocol_and_options(fd: ModuleType) -> None:
    seen: dict[str, Any] = {}

    def make(sock: Any, protocol: Any, **options: Any) -> Any:
        seen.update(sock=sock, protocol=protocol, options=options)
        connection = fd.sync.client.ClientConnection(sock, protocol, **options)
        seen["state"] = protocol.state
        return connection

    with (
        Peer(echo) as peer,
        fd.sync.client.connect(peer.uri, **FAST, create_connection=make) as websocket,
    ):
        assert seen["sock"] is websocket.socket
        assert isinstance(seen["sock"], socket.socket)
        assert isinstance(seen["protocol"], fd.client.ClientProtocol)
        assert seen["state"] is fd.protocol.State.CONNECTING
        assert seen["options"] == {
            "ping_interval": 20,
            "ping_timeout": 20,
            "close_timeout": 10,
            "max_queue": 16,
        }


def test_create_connection_partial(fd: ModuleType) -> None:
    class Mine(fd.sync.client.ClientConnection):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any, label: str, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.label = label

    make = functools.partial(Mine, label="mine")
    with (
        Peer(echo) as peer,
        fd.sync.client.connect(peer.uri, **FAST, create_connection=make) as websocket,
    ):
        assert websocket.label == "mine"


def test_create_connection_with_tls(
    fd: ModuleType, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    class Mine(fd.sync.client.ClientConnection):  # type: ignore[name-defined, misc]
        pass

    with (
        Peer(echo, context=server_context) as peer,
        fd.sync.client.connect(
            peer.secure_uri, **FAST, ssl=client_context, create_connection=Mine
        ) as websocket,
    ):
        websocket.send("x")
        assert websocket.recv(timeout=5) == "x"


def test_a_failure_of_create_connection_closes_the_socket(fd: ModuleType) -> None:
    def make(*_: Any, **__: Any) -> Any:
        raise LookupError("not today")

    with Peer(echo) as peer, no_leak(fd), pytest.raises(LookupError, match="not today"):
        fd.sync.client.connect(peer.uri, **FAST, create_connection=make)


# legacy


def test_legacy(fd: ModuleType) -> None:
    with Peer(echo) as peer, warnings.catch_warnings():
        warnings.simplefilter("error")
        for legacy in (None, True):
            websocket = fd.sync.client.connect(peer.uri, **FAST, legacy=legacy)
            websocket.send("x")
            assert websocket.recv(timeout=5) == "x"
            websocket.close()
        reconnecting = fd.sync.client.connect(peer.uri, **FAST, legacy=False)
        assert isinstance(reconnecting, fd.sync.client.reconnect)
        with reconnecting as websocket:
            websocket.send("y")
            assert websocket.recv(timeout=5) == "y"


def test_legacy_false_connects_only_when_it_is_used(fd: ModuleType) -> None:
    with black_hole() as port:
        fd.sync.client.connect(f"ws://127.0.0.1:{port}", proxy=None, legacy=False)
