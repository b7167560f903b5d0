r"""The server's side of the opening handshake (RFC 6455 §4.2), without a socket.

:class:`ServerProtocol` reads a request, leaves the answer to its caller, and sends it; from then on
it is a :class:`~fullduplex.protocol.Protocol`. The handshake has three phases::

    READING --request--> ANSWERING --response--> DONE
        \____response: to a bad request, or because we shut down____/

Requests that cannot become an event are answered at once, where an answer makes sense:

==================================================  ==========================================
what arrived                                        answer
==================================================  ==========================================
something that is not HTTP                          none, the stream ends
HTTP other than HTTP/1.x                            505
a first line that is too long                       414
a header that is too long, or too many of them      431
a malformed header, a request with a body           400
==================================================  ==========================================

and :meth:`ServerProtocol.accept` checks the others, in this order:

==================================================  ==========================================
rule                                                answer if it is broken
==================================================  ==========================================
the method is GET                                   405, ``Allow: GET``
the version is HTTP/1.1                             505
``Host`` is there once, and well formed             400
``Connection`` and ``Upgrade`` say WebSocket        426, ``Upgrade: websocket``
``Sec-WebSocket-Version`` is 13                     400, ``Sec-WebSocket-Version: 13``
``Sec-WebSocket-Key`` is Base64 of 16 bytes         400
``Origin`` is there at most once, and admitted      400, 403
``Sec-WebSocket-Extensions`` is well formed         400
``Sec-WebSocket-Protocol`` has one that fits        400
==================================================  ==========================================

Bytes behind the request wait, unparsed, until the 101 has been written.
"""

from __future__ import annotations

import binascii
import http
import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from . import http11_parser
from .datastructures import Headers
from .exceptions import (
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidState,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
)
from .handshake import accept_key, check_host, check_upgrade, log_headers, single_value
from .headers import (
    build_extension,
    build_subprotocol,
    parse_extension,
    parse_subprotocol,
    validate_subprotocols,
)
from .http11 import Request, Response, format_date
from .http11_parser import RequestParser
from .protocol import CONNECTING, SERVER, Protocol, State

if TYPE_CHECKING:
    from .extensions.base import Extension, ServerExtensionFactory
    from .typing import (
        ExtensionName,
        ExtensionParameter,
        LoggerLike,
        Origin,
        StatusLike,
        Subprotocol,
    )

__all__ = ["ServerProtocol"]


class _Phase(Enum):
    """Where the opening handshake is."""

    READING = "waiting for the request"
    ANSWERING = "waiting for the answer of our caller"
    DONE = "answered, or failed"


class ServerProtocol(Protocol):
    """The server's end of a connection, as bytes, the opening handshake and frames.

    Not thread-safe.

    Args:
        origins: The origins to admit: strings, compiled patterns that have to match in full, and
            None for requests without an ``Origin`` header. None in place of the list admits all.
        extensions: What to accept, in the order of preference.
        subprotocols: Names of subprotocols, in the order of preference.
        select_subprotocol: Chooses in place of :meth:`select_subprotocol`; called with the protocol
            and the names that the client offered.
        state: Where to begin; OPEN skips the handshake.
        max_size: Bytes that a message may have, None for no limit, or a pair of limits for a
            message and for each of its frames.
        logger: Where to log to; by default ``fullduplex.server``.

    Raises:
        TypeError: If `origins` is a string, or `subprotocols` is not a list.
        ValueError: If a subprotocol is not a token.
    """

    def __init__(
        self,
        *,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        extensions: Sequence[ServerExtensionFactory] | None = None,
        subprotocols: Sequence[str] | None = None,
        select_subprotocol: Callable[[Any, Sequence[Subprotocol]], str | None] | None = None,
        state: State = CONNECTING,
        max_size: int | tuple[int | None, int | None] | None = 2**20,
        logger: LoggerLike | None = None,
    ) -> None:
        super().__init__(SERVER, state=state, max_size=max_size, logger=logger)
        # A string is a sequence of strings: it would admit no origin, or a funny one.
        if isinstance(origins, (str, re.Pattern)):
            raise TypeError("origins must be a list")
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        self.origins = origins
        self.available_extensions = extensions
        self.available_subprotocols = subprotocols
        self._select_subprotocol = select_subprotocol
        self._parser = RequestParser()
        self._phase = _Phase.READING
        self._request: Request | None = None
        # What came behind the request
        self._leftover = bytearray()

    # Reading the request

    def _receive_handshake(self, data: bytes) -> None:
        if self._phase is _Phase.ANSWERING:
            self._keep_leftover(data)
            return
        try:
            request = self._parser.feed(data)
        except RequestLineTooLong as exc:
            self._refuse(exc, http.HTTPStatus.REQUEST_URI_TOO_LONG)
        except SecurityError as exc:
            self._refuse(exc, http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        except InvalidProtocol as exc:
            self._refuse(exc, http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        except ValueError as exc:
            unreadable = self._unreadable(exc)
            if self._parser.has_first_line:  # RFC 9112 §2.2, §5.1, §5.2: 400
                self._refuse(unreadable, http.HTTPStatus.BAD_REQUEST)
            else:
                self._give_up(unreadable)
        else:
            if request is not None:
                self._take_request(request)

    def _receive_handshake_eof(self) -> None:
        # Behind a complete request, the end of the stream is no reason not to answer it.
        if self._phase is _Phase.READING:
            try:
                self._parser.feed_eof()
            except EOFError as exc:
                self._give_up(self._unreadable(exc))

    def _take_request(self, request: Request) -> None:
        if self.debug:
            self.logger.debug("< %s %s %s", request.method, request.path, request.protocol)
            log_headers(self.logger, "<", request.headers)
        self._phase = _Phase.ANSWERING
        self._request = request
        self.events.append(request)
        self._keep_leftover(self._parser.leftover)

    def _keep_leftover(self, data: bytes) -> None:
        """Keep what came behind the request: nothing, from clients that obey RFC 6455 §4.1."""
        limit = http11_parser.MAX_HEAD_SIZE
        if len(self._leftover) + len(data) <= limit:
            self._leftover += data
        else:
            exc = SecurityError(f"over {limit} bytes arrived before the handshake was complete")
            self._refuse(exc, http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def _unreadable(self, cause: Exception) -> InvalidMessage:
        exc = InvalidMessage(f"did not receive a valid HTTP request: {cause}")
        exc.__cause__ = cause
        return exc

    def _refuse(self, exc: InvalidHandshake, status: http.HTTPStatus) -> None:
        """Answer a request that cannot be left to the caller."""
        self.handshake_exc = exc
        self.send_response(self.reject(status, f"Failed to open a WebSocket connection: {exc}.\n"))

    # Answering it

    def accept(self, request: Request) -> Response:
        """Check a request and return the response to it; give it to :meth:`send_response`.

        Args:
            request: The request.

        Returns:
            A 101, which can be changed before it is sent, if the request asks for a WebSocket that
            we can provide; else a refusal that says why not. Then `handshake_exc` is set, too.
        """
        try:
            headers = self._accept(request)
        except InvalidHandshake as exc:
            self.handshake_exc = exc
            return self._reject_for(exc)
        except Exception as exc:
            self.handshake_exc = exc
            self.logger.error("opening handshake failed", exc_info=True)
            return self.reject(
                http.HTTPStatus.INTERNAL_SERVER_ERROR,
                "Failed to open a WebSocket connection.\nSee server log for more information.\n",
            )
        return Response(101, "Switching Protocols", headers)

    def _accept(self, request: Request) -> Headers:
        """Check a request; return the headers of the response, with everything negotiated."""
        if request.method != "GET":
            raise InvalidMethod(request.method)
        if request.protocol == "HTTP/1.0":
            raise InvalidProtocol(request.protocol)
        key = self.process_request(request)
        origin = self.process_origin(request.headers)
        extensions_header, extensions = self.process_extensions(request.headers)
        subprotocol = self.process_subprotocol(request.headers)

        headers = Headers()
        headers._extend(
            [
                ("Date", format_date()),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_key(key)),
            ]
        )
        if extensions_header:
            headers["Sec-WebSocket-Extensions"] = extensions_header
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol([subprotocol])
        self.origin = origin
        self.extensions = extensions
        self.subprotocol = subprotocol
        return headers

    def _reject_for(self, exc: InvalidHandshake) -> Response:
        """Return the refusal that fits an exception."""
        status, extra = http.HTTPStatus.BAD_REQUEST, None
        match exc:
            case InvalidMethod():
                status, extra = http.HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET")
            case InvalidProtocol():
                status = http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
            case InvalidOrigin():
                status = http.HTTPStatus.FORBIDDEN
            case InvalidUpgrade():
                status, extra = http.HTTPStatus.UPGRADE_REQUIRED, ("Upgrade", "websocket")
            case InvalidHeader(name="Sec-WebSocket-Version"):  # RFC 6455 §4.4
                extra = ("Sec-WebSocket-Version", "13")
        response = self.reject(status, f"Failed to open a WebSocket connection: {exc}.\n")
        if extra is not None:
            response.headers[extra[0]] = extra[1]
        return response

    def reject(self, status: StatusLike, text: str) -> Response:
        """Return a refusal in plain text; give it to :meth:`send_response`.

        Args:
            status: The status, 400 to 599 in general.
            text: The body, sent as UTF-8.

        Raises:
            ValueError: If there is no such status.
        """
        status = http.HTTPStatus(status)
        # Whatever a client sent may be quoted in it; half of a surrogate pair must not stop us.
        body = text.encode(errors="backslashreplace")
        headers = Headers()
        headers["Date"] = format_date()
        headers["Connection"] = "close"
        headers["Content-Length"] = str(len(body))
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return Response(status.value, status.phrase, headers, body)

    def send_response(self, response: Response) -> None:
        """Send the response: a 101 opens the connection, anything else ends the stream.

        A refusal that lacks ``Connection`` or ``Content-Length`` gets them. If the handshake is
        over already, because a bad request was answered or the stream has ended, nothing is sent.

        Args:
            response: The response; checked as it is written.

        Raises:
            ValueError: If it holds something that cannot be sent; then nothing was sent.
            InvalidHeaderValue: Likewise, for the value of a header.
            InvalidState: If the connection is open.
        """
        if self.state is not CONNECTING:
            raise InvalidState("the opening handshake is over")
        if self._phase is _Phase.DONE:
            return
        accepted = response.status_code == 101
        if not accepted:
            response = self._complete(response)
        data = response.serialize()
        if self.debug:
            self.logger.debug("> HTTP/1.1 %d %s", response.status_code, response.reason_phrase)
            log_headers(self.logger, ">", response.headers)
            if response.body:
                self.logger.debug("> [body] (%d bytes)", len(response.body))
        self._write(data)
        if accepted:
            self._begin()
        else:
            self.logger.info(
                "connection rejected (%d %s)", response.status_code, response.reason_phrase
            )
            self._end(self.handshake_exc or InvalidStatus(response))

    def _complete(self, response: Response) -> Response:
        """Return a complete refusal; the one that was given may be in use for others as well."""
        headers = response.headers.copy()
        body = bytes(response.body)
        if "Connection" not in headers:
            headers["Connection"] = "close"
        if not response.has_no_body() and not (
            "Content-Length" in headers or "Transfer-Encoding" in headers
        ):
            headers["Content-Length"] = str(len(body))
        if self._request is not None and self._request.method == "HEAD":  # RFC 9110 §9.3.2
            body = b""
        return Response(response.status_code, response.reason_phrase, headers, body)

    def _begin(self) -> None:
        """Be open; from now on, frames and the end of the stream count that came early."""
        self.logger.info("connection open")
        self._phase = _Phase.DONE
        leftover = bytes(self._leftover)
        self._leftover = bytearray()
        self._open(leftover)
        if self.eof_rcvd:
            self.eof_rcvd = False
            if not self.pulling:  # else the connection sees it again when it reads
                self.receive_eof()

    def _give_up(self, exc: InvalidMessage) -> None:
        """End the handshake without an answer: nobody there would understand it."""
        self.logger.info("opening handshake failed: %s", exc)
        self._end(exc)

    def _end(self, exc: Exception) -> None:
        """End the handshake without a connection."""
        self._phase = _Phase.DONE
        self._leftover = bytearray()
        self._fail_handshake(exc)

    # Checking the request

    def process_request(self, request: Request) -> str:
        """Check the headers that make a request a WebSocket handshake (RFC 6455 §4.2.1).

        Args:
            request: The request.

        Returns:
            The ``Sec-WebSocket-Key``.

        Raises:
            InvalidHandshake: As in the table above.
        """
        headers = request.headers
        check_host(headers)
        check_upgrade(headers)
        version = single_value(headers, "Sec-WebSocket-Version")
        if version != "13":
            raise InvalidHeaderValue("Sec-WebSocket-Version", version)
        key = single_value(headers, "Sec-WebSocket-Key")
        try:
            nonce = binascii.a2b_base64(key.encode("ascii"), strict_mode=True)
        except (UnicodeEncodeError, binascii.Error) as exc:
            raise InvalidHeaderValue("Sec-WebSocket-Key", key) from exc
        if len(nonce) != 16:
            raise InvalidHeaderValue("Sec-WebSocket-Key", key)
        return key

    def process_origin(self, headers: Headers) -> Origin | None:
        """Return the origin of the request, or None if it has none (RFC 6454).

        Args:
            headers: The headers of the request.

        Raises:
            InvalidHeader: If the header is repeated.
            InvalidOrigin: If the origin is not admitted.
        """
        origin = single_value(headers, "Origin") if "Origin" in headers else None
        if self.origins is None:
            return cast("Origin | None", origin)
        for admitted in self.origins:
            if isinstance(admitted, re.Pattern):
                if origin is not None and admitted.fullmatch(origin):
                    break
            elif admitted == origin:
                break
        else:
            raise InvalidOrigin(origin)
        return cast("Origin | None", origin)

    def process_extensions(self, headers: Headers) -> tuple[str | None, list[Extension]]:
        """Choose among the extensions that the client offers (RFC 6455 §9.1).

        Offers that nobody wants, or that cannot be accepted, are passed over.

        Args:
            headers: The headers of the request.

        Returns:
            The header for the response, None for none, and the extensions.

        Raises:
            InvalidHeaderFormat: If the header is malformed.
        """
        described: list[tuple[ExtensionName, list[ExtensionParameter]]] = []
        accepted: list[Extension] = []
        for value in headers.get_all("Sec-WebSocket-Extensions"):
            for name, params in parse_extension(value):
                for factory in self.available_extensions or ():
                    if factory.name != name:
                        continue
                    try:
                        response_params, extension = factory.process_request_params(
                            params, accepted
                        )
                    except NegotiationError:
                        continue
                    described.append((name, response_params))
                    accepted.append(extension)
                    break
        return (build_extension(described) if described else None), accepted

    def process_subprotocol(self, headers: Headers) -> Subprotocol | None:
        """Choose among the subprotocols that the client offers.

        Args:
            headers: The headers of the request.

        Raises:
            InvalidHeaderFormat: If the header is malformed.
            NegotiationError: If there is no agreement.
            ValueError: If :meth:`select_subprotocol` chose one that was not offered, which RFC 6455
                §4.2.2 forbids.
        """
        offered: list[Subprotocol] = []
        for value in headers.get_all("Sec-WebSocket-Protocol"):
            offered += parse_subprotocol(value)
        chosen = self.select_subprotocol(offered)
        if chosen is not None and chosen not in offered:
            raise ValueError(f"select_subprotocol() chose what was not offered: {chosen!r}")
        return chosen

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Choose a subprotocol; can be overridden, or replaced by the argument of the same name.

        Without either, the first of the server's subprotocols that the client offers is taken; a
        server that has none goes on without.

        Args:
            subprotocols: What the client offers, in its order of preference.

        Raises:
            NegotiationError: If the server has subprotocols and the client offers none of them.
        """
        if self._select_subprotocol is not None:
            return cast("Subprotocol | None", self._select_subprotocol(self, subprotocols))
        if not self.available_subprotocols:
            return None
        for subprotocol in self.available_subprotocols:
            if subprotocol in subprotocols:
                return cast("Subprotocol", subprotocol)
        supported = ", ".join(self.available_subprotocols)
        if not subprotocols:
            raise NegotiationError(f"missing subprotocol, expected one of {supported}")
        raise NegotiationError(
            f"invalid subprotocol {', '.join(subprotocols)}, expected one of {supported}"
        )
