"""Two processes exchange messages: an echo server and its client, for `make demo`.

The client's process prints what goes back and forth, which implementation does it, and what a round
trip takes with the compiled and with the pure one. Server and client may be slowed down by whatever
else the machine is doing, so the figure is the best of several rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import fullduplex
from fullduplex.sync.client import ClientConnection, connect
from fullduplex.sync.server import ServerConnection, serve

MESSAGES = ["Hello, server!", "Grüße, 你好, 👋", b"\x00\x01\x02 some bytes"]
LARGE = "a large one, " * 50_000

ROUND_TRIPS = 1000
ROUNDS = 7


def echo(connection: ServerConnection) -> None:
    """Send back what comes."""
    for message in connection:
        connection.send(message)


def run_server() -> None:
    """Serve until the end of standard input, which is when the client's process ends."""
    with serve(echo, "127.0.0.1", origins=[None]) as server:
        threading.Thread(target=server.serve_forever).start()
        print(server.socket.getsockname()[1], flush=True)
        sys.stdin.read()


def start(what: str, *args: str, pure: bool = False) -> subprocess.Popen[str]:
    """Start this file again, as another process."""
    return subprocess.Popen(
        [sys.executable, __file__, what, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "FULLDUPLEX_PURE_PYTHON": "1" if pure else "0"},
        text=True,
    )


def measure(connection: ClientConnection) -> float:
    """Give the microseconds of a round trip of 32 bytes."""
    message = b"x" * 32
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            connection.send(message)
            connection.recv()
        best = min(best, time.perf_counter() - begin)
    return best / ROUND_TRIPS * 1e6


def run_client(port: str) -> None:
    """Exchange messages with the server, and measure."""
    uri = f"ws://127.0.0.1:{port}"
    with connect(uri, compression=None) as connection:
        print(measure(connection))


def show_messages(port: int) -> None:
    """Exchange a few messages, and show them."""
    with connect(f"ws://127.0.0.1:{port}") as connection:
        assert connection.response is not None
        print(f"connected to {connection.remote_address}, {connection.response.headers['Server']}")
        for message in [*MESSAGES, LARGE]:
            connection.send(message)
            answer = connection.recv(timeout=10)
            assert answer == message
            shown = repr(answer) if len(answer) < 60 else f"a text of {len(answer)} characters"
            print(f"  sent and got back: {shown}")
        connection.ping().wait(10)
        print(f"  ping answered in {connection.latency * 1e6:.0f} µs")
    print(f"closed: {connection.close_code}")


def compare(pure: bool) -> float:
    """Give the round trip time between a server and a client of one implementation."""
    with start("server", pure=pure) as server:
        assert server.stdout is not None and server.stdin is not None
        with start("client", server.stdout.readline().strip(), pure=pure) as client:
            assert client.stdout is not None
            microseconds = float(client.stdout.read())
        server.stdin.close()
    return microseconds


def main() -> None:
    """Show it all."""
    print(f"Fullduplex {fullduplex.__version__}, implementation: {fullduplex.IMPLEMENTATION}")
    print(f"this is process {os.getpid()}; ", end="")
    with start("server", pure=fullduplex.IMPLEMENTATION == "pure") as server:
        assert server.stdout is not None and server.stdin is not None
        port = int(server.stdout.readline())
        print(f"the server is process {server.pid}, on port {port}")
        show_messages(port)
        server.stdin.close()
    print("round trip of 32 bytes between two processes, both ends the same:")
    pure = compare(pure=True)
    if fullduplex.IMPLEMENTATION == "compiled":
        compiled = compare(pure=False)
        print(f"  compiled {compiled:6.1f} µs")
        print(f"  pure     {pure:6.1f} µs, {pure / compiled:.1f} times as long")
    else:
        print(
            f"  pure     {pure:6.1f} µs (the extension is not built, so there is no other figure)"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["server"]:
        run_server()
    elif sys.argv[1:2] == ["client"]:
        run_client(sys.argv[2])
    else:
        main()
