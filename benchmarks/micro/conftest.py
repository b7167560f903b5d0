"""Both implementations in one run, as in the tests; and figures that a person can compare."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

IMPLEMENTATIONS = ["compiled", "pure"]

Speed = Callable[[str, float], None]


@pytest.fixture(params=IMPLEMENTATIONS, scope="session")
def fd(request: pytest.FixtureRequest) -> ModuleType:
    """The package in each implementation, loaded as the test suite loads it."""
    load: Callable[[str], ModuleType] = importlib.import_module("tests.conftest").load
    return load(request.param)


@pytest.fixture
def record(benchmark: Any) -> Speed:
    """Note a figure beside the time of a benchmark: the unit, and how much of it a call does.

    ``GB/s`` takes bytes a call, everything else takes things a call and notes nanoseconds each.
    """

    def note(unit: str, amount: float) -> None:
        if benchmark.stats is None:  # with --benchmark-disable
            return
        seconds = benchmark.stats.stats.median
        figure = amount / seconds / 1e9 if unit == "GB/s" else seconds / amount * 1e9
        benchmark.extra_info[unit] = round(figure, 3)

    return note


def pytest_benchmark_update_json(output_json: dict[str, Any], **_: Any) -> None:
    """Keep the statistics; every single sample would make a file of hundreds of megabytes."""
    for one in output_json["benchmarks"]:
        one["stats"].pop("data", None)


def shares_of_memcpy(found: list[Any]) -> list[tuple[str, float]]:
    """Compare masking in place with copying the same number of bytes, calls from Python included in both."""
    speeds = {one.name: one.extra_info["GB/s"] for one in found if "GB/s" in one.extra_info}
    shares = []
    for name, speed in speeds.items():
        size = name.rpartition("-")[2]
        copying = speeds.get(f"test_memcpy[{size}")
        if name.startswith("test_mask_in_place[compiled-") and copying:
            shares.append((size.removesuffix("]"), speed / copying))
    return shares


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the figures in the units that they are judged in."""
    session = getattr(config, "_benchmarksession", None)
    found = [b for b in getattr(session, "benchmarks", []) if b.extra_info]
    if not found:
        return
    terminalreporter.section("figures (median)")
    for one in found:
        for unit, value in one.extra_info.items():
            terminalreporter.write_line(f"{one.name:<52} {value:>12,.2f} {unit}")
    for size, share in shares_of_memcpy(found):
        name = f"masking {int(size):,} bytes in place (compiled)"
        terminalreporter.write_line(f"{name:<52} {share:>12,.2f} of memcpy")
