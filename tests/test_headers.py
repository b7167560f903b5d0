"""Parsers and builders of handshake headers."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOKENS = st.text(TCHARS, min_size=1, max_size=8)
PARAMS = st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=4)

PARSERS = [
    "parse_connection",
    "parse_upgrade",
    "parse_extension",
    "parse_subprotocol",
    "parse_authorization_basic",
]


def basic(user_pass):
    return "Basic " + base64.b64encode(user_pass).decode()


# Tokens


@pytest.mark.parametrize("code", range(0x101))
def test_token_characters(fd, code):
    assert fd.headers.is_token(chr(code)) is (chr(code) in TCHARS)
    assert fd.headers.is_token(f"a{chr(code)}") is (chr(code) in TCHARS)


def test_empty_is_no_token(fd):
    assert not fd.headers.is_token("")


# Host


@pytest.mark.parametrize(
    ("host", "port", "secure", "plain", "with_port"),
    [
        ("localhost", 80, False, "localhost", "localhost:80"),
        ("localhost", 8000, False, "localhost:8000", "localhost:8000"),
        ("localhost", 443, True, "localhost", "localhost:443"),
        ("localhost", 8443, True, "localhost:8443", "localhost:8443"),
        ("localhost", 443, False, "localhost:443", "localhost:443"),
        ("localhost", 80, True, "localhost:80", "localhost:80"),
        ("127.0.0.1", 80, False, "127.0.0.1", "127.0.0.1:80"),
        ("::1", 80, False, "[::1]", "[::1]:80"),
        ("::1", 8000, False, "[::1]:8000", "[::1]:8000"),
        ("fe80::1%eth0", 80, False, "[fe80::1]", "[fe80::1]:80"),
    ],
)
def test_build_host(fd, host, port, secure, plain, with_port):
    assert fd.headers.build_host(host, port, secure) == plain
    assert fd.headers.build_host(host, port, secure, always_include_port=True) == with_port


# Lists


@pytest.mark.parametrize(
    ("parser", "header", "expected"),
    [
        ("parse_connection", "Upgrade", ["Upgrade"]),
        ("parse_connection", "keep-alive, Upgrade", ["keep-alive", "Upgrade"]),
        ("parse_connection", " \tUpgrade\t ", ["Upgrade"]),
        ("parse_connection", ",,\t,  , ,Upgrade ,,", ["Upgrade"]),
        ("parse_connection", "a,b ,c\t,\td", ["a", "b", "c", "d"]),
        ("parse_upgrade", "websocket", ["websocket"]),
        ("parse_upgrade", "WebSocket", ["WebSocket"]),
        ("parse_upgrade", "http/3.0, websocket", ["http/3.0", "websocket"]),
        ("parse_upgrade", ",,\t,  , ,websocket ,,", ["websocket"]),
        ("parse_subprotocol", "chat", ["chat"]),
        ("parse_subprotocol", "chat, superchat", ["chat", "superchat"]),
        ("parse_subprotocol", ",\t, chat  ,superchat , ", ["chat", "superchat"]),
        ("parse_extension", "foo", [("foo", [])]),
        ("parse_extension", "foo, bar", [("foo", []), ("bar", [])]),
        (
            "parse_extension",
            'foo; name; token=token; quoted-string="quoted-string", bar; q=\'x',
            [
                ("foo", [("name", None), ("token", "token"), ("quoted-string", "quoted-string")]),
                ("bar", [("q", "'x")]),
            ],
        ),
        (
            "parse_extension",
            'foo\t; \tname\t;\ttoken = token;q\t=\t"\\a\\b" ,, ,bar;x',
            [("foo", [("name", None), ("token", "token"), ("q", "ab")]), ("bar", [("x", None)])],
        ),
        ("parse_extension", ",,\t,  , ,foo ,,", [("foo", [])]),
        ("parse_extension", "foo; a=1; a=2", [("foo", [("a", "1"), ("a", "2")])]),
    ],
)
def test_lists(fd, parser, header, expected):
    assert getattr(fd.headers, parser)(header) == expected


@pytest.mark.parametrize(
    ("parser", "header", "value"),
    [
        ("parse_connection", "", "expected at least one item at 0 in "),
        ("parse_connection", " ", "expected at least one item at 1 in  "),
        ("parse_connection", ",", "expected at least one item at 1 in ,"),
        ("parse_connection", " , \t,", "expected at least one item at 5 in  , \t,"),
        ("parse_connection", "???", "expected token at 0 in ???"),
        ("parse_connection", "keep-alive; Upgrade", "expected comma at 10 in keep-alive; Upgrade"),
        ("parse_connection", "a b", "expected comma at 2 in a b"),
        ("parse_connection", "a\u00e9", "expected comma at 1 in a\u00e9"),
        ("parse_connection", "a\n", "expected comma at 1 in a\n"),
        ("parse_upgrade", "/1", "expected token at 0 in /1"),
        ("parse_upgrade", "http/", "expected token at 5 in http/"),
        ("parse_upgrade", "http/1/1", "expected comma at 6 in http/1/1"),
        ("parse_upgrade", "http /1", "expected comma at 5 in http /1"),
        ("parse_subprotocol", "a/b", "expected comma at 1 in a/b"),
        ("parse_subprotocol", '"a"', 'expected token at 0 in "a"'),
        ("parse_extension", "foo;", "expected token at 4 in foo;"),
        ("parse_extension", "foo; ", "expected token at 5 in foo; "),
        ("parse_extension", "; a", "expected token at 0 in ; a"),
        ("parse_extension", "foo; a=", "expected token at 7 in foo; a="),
        ("parse_extension", "foo; =a", "expected token at 5 in foo; =a"),
        ("parse_extension", "foo; a=,", "expected token at 7 in foo; a=,"),
        ("parse_extension", 'foo; a="', 'unterminated quoted string at 8 in foo; a="'),
        ("parse_extension", 'foo; a="b', 'unterminated quoted string at 9 in foo; a="b'),
        ("parse_extension", 'foo; a="\0"', 'unterminated quoted string at 8 in foo; a="\0"'),
        ("parse_extension", 'foo; a="\\', 'invalid escape at 9 in foo; a="\\'),
        ("parse_extension", 'foo; a="\\\0"', 'invalid escape at 9 in foo; a="\\\0"'),
        ("parse_extension", 'foo; a="\\\u20ac"', 'invalid escape at 9 in foo; a="\\\u20ac"'),
        ("parse_extension", 'foo; a=""', 'expected token in quoted string at 9 in foo; a=""'),
        ("parse_extension", 'foo; a=" "', 'expected token in quoted string at 10 in foo; a=" "'),
        ("parse_extension", 'foo; a="b"c', 'expected comma at 10 in foo; a="b"c'),
        ("parse_extension", "foo bar", "expected comma at 4 in foo bar"),
        ("parse_extension", "foo=bar", "expected comma at 3 in foo=bar"),
        ("parse_authorization_basic", "", "expected token at 0 in "),
        ("parse_authorization_basic", "Basic", "expected space at 5 in Basic"),
        ("parse_authorization_basic", "Basic\tYTpi", "expected space at 5 in Basic\tYTpi"),
        ("parse_authorization_basic", "Basic ", "expected token68 at 6 in Basic "),
        ("parse_authorization_basic", "Basic =", "expected token68 at 6 in Basic ="),
        ("parse_authorization_basic", "Basic YQ x", "unexpected characters at 9 in Basic YQ x"),
        ("parse_authorization_basic", "Basic YQ==x", "unexpected characters at 10 in Basic YQ==x"),
    ],
)  # fmt: skip
def test_grammar_errors_say_what_and_where(fd, parser, header, value):
    with pytest.raises(fd.exceptions.InvalidHeaderFormat) as raised:
        getattr(fd.headers, parser)(header)
    assert raised.value.value == value
    assert (
        raised.value.name
        == {
            "parse_connection": "Connection",
            "parse_upgrade": "Upgrade",
            "parse_subprotocol": "Sec-WebSocket-Protocol",
            "parse_extension": "Sec-WebSocket-Extensions",
            "parse_authorization_basic": "Authorization",
        }[parser]
    )


@pytest.mark.parametrize(
    ("parser", "header"),
    [
        # as many turns of every loop as there are characters, and an error at the very end
        *((parser, char * 300_000 + "\0") for parser in PARSERS for char in ", \ta=;\"\\'"),
        ("parse_connection", ", " * 150_000 + "\0"),
        ("parse_connection", "a," * 150_000 + "\0"),
        ("parse_connection", "a" + " " * 300_000 + "b"),
        ("parse_upgrade", "a/b," * 75_000 + "/"),
        ("parse_extension", "a;b=c;" * 50_000 + "\0"),
        ("parse_extension", "a;b" + ";b" * 150_000 + "="),
        ("parse_extension", 'a;b="' + "a" * 300_000),
        ("parse_extension", 'a;b="' + "\\a" * 150_000),
        ("parse_extension", 'a;b="' + '\\"' * 150_000),
        ("parse_extension", 'a;b="' + "\\\\" * 150_000 + '"'),
        ("parse_extension", 'a;b="' + "b " * 150_000 + '"'),
        ("parse_extension", "a" + " ;b" * 100_000 + "\t" * 100_000 + "\0"),
        ("parse_authorization_basic", "Basic " + "=" * 300_000),
        ("parse_authorization_basic", "Basic " + "a" * 300_000 + "=" * 300_000 + "\0"),
        ("parse_authorization_basic", "Basic" + " " * 300_000 + "\0"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_r10_header_grammar_is_linear(fd, parser, header):
    # Linear is a fraction of a second; quadratic would be more than 10^10 steps.
    start = time.process_time()
    with pytest.raises(fd.exceptions.InvalidHeader):
        getattr(fd.headers, parser)(header)
    assert time.process_time() - start < 5


@given(st.one_of(st.text(max_size=20), st.text('a,;= \t"\\/\0é\ud800€', max_size=20)))
@pytest.mark.parametrize("parser", PARSERS)
def test_r12_parsers_raise_nothing_but_invalid_header(fd, parser, header):
    for text in (header, "Basic " + header, "a;b=" + header, 'a;b="' + header):
        try:
            result = getattr(fd.headers, parser)(text)
        except fd.exceptions.InvalidHeader:
            continue
        assert result


@given(st.binary(max_size=20))
def test_r12_credentials_raise_nothing_but_invalid_header(fd, user_pass):
    try:
        username, password = fd.headers.parse_authorization_basic(basic(user_pass))
    except fd.exceptions.InvalidHeader:
        return
    assert f"{username}:{password}".encode("utf-8", "surrogateescape") == user_pass
    if ":" not in username:
        rebuilt = fd.headers.build_authorization_basic(username, password)
        assert fd.headers.parse_authorization_basic(rebuilt) == (username, password)


# Sec-WebSocket-Extensions, Sec-WebSocket-Protocol


@pytest.mark.parametrize(
    ("extensions", "header"),
    [
        ([], ""),
        ([("foo", [])], "foo"),
        ([("foo", [("a", None), ("b", "1")]), ("bar", [])], "foo; a; b=1, bar"),
    ],
)
def test_build_extension(fd, extensions, header):
    assert fd.headers.build_extension(extensions) == header


@given(st.lists(st.tuples(TOKENS, PARAMS), min_size=1, max_size=4))
def test_extensions_round_trip(fd, extensions):
    header = fd.headers.build_extension(extensions)
    assert fd.headers.parse_extension(header) == extensions


@given(st.lists(TOKENS, min_size=1, max_size=4))
def test_subprotocols_round_trip(fd, subprotocols):
    header = fd.headers.build_subprotocol(subprotocols)
    assert fd.headers.parse_subprotocol(header) == subprotocols


@given(st.lists(TOKENS, min_size=1, max_size=4), st.text(", \t", max_size=4))
def test_lists_ignore_empty_items(fd, options, filler):
    header = filler + f"{filler},{filler}".join(options) + filler
    assert fd.headers.parse_connection(header) == options


@pytest.mark.parametrize("bad", ["", "a b", "a\r\nX: y", 'a"', "é", "a;b", "a,b", "\0"])
def test_r14_builders_refuse_what_is_no_token(fd, bad):
    for extensions in ([(bad, [])], [("a", [(bad, None)])], [("a", [("b", bad)])]):
        with pytest.raises(ValueError, match="not a token"):
            fd.headers.build_extension(extensions)
    with pytest.raises(ValueError, match="invalid subprotocol"):
        fd.headers.build_subprotocol(["a", bad])


@pytest.mark.parametrize("subprotocols", [[], ["chat"], ["chat", "superchat.v2"], ("chat",)])
def test_validate_subprotocols(fd, subprotocols):
    assert fd.headers.validate_subprotocols(subprotocols) is None


@pytest.mark.parametrize(
    "subprotocols", ["chat", b"chat", {"chat": 1}, {"chat"}, None, 1, iter(["chat"])]
)
def test_validate_subprotocols_wants_a_list(fd, subprotocols):
    with pytest.raises(TypeError, match="subprotocols must be a list"):
        fd.headers.validate_subprotocols(subprotocols)


@pytest.mark.parametrize("subprotocol", ["", "a b", "é", "a,b", 1, None, b"chat"])
def test_validate_subprotocols_wants_tokens(fd, subprotocol):
    with pytest.raises(ValueError, match="invalid subprotocol"):
        fd.headers.validate_subprotocols(["chat", subprotocol])


# WWW-Authenticate, Authorization


@pytest.mark.parametrize(
    ("realm", "header"),
    [
        ("", 'Basic realm="", charset="UTF-8"'),
        ("my realm", 'Basic realm="my realm", charset="UTF-8"'),
        ('a "b" \\c', 'Basic realm="a \\"b\\" \\\\c", charset="UTF-8"'),
        ("caf\u00e9\t", 'Basic realm="caf\u00e9\t", charset="UTF-8"'),
    ],
)
def test_build_www_authenticate_basic(fd, realm, header):
    assert fd.headers.build_www_authenticate_basic(realm) == header


@pytest.mark.parametrize("realm", ["a\r\nX: y", "\0", "\x7f", "€"])
def test_r14_realms_are_validated(fd, realm):
    with pytest.raises(ValueError, match="cannot be quoted"):
        fd.headers.build_www_authenticate_basic(realm)


@given(st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=20))
def test_quoted_strings_round_trip(fd, text):
    scanner = fd.headers.Scanner("X", fd.headers.build_quoted_string(text))
    assert scanner.quoted_string() == text
    scanner.expect_end()


def test_quoted_string_needs_quotes(fd):
    with pytest.raises(fd.exceptions.InvalidHeaderFormat, match="expected quoted string at 0 in a"):
        fd.headers.Scanner("X", "a").quoted_string()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic YWxhZGRpbjpvcGVuc2VzYW1l", ("aladdin", "opensesame")),
        ("basic YWxhZGRpbjpvcGVuc2VzYW1l", ("aladdin", "opensesame")),
        ("BASIC   YWxhZGRpbjpvcGVuc2VzYW1l\t ", ("aladdin", "opensesame")),
        (basic(b"a:b:c"), ("a", "b:c")),
        (basic(b":"), ("", "")),
        (basic("é:€".encode()), ("é", "€")),
    ],
)
def test_parse_authorization_basic(fd, header, expected):
    assert fd.headers.parse_authorization_basic(header) == expected


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Digest x=y", "unsupported scheme: Digest"),
        ("Bearer YTpi", "unsupported scheme: Bearer"),
        ("Basic Y", "expected base64-encoded credentials"),
        ("Basic YTp", "expected base64-encoded credentials"),
        ("Basic Y-_i", "expected base64-encoded credentials"),
        (basic(b"nothing"), "expected username:password credentials"),
    ],
)
def test_parse_authorization_basic_refuses(fd, header, value):
    with pytest.raises(fd.exceptions.InvalidHeaderValue) as raised:
        fd.headers.parse_authorization_basic(header)
    assert (raised.value.name, raised.value.value) == ("Authorization", value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_build_authorization_basic(fd):
    header = fd.headers.build_authorization_basic("aladdin", "opensesame")
    assert header == "Basic YWxhZGRpbjpvcGVuc2VzYW1l"


def test_build_authorization_basic_refuses_a_colon_in_the_username(fd):
    with pytest.raises(ValueError, match="colon"):
        fd.headers.build_authorization_basic("a:b", "c")


@given(st.text().filter(lambda text: ":" not in text), st.text())
def test_authorization_basic_round_trip(fd, username, password):
    header = fd.headers.build_authorization_basic(username, password)
    assert fd.headers.parse_authorization_basic(header) == (username, password)


def test_all_is_there(fd):
    for name in fd.headers.__all__:
        assert hasattr(fd.headers, name)
