"""Figures for docs/http-measurements.md: what HTTP costs in an opening handshake.

    python benchmarks/http_heads.py

h11 is measured because the package depends on it; httptools if it is installed. Times are
microseconds of CPU, the best of several runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import h11

from fullduplex.client import ClientProtocol
from fullduplex.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from fullduplex.http11 import Request, Response
from fullduplex.http11_parser import RequestParser, ResponseParser
from fullduplex.server import ServerProtocol
from fullduplex.uri import parse_uri

try:
    import httptools
except ImportError:
    httptools = None

URI = parse_uri("ws://localhost:8765/chat")


def measure(function: Callable[[], object], number: int = 2000, repeat: int = 9) -> float:
    """Return microseconds of CPU for a call."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        for _ in range(number):
            function()
        times.append(time.process_time() - start)
    return min(times) / number * 1e6


def make_client() -> ClientProtocol:
    return ClientProtocol(URI, extensions=[ClientPerMessageDeflateFactory()])


def make_server() -> ServerProtocol:
    return ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])


def handshake() -> tuple[bytes, bytes]:
    """Open a connection without a socket; return what went over the wire."""
    client, server = make_client(), make_server()
    request = client.connect()
    request.headers["User-Agent"] = "Python/3.11 fullduplex/1.0"
    client.send_request(request)
    sent = b"".join(client.data_to_send())
    server.receive_data(sent)
    (event,) = server.events_received()
    response = server.accept(event)  # type: ignore[arg-type]
    response.headers["Server"] = "Python/3.11 fullduplex/1.0"
    server.send_response(response)
    answer = b"".join(server.data_to_send())
    client.receive_data(answer)
    return sent, answer


def ours(request: Request, response: Response, sent: bytes, answer: bytes) -> list[float]:
    return [
        measure(request.serialize),
        measure(lambda: RequestParser().feed(sent)),
        measure(response.serialize),
        measure(lambda: ResponseParser().feed(answer)),
    ]


def with_h11(request: Request, response: Response, sent: bytes, answer: bytes) -> list[float]:
    """A server reads and then writes, a client the reverse: h11 insists on the order."""

    def convert(message: Request | Response) -> list[tuple[str, str]]:
        return list(message.headers.raw_items())

    def write_request() -> h11.Connection:
        peer = h11.Connection(h11.CLIENT)
        peer.send(h11.Request(method="GET", target=request.path, headers=convert(request)))
        return peer

    def read_request() -> h11.Connection:
        peer = h11.Connection(h11.SERVER)
        peer.receive_data(sent)
        event: Any = peer.next_event()
        [(name.decode(), value.decode("latin-1")) for name, value in event.headers.raw_items()]
        return peer

    def answer_request() -> None:
        read_request().send(
            h11.InformationalResponse(status_code=101, headers=convert(response), reason=b"S")
        )

    def read_response() -> None:
        peer = write_request()
        peer.receive_data(answer)
        event: Any = peer.next_event()
        [(name.decode(), value.decode("latin-1")) for name, value in event.headers.raw_items()]

    writing, reading = measure(write_request), measure(read_request)
    return [
        writing,
        reading,
        measure(answer_request) - reading,
        measure(read_response) - writing,
    ]


class Collector:
    """What httptools calls back."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[str, str]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode(), value.decode("latin-1")))


def with_httptools(sent: bytes, answer: bytes) -> list[float]:
    """It has no writer."""

    def read(kind: Any, data: bytes) -> None:
        try:
            kind(Collector()).feed_data(data)
        except httptools.HttpParserUpgrade:
            return
        raise AssertionError

    return [
        float("nan"),
        measure(lambda: read(httptools.HttpRequestParser, sent)),
        float("nan"),
        measure(lambda: read(httptools.HttpResponseParser, answer)),
    ]


def main() -> None:
    sent, answer = handshake()
    request, response = RequestParser().feed(sent), ResponseParser().feed(answer)
    assert request is not None
    assert response is not None
    rows = {
        "this package": ours(request, response, sent, answer),
        "h11": with_h11(request, response, sent, answer),
    }
    if httptools is not None:
        rows["httptools"] = with_httptools(sent, answer)
    print("| | write request | read request | write response | read response |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, figures in rows.items():
        print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    print(f"\nthe whole handshake, both ends, no socket: {measure(handshake, 300):.0f}")


if __name__ == "__main__":
    main()
