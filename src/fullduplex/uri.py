"""WebSocket URIs (RFC 6455 §3)."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import SplitResult, quote, unquote, urlsplit

from .exceptions import InvalidProxy, InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

# urlsplit() silently drops some of these, and the rest would reach the request line: nothing of
# the kind may be in a URI, or in an IRI (RFC 3986 §2, RFC 3987 §2.2).
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f]")

# What credentials may not contain once decoded (RFC 7617 §2)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# What a name may consist of (RFC 3986 §3.2.2). Percent-encoding is legal there but resolves
# nowhere; whatever else urlsplit() lets through (a backslash, for one) is read in other ways by
# other parsers, which is how a request ends up at a host that somebody believed excluded.
_HOST = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=]+")

# RFC 6874 §2: the zone of a link-local IPv6 address
_ZONE = re.compile(r"[A-Za-z0-9\-._~]+")

# Left alone when an IRI is turned into a URI: all of visible ASCII, escapes included
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass
class WebSocketURI:
    """The parts of a WebSocket URI.

    Attributes:
        secure: True for ``wss``, False for ``ws``.
        host: Name or address in lower case; an IPv6 address has no brackets, an international
            name is in its ASCII form.
        port: The port; the scheme's default if the URI has none.
        path: The path, percent-encoded; may be empty.
        query: The query, percent-encoded, without the question mark; may be empty.
        username: Name for authentication, decoded, or None.
        password: Password for authentication, decoded; None if and only if there is no username.
            It is left out of ``repr()``.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def resource_name(self) -> str:
        """Path and query as they stand in the request (RFC 6455 §3)."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> tuple[str, str] | None:
        """Username and password, or None if there are none."""
        if self.username is None or self.password is None:
            return None
        return self.username, self.password


_Invalid: TypeAlias = type[InvalidURI] | type[InvalidProxy]
"""What is raised: the URLs of proxies follow the same rules"""

_Parts: TypeAlias = tuple[bool, str, int, str, str, str | None, str | None]
"""The fields of a :class:`WebSocketURI`"""


def parse_uri(uri: str) -> WebSocketURI:
    """Take a WebSocket URI apart.

    IRIs are accepted: the host is encoded according to IDNA, path and query are percent-encoded
    (RFC 3987 §3.1). Username and password are percent-decoded.

    Args:
        uri: For instance ``wss://user:secret@example.com:8443/path?query``.

    Raises:
        InvalidURI: If the scheme is neither ``ws`` nor ``wss``; if there is no host, or one that
            cannot exist; if the port is not a number from 1 to 65535; if there is a fragment, or
            a username without a password; if there are spaces or control characters.
        TypeError: If it is no str.
    """
    if not isinstance(uri, str):
        raise TypeError(f"a URI must be a str, not {type(uri).__name__}")
    # A copy for each caller, who may change it. Credentials are not remembered.
    return WebSocketURI(*(_parse_parts(uri) if "@" in uri else _parse_remembered(uri)))


def _parse_parts(uri: str) -> _Parts:
    if "#" in uri:  # RFC 6455 §3, also when the fragment is empty
        raise InvalidURI(uri, "fragment identifier is meaningless")
    parts, port = split(uri, InvalidURI)
    if parts.scheme not in ("ws", "wss"):
        raise InvalidURI(uri, "scheme isn't ws or wss")
    secure = parts.scheme == "wss"
    if port is None:
        port = 443 if secure else 80
    host = parse_host(uri, parts, InvalidURI)
    username, password = parse_credentials(uri, parts, InvalidURI)
    try:
        path, query = quote(parts.path, safe=_ASCII), quote(parts.query, safe=_ASCII)
    except UnicodeEncodeError as exc:  # half of a surrogate pair
        raise InvalidURI(uri, "path or query cannot be encoded") from exc
    return secure, host, port, path, query, username, password


# A program connects to few servers, again and again.
_parse_remembered = functools.lru_cache(maxsize=16)(_parse_parts)


def split(uri: str, invalid: _Invalid) -> tuple[SplitResult, int | None]:
    """Return the parts of a URI and its port; raises `invalid` if they cannot be told.

    What urlsplit() says of an error may quote the password, so nobody gets to see it.
    """
    if _FORBIDDEN.search(uri):
        raise invalid(uri, "spaces and control characters aren't allowed")
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise invalid(uri, "hostname isn't valid as a name or as an IPv6 address") from None
    try:
        port = parts.port
    except ValueError:
        raise invalid(uri, "port isn't a number from 1 to 65535") from None
    if port == 0:
        raise invalid(uri, "port 0 cannot be connected to")
    return parts, port


def parse_host(uri: str, parts: SplitResult, invalid: _Invalid) -> str:
    """Return the host in the form in which it is resolved and sent; raises `invalid`."""
    host = parts.hostname
    if not host:
        raise invalid(uri, "hostname isn't provided")
    location = parts.netloc.rpartition("@")[2]
    if location.startswith("["):
        # not every Python looks at what follows the bracket
        if location.partition("]")[2][:1] not in ("", ":"):
            raise invalid(uri, "hostname contains invalid characters")
        return _parse_ipv6_address(uri, host, invalid)
    if not host.isascii():
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError as exc:
            raise invalid(uri, "hostname isn't a valid international name") from exc
    if _HOST.fullmatch(host) is None:
        raise invalid(uri, "hostname contains invalid characters")
    # RFC 1035 §2.3.4. The resolver would report these as a UnicodeError.
    labels = host.removesuffix(".").split(".")
    if sum(map(len, labels)) + len(labels) > 254 or not all(0 < len(x) <= 63 for x in labels):
        raise invalid(uri, "hostname has an empty or an overlong part")
    return host


def _parse_ipv6_address(uri: str, host: str, invalid: _Invalid) -> str:
    """Check what stands between brackets; a zone loses its encoding (RFC 6874 §2)."""
    import ipaddress  # only for the rare URI that needs it

    address, percent, zone = host.partition("%")
    if zone.startswith("25") and zone != "25":
        zone = unquote(zone[2:])
    try:
        ipaddress.IPv6Address(address)
    except ValueError as exc:
        raise invalid(uri, "hostname isn't a valid IPv6 address") from exc
    if percent and _ZONE.fullmatch(zone) is None:
        raise invalid(uri, "zone of the IPv6 address isn't valid")
    return address + percent + zone


def parse_credentials(
    uri: str, parts: SplitResult, invalid: _Invalid
) -> tuple[str | None, str | None]:
    """Return username and password, decoded, or None twice; raises `invalid`."""
    if parts.username is None:
        return None, None
    if parts.password is None:
        raise invalid(uri, "username provided without password")
    try:
        username = unquote(parts.username, errors="strict")
        password = unquote(parts.password, errors="strict")
    except UnicodeDecodeError as exc:
        raise invalid(uri, "username or password isn't valid UTF-8") from exc
    if ":" in username:  # RFC 7617 §2: the password would begin there
        raise invalid(uri, "username contains a colon")
    if _CONTROL.search(username) or _CONTROL.search(password):
        raise invalid(uri, "username or password contains a control character")
    return username, password
