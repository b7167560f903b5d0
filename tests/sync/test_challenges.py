"""Servers that ask for credentials by Digest (RFC 7616)."""

from __future__ import annotations

import hashlib
import re
import socket
from types import ModuleType

import pytest

from .peers import (
    Peer,
    Recorder,
    header,
    no_leak,
    reply,
)

FAST = {"proxy": None, "compression": None}


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
