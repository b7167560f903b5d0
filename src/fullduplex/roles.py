"""Roles: which thread may read a connection, which may write it.

A role is a lock that tells *what kind of work* its owner is at, because that decides what others do: a
second ``recv()`` is an error, while the service thread lets go in a moment and is waited for. There are
two implementations of the same small surface; the compiled one takes a free role with one atomic operation.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from .conditions import LOOK_AGAIN, wait_for_change

FREE: Final = 0
RECV: Final = 1
"""A thread in ``recv()`` or the like; another one there is an error. What is taken by default."""
CLOSE: Final = 2
"""A thread in ``close()`` that reads until the peer's Close frame and the end of the stream."""
SERVICE: Final = 3
"""The service thread; it never blocks, so the role is free again in a moment."""
WAIT: Final = 4
"""A thread in ``wait()``, for several connections at once."""
SEND: Final = 5
"""A thread that writes frames."""

PATIENCE: Final = 0.005
"""Seconds that a thread waits for a role before those that only pass by have to leave it to those that wait."""


class PurePythonRole:
    """A lock with the kind of its owner.

    Args:
        changed: notified when the role is released while somebody waits. It is the connection's; its lock
            must not be held by who calls `acquire` or `release`.
    """

    def __init__(self, changed: threading.Condition) -> None:
        # What is under 0 is the owner's, in a tuple of its own. One call of a dict is atomic: a signal's handler
        # that raises, as that of Ctrl-C does, never finds the role half taken.
        self._held: dict[int, tuple[int, int]] = {}
        self._changed = changed
        self._waiters = 0
        # Those who have waited for long, in order, each with its thread; the condition guards it.
        self._queue: list[tuple[int, object]] = []

    @property
    def owner(self) -> int:
        """FREE or the kind given by the owner."""
        held = self._held.get(0)
        return FREE if held is None else held[0]

    @property
    def mine(self) -> bool:
        """Whether the calling thread is the owner: a signal's handler may run in the midst of its work."""
        held = self._held.get(0)
        return held is not None and held[1] == threading.get_ident()

    def contended(self) -> bool:
        """Tell whether somebody has waited for the role for long, so that it is only fair to queue up."""
        return bool(self._queue)

    def try_acquire(self, kind: int = RECV) -> int:
        """Take the role if it is free: returns FREE if it was, else the kind of its owner."""
        mine = (kind, threading.get_ident())
        try:
            held = self._held.setdefault(0, mine)
        except BaseException:
            if self._held.get(0) is mine:
                self._held.clear()
            raise
        return FREE if held is mine else held[0]

    def acquire(self, kind: int, timeout: float | None = None) -> bool:
        """Take the role, waiting up to ``timeout`` seconds (None for ever); False if time ran out."""
        if not self._queue and self.try_acquire(kind) == FREE:
            return True
        mine = self.mine
        try:
            return self._wait_for_it(kind, timeout)
        except BaseException:
            # A signal's handler raised. Was it when we had the role already, nobody would give it back.
            if self.mine and not mine:
                self.release()
            raise

    def _wait_for_it(self, kind: int, timeout: float | None) -> bool:
        begin = time.monotonic()
        deadline = None if timeout is None else begin + timeout
        thread = threading.get_ident()
        place = (thread, object())
        queue = self._queue
        with self._changed:
            self._waiters += 1
            try:
                while True:
                    # A place of this thread's: this one, or that of what a signal's handler has interrupted here, and
                    # which cannot go on before it.
                    if (not queue or queue[0][0] == thread) and self.try_acquire(kind) == FREE:
                        return True
                    now = time.monotonic()
                    left = None if deadline is None else deadline - now
                    if left is not None and left <= 0:
                        return False
                    if place not in queue:
                        if now >= begin + PATIENCE:
                            queue.append(place)
                            continue
                        left = PATIENCE if left is None else min(left, PATIENCE)
                    # Not longer: a handler that raises in release() may keep it from waking us.
                    left = LOOK_AGAIN if left is None else min(left, LOOK_AGAIN)
                    wait_for_change(self._changed, left)
            finally:
                self._waiters -= 1
                if place in queue:
                    queue.remove(place)
                    self._changed.notify_all()  # the next one is the first now

    def release(self) -> None:
        """Give the role back, and wake who waits for it."""
        self._held.clear()
        # A waiter counts itself before it tries: either it finds the role free, or it is counted here.
        if self._waiters:
            try:
                self._notify()
            except BaseException:  # a signal's handler, perhaps before anybody was woken
                self._notify()
                raise

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def reset(self, changed: threading.Condition) -> None:
        """Be free, whoever the owner was: after a fork, where that thread does not exist."""
        self._changed = changed
        self._held = {}
        self._waiters = 0
        self._queue = []


def release_mine(role: Role) -> None:
    """Release a role that the calling thread may still have: in pure Python a signal's handler may prevent that."""
    if role.mine:
        role.release()


if TYPE_CHECKING:
    Role = PurePythonRole
else:
    try:
        from ._roles import Role
    except ImportError:
        Role = PurePythonRole
