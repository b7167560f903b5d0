"""Threads for handlers, used again: one that is done waits a little for the next connection.

To start a thread costs several times what it costs to wake one. A worker is in one of two places:
among the *busy*, from the moment a task is given to it, or among the *idle*. Whoever takes a worker
out of the idle ones owns its wake-up: the thread that has a task for it, `Workers.stop`, or the
worker itself when its time is over. So there is no lock: taking an entry out of a dict is atomic,
and only one succeeds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ..conditions import wait_for_change
from ..environment import read_limit

__all__ = ["BATCH_FROM", "IDLE_TIME", "Workers", "make_thread"]

IDLE_TIME: Final = 5.0
"""Seconds that a thread waits for another task before it ends."""


def filtered() -> bool:
    """Tell whether a seccomp filter is on this process, which may kill it for unusual system calls."""
    try:
        with open("/proc/self/status", "rb") as status:
            return any(line.split() == [b"Seccomp:", b"2"] for line in status)
    except OSError:
        return True


def batch_from(setting: int) -> int:
    """Give `BATCH_FROM`: what the environment says, or else what is safe."""
    if setting >= 0:
        return setting
    return 0 if not hasattr(os, "SCHED_BATCH") or filtered() else 8


BATCH_FROM: Final = batch_from(read_limit("FULLDUPLEX_BATCH_FROM", -1, least=0))
"""So many tasks at once make the threads of further ones give way when they wake; 0: they never do."""


def give_way() -> bool:
    """Have the calling thread interrupt nobody when it wakes; it gets its share of time as before.

    With many threads at work, one whose bytes have come would interrupt another that holds the
    interpreter lock, only to find that lock taken, and to sleep again. Linux's policy for that is
    SCHED_BATCH, which threads and programs that this thread starts inherit.

    Returns:
        Whether it does now. Not where there is no such policy, where the process has chosen
        another one, and in the main thread, where a worker may be a greenlet.
    """
    if not hasattr(os, "SCHED_BATCH") or threading.get_native_id() == os.getpid():
        return False
    try:
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            return False
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError:  # a sandbox may forbid it
        return False
    return True


def make_thread(target: Callable[..., object], name: str, *args: Any) -> threading.Thread:
    """Make a thread that does not keep the process alive, if this interpreter allows that."""
    try:
        return threading.Thread(target=target, name=name, args=args, daemon=True)
    except RuntimeError:  # a subinterpreter may forbid daemon threads
        return threading.Thread(target=target, name=name, args=args, daemon=False)


class Worker:
    """A thread and the task that it was given."""

    __slots__ = ("task", "thread", "wakeup")

    def __init__(self) -> None:
        self.task: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        self.wakeup = threading.Lock()  # locked while the worker has nothing to do; guards nothing
        self.wakeup.acquire()
        self.thread: threading.Thread | None = None


class Workers:
    """A pool of threads that grows with the tasks at hand. Thread-safe.

    Args:
        name: for the threads.

    Attributes:
        pid: the process that the threads belong to.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = os.getpid()
        self._idle: dict[Worker, None] = {}
        self._busy: dict[Worker, None] = {}
        self._alive: dict[Worker, None] = {}
        self._stopped = False
        # Notified when a task ends, if somebody waits. Nothing is waited for while its lock is
        # held.
        self._ended = threading.Condition()  # re-entrant: a signal's handler may shut down, too
        self._waiting: list[threading.Thread] = []
        self._handing: int | None = None  # the thread that is in the midst of `run`

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in a thread that is idle, or in a new one.

        Raises:
            RuntimeError, MemoryError: if a thread cannot start; the function will not be called.
        """
        self._handing = threading.get_ident()
        try:
            if not self._wake((function, args)):
                self._start((function, args))
        finally:
            self._handing = None

    def _wake(self, task: tuple[Callable[..., object], tuple[Any, ...]]) -> bool:
        """Give the task to an idle worker; False if there is none."""
        while True:
            try:
                # The one that ran last: its stack is in the cache. Not by popitem(): what a call
                # returns is lost if a signal's handler raises just then.
                worker = next(reversed(self._idle))
                del self._idle[worker]
            except StopIteration:
                return False
            except (KeyError, RuntimeError):  # another was quicker
                continue
            try:
                worker.task = task
                self._busy[worker] = None
            finally:
                worker.wakeup.release()  # whatever happens: nobody else can any more
            return True

    def _start(self, task: tuple[Callable[..., object], tuple[Any, ...]]) -> None:
        worker = Worker()
        worker.task = task
        worker.thread = make_thread(self._main, self.name, worker)
        self._busy[worker] = self._alive[worker] = None
        try:
            worker.thread.start()
        except BaseException:
            # After an interruption the thread may run all the same, and take its name off these lists itself.
            self._busy.pop(worker, None)
            self._alive.pop(worker, None)
            raise

    def _main(self, worker: Worker) -> None:
        asked = False
        try:
            while True:
                assert worker.task is not None
                if not asked and 0 < BATCH_FROM <= len(self._busy):
                    asked = True
                    give_way()
                function, args = worker.task
                worker.task = None
                try:
                    function(*args)
                finally:
                    # An idle worker must keep nothing alive.
                    del function, args
                    self._busy.pop(worker, None)
                    self._notify()
                if not self._park(worker):
                    return
        finally:
            self._alive.pop(worker, None)
            self._notify()

    def _notify(self) -> None:
        # Who waits counts itself first and looks then: either it sees the change, or it is counted
        # here.
        if self._waiting:
            with self._ended:
                self._ended.notify_all()

    def _park(self, worker: Worker) -> bool:
        """Wait for the next task; False if the time is over."""
        self._idle[worker] = None
        if not self._stopped and worker.wakeup.acquire(timeout=IDLE_TIME):
            return worker.task is not None
        try:
            del self._idle[worker]
        except KeyError:  # taken just now, so the wake-up is certain
            worker.wakeup.acquire()
            return worker.task is not None
        return False

    def in_task(self) -> bool:
        """Tell whether the calling thread is one of the busy ones."""
        current = threading.current_thread()
        return any(worker.thread is current for worker in self._busy.copy())

    def _awaited(self) -> list[Worker]:
        """Give the workers that the calling thread, which is in `wait`, has to wait for."""
        current = threading.current_thread()
        alive = [w for w in self._alive.copy() if w.thread is not current]
        if current in [w.thread for w in self._alive.copy()]:
            # Two that wait for each other would do so for ever.
            alive = [w for w in alive if w.thread not in self._waiting]
        if self._handing == threading.get_ident():
            # In a signal handler that has interrupted `run`: what is handed over there begins later.
            alive = [w for w in alive if w in self._busy and w.task is None]
        return alive

    def stop(self) -> None:
        """End the threads: the idle ones now, the others after their task."""
        self._stopped = True
        while True:
            try:
                worker, _ = self._idle.popitem()
            except KeyError:
                return
            worker.wakeup.release()

    def wait(self, timeout: float | None = None) -> bool:
        """After `stop`, wait until all tasks and their threads have ended, but for the calling one.

        Called by a task, it does not wait for tasks that wait here as well. Called by a signal
        handler in the midst of `run`, it does not wait for the task that is handed over there.

        Args:
            timeout: seconds; None for no limit.

        Returns:
            Whether they have.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        current = threading.current_thread()
        with self._ended:
            self._waiting.append(current)
            self._ended.notify_all()
        try:
            while True:
                with self._ended:
                    if not self._awaited():
                        return True
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        return False
                    wait_for_change(self._ended, left)
        finally:
            with self._ended:
                self._waiting.remove(current)
