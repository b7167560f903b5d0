"""Ways through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS.

A tunnel is made in two steps: somebody opens a stream to the proxy, TCP or TLS, and `open_tunnel`
makes the proxy connect it to the server. What follows, TLS and the opening handshake, goes through
the same stream.

HTTP is spoken by this package itself, SOCKS by python-socks, through our own stream, so that the
deadline holds for every byte of it.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..datastructures import Headers
from ..exceptions import (
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    ProxyError,
    SecurityError,
)
from ..headers import build_authorization_basic, build_host
from ..http11 import Request
from ..http11_parser import ResponseParser
from ..stream import NOTHING
from ..uri import parse_credentials, parse_host, split
from .dialing import Cancel, look_up

if TYPE_CHECKING:
    from ..http11 import Response
    from ..stream import Stream
    from ..uri import WebSocketURI

__all__ = ["Proxy", "open_tunnel", "parse_proxy", "require_socks", "system_proxy"]

HTTP_SCHEMES: Final = frozenset(["http", "https"])
SOCKS_SCHEMES: Final = frozenset(["socks4", "socks4a", "socks5", "socks5h"])

_PASSING: Final = frozenset([0x01, 0x03, 0x04, 0x05, 0x06, 0x5B])
"""Replies of SOCKS proxies that may be others later (RFC 1928 §6): failures of the proxy itself and of
the network behind it. 0x5B is the one that SOCKS4 has for all of that."""

EXPLANATION: Final = 1.0
"""Seconds that are given to the body of a proxy's refusal, if its length is not known."""

RECEIVE_SIZE: Final = 16384
"""Bytes of a proxy's response that are read at once."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """The parts of a proxy's URL.

    Attributes:
        scheme: ``http``, ``https``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``.
        host: name or address, in the form in which it is looked up.
        port: the port.
        username: for authentication, or None.
        password: None if and only if there is no username. It is left out of ``repr()``.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_socks(self) -> bool:
        """Whether this is a SOCKS proxy."""
        return self.scheme in SOCKS_SCHEMES

    def __str__(self) -> str:
        """Give the URL without credentials, for messages."""
        return (
            f"{self.scheme}://{build_host(self.host, self.port, False, always_include_port=True)}"
        )


def parse_proxy(url: str) -> Proxy:
    """Take the URL of a proxy apart.

    Args:
        url: for instance ``http://user:secret@proxy.example.com:3128``.

    Raises:
        InvalidProxy: if the scheme is not one of ours; if host, port or credentials are not valid;
            if there is a path, a query or a fragment.
    """
    parts, port = split(url, InvalidProxy)
    if parts.scheme not in HTTP_SCHEMES | SOCKS_SCHEMES:
        raise InvalidProxy(url, f"scheme {parts.scheme} isn't supported")
    if parts.path not in ("", "/"):
        raise InvalidProxy(url, "path is meaningless")
    if "?" in url:
        raise InvalidProxy(url, "query is meaningless")
    if "#" in url:
        raise InvalidProxy(url, "fragment identifier is meaningless")
    host = parse_host(url, parts, InvalidProxy)
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    username, password = parse_credentials(url, parts, InvalidProxy)
    return Proxy(parts.scheme, host, port, username, password)


# The system's settings


def system_proxy(uri: WebSocketURI) -> Proxy | None:
    """Give the proxy that the system's settings want for a URI, or None.

    The settings are those of ``urllib.request``: environment variables, else those of macOS or
    Windows. ``no_proxy`` counts. Of the others, ``wss_proxy`` or ``ws_proxy`` comes first, then
    ``socks_proxy``, ``https_proxy``, and for ``ws://`` ``http_proxy``.

    Raises:
        InvalidProxy: if the setting is not valid.
    """
    if _nothing_set():
        return None
    import urllib.request  # takes milliseconds, and most systems need no proxy

    settings = urllib.request.getproxies()
    keys = ("wss", "socks", "https") if uri.secure else ("ws", "socks", "https", "http")
    for key in keys:
        url = settings.get(key)
        if url:
            break
    else:
        return None
    host = build_host(uri.host, uri.port, uri.secure, always_include_port=True)
    if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(uri.host):
        return None
    # The systems' settings know no schemes, and some programs leave them out of the variables.
    scheme, separator, rest = url.rpartition("://")
    if key == "socks" and scheme in ("", "http"):
        return parse_proxy(f"socks5h://{rest}")
    return parse_proxy(url if separator else f"http://{rest}")


def _nothing_set() -> bool:
    """Tell quickly that no proxy is set, where only environment variables can set one."""
    if sys.platform in ("win32", "darwin"):
        return False
    loaded = sys.modules.get("urllib.request")
    if loaded is not None and loaded.getproxies is not loaded.getproxies_environment:
        return False  # somebody brought settings of another kind
    raw = getattr(os.environ, "_data", None)  # reading it through its front door takes 10 µs
    if raw is not None and os.name == "posix":
        return b"_proxy" not in b"\0".join(raw).lower()
    return "_proxy" not in "\0".join(os.environ).lower()


# Tunnels


def require_socks() -> Any:
    """Give the module ``python_socks``.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import python_socks.sync
    except ImportError as exc:
        raise ImportError(
            "a SOCKS proxy needs python-socks: pip install 'fullduplex[socks]'"
        ) from exc
    return python_socks


def open_tunnel(
    stream: Stream,
    proxy: Proxy,
    uri: WebSocketURI,
    *,
    user_agent: str | None,
    deadline: float | None,
    cancel: Cancel | None = None,
) -> None:
    """Make a proxy connect a stream to the host of a URI.

    Args:
        stream: leads to the proxy.
        proxy: the proxy.
        uri: where the tunnel shall lead to.
        user_agent: for HTTP proxies, the User-Agent; None for none.
        deadline: on the clock of ``time.monotonic()``, or None.
        cancel: lets another thread give up.

    Raises:
        InvalidProxyStatus: if an HTTP proxy refuses.
        InvalidProxyMessage: if its answer is not HTTP.
        ProxyError: if a SOCKS proxy refuses, or does not speak SOCKS. If that may pass, the cause is
            an EOFError or a ConnectionError.
        OSError: if the network fails, TimeoutError among them.
    """
    if proxy.is_socks:
        _open_socks_tunnel(stream, proxy, uri, deadline, cancel)
    else:
        _open_http_tunnel(stream, proxy, uri, user_agent, deadline)


def _open_http_tunnel(
    stream: Stream, proxy: Proxy, uri: WebSocketURI, user_agent: str | None, deadline: float | None
) -> None:
    target = build_host(uri.host, uri.port, uri.secure, always_include_port=True)
    headers = Headers(Host=target)
    if user_agent is not None:
        headers["User-Agent"] = user_agent
    if proxy.username is not None and proxy.password is not None:
        headers["Proxy-Authorization"] = build_authorization_basic(proxy.username, proxy.password)
    if not stream.write(Request(target, headers, method="CONNECT").serialize(), deadline):
        raise TimeoutError("timed out")
    parser = ResponseParser("CONNECT")
    try:
        response = _read_response(stream, parser, deadline)
    except (ValueError, EOFError, SecurityError) as exc:
        if isinstance(exc, SecurityError) and parser.head is not None:
            # Only its body is too large: the status says more.
            raise InvalidProxyStatus(parser.partial()) from exc
        raise InvalidProxyMessage(f"did not receive a valid HTTP response: {exc}") from exc
    if not 200 <= response.status_code < 300:
        raise InvalidProxyStatus(response)
    if parser.leftover:
        # Nothing was sent to the server yet, and it has nothing to say before.
        raise InvalidProxyMessage("received more than a response without a body")


def _read_response(stream: Stream, parser: ResponseParser, deadline: float | None) -> Response:
    """Read the response.

    Raises:
        ValueError, EOFError, SecurityError: as the parser.
        TimeoutError: if the deadline comes first.
    """
    view = memoryview(bytearray(RECEIVE_SIZE))
    limit: float | None = None
    while True:
        count = stream.recv_into(view, deadline)
        if count == 0:
            return parser.feed_eof()
        if count > 0:
            response = parser.feed(bytes(view[:count]))
            if response is not None:
                return response
            head = parser.head
            if (
                head is not None
                and limit is None
                and "Content-Length" not in head.headers
                and "Transfer-Encoding" not in head.headers
            ):
                # It ends with the connection, which the proxy may keep open: the explanation is not worth much time.
                limit = time.monotonic() + EXPLANATION
                deadline = limit if deadline is None else min(deadline, limit)
        # The stream looks at the clock only when there is nothing to read.
        if count == NOTHING or (deadline is not None and time.monotonic() >= deadline):
            if parser.head is not None:
                return parser.partial()  # a refusal whose explanation never ends
            raise TimeoutError("timed out")


class _Carrier:
    """What python-socks takes for a socket: our stream, under our deadline.

    It is also the proxy before the first one of the chain, which python-socks asks for that socket.
    """

    def __init__(self, stream: Stream, deadline: float | None) -> None:
        self._stream = stream
        self._deadline = deadline
        self.ended = False  # whether the stream has come to its end

    def connect(self, **_: Any) -> _Carrier:
        """Be connected, which has been done."""
        return self

    def sendall(self, data: bytes) -> None:
        """Write all of it."""
        if not self._stream.write(data, self._deadline):
            raise TimeoutError("timed out")

    def recv(self, size: int) -> bytes:
        """Read some bytes; none at the end of the stream."""
        buffer = bytearray(size)
        count = self._stream.recv_into(memoryview(buffer), self._deadline)
        if count == NOTHING:
            raise TimeoutError("timed out")
        self.ended = count == 0 < size
        return bytes(buffer[:count])

    def close(self) -> None:
        """Leave closing to those who opened the stream."""


def _open_socks_tunnel(
    stream: Stream, proxy: Proxy, uri: WebSocketURI, deadline: float | None, cancel: Cancel | None
) -> None:
    python_socks = require_socks()
    old, remote = proxy.scheme in ("socks4", "socks4a"), proxy.scheme in ("socks4a", "socks5h")
    host = uri.host
    if not remote:
        host = _look_up_here(uri, old, deadline, cancel)
    kind = python_socks.ProxyType.SOCKS4 if old else python_socks.ProxyType.SOCKS5
    carrier = _Carrier(stream, deadline)
    try:
        client = python_socks.sync.Proxy(
            kind,
            proxy.host,
            proxy.port,
            proxy.username,
            proxy.password,
            rdns=remote,
            forward=carrier,
        )
        client.connect(host, uri.port)
    except TimeoutError:
        raise TimeoutError("timed out") from None
    except OSError:
        raise
    except Exception as exc:  # also of other kinds, when the proxy does not speak SOCKS
        reason = str(exc) or type(exc).__name__
        raise ProxyError(f"proxy did not connect: {reason}") from _find_cause(exc, carrier)


def _find_cause(exc: Exception, carrier: _Carrier) -> Exception:
    """Give the cause of a failure, of the class by which reconnecting tells what may pass."""
    if carrier.ended:
        cause: Exception = EOFError("connection closed in the middle of the SOCKS handshake")
    elif getattr(exc, "error_code", None) in _PASSING:
        cause = ConnectionError(str(exc))
    else:
        return exc
    cause.__cause__ = exc
    return cause


def _look_up_here(
    uri: WebSocketURI, only_ipv4: bool, deadline: float | None, cancel: Cancel | None
) -> str:
    """Give an address for a proxy that does not look up names."""
    import socket

    addresses = look_up(uri.host, uri.port, deadline, cancel)
    for family, sockaddr in addresses:
        if family == socket.AF_INET or not only_ipv4:
            return str(sockaddr[0])
    raise ProxyError(f"SOCKS4 needs an IPv4 address, and {uri.host} has none")
