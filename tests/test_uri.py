"""WebSocket URIs."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

# (uri, secure, host, port, path, query)
VALID = [
    ("ws://localhost/", False, "localhost", 80, "/", ""),
    ("wss://localhost/", True, "localhost", 443, "/", ""),
    ("ws://localhost", False, "localhost", 80, "", ""),
    ("ws://localhost:8000/", False, "localhost", 8000, "/", ""),
    ("ws://localhost:/", False, "localhost", 80, "/", ""),
    ("wss://localhost:65535/", True, "localhost", 65535, "/", ""),
    ("ws://localhost:1/", False, "localhost", 1, "/", ""),
    ("ws://localhost:00080/", False, "localhost", 80, "/", ""),
    ("WS://LOCALHOST/PATH?QUERY", False, "localhost", 80, "/PATH", "QUERY"),
    ("WsS://Example.COM/", True, "example.com", 443, "/", ""),
    ("ws://localhost/path?query", False, "localhost", 80, "/path", "query"),
    ("ws://localhost/path;params?a=b&c=d", False, "localhost", 80, "/path;params", "a=b&c=d"),
    ("ws://localhost?query", False, "localhost", 80, "", "query"),
    ("ws://localhost/?", False, "localhost", 80, "/", ""),
    ("ws://localhost/a?b?c", False, "localhost", 80, "/a", "b?c"),
    ("ws://localhost//a//b", False, "localhost", 80, "//a//b", ""),
    ("ws://localhost/%20%41?%FF", False, "localhost", 80, "/%20%41", "%FF"),
    ('ws://localhost/"<>^`{|}\\?[]', False, "localhost", 80, '/"<>^`{|}\\', "[]"),
    ("ws://127.0.0.1/", False, "127.0.0.1", 80, "/", ""),
    ("ws://example.com./", False, "example.com.", 80, "/", ""),
    ("ws://docker_host-1/", False, "docker_host-1", 80, "/", ""),
    ("ws://[::1]/", False, "::1", 80, "/", ""),
    ("ws://[::1]:8000/", False, "::1", 8000, "/", ""),
    ("ws://[2001:DB8::A]/", False, "2001:db8::a", 80, "/", ""),
    ("ws://[fe80::1%25eth0]/", False, "fe80::1%eth0", 80, "/", ""),
    ("ws://[fe80::1%eth0]:8000/", False, "fe80::1%eth0", 8000, "/", ""),
    ("ws://[fe80::1%2525]/", False, "fe80::1%25", 80, "/", ""),
    ("ws://[fe80::1%25]/", False, "fe80::1%25", 80, "/", ""),
    (f"ws://{'a' * 63}.test/", False, f"{'a' * 63}.test", 80, "/", ""),
    (f"ws://{'a.' * 126}b/", False, "a." * 126 + "b", 80, "/", ""),
    (f"ws://{'a.' * 126}b./", False, "a." * 126 + "b.", 80, "/", ""),
    # IRIs
    ("wss://xn--nxasmq6b/", True, "xn--nxasmq6b", 443, "/", ""),
    ("ws://müller.example/", False, "xn--mller-kva.example", 80, "/", ""),
    ("ws://MÜLLER.example/", False, "xn--mller-kva.example", 80, "/", ""),
    ("ws://例え.テスト/パス?キー=値", False, "xn--r8jz45g.xn--zckzah", 80,
     "/%E3%83%91%E3%82%B9", "%E3%82%AD%E3%83%BC=%E5%80%A4"),
    ("ws://localhost/é%20", False, "localhost", 80, "/%C3%A9%20", ""),
    ("ws://localhost/\x85", False, "localhost", 80, "/%C2%85", ""),
]  # fmt: skip

# (uri, username, password)
CREDENTIALS = [
    ("ws://user:pass@localhost/", "user", "pass"),
    ("ws://user:@localhost/", "user", ""),
    ("ws://:pass@localhost/", "", "pass"),
    ("ws://:@localhost/", "", ""),
    ("ws://User:PASS@LOCALHOST:8000/", "User", "PASS"),
    ("ws://user:pa:ss@localhost/", "user", "pa:ss"),
    ("ws://us%20er:p%40ss%3A%2f@localhost/", "us er", "p@ss:/"),
    ("ws://a+b:c+d@localhost/", "a+b", "c+d"),
    ("ws://%E2%82%AC:%C3%A9@localhost/", "€", "é"),
    ("ws://üser:pässword@localhost/", "üser", "pässword"),
    ("ws://a%25b:50%@localhost/", "a%b", "50%"),
    ("ws://me@home:pass@localhost/", "me@home", "pass"),
]

# (uri, what the message says)
INVALID = [
    ("", "scheme"),
    ("localhost", "scheme"),
    ("//localhost/", "scheme"),
    ("http://localhost/", "scheme"),
    ("https://localhost/", "scheme"),
    ("wsss://localhost/", "scheme"),
    ("ws://", "hostname isn't provided"),
    ("ws:///path", "hostname isn't provided"),
    ("ws:localhost", "hostname isn't provided"),
    ("ws://:80/", "hostname isn't provided"),
    ("ws://user:pass@/", "hostname isn't provided"),
    ("ws://localhost/#", "fragment"),
    ("ws://localhost/path#fragment", "fragment"),
    ("ws://localhost#fragment", "fragment"),
    ("ws://user@localhost/", "username provided without password"),
    ("ws://@localhost/", "username provided without password"),
    ("ws://us%3Aer:pass@localhost/", "colon"),
    ("ws://user%0A:pass@localhost/", "control character"),
    ("ws://user:pass%00@localhost/", "control character"),
    ("ws://user:pass%7f@localhost/", "control character"),
    ("ws://user:%FF@localhost/", "UTF-8"),
    ("ws://%C3:pass@localhost/", "UTF-8"),
    # ports
    ("ws://localhost:0/", "port 0"),
    ("ws://localhost:65536/", ""),
    ("ws://localhost:-1/", ""),
    ("ws://localhost:+80/", ""),
    ("ws://localhost:8_0/", ""),
    ("ws://localhost:http/", ""),
    ("ws://localhost:80:80/", ""),
    ("ws://localhost:٨٠/", ""),
    ("ws://localhost:²/", ""),
    # hosts
    ("ws://a..b/", "empty or an overlong part"),
    ("ws://.a/", "empty or an overlong part"),
    ("ws://./", "empty or an overlong part"),
    (f"ws://{'a' * 64}/", "empty or an overlong part"),
    (f"ws://{'a.' * 127}b/", "empty or an overlong part"),
    ("ws://exa%6Dple.com/", "invalid characters"),
    ("ws://exa\\mple/", "invalid characters"),
    ("ws://evil\\@localhost\\/", ""),
    ("ws://a|b/", "invalid characters"),
    ("ws://a<b/", "invalid characters"),
    ("ws://[::1/", ""),
    ("ws://::1]/", ""),
    ("ws://[]/", ""),
    ("ws://[localhost]/", ""),
    ("ws://[127.0.0.1]/", ""),
    ("ws://[v1.x]/", "valid IPv6 address"),
    ("ws://[::g]/", ""),
    ("ws://[1::2::3]/", ""),
    ("ws://[fe80::1%]/", ""),
    ("ws://[fe80::1%25a%2fb]/", ""),
    ("ws://[fe80::1%25a|b]/", "zone"),
    ("ws://a[::1]/", ""),
    ("ws://[::1]a/", ""),
    ("ws://[::1]a:80/", ""),
    (f"ws://{'é' * 64}/", "international name"),
    ("ws://a\u3002\u3002b\u00e9/", "international name"),
    ("ws://\ud800/", "international name"),
    ("ws://a\uff0fb/", ""),  # a slash after normalisation
    ("ws://a\u2100b/", ""),  # "a/c" after normalisation
    ("ws://localhost/\ud800", "cannot be encoded"),
    ("ws://localhost/?\udfff", "cannot be encoded"),
]


@pytest.mark.parametrize(("uri", "secure", "host", "port", "path", "query"), VALID)
def test_valid(fd, uri, secure, host, port, path, query):
    assert fd.uri.parse_uri(uri) == fd.uri.WebSocketURI(secure, host, port, path, query)


@pytest.mark.parametrize(("uri", "username", "password"), CREDENTIALS)
def test_credentials_are_decoded(fd, uri, username, password):
    parsed = fd.uri.parse_uri(uri)
    assert parsed.host == "localhost"
    assert (parsed.username, parsed.password) == (username, password)
    assert parsed.user_info == (username, password)


@pytest.mark.parametrize(("uri", "message"), INVALID)
def test_invalid(fd, uri, message):
    with pytest.raises(fd.exceptions.InvalidURI) as raised:
        fd.uri.parse_uri(uri)
    assert raised.value.uri == uri
    assert message in raised.value.msg
    assert raised.value.msg


@pytest.mark.parametrize("code", [*range(0x21), 0x7F])
@pytest.mark.parametrize(
    "uri",
    [
        "{}ws://localhost/",
        "w{}s://localhost/",
        "ws://local{}host/",
        "ws://us{}er:pass@localhost/",
        "ws://localhost:8{}0/",
        "ws://localhost/pa{}th",
        "ws://localhost/?qu{}ery",
        "ws://localhost/{}",
    ],
)
def test_r14_spaces_and_control_characters_are_refused(fd, uri, code):
    uri = uri.format(chr(code))
    with pytest.raises(fd.exceptions.InvalidURI, match="spaces and control characters"):
        fd.uri.parse_uri(uri)


@given(
    st.one_of(
        st.text(max_size=30),
        st.text("/?#[]@:%\\.\r\n\0 aé\ud800\uff0f", max_size=20),
    ),
    st.sampled_from(["ws://localhost/", "ws://localhost/?", "ws://", "wss://a:b@", ""]),
)
def test_r14_every_byte_of_the_target_is_visible_ascii(fd, text, prefix):
    try:
        uri = fd.uri.parse_uri(prefix + text)
    except fd.exceptions.InvalidURI:
        return
    target = uri.resource_name
    assert target.startswith("/")
    assert all(0x21 <= ord(char) <= 0x7E for char in target + uri.host)
    assert "#" not in target
    assert 0 < uri.port < 65536


@pytest.mark.parametrize(
    ("path", "query", "resource_name"),
    [
        ("", "", "/"),
        ("/", "", "/"),
        ("/path", "", "/path"),
        ("", "query", "/?query"),
        ("/path", "a=b", "/path?a=b"),
    ],
)
def test_resource_name(fd, path, query, resource_name):
    assert fd.uri.WebSocketURI(False, "h", 80, path, query).resource_name == resource_name


@pytest.mark.parametrize(
    ("username", "password", "user_info"),
    [(None, None, None), ("u", None, None), (None, "p", None), ("u", "p", ("u", "p")),
     ("", "", ("", ""))],
)  # fmt: skip
def test_user_info(fd, username, password, user_info):
    assert fd.uri.WebSocketURI(False, "h", 80, "", "", username, password).user_info == user_info


def test_repr_does_not_show_the_password(fd):
    assert "secret" not in repr(fd.uri.parse_uri("ws://user:secret@localhost/"))


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://user:secret@localhost/",
        "ws://user:secret@localhost/#",
        "ws://user:sec#ret@localhost/",
        "ws://user:secret/word@localhost/",
        "ws://user:[secret]@localhost/",
        "ws://user:secret@[::1/",
        "ws://user:secret@localhost:http/",
        "ws://user:secret@a\u2100b/",
        "ws://user:secret@\ud800/",
        "ws://user:secret%ff@localhost/",
        "ws://user:secret@localhost/ ",
    ],
)
def test_errors_do_not_show_the_password(fd, uri):
    """Not in what led to them either, which a traceback shows too."""
    cases = (
        (fd.uri.parse_uri, fd.exceptions.InvalidURI, uri),
        (fd.sync.proxy.parse_proxy, fd.exceptions.InvalidProxy, uri.replace("ws:", "http:")),
    )
    for parse, kind, text in cases:
        with pytest.raises(kind) as raised:
            parse(text)
        shown = "".join(traceback.format_exception(raised.value))
        assert "sec" not in shown
        assert "user:***" in shown


def test_not_a_string(fd):
    with pytest.raises(TypeError):
        fd.uri.parse_uri(b"ws://localhost/")


def test_all_is_there(fd):
    assert set(fd.uri.__all__) == {"WebSocketURI", "parse_uri"}
