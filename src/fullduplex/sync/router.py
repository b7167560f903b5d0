"""Which handler serves which path: `werkzeug.routing` in front of `serve` (extra ``[router]``)."""

from __future__ import annotations

import http
import re
import ssl as ssl_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

from .server import Server, serve

if TYPE_CHECKING:
    from werkzeug.routing import Map

    from ..http11 import Request, Response
    from ..typing import PathLike
    from .server_connection import ServerConnection

__all__ = ["Router", "route", "unix_route"]

_split_absolute: Final = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)(.*)", re.IGNORECASE).fullmatch
"""Takes the absolute form of a request's target apart: authority, and path with query."""


class Router:
    """Finds the handler for a request by its path.

    Thread-safe. May be subclassed; see ``create_router`` of `route`.

    Args:
        url_map: rules whose endpoints are handlers, called as ``endpoint(connection, **captured)``.
            All of them are marked as rules for WebSockets.
        server_name: host, with a port where needed, for the URLs of redirects; None for what the
            client said in its Host header.
        url_scheme: scheme for the URLs of redirects.

    Raises:
        ImportError: if werkzeug is not installed.
    """

    def __init__(
        self, url_map: Map, server_name: str | None = None, url_scheme: str = "ws"
    ) -> None:
        import werkzeug.exceptions
        import werkzeug.routing

        self._http_exception = werkzeug.exceptions.HTTPException
        self._request_redirect = werkzeug.routing.RequestRedirect
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """Give the host for the URLs of redirects."""
        if self.server_name is not None:
            return self.server_name
        absolute = _split_absolute(request.path)
        if absolute is not None:  # it counts more than the Host header (RFC 9112 §3.3)
            return absolute[1].rpartition("@")[2]
        # ServerProtocol.accept() answers later to a request that has none, or several.
        hosts = request.headers.get_all("Host")
        return hosts[0] if hosts else ""

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """Make the response for a request to be made elsewhere."""
        response = connection.respond(http.HTTPStatus.FOUND, f"Found at {url}\n")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """Make the response for a path that no rule matches."""
        return connection.respond(http.HTTPStatus.NOT_FOUND, "Not Found")

    def route_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Find the handler and note it in the connection; a ``process_request`` for `serve`.

        Returns:
            None if there is one; else a response, with 302 or 404.
        """
        # A proxy may send the target in its absolute form (RFC 9112 §3.2.2).
        absolute = _split_absolute(request.path)
        target, _, query = (request.path if absolute is None else absolute[2]).partition("?")
        if absolute is not None and not target:
            target = "/"
        try:
            adapter = self.url_map.bind(
                self.get_server_name(connection, request), url_scheme=self.url_scheme
            )
            handler, kwargs = adapter.match(unquote(target), query_args=query)
        except self._request_redirect as redirect:
            return self.redirect(connection, redirect.new_url)
        except self._http_exception:
            return self.not_found(connection)
        connection.handler, connection.handler_kwargs = handler, dict(kwargs)
        return None

    def handler(self, connection: ServerConnection) -> None:
        """Call the handler that was found; a handler for `serve`."""
        assert connection.handler is not None
        connection.handler(connection, **connection.handler_kwargs)


def route(
    url_map: Map,
    *args: Any,
    server_name: str | None = None,
    ssl: ssl_module.SSLContext | Literal[True] | None = None,
    create_router: Callable[..., Router] | None = None,
    **kwargs: Any,
) -> Server:
    """Listen for WebSocket connections, and serve each path with its own handler.

    .. code-block:: python

        from werkzeug.routing import Map, Rule

        def channel(connection, channel_id): ...

        with route(Map([Rule("/channel/<int:channel_id>", endpoint=channel)]), "", 8765) as server:
            server.serve_forever()

    A path that no rule matches is answered with 404; one that misses a slash at its end with a
    redirect.

    Args:
        url_map: rules whose endpoints are handlers; called as ``endpoint(connection, **captured)``.
        *args: as for `serve`, without the handler.
        server_name: host, with a port where needed, for the URLs of redirects; None for what the
            client said in its Host header.
        ssl: as for `serve`; True makes redirects to ``wss://`` without TLS here, for a server
            behind a proxy.
        create_router: called as ``f(url_map, server_name, url_scheme)`` in place of `Router`.
        **kwargs: as for `serve`. A response of ``process_request`` comes before what the rules say.

    Raises:
        ImportError: if werkzeug is not installed.
        Otherwise as `serve`.
    """
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    first = kwargs.pop("process_request", None)

    def process_request(connection: ServerConnection, request: Request) -> Response | None:
        response: Response | None = None
        if first is not None:
            response = first(connection, request)
        return router.route_request(connection, request) if response is None else response

    return serve(router.handler, *args, process_request=process_request, **kwargs)


def unix_route(url_map: Map, path: PathLike | None = None, **kwargs: Any) -> Server:
    """Listen for WebSocket connections over a Unix socket, and serve each path with its own handler.

    Args:
        url_map: as for `route`.
        path: as for `unix_serve`.
        **kwargs: as for `route`, without host and port.

    Raises:
        ImportError: if werkzeug is not installed.
        Otherwise as `unix_serve`.
    """
    return route(url_map, unix=True, path=path, **kwargs)
