"""The client: ``connect()`` and what belongs to it.

What the functions here describe is done elsewhere: `opening` opens connections, by way of
`dialing`, `proxy` and `redirects`; `reconnecting` does it again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

from ..client import process_exception as _process_exception
from ..http11 import USER_AGENT
from .connection import Connection
from .opening import Opener
from .reconnecting import Reconnecting, backoff

if TYPE_CHECKING:
    import ssl as ssl_module

    from ..client import ClientProtocol
    from ..datastructures import HeadersLike
    from ..extensions.base import ClientExtensionFactory
    from ..typing import LoggerLike, PathLike

__all__ = ["ClientConnection", "connect", "reconnect", "unix_connect", "unix_reconnect"]


class ClientConnection(Connection):
    """A connection as the client sees it; `connect` gives you one.

    Everything about it is said at `Connection`.
    """

    protocol: ClientProtocol

    def __enter__(self) -> Self:
        return self


def connect(
    uri: str,
    *,
    sock: Any = None,
    ssl: ssl_module.SSLContext | None = None,
    server_hostname: str | None = None,
    origin: str | None = None,
    extensions: Sequence[ClientExtensionFactory] | None = None,
    subprotocols: Sequence[str] | None = None,
    compression: str | None = "deflate",
    additional_headers: HeadersLike | None = None,
    user_agent_header: str | None = USER_AGENT,
    proxy: str | bool | None = True,
    proxy_ssl: ssl_module.SSLContext | None = None,
    proxy_server_hostname: str | None = None,
    open_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    close_timeout: float | None = 10,
    max_size: int | tuple[int | None, int | None] | None = 2**20,
    max_queue: int | tuple[int | None, int | None] | None = 16,
    logger: LoggerLike | None = None,
    create_connection: Callable[..., ClientConnection] | None = None,
    legacy: bool | None = None,
    **kwargs: Any,
) -> ClientConnection:
    """Connect to a WebSocket server (RFC 6455 §4.1).

    The connection is open when the call returns. It is its own context manager::

        with connect("wss://example.com/chat") as websocket:
            websocket.send("Hello!")

    All addresses of the server are tried, as RFC 8305 describes it. Redirects are followed, though
    never from ``wss://`` to ``ws://``, and without credentials and cookies to another origin. Any
    number of threads may connect at once.

    Args:
        uri: ``ws://`` or ``wss://``. Credentials in it are sent as Basic authentication (RFC 7617),
            and are the answer to a Digest challenge (RFC 7616).
        sock: a connected socket to use. The URI's host and port then only stand in the request and
            name the certificate; proxies and redirects are out.
        ssl: settings for TLS; None for ``ssl.create_default_context()``. They hold for redirects too,
            a certificate of the client included: see ``cross_origin_redirects``.
        server_hostname: the name in the server's certificate, if it is not the URI's host.
        origin: the ``Origin`` header.
        extensions: what to offer, in the order of preference.
        subprotocols: what to offer, in the order of preference.
        compression: ``"deflate"`` offers permessage-deflate (RFC 7692) too; None does not.
        additional_headers: more headers for the request.
        user_agent_header: the ``User-Agent``, also for an HTTP proxy; None for none.
        proxy: URL of a proxy: ``http://``, ``https://``, ``socks4://``, ``socks4a://``,
            ``socks5://``, ``socks5h://`` (SOCKS needs python-socks); True for the system's
            settings, None for none.
        proxy_ssl: settings for TLS with an ``https://`` proxy; None for
            ``ssl.create_default_context()``.
        proxy_server_hostname: the name in the proxy's certificate, if it is not its host.
        open_timeout: seconds until the connection has to be open: one limit for looking up,
            connecting, proxy, TLS, opening handshake and redirects together. None for no limit.
        ping_interval: seconds between keepalive pings; None for none.
        ping_timeout: seconds within which a keepalive ping must be answered; None for no limit.
        close_timeout: seconds that closing may take; None for no limit.
        max_size: bytes that a message may have, None for no limit, or a pair of limits for a
            message and for each of its fragments.
        max_queue: frames that are buffered while nobody reads, or a pair of a high and a low mark;
            None for no limit.
        logger: where to log to; by default ``fullduplex.client``.
        create_connection: makes the connection, instead of `ClientConnection`: a subclass, or
            anything that can be called like it and gives one. It is called before the opening
            handshake.
        legacy: False returns a `reconnect` instead of a connection; True and None mean the same.
        **kwargs: for the TCP connection, to the proxy if there is one: ``source_address``, a (host,
            port) pair to bind to; ``timeout``, seconds for connecting alone; ``all_errors``, True
            for an ExceptionGroup with what happened to each address; ``address``, a (host, port)
            pair to connect to instead; ``socket_options``, a list of (level, option, value) triples
            for ``setsockopt()``. Besides, ``cross_origin_redirects``: False follows redirects within
            the URI's origin only. That is for clients which identify themselves by a certificate in
            ``ssl``, or by headers other than Authorization and Cookie, since these would go along.

    Returns:
        The open connection.

    Raises:
        InvalidURI: if the URI, or one that a redirect leads to, is not valid.
        InvalidProxy: if the proxy's URL is not valid.
        InvalidHandshake: if the opening handshake fails; InvalidStatus and ProxyError are the most
            likely ones.
        OSError: if the network fails; among them TimeoutError and the exceptions of TLS.
        ValueError, TypeError: for impossible arguments, and for redirects that ``sock``, ``address``
            or ``cross_origin_redirects`` rule out.
        ImportError: for a SOCKS proxy without python-socks.
    """
    opener = Opener(
        uri,
        ClientConnection,
        sock=sock,
        ssl=ssl,
        server_hostname=server_hostname,
        origin=origin,
        extensions=extensions,
        subprotocols=subprotocols,
        compression=compression,
        additional_headers=additional_headers,
        user_agent_header=user_agent_header,
        proxy=proxy,
        proxy_ssl=proxy_ssl,
        proxy_server_hostname=proxy_server_hostname,
        open_timeout=open_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        max_size=max_size,
        max_queue=max_queue,
        logger=logger,
        create_connection=create_connection,
        **kwargs,
    )
    if legacy is False:
        return reconnect._of(opener)  # type: ignore[return-value]
    connection: ClientConnection = opener.open()
    return connection


def unix_connect(
    path: PathLike | None = None, uri: str | None = None, **kwargs: Any
) -> ClientConnection:
    """Connect to a WebSocket server that listens on a Unix socket.

    Args:
        path: where the Unix socket is; or give ``sock``.
        uri: what to ask for; by default ``ws://localhost/``, or ``wss://localhost/`` with ``ssl``.
        **kwargs: as for `connect`. There is no proxy.

    Raises:
        ValueError: without path and ``sock``, or with both.
        Otherwise as `connect`.
    """
    return connect(**_unix_arguments(path, uri, kwargs))


def _unix_arguments(
    path: PathLike | None, uri: str | None, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Give the arguments of `connect` for those of `unix_connect`."""
    sock = kwargs.get("sock")
    if path is None and sock is None:
        raise ValueError("missing path argument")
    if path is not None and sock is not None:
        raise ValueError("path is incompatible with sock")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return {**kwargs, "uri": uri, "path": path, "proxy": None}


class reconnect(Reconnecting):
    """Connect, and connect again when the connection is gone.

    As an iterator, it gives one open connection after the other, without end::

        for websocket in reconnect("wss://example.com/feed"):
            try:
                for message in websocket:
                    ...
            except ConnectionClosed:
                continue

    A connection is closed when the next one is asked for. After a failure that may pass, it waits,
    longer and longer, and tries again; what may pass is up to ``process_exception``. `stop` ends
    the iteration from any thread.

    As a context manager, it opens one connection, as `connect` does, and raises what goes wrong.

    Args:
        uri: as for `connect`.
        process_exception: called with what went wrong; returns None to try again, or the exception
            to raise. By default errors of the network, time-outs, the HTTP statuses 500, 502, 503
            and 504, and a SOCKS proxy's failures to reach the server may pass.
        reconnect_delays: called at the first failure after a success; returns the delays in
            seconds. By default they are random, within bounds that grow; `reconnecting` says which.
            Where they end, iteration does, with the last error if connecting failed.
        **kwargs: as for `connect`.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError, ImportError: for impossible arguments.
    """

    def __init__(
        self,
        uri: str,
        *,
        process_exception: Callable[[Exception], Exception | None] = _process_exception,
        reconnect_delays: Callable[[], Iterable[float]] = backoff,
        **kwargs: Any,
    ) -> None:
        opener = Opener(uri, ClientConnection, **kwargs)
        super().__init__(opener, process_exception, reconnect_delays)

    @classmethod
    def _of(cls, opener: Opener) -> reconnect:
        self = cls.__new__(cls)
        Reconnecting.__init__(self, opener, _process_exception, backoff)
        return self

    def __enter__(self) -> ClientConnection:
        connection: ClientConnection = super().__enter__()
        return connection

    def __iter__(self) -> Iterator[ClientConnection]:
        return super().__iter__()


def unix_reconnect(
    path: PathLike | None = None, uri: str | None = None, **kwargs: Any
) -> reconnect:
    """Connect to a server on a Unix socket, and connect again when the connection is gone.

    Args:
        path: where the Unix socket is.
        uri: what to ask for; by default ``ws://localhost/``, or ``wss://localhost/`` with ``ssl``.
        **kwargs: as for `reconnect`.

    Raises:
        ValueError: without path and ``sock``, or with both.
        Otherwise as `reconnect`.
    """
    return reconnect(**_unix_arguments(path, uri, kwargs))
