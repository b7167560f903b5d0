"""Judges runs of the Autobahn TestSuite, and writes what came out as a table.

    autobahn_table.py DIRECTORY [TABLE]

DIRECTORY has a folder for each run, server-compiled and so on, with its results.json. Fails unless
all four are there, and every case that was chosen ran and is OK or INFORMATIONAL, in what was done
and in how the connection was closed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

RUNS = [(side, how) for how in ("compiled", "pure") for side in ("server", "client")]
FINE = {"OK", "INFORMATIONAL"}
TEXT = """\
# Conformance

The [Autobahn TestSuite](https://github.com/crossbario/autobahn-testsuite) judges WebSocket
programs by {count} cases: framing, pings and pongs, reserved bits, opcodes, fragmentation, UTF-8,
closing, limits, and compression with all its parameters. It is run against our server and
our client, compiled and in pure Python. A case is OK only if its strictest reading of RFC 6455 is
met, and how the connection was closed is judged apart. The three informational cases have no
right outcome.

{table}
`make autobahn` runs the {quick} cases that take seconds, as CI does, and `make autobahn-full` runs
all of them and writes this page. Both fail on any case that is not OK or informational. `AUTOBAHN`
names the directory of the harness that starts the suite.
"""
QUICK = 247
"""Cases that are left without sections 9 (limits), 12 and 13 (compression)."""


def below_ok(results: dict[str, Any]) -> list[str]:
    """Give a line for each case that is not as it should be."""
    cases = results["cases"]
    lines = [f"{name}: did not run" for name in results["meta"]["chosen"] if name not in cases]
    for name, case in cases.items():
        if not {case["behavior"], case["behaviorClose"]} <= FINE:
            lines.append(f"{name}: {case['behavior']}, closing {case['behaviorClose']}")
    return lines


def row(side: str, how: str, results: dict[str, Any]) -> str:
    """Give the line of the table for one run."""
    cases = results["cases"].values()
    behavior = Counter(case["behavior"] for case in cases)
    fine = [behavior["OK"], behavior["INFORMATIONAL"]]
    bad_closes = sum(case["behaviorClose"] not in FINE for case in cases)
    below = [behavior["NON-STRICT"], len(cases) - sum(fine) - behavior["NON-STRICT"]]
    return " | ".join(
        ["", f"{side}, {how}", *map(str, [len(cases), *fine, *below, bad_closes]), ""]
    )


def main() -> int:
    """Judge, print, and write."""
    directory = Path(sys.argv[1])
    lines = [
        "| | cases | OK | informational | non-strict | failed or unimplemented | bad close |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    wrong = 0
    count = 0
    for side, how in RUNS:
        path = directory / f"{side}-{how}" / "results.json"
        if not path.exists():
            print(f"{side}, {how}: no results")
            wrong += 1
            continue
        results = json.loads(path.read_text())
        count = max(count, len(results["cases"]))
        for line in below_ok(results):
            print(f"{side}, {how}: {line}")
            wrong += 1
        lines.append(row(side, how, results).strip())
    table = "\n".join(lines) + "\n"
    print(table)
    if len(sys.argv) > 2 and not wrong:
        Path(sys.argv[2]).write_text(TEXT.format(table=table, count=count, quick=QUICK))
    return int(wrong > 0 or count == 0)


if __name__ == "__main__":
    sys.exit(main())
