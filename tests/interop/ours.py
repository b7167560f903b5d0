"""Our own server, at whose other end are clients of other makes, or ourselves behind proxies."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .programs import HERE, TIMEOUT

PAGE = (HERE / "far/page.html").read_bytes()


def converse(fd: ModuleType, connection: Any) -> None:
    """Be a far end: echo, and obey commands."""
    for message in connection:
        match message.split() if isinstance(message, str) and message[:3] == "do " else []:
            case [_, "ping", word]:
                pong = connection.ping(word)
                # Nobody else reads here: this is also a test of the service thread.
                assert pong.wait(TIMEOUT)
                connection.send(f"pong {word}")
            case [_, "fragments", *words]:
                connection.send(words)
            case [_, "close", code, word]:
                connection.close(int(code), word)
            case _:
                connection.send(message)


class OurServer:
    """A server of ours in threads of this process.

    At the path ``/`` it is a far end, as others are, and `seen` gets what each connection ended
    with. Connections to other paths are handed to the test, which waits for them with `accept`.
    """

    def __init__(self, fd: ModuleType, compression: str | None) -> None:
        self.fd = fd
        self.seen: queue.Queue[dict[str, Any]] = queue.Queue()
        self.arrived: queue.Queue[tuple[Any, threading.Event]] = queue.Queue()
        self.server = fd.sync.server.serve(
            self.handle,
            "127.0.0.1",
            0,
            compression=compression,
            max_size=None,
            process_request=self.answer,
        )
        self.port = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def answer(self, connection: Any, request: Any) -> Any:
        """Give the browser its page, by plain HTTP."""
        if request.path != "/page":
            return None
        response = connection.respond(200, "")
        response.body = PAGE
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(PAGE))),
        ):
            del response.headers[name]
            response.headers[name] = value
        return response

    def handle(self, connection: Any) -> None:
        if connection.request.path == "/":
            with contextlib.suppress(self.fd.exceptions.ConnectionClosed):
                converse(self.fd, connection)
            connection.wait_closed(TIMEOUT)
            self.seen.put({"code": connection.close_code, "reason": connection.close_reason})
        else:
            done = threading.Event()
            self.arrived.put((connection, done))
            done.wait()

    @contextlib.contextmanager
    def accept(self) -> Iterator[Any]:
        """Wait for a connection to be tested; the handler's thread stays out of the way."""
        connection, done = self.arrived.get(timeout=TIMEOUT)
        try:
            with connection:
                yield connection
        finally:
            done.set()

    def close(self) -> None:
        self.server.shutdown(timeout=TIMEOUT)
        self.thread.join()
