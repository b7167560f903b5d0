"""Ratios between peers within a cell: what can be compared from one machine to another."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from .results import quartiles


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """What ``peer`` costs as a multiple of what ``base`` costs; less is better, in every cell."""

    cell: str
    peer: str
    base: str
    median: float
    low: float
    high: float
    #: The median of each start. All peers are measured in turn within a start, so what these differ
    #: in is the luck of the starts, not what else the machine did.
    starts: tuple[float, ...]


def ratio(document: dict[str, Any], cell: str, peer: str, base: str) -> Ratio | None:
    """Compare two peers round by round: what slowed the machine for a while slowed both."""
    outcome = document["cells"].get(cell)
    if outcome is None:
        return None
    pairs = [outcome["peers"].get(name) for name in (peer, base)]
    if not all(one and "rounds" in one for one in pairs):
        return None
    metric = outcome["metric"]
    ours, theirs = ([values[metric] for values in one["rounds"]] for one in pairs)
    if outcome["higher_is_better"]:
        ours, theirs = theirs, ours
    values = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, high = quartiles(values)
    by_start: dict[int, list[float]] = {}
    for start, value in zip(pairs[0]["starts"], values, strict=True):
        by_start.setdefault(start, []).append(value)
    starts = tuple(statistics.median(some) for some in by_start.values())
    return Ratio(cell, peer, base, statistics.median(values), low, high, starts)


@dataclasses.dataclass(frozen=True, slots=True)
class Expectation:
    """The range that a ratio has to be in; above it is a regression."""

    cell: str
    peer: str
    base: str
    low: float
    high: float

    def verdict(self, found: Ratio | None) -> str:
        """``ok``, ``worse``, ``better`` or ``missing``, the spread of the rounds allowed for."""
        if found is None:
            return "missing"
        if found.low > self.high:
            return "worse"
        return "better" if found.high < self.low else "ok"


def load_expected(path: Path) -> list[Expectation]:
    document = json.loads(path.read_text())
    return [
        Expectation(cell, *key.split(" / "), *limits)
        for cell, entries in document["ratios"].items()
        for key, limits in entries.items()
    ]


def record(document: dict[str, Any], peer: str, bases: list[str], path: Path) -> int:
    """Write the ranges that a result file suggests: its quartiles, and a tenth to either side."""
    entries: dict[str, dict[str, list[float]]] = {}
    for cell in document["cells"]:
        for base in bases:
            found = ratio(document, cell, peer, base)
            if found is not None:
                limits = [float(f"{limit:.3g}") for limit in (found.low * 0.9, found.high * 1.1)]
                entries.setdefault(cell, {})[f"{peer} / {base}"] = limits
    environment = document["environment"]
    about = {key: environment[key] for key in ("date", "cpu", "kernel", "commit")}
    text = json.dumps({"recorded": about, "ratios": entries}, indent=1)
    path.write_text(text + "\n")
    return sum(len(one) for one in entries.values())
