"""`route`: which handler serves which path."""

from __future__ import annotations

import sys

import pytest
from werkzeug.routing import Map, Rule

from .responses import headers_of, status_of
from .serving import TIMEOUT, certificates, quiet, request, running_server


def tell(connection, **kwargs):
    connection.send(repr(sorted(kwargs.items())))


def url_map() -> Map:
    return Map(
        [
            Rule("/plain", endpoint=lambda c: c.send("plain")),
            Rule("/channel/<int:number>", endpoint=tell),
            Rule("/name/<name>", endpoint=tell),
            Rule("/slash/", endpoint=quiet),
            Rule("/old", redirect_to="/plain"),
            Rule("/default", endpoint=tell, defaults={"a": 1}),
        ]
    )


def routing(fd, *args, unix=None, **kwargs):
    router = fd.sync.router
    if unix is not None:
        return running_server(fd, router.unix_route(url_map(), unix, **kwargs))
    return running_server(fd, router.route(url_map(), "127.0.0.1", 0, **kwargs))


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/plain", "plain"),
        ("/plain?a=b", "plain"),
        ("/channel/42", "[('number', 42)]"),
        ("/name/f%C3%BC%20x", "[('name', 'fü x')]"),
        ("/default", "[('a', 1)]"),
    ],
)
def test_route(fd, path, answer):
    with routing(fd) as run, run.dial(path) as client:
        assert client.recv(TIMEOUT) == answer


@pytest.mark.parametrize("base", ["http://ex.com", "WS://me@[::1]:80"])
def test_absolute_form(fd, base):
    """Proxies may send it, and servers must take it (RFC 9112 §3.2.2)."""
    with routing(fd) as run:
        sent = request(f"{base}/channel/42?q=/slash")
        with run.connect() as sock:
            sock.sendall(sent)
            assert sock.recv(12) == b"HTTP/1.1 101"
        for path in ("", "?/plain", "/no"):
            assert status_of(run.exchange(request(base + path))) == 404
        response = run.exchange(request(f"{base}/slash?a=b", host="other.com"))
    host = base.partition("://")[2].removeprefix("me@")
    if "[" not in host:  # what werkzeug makes of IPv6 addresses varies
        assert headers_of(response)["location"] == f"ws://{host}/slash/?a=b"


@pytest.mark.parametrize("path", ["/", "/channel/x", "/plain/", "*", "//plain/..", "/%00"])
def test_no_match(fd, path):
    with routing(fd) as run:
        assert status_of(run.exchange(request(path))) == 404


@pytest.mark.parametrize("host", ["localhost", "ex.com:8080", "[::1]", "a" * 70 + ".com"])
def test_redirect(fd, host):
    with routing(fd) as run:
        response = run.exchange(request("/slash?a=%20b", host=host))
    assert status_of(response) in (302, 404)
    if status_of(response) == 302:
        assert headers_of(response)["location"] == f"ws://{host}/slash/?a=%20b"


def test_redirect_of_a_rule(fd):
    with routing(fd, server_name="example.com") as run:
        response = run.exchange(request("/old"))
    assert status_of(response) == 302
    assert headers_of(response)["location"] == "ws://example.com/plain"


def test_redirect_without_host(fd):
    with routing(fd) as run:
        response = run.exchange(request("/slash").replace(b"Host: localhost", b"X: y"))
    assert status_of(response) in (302, 404)


@pytest.mark.parametrize("path", ["/slash%0d%0aSet-Cookie:%20a", "/name/%0d%0a/", "/%0aslash"])
def test_r14_no_header_comes_out_of_a_path(fd, caplog, path):
    with routing(fd) as run:
        response = run.exchange(request(path))
    assert status_of(response) == 404
    assert b"Set-Cookie" not in response
    assert not [record for record in caplog.records if record.exc_info]


def test_r14_the_target_of_a_redirect_is_quoted(fd):
    rules = Map([Rule("/x/<path:rest>/", endpoint=quiet)])
    with running_server(fd, fd.sync.router.route(rules, "127.0.0.1", 0)) as run:
        response = run.exchange(request("/x/a%20%C3%BC%3Cb%09"))
    assert status_of(response) == 302
    assert headers_of(response)["location"] == "ws://localhost/x/a%20%C3%BC%3Cb%09/"


def test_ssl_true_is_for_locations_only(fd):
    with routing(fd, ssl=True) as run:
        response = run.exchange(request("/slash"))
    assert headers_of(response)["location"] == "wss://localhost/slash/"


def test_ssl_context(fd):
    server_context, client_context = certificates()
    with routing(fd, ssl=server_context) as run:
        tls = client_context.wrap_socket(run.connect(), server_hostname="localhost")
        with run.dial("/plain", sock=tls) as client:
            assert client.recv(TIMEOUT) == "plain"


def test_unix_route(fd, tmp_path):
    with routing(fd, unix=tmp_path / "socket", server_name="example.com", ssl=True) as run:
        with run.dial("/plain") as client:
            assert client.recv(TIMEOUT) == "plain"
        assert headers_of(run.exchange(request("/slash")))["location"].startswith(
            "wss://example.com/"
        )


def test_process_request_comes_first(fd):
    def process_request(connection, request):
        if request.path == "/plain":
            return connection.respond(200, "mine")
        connection.seen = True
        return None

    with routing(fd, process_request=process_request) as run:
        assert run.exchange(request("/plain")).endswith(b"mine")
        with run.dial("/channel/1") as client:
            assert client.recv(TIMEOUT) == "[('number', 1)]"
        assert status_of(run.exchange(request("/nope"))) == 404


def test_create_router(fd):
    made = []

    class Mine(fd.sync.router.Router):
        def __init__(self, *args):
            made.append(args)
            super().__init__(*args)

        def not_found(self, connection):
            return connection.respond(410, "gone")

    with routing(fd, create_router=Mine, server_name="x") as run:
        assert status_of(run.exchange(request("/nope"))) == 410
    assert made[0][1:] == ("x", "ws")


def test_without_werkzeug(fd, monkeypatch):
    monkeypatch.setitem(sys.modules, "werkzeug.routing", None)
    with pytest.raises(ImportError):
        fd.sync.router.route(url_map(), "127.0.0.1", 0)
