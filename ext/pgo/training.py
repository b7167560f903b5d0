"""What the compiler learns from in a profile-guided build: the everyday work of both ends.

The amounts are fixed, and small: what counts is which branches are taken, not how often. Both ends
run in this process, over loopback. It has to end in the normal way, or nothing has been learnt.

There is nothing here but the standard library and the package: a build has not got its
dependencies, so no client is refused, which takes h11.
"""

from __future__ import annotations

import contextlib
import faulthandler
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fullduplex import wait
from fullduplex.sync.client import connect
from fullduplex.sync.server import broadcast, serve

#: Seconds after which a run that hangs shows where, and fails.
LIMIT = 180

KIB = 1024
MIB = 1024 * KIB
MIXED = "naïve – Ελληνικά – 日本語 – 🙂 – plain words; "

#: How many echoes of each message.
ECHOES: list[tuple[str | bytes, int]] = [
    (bytes(range(32)), 20_000),
    (bytes(256), 1000),
    (bytes(8 * KIB), 300),
    (bytes(100 * KIB), 40),
    (bytes(MIB), 8),
    ("plain " * 16, 600),
    (MIXED * 2, 600),
    ("x" * MIB, 5),
    (MIXED * (MIB // len(MIXED.encode())), 5),
]
SMALL = b"a small message of a stream, 40 bytes..."
STREAM = 4000
COMPRESSIBLE = '{"price": 12.5, "size": 300, "side": "buy"}, '

Handler = Callable[[Any], None]


def echo(connection: Any) -> None:
    """Send each message back."""
    for message in connection:
        connection.send(message)


def source(connection: Any) -> None:
    """Send as many small messages as the client asks for."""
    for count in connection:
        for _ in range(int(count)):
            connection.send(SMALL)


def sink(connection: Any) -> None:
    """Take messages, and answer text."""
    for message in connection:
        if isinstance(message, str):
            connection.send("ok")


def fragments(connection: Any) -> None:
    """Give each message back in the pieces that it came in."""
    for _ in range(2):
        connection.send(list(connection.recv_streaming()))
    echo(connection)


def ping(connection: Any) -> None:
    """Ping a client that does not read, so that its service thread has to answer."""
    for _ in range(20):
        connection.ping().wait()
    connection.send("done")
    connection.recv()


HANDLERS: dict[str, Handler] = {
    f"/{handler.__name__}": handler for handler in (echo, source, sink, fragments, ping)
}


def handle(connection: Any) -> None:
    """Run the handler of the request's path."""
    HANDLERS[connection.request.path](connection)


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[Any]:
    """Run a server; give the server, and what connects to a path of it."""
    kwargs = {"max_size": None, **options}
    scheme = "wss" if "ssl" in options else "ws"
    with serve(handle, "127.0.0.1", 0, **kwargs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            yield (
                server,
                lambda path, **more: connect(
                    f"{scheme}://127.0.0.1:{port}{path}", proxy=None, **{"max_size": None, **more}
                ),
            )
        finally:
            server.shutdown()
            thread.join()


def check(got: object, wanted: object) -> None:
    """Fail if a message is not the one that has been sent."""
    if got != wanted:
        raise SystemExit(f"received {got!r:.60} in place of {wanted!r:.60}")


def echoes(dial: Any, part: int = 1, **options: Any) -> None:
    """Send messages of all kinds and sizes back and forth, a part of them at least once."""
    with dial("/echo", **options) as connection:
        for message, count in ECHOES:
            for _ in range(max(count // part, 1)):
                connection.send(message)
                reply = connection.recv()
            check(reply, message)


def streams(dial: Any) -> None:
    """Send small messages one way, then the other."""
    with dial("/source") as connection:
        connection.send(str(STREAM))
        for _ in range(STREAM - 1):
            connection.recv()
        check(connection.recv(timeout=60), SMALL)
    with dial("/sink") as connection:
        for _ in range(STREAM):
            connection.send(SMALL)
        connection.send("done")
        check(connection.recv(), "ok")


def ping_pong(dial: Any, clients: int = 30, count: int = 60) -> None:
    """Have many connections at once, with a thread each."""

    def play(number: int) -> None:
        message = bytes([number]) * 64
        with dial("/echo") as connection:
            for _ in range(count):
                connection.send(message)
                check(connection.recv(timeout=60), message)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(play, range(clients)))


def openings(dial: Any, count: int = 200) -> None:
    """Open connections and close them at once."""
    for _ in range(count):
        dial("/echo").close()


def in_pieces(dial: Any) -> None:
    """Send and receive fragmented messages, and messages into a buffer."""
    buffer = bytearray(8 * KIB)
    with dial("/fragments") as connection:
        connection.send(bytes(size) for size in (1, 200, 5000, 70_000))
        check(len(b"".join(connection.recv_streaming())), 75_201)
        connection.send([MIXED, MIXED * 10, "", MIXED])
        check("".join(connection.recv_streaming()), MIXED * 12)
        for _ in range(100):
            connection.send([SMALL, SMALL])
            check(connection.recv_into(buffer), 2 * len(SMALL))


def controls(dial: Any) -> None:
    """Exchange pings and pongs, with and without a reader, and let keepalive run for a while."""
    with dial("/echo") as connection:
        for _ in range(100):
            answered = connection.ping()
            connection.pong(b"unasked")
            connection.send(SMALL)
            connection.recv()
            answered.wait()
    with dial("/ping") as connection:
        # Until the server has got all its pongs, nobody reads here but the service thread.
        time.sleep(0.2)
        check(connection.recv(), "done")
    idle = [dial("/echo", ping_interval=0.03) for _ in range(10)]
    time.sleep(0.3)
    for connection in idle:
        connection.close()


def to_several(server: Any, dial: Any, clients: int = 10) -> None:
    """Broadcast, and wait for several connections at once."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(dial("/echo")) for _ in range(clients)]
        for connection in connections:
            # The server lists a connection once the handshake has ended at its end, too.
            connection.send("here")
            connection.recv()
        for message in (SMALL, MIXED, COMPRESSIBLE * 20) * 10:
            broadcast(server.connections, message)
            waiting = list(connections)
            while waiting:
                for connection in wait(waiting):
                    check(connection.recv(), message)
                    waiting.remove(connection)


def compressed(dial: Any) -> None:
    """Send text back and forth that compresses well."""
    with dial("/echo") as connection:
        for message, count in [(COMPRESSIBLE, 200), (COMPRESSIBLE * 20, 100)]:
            for _ in range(count):
                connection.send(message)
                check(connection.recv(), message)
        message = COMPRESSIBLE * 20_000
        connection.send(message)
        check(connection.recv(), message)


def anonymous(purpose: int) -> ssl.SSLContext:
    """Make a context for TLS without certificates."""
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Later versions want certificates, and ADH in place of AECDH wants parameters from a file.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return context


def over_tls() -> None:
    """Do a part of it over TLS.

    Raises:
        OSError: if OpenSSL does not do it without certificates.
    """
    context = anonymous(ssl.PROTOCOL_TLS_SERVER)
    client = anonymous(ssl.PROTOCOL_TLS_CLIENT)
    with serving(compression=None, ssl=context) as (_, dial):
        secure = partial(dial, compression=None, ssl=client)
        openings(secure, 20)
        echoes(secure, part=5)


def main() -> int:
    """Do all of it; return the exit code."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    with serving(compression=None) as (server, dial):
        plain = partial(dial, compression=None)
        echoes(plain)
        streams(plain)
        ping_pong(plain)
        openings(plain)
        in_pieces(plain)
        controls(plain)
        to_several(server, plain)
    with serving() as (server, dial):
        compressed(dial)
        echoes(dial, part=20)
        openings(dial, 50)
        to_several(server, dial)
    try:
        over_tls()
    except OSError as exc:  # or a reset, if it was the server's OpenSSL
        print(f"nothing learnt about TLS: {exc}")
        # The module counts as one that took part all the same; pure Python does without it.
        with contextlib.suppress(ImportError):
            import fullduplex._tlsstream  # noqa: F401
    faulthandler.cancel_dump_traceback_later()
    return 0


if __name__ == "__main__":
    sys.exit(main())
