"""The client's side of the opening handshake (RFC 6455 §4.1), without a socket.

:class:`ClientProtocol` sends a request and reads the response to it; from then on it is a
:class:`~fullduplex.protocol.Protocol`. What the response is checked for, in this order:

====================================================  =======================================
rule                                                  ``handshake_exc`` if it is broken
====================================================  =======================================
it is HTTP, complete, and within the limits           InvalidMessage or a SecurityError
its status is 101                                     InvalidStatus, with the whole response
``Connection`` and ``Upgrade`` say WebSocket          InvalidUpgrade
``Sec-WebSocket-Accept`` is there once                InvalidHeader
… and answers our key                                 InvalidHeaderValue
all of ``Sec-WebSocket-Extensions`` was offered       NegotiationError
``Sec-WebSocket-Protocol`` was offered, and is one    NegotiationError, InvalidHeader
====================================================  =======================================

A header that does not follow its grammar is an InvalidHeaderFormat. Nothing of a response is taken
over before all of it has been checked, and nothing at all of a response other than a 101.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProxyStatus,
    InvalidState,
    InvalidStatus,
    NegotiationError,
    ProxyError,
)
from .handshake import accept_key, check_upgrade, generate_key, log_headers, single_value
from .headers import (
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    parse_extension,
    parse_subprotocol,
    validate_subprotocols,
)
from .http11 import Request, Response
from .http11_parser import ResponseParser
from .protocol import CLIENT, CONNECTING, Protocol, State

if TYPE_CHECKING:
    from .extensions.base import ClientExtensionFactory, Extension
    from .typing import ExtensionName, ExtensionParameter, LoggerLike, Origin, Subprotocol
    from .uri import WebSocketURI

__all__ = ["ClientProtocol", "process_exception"]


class ClientProtocol(Protocol):
    """The client's end of a connection, as bytes, the opening handshake and frames.

    Not thread-safe.

    Args:
        uri: Where the connection leads to.
        origin: The ``Origin`` header to send; None for none.
        extensions: What to offer, in the order of preference.
        subprotocols: Names of subprotocols to offer, in the order of preference.
        state: Where to begin; OPEN skips the handshake.
        max_size: Bytes that a message may have, None for no limit, or a pair of limits for a
            message and for each of its frames.
        logger: Where to log to; by default ``fullduplex.client``.

    Attributes:
        uri: Where the connection leads to.
        key: The ``Sec-WebSocket-Key`` of the request.

    Raises:
        TypeError: If `subprotocols` is not a list.
        ValueError: If a subprotocol is not a token.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: str | None = None,
        extensions: Sequence[ClientExtensionFactory] | None = None,
        subprotocols: Sequence[str] | None = None,
        state: State = CONNECTING,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(CLIENT, state=state, max_size=max_size, logger=logger)
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        self.uri = uri
        self.origin = cast("Origin | None", origin)
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self.key = generate_key()
        self._parser = ResponseParser()

    def connect(self) -> Request:
        """Return the request that opens the connection; give it to :meth:`send_request`.

        Headers may be added to it, and changed, before it is sent.
        """
        headers = Headers()
        uri = self.uri
        host = build_host(uri.host, uri.port, uri.secure)
        headers._extend([("Host", host)])  # checked when it is sent
        if uri.user_info is not None:
            headers["Authorization"] = build_authorization_basic(*uri.user_info)
        if self.origin is not None:
            headers["Origin"] = self.origin
        headers._extend(
            [
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Key", self.key),
                ("Sec-WebSocket-Version", "13"),
            ]
        )
        if self.available_extensions:
            headers["Sec-WebSocket-Extensions"] = build_extension(
                [
                    (factory.name, factory.get_request_params())
                    for factory in self.available_extensions
                ]
            )
        if self.available_subprotocols:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol(self.available_subprotocols)
        return Request(uri.resource_name, headers)

    def send_request(self, request: Request) -> None:
        """Send the request.

        Args:
            request: The request; checked as it is written.

        Raises:
            ValueError: If it holds something that cannot be sent, so that nothing was sent.
            InvalidHeaderValue: Likewise, for the value of a header.
            InvalidState: If the handshake is over.
        """
        if self.state is not CONNECTING or self.handshake_exc is not None:
            raise InvalidState("the opening handshake is over")
        data = request.serialize()
        if self.debug:
            self.logger.debug("> %s %s %s", request.method, request.path, request.protocol)
            log_headers(self.logger, ">", request.headers)
        self._write(data)

    # Reading the response

    def _receive_handshake(self, data: bytes) -> None:
        try:
            response = self._parser.feed(data)
        except InvalidHandshake as exc:  # a limit
            self._fail_handshake(exc)
        except ValueError as exc:
            self._fail_unreadable(exc)
        else:
            if response is not None:
                self._take_response(response)

    def _receive_handshake_eof(self) -> None:
        try:
            response = self._parser.feed_eof()
        except EOFError as exc:
            self._fail_unreadable(exc)
        else:
            self._take_response(response)

    def _fail_unreadable(self, cause: Exception) -> None:
        exc = InvalidMessage(f"did not receive a valid HTTP response: {cause}")
        exc.__cause__ = cause
        self._fail_handshake(exc)

    def _take_response(self, response: Response) -> None:
        if self.debug:
            self.logger.debug("< HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            log_headers(self.logger, "<", response.headers)
            if response.body:
                self.logger.debug("< [body] (%d bytes)", len(response.body))
        self.events.append(response)
        try:
            self.process_response(response)
        except Exception as exc:  # whatever an extension raises: there is no connection then
            self._fail_handshake(exc)
        else:
            self._open(self._parser.leftover)

    def process_response(self, response: Response) -> None:
        """Check the response and take over what was negotiated.

        Args:
            response: The response.

        Raises:
            InvalidHandshake: As in the table above.
        """
        # Only a 101 negotiates: what else arrives may come from anybody on the way.
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        check_upgrade(headers)
        accept = single_value(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self.key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", accept)
        extensions = self.process_extensions(headers)
        subprotocol = self.process_subprotocol(headers)
        self.extensions = extensions
        self.subprotocol = subprotocol

    def process_extensions(self, headers: Headers) -> list[Extension]:
        """Return the extensions that the server accepted (RFC 6455 §9.1).

        Args:
            headers: The headers of the response.

        Raises:
            InvalidHeaderFormat: If the header is malformed.
            NegotiationError: If an extension, or a parameter, cannot be what we offered.
        """
        accepted: list[Extension] = []
        for value in headers.get_all("Sec-WebSocket-Extensions"):
            for name, params in parse_extension(value):
                accepted.append(self._make_extension(name, params, accepted))
        return accepted

    def _make_extension(
        self, name: ExtensionName, params: list[ExtensionParameter], accepted: list[Extension]
    ) -> Extension:
        """Return an extension made by the first of its factories that agrees with the server."""
        cause: NegotiationError | None = None
        for factory in self.available_extensions or ():
            if factory.name == name:
                try:
                    return factory.process_response_params(params, accepted)
                except NegotiationError as exc:
                    cause = exc
        what = build_extension([(name, params)])
        if cause is None:
            raise NegotiationError(f"the server chose an extension that was not offered: {what}")
        raise NegotiationError(
            f"the server's extension isn't acceptable: {what}: {cause}"
        ) from cause

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Return the subprotocol that the server chose, or None if it chose none.

        Args:
            headers: The headers of the response.

        Raises:
            InvalidHeaderFormat: If the header is malformed.
            InvalidHeader: If there are several.
            NegotiationError: If it was not offered.
        """
        chosen: list[Subprotocol] = []
        for value in headers.get_all("Sec-WebSocket-Protocol"):
            chosen += parse_subprotocol(value)
        if not chosen:
            return None
        if len(chosen) > 1:
            raise InvalidHeader("Sec-WebSocket-Protocol", "multiple values")
        if chosen[0] not in (self.available_subprotocols or ()):
            raise NegotiationError(
                f"the server chose a subprotocol that was not offered: {chosen[0]}"
            )
        return chosen[0]


_TRANSIENT_STATUSES = frozenset([500, 502, 503, 504])


def process_exception(exc: Exception) -> Exception | None:
    """Tell whether it makes sense to try again after connecting failed.

    This is how reconnecting decides unless it is told otherwise. Worth another try are errors of
    the network (:exc:`OSError`), time-outs, a stream that ends in the middle of the handshake, the
    statuses 500, 502, 503 and 504, be they from the server or from a proxy, and what a SOCKS proxy
    replies when it fails or cannot reach the server.

    Args:
        exc: What connecting raised.

    Returns:
        None to try again, or the exception to raise.
    """
    match exc:
        case OSError():  # TimeoutError is one
            return None
        case InvalidMessage() if isinstance(exc.__cause__, EOFError):
            return None
        case ProxyError() if isinstance(exc.__cause__, (EOFError, ConnectionError)):
            return None
        case InvalidStatus() | InvalidProxyStatus() if (
            exc.response.status_code in _TRANSIENT_STATUSES
        ):
            return None
    return exc
