"""A hunt for races: many threads on one pair of connections do everything at random, from a seed.

What must hold at the end: every message arrived whole and in its sender's order, nobody hangs, nobody gets an
error that is not documented, and both ends are closed, their descriptors given back.
"""

from __future__ import annotations

import random
import ssl
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from .links import TIMEOUT, Background, pair

STEPS = 60
SENDERS = 3

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Storm:
    """All threads of one run, and what they saw."""

    def __init__(self, fd: ModuleType, ends: tuple[Any, Any], seed: int) -> None:
        self.fd = fd
        self.ends = ends
        self.seed = seed
        self.received: list[list[Any]] = [[], []]
        self.sent: list[list[int]] = [[0] * SENDERS, [0] * SENDERS]
        self.senders_left = 2 * SENDERS
        self.lock = threading.Lock()

    def send(self, end: int, number: int) -> None:
        rng = random.Random(f"{self.seed} {end} {number}")
        connection = self.ends[end]
        for step in range(STEPS):
            message = self.make(rng, number, step)
            while True:
                try:
                    if rng.random() < 0.2:
                        connection.send(self.cut(message, rng))
                    elif rng.random() < 0.3:
                        connection.send(message, timeout=TIMEOUT)
                    else:
                        connection.send(message)
                except self.fd.exceptions.ConcurrencyError:
                    continue  # somebody else is in the midst of fragments
                except self.fd.exceptions.ConnectionClosed:
                    return
                break
            self.sent[end][number] = step + 1

    def make(self, rng: random.Random, number: int, step: int) -> bytes | str:
        size = rng.choice((0, 1, 100, 1000, 20_000, 100_000))
        text = f"{number} {step} {size} " + "x" * size
        return text if rng.random() < 0.5 else text.encode()

    def cut(self, message: bytes | str, rng: random.Random) -> list[Any]:
        place = rng.randrange(len(message) + 1)
        return [message[:place], message[place:]]

    def receive(self, end: int) -> None:
        rng = random.Random(f"{self.seed} {end} receive")
        connection = self.ends[end]
        buffer = bytearray(1 << 18)
        while True:
            try:
                way = rng.randrange(5)
                message: Any
                if way == 0:
                    message = connection.recv(timeout=rng.choice((0, -1, 1e-5, 1e-3)))
                elif way == 1:
                    fragments = list(connection.recv_streaming())
                    message = type(fragments[0])().join(fragments)
                elif way == 2:
                    size = connection.recv_into(buffer, timeout=rng.choice((0, 1e-3, None)))
                    message = bytes(buffer[:size])
                else:
                    message = connection.recv()
            except TimeoutError:
                continue
            except self.fd.exceptions.ConnectionClosed:
                return
            self.received[end].append(message)

    def control(self, end: int) -> None:
        rng = random.Random(f"{self.seed} {end} control")
        connection = self.ends[end]
        for _ in range(2 * STEPS):
            try:
                way = rng.randrange(4)
                if way == 0:
                    connection.pong(b"x" * rng.randrange(126))
                elif way == 1:
                    assert connection.ping(ack_on_close=True).wait(TIMEOUT)
                else:
                    connection.ping()
                assert connection.latency >= 0
                assert connection.counters["frames_sent"] >= 0
            except self.fd.exceptions.ConnectionClosed:
                return

    def close(self, end: int, delay: float) -> None:
        threading.Event().wait(delay)
        self.ends[end].close(1001, "storm")

    def check(self, complete: bool) -> None:
        for end in (0, 1):
            numbers: list[list[int]] = [[] for _ in range(SENDERS)]
            for message in self.received[end]:
                text = message if isinstance(message, str) else message.decode()
                number, step, size, rest = text.split(" ")
                assert rest == "x" * int(size)
                numbers[int(number)].append(int(step))
            for number, steps in enumerate(numbers):
                assert steps == list(range(len(steps)))
                if complete:
                    assert len(steps) == STEPS
                else:
                    assert len(steps) <= STEPS
                assert len(steps) <= self.sent[1 - end][number] + 1
            assert self.ends[end].state is self.fd.protocol.State.CLOSED
            assert self.ends[end].socket.fileno() == -1


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("closing", ["at the end", "in the midst"])
def test_storm(
    fd: ModuleType,
    tls: bool,
    seed: int,
    closing: str,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    contexts = (server_context, client_context) if tls else None
    with pair(fd, contexts, ping_interval=0.01, ping_timeout=TIMEOUT, max_queue=4) as ends:
        storm = Storm(fd, ends, seed)
        for end in ends:
            end.start_keepalive()
        receivers = [Background(lambda end=end: storm.receive(end)) for end in (0, 1)]
        others = [Background(lambda end=end: storm.control(end)) for end in (0, 1)]
        others += [
            Background(lambda end=end, number=number: storm.send(end, number))
            for end in (0, 1)
            for number in range(SENDERS)
        ]
        for background in (*receivers, *others):
            background.__enter__()
        if closing == "in the midst":
            delay = random.Random(seed).random() * 0.2
            closers = [
                Background(lambda end=end: storm.close(end, delay)) for end in (0, 0, 1)[:seed]
            ]
            for closer in closers:
                closer.__enter__()
            for background in (*closers, *others, *receivers):
                background.result()
        else:
            for background in others:
                background.result()
            with Background(ends[1].close):
                ends[0].close()
            for receiver in receivers:
                receiver.result()
    storm.check(closing == "at the end")
