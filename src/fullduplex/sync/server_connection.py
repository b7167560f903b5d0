"""The server's connections, and how they are opened: request, hooks, answer.

Between a connection's first byte and its last word in the opening handshake, exactly one thread may
answer: whoever gets hold of ``_answering``. Usually that is the connection's own thread, once it
has read a request. When the server shuts down meanwhile, it is the thread that does that: it
refuses with 503 (`ServerConnection.refuse`), and the connection's own thread, which still waits for
the request, reads on until the client has gone.
"""

from __future__ import annotations

import http
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..http11 import SERVER
from ..machine import bare
from ..protocol import State
from ..roles import SEND
from .closing import begin_close
from .connection import Connection

if TYPE_CHECKING:
    from ..http11 import Request, Response
    from ..server import ServerProtocol
    from ..stream import Stream
    from ..typing import StatusLike, Subprotocol
    from .server import Server

__all__ = ["Hooks", "ServerConnection", "begin_close", "open_connection"]

OPEN: Final = State.OPEN
NOTHING: Final = -1

REQUEST_SIZE: Final = 2048
"""Bytes of the request that are read at once: more than nearly all browsers send."""
LINGER: Final = 1.0
"""Seconds that a refused client has to read our answer and to close."""

INTERNAL_ERROR_TEXT: Final = (
    "Failed to open a WebSocket connection.\nSee server log for more information.\n"
)
OVERLOADED_TEXT: Final = "Server has too many connections.\n"
CLOSING_TEXT: Final = "Server is shutting down.\n"


class ServerConnection(Connection):
    """The server's end of a WebSocket connection (RFC 6455 §4.2).

    It is the argument of handlers and hooks; see `Connection` for what it can do, from any thread.

    Args:
        socket: connected socket; also accepted as ``sock``.
        protocol: the Sans-I/O side.
        server: the server that it belongs to; None for none (WSGI).
        ping_interval: as for `Connection`, like the others.
        ping_timeout: as for `Connection`.
        close_timeout: as for `Connection`.
        max_queue: as for `Connection`.

    Attributes:
        server: as given.
        username: set by `basic_auth`.
        handler, handler_kwargs: set by a `Router`: what it found for the path of the request.
    """

    username: str

    def __init__(
        self,
        socket: Any = None,
        protocol: ServerProtocol | None = None,
        server: Server | None = None,
        *,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        close_timeout: float | None = 10,
        max_queue: int | tuple[int | None, int | None] | None = 16,
        sock: Any = None,
    ) -> None:
        super().__init__(
            socket,
            protocol,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            close_timeout=close_timeout,
            max_queue=max_queue,
            sock=sock,
        )
        self.server = server
        self.handler: Callable[..., None] | None = None
        self.handler_kwargs: dict[str, Any] = {}
        # Taken, never released, by who may answer the request; nobody waits for it.
        self._answering = threading.Lock()
        self.protocol.logger = self.logger

    def respond(self, status: StatusLike, text: str) -> Response:
        """Make an HTTP response in plain text, for ``process_request`` to return.

        Args:
            status: the status.
            text: the body, sent as UTF-8.

        Returns:
            A response with the headers Date, Connection (``close``), Content-Length and
            Content-Type; it may be changed.

        Raises:
            ValueError: if there is no such status.
        """
        response: Response = self.protocol.reject(status, text)  # type: ignore[attr-defined]
        return response

    def refuse(self) -> None:
        """Answer with 503, for the server shuts down, unless somebody answers. Never waits."""
        if not self._answering.acquire(blocking=False):
            return
        response = self.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, CLOSING_TEXT)
        try:
            self._stream.try_write(response.serialize())
            self._stream.shutdown_write()
        except OSError:
            self._stream.abort()


@dataclass(slots=True)
class Hooks:
    """What the application has to say in an opening handshake; None where it has not.

    Attributes:
        process_request: called with connection and request; may return a response.
        process_response: called with connection, request and response; may return another response.
        select_subprotocol: called with connection and offered subprotocols; returns one of them or
        None. server_header: value of the ``Server`` header.
    """

    process_request: Callable[[Any, Request], Response | None] | None = None
    process_response: Callable[[Any, Request, Response], Response | None] | None = None
    select_subprotocol: Callable[[Any, Sequence[Subprotocol]], str | None] | None = None
    server_header: str | None = SERVER


def open_connection(connection: ServerConnection, hooks: Hooks, deadline: float | None) -> bool:
    """Do the opening handshake.

    Args:
        connection: a connection that has just been made.
        hooks: what the application has to say.
        deadline: when to give up, on the clock of ``time.monotonic()``; None for never.

    Returns:
        True if the connection is open; False if it was refused, and the client knows.

    Raises:
        TimeoutError: if the deadline came first.
        OSError: if the network failed.
    """
    try:
        return receive(connection, hooks, deadline)
    finally:
        if (exc := connection.protocol.handshake_exc) is not None:
            bare(exc)


def receive(connection: ServerConnection, hooks: Hooks, deadline: float | None) -> bool:
    """Read the request and answer it; as `open_connection`."""
    request = read_request(connection, deadline)
    if not connection._answering.acquire(blocking=False):
        linger(connection._stream)  # refused by the thread that shuts the server down
        return False
    response = None
    if request is not None:
        connection.request = request
        response = find_response(connection, request, hooks)
    if deadline is not None and time.monotonic() >= deadline:
        raise TimeoutError("timed out during the opening handshake")
    # Once the protocol is open, others may want to write: not before the 101 is on its way.
    connection._writer.acquire(SEND)
    try:
        accepted = answer(connection, response, hooks, deadline)
    finally:
        connection._leave_writer()
    if accepted:
        connection._opened()
    else:
        linger(connection._stream)
    return accepted


def read_request(connection: ServerConnection, deadline: float | None) -> Request | None:
    """Read the request; None if none can be read, and the protocol knows what to say to that."""
    protocol, stream = connection.protocol, connection._stream
    with memoryview(bytearray(REQUEST_SIZE)) as buffer:
        while protocol.handshake_exc is None:
            count = stream.recv_into(buffer, deadline)
            if count > 0:
                protocol.receive_data(buffer[:count])
            elif count == NOTHING:
                raise TimeoutError("timed out while waiting for a request")
            else:
                protocol.receive_eof()
            for request in protocol.events_received():
                return request  # type: ignore[return-value]
    return None


def find_response(connection: ServerConnection, request: Request, hooks: Hooks) -> Response:
    """Find the response to a request. Whatever a hook raises is answered with 500."""
    try:
        response = ask(connection, request, hooks)
        add_server_header(response, hooks.server_header)
        if hooks.process_response is not None:
            response = hooks.process_response(connection, request, response) or response
            response = admit(connection, response)  # one that was refused before, perhaps
    except Exception as exc:
        response = internal_error(connection, exc, hooks)
    return response


def ask(connection: ServerConnection, request: Request, hooks: Hooks) -> Response:
    """Ask the application, the protocol and the server, in this order, what to answer."""
    protocol: ServerProtocol = connection.protocol  # type: ignore[assignment]
    server = connection.server
    response: Response | None = None
    if server is not None and server.closing:
        return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, CLOSING_TEXT)
    if hooks.process_request is not None:
        response = hooks.process_request(connection, request)
    if response is None:
        select = hooks.select_subprotocol
        if select is not None:
            protocol._select_subprotocol = lambda _, offered: select(connection, offered)
        try:
            response = protocol.accept(request)
        finally:
            # It refers to the connection, which refers to the protocol.
            if select is not None:
                protocol._select_subprotocol = None
    return admit(connection, response)


def admit(connection: ServerConnection, response: Response) -> Response:
    """Have the server note a connection that will be opened; or else give the refusal."""
    server = connection.server
    if server is not None and response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        if server.closing:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, CLOSING_TEXT)
        if not server.admit(connection):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, OVERLOADED_TEXT)
    return response


def internal_error(connection: ServerConnection, exc: Exception, hooks: Hooks) -> Response:
    """Make a response that says that something went wrong here; the log says what."""
    connection.logger.error("opening handshake failed", exc_info=exc)
    connection.protocol.handshake_exc = exc
    response = connection.respond(http.HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR_TEXT)
    add_server_header(response, hooks.server_header)
    return response


def add_server_header(response: Response, value: str | None) -> None:
    """Add the ``Server`` header, unless there is one: a response may be used for many requests."""
    if value is not None and "Server" not in response.headers:
        response.headers["Server"] = value


def answer(
    connection: ServerConnection, response: Response | None, hooks: Hooks, deadline: float | None
) -> bool:
    """Write the response, or what the protocol said by itself. Needs the writer role.

    Returns:
        Whether the connection is open.

    Raises:
        TimeoutError: if the deadline came first.
        OSError: if the network failed.
    """
    protocol: ServerProtocol = connection.protocol  # type: ignore[assignment]
    stream = connection._stream
    if response is not None:
        try:
            protocol.send_response(response)
        except Exception as exc:  # there is something in it that cannot be sent
            response = internal_error(connection, exc, hooks)
            protocol.send_response(response)
        connection.response = response
    try:
        for data in protocol.data_to_send():
            if not data:
                stream.shutdown_write()
            elif not stream.write(data, deadline):
                raise TimeoutError("timed out while sending the response")
    except BaseException as exc:
        if protocol.state is OPEN:
            connection._lost(exc)
        raise
    return protocol.state is OPEN


def linger(stream: Stream) -> None:
    """Read until the client has closed, or for a moment.

    If a socket is closed while there is something unread in it, TCP resets the connection, and the
    peer may lose our answer (RFC 9112 §9.6).
    """
    deadline = time.monotonic() + LINGER
    with memoryview(bytearray(4096)) as buffer:
        try:
            while stream.recv_into(buffer, deadline) > 0 and time.monotonic() < deadline:
                pass
        except OSError:
            pass  # it is gone, which is what we waited for
