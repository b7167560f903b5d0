"""`basic_auth`: who gets in, and that the time says nothing."""

from __future__ import annotations

import base64
import hmac

import pytest

from .serving import TIMEOUT, request, running


def authorization(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def whoami(connection):
    connection.send(connection.username)


def ask(fd, value: str | None, **kwargs) -> bytes:
    """Give the response to a request with this Authorization header."""
    process_request = fd.sync.server.basic_auth(**kwargs)
    header = "" if value is None else f"Authorization: {value}\r\n"
    with running(fd, whoami, process_request=process_request) as run, run.connect() as sock:
        sock.sendall(request(headers=header))
        return sock.recv(65536)


@pytest.mark.parametrize(
    "credentials",
    [
        ("hello", "iloveyou"),
        [("hello", "iloveyou")],
        [("other", "x"), ["hello", "iloveyou"]],
        {("hello", "iloveyou")},
    ],
)
def test_credentials(fd, credentials):
    auth = fd.sync.server.basic_auth(credentials=credentials)
    with running(fd, whoami, process_request=auth) as run:
        headers = {"Authorization": authorization("hello", "iloveyou")}
        with run.dial(headers=headers) as client:
            assert client.recv(TIMEOUT) == "hello"


def test_credentials_from_an_iterator(fd):
    pairs = iter([("a", "1"), ("b", "2")])
    auth = fd.sync.server.basic_auth(credentials=pairs)
    with running(fd, whoami, process_request=auth) as run:
        for name, password in (("a", "1"), ("b", "2"), ("a", "1")):
            headers = {"Authorization": authorization(name, password)}
            with run.dial(headers=headers) as client:
                assert client.recv(TIMEOUT) == name


def test_check_credentials(fd):
    seen = []

    def check(username, password):
        seen.append((username, password))
        return password == "ü:x"

    assert b" 101 " in ask(fd, authorization("hello", "ü:x"), check_credentials=check)
    assert b" 401 " in ask(fd, authorization("hello", "x"), check_credentials=check)
    assert seen == [("hello", "ü:x"), ("hello", "x")]


@pytest.mark.parametrize(
    "value",
    [
        None,
        authorization("hello", "wrong"),
        authorization("nobody", "iloveyou"),
        authorization("", ""),
        "Basic !!!",
        "Basic",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Digest username=hello",
        "\xe4\xf6\xfc",
        authorization("hello", "iloveyou") + "\r\nAuthorization: x",
    ],
)
def test_refused(fd, value):
    response = ask(fd, value, realm='the "realm"', credentials=("hello", "iloveyou"))
    assert response.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b'\r\nWWW-Authenticate: Basic realm="the \\"realm\\"", charset="UTF-8"\r\n' in response


def test_check_that_fails_is_a_500(fd, caplog):
    def check(username, password):
        raise LookupError

    assert b" 500 " in ask(fd, authorization("a", "b"), check_credentials=check)
    assert caplog.records[-1].exc_info[0] is LookupError


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"credentials": ("a", "b"), "check_credentials": lambda u, p: True}, {"realm": "x"}],
)
def test_exactly_one_of_both(fd, kwargs):
    with pytest.raises(ValueError):
        fd.sync.server.basic_auth(**kwargs)


@pytest.mark.parametrize(
    "credentials",
    ["ab", 42, ("a", "b", "c"), ("a", 1), [("a", "b"), "cd"], [("a", b"b")], {"user": "password"}],
)
def test_credentials_of_a_wrong_type(fd, credentials):
    with pytest.raises(TypeError):
        fd.sync.server.basic_auth(credentials=credentials)


def test_realm_that_cannot_be_sent(fd):
    with pytest.raises(ValueError):
        fd.sync.server.basic_auth(realm="a\r\nb", credentials=("a", "b"))


@pytest.mark.parametrize("username", ["hello", "nobody"])
@pytest.mark.parametrize("password", ["iloveyou", "", "iloveyoutoo", "x" * 1000])
def test_r21_the_comparison_is_the_same_for_all(fd, monkeypatch, username, password):
    """One comparison in constant time, of values of one length: for unknown users as well."""
    credentials = fd.sync.auth.Credentials([("hello", "iloveyou")])
    calls = []
    real = hmac.compare_digest

    def compare_digest(a, b):
        calls.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    expected = (username, password) == ("hello", "iloveyou")
    assert credentials.check(username, password) is expected
    ((a, b),) = calls
    assert len(a) == len(b) == 32
    assert b"iloveyou" not in b


def test_r21_no_password_is_kept(fd):
    credentials = fd.sync.auth.Credentials([("hello", "iloveyou")])
    assert "iloveyou" not in repr(vars(credentials))


@pytest.mark.parametrize("encodes", [False, True])
def test_credentials_that_are_no_utf8(fd, encodes):
    """The function sees them, and if it can't make anything of them the answer is 401."""
    seen = []

    def check(username, password):
        seen.append((username, password))
        return bool(password.encode()) if encodes else True

    value = "Basic " + base64.b64encode(b"me:\xe9").decode()
    response = ask(fd, value, check_credentials=check)
    assert seen == [("me", "\udce9")]
    assert response.startswith(b"HTTP/1.1 401 " if encodes else b"HTTP/1.1 101 ")
    assert ask(fd, value, credentials=("me", "x")).startswith(b"HTTP/1.1 401 ")
