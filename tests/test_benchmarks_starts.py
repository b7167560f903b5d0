"""Processes of the benchmarks are started several times, and every start is measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .benchmark_helpers import POSSIBLE, REASON, run_arguments

if not POSSIBLE:
    pytest.skip(REASON, allow_module_level=True)
else:
    from benchmarks import cells, contender, measure, peers
    from benchmarks.processes import BenchmarkError, Ends
    from benchmarks.progress import Progress
    from benchmarks.results import quartiles
    from benchmarks.run import Run
    from benchmarks.setup import build_floor


class FakeEnd:
    """A process whose work costs what ``cost`` says of the repetitions it has done so far."""

    def __init__(self, cost: Callable[[int], float]) -> None:
        self.cost = cost
        self.done: list[int] = []
        self.spent = 0

    def do(self, command: str, timeout: float = 60) -> int:
        words = command.split()
        if words[0] == "open":
            return 0
        each = self.cost(sum(self.done))
        self.done.append(int(words[1]))
        elapsed = round(each * self.done[-1])
        self.spent += elapsed
        return elapsed

    def cpu_ns(self) -> int:
        return 0


class FakeEnds:
    """Ends that are never processes, and that tell what becomes of them."""

    #: All that happened, in order: a verb and the peer.
    events: list[str]
    #: The peer that fails, and in which of its starts.
    failing: tuple[str, int]

    def __init__(self, client: peers.Peer, server: peers.Peer, setting: object) -> None:
        self.name = server.name
        self.events.append(f"start {self.name}")
        self.client = self.server = FakeEnd(lambda done: 1e6)
        if self.failing == (self.name, self.events.count(f"start {self.name}")):
            self.client.do = self.fail  # type: ignore[method-assign]

    def fail(self, command: str, timeout: float = 60) -> int:
        raise BenchmarkError("it broke")

    def stop(self) -> None:
        self.events.append(f"stop {self.name}")


@pytest.fixture
def fake_ends(monkeypatch: pytest.MonkeyPatch) -> type[FakeEnds]:
    """Replace the processes of a run, and what it measures of them, by fakes."""

    def measured(cell: cells.Cell, ends: FakeEnds, count: int) -> dict[str, float]:
        FakeEnds.events.append(f"measure {ends.name}")
        return {cell.metric: float(len(FakeEnds.events))}

    FakeEnds.events, FakeEnds.failing = [], ("", 0)
    monkeypatch.setattr(contender, "Ends", FakeEnds)
    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr(measure, "_SETTLE", 0)
    return FakeEnds


def run_cell(cell: str, directory: Path, **changed: Any) -> dict[str, Any]:
    run = Run(run_arguments(cells=cell, peers="floor,fullduplex", **changed), directory)
    found: dict[str, Any] = run.run_cell(cells.CELLS[cell], Progress(0))["peers"]
    return found


def test_each_start_has_its_own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Ends] = []

    class Recorded(Ends):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(contender, "Ends", Recorded)
    build_floor()
    run = Run(run_arguments(starts=3), tmp_path)
    outcome = run.run_cell(cells.CELLS["echo-32"], Progress(0))["peers"]["floor"]
    assert outcome["starts"] == [1, 1, 2, 2, 3, 3]
    assert len({end.pid for ends in started for end in (ends.client, ends.server)}) == 6
    assert all(
        end.child.poll() is not None for ends in started for end in (ends.client, ends.server)
    )


def test_rounds_are_interleaved_within_each_start(
    fake_ends: type[FakeEnds], tmp_path: Path
) -> None:
    found = run_cell("echo-32", tmp_path, starts=2, rounds=3)
    ours, floor = "fullduplex", "floor"
    orders = [(floor, ours), (ours, floor)] * 3
    wanted: list[str] = []
    for first in (0, 3):
        wanted += [f"start {floor}", f"start {ours}"]
        wanted += [f"measure {name}" for order in orders[first : first + 2] for name in order]
        # Each ends after its last round.
        wanted += [f"{verb} {name}" for name in orders[first + 2] for verb in ("measure", "stop")]
    assert fake_ends.events == wanted
    assert found[ours]["starts"] == [1, 1, 1, 2, 2, 2]
    # Ratios go round by round, so the rounds of all peers have to belong to the same starts.
    assert found[floor]["starts"] == found[ours]["starts"]


def test_medians_and_quartiles_are_over_all_starts(
    fake_ends: type[FakeEnds], tmp_path: Path
) -> None:
    outcome = run_cell("echo-32", tmp_path, starts=3, rounds=3)["fullduplex"]
    values = [one["wall_us"] for one in outcome["rounds"]]
    assert len(values) == 9
    assert outcome["median"] == sorted(values)[4]
    assert tuple(outcome["quartiles"]) == quartiles(values)


def test_memory_is_measured_once_a_start_and_one_peer_at_a_time(
    fake_ends: type[FakeEnds], tmp_path: Path
) -> None:
    found = run_cell("idle-1000", tmp_path, starts=3, rounds=5)
    assert found["fullduplex"]["starts"] == [1, 2, 3]
    work = [event for event in fake_ends.events if not event.startswith("start ")]
    assert [event.split()[0] for event in work] == ["measure", "stop"] * 6
    order = [event.split()[1] for event in work[::2]]
    assert order == ["floor", "fullduplex", "fullduplex", "floor", "floor", "fullduplex"]


def test_a_peer_that_fails_in_one_start_has_failed(
    fake_ends: type[FakeEnds], tmp_path: Path
) -> None:
    fake_ends.failing = ("fullduplex", 2)
    found = run_cell("echo-32", tmp_path, starts=3, rounds=2)
    assert found["fullduplex"] == {
        "error": "it broke",
        "client": "fullduplex",
        "server": "fullduplex",
    }
    ours = [index for index, event in enumerate(fake_ends.events) if event == "start fullduplex"]
    assert len(ours) == 2
    # Others are not measured beside it.
    assert fake_ends.events[ours[1] + 1] == "stop fullduplex"
    assert fake_ends.events.count("stop fullduplex") == 2
    assert found["floor"]["starts"] == [1, 1, 2, 2, 3, 3]


def test_all_starts_do_the_same_work(
    fake_ends: type[FakeEnds], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(measure, "warm_up", lambda cell, ends, warm, seconds: len(fake_ends.events))
    monkeypatch.setattr(
        measure, "measure", lambda cell, ends, count: counts.append(count) or {"wall_us": 1.0}
    )
    found = run_cell("echo-32", tmp_path, starts=2, rounds=1)
    assert [found[name]["count"] for name in ("floor", "fullduplex")] == [1, 2]
    assert counts == [1, 2, 2, 1]


def warmed_up(
    cell: str, cost: Callable[[int], float], seconds: float
) -> tuple[int, list[int], float]:
    """Return the count, the repetitions of each call, and the seconds of all of them."""
    end = FakeEnd(cost)
    ends: Any = argparse.Namespace(client=end)
    return measure.warm_up(cells.CELLS[cell], ends, 0.5, seconds), end.done, end.spent / 1e9


def test_the_count_is_that_of_a_warm_process() -> None:
    count, _, spent = warmed_up("echo-32", lambda before: 1e5 if before < 1000 else 1e4, 0.1)
    assert count == 10_000
    assert 0.5 <= spent <= 0.6


def test_slow_work_is_hardly_repeated_to_warm_up() -> None:
    assert warmed_up("receive-1m-mixed", lambda before: 5e8, 0.1) == (1, [1, 1, 1], 1.5)


def test_a_pair_warms_up_as_long_as_its_slower_end() -> None:
    assert peers.pair("ws+fullduplex").warm_up == peers.pair("fullduplex+ws").warm_up == 1.0
    assert peers.pair("fullduplex").warm_up < 1.0
    # The program that stands in for an end keeps nobody from warming up.
    busy = peers.for_cell(peers.pair("ws"), cells.CELLS["load-100"])
    assert busy is not None
    assert busy.warm_up == 1.0


def test_no_connection_is_left_out() -> None:
    count, done, _ = warmed_up("load-500", lambda before: 1e7, 0.1)
    assert count == 500
    assert min(done) == 500


@pytest.mark.parametrize(("cell", "waits"), [("load-100", []), ("broadcast-1000", [0.7])])
def test_only_broadcasts_wait_for_handlers_that_have_nothing_to_answer(
    cell: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(measure.time, "sleep", waited.append)
    ends: Any = argparse.Namespace(client=FakeEnd(lambda done: 1e6))
    measure.prepare(cells.CELLS[cell], ends)
    assert waited == waits
