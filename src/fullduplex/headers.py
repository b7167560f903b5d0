"""Parsers and builders for the headers of the opening handshake.

All parsers are made from :class:`Scanner`, which walks over the text once, from left to right, and
never goes back: the time for a header is proportional to its length, whatever the peer sends.
Whatever they meet, text outside ASCII included, they raise nothing but a subclass of
:exc:`~fullduplex.exceptions.InvalidHeader`.

Everything here is a pure function: use it from any thread.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from .exceptions import InvalidHeaderFormat, InvalidHeaderValue
from .typing import ExtensionName, ExtensionParameter, Subprotocol

__all__ = [
    "Scanner",
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_quoted_string",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "is_token",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_list",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

T = TypeVar("T")

# Each pattern repeats one character class and nothing else, so there is nothing to backtrack into.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+")  # RFC 9110 §11.2, without the padding
_PADDING = re.compile(r"=*")
_SPACES = re.compile(r"[\t ]*")  # RFC 9110 §5.6.3
_QUOTED_RUN = re.compile(r"[\t !#-\[\]-~\x80-\xff]*")  # RFC 9110 §5.6.4, up to " or \
_QUOTABLE = re.compile(r"[\t -~\x80-\xff]*")

# Longer headers are parsed each time: what a peer sends must not fill our memory.
_REMEMBERED_LENGTH = 256


def is_token(text: str) -> bool:
    """Tell whether a text is an HTTP token (RFC 9110 §5.6.2), such as the name of a header."""
    return _TOKEN.fullmatch(text) is not None


class Scanner:
    """A position in the value of a header, which only moves forward.

    Args:
        name: The header's name, for errors.
        text: Its value.

    Attributes:
        name: The header's name.
        text: Its value.
        pos: Index of the next character.
    """

    __slots__ = ("name", "pos", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.pos = 0

    def error(self, message: str) -> InvalidHeaderFormat:
        """Return the exception for a violation of the grammar at the current position."""
        return InvalidHeaderFormat(self.name, message, self.text, self.pos)

    def peek(self) -> str:
        """Return the next character, or an empty string at the end."""
        return self.text[self.pos : self.pos + 1]

    def accept(self, char: str) -> bool:
        """Step over a character if it comes next; tell whether it did."""
        if self.peek() != char:
            return False
        self.pos += 1
        return True

    def skip_spaces(self) -> None:
        """Step over spaces and tabs (OWS)."""
        self._take(_SPACES)

    def token(self) -> str:
        """Return the token that comes next.

        Raises:
            InvalidHeaderFormat: If there is none.
        """
        if token := self._take(_TOKEN):
            return token
        raise self.error("expected token")

    def token68(self) -> str:
        """Return the credentials that come next (RFC 9110 §11.2), padding included.

        Raises:
            InvalidHeaderFormat: If there are none.
        """
        if token68 := self._take(_TOKEN68):
            return token68 + self._take(_PADDING)
        raise self.error("expected token68")

    def quoted_string(self) -> str:
        """Return the content of the quoted string that comes next, without its escapes.

        Raises:
            InvalidHeaderFormat: If there is none.
        """
        if not self.accept('"'):
            raise self.error("expected quoted string")
        pieces = [self._take(_QUOTED_RUN)]
        while not self.accept('"'):
            # What ended the run can only be an escape, if it is legal at all.
            if not self.accept("\\"):
                raise self.error("unterminated quoted string")
            if not (escaped := self.peek()) or not _QUOTABLE.fullmatch(escaped):
                raise self.error("invalid escape")
            self.pos += 1
            pieces += (escaped, self._take(_QUOTED_RUN))
        return "".join(pieces)

    def expect_end(self) -> None:
        """Check that only spaces are left.

        Raises:
            InvalidHeaderFormat: If something else is.
        """
        self.skip_spaces()
        if self.pos < len(self.text):
            raise self.error("unexpected characters")

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Step over what matches a pattern here and return it."""
        match = pattern.match(self.text, self.pos)
        if match is None:
            return ""
        self.pos = match.end()
        return match[0]


def parse_list(name: str, header: str, parse_item: Callable[[Scanner], T]) -> list[T]:
    """Parse a comma-separated list of at least one item (RFC 9110 §5.6.1).

    Empty items are skipped, as the RFC asks of recipients.

    Args:
        name: The header's name, for errors.
        header: Its value.
        parse_item: Takes one item from a scanner.

    Raises:
        InvalidHeaderFormat: If the list is malformed or empty.
    """
    scanner = Scanner(name, header)
    items = []
    while True:
        scanner.skip_spaces()
        if scanner.accept(","):
            continue
        if not scanner.peek():
            break
        items.append(parse_item(scanner))
        scanner.skip_spaces()
        if scanner.peek() and not scanner.accept(","):
            raise scanner.error("expected comma")
    if not items:
        raise scanner.error("expected at least one item")
    return items


# Host


def build_host(host: str, port: int, secure: bool, *, always_include_port: bool = False) -> str:
    """Build a Host header (RFC 9110 §7.2).

    Args:
        host: Name or address. An IPv6 address comes without brackets; its zone has a meaning only
            on this machine and is left out (RFC 6874 §4).
        port: The port.
        secure: Whether the connection uses TLS; decides which port is the default.
        always_include_port: Whether to name the default port as well.
    """
    if ":" in host:
        host = f"[{host.partition('%')[0]}]"
    if always_include_port or port != (443 if secure else 80):
        return f"{host}:{port}"
    return host


# Connection, Upgrade


def parse_connection(header: str) -> list[str]:
    """Parse a Connection header (RFC 9110 §7.6.1).

    Returns:
        The options as they were sent; they are to be compared without regard to case.

    Raises:
        InvalidHeaderFormat: If the header is malformed.
    """
    return parse_list("Connection", header, Scanner.token)


def parse_upgrade(header: str) -> list[str]:
    """Parse an Upgrade header (RFC 9110 §7.8).

    Returns:
        The protocols as they were sent, versions included; to be compared without regard to case.

    Raises:
        InvalidHeaderFormat: If the header is malformed.
    """
    return parse_list("Upgrade", header, _parse_protocol)


def _parse_protocol(scanner: Scanner) -> str:
    protocol = scanner.token()
    if scanner.accept("/"):
        protocol += "/" + scanner.token()
    return protocol


# Sec-WebSocket-Extensions


def parse_extension(header: str) -> list[tuple[ExtensionName, list[ExtensionParameter]]]:
    """Parse a Sec-WebSocket-Extensions header (RFC 6455 §9.1).

    Returns:
        Pairs of an extension's name and its parameters; these are pairs of a name and a value,
        which is None for a parameter without one.

    Raises:
        InvalidHeaderFormat: If the header is malformed.
    """
    if len(header) > _REMEMBERED_LENGTH:
        return parse_list("Sec-WebSocket-Extensions", header, _parse_extension_item)
    # Lists of its own for each caller, which may change them
    return [(name, list(params)) for name, params in _parse_short_extension(header)]


@functools.lru_cache(maxsize=32)
def _parse_short_extension(
    header: str,
) -> tuple[tuple[ExtensionName, tuple[ExtensionParameter, ...]], ...]:
    """Parse what nearly every peer sends in the same words; errors are not remembered."""
    items = parse_list("Sec-WebSocket-Extensions", header, _parse_extension_item)
    return tuple((name, tuple(params)) for name, params in items)


def _parse_extension_item(scanner: Scanner) -> tuple[ExtensionName, list[ExtensionParameter]]:
    name = ExtensionName(scanner.token())
    params = []
    scanner.skip_spaces()
    while scanner.accept(";"):
        scanner.skip_spaces()
        params.append(_parse_extension_param(scanner))
        scanner.skip_spaces()
    return name, params


def _parse_extension_param(scanner: Scanner) -> ExtensionParameter:
    name = scanner.token()
    scanner.skip_spaces()
    if not scanner.accept("="):
        return name, None
    scanner.skip_spaces()
    if scanner.peek() != '"':
        return name, scanner.token()
    value = scanner.quoted_string()
    if not is_token(value):  # RFC 6455 §9.1: quotes change nothing about what is allowed
        raise scanner.error("expected token in quoted string")
    return name, value


def build_extension(
    extensions: Sequence[tuple[ExtensionName, Sequence[ExtensionParameter]]],
) -> str:
    """Build a Sec-WebSocket-Extensions header: the reverse of :func:`parse_extension`.

    Raises:
        ValueError: If a name or a value is not a token.
    """
    items = []
    for name, params in extensions:
        pieces = [_checked_token(name)]
        for param, value in params:
            _checked_token(param)
            pieces.append(param if value is None else f"{param}={_checked_token(value)}")
        items.append("; ".join(pieces))
    return ", ".join(items)


def _checked_token(text: str) -> str:
    if not is_token(text):
        raise ValueError(f"not a token: {text!r}")
    return text


# Sec-WebSocket-Protocol


def parse_subprotocol(header: str) -> list[Subprotocol]:
    """Parse a Sec-WebSocket-Protocol header (RFC 6455 §11.3.4).

    Raises:
        InvalidHeaderFormat: If the header is malformed.
    """
    return cast("list[Subprotocol]", parse_list("Sec-WebSocket-Protocol", header, Scanner.token))


def build_subprotocol(subprotocols: Sequence[str]) -> str:
    """Build a Sec-WebSocket-Protocol header: the reverse of :func:`parse_subprotocol`.

    Raises:
        TypeError: If `subprotocols` is not a list.
        ValueError: If a subprotocol is not a token.
    """
    validate_subprotocols(subprotocols)
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: object) -> None:
    """Check an argument that should be a list of subprotocols.

    Raises:
        TypeError: If it is not a list, or another sequence that is no string.
        ValueError: If an item is not a token.
    """
    # A string is a sequence of strings, which makes it a likely mistake.
    if not isinstance(subprotocols, Sequence) or isinstance(subprotocols, (str, bytes)):
        raise TypeError("subprotocols must be a list")
    for subprotocol in subprotocols:
        if not isinstance(subprotocol, str) or not is_token(subprotocol):
            raise ValueError(f"invalid subprotocol: {subprotocol!r}")


# WWW-Authenticate, Authorization


def build_quoted_string(text: str) -> str:
    """Return a text in quotes, escaped as far as necessary (RFC 9110 §5.6.4).

    Raises:
        ValueError: If the text has control characters, or characters not in ISO-8859-1.
    """
    if _QUOTABLE.fullmatch(text) is None:
        raise ValueError(f"cannot be quoted: {text!r}")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def build_www_authenticate_basic(realm: str) -> str:
    """Build a WWW-Authenticate header that asks for Basic credentials (RFC 7617 §2, §2.1).

    Args:
        realm: What the credentials are for.

    Raises:
        ValueError: If the realm cannot stand in a header.
    """
    return f'Basic realm={build_quoted_string(realm)}, charset="UTF-8"'


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """Parse an Authorization header with Basic credentials (RFC 7617 §2).

    Returns:
        Username and password.

    Raises:
        InvalidHeaderFormat: If the header is malformed.
        InvalidHeaderValue: If the scheme is not Basic, or the credentials are not the Base64 form
            of UTF-8 text with a colon in it.
    """
    scanner = Scanner("Authorization", header)
    scheme = scanner.token()
    if scheme.lower() != "basic":
        raise InvalidHeaderValue("Authorization", f"unsupported scheme: {scheme}")
    if scanner.peek() != " ":
        raise scanner.error("expected space")
    scanner.skip_spaces()
    credentials = scanner.token68()
    scanner.expect_end()
    try:
        username, colon, password = (
            binascii.a2b_base64(credentials, strict_mode=True)
            .decode("utf-8", "surrogateescape")
            .partition(":")
        )
    except binascii.Error:
        # Not chained: the detail would put a password, or most of it, into a traceback.
        raise InvalidHeaderValue("Authorization", "expected base64-encoded credentials") from None
    if not colon:
        raise InvalidHeaderValue("Authorization", "expected username:password credentials")
    return username, password


def build_authorization_basic(username: str, password: str) -> str:
    """Build an Authorization header with Basic credentials (RFC 7617 §2).

    Raises:
        ValueError: If the username contains a colon.
    """
    if ":" in username:
        raise ValueError("username contains a colon")
    user_pass = f"{username}:{password}".encode("utf-8", "surrogateescape")
    return "Basic " + binascii.b2a_base64(user_pass, newline=False).decode()
