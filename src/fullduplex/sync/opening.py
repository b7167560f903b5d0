"""Opens connections: everything between the arguments of ``connect()`` and the open connection.

An attempt goes through these steps, all of them under one deadline; each says in its errors where
it was:

1. reach: the socket that was given, a Unix socket, or TCP to the server or the proxy (`dialing`);
2. TLS with the proxy, and the tunnel through it (`proxy`);
3. TLS with the server;
4. the opening handshake.

A refusal may lead to another attempt: a redirect (`redirects`), or a 401 whose challenge can be
answered. Whatever goes wrong from the first step on, the socket is closed.
"""

from __future__ import annotations

import dataclasses
import ssl as ssl_module
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ..client import ClientProtocol
from ..codec.interrupts import from_handler
from ..datastructures import Headers
from ..exceptions import InvalidHandshake, InvalidStatus, SecurityError
from ..extensions.permessage_deflate import enable_client_permessage_deflate
from ..headers import is_token, validate_subprotocols
from ..http11 import USER_AGENT, Response
from ..machine import size_limits
from ..protocol import State
from ..stream import NOTHING, Stream, TLSStream, open_stream, open_tls_stream
from ..uri import parse_uri
from .checks import check_callable, check_keeping, check_seconds, check_tls
from .connection import address_of
from .dialing import (
    Cancel,
    DialOptions,
    dial,
    dial_unix,
    explain,
    format_address,
    prepare_socket,
)
from .proxy import Proxy, open_tunnel, parse_proxy, require_socks, system_proxy
from .queueing import queue_limits
from .redirects import SOCKET, Target, leads_on, next_target

if TYPE_CHECKING:
    from ..datastructures import HeadersLike
    from ..extensions.base import ClientExtensionFactory
    from ..http11 import Request
    from ..typing import LoggerLike, PathLike
    from ..uri import WebSocketURI

__all__ = ["Opener"]

OPEN: Final = State.OPEN

RECEIVE_SIZE: Final = 1024
"""Bytes of the response, and of frames behind it, that are read at once: more than nearly all responses have."""

# What most callers want is made once.
_DEFLATE: Final = enable_client_permessage_deflate(None)
_PLAIN_DIAL: Final = DialOptions()

_DIAL_OPTIONS: Final = frozenset(field.name for field in dataclasses.fields(DialOptions))

# What nobody sends twice: the caller's header replaces ours.
_REPLACED: Final = ("Host", "Authorization")


class Opener:
    """The arguments of ``connect()``, checked; opens as many connections with them as one likes.

    The arguments are described at ``connect()``, all but these. May be used by several threads at
    once.

    Args:
        factory: makes connections; see ``create_connection`` there.
        path: a Unix socket to connect to.

    Raises:
        InvalidURI, InvalidProxy, ValueError, TypeError, ImportError: for arguments; nothing has
            been closed then.
    """

    def __init__(
        self,
        uri: str,
        factory: Callable[..., Any],
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
        create_connection: Callable[..., Any] | None = None,
        path: PathLike | None = None,
        address: tuple[str, int] | None = None,
        cross_origin_redirects: bool = True,
        **kwargs: Any,
    ) -> None:
        self.uri = parse_uri(uri)
        if ssl is not None and not self.uri.secure:
            raise ValueError("ssl is incompatible with a ws:// URI")
        if compression == "deflate":
            extensions = enable_client_permessage_deflate(extensions) if extensions else _DEFLATE
        elif compression is not None:
            raise ValueError(f"unsupported compression: {compression}")
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        check_tls("ssl", ssl)
        check_tls("proxy_ssl", proxy_ssl)
        size_limits(max_size)
        check_seconds("open_timeout", open_timeout)
        check_keeping(ping_interval, ping_timeout, close_timeout)
        queue_limits(max_queue)
        check_callable(create_connection=create_connection)
        self.sock = sock
        self.path = path
        self.address = address
        self.cross_origin = cross_origin_redirects
        self.dial_options = _dial_options(kwargs) if kwargs else _PLAIN_DIAL
        self.ssl = ssl
        self.server_hostname = server_hostname
        self.origin = origin
        self.extensions = extensions
        self.subprotocols = subprotocols
        self.headers = _check_headers(additional_headers, user_agent_header, origin)
        self.user_agent = user_agent_header
        self.proxy_ssl = proxy_ssl
        self.proxy_server_hostname = proxy_server_hostname
        # True stands for the settings of the system, which are looked at for each attempt.
        self.proxy: Proxy | bool | None = None
        if proxy not in (None, False) and sock is None and path is None:
            self.proxy = proxy if proxy is True else self._check_proxy(parse_proxy(str(proxy)))
        self.open_timeout = open_timeout
        self.connection_options: dict[str, Any] = {
            "ping_interval": ping_interval,
            "ping_timeout": ping_timeout,
            "close_timeout": close_timeout,
            "max_queue": max_queue,
        }
        self.max_size = max_size
        self.logger = logger
        self.factory = factory if create_connection is None else create_connection
        # Somebody else's function gets a socket where there is one.
        self.wants_socket = create_connection is not None

    def _check_proxy(self, proxy: Proxy) -> Proxy:
        """Check what else is known about the proxy."""
        if proxy.scheme == "http" and self.proxy_ssl is not None:
            raise ValueError("proxy_ssl is incompatible with an http:// proxy")
        if proxy.is_socks:
            require_socks()
        return proxy

    def open(self, cancel: Cancel | None = None) -> Any:
        """Open a connection.

        Args:
            cancel: lets another thread give up.

        Returns:
            What the factory made, with the connection open.

        Raises:
            OSError, InvalidHandshake, InvalidURI, InvalidProxy, ValueError: as ``connect()``.
            ConnectionAbortedError: (an OSError) if another thread gave up.
        """
        deadline = None if self.open_timeout is None else time.monotonic() + self.open_timeout
        target = Target(self.uri, self.headers, self.server_hostname)
        while True:
            try:
                return self._attempt(target, deadline, cancel)
            except InvalidStatus as exc:
                following = next_target(target, exc.response, self._fixed())
                if following is None:
                    raise
            target = following

    def _fixed(self) -> str | None:
        """Say what keeps us from connecting to another server."""
        if self.sock is not None:
            return SOCKET
        if self.path is not None:
            return "a Unix socket"
        if self.address is not None:
            return "an address"
        return None if self.cross_origin else "cross_origin_redirects=False"

    def _attempt(self, target: Target, deadline: float | None, cancel: Cancel | None) -> Any:
        """Try once."""
        stream = self._reach(target, deadline, cancel)
        try:
            # Not before: meanwhile the server accepts, and finds a thread for us.
            protocol = ClientProtocol(
                target.uri,
                origin=self.origin,
                extensions=self.extensions,
                subprotocols=self.subprotocols,
                max_size=self.max_size,
                logger=self.logger,
            )
            request = self._make_request(protocol, target)
            as_socket = self.wants_socket and not isinstance(stream, TLSStream)
            connection = self.factory(
                stream.sock if as_socket else stream, protocol, **self.connection_options
            )
            try:
                connection.request = request
                connection.response = shake_hands(stream, protocol, request, deadline)
            except (InvalidHandshake, OSError) as exc:
                where = describe(target.uri, connection.remote_address)
                explain(exc, f"during the opening handshake with {where}")
                raise
            if cancel is not None:
                cancel.attach(None)
                cancel.check()
            connection._opened()
            connection.start_keepalive()
        except BaseException:
            stream.close()
            raise
        return connection

    def _make_request(self, protocol: ClientProtocol, target: Target) -> Request:
        """Make the request, with the caller's headers in it."""
        request = protocol.connect()
        headers, additional = request.headers, target.headers
        if target.authorization is not None:
            del headers["Authorization"]
            headers["Authorization"] = target.authorization
        if additional:
            for name in _REPLACED:
                if name in additional and name in headers:
                    del headers[name]
            headers.update(additional)
        if self.user_agent is not None and "User-Agent" not in additional:
            headers["User-Agent"] = self.user_agent
        return request

    # Reaching the server

    def _reach(self, target: Target, deadline: float | None, cancel: Cancel | None) -> Stream:
        """Give a stream to the server, over which only the opening handshake has to be done."""
        uri = target.uri
        context = self.ssl
        if uri.secure and context is None:
            context = ssl_module.create_default_context()
        proxy = self._choose_proxy(uri)
        stream = self._dial(uri, proxy, deadline, cancel)
        try:
            if cancel is not None:
                cancel.attach(stream)
            if proxy is not None:
                stream = self._pass_proxy(stream, proxy, uri, deadline, cancel)
            if context is not None:
                # Neither a final dot nor a zone is part of the name (RFC 6066 §3, RFC 6874 §4).
                hostname = target.server_hostname or uri.host.partition("%")[0].removesuffix(".")
                where = describe(uri, address_of(stream.sock, "getpeername"))
                stream = _start_tls(stream, context, hostname, where, deadline)
        except BaseException:
            stream.close()
            raise
        return stream

    def _choose_proxy(self, uri: WebSocketURI) -> Proxy | None:
        if self.proxy is True:
            proxy = system_proxy(uri)
            return None if proxy is None else self._check_proxy(proxy)
        return self.proxy or None

    def _dial(
        self, uri: WebSocketURI, proxy: Proxy | None, deadline: float | None, cancel: Cancel | None
    ) -> Stream:
        """Give a stream to the server or the proxy, whichever is next."""
        if self.sock is not None:
            sock = self.sock
        elif self.path is not None:
            sock = dial_unix(self.path, self.dial_options, deadline, cancel)
        else:
            nearest = uri if proxy is None else proxy
            host, port = (nearest.host, nearest.port) if self.address is None else self.address
            try:
                sock = dial(host, port, self.dial_options, deadline, cancel)
            except OSError as exc:
                if proxy is not None:
                    explain(exc, f"(the proxy {proxy})")
                raise
        try:
            if self.sock is not None:
                prepare_socket(sock)
            return open_stream(sock)
        except BaseException:
            sock.close()
            raise

    def _pass_proxy(
        self,
        stream: Stream,
        proxy: Proxy,
        uri: WebSocketURI,
        deadline: float | None,
        cancel: Cancel | None,
    ) -> Stream:
        """Have the proxy connect the stream to the server; gives the stream that leads there."""
        if proxy.scheme == "https":
            context = self.proxy_ssl or ssl_module.create_default_context()
            hostname = self.proxy_server_hostname or proxy.host
            stream = _start_tls(stream, context, hostname, f"the proxy {proxy}", deadline)
        try:
            open_tunnel(
                stream, proxy, uri, user_agent=self.user_agent, deadline=deadline, cancel=cancel
            )
        except (InvalidHandshake, OSError) as exc:
            explain(exc, f"while asking the proxy {proxy} for {uri.host}:{uri.port}")
            raise
        return stream


def _dial_options(kwargs: dict[str, Any]) -> DialOptions:
    for name in kwargs:
        if name not in _DIAL_OPTIONS:
            raise TypeError(f"connect() got an unexpected keyword argument {name!r}")
    return DialOptions(**kwargs)


def _check_headers(
    additional: HeadersLike | None, user_agent: str | None, origin: str | None
) -> Headers:
    """Give the caller's headers; what cannot be sent is found here, before anything is connected.

    Raises:
        ValueError: for the name of a header.
        InvalidHeaderValue: for a value.
    """
    headers = Headers() if additional is None else Headers(additional)
    for name in headers:
        if not is_token(name):
            raise ValueError(f"invalid header name: {name!r}")
    if user_agent is not None and user_agent is not USER_AGENT:
        Headers({"User-Agent": user_agent})
    if origin is not None:
        Headers({"Origin": origin})
    return headers


def describe(uri: WebSocketURI, peer: Any) -> str:
    """Name the server, and the address through which it is reached, if that is another."""
    name = format_address((uri.host, uri.port))
    address = format_address(peer) if peer else name
    return name if address == name else f"{name} via {address}"


def _start_tls(
    stream: Stream,
    context: ssl_module.SSLContext,
    hostname: str,
    where: str,
    deadline: float | None,
) -> TLSStream:
    """Do the TLS handshake as a client, and give the stream over it."""
    tls = open_tls_stream(stream, context, server_hostname=hostname)
    try:
        tls.handshake(deadline)
    except TimeoutError as exc:
        raise TimeoutError(f"timed out during the TLS handshake with {where}") from exc
    except OSError as exc:
        explain(exc, f"during the TLS handshake with {where}")
        raise
    return tls


def shake_hands(
    stream: Stream, protocol: ClientProtocol, request: Request, deadline: float | None
) -> Response:
    """Do the opening handshake (RFC 6455 §4.1).

    Args:
        stream: leads to the server.
        protocol: the client's side; afterwards it is OPEN, and holds what came behind the response.
        request: what to send.
        deadline: on the clock of ``time.monotonic()``, or None.

    Raises:
        InvalidHandshake: if the handshake fails; InvalidMessage also if the network does.
        TimeoutError: if the deadline comes first.
    """
    lost: OSError | None = None
    protocol.send_request(request)
    try:
        for data in protocol.data_to_send():
            if not stream.write(data, deadline):
                raise TimeoutError("timed out while sending the request")
    except TimeoutError:
        raise
    except OSError as exc:
        lost = exc  # the server may have refused before it went away
    view = memoryview(bytearray(RECEIVE_SIZE))
    while True:
        count = 0
        try:
            count = stream.recv_into(view, deadline)
        except OSError as exc:
            if from_handler(exc):
                raise
            lost = lost or exc
        if count > 0:
            protocol.receive_data(view[:count])
        elif count == 0:
            protocol.receive_eof()
        if protocol.state is OPEN:
            (response,) = protocol.events_received()
            assert isinstance(response, Response)
            return response
        head = protocol._parser.head
        if head is not None and leads_on(head):
            raise InvalidStatus(head)  # its body may have no end before the server hangs up
        if protocol.handshake_exc is not None:
            _fail(protocol, lost)
        # The stream looks at the clock only when there is nothing to read.
        if count == NOTHING or (deadline is not None and time.monotonic() >= deadline):
            _give_up(protocol)


def _fail(protocol: ClientProtocol, lost: OSError | None) -> NoReturn:
    """Raise what made the handshake fail, without leaving a cycle of exception and protocol."""
    exc, protocol.handshake_exc = protocol.handshake_exc, None
    assert exc is not None
    if isinstance(exc, SecurityError) and protocol._parser.head is not None:
        # Only its body is too large: the status says more.
        raise InvalidStatus(protocol._parser.partial()) from exc
    if isinstance(lost, ssl_module.SSLError) and protocol._parser.head is None:
        raise lost  # with TLS 1.3 a server refuses a client's certificate after the TLS handshake
    if lost is not None and exc.__cause__ is not None:
        exc.__cause__.__cause__ = lost
    try:
        raise exc
    finally:
        del exc


def _give_up(protocol: ClientProtocol) -> NoReturn:
    """Raise what the handshake ends with when the deadline has come."""
    if protocol._parser.head is not None:  # a refusal whose explanation never ends
        raise InvalidStatus(protocol._parser.partial())
    raise TimeoutError("timed out while waiting for the response")
