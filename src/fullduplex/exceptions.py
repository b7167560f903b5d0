"""Every error that this library raises by itself.

The tree, drawn once:

.. code-block:: text

    WebSocketException (Exception)
    ├── ConnectionClosed                 the connection is, or has become, closed
    │   ├── ConnectionClosedOK             … cleanly: codes 1000, 1001 or none, both ways
    │   └── ConnectionClosedError          … in any other way
    ├── InvalidURI                       the caller's URI cannot be used
    ├── InvalidProxy                     the proxy's URL cannot be used
    ├── InvalidHandshake                 the opening handshake failed
    │   ├── SecurityError                  a limit or a safety rule was hit
    │   │   ├── RequestLineTooLong
    │   │   ├── StatusLineTooLong
    │   │   ├── HeaderLineTooLong
    │   │   └── TooManyHeaders
    │   ├── ProxyError                     the proxy did not let us through
    │   │   ├── InvalidProxyMessage
    │   │   └── InvalidProxyStatus
    │   ├── InvalidMessage                 what arrived is not HTTP as we need it
    │   ├── InvalidMethod                  the request is not a GET
    │   ├── InvalidProtocol                the request is not HTTP/1.1
    │   ├── InvalidStatus                  the response is not a 101
    │   ├── InvalidHeader                  a header is missing, empty or wrong
    │   │   ├── InvalidHeaderFormat          … its grammar
    │   │   ├── InvalidHeaderValue           … its value
    │   │   ├── InvalidOrigin                … it is a forbidden Origin
    │   │   └── InvalidUpgrade               … it is Connection or Upgrade
    │   └── NegotiationError               no agreement on extensions or subprotocols
    │       ├── DuplicateParameter
    │       ├── InvalidParameterName
    │       └── InvalidParameterValue
    ├── ProtocolError                    RFC 6455 was violated: close code 1002
    ├── PayloadTooBig                    a message exceeds ``max_size``: close code 1009
    ├── TooManyFragments                 a message has too many frames: close code 1009
    ├── InvalidState (AssertionError)    the call is not allowed in this state: the caller's fault
    └── ConcurrencyError (RuntimeError)  another thread is in the way: the caller's fault

Text that is not valid UTF-8 is a plain :exc:`UnicodeDecodeError` inside the protocol (close code
1007); a connection turns it, like every other violation, into :exc:`ConnectionClosedError` whose
``__cause__`` is the first error.

All exceptions can be pickled and copied, and may be used from any thread.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frames import Close
    from .http11 import Response

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidState",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyFragments",
    "TooManyHeaders",
    "WebSocketException",
]

# RFC 3986 §3.1; some write it twice
_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.\-]*://)*")

# RFC 3986 §3.2: what may stand for host and port, once there are no credentials before them
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:[0-9]*)?")


def without_password(uri: str) -> str:
    """Give a URI for people to read: ``***`` stands for the password.

    It may be no URI at all: often that is because of a character in the password which should have
    been encoded. In doubt more is hidden.
    """
    begin = _SCHEME.match(uri).end()  # type: ignore[union-attr]  # it matches nothing, too
    rest = uri[begin:]
    authority = re.split("[/?#]", rest, maxsplit=1)[0] if begin else rest
    end = authority.rfind("@")
    if end < 0:
        # A password with "/" or "?" in it ends the authority in its midst; "#" is never allowed.
        if _HOST_AND_PORT.fullmatch(authority) and not rest.startswith("#", len(authority)):
            return uri
        end = rest.rfind("@")
    start = rest.find(":", 0, max(end, 0))
    return uri if start < 0 else f"{uri[:begin]}{rest[:start]}:***{rest[end:]}"


# Constructors hand all their arguments to Exception.__init__: pickle and copy rebuild an exception
# by calling its class with `args`, also when it was raised with keyword arguments.


class WebSocketException(Exception):
    """Base class of all errors that this library defines."""


class ConnectionClosed(WebSocketException):
    """The connection is closed, or was closed during the call.

    Attributes:
        rcvd: The Close frame that arrived, or None if none did.
        sent: The Close frame that was sent, or None if none was.
        rcvd_then_sent: With both frames: whether the peer's came first, which means that the peer
            began the closing handshake (RFC 6455 §7.1.2). None otherwise.
    """

    def __init__(
        self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    @property
    def code(self) -> int:
        """The peer's close code, 1006 if no Close frame arrived: older code asks so; see ``rcvd``."""
        return 1006 if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The peer's close reason, ``""`` if no Close frame arrived: older code asks so; see ``rcvd``."""
        return "" if self.rcvd is None else self.rcvd.reason

    def __str__(self) -> str:
        if self.rcvd is None:
            if self.sent is None:
                return "no close frame received or sent"
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed):
    """The connection was closed cleanly.

    Close frames went both ways, each with code 1000 (OK), 1001 (going away), or no code at all.
    """


class ConnectionClosedError(ConnectionClosed):
    """The connection was closed with an error, or without a complete closing handshake."""


class InvalidURI(WebSocketException):
    """A URI is not a WebSocket URI (RFC 6455 §3).

    Attributes:
        uri: The URI as it was given. ``str()`` and ``repr()`` of the exception hide a password in it.
        msg: What is wrong with it.
    """

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        return f"{without_password(self.uri)} isn't a valid URI: {self.msg}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_password(self.uri)!r}, {self.msg!r})"


class InvalidProxy(WebSocketException):
    """The URL of a proxy cannot be used.

    Attributes:
        proxy: The URL as it was given. ``str()`` and ``repr()`` of the exception hide a password in it.
        msg: What is wrong with it.
    """

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{without_password(self.proxy)} isn't a valid proxy: {self.msg}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_password(self.proxy)!r}, {self.msg!r})"


class InvalidHandshake(WebSocketException):
    """The opening handshake failed. Base class of the reasons."""


class SecurityError(InvalidHandshake):
    """The opening handshake broke a limit or a rule that keeps this side safe."""


class RequestLineTooLong(SecurityError):
    """The first line of the request exceeds the limit (answered with HTTP 414)."""


class StatusLineTooLong(SecurityError):
    """The first line of the response exceeds the limit."""


class HeaderLineTooLong(SecurityError):
    """A header line exceeds the limit (a server answers with HTTP 431)."""


class TooManyHeaders(SecurityError):
    """There are more headers than the limit allows (a server answers with HTTP 431)."""


class ProxyError(InvalidHandshake):
    """The proxy failed, or refused to connect us."""


class InvalidProxyMessage(ProxyError):
    """What the proxy answered is not HTTP."""


class InvalidProxyStatus(ProxyError):
    """The proxy refused the connection.

    Attributes:
        response: The response of the proxy.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: HTTP {self.response.status_code:d}"


class InvalidMessage(InvalidHandshake):
    """What arrived in the opening handshake is not the HTTP message that belongs there."""


class InvalidMethod(InvalidHandshake):
    """The method of the request is not GET (RFC 6455 §4.1).

    Attributes:
        method: The method that was used.
    """

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


class InvalidProtocol(InvalidHandshake):
    """The request is not HTTP/1.1 (RFC 6455 §4.1).

    Attributes:
        protocol: The version that was used, for instance ``HTTP/1.0``.
    """

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


class InvalidStatus(InvalidHandshake):
    """The server refused the connection: its status is not 101.

    Attributes:
        response: The whole response, with its body.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: HTTP {self.response.status_code:d}"


class InvalidHeader(InvalidHandshake):
    """A header of the opening handshake is missing, empty or wrong.

    Attributes:
        name: The header's name.
        value: Its value; None if it is missing.
    """

    def __init__(self, name: str, value: str | None = None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


class InvalidHeaderFormat(InvalidHeader):
    """A header does not follow its grammar.

    Attributes:
        name: The header's name.
        value: What is wrong, where, and in which text.
    """

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")
        # Not what InvalidHeader left there: the class is rebuilt from its own four arguments.
        self.args = (name, error, header, pos)


class InvalidHeaderValue(InvalidHeader):
    """A header is well formed, but its value is not supported, or must not be sent."""


class InvalidOrigin(InvalidHeader):
    """The server does not admit the Origin of the request (answered with HTTP 403).

    Attributes:
        name: ``Origin``.
        value: The origin; None if the header is missing.
    """

    def __init__(self, origin: str | None) -> None:
        super().__init__("Origin", origin)
        self.args = (origin,)


class InvalidUpgrade(InvalidHeader):
    """The Connection or Upgrade header does not ask for, or grant, a WebSocket."""


class NegotiationError(InvalidHandshake):
    """There is no agreement on an extension or a subprotocol."""


class DuplicateParameter(NegotiationError):
    """An extension's parameter is given twice.

    Attributes:
        name: The parameter's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


class InvalidParameterName(NegotiationError):
    """An extension has no parameter of this name.

    Attributes:
        name: The parameter's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


class InvalidParameterValue(NegotiationError):
    """The value of an extension's parameter cannot be accepted.

    Attributes:
        name: The parameter's name.
        value: Its value; None if it has none.
    """

    def __init__(self, name: str, value: str | None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


class ProtocolError(WebSocketException):
    """RFC 6455 was violated, by the peer (close code 1002) or by a call on this side."""


class PayloadTooBig(WebSocketException):
    """A frame, or the message that it belongs to, exceeds the limit (close code 1009).

    All sizes are bytes.

    Attributes:
        size: The size of the frame; None if it is unknown (inflating stopped at the limit).
        max_size: How much would have been allowed for this frame.
        current_size: How much of the message came before it; None for the first frame. The limit
            of the message is then ``max_size + current_size``.
    """

    def __init__(self, size: int | None, max_size: int, current_size: int | None = None) -> None:
        super().__init__(size, max_size, current_size)
        self.size = size
        self.max_size = max_size
        self.current_size = current_size

    def __str__(self) -> str:
        # From the attributes: an extension knows only its own frame, and the protocol, which knows
        # what came before, sets `current_size` on the exception in passing.
        limit = self.max_size
        text = "frame"
        if self.size is not None:
            text += f" with {self.size} bytes"
        if self.current_size is not None:
            text += f" after reading {self.current_size} bytes"
            limit += self.current_size
        return f"{text} exceeds limit of {limit} bytes"


class TooManyFragments(WebSocketException):
    """A message has more frames than the limit that was set (close code 1009).

    Attributes:
        max_fragments: The limit.
    """

    def __init__(self, max_fragments: int) -> None:
        super().__init__(max_fragments)
        self.max_fragments = max_fragments

    def __str__(self) -> str:
        return f"message exceeds limit of {self.max_fragments} fragments"


class InvalidState(WebSocketException, AssertionError):
    """The call is not allowed in the state that the connection is in."""


class ConcurrencyError(WebSocketException, RuntimeError):
    """Another thread already does what only one thread may do at a time."""
