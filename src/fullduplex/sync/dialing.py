"""From a name to a connected socket: look-up, Happy Eyeballs, Unix sockets, under one deadline.

All addresses of a host are tried as RFC 8305 wants it: families take turns, the next attempt begins
when the last one has failed or has been at it for 250 ms, the first that succeeds wins. The
addresses come from ``getaddrinfo()``, all at once and in the order of RFC 6724, so the parts of the
RFC that are about asking for IPv6 and IPv4 addresses separately have nothing to do here.

A look-up cannot be interrupted, so it runs in a helper thread, which is left behind when the
deadline comes first. Addresses in numbers need no look-up, and ``localhost`` no thread.

What goes wrong is reported with the place where it did: `explain` puts it into the message, without
changing the class of the exception.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..exceptions import WebSocketException
from ..stream import LONGEST

if TYPE_CHECKING:
    from ..stream import Stream
    from ..typing import PathLike

__all__ = ["Cancel", "DialOptions", "dial", "dial_unix", "explain", "look_up", "prepare_socket"]

Address: TypeAlias = tuple[int, Any]
"""Family and what ``connect()`` takes."""

ATTEMPT_DELAY: Final = 0.25
"""Seconds until the next address is tried while the last one has not answered (RFC 8305 §5)."""

CANCEL_DELAY: Final = 0.1
"""Seconds between looks at whether waiting has been cancelled, where nothing can wake us."""

FIRST_PAUSE: Final = 0.001
LAST_PAUSE: Final = 0.05
"""Seconds between attempts on a Unix socket whose queue is full."""

# What says more about the network of this machine than about the host: not reported if avoidable.
_UNROUTABLE: Final = frozenset(
    [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT]
)


class Cancel:
    """Lets another thread give up the opening of a connection.

    `cancel` may be called from any thread; everything else belongs to the thread that opens.

    Attributes:
        cancelled: whether `cancel` was called.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._stream: Stream | None = None

    def cancel(self) -> None:
        """Give up: what waits for the network raises ConnectionAbortedError soon; idempotent."""
        self.cancelled = True
        stream = self._stream
        if stream is not None:
            stream.abort()

    def attach(self, stream: Stream | None) -> None:
        """Have `cancel` abort this stream; None: leave the last one alone from here on."""
        self._stream = stream
        if stream is not None and self.cancelled:
            stream.abort()

    def check(self) -> None:
        """Raise ConnectionAbortedError if `cancel` was called."""
        if self.cancelled:
            raise ConnectionAbortedError(errno.ECONNABORTED, "connecting was cancelled")


@dataclass(frozen=True, slots=True)
class DialOptions:
    """How to open a TCP connection.

    Attributes:
        source_address: host and port to bind to.
        timeout: seconds for connecting alone; None for no limit of its own.
        all_errors: raise an ExceptionGroup with what happened to each address.
        socket_options: (level, option, value) triples for ``setsockopt()``, set before connecting.
    """

    source_address: tuple[str, int] | None = None
    timeout: float | None = None
    all_errors: bool = False
    socket_options: Sequence[tuple[int, int, int | bytes]] = ()


def explain(exc: BaseException, where: str) -> None:
    """Say in an exception where it happened, for instance ``while connecting to 192.0.2.1:80``.

    The message grows; where the class makes its own message, the exception gets a note.
    """
    if isinstance(exc, OSError) and exc.strerror is not None:
        exc.strerror = f"{exc.strerror} {where}"
        exc.args = (exc.args[0], exc.strerror, *exc.args[2:])
        return
    plain = type(exc).__str__ in (Exception.__str__, OSError.__str__, WebSocketException.__str__)
    if plain and len(exc.args) == 1 and isinstance(exc.args[0], str):
        exc.args = (f"{exc.args[0]} {where}",)
    else:
        exc.add_note(where)


def format_address(address: Any) -> str:
    """Write a socket's address as humans do."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return repr(address)


def prepare_socket(
    sock: Any, options: DialOptions | None = None, family: int | None = None
) -> None:
    """Set the options that every TCP socket gets, and those of the caller.

    A WebSocket message should leave at once, hence TCP_NODELAY.

    Args:
        sock: the socket, or anything like one.
        options: the caller's.
        family: of the socket, where that is known.
    """
    if family is None:
        family = getattr(sock, "family", None)
    if family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options is not None:
        for level, option, value in options.socket_options:
            sock.setsockopt(level, option, value)


# Looking up


def look_up(
    host: str, port: int, deadline: float | None, cancel: Cancel | None = None
) -> list[Address]:
    """Give all addresses of a host, those of different families taking turns (RFC 8305 §4).

    Args:
        host: name or address.
        port: the port.
        deadline: on the clock of ``time.monotonic()``, or None.
        cancel: lets another thread give up.

    Raises:
        socket.gaierror: if there is none.
        TimeoutError: if the deadline comes first. The thread that looks up ends when the system
            lets it.
    """
    try:
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: a NUL
        pass
    else:
        return [(socket.AF_INET, (host, port))]
    try:
        if ":" in host:
            addresses = _resolve(host, port, socket.AI_NUMERICHOST)
        elif host == "localhost" or (deadline is None and cancel is None):
            addresses = _resolve(host, port)
        else:
            addresses = _resolve_in_thread(host, port, deadline, cancel)
    except OSError as exc:
        explain(exc, f"while looking up {host!r}")
        raise
    return interleave(addresses) if len(addresses) > 2 else addresses


def _resolve(host: str, port: int, flags: int = 0) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as exc:  # an impossible name, which is not even asked for
        raise socket.gaierror(socket.EAI_NONAME, f"impossible name: {exc}") from exc
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _resolve_in_thread(
    host: str, port: int, deadline: float | None, cancel: Cancel | None
) -> list[Address]:
    outcome: list[list[Address] | Exception] = []
    done = threading.Event()

    def work() -> None:
        try:
            outcome.append(_resolve(host, port))
        except Exception as exc:
            # The traceback would hold this frame, and this frame the exception.
            outcome.append(exc.with_traceback(None))
        done.set()

    try:
        threading.Thread(target=work, name="fullduplex-look-up", daemon=True).start()
    except RuntimeError:  # no more threads: then the deadline has to wait
        work()
    while not done.wait(_time_left(deadline, cancel)):
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError("timed out")
    result = outcome.pop()
    if isinstance(result, Exception):
        try:
            raise result
        finally:
            del result  # not to hold what holds this frame
    return result


def _time_left(deadline: float | None, cancel: Cancel | None) -> float | None:
    """Give how long to wait at once, perhaps less than there is; raises if that was cancelled."""
    left = None if deadline is None else min(max(deadline - time.monotonic(), 0.0), LONGEST)
    if cancel is None:
        return left
    cancel.check()
    return CANCEL_DELAY if left is None else min(left, CANCEL_DELAY)


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Let the families take turns, the first one first, without changing the order within any."""
    families: dict[int, deque[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], deque()).append(address)
    ordered: list[Address] = []
    queues = deque(families.values())
    while queues:
        queue = queues.popleft()
        ordered.append(queue.popleft())
        if queue:
            queues.append(queue)
    return ordered


# Connecting


def dial(
    host: str,
    port: int,
    options: DialOptions,
    deadline: float | None,
    cancel: Cancel | None = None,
) -> socket.socket:
    """Open a TCP connection to a host, by whichever of its addresses answers first (RFC 8305).

    Args:
        host: name or address.
        port: the port.
        options: how.
        deadline: on the clock of ``time.monotonic()``, or None.
        cancel: lets another thread give up.

    Returns:
        The socket, with TCP_NODELAY, in whatever blocking mode.

    Raises:
        OSError: if there is no address, or none answers; socket.gaierror and TimeoutError among
            them.
        ExceptionGroup: instead, with ``all_errors``, if there were addresses.
    """
    addresses = look_up(host, port, deadline, cancel)
    if options.timeout is not None:
        limit = time.monotonic() + options.timeout
        deadline = limit if deadline is None else min(limit, deadline)
    race = _Race((host, port), options, deadline, cancel)
    # What one call can wait for; the race waits again and again.
    at_once = deadline is None or deadline - time.monotonic() <= LONGEST
    try:
        if len(addresses) == 1 and cancel is None and at_once:
            return race.connect_one(*addresses[0])
        return race.run(addresses)
    except TimeoutError as exc:
        if exc.errno is None:
            explain(exc, race.where())
        raise
    finally:
        race.failures.clear()  # their tracebacks lead back to the race


class _Race:
    """Attempts to reach one host at several addresses (RFC 8305 §5)."""

    def __init__(
        self,
        target: tuple[str, int],
        options: DialOptions,
        deadline: float | None,
        cancel: Cancel | None,
    ) -> None:
        self._target = target
        self.options = options
        self.deadline = deadline
        self.cancel = cancel
        self.pending: dict[socket.socket, Any] = {}  # with their addresses
        self.failures: list[tuple[str, OSError]] = []
        self.next_start = 0.0

    @property
    def target(self) -> str:
        """Where to, for error messages."""
        return format_address(self._target)

    def connect_one(self, family: int, sockaddr: Any) -> socket.socket:
        """Connect to the only address."""
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._prepare(sock, family)
                if self.deadline is not None:
                    # Not 0: that would mean not to wait at all.
                    sock.settimeout(max(self.deadline - time.monotonic(), 0.001))
                sock.connect(sockaddr)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            self.failures.append((format_address(sockaddr), exc))
            if isinstance(exc, TimeoutError) and exc.errno is None:
                raise
        else:
            return sock
        raise self.failure()

    def run(self, addresses: Sequence[Address]) -> socket.socket:
        """Connect to the address that answers first."""
        waiting = deque(addresses)
        try:
            while waiting or self.pending:
                if waiting and (not self.pending or time.monotonic() >= self.next_start):
                    winner = self._begin(*waiting.popleft())
                else:
                    winner = self._await(bool(waiting))
                if winner is not None:
                    del self.pending[winner]
                    return winner
        finally:
            for sock in self.pending:
                sock.close()
        raise self.failure()

    def _prepare(self, sock: socket.socket, family: int) -> None:
        prepare_socket(sock, self.options, family)
        if self.options.source_address is not None:
            sock.bind(self.options.source_address)

    def _begin(self, family: int, sockaddr: Any) -> socket.socket | None:
        """Begin to connect; gives the socket if that is done at once, as it is on the loopback."""
        self.next_start = time.monotonic() + ATTEMPT_DELAY
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as exc:
            self._fail(sockaddr, exc)
            return None
        self.pending[sock] = sockaddr
        try:
            self._prepare(sock, family)
            sock.setblocking(False)
            sock.connect(sockaddr)
        except BlockingIOError:
            return None
        except OSError as exc:
            self._drop(sock, exc)
            return None
        return sock

    def _await(self, more: bool) -> socket.socket | None:
        """Wait for an attempt to end, the time for the next one, or the deadline."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise TimeoutError("timed out")
        left = _time_left(self.deadline, self.cancel)
        if more:
            until_next = max(self.next_start - time.monotonic(), 0.0)
            left = until_next if left is None else min(left, until_next)
        for sock in _wait_connected(self.pending, left):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return sock
            self._drop(sock, OSError(code, os.strerror(code)))
        return None

    def _drop(self, sock: socket.socket, exc: OSError) -> None:
        sockaddr = self.pending.pop(sock)
        sock.close()
        self._fail(sockaddr, exc)

    def _fail(self, sockaddr: Any, exc: OSError) -> None:
        self.failures.append((format_address(sockaddr), exc))
        self.next_start = 0.0

    def where(self) -> str:
        """Say what has been tried so far."""
        parts = [f"{address}: {exc.strerror or exc}" for address, exc in self.failures]
        parts += [f"{format_address(sockaddr)}: no answer" for sockaddr in self.pending.values()]
        if parts and (len(parts) > 1 or not parts[0].startswith(self.target)):
            return f"while connecting to {self.target} ({'; '.join(parts)})"
        return f"while connecting to {self.target}"

    def failure(self) -> Exception:
        """Make what to raise when all attempts have failed."""
        exceptions = [exc for _, exc in self.failures]
        if self.options.all_errors:
            for address, exc in self.failures:
                explain(exc, f"while connecting to {address}")
            return ExceptionGroup(f"could not connect to {self.target}", exceptions)
        where = self.where()
        telling = (exc for exc in exceptions if exc.errno not in _UNROUTABLE)
        chosen = next(telling, exceptions[0])
        explain(chosen, where)
        return chosen


def _wait_connected(
    pending: dict[socket.socket, Any], timeout: float | None
) -> list[socket.socket]:
    """Wait until at least one of the sockets has connected or failed."""
    if hasattr(select, "poll"):
        by_fd = {sock.fileno(): sock for sock in pending}
        poller = select.poll()
        for fd in by_fd:
            poller.register(fd, select.POLLOUT)
        milliseconds = None if timeout is None else math.ceil(timeout * 1000)
        return [by_fd[fd] for fd, _ in poller.poll(milliseconds)]
    # Windows reports failures as exceptional conditions.
    _, writable, failed = select.select([], list(pending), list(pending), timeout)
    return list({*writable, *failed})


def dial_unix(
    path: PathLike, options: DialOptions, deadline: float | None, cancel: Cancel | None = None
) -> socket.socket:
    """Connect to a Unix socket.

    Args:
        path: where it is.
        options: how; without a source address.
        deadline: on the clock of ``time.monotonic()``, or None.
        cancel: lets another thread give up.

    Raises:
        OSError: if that fails, TimeoutError among them.
    """
    address = os.fspath(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    pause = FIRST_PAUSE
    try:
        prepare_socket(sock, options)
        sock.setblocking(False)
        while True:
            try:
                sock.connect(address)
            except BlockingIOError:
                # The server's queue is full, and there is no way to be told when it is not.
                left = _time_left(deadline, cancel)
                if left is not None and left <= 0:
                    raise TimeoutError("timed out") from None
                time.sleep(pause if left is None else min(pause, left))
                pause = min(2 * pause, LAST_PAUSE)
            else:
                return sock
    except BaseException as exc:
        sock.close()
        if isinstance(exc, OSError):
            explain(exc, f"while connecting to {address!r}")
        raise
