"""What was aimed at, beside what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import ratios
from .groups import LABELS, several_starts, spread

_HEAD = """\
| cell | compared with | aim: at most | measured | quartiles | |
|---|---|---:|---:|---:|---|"""

_HEAD_WITH_STARTS = """\
| cell | compared with | aim: at most | measured | quartiles | by start | |
|---|---|---:|---:|---:|---:|---|"""


def load(path: Path) -> dict[str, dict[str, float]]:
    """Read the aims: by cell and peer, the largest ratio of our cost to the peer's."""
    aims: dict[str, dict[str, float]] = json.loads(path.read_text())["aims"]
    return aims


def aims_table(document: dict[str, Any], aims: dict[str, dict[str, float]]) -> str:
    """A line for each aim whose cell and peer were measured; empty if none was."""
    lines = []
    starts = several_starts(document)
    for cell, wanted in aims.items():
        for base, most in wanted.items():
            found = ratios.ratio(document, cell, "fullduplex", base)
            if found is None:
                continue
            title = document["cells"][cell]["title"]
            verdict = "reached" if found.median <= most else "**missed**"
            lines.append(
                f"| {title} | {LABELS.get(base, base)} | {most:.2f} | {found.median:.2f} "
                f"| {found.low:.2f} to {found.high:.2f} "
                + (f"| {spread(found.starts)} | {verdict} |" if starts else f"| {verdict} |")
            )
    head = _HEAD_WITH_STARTS if starts else _HEAD
    return "\n".join([head, *lines]) if lines else ""
