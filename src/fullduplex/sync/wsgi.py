"""WebSockets beside an application for WSGI, on the same port.

A WSGI server that gives its applications the client's socket lets them take it over. werkzeug's
development server does (``werkzeug.socket``), and gunicorn with the workers ``sync`` and
``gthread`` (``gunicorn.socket``). Each connection then occupies a thread of that server for as long
as it lasts.

There are two ways. `wsgi_app` makes a WSGI application out of a handler, to be mounted at a path, or
to be returned by a view where the framework takes WSGI applications for responses, as Flask does:

.. code-block:: python

    def echo(connection):
        for message in connection:
            connection.send(message)

    echo_app = wsgi_app(echo, origins=["https://example.com"])

    @app.route("/echo", websocket=True)
    def echo_view():
        return echo_app

In the midst of a view, `accept_wsgi` does the opening handshake and returns the connection. What the
view returns in place of a response is `taken_over` when that has been closed, or `refusal` of what
`accept_wsgi` raised:

.. code-block:: python

    @app.route("/echo", websocket=True)
    def echo_view():
        try:
            connection = accept_wsgi(request.environ, origins=["https://example.com"])
        except InvalidStatus as exc:
            return refusal(exc)
        with connection:
            for message in connection:
                connection.send(message)
        return taken_over

werkzeug finds a rule for the opening handshake only if it says ``websocket=True``; such a rule is for
nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from ..datastructures import Headers
from ..exceptions import InvalidHeaderValue, InvalidStatus
from ..http11 import Request, Response
from ..roles import SEND
from .reception import Options, make_options, run_handler
from .server_connection import ServerConnection, answer, find_response

__all__ = ["accept_wsgi", "refusal", "taken_over", "wsgi_app"]

SOCKET_KEYS = ("werkzeug.socket", "gunicorn.socket")

KEPT_KEY = "fullduplex.kept"
"""What keeps the descriptor of a TLS socket open in the environment until the request ends."""


def wsgi_app(
    handler: Callable[[ServerConnection], None], **options: Any
) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """Make a WSGI application that serves WebSocket connections.

    Requests that cannot become one, or that ``process_request`` answers, get an ordinary response.
    What ends a handler and is no Exception, as Ctrl-C is, goes on to the WSGI server, whose thread it
    is, once the connection is closed with 1011.

    Args:
        handler: called for each open connection, as by `serve`.
        **options: those of `serve` that are not about listening: from ``origins`` to
            ``create_connection``, without ``open_timeout``.

    Raises:
        TypeError, ValueError: for options that make no sense.
    """
    made = make_options(**options)
    made.check()

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve one connection."""
        try:
            connection = _accept(environ, None, made)
        except InvalidStatus as exc:
            return respond(exc.response, start_response)
        ended_by = run_handler(connection, handler)
        if ended_by is not None:
            end_writing(environ)  # the server may want to say something to that
            try:
                raise ended_by
            finally:
                del ended_by  # not to hold what holds this frame
        return taken_over(environ, start_response)

    return app


def accept_wsgi(environ: dict[str, Any], *, sock: Any = None, **options: Any) -> ServerConnection:
    """Take over the socket of a request, and do the opening handshake.

    Args:
        environ: the WSGI environment.
        sock: the client's socket; None to find it in ``environ``.
        **options: as for `wsgi_app`.

    Returns:
        An open connection. Close it before the request ends; the WSGI server closes the socket
        then.

    Raises:
        InvalidStatus: if the request was refused; nothing was sent, and `refusal` makes of it what
            the client should get.
        RuntimeError: if the WSGI server does not give its socket away.
        OSError: if the network failed.
    """
    return _accept(environ, sock, make_options(**options))


def refusal(exc: InvalidStatus) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """Make the WSGI application that sends what `accept_wsgi` refused a request with."""
    response = exc.response  # not the exception, which would hold the frames that it came through
    return lambda _, start_response: respond(response, start_response)


def taken_over(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Be the WSGI application that ends a request whose socket was taken over.

    The socket is shut for writing, so that nothing can follow the connection's last frame. A WSGI
    server that tries to send something learns what it knows well: that the client has gone.

    Returns:
        An iterator that raises BrokenPipeError, to servers that have not found out by themselves.
    """
    start_response("200 OK", [])
    return _say_nothing(environ, end_writing(environ))


def end_writing(environ: dict[str, Any]) -> bool:
    """Keep the WSGI server from writing to its socket; False if that is not to be found."""
    try:
        sock = find_socket(environ)
    except RuntimeError:
        return False
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    return True


def _say_nothing(environ: dict[str, Any], shut: bool) -> Iterator[bytes]:
    try:
        if shut:
            # werkzeug takes the first item while a view still runs, where the error below would be
            # an error of that view.
            yield b""
        raise BrokenPipeError(errno.EPIPE, "the connection was taken over")
    finally:
        kept = environ.pop(KEPT_KEY, None)
        if kept is not None:
            kept.close()


def respond(response: Response, start_response: Any) -> Iterable[bytes]:
    """Send a response the way of WSGI."""
    # What concerns the connection is the business of the WSGI server (PEP 3333).
    headers = [(k, v) for k, v in response.headers.raw_items() if k.lower() != "connection"]
    start_response(f"{response.status_code} {response.reason_phrase}", headers)
    return [bytes(response.body)]


def _accept(environ: dict[str, Any], sock: Any, options: Options) -> ServerConnection:
    sock = find_socket(environ) if sock is None else sock
    timeout = sock.gettimeout()
    try:
        # The WSGI server will close its socket, whatever we do with ours.
        own = sock.dup()
    except NotImplementedError:  # ssl.SSLSocket
        own = sock
        # Closing then waits for this: until the WSGI server has done with it, writing must fail as to
        # a client that has gone, not as to a descriptor that was closed.
        environ[KEPT_KEY] = sock.makefile("rb", buffering=0)
    connection: ServerConnection | None = None
    opened = False
    try:
        connection = options.make_connection(own, None, options.logger)
        open_wsgi(connection, environ, options)
        opened = True
    finally:
        if not opened:
            environ.pop(KEPT_KEY, None)
            if own is not sock:
                own.close()
            sock.settimeout(timeout)  # the mode of the descriptor is common to both
    return connection


def open_wsgi(connection: ServerConnection, environ: dict[str, Any], options: Options) -> None:
    """Answer a request with a 101.

    Raises:
        InvalidStatus: if it is to be refused; nothing was sent.
        OSError: if the network failed.
    """
    protocol = connection.protocol
    try:
        request = build_request(environ)
        # It is written and parsed once more, to be held to the rules that hold for all requests.
        protocol.receive_data(request.serialize())
    except (ValueError, InvalidHeaderValue) as exc:
        protocol.handshake_exc = exc
    if protocol.handshake_exc is not None:
        text = f"Failed to open a WebSocket connection: {protocol.handshake_exc}.\n"
        refusal = connection.respond(HTTPStatus.BAD_REQUEST, text)
        raise InvalidStatus(refusal) from protocol.handshake_exc
    protocol.events_received()
    connection.request = request
    response = find_response(connection, request, options.hooks)
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        raise InvalidStatus(response) from protocol.handshake_exc
    connection._writer.acquire(SEND)
    try:
        opened = answer(connection, response, options.hooks, None)
    finally:
        connection._leave_writer()
    if not opened:  # the response could not be sent as it was
        assert connection.response is not None
        raise InvalidStatus(connection.response) from protocol.handshake_exc
    connection._opened()
    connection.start_keepalive()


def find_socket(environ: dict[str, Any]) -> Any:
    """Give the client's socket.

    Raises:
        RuntimeError: if the server does not give it away.
    """
    for key in SOCKET_KEYS:
        if key in environ:
            return environ[key]
    server = environ.get("SERVER_SOFTWARE", "this WSGI server")
    raise RuntimeError(f"{server} does not let applications take over a connection")


def build_request(environ: dict[str, Any]) -> Request:
    """Give the request that a WSGI environment stands for (PEP 3333)."""
    path = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not path:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path = quote(path.encode("latin-1")) or "/"
        if environ.get("QUERY_STRING"):
            path += "?" + environ["QUERY_STRING"]
    # What is not ASCII would be refused; everything that stands for itself in a URI is left alone.
    path = quote(path.encode("latin-1"), safe="%/:?#[]@!$&'()*+,;=~")
    headers = Headers()
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            headers[key[5:].replace("_", "-").title()] = value
    # A request with a body is refused, so this one must not be lost.
    if environ.get("CONTENT_LENGTH"):
        headers["Content-Length"] = environ["CONTENT_LENGTH"]
    return Request(path, headers, environ["REQUEST_METHOD"], environ["SERVER_PROTOCOL"])
