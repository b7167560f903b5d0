"""Clients on Unix sockets."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import ModuleType

import pytest

from .peers import (
    Peer,
    Recorder,
    echo,
    free_port,
    no_leak,
)

FAST = {"proxy": None, "compression": None}


def test_unix_connect(fd: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    recorder = Recorder()
    with Peer(recorder, family=socket.AF_UNIX, path=path), no_leak(fd):
        for given in (path, str(path), bytes(path)):
            with fd.sync.client.unix_connect(given) as websocket:
                websocket.send("x")
                assert websocket.recv(timeout=5) == "x"
    assert recorder.heads[0].startswith("GET / HTTP/1.1\r\nHost: localhost\r\n")


def test_unix_connect_takes_a_uri(fd: ModuleType, tmp_path: Path) -> None:
    recorder = Recorder()
    with Peer(recorder, family=socket.AF_UNIX, path=tmp_path / "s"):
        fd.sync.client.unix_connect(tmp_path / "s", "ws://example.com/path").close()
        fd.sync.client.unix_connect(uri="ws://example.com/2", path=tmp_path / "s").close()
    assert recorder.heads[0].startswith("GET /path HTTP/1.1\r\nHost: example.com\r\n")
    assert recorder.heads[1].startswith("GET /2 HTTP/1.1\r\nHost: example.com\r\n")


def test_unix_connect_with_tls(
    fd: ModuleType,
    tmp_path: Path,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    recorder = Recorder()
    path = tmp_path / "s"
    with (
        Peer(recorder, family=socket.AF_UNIX, path=path, context=server_context),
        fd.sync.client.unix_connect(path, ssl=client_context) as websocket,
    ):
        websocket.send("x")
        assert websocket.recv(timeout=5) == "x"
    assert recorder.heads[0].startswith("GET / HTTP/1.1\r\nHost: localhost\r\n")


def test_unix_connect_with_a_socket(fd: ModuleType, tmp_path: Path) -> None:
    with Peer(echo, family=socket.AF_UNIX, path=tmp_path / "s"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "s"))
        fd.sync.client.unix_connect(sock=sock).close()
        assert sock.fileno() == -1


def test_unix_connect_needs_path_or_sock(fd: ModuleType) -> None:
    for function in (fd.sync.client.unix_connect, fd.sync.client.unix_reconnect):
        with pytest.raises(ValueError, match="missing path argument"):
            function()
        with (
            socket.socket(socket.AF_UNIX) as sock,
            pytest.raises(ValueError, match="path is incompatible with sock"),
        ):
            function("/path", sock=sock)


def test_unix_connect_never_takes_a_proxy(
    fd: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("http_proxy", proxy)
    with Peer(echo, family=socket.AF_UNIX, path=tmp_path / "s"):
        fd.sync.client.unix_connect(tmp_path / "s").close()
        fd.sync.client.unix_connect(tmp_path / "s", proxy=proxy).close()


def test_unix_socket_that_is_not_there(fd: ModuleType, tmp_path: Path) -> None:
    with no_leak(fd), pytest.raises(FileNotFoundError, match=r"while connecting to '.*/none'"):
        fd.sync.client.unix_connect(tmp_path / "none")
