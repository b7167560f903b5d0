"""What happens to an accepted socket, from its first byte to its last, in a thread of its own."""

from __future__ import annotations

import inspect
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..datastructures import Headers
from ..exceptions import ConnectionClosed
from ..extensions.permessage_deflate import enable_server_permessage_deflate
from ..frames import CloseCode
from ..http11 import SERVER
from ..server import ServerProtocol
from ..stream import Stream, open_stream, open_tls_stream
from .checks import check_callable, check_keeping, check_seconds, check_tls
from .queueing import queue_limits
from .server_connection import Hooks, ServerConnection, open_connection

if TYPE_CHECKING:
    import re

    from ..extensions.base import ServerExtensionFactory
    from ..http11 import Request, Response
    from ..protocol import Protocol
    from ..typing import LoggerLike, Subprotocol
    from .server import Server

__all__ = ["Options", "Reception", "make_options", "run_handler"]


@dataclass(slots=True)
class Options:
    """How connections are opened and kept; the names are those of the parameters of ``serve()``."""

    ssl: ssl.SSLContext | None = None
    origins: Sequence[str | re.Pattern[str] | None] | None = None
    extensions: Sequence[ServerExtensionFactory] | None = None
    subprotocols: Sequence[str] | None = None
    hooks: Hooks = field(default_factory=Hooks)
    open_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float | None = 10
    max_size: int | tuple[int | None, int | None] | None = 2**20
    max_queue: int | tuple[int | None, int | None] | None = 16
    logger: LoggerLike | None = None
    create_connection: Callable[..., ServerConnection] = ServerConnection

    def check(self) -> None:
        """Check what can be checked before there is a connection.

        Raises:
            TypeError, ValueError: for an argument that makes no sense.
        """
        check_tls("ssl", self.ssl)
        check_seconds("open_timeout", self.open_timeout)
        check_keeping(self.ping_interval, self.ping_timeout, self.close_timeout)
        queue_limits(self.max_queue)
        hooks = self.hooks
        check_callable(
            process_request=hooks.process_request,
            process_response=hooks.process_response,
            select_subprotocol=hooks.select_subprotocol,
            create_connection=self.create_connection,
        )
        if hooks.server_header is not None:
            Headers(Server=hooks.server_header)
        self._make_protocol(None)

    def _make_protocol(self, logger: LoggerLike | None) -> ServerProtocol:
        return ServerProtocol(
            origins=self.origins,
            extensions=self.extensions,
            subprotocols=self.subprotocols,
            max_size=self.max_size,
            logger=logger,
        )

    def make_connection(
        self, sock: Any, server: Server | None, logger: LoggerLike | None
    ) -> ServerConnection:
        """Make a connection that is still to be opened.

        Args:
            sock: a connected socket, or a stream over one.
            server: the server that it belongs to.
            logger: where to log to.
        """
        protocol = self._make_protocol(logger)
        # Bytes behind the request wait in the decoder until the connection reads.
        protocol.pulling = True
        return self.create_connection(
            sock,
            protocol,
            server,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            close_timeout=self.close_timeout,
            max_queue=self.max_queue,
        )


def make_options(
    *,
    ssl: ssl.SSLContext | None = None,
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: Callable[[Any, Sequence[Subprotocol]], str | None] | None = None,
    compression: str | None = "deflate",
    process_request: Callable[[Any, Request], Response | None] | None = None,
    process_response: Callable[[Any, Request, Response], Response | None] | None = None,
    server_header: str | None = SERVER,
    create_connection: Callable[..., ServerConnection] | None = None,
    **others: Any,
) -> Options:
    """Make options out of arguments as `serve` takes them.

    Raises:
        TypeError, ValueError: for arguments that make no sense.
    """
    if compression not in (None, "deflate"):
        raise ValueError(f"unsupported compression: {compression}")
    if compression is not None:
        extensions = enable_server_permessage_deflate(extensions)
    return Options(
        ssl=ssl,
        origins=origins,
        extensions=extensions,
        subprotocols=subprotocols,
        hooks=Hooks(process_request, process_response, select_subprotocol, server_header),
        create_connection=create_connection or ServerConnection,
        **others,
    )


# A shutdown, and what fails a connection, keepalive among it.
_NOT_BY_HANDLERS: Final = frozenset(
    [
        CloseCode.GOING_AWAY,
        CloseCode.INTERNAL_ERROR,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.INVALID_DATA,
        CloseCode.MESSAGE_TOO_BIG,
    ]
)


class Reception:
    """Serves accepted sockets. Called by many threads at once, each with a socket of its own.

    Args:
        handler: the application's.
        options: for connections.

    Attributes:
        server: to be set before the first call.
    """

    server: Server

    def __init__(self, handler: Callable[[Any], None], options: Options) -> None:
        self.handler = handler
        self.options = options

    def __call__(self, sock: Any, address: Any) -> None:
        """Serve a socket until it is closed, and close it."""
        server = self.server
        connection: ServerConnection | None = None
        try:
            connection = self._open(sock, address)
        except OSError as exc:
            # A probe, a scan, somebody who has gone: not worth more than a line.
            server.logger.info("opening handshake with %s failed: %s", address, exc)
        finally:
            server.end_opening(sock)
            if connection is None:
                sock.close()
        if connection is None:
            return
        try:
            goodbye = server.goodbye
            if goodbye is not None:  # the server's shutdown may not have seen this one
                connection.close(goodbye.code, goodbye.reason)
            else:
                connection.start_keepalive()
                run_handler(connection, self.handler)
        finally:
            server.forget(connection)

    def _open(self, sock: Any, address: Any) -> ServerConnection | None:
        """Do the handshakes; None if the connection was refused."""
        options, server = self.options, self.server
        timeout = options.open_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        stream: Any = sock
        if options.ssl is not None:
            stream = start_tls(sock, options.ssl, deadline)
        connection = options.make_connection(stream, server, server.logger)
        server.begin_opening(sock, connection)
        opened = False
        try:
            opened = open_connection(connection, options.hooks, deadline)
        finally:
            if not opened:
                server.forget(connection)
                connection._stream.close()
        return connection if opened else None


def check_handler(handler: Any) -> None:
    """Refuse what cannot serve a connection in a thread."""
    if not callable(handler):
        raise TypeError(f"handler must be callable: {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"handler must not be a coroutine function: {handler!r}")


def is_end_by_peer(protocol: Protocol, exc: ConnectionClosed) -> bool:
    """Tell whether an exception says that this connection ended, and the handler has not closed it itself."""
    rcvd, sent = protocol.close_rcvd, protocol.close_sent
    return (
        protocol.is_closed
        and (exc.rcvd, exc.sent) == (rcvd, sent)
        and (sent is None or protocol.close_rcvd_then_sent is True or sent.code in _NOT_BY_HANDLERS)
    )


def run_handler(
    connection: ServerConnection, handler: Callable[[Any], None]
) -> BaseException | None:
    """Run the application's handler, then close: with 1000, or 1011 if it raised something.

    Returns:
        What ended the handler if that is no Exception: SystemExit, KeyboardInterrupt. In a thread of
        this package it ends no more than the handler; in somebody else's it is for them to see.
    """
    code = CloseCode.NORMAL_CLOSURE
    ended_by: BaseException | None = None
    try:
        handler(connection)
    except BaseException as exc:
        code = CloseCode.INTERNAL_ERROR
        if isinstance(exc, ConnectionClosed) and is_end_by_peer(connection.protocol, exc):
            connection.logger.info("connection handler ended with its connection: %s", exc)
        else:
            connection.logger.error("connection handler failed", exc_info=True)
        if not isinstance(exc, Exception):
            ended_by = exc
    try:
        connection.close(code)
        connection.logger.info("connection closed")
        return ended_by
    finally:
        del ended_by  # it holds this frame


def start_tls(sock: Any, context: ssl.SSLContext, deadline: float | None) -> Stream:
    """Do the TLS handshake.

    Raises:
        OSError: if it fails: with an `ssl.SSLError`, or a TimeoutError at the deadline.
    """
    stream = open_tls_stream(open_stream(sock), context, server_side=True)
    try:
        stream.handshake(deadline)
    except OSError as exc:
        if isinstance(exc, TimeoutError):
            raise
        raise OSError(f"TLS: {exc}") from exc
    return stream
