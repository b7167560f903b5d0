"""The accept loop: takes connections from listening sockets, whatever goes wrong at that.

What accept(2) may say, and what follows:

- nobody is there any more, or a signal came: look again;
- the socket is none that listens, or is closed: the loop ends with that error, since no pause will
  mend it;
- anything else: out of descriptors (EMFILE, ENFILE) or memory (ENOBUFS, ENOMEM), a connection that
  was aborted meanwhile (ECONNABORTED), network errors, a MemoryError of Python's own: a short pause,
  and a line in the log, though not one for each.

The same goes for a connection for which no thread can be started. The loop ends when it is told to.
It sleeps in poll(2), with one end of a socket pair beside the listening sockets: that is the bell
by which others wake it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..stream import LONGEST

if TYPE_CHECKING:
    from ..typing import LoggerLike

__all__ = ["PAUSE", "Acceptor"]

PAUSE: Final = 0.05
"""Seconds of rest after a failure."""
QUIET_TIME: Final = 60.0
"""Seconds between two lines in the log about failures of the same kind."""

_NOBODY: Final = frozenset([errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR])
_HOPELESS: Final = frozenset([errno.EBADF, errno.ENOTSOCK, errno.EINVAL])


class Acceptor:
    """Accepts connections until it is told to stop.

    Args:
        sockets: listening sockets; they are put in non-blocking mode.
        dispatch: called with each new socket and its peer's address; must not block. If it raises,
            the connection is closed and the loop rests.
        may_accept: tells whether another connection can be taken on. If not, the loop sleeps until
            `ring` is called; until then connections wait in the kernel's queue.
        logger: where to log to.

    Attributes:
        held: the loop sleeps, or is about to, since it may not accept.
        stopped: `stop` was called.
    """

    def __init__(
        self,
        sockets: Sequence[Any],
        dispatch: Callable[[Any, Any], None],
        may_accept: Callable[[], bool],
        logger: LoggerLike,
    ) -> None:
        self.held = False
        self.stopped = False
        self._sockets = {sock.fileno(): sock for sock in sockets}
        for sock in sockets:
            # Another process may be faster than we are; to block in accept() would make us deaf to
            # the bell.
            sock.setblocking(False)
        self._dispatch = dispatch
        self._may_accept = may_accept
        self._logger = logger
        self._ringer, self._bell = socket.socketpair()
        self._ringer.setblocking(False)
        self._bell.setblocking(False)
        self._complaints: dict[str, float] = {}

    def ring(self) -> None:
        """Wake the loop, to look whether it may accept or has to stop. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._ringer.send(b"\0")

    def stop(self) -> None:
        """End the loop soon. From any thread."""
        self.stopped = True
        self.ring()

    def close(self) -> None:
        """Give the bell's descriptors back; the listening sockets are not touched."""
        self._ringer.close()
        self._bell.close()

    def run(self) -> None:
        """Accept connections until `stop` is called.

        Raises:
            OSError: if a listening socket is closed, or was none.
        """
        bell = self._bell.fileno()
        wait = make_waiter([bell, *self._sockets])
        heard: list[int] = []
        try:
            self._hear_signals(heard)
            while not self.stopped:
                if not self._may_accept():
                    self._hold()
                    continue
                for fd in wait(None):
                    if fd == bell:
                        self._hear()
                    elif not self.stopped:
                        self._accept(self._sockets[fd])
        finally:
            for previous in heard:
                signal.set_wakeup_fd(previous)

    def _hear_signals(self, heard: list[int]) -> None:
        """Have signals ring the bell, if they are the business of this thread.

        A signal that comes just before poll(2) does not interrupt it, and its handler, which may
        want to stop us, would wait until the next client comes.

        Args:
            heard: gets the descriptor that signals rang before, which the caller puts back.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        ring = functools.partial(signal.set_wakeup_fd, warn_on_full_buffer=False)
        with contextlib.suppress(ValueError):  # not in the main interpreter
            # In one step: what a call returns is lost if a signal's handler raises just then.
            heard.extend(map(ring, [self._ringer.fileno()]))
            if heard[0] != -1:  # somebody else's, who needs it more
                signal.set_wakeup_fd(heard[0])
                heard.clear()

    def _hold(self) -> None:
        self.held = True
        # Whoever makes room looks at `held` afterwards: so look for room once more.
        if not self._may_accept() and not self.stopped:
            make_waiter([self._bell.fileno()])(None)
            self._hear()
        self.held = False

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while len(self._bell.recv(64)) == 64:
                pass

    def _accept(self, listening: Any) -> None:
        try:
            sock, address = listening.accept()
        except (OSError, MemoryError) as exc:
            code = getattr(exc, "errno", None)
            if self.stopped or code in _NOBODY:
                return
            if code in _HOPELESS:
                raise
            self._rest("cannot accept connections", exc)
            return
        try:
            self._dispatch(sock, address)
        except Exception as exc:
            sock.close()
            self._rest("cannot serve a connection", exc)

    def _rest(self, what: str, exc: Exception) -> None:
        """Wait for things to get better, but not if it is time to stop."""
        line = f"{what}: {str(exc) or type(exc).__name__}"
        now = time.monotonic()
        if now - self._complaints.get(line, -QUIET_TIME) >= QUIET_TIME:
            self._complaints = {line: now}
            self._logger.warning("%s; trying again", line)
        if not self.stopped:
            make_waiter([self._bell.fileno()])(PAUSE)


def make_waiter(fds: Sequence[int]) -> Callable[[float | None], list[int]]:
    """Make a function that waits until one of some descriptors is readable or broken.

    It is called with a time-out in seconds, or None for none, and returns those descriptors; after `LONGEST`
    in any case. What
    it needs is looked up here, so that patched modules are honoured.
    """
    if not hasattr(select, "poll"):
        return lambda timeout: select.select(fds, [], [], timeout)[0]
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return lambda timeout: [
        fd for fd, _ in poller.poll(None if timeout is None else min(timeout, LONGEST) * 1000)
    ]
