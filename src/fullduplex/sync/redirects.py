"""Where a refused opening handshake leads to: redirects (RFC 9110 §15.4) and answers to challenges.

The rules are few, and each of them keeps something safe:

- a target is taken apart by the same parser as every other URI, so no byte of it reaches a request
  unseen;
- from ``wss://`` no redirect leads to ``ws://``: what was to be encrypted stays encrypted;
- to another origin (scheme, host, port) go neither credentials nor cookies nor settings that were
  made for the first one, and they do not come back if the way leads back. The caller's TLS context is
  used everywhere, for it says whom to trust; it cannot be asked whether it has a certificate for the
  client, so who gives one has to say ``cross_origin_redirects=False``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urldefrag, urljoin

from ..auth import DigestAuth
from ..datastructures import Headers
from ..environment import read_limit
from ..exceptions import InvalidURI, SecurityError, without_password
from ..headers import build_host
from ..uri import parse_uri

if TYPE_CHECKING:
    from ..http11 import Response
    from ..uri import WebSocketURI

__all__ = ["Target", "follow", "leads_on", "next_target", "same_origin", "strip_credentials"]


# "0" follows none; other texts than numbers are refused as for the other limits.
MAX_REDIRECTS: Final = read_limit("FULLDUPLEX_MAX_REDIRECTS", 10, least=0)
"""How often one ``connect()`` tries at most, the first attempt included."""

SOCKET: Final = "a preexisting socket"
"""What ties the caller to a server most: the socket was used up by the first attempt."""

MAX_ANSWERS: Final = 2
"""How often a challenge is answered: once, and once more if the nonce was stale."""

# 304 and 305 are none, and 306 is unused.
_STATUSES: Final = frozenset([300, 301, 302, 303, 307, 308])

_PRIVATE: Final = ("Authorization", "Cookie", "Proxy-Authorization", "Host")


@dataclass(slots=True)  # not frozen: to make one would take four times as long
class Target:
    """Where an attempt goes to, and what it takes along; not changed once made.

    Attributes:
        uri: where to.
        headers: the caller's, as far as this origin may see them.
        server_hostname: the caller's, for the first origin; else None.
        authorization: an answer to a challenge, or None.
        auth: makes these answers.
        answers: how many there have been.
        attempts: how many there are with this one, answers aside.
    """

    uri: WebSocketURI
    headers: Headers
    server_hostname: str | None = None
    authorization: str | None = None
    auth: DigestAuth | None = None
    answers: int = 0
    attempts: int = 1


def next_target(target: Target, response: Response, fixed: str | None) -> Target | None:
    """Give what to try after a refusal.

    Args:
        target: what was refused.
        response: how.
        fixed: what ties the caller to the server that refused, for messages: a socket, which was
            used up, an address, or a setting; None for nothing.

    Returns:
        The next target, or None if the refusal is final.

    Raises:
        InvalidURI: if a redirect leads to something that is no URI.
        SecurityError: if it leads from ``wss://`` to ``ws://``, or there were too many.
        ValueError: if it cannot be followed because of what is fixed.
    """
    if response.status_code == 401:
        return None if fixed == SOCKET else _answer(target, response)
    location = redirect_location(response)
    if location is None or MAX_REDIRECTS == 0:
        return None
    if fixed == SOCKET:
        raise ValueError(f"cannot follow a redirect to {location} with {fixed}")
    if target.attempts >= MAX_REDIRECTS:
        raise SecurityError(f"more than {MAX_REDIRECTS} redirects")
    uri = follow(target.uri, location)
    if same_origin(uri, target.uri):
        again = None if target.auth is None else target.auth.repeat("GET", uri.resource_name)
        return dataclasses.replace(
            target, uri=uri, authorization=again, attempts=target.attempts + 1
        )
    if fixed is not None:
        raise ValueError(f"cannot follow a cross-origin redirect to {location} with {fixed}")
    return Target(uri, strip_credentials(target.headers), attempts=target.attempts + 1)


def _answer(target: Target, response: Response) -> Target | None:
    """Answer the challenge of a 401 with the credentials in the URI (RFC 7616)."""
    uri = target.uri
    if uri.user_info is None or "Authorization" in target.headers or target.answers >= MAX_ANSWERS:
        return None
    auth = target.auth or DigestAuth(*uri.user_info)
    challenges = response.headers.get_all("WWW-Authenticate")
    answer = auth.answer(challenges, "GET", uri.resource_name)
    if answer is None:
        return None
    return dataclasses.replace(target, authorization=answer, auth=auth, answers=target.answers + 1)


def redirect_location(response: Response) -> str | None:
    """Give the target of a redirect as it was sent, or None for none (RFC 9110 §10.2.2)."""
    if response.status_code not in _STATUSES:
        return None
    values = response.headers.get_all("Location")
    return values[0] if len(values) == 1 else None


def leads_on(response: Response) -> bool:
    """Tell whether a response is a redirect that is followed; its body is of no interest then."""
    return MAX_REDIRECTS != 0 and redirect_location(response) is not None


def follow(uri: WebSocketURI, location: str) -> WebSocketURI:
    """Give the URI that a redirect leads to.

    A relative target is resolved. ``http://`` and ``https://``, which is what general servers
    redirect to, stand for ``ws://`` and ``wss://``. A fragment is dropped; credentials in the URI
    stay if the origin does.

    Args:
        uri: what was asked for.
        location: the target as it was sent.

    Raises:
        InvalidURI: if the target is not one.
        SecurityError: if it leads from ``wss://`` to ``ws://``.
    """
    try:
        location = location.encode("latin-1").decode()  # an IRI, though RFC 9110 wants a URI
    except UnicodeDecodeError:
        pass
    scheme = "https" if uri.secure else "http"  # urljoin() knows no other schemes for certain
    base = f"{scheme}://{build_host(uri.host, uri.port, uri.secure)}{uri.resource_name}"
    try:
        target = urldefrag(urljoin(base, location)).url
    except ValueError:  # it may quote the password
        raise InvalidURI(location, "host isn't valid") from None
    for general, ours in (("http://", "ws://"), ("https://", "wss://")):
        if target[: len(general)].lower() == general:
            target = ours + target[len(general) :]
    # urljoin() drops some of what parse_uri() refuses.
    if any(char <= " " or char == "\x7f" for char in location):
        raise InvalidURI(location, "spaces and control characters aren't allowed")
    new = parse_uri(target)
    address, zone, _ = uri.host.partition("%")
    # A zone means something on this machine only, and is never sent (RFC 6874 §1).
    if zone and new.host == address:
        new.host = uri.host
    if uri.secure and not new.secure:
        raise SecurityError(
            f"cannot follow a redirect from wss:// to the insecure {without_password(target)}"
        )
    if same_origin(uri, new) and new.username is None:
        new.username, new.password = uri.username, uri.password
    return new


def same_origin(a: WebSocketURI, b: WebSocketURI) -> bool:
    """Tell whether two URIs have the same origin (RFC 6454 §5)."""
    return (a.secure, a.host, a.port) == (b.secure, b.host, b.port)


def strip_credentials(headers: Headers) -> Headers:
    """Give a copy without what must not reach another origin."""
    stripped = headers.copy()
    for name in _PRIVATE:
        if name in stripped:
            del stripped[name]
    return stripped
