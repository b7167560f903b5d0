"""Roles: who has one, who waits for it, and that nobody is forgotten."""

from __future__ import annotations

import random
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from .streams import SOON, Background, until


@pytest.fixture(params=["Role", "PurePythonRole"])
def role(request: pytest.FixtureRequest, fd: ModuleType) -> Any:
    return getattr(fd.roles, request.param)(threading.Condition())


def test_kinds_are_different(fd: ModuleType) -> None:
    roles = fd.roles
    kinds = [roles.FREE, roles.RECV, roles.CLOSE, roles.SERVICE, roles.WAIT, roles.SEND]
    assert roles.FREE == 0
    assert len(set(kinds)) == 6


def test_which_role(fd: ModuleType) -> None:
    assert (fd.roles.Role is fd.roles.PurePythonRole) is (fd.IMPLEMENTATION == "pure")


def test_taking_and_releasing(fd: ModuleType, role: Any) -> None:
    assert role.owner == fd.roles.FREE
    assert role.try_acquire(fd.roles.RECV) == fd.roles.FREE
    assert role.owner == fd.roles.RECV
    assert role.try_acquire(fd.roles.SERVICE) == fd.roles.RECV
    assert role.owner == fd.roles.RECV
    role.release()
    assert role.owner == fd.roles.FREE
    assert role.acquire(fd.roles.CLOSE)
    assert role.owner == fd.roles.CLOSE
    role.release()


def test_owner_is_told_also_to_the_owner(fd: ModuleType, role: Any) -> None:
    """A role is not re-entrant."""
    role.try_acquire(fd.roles.SEND)
    assert role.try_acquire(fd.roles.SEND) == fd.roles.SEND


def test_time_limit(fd: ModuleType, role: Any) -> None:
    role.try_acquire(fd.roles.RECV)
    assert not role.acquire(fd.roles.CLOSE, 0)
    assert not role.acquire(fd.roles.CLOSE, -1)
    begin = time.monotonic()
    assert not role.acquire(fd.roles.CLOSE, SOON)
    assert time.monotonic() - begin >= SOON
    assert role.owner == fd.roles.RECV
    role.release()
    assert role.acquire(fd.roles.CLOSE, 0)


@pytest.mark.parametrize("timeout", [None, 60])
def test_waiter_gets_the_role(fd: ModuleType, role: Any, timeout: float | None) -> None:
    role.try_acquire(fd.roles.RECV)
    waiting = Background(role.acquire, fd.roles.CLOSE, timeout)
    time.sleep(0.01)  # most likely it waits now; it must get the role in any case
    assert waiting.thread.is_alive()
    role.release()
    assert waiting.result() is True
    assert role.owner == fd.roles.CLOSE


class Forced(threading.Condition):
    """A condition that does something at the moment when a waiter has it, before it tries again."""

    def __init__(self) -> None:
        super().__init__()
        self.at_entry: Any = None

    def __enter__(self) -> bool:
        result = super().__enter__()
        act, self.at_entry = self.at_entry, None
        if act is not None:
            act()
        return result


@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_release_between_the_first_try_and_the_wait(fd: ModuleType, kind: str) -> None:
    """Nobody waits yet, so nobody is woken; the waiter has to see that the role is free."""
    condition = Forced()
    role = getattr(fd.roles, kind)(condition)
    role.try_acquire(fd.roles.RECV)
    condition.at_entry = role.release
    assert role.acquire(fd.roles.CLOSE, 60)
    assert role.owner == fd.roles.CLOSE


@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_role_taken_between_wake_up_and_try(fd: ModuleType, kind: str) -> None:
    """A third thread is faster: the waiter goes on waiting, and gets it the next time."""

    class Stealing(threading.Condition):
        stolen = 0

        def wait(self, timeout: float | None = None) -> bool:
            woken = super().wait(timeout)
            if not self.stolen:
                self.stolen += 1
                assert role.try_acquire(fd.roles.SERVICE) == fd.roles.FREE
            return woken

    condition = Stealing()
    role = getattr(fd.roles, kind)(condition)
    role.try_acquire(fd.roles.RECV)
    waiting = Background(role.acquire, fd.roles.CLOSE, None)
    while not condition.stolen:
        if role.owner == fd.roles.RECV and not condition.stolen:
            with condition:
                waits = bool(condition._waiters)  # type: ignore[attr-defined]
            if waits:
                role.release()
                break
    until(lambda: condition.stolen)
    assert role.owner == fd.roles.SERVICE
    assert waiting.thread.is_alive()
    role.release()
    assert waiting.result() is True
    assert role.owner == fd.roles.CLOSE


def test_waiter_that_gives_up_leaves_no_trace(fd: ModuleType, role: Any) -> None:
    """A release after it touches the condition no more: its lock may then be held by who releases."""
    role.try_acquire(fd.roles.RECV)
    assert not role.acquire(fd.roles.CLOSE, 0.001)
    role.release()
    assert role.acquire(fd.roles.CLOSE, 0)


def test_exception_in_a_waiter(fd: ModuleType) -> None:
    class Interrupted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    for kind in ("Role", "PurePythonRole"):
        role = getattr(fd.roles, kind)(Interrupted())
        role.try_acquire(fd.roles.RECV)
        with pytest.raises(KeyboardInterrupt):
            role.acquire(fd.roles.CLOSE)
        assert role.owner == fd.roles.RECV
        role.release()
        assert role.try_acquire(fd.roles.CLOSE) == fd.roles.FREE


def test_reset_after_a_fork(fd: ModuleType, role: Any) -> None:
    role.try_acquire(fd.roles.RECV)
    role.reset(threading.Condition())
    assert role.owner == fd.roles.FREE
    assert role.try_acquire(fd.roles.SEND) == fd.roles.FREE
    waiting = Background(role.acquire, fd.roles.CLOSE, 60)
    role.release()
    assert waiting.result() is True


@pytest.mark.parametrize("seed", range(3))
def test_stress(fd: ModuleType, role: Any, seed: int) -> None:
    """One owner at a time, and in the end everybody had their turns."""
    inside: list[int] = []
    clashes: list[Any] = []
    turns = [0] * 6
    waited_in_vain = [0] * 6

    def work(number: int) -> None:
        rng = random.Random(seed * 100 + number)
        for _ in range(400):
            how = rng.randrange(3)
            if how == 0:
                taken = role.try_acquire(number + 1) == fd.roles.FREE
            elif how == 1:
                taken = role.acquire(number + 1, 0.0001)
            else:
                taken = role.acquire(number + 1)
            if not taken:
                waited_in_vain[number] += 1
                continue
            inside.append(number)
            if len(inside) != 1 or role.owner != number + 1:
                clashes.append((number, list(inside)))
            if rng.random() < 0.2:
                time.sleep(0)
            turns[number] += 1
            inside.remove(number)
            role.release()

    threads = [Background(work, number) for number in range(6)]
    for thread in threads:
        thread.result(50)
    assert clashes == []
    assert [a + b for a, b in zip(turns, waited_in_vain, strict=True)] == [400] * 6
    assert role.owner == fd.roles.FREE


def test_a_signal_handler_that_raises_leaves_no_role_taken(fd: ModuleType) -> None:
    """Python calls handlers between two instructions, so also when the role has just been taken."""

    class Interrupting(dict[int, tuple[int, int]]):
        def setdefault(self, *args: Any) -> Any:
            super().setdefault(*args)
            raise KeyboardInterrupt

    role = fd.roles.PurePythonRole(threading.Condition())
    role._held = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        role.try_acquire(fd.roles.RECV)
    assert role.owner == fd.roles.FREE
    role._held.update({0: (fd.roles.SEND, 0)})
    with pytest.raises(KeyboardInterrupt):
        role.try_acquire(fd.roles.RECV)
    assert role.owner == fd.roles.SEND


def test_who_waits_for_long_comes_first(fd: ModuleType, role: Any) -> None:
    """A thread that takes the role again and again leaves it to those who wait, in their order."""
    assert role.acquire(fd.roles.SEND)
    assert not role.contended()
    order: list[int] = []

    def take(number: int) -> None:
        assert role.acquire(fd.roles.SEND, 60)
        order.append(number)
        role.release()

    waiting = []
    for number in range(3):
        waiting.append(Background(take, number))
        time.sleep(10 * fd.roles.PATIENCE)
    until(role.contended)
    role.release()
    assert role.acquire(fd.roles.SEND, 60)
    order.append(3)
    role.release()
    for one in waiting:
        one.result()
    assert order == [0, 1, 2, 3]
    assert not role.contended()


def test_one_that_gives_up_leaves_the_queue(fd: ModuleType, role: Any) -> None:
    assert role.acquire(fd.roles.SEND)
    first = Background(role.acquire, fd.roles.SEND, 20 * fd.roles.PATIENCE)
    until(role.contended)
    second = Background(role.acquire, fd.roles.SEND, 60)
    assert first.result() is False
    role.release()
    assert second.result() is True
    role.release()
    assert not role.contended()
    assert role.try_acquire(fd.roles.SEND) == fd.roles.FREE


def test_whose_it_is(fd: ModuleType, role: Any) -> None:
    assert not role.mine
    role.try_acquire(fd.roles.RECV)
    assert role.mine
    assert Background(lambda: role.mine).result() is False
    role.release()
    assert not role.mine


class Interrupting(threading.Condition):
    """A condition in whose wait a signal's handler runs, once its waiter has a place in the queue."""

    role: Any = None
    handler: Any = None

    def wait(self, timeout: float | None = None) -> bool:
        thread = threading.current_thread()
        if self.handler is not None and thread is threading.main_thread() and self.role.contended():
            act, self.handler = self.handler, None
            self.release()  # as the wait itself does
            try:
                act()
            finally:
                self.acquire()
        return super().wait(timeout)


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_a_signal_handler_goes_before_what_it_has_interrupted(
    fd: ModuleType, kind: str, others: int
) -> None:
    """That has a place in the queue, and cannot go on before the handler is done."""
    condition = Interrupting()
    role = condition.role = getattr(fd.roles, kind)(condition)
    assert role.try_acquire(fd.roles.SEND) == fd.roles.FREE
    order = []

    def wait_for_the_role(name: str) -> None:
        begin = time.monotonic()
        assert role.acquire(fd.roles.CLOSE, 20)
        assert (
            time.monotonic() - begin < 10
        )  # though a handler that came before the wait could wake nobody
        order.append(name)
        role.release()

    def handler() -> None:
        releasing = threading.Timer(SOON, role.release)
        releasing.start()
        wait_for_the_role("handler")
        releasing.join()

    first = [Background(wait_for_the_role, "first") for _ in range(others)]
    if first:
        until(lambda: role.contended())
    condition.handler = handler
    wait_for_the_role("interrupted")
    for thread in first:
        thread.result()
    assert order == ["first"] * others + ["handler", "interrupted"]
    assert not role.contended()


@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_whose_a_role_is_where_threads_are_not_those_of_the_system(
    fd: ModuleType, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gevent and others run many of theirs in one of the system's, and say which by a function of their own."""
    current = 1
    monkeypatch.setattr(threading, "get_ident", lambda: current)
    role = getattr(fd.roles, kind)(threading.Condition(threading.Lock()))
    assert role.try_acquire(fd.roles.SEND) == fd.roles.FREE
    assert role.mine
    current = 2
    assert not role.mine
    role.release()
    assert role.acquire(fd.roles.SEND)
    assert role.mine
    current = 1
    assert not role.mine


@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_a_waiter_is_interrupted_when_it_has_the_role_already(fd: ModuleType, kind: str) -> None:
    """By a signal's handler, as it gives its place in the queue up."""

    class Interrupted(threading.Condition):
        def notify_all(self) -> None:
            super().notify_all()
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt

    role = getattr(fd.roles, kind)(Interrupted())
    held = threading.Event()

    def hold() -> None:
        assert role.acquire(fd.roles.SEND)
        held.set()
        until(role.contended)
        role.release()

    holder = Background(hold)
    assert held.wait(20)
    with pytest.raises(KeyboardInterrupt):
        role.acquire(fd.roles.CLOSE, 20)
    holder.result()
    assert role.owner == fd.roles.FREE
    assert not role.contended()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["Role", "PurePythonRole"])
def test_a_handler_that_raises_in_release_keeps_nobody_asleep(
    fd: ModuleType, kind: str, times: int
) -> None:
    """The role is free by then, and everybody would stand behind one who was not woken."""
    left = times

    class Interrupted(threading.Condition):
        def __enter__(self) -> bool:
            nonlocal left
            if left and threading.current_thread() is threading.main_thread():
                left -= 1
                raise KeyboardInterrupt
            return super().__enter__()

    role = getattr(fd.roles, kind)(Interrupted())
    assert role.try_acquire(fd.roles.SEND) == fd.roles.FREE
    waiting = Background(role.acquire, fd.roles.CLOSE, None)
    until(role.contended)
    time.sleep(0.02)  # most likely it sleeps now, in the queue
    with pytest.raises(KeyboardInterrupt):
        role.release()
    assert waiting.result() is True
    assert not left
    assert not role.contended()
