"""HTTP Basic authentication for servers (RFC 7617)."""

from __future__ import annotations

import hmac
import http
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..exceptions import InvalidHeader
from ..headers import build_www_authenticate_basic, parse_authorization_basic

if TYPE_CHECKING:
    from ..http11 import Request, Response
    from .server_connection import ServerConnection

__all__ = ["basic_auth"]


class Credentials:
    """Usernames and passwords, of which neither can be found out by the time that a check takes.

    Not the passwords are compared but keyed digests of them, in constant time, and for unknown
    users as well: the time depends on nothing but the length of what the client sent.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._key = secrets.token_bytes(32)
        self._digests = {username: self._digest(password) for username, password in pairs}
        # Nobody's, for unknown users: no password has it.
        self._nobody = secrets.token_bytes(len(self._digest("")))

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._key, password.encode(errors="surrogatepass"), "sha256")

    def check(self, username: str, password: str) -> bool:
        """Tell whether this is the password of this user."""
        expected = self._digests.get(username, self._nobody)
        return hmac.compare_digest(self._digest(password), expected)


def basic_auth(
    realm: str = "",
    credentials: tuple[str, str] | Iterable[tuple[str, str]] | None = None,
    check_credentials: Callable[[str, str], bool] | None = None,
) -> Callable[[ServerConnection, Request], Response | None]:
    """Make a ``process_request`` for `serve` that asks for a username and a password.

    On success ``connection.username`` is set; otherwise the answer is 401. Without TLS, anybody
    on the way can read the password.

    Args:
        realm: what the credentials are for; shown to the user.
        credentials: a pair of username and password, or an iterable of such pairs. They are
            compared in constant time, and unknown users take as long.
        check_credentials: ``f(username, password)`` that tells whether they are right. To compare
            passwords in it, use `hmac.compare_digest`. It may be called by several threads at once.
            Bytes that are no UTF-8 come as lone surrogates (``surrogateescape``).

    Raises:
        ValueError: unless exactly one of ``credentials`` and ``check_credentials`` is given, or if
            the realm cannot stand in a header.
        TypeError: if ``credentials`` is something else.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("give either credentials or check_credentials")
    check = check_credentials
    if credentials is not None:
        check = Credentials(list_pairs(credentials)).check
    challenge = build_www_authenticate_basic(realm)

    def ask(connection: ServerConnection, text: str) -> Response:
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, text)
        response.headers["WWW-Authenticate"] = challenge
        return response

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        """Admit who has valid credentials."""
        values = request.headers.get_all("Authorization")
        if not values:
            return ask(connection, "Missing credentials\n")
        try:
            if len(values) > 1:
                raise InvalidHeader("Authorization", "multiple values")
            username, password = parse_authorization_basic(values[0])
        except InvalidHeader:
            return ask(connection, "Unsupported credentials\n")
        assert check is not None
        try:
            right = check(username, password)
        except UnicodeEncodeError:
            right = False  # bytes that are no UTF-8 stand in them as lone surrogates
        if not right:
            return ask(connection, "Invalid credentials\n")
        connection.username = username
        return None

    return process_request


def list_pairs(credentials: object) -> list[tuple[str, str]]:
    """Give pairs of username and password.

    Raises:
        TypeError: if they are something else.
    """
    if is_pair(credentials):
        return [credentials]  # type: ignore[list-item]
    if isinstance(credentials, Iterable) and not isinstance(credentials, str):
        pairs = list(credentials)
        if all(map(is_pair, pairs)):
            return pairs
    raise TypeError("credentials must be a pair of str, or an iterable of such pairs")


def is_pair(value: object) -> bool:
    """Tell whether this is a pair of strings."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(item, str) for item in value)
    )
