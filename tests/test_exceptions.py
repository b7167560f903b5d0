"""Texts, attributes and the tree of exceptions."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from types import SimpleNamespace

import pytest


def response(status):
    """Stand in for a response: the texts need nothing but its status."""
    return SimpleNamespace(status_code=status)


def close(fd, code, reason=""):
    return fd.frames.Close(code, reason)


# (how to make it, its text)
TEXTS = [
    (lambda fd, e: e.WebSocketException("anything"), "anything"),
    # Close frames
    (
        lambda fd, e: e.ConnectionClosed(close(fd, 1000), close(fd, 1000), True),
        "received 1000 (OK); then sent 1000 (OK)",
    ),
    (
        lambda fd, e: e.ConnectionClosed(close(fd, 1000), close(fd, 1001, "Bye!"), False),
        "sent 1001 (going away) Bye!; then received 1000 (OK)",
    ),
    (
        lambda fd, e: e.ConnectionClosedError(None, close(fd, 1011)),
        "sent 1011 (internal error); no close frame received",
    ),
    (
        lambda fd, e: e.ConnectionClosedError(close(fd, 3000), None),
        "received 3000 (registered); no close frame sent",
    ),
    (lambda fd, e: e.ConnectionClosedError(None, None), "no close frame received or sent"),
    (
        lambda fd, e: e.ConnectionClosedOK(close(fd, 1005), close(fd, 1005), True),
        (
            "received 1005 (no status received [internal]); "
            "then sent 1005 (no status received [internal])"
        ),
    ),
    # URIs
    (
        lambda fd, e: e.InvalidURI("|", "not at all!"),
        "| isn't a valid URI: not at all!",
    ),
    (
        lambda fd, e: e.InvalidProxy("|", "not at all!"),
        "| isn't a valid proxy: not at all!",
    ),
    # Opening handshake
    (lambda fd, e: e.InvalidHandshake("handshake"), "handshake"),
    (lambda fd, e: e.SecurityError("security"), "security"),
    (lambda fd, e: e.RequestLineTooLong("line"), "line"),
    (lambda fd, e: e.StatusLineTooLong("line"), "line"),
    (lambda fd, e: e.HeaderLineTooLong("line"), "line"),
    (lambda fd, e: e.TooManyHeaders("headers"), "headers"),
    (lambda fd, e: e.ProxyError("proxy"), "proxy"),
    (lambda fd, e: e.InvalidProxyMessage("message"), "message"),
    (lambda fd, e: e.InvalidProxyStatus(response(407)), "proxy rejected connection: HTTP 407"),
    (lambda fd, e: e.InvalidMessage("message"), "message"),
    (lambda fd, e: e.InvalidMethod("POST"), "unsupported HTTP method: POST"),
    (lambda fd, e: e.InvalidProtocol("HTTP/1.0"), "unsupported HTTP version: HTTP/1.0"),
    (
        lambda fd, e: e.InvalidStatus(response(404)),
        "server rejected WebSocket connection: HTTP 404",
    ),
    (lambda fd, e: e.InvalidHeader("Name"), "missing Name header"),
    (lambda fd, e: e.InvalidHeader("Name", None), "missing Name header"),
    (lambda fd, e: e.InvalidHeader("Name", ""), "empty Name header"),
    (lambda fd, e: e.InvalidHeader("Name", "Value"), "invalid Name header: Value"),
    (
        lambda fd, e: e.InvalidHeaderFormat("Sec-WebSocket-Protocol", "exp. token", "a=|", 3),
        "invalid Sec-WebSocket-Protocol header: exp. token at 3 in a=|",
    ),
    (
        lambda fd, e: e.InvalidHeaderValue("Sec-WebSocket-Version", "42"),
        "invalid Sec-WebSocket-Version header: 42",
    ),
    (
        lambda fd, e: e.InvalidOrigin("http://bad.origin"),
        "invalid Origin header: http://bad.origin",
    ),
    (lambda fd, e: e.InvalidOrigin(None), "missing Origin header"),
    (lambda fd, e: e.InvalidUpgrade("Upgrade"), "missing Upgrade header"),
    (lambda fd, e: e.InvalidUpgrade("Connection", "close"), "invalid Connection header: close"),
    (lambda fd, e: e.NegotiationError("no common subprotocol"), "no common subprotocol"),
    (lambda fd, e: e.DuplicateParameter("a"), "duplicate parameter: a"),
    (lambda fd, e: e.InvalidParameterName("|"), "invalid parameter name: |"),
    (lambda fd, e: e.InvalidParameterValue("a", None), "missing value for parameter a"),
    (lambda fd, e: e.InvalidParameterValue("a", ""), "empty value for parameter a"),
    (lambda fd, e: e.InvalidParameterValue("a", "|"), "invalid value for parameter a: |"),
    # Open connection
    (lambda fd, e: e.ProtocolError("invalid opcode: 7"), "invalid opcode: 7"),
    (lambda fd, e: e.PayloadTooBig(None, 4), "frame exceeds limit of 4 bytes"),
    (lambda fd, e: e.PayloadTooBig(8, 4), "frame with 8 bytes exceeds limit of 4 bytes"),
    (
        lambda fd, e: e.PayloadTooBig(8, 4, 12),
        "frame with 8 bytes after reading 12 bytes exceeds limit of 16 bytes",
    ),
    (
        lambda fd, e: e.PayloadTooBig(None, 0, current_size=12),
        "frame after reading 12 bytes exceeds limit of 12 bytes",
    ),
    (lambda fd, e: e.TooManyFragments(4096), "message exceeds limit of 4096 fragments"),
    (lambda fd, e: e.InvalidState("connection is CLOSED"), "connection is CLOSED"),
    (lambda fd, e: e.ConcurrencyError("get in line"), "get in line"),
]

# Children of every class with children, and what is not a child of ours alone
TREE = {
    "WebSocketException": [
        "ConnectionClosed",
        "InvalidURI",
        "InvalidProxy",
        "InvalidHandshake",
        "ProtocolError",
        "PayloadTooBig",
        "TooManyFragments",
        "InvalidState",
        "ConcurrencyError",
    ],
    "ConnectionClosed": ["ConnectionClosedOK", "ConnectionClosedError"],
    "InvalidHandshake": [
        "SecurityError",
        "ProxyError",
        "InvalidMessage",
        "InvalidMethod",
        "InvalidProtocol",
        "InvalidStatus",
        "InvalidHeader",
        "NegotiationError",
    ],
    "SecurityError": [
        "RequestLineTooLong",
        "StatusLineTooLong",
        "HeaderLineTooLong",
        "TooManyHeaders",
    ],
    "ProxyError": ["InvalidProxyMessage", "InvalidProxyStatus"],
    "InvalidHeader": [
        "InvalidHeaderFormat",
        "InvalidHeaderValue",
        "InvalidOrigin",
        "InvalidUpgrade",
    ],
    "NegotiationError": ["DuplicateParameter", "InvalidParameterName", "InvalidParameterValue"],
}
BUILTIN_BASES = {
    "WebSocketException": Exception,
    "InvalidState": AssertionError,
    "ConcurrencyError": RuntimeError,
}


@pytest.mark.parametrize(("make", "text"), TEXTS, ids=[text for _, text in TEXTS])
def test_text(fd, make, text):
    assert str(make(fd, fd.exceptions)) == text


@pytest.mark.parametrize(("make", "text"), TEXTS, ids=[text for _, text in TEXTS])
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda exc: pickle.loads(pickle.dumps(exc))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies_are_equal(fd, make, text, duplicate):
    exc = make(fd, fd.exceptions)
    twin = duplicate(exc)
    assert type(twin) is type(exc)
    assert str(twin) == text
    assert vars(twin) == vars(exc)


def test_every_class_has_a_text_under_test(fd):
    assert {type(make(fd, fd.exceptions)).__name__ for make, _ in TEXTS} == set(
        fd.exceptions.__all__
    )


def test_all_names_every_exception(fd):
    defined = {
        name
        for name, value in vars(fd.exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert defined == set(fd.exceptions.__all__)


def test_tree(fd):
    found = {}
    for name in fd.exceptions.__all__:
        for base in getattr(fd.exceptions, name).__bases__:
            if base.__module__ == fd.exceptions.__name__:
                found.setdefault(base.__name__, set()).add(name)
            else:
                assert base is BUILTIN_BASES[name]
    assert found == {parent: set(children) for parent, children in TREE.items()}


@pytest.mark.parametrize(("name", "base"), BUILTIN_BASES.items())
def test_builtin_bases(fd, name, base):
    assert base in getattr(fd.exceptions, name).__bases__


def test_docstring_draws_the_tree_as_it_is(fd):
    parents = {}
    path = []
    for line in fd.exceptions.__doc__.splitlines():
        if match := re.match(r"    ((?:[│├└─ ]{4})*)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    expected = {child: parent for parent, children in TREE.items() for child in children}
    assert parents == {"WebSocketException": None, **expected}


def test_attributes_of_connection_closed(fd):
    rcvd, sent = close(fd, 1000), close(fd, 1001)
    exc = fd.exceptions.ConnectionClosedOK(rcvd, sent, rcvd_then_sent=True)
    assert exc.rcvd is rcvd
    assert exc.sent is sent
    assert exc.rcvd_then_sent is True
    assert fd.exceptions.ConnectionClosed(None, sent).rcvd_then_sent is None


def test_code_and_reason_of_connection_closed(fd):
    """As older code asks for what the peer said."""
    exc = fd.exceptions.ConnectionClosedError(fd.frames.Close(4000, "enough"), None)
    assert (exc.code, exc.reason) == (4000, "enough")
    exc = fd.exceptions.ConnectionClosedError(None, close(fd, 1000))
    assert (exc.code, exc.reason) == (1006, "")


def test_attributes_of_invalid_header_format(fd):
    exc = fd.exceptions.InvalidHeaderFormat("Upgrade", "expected token", "=", 0)
    assert exc.name == "Upgrade"
    assert exc.value == "expected token at 0 in ="


def test_attributes_of_invalid_origin(fd):
    exc = fd.exceptions.InvalidOrigin("null")
    assert (exc.name, exc.value) == ("Origin", "null")


def test_response_of_rejections(fd):
    refusal = response(503)
    assert fd.exceptions.InvalidStatus(refusal).response is refusal
    assert fd.exceptions.InvalidProxyStatus(refusal).response is refusal


def test_payload_too_big_learns_what_came_before(fd):
    exc = fd.exceptions.PayloadTooBig(8, 4)
    exc.current_size = 12
    assert "after reading 12 bytes exceeds limit of 16" in str(exc)
    assert exc.max_size == 4


@pytest.mark.parametrize(
    ("name", "args", "attributes"),
    [
        ("InvalidURI", ("u", "m"), {"uri": "u", "msg": "m"}),
        ("InvalidProxy", ("p", "m"), {"proxy": "p", "msg": "m"}),
        ("InvalidMethod", ("PUT",), {"method": "PUT"}),
        ("InvalidProtocol", ("HTTP/2",), {"protocol": "HTTP/2"}),
        ("InvalidHeader", ("n", "v"), {"name": "n", "value": "v"}),
        ("DuplicateParameter", ("n",), {"name": "n"}),
        ("InvalidParameterName", ("n",), {"name": "n"}),
        ("InvalidParameterValue", ("n", "v"), {"name": "n", "value": "v"}),
        ("PayloadTooBig", (8, 4, 2), {"size": 8, "max_size": 4, "current_size": 2}),
        ("TooManyFragments", (7,), {"max_fragments": 7}),
    ],
)
def test_attributes(fd, name, args, attributes):
    assert vars(getattr(fd.exceptions, name)(*args)) == attributes


# (as it was given, as it is shown)
PASSWORDS = [
    ("ws://user:secret@host/path", "ws://user:***@host/path"),
    ("ws://user:sec:ret@host", "ws://user:***@host"),
    ("ws://user:s@cret@host", "ws://user:***@host"),
    ("ws://:secret@host", "ws://:***@host"),
    ("ws://user:@host", "ws://user:***@host"),
    ("ws://user:secret@host?a=b@c", "ws://user:***@host?a=b@c"),
    ("ws://user:secret@[::1]:80/", "ws://user:***@[::1]:80/"),
    ("ws://user:sec ret@host\n", "ws://user:***@host\n"),
    # what cannot be parsed
    ("ws://user:secret@", "ws://user:***@"),
    ("ws://user:[secret@host", "ws://user:***@host"),
    ("ws://user:s#cret@host/#x", "ws://user:***@host/#x"),
    ("ws://user:12#secret@host", "ws://user:***@host"),
    ("ws://us#er:secret@host", "ws://us#er:***@host"),
    ("ws://user:s/cret@host/", "ws://user:***@host/"),
    ("ws://user:s?cret@host/", "ws://user:***@host/"),
    ("user:secret@host:80", "user:***@host:80"),
    ("user:sec://ret@host", "user:***@host"),
    ("ws:/user:secret@host", "ws:***@host"),
    (" ws://user:secret@host", " ws:***@host"),
    ("ws://http://user:secret@host", "ws://http://user:***@host"),
    # nothing to hide
    ("", ""),
    ("localhost", "localhost"),
    ("@", "@"),
    ("ws://user@host", "ws://user@host"),
    ("ws://host:80/a:b@c", "ws://host:80/a:b@c"),
    ("ws://host/a:b@c", "ws://host/a:b@c"),
    ("ws://host:/?a:b@c", "ws://host:/?a:b@c"),
    ("ws://[::1]/a:b@c", "ws://[::1]/a:b@c"),
    ("ws://[::1]:80/a:b@c", "ws://[::1]:80/a:b@c"),
    ("ws://host:port/", "ws://host:port/"),
    ("ws://host#a@b", "ws://host#a@b"),
]


@pytest.mark.parametrize(("uri", "shown"), PASSWORDS)
@pytest.mark.parametrize(
    ("name", "attribute", "text"),
    [("InvalidURI", "uri", "a valid URI"), ("InvalidProxy", "proxy", "a valid proxy")],
)
def test_passwords_are_not_shown(fd, name, attribute, text, uri, shown):
    exc = getattr(fd.exceptions, name)(uri, "bad")
    assert str(exc) == f"{shown} isn't {text}: bad"
    assert repr(exc) == f"{name}({shown!r}, 'bad')"
    for again in (exc, copy.copy(exc), pickle.loads(pickle.dumps(exc))):
        assert getattr(again, attribute) == uri
        assert again.args == (uri, "bad")
