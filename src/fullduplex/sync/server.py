"""Listening, serving, and shutting down.

`serve` makes a `Server`. Its accept loop (`acceptor`) runs in the thread that calls
`Server.serve_forever`; each connection gets a thread of its own out of a pool (`workers`), and
there the whole of its life takes place (`Reception`): TLS, opening handshake, the application's
handler, closing.

What the server knows of each connection decides how it shuts down::

    accepted --> opening --101--> admitted --handler ended, closed--> forgotten
                   |                                                     |
                   +-------------- refused, failed ----------------------+

Those that are opening are refused with 503, those that are admitted are closed. Both notes are put
down first and the flag ``closing`` is looked at then, while `Server.shutdown` sets the flag first
and looks at the notes then: so no connection is missed by both.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl as ssl_module
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from ..conditions import LOOK_AGAIN
from ..exceptions import ProtocolError
from ..frames import Close, CloseCode
from ..http11 import SERVER
from ..protocol import State
from .acceptor import Acceptor
from .auth import basic_auth
from .broadcast import broadcast
from .checks import check_count
from .listening import (
    NODELAY_INHERITED,
    listen,
    listen_unix,
    remove_socket_file,
    set_nodelay,
    socket_file_identity,
    systemd_sockets,
)
from .reception import Reception, check_handler, make_options
from .server_connection import LINGER, ServerConnection, begin_close
from .workers import Workers

if TYPE_CHECKING:
    from types import TracebackType

    from ..extensions.base import ServerExtensionFactory
    from ..http11 import Request, Response
    from ..typing import LoggerLike, PathLike, Subprotocol

__all__ = [
    "Server",
    "ServerConnection",
    "basic_auth",
    "broadcast",
    "serve",
    "systemd_sockets",
    "unix_serve",
]

OPEN: Final = State.OPEN

MAX_CONNECTIONS: Final = 16384
"""How many connections may be open at once by default."""
MAX_HANDSHAKES: Final = 256
"""How many may be in the opening handshake at once by default."""


class Server:
    """A server: listening sockets, and a thread for each connection.

    Made by `serve`. As a context manager it shuts down at the end.

    Args:
        sock: the listening socket, or several.
        handler: called with each accepted socket and its peer's address, in a thread of its own;
            owns the socket.
        logger: where to log to; by default ``fullduplex.server``.
        max_connections: how many connections may be open at once; None for no limit.
        max_handshakes: how many may be in the opening handshake at once; None for no limit.

    Attributes:
        socket: the listening socket; the first, if there are several.
        logger: as given.
        closing: `shutdown` was called.
        goodbye: how it closes connections; None if it does not.
    """

    def __init__(
        self,
        sock: Any,
        handler: Callable[[Any, Any], None],
        logger: LoggerLike | None = None,
        *,
        max_connections: int | None = None,
        max_handshakes: int | None = None,
    ) -> None:
        self.sockets: tuple[Any, ...] = tuple(sock) if isinstance(sock, Sequence) else (sock,)
        if not self.sockets:
            raise ValueError("there is no socket to listen on")
        self.socket = self.sockets[0]
        self.logger = logging.getLogger("fullduplex.server") if logger is None else logger
        self.closing = False
        self.goodbye: Close | None = None
        self._handler = handler
        self._max_connections = max_connections
        self._max_handshakes = max_handshakes
        self._files: list[tuple[int, int] | None] = [
            socket_file_identity(sock) for sock in self.sockets
        ]
        self._workers = Workers("fullduplex handler")
        # Sockets in the opening handshake; with their connections, once they have one.
        self._opening: dict[Any, ServerConnection | None] = {}
        self._admitted: set[ServerConnection] = set()
        # Makes counting and adding one step; held for nothing else.
        self._admitting = threading.Lock()
        self._pid = os.getpid()
        self._acceptor: Acceptor | None = None
        self._loop_thread: threading.Thread | None = None
        self._loop_ended = threading.Event()
        self._loop_ended.set()
        for sock in self.sockets:
            set_nodelay(sock)

    def leave_files(self) -> None:
        """Keep the files of Unix sockets when the server is shut down: somebody else made them."""
        self._files = [None for _ in self.sockets]

    # Looking

    def fileno(self) -> int:
        """Give the descriptor of the listening socket; of the first, if there are several."""
        return int(self.socket.fileno())

    @property
    def connections(self) -> set[ServerConnection]:
        """The connections that are open; a new set each time."""
        return {c for c in self._admitted.copy() if c.protocol.state is OPEN}

    # Accepting

    def serve_forever(self) -> None:
        """Accept connections until `shutdown` is called, by another thread or a signal handler.

        Outlives everything that may go wrong with a single connection, and what comes and goes, as
        a lack of memory or descriptors does.

        Raises:
            RuntimeError: if a thread does so already.
            OSError: if the listening socket was closed by somebody else.
        """
        self._after_fork()
        if self._loop_thread is not None:
            raise RuntimeError("another thread is already running serve_forever")
        # In this order, and at the end too: a signal's handler may raise, or shut us down, between the two. What counts
        # is the thread; the event only saves time.
        self._loop_ended.clear()
        self._loop_thread = threading.current_thread()
        try:
            if self.closing:
                return
            self._accept_all()
        except OSError:
            if not self.closing:  # else a signal handler has closed the sockets under us
                raise
        finally:
            self._loop_thread = None
            self._loop_ended.set()

    def _accept_all(self) -> None:
        acceptor = Acceptor(self.sockets, self._dispatch, self._may_accept, self.logger)
        self._acceptor = acceptor
        try:
            # Who shuts the server down sets this first, and looks for the acceptor then.
            if not self.closing:
                acceptor.run()
        finally:
            self._acceptor = None
            acceptor.close()

    def _may_accept(self) -> bool:
        return self._max_handshakes is None or len(self._opening) < self._max_handshakes

    def _dispatch(self, sock: Any, address: Any) -> None:
        """Have a new connection served by a thread."""
        self._opening[sock] = None
        try:
            self._workers.run(self._serve, sock, address)
        except BaseException:
            del self._opening[sock]
            raise

    def _serve(self, sock: Any, address: Any) -> None:
        try:
            if not NODELAY_INHERITED:
                set_nodelay(sock)
            self._handler(sock, address)
        except Exception:
            self.logger.error("serving a connection failed", exc_info=True)
        finally:
            self.end_opening(sock)

    # What a Reception tells

    def begin_opening(self, sock: Any, connection: ServerConnection) -> None:
        """Note the connection that a socket got."""
        self._opening[sock] = connection
        if self.closing:
            connection.refuse()

    def end_opening(self, sock: Any) -> None:
        """Note that a socket has left the opening handshake; idempotent."""
        if self._opening.pop(sock, self) is self:
            return
        acceptor = self._acceptor
        if acceptor is not None and acceptor.held:
            acceptor.ring()

    def admit(self, connection: ServerConnection) -> bool:
        """Note a connection that is about to be opened; False if there are too many. Idempotent."""
        with self._admitting:
            if connection in self._admitted:
                return True
            limit = self._max_connections
            if limit is not None and len(self._admitted) >= limit:
                return False
            self._admitted.add(connection)
            return True

    def forget(self, connection: ServerConnection) -> None:
        """Note that a connection is closed, or was not opened; idempotent."""
        self._admitted.discard(connection)

    # Ending

    def shutdown(
        self,
        close_connections: bool = True,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> None:
        """Shut the server down; from any thread, also from a signal handler. Idempotent.

        Stops accepting; refuses connections in the opening handshake with 503; closes open
        connections, all at once, each within its ``close_timeout``; waits until all handlers have
        returned. Called by a handler, it does not wait for that one.

        Args:
            close_connections: False to let handlers go on until they return by themselves.
            code: close code.
            reason: close reason.
            timeout: seconds that all of this may take; then connections are cut, and it returns
                though handlers may run on. None for no limit: then a handler that does not return
                when its connection is closed is waited for.

        Raises:
            RuntimeError: if a handler calls this with ``close_connections=False``: it would wait
                for itself.
            ProtocolError: for a code or reason that may not be sent; nothing happened.
        """
        close = Close(code, reason)
        if len(close.serialize()) > 125:
            raise ProtocolError("close reason too long")
        if not close_connections and self._workers.in_task():
            raise RuntimeError("a handler cannot wait for all handlers")
        deadline = None if timeout is None else time.monotonic() + timeout
        self._after_fork()
        if not self.closing:
            self.logger.info("server closing")
        self.closing = True
        self._stop_accepting()
        for connection in self._opening.copy().values():
            if connection is not None:
                connection.refuse()
        if close_connections:
            self.goodbye = close
            self._close_connections(close, deadline)
        self._workers.stop()
        if not self._wait_for_handlers(deadline):
            for connection in self._admitted.copy():
                connection._cut()
            self.logger.warning("server closed, though handlers did not return in time")
            return
        self.logger.info("server closed")

    def _after_fork(self) -> None:
        """In a forked child: threads and connections are the parent's; only the listening sockets are common."""
        if self._workers.pid == os.getpid():
            return
        self._workers = Workers(self._workers.name)
        self._opening, self._admitted = {}, set()
        self._admitting = threading.Lock()
        self._acceptor = self._loop_thread = None
        self._loop_ended = threading.Event()
        self._loop_ended.set()

    def _stop_accepting(self) -> None:
        acceptor = self._acceptor
        if acceptor is not None:
            acceptor.stop()
        while self._loop_thread not in (None, threading.current_thread()):
            self._loop_ended.wait(LOOK_AGAIN)
        for sock, file in zip(self.sockets, self._files, strict=True):
            if sock.fileno() >= 0:
                # It is not a child's of the process that made it, but a daemon's, whose maker has gone.
                if self._pid != os.getppid():
                    remove_socket_file(sock, file)
                sock.close()

    def _close_connections(self, close: Close, deadline: float | None) -> None:
        """Close all connections: first begin with each, then wait for each."""
        connections = self._admitted.copy()
        for connection in connections:
            begin_close(connection, close, deadline)
        for connection in connections:
            if connection.protocol.state is not State.CONNECTING:
                connection.close(close.code, close.reason)

    def _wait_for_handlers(self, deadline: float | None) -> bool:
        left = LINGER if deadline is None else min(LINGER, max(deadline - time.monotonic(), 0.0))
        if self._workers.wait(left):
            return True
        # Clients that had not sent a request have seen the 503 by now, or will never look.
        for sock in self._opening.copy():
            abort(sock)
        return self._workers.wait(
            None if deadline is None else max(deadline - time.monotonic(), 0.0)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()


def abort(sock: Any) -> None:
    """Cut a socket that another thread uses, which wakes that thread."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def serve(
    handler: Callable[[ServerConnection], None],
    host: str | None = None,
    port: int | None = None,
    *,
    sock: Any = None,
    ssl: ssl_module.SSLContext | None = None,
    origins: Sequence[str | re.Pattern[str] | None] | None = None,
    extensions: Sequence[ServerExtensionFactory] | None = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: Callable[[Any, Sequence[Subprotocol]], str | None] | None = None,
    compression: str | None = "deflate",
    process_request: Callable[[Any, Request], Response | None] | None = None,
    process_response: Callable[[Any, Request, Response], Response | None] | None = None,
    server_header: str | None = SERVER,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: int | tuple[int | None, int | None] | None = 16,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ServerConnection] | None = None,
    max_connections: int | None = MAX_CONNECTIONS,
    max_handshakes: int | None = MAX_HANDSHAKES,
    **kwargs: Any,
) -> Server:
    """Listen for WebSocket connections over TCP; `Server.serve_forever` then accepts them.

    .. code-block:: python

        def echo(connection):
            for message in connection:
                connection.send(message)

        with serve(echo, "localhost", 8765, origins=["https://example.com"]) as server:
            server.serve_forever()

    Each connection is served by a thread: TLS, opening handshake, ``handler(connection)``, closing
    handshake: with code 1000 when the handler returns, and 1011, and an ERROR in the log, when it
    raises.

    Browsers let any site connect to any server, with the cookies that they have for it. ``origins``
    says which sites may (RFC 6455 §10.2).

    Args:
        handler: the application; called for each open connection.
        host: address or name to listen on; None for all interfaces, over IPv4: see ``dualstack_ipv6``.
        port: port to listen on; None or 0 for a free one, see ``Server.socket``.
        sock: a listening socket, or several of them (`systemd_sockets`), in place of host and port.
        ssl: makes it a server for ``wss://``.
        origins: which values of the ``Origin`` header are admitted: strings, compiled patterns,
            which have to match in full, and None for clients that send none. Others are refused
            with 403.
        extensions: factories of extensions, in the order of preference.
        subprotocols: names of subprotocols, in the order of preference.
        select_subprotocol: ``f(connection, offered)`` that chooses one or none; NegotiationError
            refuses with 400.
        compression: ``"deflate"`` adds permessage-deflate to the extensions; None doesn't.
        process_request: ``f(connection, request)``, called before anything else, with requests that
            are not for a WebSocket as well; returns None to go on, or a response: see
            `ServerConnection.respond`.
        process_response: ``f(connection, request, response)``; may change the response, or return
            another.
        server_header: value of the ``Server`` header; None for none.
        open_timeout: seconds that TLS and opening handshake may take; then TCP is closed. None for
            no limit.
        ping_interval: seconds between keepalive pings; None for none.
        ping_timeout: seconds within which such a ping must be answered; None for no limit.
        close_timeout: seconds that closing may take; None for no limit.
        max_size: bytes that a message may have; None for no limit; or a pair of limits, for a
            message and for each of its frames.
        max_queue: frames that are buffered while nobody reads, or a pair of a high and a low mark;
            None for no limit.
        logger: where to log to; by default ``fullduplex.server``.
        create_connection: makes connections in place of `ServerConnection`, with the same
            arguments.
        max_connections: connections that may be open at once; others are refused with 503, with 0
            all are. None for no limit.
        max_handshakes: opening handshakes that may be in progress at once; other clients wait in
            the system's queue. None for no limit. Together, both bound the number of threads.
        **kwargs: for `socket.create_server`: ``family``, ``backlog``, ``reuse_port`` (several
            processes share the port, and the system shares out the connections),
            ``dualstack_ipv6``.

    Raises:
        OSError: if it is not possible to listen there.
        TypeError, ValueError: for arguments that make no sense.
    """
    check_handler(handler)
    check_count("max_connections", max_connections, 0)
    check_count("max_handshakes", max_handshakes, 1)
    options = make_options(
        ssl=ssl,
        origins=origins,
        extensions=extensions,
        subprotocols=subprotocols,
        select_subprotocol=select_subprotocol,
        compression=compression,
        process_request=process_request,
        process_response=process_response,
        server_header=server_header,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        create_connection=create_connection,
    )
    options.check()
    reception = Reception(handler, options)
    server = Server(
        open_listener(host, port, sock, kwargs),
        reception,
        logger,
        max_connections=max_connections,
        max_handshakes=max_handshakes,
    )
    if sock is not None:
        server.leave_files()
    reception.server = server
    for listening in server.sockets:
        server.logger.info("server listening on %s", listening.getsockname())
    return server


def open_listener(host: str | None, port: int | None, sock: Any, kwargs: dict[str, Any]) -> Any:
    """Give the listening socket that the arguments of `serve` and `unix_serve` ask for."""
    unix = kwargs.pop("unix", False)
    path = kwargs.pop("path", None)
    if sock is not None:
        for name, value in (("host", host), ("port", port), ("path", path)):
            if value is not None:
                raise ValueError(f"{name} is incompatible with sock")
        return sock
    if unix:
        if path is None:
            raise ValueError("missing path argument")
        return listen_unix(path, **kwargs)
    if host is not None and not isinstance(host, str):
        raise TypeError(f"host must be a str, or None: {host!r}")
    return listen(host, port, **kwargs)


def unix_serve(
    handler: Callable[[ServerConnection], None], path: PathLike | None = None, **kwargs: Any
) -> Server:
    """Listen for WebSocket connections over a Unix socket.

    Args:
        handler: the application; called for each open connection.
        path: of the socket; its file is removed by `Server.shutdown`. A file that a server left
            behind is replaced.
        **kwargs: as for `serve`, without host and port.

    Raises:
        ValueError: if neither ``path`` nor ``sock`` is given, or both are.
        Otherwise as `serve`.
    """
    return serve(handler, unix=True, path=path, **kwargs)
